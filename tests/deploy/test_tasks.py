"""Exported files of every task against the predictions of the task libraries in eager PyTorch."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import build_small, predict, write_small

from mogacore.deploy.export import export
from mogacore.deploy.source import load_source
from mogacore.runtime.backends import openvino_core

pytest.importorskip('onnxscript')
ort = pytest.importorskip('onnxruntime')
pytest.importorskip('openvino')

SIZES = (64, 96), (97, 61), (150, 70)  # of the configs' examples, none


def open_onnx(path):
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()  # idle threads spin
    session = ort.InferenceSession(path.read_bytes(), options, providers=['CPUExecutionProvider'])
    names = [output.name for output in session.get_outputs()]
    return lambda feed: dict(zip(names, session.run(None, feed), strict=True))


def open_openvino(path):
    core = openvino_core()
    settings = {'INFERENCE_PRECISION_HINT': 'f32', 'INFERENCE_NUM_THREADS': torch.get_num_threads()}
    network = core.compile_model(core.read_model(path), 'CPU', settings)
    return lambda feed: {output.any_name: array for output, array in network(feed).items()}


@pytest.fixture
def exported(tmp_path):
    """Exports a small model; returns it, its metadata, and functions that run its ONNX and OpenVINO files."""

    def run(config, more='', **settings):
        pytest.importorskip('mmdet')
        files = write_small(tmp_path, config, more)
        source = load_source(*files, raw=settings.pop('raw', False))
        paths = [tmp_path / 'net.onnx', tmp_path / 'net.xml']
        export(source, paths, **settings)
        import onnx

        model = onnx.load(paths[0])
        onnx.checker.check_model(model, full_check=True)
        assert [(opset.domain, opset.version) for opset in model.opset_import] == [('', 20)]
        assert {node.domain for node in model.graph.node} == {''} and not model.functions
        metadata = json.loads({prop.key: prop.value for prop in model.metadata_props}['mogacore'])
        assert json.loads(openvino_core().read_model(paths[1]).get_rt_info('mogacore').astype(str)) == metadata
        return build_small(Path(files[0])), metadata, [open_onnx(paths[0]), open_openvino(paths[1])]

    return run


def photos(batch, channels, height, width, seed=0):
    """Smooth images, uint8."""
    coarse = torch.rand(batch, channels, 6, 6, generator=torch.Generator().manual_seed(seed))
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode='bicubic').clamp(0, 1)
    return (255 * fine).round().to(torch.uint8)


def test_classifier(exported):
    model, metadata, runs = exported('classification/moganet-xtiny_digits')
    assert metadata['task'] == 'classification' and metadata['input'] == {
        'name': 'images', 'dtype': 'uint8', 'channels': 'gray', 'size': [32, 32],
        'ignore_orientation': False, 'dynamic': ['batch', 'height', 'width'],
    }  # fmt: skip
    assert metadata['preprocess'] == [] and metadata['opset'] == 20
    for batch, (height, width) in [(1, (32, 32)), (3, (32, 32)), (1, (64, 96)), (3, (97, 61)), (2, (33, 70))]:
        images = photos(batch, 1, height, width)
        expected = torch.stack([sample.pred_score for sample in predict(model, images, {})]).numpy()
        assert np.ptp(expected, axis=1).min() > 0.05  # not all the same
        for run in runs:
            found = run({'images': images.numpy()})['probabilities']
            np.testing.assert_allclose(np.log(found), np.log(expected), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    'config', ['segmentation/semantic-fpn_moganet-xtiny_digits', 'segmentation/upernet_moganet-xtiny_digits']
)
def test_segmentation(exported, config):
    model, metadata, runs = exported(config)
    assert metadata['classes'][:2] == ['background', '0'] and metadata['palette'][1] == [230, 25, 75]
    for batch, (height, width) in [(1, SIZES[0]), (3, SIZES[1]), (1, SIZES[2]), (3, (128, 128))]:
        images = photos(batch, 3, height, width)
        for size in [(height, width), (height * 2 + 1, width - 7)]:
            samples = predict(model, images, {'ori_shape': size})
            expected = torch.cat([sample.pred_sem_seg.data for sample in samples]).numpy()
            assert len(np.unique(expected)) > 2
            for run in runs:
                found = run({'images': images.numpy(), 'output_size': np.array(size)})['class_map']
                assert found.shape == (batch, *size) and found.dtype == np.int64
                assert (found == expected).mean() >= 0.999


def test_pose_with_flip_test(exported):
    model, metadata, runs = exported('pose/td-hm_moganet-xtiny_digits')
    assert metadata['keypoints']['names'] == ['top', 'bottom', 'left', 'right', 'centroid']
    assert metadata['keypoints']['flip_indices'] == [0, 1, 3, 2, 4] and model.test_cfg['flip_test']
    assert metadata['preprocess'] == [{'step': 'warp', 'size': [64, 64], 'padding': 1.25, 'udp': False}]
    num_inside = 0
    for batch in (1, 3):
        images = photos(batch, 3, 64, 64, seed=batch)
        samples = predict(model, images, {'flip_indices': metadata['keypoints']['flip_indices']})
        for run in runs:
            found = run({'images': images.numpy()})
            for i, sample in enumerate(samples):
                instances = sample.pred_instances
                points = instances.keypoints[0]
                # A flat heatmap has its peak far outside of the crop, a distance that rounding changes by its part.
                np.testing.assert_allclose(found['keypoints'][i], points, rtol=1e-3, atol=0.05)
                np.testing.assert_allclose(found['scores'][i], instances.keypoint_scores[0], rtol=0, atol=1e-4)
                num_inside += ((points >= 0) & (points <= 64)).all(1).sum()
    assert num_inside >= 5


def test_two_hands(exported):
    model, metadata, runs = exported('pose/hand3d/internet_moganet-xtiny_interhand3d-synthetic')
    assert metadata['task'] == 'hands' and len(metadata['keypoints']['names']) == 42
    hands = set()
    for batch in (1, 3):
        images = photos(batch, 3, 64, 64, seed=batch)
        for run in runs:
            found = run({'images': images.numpy()})
            for i, sample in enumerate(predict(model, images, {})):
                instances = sample.pred_instances
                present = instances.hand_type[0]
                np.testing.assert_array_equal(found['hands'][i], present)
                np.testing.assert_allclose(found['keypoints'][i], instances.keypoints[0], rtol=0, atol=0.05)
                scores = np.clip(instances.keypoint_scores[0] / 10, 0, 1) * np.repeat(present, 21)
                np.testing.assert_allclose(found['scores'][i], scores, rtol=0, atol=1e-4)
                np.testing.assert_allclose(found['root_depth'][i], instances.rel_root_depth[0], rtol=0, atol=0.05)
                hands.add(tuple(present))
    assert hands - {(0, 0)}


def test_one_hand_from_heatmaps(exported):
    model, metadata, runs = exported('pose/hand3d/heatmap3d_moganet-xtiny_freihand-synthetic')
    assert metadata['task'] == 'hands' and len(metadata['keypoints']['names']) == 21
    images = photos(3, 3, 64, 64)
    for run in runs:
        found = run({'images': images.numpy()})
        assert list(found) == ['keypoints', 'scores']
        for i, sample in enumerate(predict(model, images, {})):
            np.testing.assert_allclose(found['keypoints'][i], sample.pred_instances.keypoints[0], rtol=0, atol=0.05)
            np.testing.assert_allclose(found['scores'][i], sample.pred_instances.keypoint_scores[0], rtol=0, atol=1e-4)


def test_video(exported):
    model, metadata, runs = exported('video_prediction/simvp_moganet_moving-digits')
    assert metadata['input']['name'] == 'past_frames' and metadata['input']['dtype'] == 'float32'
    for batch, (height, width) in [(1, (64, 64)), (3, (64, 64)), (2, (32, 48))]:
        frames = photos(10 * batch, 1, height, width).float().div(255).view(batch, 10, 1, height, width)
        with torch.no_grad():
            expected = model(frames).numpy()
        assert expected.shape[1] == 4
        for run in runs:
            np.testing.assert_allclose(run({'past_frames': frames.numpy()})['frames'], expected, rtol=0, atol=1e-4)
