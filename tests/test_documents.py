"""Documents name files, headings, subcommands and flags that exist, and show commands that can be parsed."""

import argparse
import re
import shlex
from functools import cache

import pytest
from conftest import ROOT

from mogacore.cli.data import WRITERS
from mogacore.cli.main import SUBCOMMANDS, load

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


@cache
def flags(subcommand):
    """Flags of a subcommand; None of one that passes its arguments on."""
    parser = argparse.ArgumentParser(prog=subcommand)
    load(subcommand).add_arguments(parser)
    passes_on = any(action.nargs == argparse.REMAINDER for action in parser._actions)
    return None if passes_on else parser._option_string_actions


def commands(text):
    """Subcommand and flags of each command in the text; a backslash continues a line."""
    text = re.sub(r'\\\n\s*', '', text)
    for name, rest in re.findall(r'(?:\bmogacore |tools/)([a-z][\w-]*)(?:\.py)?((?: [^\n`#|;]*)?)', text):
        name = name.replace('_', '-')
        if name in SUBCOMMANDS:
            yield name, re.findall(r'(?<![\w-])(--?[a-z][\w-]*)', rest)


@pytest.mark.parametrize('document', DOCUMENTS, ids=lambda path: path.name)
def test_flags_of_commands_in_a_document_exist(document):
    for name, given in commands(document.read_text()):
        for flag in given:
            assert flags(name) is None or flag in flags(name), f'{document.name}: mogacore {name} has no {flag}'


SCRIPTS = {'convert-checkpoint': ['convert'], 'make-digits': ['data', 'digits'], 'make-hands': ['data', 'hands']}


def shown(text):
    """Arguments of ``mogacore`` in each command on a line of its own, without those that show optional parts."""
    text = re.sub(r'\\\n\s*', '', text)
    for line in re.findall(r'^(?:    |\$ )+((?:\w+=\S+ )*(?:mogacore|python|bash|torchrun) .*)$', text, re.MULTILINE):
        found = re.search(r'(?:\bmogacore |\btools/(?=\w+\.py))([a-z][\w-]*)(?:\.py)?(.*)', line)
        if found and not re.search(r'\[-|\.\.\.', line):
            name = found[1].replace('_', '-')
            yield line, [*SCRIPTS.get(name, [name]), *shlex.split(found[2], comments=True)]


@pytest.mark.parametrize('document', DOCUMENTS, ids=lambda path: path.name)
def test_commands_in_a_document_can_be_parsed(document, monkeypatch, capsys):
    monkeypatch.setattr('mogacore.datasets.digits.write_digits', lambda **settings: {})
    monkeypatch.setattr('mogacore.datasets.hands.write_hands', lambda **settings: {})
    for line, (name, *arguments) in shown(document.read_text()):
        if name not in SUBCOMMANDS:
            assert not arguments or name.startswith('-'), f'{document.name}: {line}'
            continue
        parser = argparse.ArgumentParser(prog=name)
        load(name).add_arguments(parser)
        parse = parser.parse_args if flags(name) is None else parser.parse_intermixed_args
        try:
            args = parse(arguments)
            if name == 'data':
                WRITERS[args.data](args.arguments)
        except SystemExit:
            pytest.fail(f'{document.name}: {line}: {capsys.readouterr().err}')


@pytest.mark.parametrize('document', DOCUMENTS, ids=lambda path: path.name)
def test_configs_that_a_document_names_by_short_name_exist(document):
    tasks = '|'.join(path.name for path in (ROOT / 'configs').iterdir() if path.name != '_base_')
    for name in re.findall(rf'(?<![\w/.-])({tasks})/([\w./-]*\w)(?![\w{{*/-])', document.read_text()):
        path = ROOT / 'configs' / '/'.join(name)
        assert path.exists() or path.with_name(f'{path.name}.py').exists(), f'{document.name} names {"/".join(name)}'


def test_the_installation_page_lists_every_subcommand():
    table = (ROOT / 'docs' / 'install.md').read_text().partition('| subcommands | purpose |')[2].partition('\n\n')[0]
    listed = [name for row in table.splitlines()[2:] for name in re.findall(r'`([\w-]+)`', row.split('|')[1])]
    assert sorted(listed) == sorted(SUBCOMMANDS)
