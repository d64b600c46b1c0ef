import subprocess
import sys

import pytest
from conftest import ROOT

from mogacore.errors import UserError, missing_package, run


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
