"""The distribution mogacore-runtime, in a virtual environment without torch and the packages of OpenMMLab."""

import json
import re
import shutil
import subprocess
import sys
import urllib.request
import venv
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT
from PIL import ExifTags, Image

for needed in ('pip', 'setuptools', 'onnx', 'onnxruntime', 'openvino'):
    if find_spec(needed) is None:
        pytest.skip(f'needs {needed}', allow_module_level=True)

pytest.importorskip('onnxscript')
for library in ('mmdet', 'mmpose', 'mmpretrain', 'mmseg'):
    pytest.importorskip(library)

from onnx_files import write_classifier, write_video_predictor  # noqa: E402
from runtime.serve.serving import ServerProcess, encode, filled  # noqa: E402
from small_models import write_small  # noqa: E402

from mogacore.deploy import Predictor  # noqa: E402
from mogacore.deploy.export import export  # noqa: E402
from mogacore.deploy.source import load_source  # noqa: E402
from mogacore.inference.predictor import infer  # noqa: E402
from mogacore.runtime.demo.command import PACKAGES as DEMO_PACKAGES  # noqa: E402
from mogacore.runtime.serve.command import PACKAGES as SERVE_PACKAGES  # noqa: E402

ABSENT = ('torch', 'torchvision', 'mmengine', 'mmcv', 'mmdet', 'mmpretrain', 'mmseg', 'mmpose', 'matplotlib', 'rich')
SCORE_THR, WITH_THRESHOLD = 0.15, ('detection', 'pose')
CONFIGS = [
    ('classification', 'classification/moganet-xtiny_digits'),
    ('detection', 'detection/retinanet_moganet-xtiny_fpn_digits'),
    ('detection', 'detection/mask-rcnn_moganet-xtiny_fpn_digits'),
    ('detection', 'detection/_base_/models/cascade-rcnn_moganet_fpn'),
    ('detection', 'detection/_base_/models/cascade-mask-rcnn_moganet_fpn'),
    ('segmentation', 'segmentation/semantic-fpn_moganet-xtiny_digits'),
    ('segmentation', 'segmentation/upernet_moganet-xtiny_digits'),
    ('pose', 'pose/td-hm_moganet-xtiny_digits'),
    ('hands', 'pose/hand3d/internet_moganet-xtiny_interhand3d-synthetic'),
    ('hands', 'pose/hand3d/heatmap3d_moganet-xtiny_freihand-synthetic'),
    ('video_prediction', 'video_prediction/simvp_moganet_moving-digits'),
]


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


def make_environment(folder, wheel, modules):
    """Python of a new environment with the wheel, and with modules and what these require, linked from this one."""
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob('lib/python*/site-packages')
    for name in closure(modules):
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


BASE = ('numpy', 'cv2', 'PIL', 'onnxruntime', 'openvino')


@pytest.fixture(scope='module')
def python(wheel, tmp_path_factory):
    """Python of an environment with the two backends."""
    return make_environment(tmp_path_factory.mktemp('environment'), wheel, BASE)


@pytest.fixture(scope='module')
def server_python(wheel, tmp_path_factory):
    """Python of an environment for the server and the demo page."""
    modules = (*SERVE_PACKAGES, *DEMO_PACKAGES)
    for module in modules:
        pytest.importorskip(module)
    return make_environment(tmp_path_factory.mktemp('environment'), wheel, (*BASE, *modules))


ENVIRONMENT = {'PATH': '/usr/bin:/bin'}


def run(*command, cwd):
    return subprocess.run(
        list(map(str, command)), cwd=cwd, capture_output=True, text=True, timeout=300, env=ENVIRONMENT
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


@pytest.mark.parametrize('command', ['serve', 'demo'])
def test_the_server_and_the_demo_page_need_neither_torch_nor_openmmlab(command, server_python, tmp_path):
    absent = [name for name in ABSENT if name != 'rich']  # which Gradio's own command uses
    script = f'from importlib.util import find_spec\nprint([name for name in {absent!r} if find_spec(name)])'
    assert run(server_python, '-c', script, cwd=tmp_path).stdout == '[]\n'
    model = write_classifier(tmp_path / 'colors.onnx')
    program = [server_python, '-W', 'ignore', server_python.parent / 'mogacore-runtime']
    with ServerProcess(model, '--threads', 1, command=command, program=program, env=ENVIRONMENT) as server:
        if command == 'serve':
            upload = urllib.request.Request(f'{server.url}/predict', encode(filled((1, 2, 3))))
            with urllib.request.urlopen(upload, timeout=60) as answer:
                assert json.load(answer)['prediction']['pred_class'] == 'blue'
        else:
            with urllib.request.urlopen(server.url, timeout=60) as page:
                text = page.read().decode()
            assert 'colors (classification)' in text and 'Drop an image or a video' in text
        exit_code, stdout, stderr = server.terminate()
    assert exit_code == 0 and stdout.startswith('stopped'), stderr


@pytest.mark.parametrize('extra, packages', [('serve', SERVE_PACKAGES), ('demo', {'gradio': 'gradio'})])
def test_extras_name_what_the_commands_need_with_the_oldest_versions(extra, packages, python):
    (site,) = python.parents[1].glob('lib/python*/site-packages')
    (metadata_file,) = site.glob('mogacore_runtime-*.dist-info/METADATA')
    needed = re.findall(
        rf"^Requires-Dist: ([\w-]+)>=[\d.]+; extra == [\"']{extra}[\"']$", metadata_file.read_text(), re.M
    )
    assert sorted(needed) == sorted(packages.values())


def test_the_wheel_contains_only_what_needs_no_torch(python):
    (site,) = python.parents[1].glob('lib/python*/site-packages')
    modules = {path.relative_to(site / 'mogacore').parts[0] for path in (site / 'mogacore').rglob('*.py')}
    assert modules == {
        '__init__.py', 'after_import.py', 'deploy', 'errors.py', 'files.py', 'images.py', 'kinds.py', 'machine.py',
        'opencv.py', 'packs', 'process.py', 'runtime', 'text.py', 'version.py',
    }  # fmt: skip
    assert [path.name for path in (site / 'mogacore' / 'deploy').glob('*.py')] == ['__init__.py']


def write_odd_images(folder, image):
    """A gray image, one with transparency, and one that is stored lying and shown upright."""
    cv2.imwrite(str(folder / 'gray.png'), image[..., 0])
    alpha = np.full((*image.shape[:2], 1), 100, np.uint8)
    cv2.imwrite(str(folder / 'transparent.png'), np.concatenate([image, alpha], 2))
    orientation = Image.Exif()
    orientation[ExifTags.Base.Orientation] = 6
    Image.fromarray(image).save(folder / 'turned.jpg', quality=95, exif=orientation)


@pytest.fixture(scope='module', params=CONFIGS, ids=lambda param: param[1].rpartition('/')[2])
def exported(request, tmp_path_factory):
    """A folder with images, an exported model of a task, and the output of ``mogacore infer`` with the model."""
    task, name = request.param
    folder = tmp_path_factory.mktemp(task)
    config, checkpoint = write_small(folder, name)
    export(load_source(config, checkpoint), [folder / 'net.onnx'])
    (folder / 'images').mkdir()
    generator = np.random.default_rng(0)
    # Landscape, portrait and, as frames of a video, 22 more.
    for number, size in enumerate([(96, 128), (131, 90)] + [(64, 64)] * (22 if 'video' in task else 0)):
        coarse = generator.integers(0, 256, (6, 6, 3), np.uint8)
        image = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / 'images' / f'{number:02}.png'), image)
    if task != 'video_prediction':
        write_odd_images(folder / 'images', image)
    settings = {'score_thr': SCORE_THR} if task in WITH_THRESHOLD else {}
    infer(config, checkpoint, folder / 'images', folder / 'infer', device='cpu', **settings)
    return task, folder


def read_records(folder):
    return json.loads((folder / 'predictions.json').read_text())['predictions']


def assert_equal(task, ours, theirs):
    """Two output folders have the same predictions."""
    records, expected = read_records(ours), read_records(theirs)
    assert len(records) == len(expected) > 1
    for record, other in zip(records, expected, strict=True):
        assert list(record) == [name for name in other if name != 'metrics']
        if task == 'classification':
            assert record['pred_label'] == other['pred_label']
            scores = [[entry['score'] for entry in one['top']] for one in (record, other)]
            np.testing.assert_allclose(*scores, atol=1e-4)
        elif task == 'segmentation':
            maps = [cv2.imread(str(folder / one['map']), -1) for folder, one in ((ours, record), (theirs, other))]
            assert len(np.unique(maps[1])) > 1 and maps[0].shape == maps[1].shape
            assert (maps[0] == maps[1]).mean() >= 0.999
        elif task != 'video_prediction':
            assert_equal_instances(record['instances'], other['instances'])
        if 'drawn' in record:
            drawn = [cv2.imread(str(folder / one['drawn'])) for folder, one in ((ours, record), (theirs, other))]
            assert (abs(drawn[0].astype(int) - drawn[1]) > 32).mean() < 0.01
    assert (ours / 'predictions.png').is_file()


def assert_equal_instances(instances, expected):
    assert len(instances) == len(expected) > 0
    differing = 0
    for ours in instances:
        of_class = [one for one in expected if one.get('label') == ours.get('label')]
        theirs = min(of_class, key=lambda one: np.abs(np.subtract(one['bbox'], ours['bbox'])).max())
        is_same = np.abs(np.subtract(theirs['bbox'], ours['bbox'])).max() <= 0.05
        is_same &= abs(theirs['score'] - ours['score']) <= 1e-3
        assert list(ours) == list(theirs)
        differing += not is_same
        if is_same and 'segmentation' in ours:
            masks = [decode_rle(one['segmentation']) for one in (ours, theirs)]
            assert (masks[0] & masks[1]).sum() >= 0.99 * (masks[0] | masks[1]).sum()
        for name, tolerance in (('keypoints', 0.05), ('depths_mm', 0.05), ('left_wrist_behind_right_mm', 0.05)):
            if name in ours:
                np.testing.assert_allclose(ours[name], theirs[name], atol=tolerance)
        assert ours.get('hands') == theirs.get('hands')
    assert differing <= 0.05 * len(instances)  # decisions of non-maximum suppression that rounding flips


def decode_rle(segmentation):
    from pycocotools import mask

    return mask.decode(segmentation).astype(bool)


def test_predictions_of_exported_files_equal_those_of_mogacore_infer(exported, python):
    task, folder = exported
    arguments = ['net.onnx', 'images', '--out-dir', 'runtime', '--threads', 1]
    arguments += ['--score-thr', SCORE_THR] if task in WITH_THRESHOLD else []
    done = run(python.parent / 'mogacore-runtime', 'infer', *arguments, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert 'predictions in runtime: predictions.json and drawings' in done.stdout
    assert_equal(task, folder / 'runtime', folder / 'infer')
    Predictor(folder / 'net.onnx', 'openvino', score_thr=SCORE_THR).infer(folder / 'images', folder / 'openvino')
    assert_equal(task, folder / 'openvino', folder / 'infer')


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['infer', 'none.onnx', 'x.png'], 'error: model none.onnx does not exist: write it with mogacore export'),
        (['infer', 'c.onnx', 'x.png'], 'error: input x.png does not exist'),
        (['infer', 'c.onnx', '.', '--backend', 'x'], "error: backend 'x' does not read c.onnx"),
        (['infer', 'c.onnx', '.', '--detector', 'c.onnx'], 'error: the detector is a model for classification'),
        (['infer', 'c.onnx', '.', '--boxes', 'b.json'], 'error: --boxes b.json is only for pose estimation'),
        (['infer', 'c.onnx', '.', '--box-class', 'x'], 'error: --box-class x chooses from boxes: add --boxes'),
        (['infer', 'c.onnx', '.', '--tile', '64'], 'error: tile is 64, but the model is for classification'),
        (
            ['infer', 'c.onnx', '.', '--num-sequences', '0'],
            'error: --num-sequences 0 has no effect on a model for classification: omit it',
        ),
        (
            ['infer', 'c.onnx', '.', '--score-thr', '0.3'],
            'error: --score-thr 0.3 has no effect on a model for classification: omit it',
        ),
        (['infer', 'c.onnx', '.', '--tile-overlap', '0'], 'error: --tile-overlap 0.0 has no effect without --tile'),
        (
            ['infer', 'c.onnx', '.', '--detector', 'c.onnx', '--num-sequences', '2'],
            'error: --num-sequences 2 has no effect with --detector: omit it',
        ),
        (['infer', 'v.onnx', '.', '--score-thr', '0.3'], 'error: --score-thr 0.3 has no effect on a model for video'),
        (['infer', 'v.onnx', '.', '--num-sequences', '0'], 'error: --num-sequences is 0: use 1 or more'),
    ],
)
def test_user_errors_are_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    from mogacore.runtime.command import main

    monkeypatch.chdir(tmp_path)
    write_classifier('c.onnx')
    write_video_predictor('v.onnx')
    cv2.imwrite('a.png', np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(SystemExit) as raised:
        main([*arguments, '--out-dir', 'out'])
    assert raised.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(message)
