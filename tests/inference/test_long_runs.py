"""Runs of mogacore infer over many inputs: stopped, resumed, shared among processes; tiles, detectors and features."""

import errno
import io
import json
import multiprocessing
import os
import signal
import threading
import weakref
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from conftest import free_ports
from small_models import write_small

from mogacore.cli import infer as infer_command
from mogacore.datasets.digits import write_digits
from mogacore.errors import UserError
from mogacore.inference import predictor as module
from mogacore.inference.predictor import Predictor, infer
from mogacore.runtime import folders
from mogacore.runtime.folders import write_predictions
from mogacore.runtime.inputs import find_inputs
from mogacore.runtime.journal import Run, Team
from mogacore.runtime.report import write_report

for library in ('mmdet', 'mmpose', 'mmpretrain', 'mmseg'):
    pytest.importorskip(library)

NAMES = {
    'detection': 'detection/mask-rcnn_moganet-xtiny_fpn_digits',
    'classification': 'classification/moganet-xtiny_digits',
    'segmentation': 'segmentation/upernet_moganet-xtiny_digits',
    'pose': 'pose/td-hm_moganet-xtiny_digits',
}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Seven digit scenes in two folders, a broken image, and a video of three of them."""
    folder = tmp_path_factory.mktemp('long')
    write_digits(folder / 'data', parts=('scenes',), num_train_scenes=1, num_val_scenes=7)
    files = sorted((folder / 'data' / 'scenes' / 'val').glob('*.png'))
    (folder / 'images' / 'sub').mkdir(parents=True)
    for number, file in enumerate(files):
        (folder / 'images' / ('sub' if number % 2 else '') / file.name).write_bytes(file.read_bytes())
    (folder / 'images' / 'broken.jpg').write_text('no image')
    writer = cv2.VideoWriter(str(folder / 'images' / 'clip.avi'), cv2.VideoWriter_fourcc(*'MJPG'), 10, (128, 128))
    for file in files[:3]:
        writer.write(cv2.imread(str(file)))
    writer.release()
    return folder


@pytest.fixture(scope='module')
def model(folder):
    """Function that writes config and weight file of a small model."""
    return lambda task: write_small(folder, NAMES[task])


@pytest.fixture(scope='module')
def whole(model, folder, tmp_path_factory):
    """Config and weights of a classifier, and the files of a run that was not stopped."""
    out = tmp_path_factory.mktemp('whole')
    paths = model('classification')
    infer(*paths, folder / 'images', out, device='cpu', save_features=True)
    return paths, files_of(out)


def files_of(out):
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob('*')) if path.is_file()}


def call_then(monkeypatch, number, action):
    """Call ``action`` instead of the prediction with this number, counted from 1; returns the calls."""
    original, calls = Predictor.predict_one, []

    def predict_one(self, *arguments):
        calls.append(arguments[0])
        if len(calls) == number:
            action()
        return original(self, *arguments)

    monkeypatch.setattr(Predictor, 'predict_one', predict_one)
    return calls


# Inputs in order: 0000.png, 0002.png, ..., broken.jpg, clip.avi (three frames), sub/0001.png, ...
@pytest.mark.parametrize('number', [1, 3, 7, 9])
def test_a_killed_run_resumes_to_the_same_files(number, whole, folder, tmp_path, monkeypatch):
    """At the first image, between images, in the middle of the video, and after it."""
    paths, expected = whole
    with monkeypatch.context() as patch:
        call_then(patch, number, lambda: os.kill(os.getpid(), signal.SIGKILL))
        settings = dict(device='cpu', save_features=True)
        process = multiprocessing.get_context('fork').Process(
            target=infer, args=(*paths, folder / 'images', tmp_path), kwargs=settings
        )
        process.start()
        process.join(120)
    assert process.exitcode == -signal.SIGKILL
    assert (not (tmp_path / 'predictions.json').exists() and not (tmp_path / 'clip.mp4').exists()) or number == 9
    calls = call_then(monkeypatch, 0, None)
    infer(*paths, folder / 'images', tmp_path, device='cpu', save_features=True, resume=True)
    assert files_of(tmp_path) == expected
    done = {1: 0, 3: 2, 7: 5, 9: 8}[number]  # 5: four images and the broken one, whose prediction was tried
    assert len(calls) == 11 - done


def test_a_line_that_is_cut_off_is_predicted_again(whole, folder, tmp_path, monkeypatch):
    paths, expected = whole
    stop_at(monkeypatch, 5, paths, folder, tmp_path)
    (part,) = (tmp_path / 'unfinished').glob('part-*.jsonl')
    part.write_bytes(part.read_bytes()[:-30])
    calls = call_then(monkeypatch, 0, None)
    infer(*paths, folder / 'images', tmp_path, device='cpu', save_features=True, resume=True)
    assert files_of(tmp_path) == expected and len(calls) == 11 - 3


def stop_at(monkeypatch, number, paths, folder, out, **settings):
    """Run until Ctrl-C at a prediction."""
    with monkeypatch.context() as patch:
        call_then(patch, number, lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            infer(*paths, folder / 'images', out, **{'device': 'cpu', 'save_features': True, **settings})


def test_an_image_that_changed_is_predicted_again(whole, folder, tmp_path, monkeypatch):
    paths, _ = whole
    images = tmp_path / 'images'
    images.mkdir()
    for number in (0, 2, 4):
        (images / f'000{number}.png').write_bytes((folder / 'images' / f'000{number}.png').read_bytes())
    stop_at(monkeypatch, 3, paths, tmp_path, tmp_path / 'out')
    (images / '0000.png').write_bytes((folder / 'images' / '0006.png').read_bytes())
    resumed = infer(*paths, images, tmp_path / 'out', device='cpu', save_features=True, resume=True)
    assert resumed == infer(*paths, images, tmp_path / 'again', device='cpu')


@pytest.mark.parametrize(
    'changes, name',
    [
        (dict(resume=False), 'has a run that was stopped: resume it with --resume, choose'),
        (dict(checkpoint=True), 'with another checkpoint: resume it with the same'),
        (dict(cfg_options={'model.head.topk': (1, 2)}), 'with another config:'),
        (
            dict(cfg_options={'model.head.topk': (1, 2)}, save_features=False),
            'with another config, --save-features:',
        ),
    ],
)
def test_a_run_with_other_settings_is_refused_in_one_line(changes, name, whole, folder, tmp_path, monkeypatch):
    (config, weights), _ = whole
    stop_at(monkeypatch, 3, (config, weights), folder, tmp_path)
    before = files_of(tmp_path)
    if changes.pop('checkpoint', False):
        state = torch.load(weights)
        state['head.fc.bias'] += 1
        weights = str(tmp_path.parent / f'{tmp_path.name}.pth')
        torch.save(state, weights)
    settings = dict(device='cpu', save_features=True, resume=True) | changes
    with pytest.raises(UserError, match=name) as raised:
        infer(config, weights, folder / 'images', tmp_path, **settings)
    assert '\n' not in str(raised.value) and files_of(tmp_path) == before


def test_a_full_disk_leaves_a_state_that_is_resumed(model, folder, tmp_path, monkeypatch):
    paths, settings = model('pose'), dict(device='cpu')
    infer(*paths, folder / 'images', tmp_path / 'whole', **settings)
    original, calls = folders.write_png, []

    def write_png(path, image):
        calls.append(path)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, 'No space left on device')
        original(path, image)

    with monkeypatch.context() as patch:
        patch.setattr(folders, 'write_png', write_png)
        with pytest.raises(UserError, match=r'the disk is full .*: free some space, then .* --resume') as raised:
            infer(*paths, folder / 'images', tmp_path / 'out', **settings)
    assert '\n' not in str(raised.value) and not (tmp_path / 'out' / 'predictions.json').exists()
    # At the end of the run, too.
    with monkeypatch.context() as patch:
        patch.setattr(folders, 'write_report', lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, 'full')))
        with pytest.raises(UserError, match='the disk is full'):
            infer(*paths, folder / 'images', tmp_path / 'out', **settings, resume=True)
    infer(*paths, folder / 'images', tmp_path / 'out', **settings, resume=True)
    assert files_of(tmp_path / 'out') == files_of(tmp_path / 'whole')


def test_processes_that_share_the_inputs_write_what_one_writes(whole, folder, tmp_path, monkeypatch):
    """A real group of two processes; the run is stopped and resumed with three members of a team in threads."""
    paths, expected = whole
    (port,) = free_ports(1)

    def work(rank):
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2', MASTER_ADDR='127.0.0.1')
        os.environ['MASTER_PORT'] = str(port)
        records = infer(
            *paths, folder / 'images', tmp_path / 'two', device='cpu', save_features=True, launcher='pytorch'
        )
        assert len(records) == (10 if rank == 0 else 0)

    workers = [multiprocessing.get_context('fork').Process(target=work, args=(rank,)) for rank in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert files_of(tmp_path / 'two') == expected

    stop_at(monkeypatch, 4, paths, folder, tmp_path / 'three')
    barrier, network = threading.Barrier(3), Predictor(*paths, 'cpu', with_features=True)
    lock = threading.Lock()
    original = network.predict_one

    def predict_one(*arguments):
        with lock:  # the hook on the backbone is shared
            return original(*arguments)

    network.predict_one = predict_one
    header = {'config': paths[0], 'checkpoint': paths[1]}
    settings = {**network.settings(), '--boxes': None, '--box-class': None}

    def share(rank):
        run = Run(settings, True, Team(rank, 3, barrier.wait))
        inputs = find_inputs(folder / 'images')
        write_predictions(network, folder / 'images', inputs, tmp_path / 'three', header, run=run)

    threads = [threading.Thread(target=share, args=(rank,)) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert files_of(tmp_path / 'three') == expected


def test_a_prediction_that_lacks_memory_names_tiles(tmp_path):
    def predict_one(image, boxes):
        raise MemoryError('Unable to allocate 80 GiB')

    photo = tmp_path / 'photo.png'
    cv2.imwrite(str(photo), np.zeros((8, 8, 3), np.uint8))
    predictor = SimpleNamespace(predict_one=predict_one, ignore_orientation=False, writer=None)
    with pytest.raises(UserError, match=r'not enough memory .*--tile \(detection, segmentation\), then .* --resume'):
        write_predictions(predictor, photo, [photo], tmp_path / 'out', {})


def test_a_report_is_written_and_read_a_record_at_a_time(tmp_path):
    class Record(dict):
        pass

    alive = weakref.WeakSet()
    Record.__hash__ = lambda self: id(self)
    most = []

    def records():
        for number in range(50):
            record = Record(number=number, boxes=[[1.5, number], []], text='[\n1]')
            alive.add(record)
            most.append(len(alive))
            yield record
            del record

    report = {'config': 'x', 'shape': [[1, 2], [3]], 'predictions': records(), 'unreadable': ['"predictions": []']}
    found = write_report(tmp_path, report)
    assert max(most) <= 2
    content = json.loads((tmp_path / 'predictions.json').read_text())
    assert list(content) == list(report) and content['unreadable'] == report['unreadable']
    assert found == content['predictions'] and len(found) == 50 and found[-1]['boxes'] == [[1.5, 49], []]
    assert found[10:12] == content['predictions'][10:12] and found.subset([3, 5]) == [found[3], found[5]]
    write_report(tmp_path, {'predictions': []})
    assert json.loads((tmp_path / 'predictions.json').read_text()) == {'predictions': []}
    assert found[0]['number'] == 0  # the replaced file


def test_saved_features_are_the_means_of_the_last_maps(whole, folder):
    paths, files = whole
    report = json.loads(files['predictions.json'])
    names = json.loads(files['features.json'])['names']
    assert len(names) == 10 and names[0] == report['predictions'][0]['image']
    assert [name for name in names if 'clip' in name] == [
        f'{folder / "images" / "clip.avi"}, frame {frame}' for frame in range(3)
    ]
    network = Predictor(*paths, 'cpu')
    rows = np.load(io.BytesIO(files['features.npy']))
    assert rows.shape == (10, 32) and rows.dtype == np.float32
    for name, row in zip(names, rows, strict=True):
        if name.endswith('.png'):
            image = cv2.imread(name, cv2.IMREAD_GRAYSCALE).astype(np.float32)
            inputs = torch.from_numpy((image - 79.58) / 90.79)[None, None]
            with torch.no_grad():
                expected = network.model.backbone(inputs)[-1].mean((2, 3))[0]
            np.testing.assert_allclose(row, expected, atol=1e-5)


def scene(height, width, *regions):
    image = np.zeros((height, width, 3), np.uint8)
    for x1, y1, x2, y2 in regions:
        image[y1:y2, x1:x2] = 255
    return image


@pytest.mark.parametrize('overlap', [0.0, 0.25, 0.6])
def test_tiles_give_the_class_map_and_the_boxes_of_the_whole_image(overlap, model, tmp_path, monkeypatch):
    """With a segmentation and a detector that look at single pixels."""
    image = scene(150, 330, (140, 40, 170, 70), (10, 100, 40, 149), (300, 5, 329, 30))
    cv2.imwrite(str(tmp_path / 'image.png'), image)
    network, sizes = Predictor(*model('segmentation'), 'cpu', tile=64, tile_overlap=overlap), []

    def segment(self, loaded, boxes=None):
        sizes.append(loaded['img'].shape[:2])
        assert loaded['img_shape'] == loaded['ori_shape'] == sizes[-1]
        return {'class_map': (loaded['img'][..., 0] > 127).astype(np.uint8)}

    monkeypatch.setattr(Predictor, '__call__', segment)
    shown, result = network.predict_one(tmp_path / 'image.png', None)
    np.testing.assert_array_equal(result['class_map'], image[..., 0] > 127)
    assert shown.shape == image.shape and set(sizes) == {(64, 64)}
    steps = 64 * (1 - overlap)
    assert len(sizes) == (np.ceil(86 / steps) + 1) * (np.ceil(266 / steps) + 1)

    def detect(self, loaded, boxes=None):
        count, _, stats, _ = cv2.connectedComponentsWithStats(loaded['img'][..., 0])
        found = stats[1:, :4] + np.pad(stats[1:, :2], [(0, 0), (2, 0)])
        return {'boxes': found.astype(np.float32), 'scores': np.ones(count - 1), 'labels': np.zeros(count - 1, int)}

    monkeypatch.setattr(Predictor, '__call__', detect)
    network = Predictor(*model('detection'), 'cpu', tile=128, tile_overlap=max(overlap, 0.25))
    _, result = network.predict_one(tmp_path / 'image.png', None)
    assert sorted(result['boxes'].tolist()) == [[10, 100, 40, 149], [140, 40, 170, 70], [300, 5, 329, 30]]


def test_a_tile_that_exceeds_the_image_changes_nothing_but_smaller_ones_do(model, folder, tmp_path):
    paths, settings = model('detection'), dict(device='cpu', score_thr=0.12)
    image = folder / 'images' / '0000.png'
    (plain,), (large,), (small,) = (
        infer(*paths, image, tmp_path / str(tile), tile=tile, **settings) for tile in (None, 500, 96)
    )
    assert plain['instances'] == large['instances'] != small['instances']
    assert all(0 <= value <= 128 for instance in small['instances'] for value in instance['bbox'])
    assert all(instance['segmentation']['size'] == [128, 128] for instance in small['instances'])


@pytest.mark.parametrize('tile', [None, 96])
def test_a_detector_finds_the_objects_of_a_pose_model(tile, model, folder, tmp_path):
    detector, pose = model('detection'), model('pose')
    out, source = tmp_path / 'out', folder / 'images' / 'sub' / '0001.png'
    infer_command.main(
        [*pose, str(source), '--out-dir', str(out), '--detector', *detector, '--score-thr', '0.12',
         '--device', 'cpu', '--box-class', '3', *(['--tile', str(tile)] if tile else [])]
    )  # fmt: skip
    report = json.loads((out / 'predictions.json').read_text())
    assert report['detector'] == {'config': detector[0], 'checkpoint': detector[1]}
    found = report['predictions']
    finder, network = Predictor(*detector, 'cpu', 0.12, tile=tile), Predictor(*pose, 'cpu', 0.12)
    assert [record['image'] for record in found] == [str(source)]
    for record in found:
        path = Path(record['image'])
        _, objects = finder.predict_one(path, None)
        rows = [
            [*box, score]
            for box, score, label in zip(*(objects[name] for name in ('boxes', 'scores', 'labels')), strict=True)
            if label == 3
        ]
        expected = network.writer.describe(network.predict_one(path, np.array(rows, np.float32).reshape(-1, 5))[1])
        assert record['instances'] == expected['instances']
    assert any(record['instances'] for record in found)


@pytest.mark.parametrize(
    'task, settings, message',
    [
        ('classification', dict(tile=64), 'tile is 64, but the model is for classification: omit it'),
        ('classification', dict(detector=('c', 'w')), '--detector c is only for pose estimation: omit it'),
        ('pose', dict(detector=('c', 'w'), boxes='b.json'), '--detector and --boxes exclude each other'),
        ('pose', dict(detector='classification'), 'the detector is a model for classification: use one for detection'),
        ('pose', dict(detector='detection', box_class='cat'), "no class 'cat': choose from 0, 1, .*, or no class"),
        ('pose', dict(boxes='b.json', save_features=True), '--save-features is for whole images: omit'),
        ('detection', dict(tile=64, tile_overlap=1.0), 'the overlap of tiles is 1.0: use 0 to 0.9 of a tile'),
        ('detection', dict(tile=8), 'tile is 8: use at least 32 pixels'),
        ('detection', dict(launcher='pytorch'), "launcher 'pytorch' needs RANK"),
    ],
)
def test_settings_that_do_not_fit_are_one_line(task, settings, message, model, folder, tmp_path, monkeypatch):
    monkeypatch.delenv('RANK', raising=False)
    if isinstance(settings.get('detector'), str):
        settings = dict(settings, detector=model(settings['detector']))
    with pytest.raises(UserError, match=message) as raised:
        infer(*model(task), folder / 'images', tmp_path / 'out', device='cpu', **settings)
    assert '\n' not in str(raised.value)


def test_a_video_predictor_takes_none_of_these_settings(tmp_path):
    config, weights = write_small(tmp_path, 'video_prediction/simvp_moganet_moving-digits')
    for settings in (dict(resume=True), dict(tile=64), dict(save_features=True), dict(launcher='pytorch')):
        with pytest.raises(UserError, match=f'--{next(iter(settings)).replace("_", "-")} is '):
            infer(config, weights, None, tmp_path / 'out', device='cpu', **settings)


def test_other_processes_print_nothing(monkeypatch, capsys):
    monkeypatch.setattr(module, 'infer', lambda **options: [])
    infer_command.main(['c', 'w', 'x.png', '--out-dir', 'out', '--launcher', 'pytorch'])
    assert capsys.readouterr().out == ''
