"""The definition of the Apptainer image, as far as it can be checked without apptainer."""

import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

DEFINITION = ROOT / 'docker' / 'mogacore.def'
SECTIONS = ('setup', 'files', 'post', 'environment', 'test', 'runscript', 'labels', 'help')
SCRIPTS = ('setup', 'post', 'environment', 'test', 'runscript')


@pytest.fixture(scope='module')
def definition():
    """Settings of the header, and the lines of each section."""
    header, *parts = re.split(r'^%(\w+)$', DEFINITION.read_text(), flags=re.MULTILINE)
    lines = [line for line in header.splitlines() if line and line[0] != '#']
    assert parts[::2] == list(SECTIONS)
    sections = {
        name: [line.strip() for line in text.strip().splitlines()]
        for name, text in zip(parts[::2], parts[1::2], strict=True)
    }
    return dict(line.split(': ', 1) for line in lines), sections


def test_the_base_is_that_of_the_server_image(definition):
    (base,) = set(re.findall(r'^FROM (\S+)', (ROOT / 'docker' / 'Dockerfile').read_text(), re.MULTILINE))
    assert definition[0] == {'Bootstrap': 'docker', 'From': base}


@pytest.mark.parametrize('section', SCRIPTS)
def test_scripts_are_valid_shell(definition, section):
    script = '\n'.join(definition[1][section])
    done = subprocess.run(['sh', '-n'], input=script, capture_output=True, text=True)
    assert script and done.returncode == 0, done.stderr


def test_the_copied_files_are_a_checkout_from_which_the_package_is_built(definition, tmp_path):
    for line in definition[1]['files']:
        source, target = line.split()
        copy = tmp_path / target.lstrip('/')
        copy.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, copy, ignore=shutil.ignore_patterns('__pycache__'))
        else:
            shutil.copy(ROOT / source, copy)
    root = tmp_path / 'opt' / 'mogacore'
    for path in re.findall(r'/opt/mogacore/([\w./-]+)', '\n'.join(definition[1]['post'])):
        assert (root / path).is_file()
    read = re.findall(r'\$(?:locks|root)/([\w./-]+)', (root / 'tools' / 'setup_env.sh').read_text())
    for name in {name for name in read if name.endswith(('.txt', '.py'))}:
        assert (root / name).is_file() or (root / 'locks' / name).is_file(), name
    done = subprocess.run(
        [sys.executable, 'setup.py', '--quiet', 'build', '--build-base', tmp_path / 'build'],
        cwd=root, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    code = 'from mogacore.locations import checkout, config_names; print(checkout(), len(config_names()))'
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=root, capture_output=True, text=True, env={'PYTHONPATH': '.'}
    )
    folder, number = done.stdout.split()
    assert folder == str(root) and int(number) > 50
