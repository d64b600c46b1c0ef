import os
import subprocess
import sys

import pytest
from conftest import ROOT

from mogacore.errors import EXIT_NO_READER, UserError, missing_package, refuse_unused, run


def fails_with(error):
    def main(*args):
        raise error

    return main


@pytest.mark.parametrize(
    'error, code, line',
    [
        (UserError('size is 3: use 4'), 2, 'error: size is 3: use 4\n'),
        (UserError('a\nb\x1b[31m\ud800 ü 画 is missing'), 2, 'error: a b\\x1b[31m\\ud800 ü 画 is missing\n'),
        (KeyboardInterrupt(), 130, 'interrupted\n'),
        (ModuleNotFoundError(name='cv2'), 2, 'error: mogacore needs cv2: pip install opencv-python-headless\n'),
        (
            ModuleNotFoundError(name='mmengine.config'),
            2,
            'error: mogacore needs mmengine: pip install onedl-mmengine\n',
        ),
    ],
)
def test_user_error_is_one_line(error, code, line, capsys):
    with pytest.raises(SystemExit) as leave:
        run(fails_with(error))
    assert leave.value.code == code
    assert capsys.readouterr().err == line


@pytest.mark.parametrize(
    'value, text', [(0, '--flag 0'), (0.0, '--flag 0.0'), ('a', '--flag a'), (True, '--flag'), ([0, 1], '--flag 0 1')]
)
def test_an_option_that_is_given_is_refused_where_it_has_no_effect(value, text):
    with pytest.raises(UserError, match=f'^{text} has no effect here: omit it$'):
        refuse_unused({'--other': None, '--flag': value, '--last': 1}, 'here')
    refuse_unused({'--flag': None, '--switch': False, '--list': []}, 'here')


@pytest.mark.parametrize('error', [KeyError('bug'), ModuleNotFoundError(name='imgaug')])
def test_any_other_error_keeps_its_traceback(error):
    with pytest.raises(type(error)):
        run(fails_with(error))


def test_exit_code_and_arguments_are_those_of_the_function():
    with pytest.raises(SystemExit) as leave:
        run(lambda a, b: a + b, 3, 4)
    assert leave.value.code == 7


def test_a_package_that_mogacore_does_not_need_has_no_advice():
    assert missing_package(ModuleNotFoundError(name='imgaug')) is None
    assert missing_package(ModuleNotFoundError('no name')) is None


@pytest.mark.parametrize('code', ['mogacore.create_model("moganet_tiny")', 'from mogacore import create_model'])
def test_import_without_mmengine_reports_what_to_install(code):
    code = f'import sys; sys.modules["mmengine"] = None; import mogacore; {code}'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == 'ImportError: mogacore needs mmengine: pip install onedl-mmengine'


def test_submodules_are_attributes_without_being_imported():
    code = 'import mogacore; print(mogacore.checkpoint.load.__name__, mogacore.models.MogaNet.__name__)'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == 'load MogaNet\n', done.stderr


def test_unknown_name_of_the_package_is_an_attribute_error():
    import mogacore

    with pytest.raises(AttributeError, match="module 'mogacore' has no attribute 'nothing'"):
        _ = mogacore.nothing
    assert {'create_model', 'checkpoint', '__version__'} <= set(dir(mogacore))


@pytest.mark.parametrize(
    'text, line',
    [
        ('category a\nb: correct it', 'category a b: correct it'),
        ('name \x1b[31m', 'name \\x1b[31m'),
        ('name \ud800', 'name \\ud800'),
        ('größer × 2', 'größer × 2'),
    ],
)
def test_a_message_is_one_line_whatever_names_it_contains(text, line):
    assert str(UserError(text)) == line
    assert str(UserError('plain')) == 'plain'


PRINT = 'from mogacore.errors import run; import sys, os; run(lambda: {})'


def in_shell(shell, code):
    return subprocess.run(
        ['bash', '-c', shell, '-', sys.executable, '-c', PRINT.format(code)], capture_output=True, text=True, cwd=ROOT,
        env={key: value for key, value in os.environ.items() if key != 'PYTHONUNBUFFERED'},
    )  # fmt: skip


def test_output_that_cannot_be_written_is_reported_in_one_line():
    done = in_shell('exec "$@" > /dev/full', 'print(1)')
    assert (done.returncode, done.stderr) == (
        2, 'error: the disk is full ([Errno 28] No space left on device): free some space\n'
    )  # fmt: skip


def test_a_reader_that_has_ended_ends_the_command_silently():
    wait = '"$@" | true; exit ${PIPESTATUS[0]}'
    done = in_shell(wait, '[print(i) for i in range(10**6)]')
    assert (done.returncode, done.stderr) == (EXIT_NO_READER, '')
    done = in_shell(wait, '__import__("time").sleep(1) or print(1)')  # its work is done
    assert (done.returncode, done.stderr) == (0, '')


def test_an_object_that_cannot_be_destroyed_after_an_error_prints_nothing():
    code = """(lambda error: setattr(error, "part", type("Part", (), {"__del__": lambda self: 1 / 0})()) or exec(
        "raise error", {"error": error}))(OSError(28, "No space left on device"))"""
    done = in_shell('exec "$@"', code)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr


def test_closed_standard_files_do_not_catch_the_next_file_that_is_opened():
    code = 'sys.exit(os.open(os.devnull, os.O_RDONLY)) if not sys.stderr.isatty() and print(1) is None else 9'
    assert in_shell('exec "$@" <&- >&- 2>&-', code).returncode == 3
