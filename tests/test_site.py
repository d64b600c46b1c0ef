"""The site of the documentation, built as it is published."""

import re
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest
from conftest import ROOT

pytest.importorskip('material')
pytest.importorskip('mkdocstrings')
from mkdocs.commands.build import build
from mkdocs.config import load_config

import mogacore


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    """Folder of the site; a warning of the builder is an error."""
    folder = tmp_path_factory.mktemp('site')
    build(load_config(str(ROOT / 'mkdocs.yml'), site_dir=str(folder)))
    return folder


class Links(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.links, self.ids = [], set()
        self.feed(page.read_text())

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids.update(filter(None, (attrs.get('id'), attrs.get('name'))))
        self.links += filter(None, (attrs.get('href'), attrs.get('src')))


def test_every_link_finds_its_file_and_heading(site):
    pages = {page: Links(page) for page in site.rglob('*.html') if page.name != '404.html'}
    assert len(pages) > 30
    for page, found in pages.items():
        for link in found.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            target = target / 'index.html' if target.is_dir() else target
            assert target.is_file(), f'{page.name}: {link}'
            if parts.fragment and target in pages and not parts.fragment.startswith('__'):
                assert unquote(parts.fragment) in pages[target].ids, f'{page.name}: {link}'


def test_no_page_loads_anything_from_another_host(site):
    for page in site.rglob('*.html'):
        loaded = re.findall(r'<(?:script|img|iframe)[^>]* src="([^"]+)"|<link[^>]* href="([^"]+)"', page.read_text())
        assert loaded and not [link for links in loaded for link in links if re.match(r'(https?:)?//', link)], page.name


def test_every_page_of_docs_is_on_the_site_and_readme_is_the_front_page(site):
    assert {path.stem for path in (ROOT / 'docs').glob('*.md')} <= {path.stem for path in site.glob('*.html')}
    assert (ROOT / 'README.md').read_text().splitlines()[0].strip('# ') in (site / 'index.html').read_text()


def test_the_reference_describes_what_the_package_exports(site):
    text = ''.join(page.read_text() for page in (site / 'reference').glob('*.html'))
    for name in ('models.moganet.MogaNet', 'checkpoint.load.load_into', 'deploy.folding.fuse', 'create_model'):
        assert f'id="mogacore.{name}"' in text, name
    assert mogacore.list_models.__doc__.split()[0] == 'Names' and 'from small to large' in text
    assert not re.search(':(func|class|meth):', text)
