"""The distribution mogacore-runtime, in a virtual environment without torch and the packages of OpenMMLab."""

import json
import re
import shutil
import subprocess
import sys
import venv
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT

for needed in ('pip', 'setuptools', 'onnx', 'onnxruntime', 'openvino'):
    if find_spec(needed) is None:
        pytest.skip(f'needs {needed}', allow_module_level=True)

import onnx_files  # noqa: E402, needs onnx

from mogacore.runtime import Predictor  # noqa: E402

ABSENT = ('torch', 'torchvision', 'mmengine', 'mmcv', 'mmdet', 'mmpretrain', 'mmseg', 'mmpose', 'matplotlib', 'rich')
WRITERS = {
    'classification': onnx_files.write_classifier,
    'detection': onnx_files.write_detector,
    'segmentation': onnx_files.write_segmenter,
    'pose': onnx_files.write_pose,
    'video_prediction': onnx_files.write_video_predictor,
}


def requirements(distribution):
    """Names of the installed distributions that one requires without extras."""
    for line in metadata.requires(distribution) or ():
        name = re.match(r'[\w.-]+', line)[0]
        if 'extra ==' not in line:
            try:
                yield metadata.metadata(name)['Name']
            except metadata.PackageNotFoundError:
                continue


def closure(modules):
    """The distributions that provide modules, with all that they require."""
    providers = metadata.packages_distributions()
    pending, found = [name for module in modules for name in providers[module][:1]], set()
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending += requirements(name)
    return found


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """The wheel, built from a copy of the checkout."""
    source, out = tmp_path_factory.mktemp('source'), tmp_path_factory.mktemp('wheel')
    for name in ('mogacore', 'runtime'):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns('__pycache__', 'build', '*.egg-info'))
    subprocess.run(
        [sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation', '--no-index', '-w', out,
         source / 'runtime'],
        check=True, capture_output=True,
    )  # fmt: skip
    (path,) = out.iterdir()
    return path


@pytest.fixture(scope='module')
def python(wheel, tmp_path_factory):
    """Python of an environment with the wheel, the two backends, and what these require, linked from this one."""
    folder = tmp_path_factory.mktemp('environment')
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob('lib/python*/site-packages')
    for name in closure(['numpy', 'cv2', 'PIL', 'onnxruntime', 'openvino']):
        for file in metadata.files(name):
            top = file.parts[0]
            if top not in ('..', '__pycache__') and not (site / top).exists():
                (site / top).symlink_to(
                    Path(file.locate()).parents[len(file.parts) - 2] if file.parts[1:] else file.locate()
                )
    subprocess.run(
        [sys.executable, '-m', 'pip', '--python', folder / 'bin' / 'python', 'install', '-q', '--no-index', '--no-deps',
         wheel],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder / 'bin' / 'python'


def run(*command, cwd):
    return subprocess.run(
        list(map(str, command)), cwd=cwd, capture_output=True, text=True, timeout=300, env={'PATH': '/usr/bin:/bin'}
    )


def test_nothing_of_torch_and_openmmlab_can_be_imported(python, tmp_path):
    script = (
        'from importlib.util import find_spec\n'
        f'print([name for name in {ABSENT!r} if find_spec(name)])\n'
        'import mogacore, mogacore.deploy\n'
        'from mogacore.deploy import Predictor, TopDown\n'
        'try:\n    mogacore.create_model\nexcept ImportError as error:\n    print(error)\n'
        'try:\n    mogacore.deploy.fuse\nexcept ImportError as error:\n    print(error)\n'
    )
    done = run(python, '-c', script, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    empty, *messages = done.stdout.splitlines()
    assert empty == '[]'
    assert messages == ['this part is not in mogacore-runtime: pip install mogacore'] * 2


def test_the_wheel_contains_only_what_needs_no_torch(python):
    (site,) = python.parents[1].glob('lib/python*/site-packages')
    modules = {path.relative_to(site / 'mogacore').parts[0] for path in (site / 'mogacore').rglob('*.py')}
    assert modules == {
        '__init__.py', 'deploy', 'errors.py', 'files.py', 'images.py', 'opencv.py', 'runtime', 'text.py', 'version.py',
    }  # fmt: skip
    assert [path.name for path in (site / 'mogacore' / 'deploy').glob('*.py')] == ['__init__.py']


def test_the_command_predicts_every_task_as_here(python, tmp_path):
    image = np.zeros((90, 130, 3), np.uint8)
    image[20:70, 30:60, 2] = 200
    (tmp_path / 'images').mkdir()
    for number in range(5):  # as frames of a video, too
        cv2.imwrite(str(tmp_path / 'images' / f'{number}.png'), np.roll(image, 5 * number, 1))
    for task, write in WRITERS.items():
        write(tmp_path / f'{task}.onnx')
        done = run(
            python.parent / 'mogacore-runtime', 'infer', f'{task}.onnx', 'images', '--out-dir', task, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        records = json.loads((tmp_path / task / 'predictions.json').read_text())['predictions']
        assert done.stdout == f'{len(records)} predictions in {task}: predictions.json and drawings\n'
        assert records
        expected = Predictor(tmp_path / f'{task}.onnx').infer(tmp_path / 'images', tmp_path / 'here' / task)
        for record, ours in zip(records, expected, strict=True):
            assert [record.pop(key, None) for key in ('image', 'sequence')] != [None, None]
            assert record == {key: value for key, value in ours.items() if key not in ('image', 'sequence')}
        for file in (tmp_path / 'here' / task).rglob('*.png'):
            there = tmp_path / task / file.relative_to(tmp_path / 'here' / task)
            assert there.read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['infer', 'none.onnx', 'x.png'], 'error: model none.onnx does not exist: write it with mogacore export'),
        (['infer', 'c.onnx', 'x.png'], 'error: input x.png does not exist'),
        (['infer', 'c.onnx', '.', '--backend', 'x'], "error: backend 'x' does not read c.onnx"),
        (['infer', 'c.onnx', '.', '--detector', 'c.onnx'], 'error: the detector is a model for classification'),
        (['infer', 'c.onnx', '.', '--boxes', 'b.json'], 'error: --boxes b.json is only for pose estimation'),
        (['infer', 'c.onnx', '.', '--tile', '64'], 'error: tile is 64, but the model is for classification'),
    ],
)
def test_user_errors_are_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    from mogacore.runtime.command import main

    monkeypatch.chdir(tmp_path)
    onnx_files.write_classifier('c.onnx')
    cv2.imwrite('a.png', np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(SystemExit) as raised:
        main([*arguments, '--out-dir', 'out'])
    assert raised.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(message)
