"""Documents name files and headings that exist."""

import re

import pytest
from conftest import ROOT

DOCUMENTS = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted((ROOT / 'docs').glob('*.md'))]


@pytest.mark.parametrize('document', DOCUMENTS, ids=lambda path: path.name)
def test_files_that_a_document_names_exist(document):
    text = document.read_text()
    for name in re.findall(r'(?:configs|tools|docs)/[\w./-]+\.(?:py|sh|md)', text):
        assert (ROOT / name).is_file(), f'{document.name} names {name}'
    for name, braces, rest in re.findall(r'`([\w.-]+)\{([\w,]+)\}([\w.-]+\.py)`', text):
        for size in braces.split(','):
            assert list((ROOT / 'configs').glob(f'**/{name}{size}{rest}')), f'{document.name} names {name}{size}{rest}'
    for link in re.findall(r'\]\(([^)#:]+)(?:#[\w-]+)?\)', text):
        assert (document.parent / link).exists(), f'{document.name} links to {link}'


@pytest.mark.parametrize('document', DOCUMENTS, ids=lambda path: path.name)
def test_links_into_a_document_find_their_heading(document):
    for link, anchor in re.findall(r'\]\(([^)#:]*)#([\w-]+)\)', document.read_text()):
        target = (document.parent / link) if link else document
        headings = re.findall(r'^#+ (.*)$', target.read_text(), re.MULTILINE)
        anchors = [re.sub(r'[^\w -]', '', heading.lower()).replace(' ', '-') for heading in headings]
        assert anchor in anchors, f'{document.name} links to {link}#{anchor}'
