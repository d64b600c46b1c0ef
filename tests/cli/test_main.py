"""The command mogacore, and that tools/ run the same functions."""

import importlib
import os
import runpy
import subprocess
import sys

import pytest
from conftest import ROOT

from mogacore.cli import main as command
from mogacore.version import __version__

TOOLS = sorted(path.name for path in (ROOT / 'tools').glob('*.py'))
# Tools that do not run the main of the module with their name.
RENAMED = {
    'convert_checkpoint': ('convert', 'main'),
    'make_digits': ('data', 'digits'),
    'make_hands': ('data', 'hands'),
}


def call(*args):
    """Exit code of the command, as pip's script calls it."""
    with pytest.raises(SystemExit) as leave:
        command.main(list(args))
    return leave.value.code or 0


def test_help_lists_every_subcommand_with_its_description(capsys):
    assert call('--help') == 0
    shown = capsys.readouterr().out
    for name in command.SUBCOMMANDS:
        (line,) = (line for line in shown.splitlines() if line.startswith(f'  {name} '))
        assert len(line.split(maxsplit=1)[1]) > 20, name


def test_no_subcommand_shows_the_help(capsys):
    call()
    assert 'receptive-field' in capsys.readouterr().out


def test_version_equals_that_of_the_package(capsys):
    assert call('--version') == 0
    assert capsys.readouterr().out == f'mogacore {__version__}\n'


def test_help_imports_neither_torch_nor_mmengine():
    code = """
import sys
from mogacore.cli.main import main
try:
    main(['--help'])
except SystemExit:
    print('imported:', [name for name in ('torch', 'mmengine', 'numpy') if name in sys.modules])
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.endswith('imported: []\n')


def test_every_module_of_the_package_is_a_subcommand():
    modules = {path.stem for path in (ROOT / 'mogacore' / 'cli').glob('*.py')} - {'__init__', 'arguments', 'main'}
    assert modules == {name.replace('-', '_') for name in command.SUBCOMMANDS}


@pytest.mark.parametrize('name', command.SUBCOMMANDS)
def test_every_subcommand_has_help_under_its_name(name, capsys):
    assert call(name, '--help') == 0
    assert f'usage: mogacore {name} ' in capsys.readouterr().out


@pytest.mark.parametrize('name', ['digits', 'hands'])
def test_each_data_set_has_separate_help(name, capsys):
    assert call('data', name, '--help') == 0
    assert f'usage: mogacore data {name} ' in capsys.readouterr().out


@pytest.mark.parametrize(
    'name, message', [('trian', 'did you mean train?'), ('receptive_field', 'receptive-field'), ('zzz', 'choose from')]
)
def test_unknown_subcommand_is_one_line(name, message, capsys):
    assert call(name, '--help') == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f'error: subcommand {name!r} is unknown') and message in line


@pytest.mark.parametrize('tool', [name for name in TOOLS if name != 'doctor.py'])
def test_a_tool_runs_the_function_of_its_subcommand(tool):
    stem = tool.removesuffix('.py')
    module, function = RENAMED.get(stem, (stem, 'main'))
    assert module.replace('_', '-') in command.SUBCOMMANDS
    main = runpy.run_path(str(ROOT / 'tools' / tool))['main']
    assert main is getattr(importlib.import_module(f'mogacore.cli.{module}'), function)


@pytest.mark.parametrize('tool', TOOLS)
def test_a_tool_has_at_most_40_lines(tool):
    assert len((ROOT / 'tools' / tool).read_text().splitlines()) <= 40


def test_tool_and_subcommand_print_the_same(capsys, monkeypatch):
    args = ['--step-ms', '100', '--batch-size', '8', '--gradient-mb', '100', '--node-gbytes', '100',
            '--network-gbits', '100', '--latency-us', '5', '--max-gpus', '16']  # fmt: skip
    assert call('scaling', *args) == 0
    shown = capsys.readouterr().out
    monkeypatch.setattr(sys, 'argv', ['scaling.py', *args])
    with pytest.raises(SystemExit) as leave:
        runpy.run_path(str(ROOT / 'tools' / 'scaling.py'), run_name='__main__')
    assert not leave.value.code
    assert capsys.readouterr().out == shown != ''


def test_user_error_of_a_subcommand_is_one_line_and_code_2(capsys):
    assert call('complexity', 'classification/none') == 2
    assert capsys.readouterr().err.startswith('error: config classification/none not found')


def test_package_runs_as_a_module(tmp_path):
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-m', 'mogacore', 'data', 'digits', '--root', 'd', '--parts', 'moving',
         '--num-sequences', '1'],
        cwd=tmp_path, capture_output=True, text=True, env={**os.environ, 'PYTHONPATH': str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == 'd/moving: 1 sequences\n' and (tmp_path / 'd' / 'moving' / 'mnist_test_seq.npy').is_file()
