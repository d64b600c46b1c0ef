"""Scripts of shell completion, run by the shells."""

import shutil
import subprocess
import sys

import pytest

from mogacore.checkpoint import LAYOUTS
from mogacore.cli.completion import script
from mogacore.cli.main import SUBCOMMANDS
from mogacore.errors import UserError
from mogacore.locations import config_names

pytest.importorskip('shtab')


@pytest.fixture(scope='module')
def bash_script(tmp_path_factory):
    path = tmp_path_factory.mktemp('completion') / 'mogacore.bash'
    path.write_text(script('bash'))
    return path


@pytest.fixture
def complete(bash_script, tmp_path):
    """Words that bash offers for the last of some words."""
    (tmp_path / 'my net.onnx').touch()

    def run(*words):
        command = """
            source "$1"; shift
            COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
            function=$(complete -p mogacore | sed 's/.*-F \\([^ ]*\\).*/\\1/')
            $function mogacore "${COMP_WORDS[$COMP_CWORD]}" "${COMP_WORDS[$COMP_CWORD - 1]}"
            printf '%s\\n' "${COMPREPLY[@]}"
        """
        shown = subprocess.run(
            ['bash', '-c', command, 'bash', bash_script, 'mogacore', *words],
            cwd=tmp_path, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return set(shown.stdout.splitlines()) - {''}

    return run


def test_subcommands(complete):
    assert complete('') >= set(SUBCOMMANDS)
    assert complete('re') == {name for name in SUBCOMMANDS if name.startswith('re')}


def test_flags_of_each_subcommand(complete):
    assert complete('train', '--res') == {'--resume'}
    assert complete('export', '--prec') == {'--precision'}
    assert complete('serve', '--max-b') >= {'--max-batch'}


def test_choices(complete):
    assert complete('convert', '--to', '') == set(LAYOUTS)
    assert complete('data', '') >= {'digits', 'hands'}


def test_configs_by_short_name_or_file(complete):
    names = {name for name in config_names() if name.startswith('detection/mask-rcnn_')}
    assert names and complete('train', 'detection/mask-rcnn_') == names
    assert complete('train', 'my') == {'my net.onnx'}


def test_files(complete):
    assert complete('test', 'segmentation/upernet_moganet-xtiny_digits', 'my') == {'my net.onnx'}


@pytest.mark.parametrize('shell', ['bash', 'zsh'])
def test_the_shell_accepts_the_script(shell):
    if not shutil.which(shell):
        pytest.skip(f'{shell} is not installed')
    subprocess.run([shell, '-n'], input=script(shell), text=True, check=True)


def test_zsh_completes_every_subcommand_and_config():
    text = script('zsh')
    assert '#compdef mogacore' in text.splitlines()[0]
    for name in (*SUBCOMMANDS, *config_names()):
        assert name in text, name


def test_without_shtab_the_error_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, 'shtab', None)
    with pytest.raises(UserError, match='pip install shtab'):
        script('bash')
