"""Predictions of each task, compared with those of its library's inference functions for single images."""

import json
import os
import pickle
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT, TINY_ARCH
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS, init_default_scope
from PIL import Image

import mogacore.registry  # noqa: F401, registers our classes
from mogacore.cli import infer as infer_command
from mogacore.datasets.digits import write_digits
from mogacore.engine.config import load_config
from mogacore.errors import UserError
from mogacore.inference import predictor
from mogacore.inference.predictor import Predictor, dataset_meta, infer
from mogacore.libraries import import_quietly
from mogacore.runtime.videos import Video

RED = (255, 0, 0)
WIDTHS = list(TINY_ARCH['embed_dims'])
SMALL = f'backbone=dict(arch=dict(_delete_=True, **{TINY_ARCH}))'
# Task -> config, changes that make the model small, library, and the library's functions to build and to predict.
CASES = {
    'retinanet': (
        'detection/retinanet_moganet-xtiny_fpn_digits.py', f'neck=dict(in_channels={WIDTHS})',
        'mmdet', 'init_detector', 'inference_detector',
    ),
    'mask-rcnn': (
        'detection/mask-rcnn_moganet-xtiny_fpn_digits.py', f'neck=dict(in_channels={WIDTHS})',
        'mmdet', 'init_detector', 'inference_detector',
    ),
    'upernet': (
        'segmentation/upernet_moganet-xtiny_digits.py',
        f'decode_head=dict(in_channels={WIDTHS}, channels=16), auxiliary_head=dict(in_channels={WIDTHS[2]})',
        'mmseg', 'init_model', 'inference_model',
    ),
    'pose': (
        'pose/td-hm_moganet-xtiny_digits.py', f'head=dict(in_channels={WIDTHS[3]}, deconv_out_channels=(16, 16, 16))',
        'mmpose', 'init_model', 'inference_topdown',
    ),
    'classification': (
        'classification/moganet-xtiny_digits.py', f'head=dict(in_channels={WIDTHS[3]})', 'mmpretrain', None, None,
    ),
    'decoded': (
        'classification/moganet-xtiny_fashion-mnist.py', f'head=dict(in_channels={WIDTHS[3]})',
        'mmpretrain', None, None,
    ),
    'cifar': (
        'classification/moganet-small_1xb100_cifar100-32.py', f'head=dict(in_channels={WIDTHS[3]})',
        'mmpretrain', None, None,
    ),
}  # fmt: skip


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A folder with three digit scenes and a video of them, 128 x 128 px."""
    folder = tmp_path_factory.mktemp('inference')
    write_digits(folder / 'data', parts=('scenes',), num_train_scenes=1, num_val_scenes=3)
    (folder / 'images').symlink_to(folder / 'data' / 'scenes' / 'val')
    write_video(folder / 'clip.avi', [cv2.imread(str(path)) for path in sorted((folder / 'images').glob('*.png'))])
    return folder


def write_video(path, frames, fps=12.5):
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), fps, (width, height))
    for frame in frames:
        writer.write(frame)
    writer.release()


@pytest.fixture(scope='module')
def model(folder):
    """Function that writes the config and a checkpoint with random weights of a case's small model."""

    def make(name, **meta):
        path, changes, library, *_ = CASES[name]
        pytest.importorskip(library)
        config = folder / f'{name}.py'
        config.write_text(f"_base_ = '{ROOT / 'configs' / path}'\nmodel = dict({SMALL}, {changes})\n")
        cfg = load_config(config)
        import_quietly(library)
        init_default_scope(library)
        torch.manual_seed(0)
        settings = cfg.model.copy()
        if 'data_preprocessor' in cfg:
            settings.setdefault('data_preprocessor', cfg.data_preprocessor)
        checkpoint = folder / f'{name}.pth'
        torch.save({'state_dict': MODELS.build(settings).state_dict(), 'meta': meta}, checkpoint)
        return str(config), str(checkpoint)

    return make


def library_model(name, config, checkpoint):
    """The same model built by the library, and the library's function to predict with it."""
    _, _, library, init, predict = CASES[name]
    apis = import_module(f'{library}.apis')
    return getattr(apis, init)(config, checkpoint, device='cpu'), getattr(apis, predict)


def read_report(out_dir):
    return json.loads((out_dir / 'predictions.json').read_text())


@pytest.mark.parametrize('name, score_thr', [('retinanet', 0.3), ('mask-rcnn', 0.1)])
@pytest.mark.filterwarnings('ignore::UserWarning')
def test_detections_equal_those_of_the_library(name, score_thr, model, folder, tmp_path):
    config, checkpoint = model(name)
    records = infer(config, checkpoint, folder / 'images', tmp_path, score_thr=score_thr, device='cpu')
    assert records == read_report(tmp_path)['predictions']
    assert [Path(record['image']).name for record in records] == ['0000.png', '0001.png', '0002.png']
    reference, predict = library_model(name, config, checkpoint)
    for record in records:
        expected = predict(reference, record['image']).pred_instances
        expected = expected[expected.scores >= score_thr]
        instances = record['instances']
        assert len(instances) == len(expected) > 0
        scores = [instance['score'] for instance in instances]
        assert scores == sorted(scores, reverse=True)
        np.testing.assert_allclose(scores, expected.scores, atol=1e-5)
        np.testing.assert_allclose([instance['bbox'] for instance in instances], expected.bboxes, atol=0.02)
        assert [instance['label'] for instance in instances] == expected.labels.tolist()
        assert all(instance['class'] == str(instance['label']) for instance in instances)
        assert all(('segmentation' in instance) == (name == 'mask-rcnn') for instance in instances)
        if name == 'mask-rcnn':
            from pycocotools import mask as coco_mask

            masks = [coco_mask.decode(instance['segmentation']) for instance in instances]
            np.testing.assert_array_equal(np.array(masks, bool), expected.masks)
        assert cv2.imread(str(tmp_path / record['drawn'])).shape == (512, 512, 3)
    assert (tmp_path / 'predictions.png').is_file()


def test_class_maps_equal_those_of_the_library(model, folder, tmp_path):
    config, checkpoint = model('upernet')
    records = infer(config, checkpoint, folder / 'images', tmp_path, device='cpu')
    reference, predict = library_model('upernet', config, checkpoint)
    for number, record in enumerate(records):
        assert record['map'] == f'maps/{number:04}.png'
        labels = cv2.imread(str(tmp_path / record['map']), cv2.IMREAD_UNCHANGED)
        assert labels.dtype == np.uint8
        np.testing.assert_array_equal(labels, predict(reference, record['image']).pred_sem_seg.data[0])
        assert sum(entry['share'] for entry in record['classes']) == pytest.approx(1)
        names = ('background', *'0123456789')
        for entry in record['classes']:
            assert entry['share'] == np.mean(labels == entry['label'])
            assert entry['class'] == names[entry['label']]
        assert len(record['classes']) == len(np.unique(labels))
        assert cv2.imread(str(tmp_path / record['drawn'])).shape == (512, 512, 3)


def test_model_trained_on_decoded_gray_images_accepts_image_files(model, folder, tmp_path):
    config, checkpoint = model('decoded')
    (record,) = infer(config, checkpoint, folder / 'images' / '0000.png', tmp_path, device='cpu')
    assert record['pred_class'] == record['top'][0]['class'] and not record['pred_class'].isdigit()
    assert sorted(path.name for path in tmp_path.iterdir()) == ['predictions.json', 'predictions.png']


def write_cifar(folder, pixels):
    """CIFAR-100's test set of one image (32, 32, 3) RGB; its training file is empty."""
    (folder / 'cifar-100-python').mkdir()
    content = {'data': pixels.transpose(2, 0, 1).reshape(1, -1), 'fine_labels': [3]}
    (folder / 'cifar-100-python' / 'test').write_bytes(pickle.dumps(content))
    (folder / 'cifar-100-python' / 'train').touch()


def write_fashion(folder, pixels):
    """Fashion-MNIST's test set of one image (28, 28)."""
    header = bytes([0, 0, 8, 3]) + np.array([1, 28, 28], '>u4').tobytes()
    (folder / 't10k-images-idx3-ubyte').write_bytes(header + pixels.tobytes())
    (folder / 't10k-labels-idx1-ubyte').write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 1, 3]))


@pytest.mark.parametrize(
    'name, write, shape', [('cifar', write_cifar, (32, 32, 3)), ('decoded', write_fashion, (28, 28))]
)
def test_a_file_of_an_image_is_predicted_as_the_decoded_image_of_the_test_set(
    name, write, shape, model, tmp_path, monkeypatch
):
    config, checkpoint = model(name)
    monkeypatch.setattr('mmpretrain.datasets.cifar.check_md5', lambda *args: True)  # of the real files
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    pixels[..., 0] //= 4  # little red
    write(tmp_path, pixels)
    cfg = load_config(config, {'test_dataloader.dataset.data_root': str(tmp_path)})
    item = DATASETS.build(cfg.test_dataloader.dataset)[0]
    network = Predictor(config, checkpoint, 'cpu')
    with torch.no_grad():
        (expected,) = network.model.test_step(pseudo_collate([item]))
    Image.fromarray(pixels).save(tmp_path / 'image.png')
    _, from_file = network.predict_one(tmp_path / 'image.png', None)
    _, from_frame = network.predict_one(cv2.imread(str(tmp_path / 'image.png')), None)
    for found in (from_file, from_frame):
        np.testing.assert_allclose(found['probabilities'], expected.pred_score, rtol=1e-5)
    (record,) = infer(config, checkpoint, tmp_path / 'image.png', tmp_path / 'out', device='cpu')
    assert record['pred_label'] == expected.pred_label.item()
    if len(shape) == 3:
        Image.fromarray(pixels[..., ::-1].copy()).save(tmp_path / 'swapped.png')
        _, swapped = network.predict_one(tmp_path / 'swapped.png', None)
        assert np.abs(np.log(swapped['probabilities']) - np.log(expected.pred_score.numpy())).max() > 1e-3


def write_boxes(path, folder, boxes, form):
    """Write boxes in either format, with other image folders, so that images are found by name."""
    names = [f'000{number}.png' for number in range(len(boxes))]
    if form == 'coco':
        content = {
            'images': [{'id': 7 + i, 'file_name': f'val/{name}'} for i, name in enumerate(names)],
            'annotations': [
                {'image_id': 7 + i, 'bbox': [x1, y1, x2 - x1, y2 - y1]}
                for i, rows in enumerate(boxes)
                for x1, y1, x2, y2 in rows
            ],
        }
    else:
        content = {
            'predictions': [
                {'image': str(folder / name), 'instances': [{'bbox': box, 'score': 0.5} for box in rows]}
                for name, rows in zip(names, boxes, strict=True)
            ]
        }
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize('form', ['coco', 'predictions', None])
def test_keypoints_equal_those_of_the_library_for_the_same_boxes(form, model, folder, tmp_path):
    config, checkpoint = model('pose')
    boxes = [[[10, 20, 60, 90], [30, 5, 120, 70]], [], [[0, 0, 40, 40]]]
    file = form and write_boxes(tmp_path / 'boxes.json', folder / 'images', boxes, form)
    records = infer(config, checkpoint, folder / 'images', tmp_path, boxes=file, device='cpu')
    assert read_report(tmp_path)['keypoint_names'] == ['top', 'bottom', 'left', 'right', 'centroid']
    reference, predict = library_model('pose', config, checkpoint)
    for record, rows in zip(records, boxes if form else [[[0, 0, 128, 128]]] * 3, strict=True):
        assert [instance['bbox'] for instance in record['instances']] == rows
        expected = predict(reference, record['image'], np.array(rows, np.float32)) if rows else []
        for instance, sample in zip(record['instances'], expected, strict=True):
            points = np.array(instance['keypoints'])
            np.testing.assert_allclose(points[:, :2], sample.pred_instances.keypoints[0], atol=0.02)
            np.testing.assert_allclose(points[:, 2], sample.pred_instances.keypoint_scores[0], atol=1e-5)
            assert instance['score'] == pytest.approx(points[:, 2].mean(), abs=1e-5)
        assert cv2.imread(str(tmp_path / record['drawn'])).shape == (512, 512, 3)


def test_predictions_of_a_detector_serve_as_boxes_for_images_and_videos(model, folder, tmp_path):
    detector, pose = model('retinanet'), model('pose')
    for source in ('images', 'clip.avi'):
        found = infer(*detector, folder / source, tmp_path / 'boxes', score_thr=0.55, device='cpu')
        assert any(record['instances'] for record in found)
        records = infer(*pose, folder / source, tmp_path / 'pose', tmp_path / 'boxes/predictions.json', device='cpu')
        assert [[instance['bbox'] for instance in record['instances']] for record in records] == [
            [instance['bbox'] for instance in record['instances']] for record in found
        ]


@pytest.mark.parametrize('name', ['classification', 'retinanet', 'upernet', 'pose'])
def test_each_frame_of_a_video_is_predicted_and_drawn(name, model, folder, tmp_path):
    config, checkpoint = model(name)
    records = infer(config, checkpoint, folder / 'clip.avi', tmp_path / 'video', device='cpu')
    assert [record['frame'] for record in records] == [0, 1, 2]
    video = Video(tmp_path / 'video' / 'clip.mp4')
    drawn = list(video)
    assert (video.fps, video.num_frames, len(drawn)) == (12.5, 3, 3)
    (tmp_path / 'frames').mkdir()
    for index, frame in enumerate(Video(folder / 'clip.avi')):
        assert drawn[index].shape == frame.shape == (128, 128, 3)
        cv2.imwrite(str(tmp_path / 'frames' / f'{index}.png'), frame)
    single = infer(config, checkpoint, tmp_path / 'frames', tmp_path / 'single', device='cpu')
    for record, expected in zip(records, single, strict=True):
        # OpenCV's conversion to gray while decoding rounds differently from one after decoding.
        if name == 'classification':
            assert record['pred_score'] == pytest.approx(expected['pred_score'], abs=0.01)
        for key in record.keys() & {'instances', 'classes', 'pred_class'}:
            assert record[key] == expected[key]
        if 'map' in record:
            assert (tmp_path / 'video' / record['map']).read_bytes() == (
                tmp_path / 'single' / expected['map']
            ).read_bytes()


def test_class_names_come_from_the_checkpoint_first_and_then_from_the_config(model, folder):
    config, checkpoint = model('retinanet', dataset_meta={'classes': tuple('abcdefghij')})
    writer = Predictor(config, checkpoint, 'cpu').writer
    assert writer.classes == list('abcdefghij')
    assert len(writer.palette) == 10
    config, checkpoint = model('retinanet', dataset_meta={'palette': []})
    assert Predictor(config, checkpoint, 'cpu').writer.classes == list('0123456789')


def test_a_class_without_a_name_is_reported(model, folder, tmp_path):
    """The advice has an effect, although the checkpoint has names too."""
    config, checkpoint = model('upernet', dataset_meta={'classes': ('one',), 'palette': [[1, 2, 3]]})
    names, colors = ('test_dataloader.dataset.metainfo.' + key for key in ('classes', 'palette'))
    with pytest.raises(UserError, match=f'there are only 1 class names: set {names}'):
        options = {names: ('one',), colors: [[1, 2, 3]]}
        infer(config, checkpoint, folder / 'images', tmp_path, device='cpu', cfg_options=options)
    own, palette = tuple('abcdefghijk'), [[number, 0, 0] for number in range(11)]
    options = {names: own, colors: palette}
    records = infer(config, checkpoint, folder / 'images', tmp_path, device='cpu', cfg_options=options)
    assert all(own[item['label']] == item['class'] for record in records for item in record['classes'])


@pytest.mark.filterwarnings('ignore:The metainfo config file')
def test_pose_model_without_metainfo_uses_that_of_its_data_set(folder):
    pytest.importorskip('mmpose')
    cfg = load_config(ROOT / 'configs/pose/td-hm_moganet-tiny_210e_coco-256x192.py')
    import_quietly('mmpose')
    names = dataset_meta(cfg, {'meta': {'dataset_meta': {'CLASSES': 'x'}}})['keypoint_id2name']
    assert len(names) == 17 and names[0] == 'nose'


def test_images_that_differ_only_in_folder_or_suffix_have_drawings_of_their_own(model, folder, tmp_path):
    config, checkpoint = model('retinanet')
    files = [tmp_path / 'a' / 'x.png', tmp_path / 'a' / 'x.jpg', tmp_path / 'b' / 'x.png']
    for number, file in enumerate(files):
        file.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(file), cv2.imread(str(folder / 'images' / f'000{number}.png')))
    records = infer(config, checkpoint, [str(file) for file in files], tmp_path / 'out', device='cpu')
    drawn = [tmp_path / 'out' / record['drawn'] for record in records]
    assert [record['image'] for record in records] == [str(file) for file in files]
    assert len({file.read_bytes() for file in drawn}) == len(set(drawn)) == 3


@pytest.mark.parametrize('inputs, expected', [([], None), (['a.png'], 'a.png'), (['a.png', 'b'], ['a.png', 'b'])])
def test_the_command_takes_any_number_of_inputs_before_or_after_options(inputs, expected, monkeypatch):
    calls = []
    monkeypatch.setattr(predictor, 'infer', lambda **options: calls.append(options) or [])
    for arguments in (['c', 'w', *inputs, '--out-dir', 'out'], ['c', 'w', '--out-dir', 'out', *inputs]):
        infer_command.main(arguments)
    assert [(call['source'], call['out_dir'], call['checkpoint']) for call in calls] == [(expected, 'out', 'w')] * 2


def test_corrupt_files_in_a_folder_are_skipped_and_listed(model, folder, tmp_path, capsys):
    config, checkpoint = model('retinanet')
    source = tmp_path / 'source'
    source.mkdir()
    (source / 'good.png').write_bytes((folder / 'images' / '0000.png').read_bytes())
    (source / 'empty.png').touch()
    (source / 'text.jpg').write_text('not an image')
    (source / 'cut.mp4').write_bytes((folder / 'clip.avi').read_bytes()[:100])
    infer(config, checkpoint, source, source / 'out', device='cpu')
    report = read_report(source / 'out')
    assert [record['image'] for record in report['predictions']] == [str(source / 'good.png')]
    assert report['unreadable'] == [str(source / name) for name in ('cut.mp4', 'empty.png', 'text.jpg')]
    assert capsys.readouterr().out.count('warning: ') == 3
    # Drawings below the folder are not inputs of a second run.
    infer(config, checkpoint, source, source / 'out', device='cpu')
    assert read_report(source / 'out') == report
    for name in ('empty.png', 'text.jpg', 'cut.mp4'):
        with pytest.raises(UserError, match=rf'{name} cannot be read'):
            infer(config, checkpoint, source / name, tmp_path / 'out', device='cpu')
        (source / name).rename(tmp_path / name)
    (source / 'good.png').write_bytes(b'')
    with pytest.raises(UserError, match=r'none of the 1 files in .* can be read'):
        infer(config, checkpoint, source, source / 'out', device='cpu')


def test_frames_of_another_size_are_drawn_at_that_of_the_first(model, folder, tmp_path, monkeypatch):
    first, other, last = (np.full((height, width, 3), 90, np.uint8) for width, height in ((64, 48), (96, 80), (64, 48)))
    frames = iter([first, other, last])
    monkeypatch.setattr(Video, '__iter__', lambda self: frames)
    records = infer(*model('classification'), folder / 'clip.avi', tmp_path / 'out', device='cpu')
    monkeypatch.undo()
    assert len(records) == 3
    assert [frame.shape for frame in Video(tmp_path / 'out/clip.mp4')] == [(48, 64, 3)] * 3


@pytest.mark.parametrize(
    'content, message',
    [
        (None, 'boxes.json cannot be read'),
        ('{', 'has an unknown format'),
        ('[]', 'has an unknown format'),
        ('[' * 100_000, 'has an unknown format .*RecursionError'),
        (
            '{"predictions": [{"image": "a.png", "instances": [{"bbox": [1, 2, 3, 1%s], "score": 1}]}]}' % ('0' * 400),
            'has an unknown format .*OverflowError',
        ),
        ('{"images": []}', 'has an unknown format .*annotations'),
        ('{"predictions": [{"image": "0000.png", "top": []}]}', 'has an unknown format .*instances'),
        ('{"predictions": [{"image": "0000.png", "instances": [{"bbox": [1], "score": 1}]}]}', 'has an unknown format'),
        ('{"predictions": [{"image": "0000.png", "instances": []}]}', 'has no box for .*0.png or the 2 other inputs'),
        (
            '{"predictions": [{"image": "0000.png", "instances": [{"bbox": [0, 0, 1e9, 5], "score": 1}]}]}',
            r'has a box that is \[0.0, 0.0, 1000000000.0, 5.0\] in 0000.png: use x1, y1, x2, y2',
        ),
        (
            f'{{"predictions": [{{"image": "a.png", "instances": [{{"bbox": [0, 0, {10**400}, 5], "score": 1}}]}}]}}',
            'has an unknown format',
        ),
        ('[' * 100_000, 'has an unknown format'),
        ('{"predictions": [{"image": "9.png", "instances": [{"bbox": [1, 2, 3, 4], "score": 1}]}]}', 'has no box for'),
        (
            '{"images": [{"id": 1, "file_name": "a/0000.png"}, {"id": 2, "file_name": "b/0000.png"}],'
            ' "annotations": [{"image_id": 1, "bbox": [1, 2, 3, 4]}]}',
            'has 2 files named 0000.png, but not .*0000.png',
        ),
    ],
)  # fmt: skip
def test_invalid_boxes_files_are_reported(content, message, folder, tmp_path):
    pytest.importorskip('mmpose')
    if content is not None:
        (tmp_path / 'boxes.json').write_text(content)
    config = ROOT / 'configs' / CASES['pose'][0]
    with pytest.raises(UserError, match=message) as raised:
        infer(config, 'none.pth', folder / 'images', tmp_path / 'out', boxes=tmp_path / 'boxes.json')
    assert '\n' not in str(raised.value)


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(boxes='boxes.json'), '--boxes boxes.json is only for pose estimation'),
        (dict(score_thr=30.0), '--score-thr 30.0 is out of range'),
        (dict(num_sequences=0), '--num-sequences 0 has no effect except for video prediction: omit it'),
        (dict(tile_overlap=0.0), '--tile-overlap 0.0 has no effect without --tile: omit it'),
        (dict(out_dir='images'), 'is the input folder'),
        (dict(source='none.mp4'), 'input none.mp4 does not exist'),
    ],
)
def test_invalid_settings_are_reported(options, message, folder, monkeypatch):
    monkeypatch.chdir(folder)
    with pytest.raises(UserError, match=message):
        infer(ROOT / 'configs' / CASES['retinanet'][0], 'none.pth', **{'source': 'images', 'out_dir': 'x', **options})


def test_the_input_video_is_not_overwritten(model, folder, tmp_path):
    config, checkpoint = model('retinanet')
    write_video(tmp_path / 'clip.mp4', [np.zeros((64, 64, 3), np.uint8)])
    before = (tmp_path / 'clip.mp4').read_bytes()
    with pytest.raises(UserError, match=r'would overwrite .*clip\.mp4'):
        infer(config, checkpoint, tmp_path / 'clip.mp4', tmp_path, device='cpu')
    assert (tmp_path / 'clip.mp4').read_bytes() == before


def test_the_tool_reports_a_corrupt_video_in_one_line(model, folder, tmp_path):
    config, checkpoint = model('pose')
    (tmp_path / 'cut.mp4').write_bytes((folder / 'clip.avi').read_bytes()[:3000])
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', ROOT / 'tools' / 'infer.py', config, checkpoint, 'cut.mp4', '--out-dir', 'o'],
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == ['error: video cut.mp4 cannot be read: replace it or use another']


@pytest.mark.parametrize('name', ['retinanet', 'classification'])
def test_images_whose_side_shrinks_to_nothing_are_skipped_in_one_line(name, model, folder, tmp_path, capsys):
    config, checkpoint = model(name)
    for file, shape in (('wide.png', (1, 3000, 3)), ('tall.png', (3000, 1, 3)), ('good.png', (32, 32, 3))):
        cv2.imwrite(str(tmp_path / file), np.zeros(shape, np.uint8))
    records = infer(config, checkpoint, tmp_path, tmp_path / 'out', device='cpu')
    skipped = read_report(tmp_path / 'out').get('unreadable', [])
    assert len(records) + len(skipped) == 3 and str(tmp_path / 'good.png') not in skipped
    if name == 'retinanet':
        assert [Path(file).name for file in skipped] == ['tall.png', 'wide.png']
        assert 'wide.png of 3000 x 1 px cannot be resized as the test pipeline does' in capsys.readouterr().out
        with pytest.raises(UserError, match=r'tall\.png of 1 x 3000 px cannot be resized'):
            infer(config, checkpoint, tmp_path / 'tall.png', tmp_path / 'out', device='cpu')


def test_images_above_the_pixel_limit_are_refused_by_their_header(model, folder, tmp_path, monkeypatch):
    config, checkpoint = model('classification')
    image = folder / 'images' / '0000.png'
    monkeypatch.setenv('MOGACORE_MAX_PIXELS', str(128 * 128 - 1))
    with pytest.raises(UserError, match=r'of 128 x 128 px has more than 16,383 pixels: .* MOGACORE_MAX_PIXELS'):
        infer(config, checkpoint, image, tmp_path, device='cpu')
    monkeypatch.setenv('MOGACORE_MAX_PIXELS', str(128 * 128))
    assert len(infer(config, checkpoint, image, tmp_path, device='cpu')) == 1


def test_file_names_that_are_not_utf8_work(model, folder, tmp_path):
    config, checkpoint = model('classification')
    source = tmp_path / 'source'
    source.mkdir()
    paths = [Path(os.fsdecode(os.fsencode(source) + tail)) for tail in (b'/caf\xe9.avi', b'/caf\xe9$_{.png')]
    paths[0].write_bytes((folder / 'clip.avi').read_bytes())
    paths[1].write_bytes((folder / 'images' / '0000.png').read_bytes())
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', ROOT / 'tools' / 'infer.py', config, checkpoint, source,
         '--out-dir', tmp_path / 'out', '--device', 'cpu'],
        capture_output=True, text=True, timeout=300, env=dict(os.environ, PYTHONIOENCODING='utf-8'),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = read_report(tmp_path / 'out')
    found = [record.get('video') or record['image'] for record in report['predictions']]
    assert sorted(found) == sorted([str(paths[0])] * 3 + [str(paths[1])])
    assert len(list(Video(tmp_path / 'out' / f'{paths[0].stem}.mp4'))) == 3


def test_a_truncated_video_is_reported_with_its_numbers_of_frames(model, folder, tmp_path, capsys):
    config, checkpoint = model('classification')
    frames = [np.random.default_rng(i).integers(0, 256, (64, 64, 3), np.uint8) for i in range(24)]
    write_video(tmp_path / 'whole.avi', frames)
    content = (tmp_path / 'whole.avi').read_bytes()
    (tmp_path / 'cut.avi').write_bytes(content[: len(content) // 3])
    records = infer(config, checkpoint, tmp_path / 'cut.avi', tmp_path / 'cut', device='cpu')
    assert 4 < len(records) < 12
    expected = {'video': str(tmp_path / 'cut.avi'), 'frames_expected': 24, 'frames_read': len(records)}
    assert read_report(tmp_path / 'cut')['truncated'] == [expected]
    assert f'cut.avi has 24 frames, but only {len(records)} can be read' in capsys.readouterr().out
    assert len(infer(config, checkpoint, tmp_path / 'whole.avi', tmp_path / 'whole', device='cpu')) == 24
    assert 'truncated' not in read_report(tmp_path / 'whole') and 'warning' not in capsys.readouterr().out


@pytest.mark.parametrize('ignore', [False, True])
def test_pictures_with_an_exif_orientation_are_predicted_and_drawn_as_they_are_loaded(ignore, model, folder, tmp_path):
    """A quarter turn in the EXIF data gives the prediction of the turned image, unless the loader ignores it."""
    config, checkpoint = model('retinanet')
    stored = Image.open(folder / 'images' / '0000.png').crop((0, 0, 128, 96))
    exif = Image.Exif()
    exif[0x0112] = 6
    stored.save(tmp_path / 'turned.png', exif=exif)
    (stored if ignore else stored.transpose(Image.Transpose.ROTATE_270)).save(tmp_path / 'expected.png')
    options = {'test_dataloader.dataset.pipeline.0.color_type': 'color_ignore_orientation'} if ignore else None
    found, expected = (
        infer(
            config, checkpoint, tmp_path / name, tmp_path / name[:3], score_thr=0.1, cfg_options=options, device='cpu'
        )
        for name in ('turned.png', 'expected.png')
    )
    assert found[0]['instances'] == expected[0]['instances'] != []
    drawn = [
        cv2.imread(str(tmp_path / name / record[0]['drawn'])) for name, record in (('tur', found), ('exp', expected))
    ]
    np.testing.assert_array_equal(*drawn)
