"""The wheel: its contents, and that it works in an empty folder without the checkout."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec

import pytest
from conftest import ROOT

from mogacore.runtime.serve.command import PACKAGES as SERVE_PACKAGES
from mogacore.version import __version__

if find_spec('pip') is None or find_spec('setuptools') is None:
    pytest.skip('builds a wheel with pip and setuptools', allow_module_level=True)

CONFIG = 'classification/moganet-xtiny_digits'


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """A wheel built from a copy of the checkout that contains a stale module of an older build."""
    source, out = tmp_path_factory.mktemp('source'), tmp_path_factory.mktemp('wheel')
    for name in ('mogacore', 'configs', 'tools'):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns('__pycache__'))
    for name in ('setup.py', 'pyproject.toml', 'model-index.yml', 'LICENSE', 'MANIFEST.in', 'README.md'):
        shutil.copy(ROOT / name, source)
    (source / 'runtime').mkdir()
    shutil.copy(ROOT / 'runtime' / 'setup.cfg', source / 'runtime')  # as MANIFEST.in says
    (source / 'build' / 'lib' / 'mogacore').mkdir(parents=True)
    (source / 'build' / 'lib' / 'mogacore' / 'gone.py').touch()
    subprocess.run(
        [sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation', '--no-index', '-w', out, '.'],
        cwd=source, check=True, capture_output=True,
    )  # fmt: skip
    assert not (source / 'mogacore' / '.mim').exists()
    (path,) = out.iterdir()
    return path


@pytest.fixture(scope='module')
def site(wheel, tmp_path_factory):
    """The unpacked wheel."""
    folder = tmp_path_factory.mktemp('site')
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def mogacore(site, *args, cwd):
    return subprocess.run(
        [sys.executable, '-W', 'ignore', '-m', 'mogacore', *args], cwd=cwd, capture_output=True, text=True,
        env={**os.environ, 'PYTHONPATH': str(site)},
    )  # fmt: skip


def test_wheel_contains_configs_tools_and_index(wheel, site):
    assert wheel.name == f'mogacore-{__version__}-py3-none-any.whl'
    mim = site / 'mogacore' / '.mim'
    for pattern in ('configs/**/*.py', 'configs/**/*.yml', 'tools/*.py'):
        ours = {path.relative_to(ROOT): path.read_bytes() for path in ROOT.glob(pattern)}
        assert ours and {path.relative_to(mim): path.read_bytes() for path in mim.glob(pattern)} == ours
    assert {path.name for path in (ROOT / 'tools').glob('*.sh')} - {path.name for path in mim.glob('tools/*.sh')} == {
        'quickstart.sh', 'run_tests.sh', 'setup_env.sh',
    }  # fmt: skip
    assert (mim / 'model-index.yml').read_bytes() == (ROOT / 'model-index.yml').read_bytes()


def test_wheel_contains_every_module_with_its_data_and_nothing_else(site):
    ours = {path.relative_to(ROOT) for path in (ROOT / 'mogacore').rglob('*') if path.is_file()}
    ours = {path for path in ours if '__pycache__' not in path.parts}
    assert {path.relative_to(site) for path in (site / 'mogacore').rglob('*') if path.is_file()
            and '.mim' not in path.parts} == ours  # fmt: skip
    assert (site / 'mogacore' / 'py.typed').is_file()


def test_wheel_installs_the_commands(site):
    (entry_points,) = site.glob('*.dist-info/entry_points.txt')
    assert entry_points.read_text().split('\n')[:3] == [
        '[console_scripts]', 'mogacore = mogacore.cli.main:main', 'mogacore-runtime = mogacore.runtime.command:main',
    ]  # fmt: skip


def test_wheel_has_the_extras_of_the_runtime(site):
    (metadata,) = site.glob('*.dist-info/METADATA')
    for extra, packages in (('serve', SERVE_PACKAGES.values()), ('demo', ['gradio'])):
        needed = re.findall(rf"^Requires-Dist: ([\w-]+)>=.*extra == [\"']{extra}[\"']$", metadata.read_text(), re.M)
        assert sorted(needed) == sorted(packages)


def test_wheel_finds_a_config_by_its_short_name(site, tmp_path):
    pytest.importorskip('mmpretrain')
    done = mogacore(site, 'complexity', CONFIG, '--json', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout[done.stdout.index('{') :])['input_shape'] == [1, 32, 32]


def test_wheel_uses_data_and_work_dirs_of_the_current_folder(site, tmp_path):
    pytest.importorskip('mmpretrain')
    (site / 'mogacore' / '.mim' / 'data' / 'digits' / 'classification').mkdir(parents=True, exist_ok=True)
    done = mogacore(site, 'train', CONFIG, '--dry-run', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'work dir work_dirs/moganet-xtiny_digits' in done.stdout
    assert 'data folder data/digits/classification is missing' in done.stdout and 'mogacore data digits' in done.stdout
    done = mogacore(site, 'data', 'digits', '--parts', 'classification', cwd=tmp_path)
    assert done.stdout.startswith('data/digits/classification: '), done.stderr
    assert 'the data exists' in mogacore(site, 'train', CONFIG, '--dry-run', cwd=tmp_path).stdout


def test_wheel_cannot_rewrite_the_index(site, tmp_path):
    done = mogacore(site, 'reproduce', '--write', cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith('error: --write needs a checkout')
