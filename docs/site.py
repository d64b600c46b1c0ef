"""What the site shows beside the pages of docs/: README.md as front page, the changelog, and the API reference."""

import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
PAGES = {'README.md': 'index.md', 'CHANGELOG.md': 'changelog.md', 'CONTRIBUTING.md': 'contributing.md'}
LINK = re.compile(r'(!?)\[([^]]+)\]\(([^):#]+)(#[\w-]+)?\)')


def on_config(config):
    """List the packages in the navigation."""
    reference = next(item['Reference'] for item in config.nav if isinstance(item, dict) and 'Reference' in item)
    reference[:] = [f'reference/{name}.md' for name in modules_by_package()]
    return config


def on_files(files, config):
    """Add the pages that are not files of docs/."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=LINK.sub(_adapt, (ROOT / source).read_text())))
    for package, modules in modules_by_package().items():
        content = f'# {package}\n\n' + ''.join(map(_describe, modules))
        files.append(File.generated(config, f'reference/{package}.md', content=content))
    return files


def on_page_markdown(markdown, **_):
    """Lead links to README.md to the front page."""
    return markdown.replace('](../README.md', '](index.md')


def on_page_content(html, **_):
    """Show the Sphinx roles of docstrings as code."""
    return re.sub(r':(?:attr|class|data|func|meth|mod):<code>', '<code>', html)


def modules_by_package():
    """Names of the public modules of each package of mogacore, the package itself first."""
    packages = {}
    for path in sorted((ROOT / 'mogacore').rglob('*.py'), key=lambda path: (path.parent, path.name)):
        *parents, stem = path.relative_to(ROOT).with_suffix('').parts
        is_public = stem == '__init__' or not stem.startswith('_')
        if is_public and 'cli' not in parents:
            name = '.'.join(parents if stem == '__init__' else [*parents, stem])
            packages.setdefault('.'.join(parents[:2]), []).append(name)
    return packages


def _describe(module):
    """Entry of a module; what a package takes from its modules is described with those."""
    is_package = module != 'mogacore' and (ROOT / module.replace('.', '/')).is_dir()
    return f'::: {module}\n' + ('    options: {members: false}\n' if is_package else '') + '\n'


def _adapt(match):
    """A link of a page at the root of the repository; the name alone for a file that is not on the site."""
    image, text, target, anchor = match.groups()
    if target.startswith('docs/'):
        return f'{image}[{text}]({target.removeprefix("docs/")}{anchor or ""})'
    if target in PAGES:
        return f'[{text}]({PAGES[target]}{anchor or ""})'
    return text
