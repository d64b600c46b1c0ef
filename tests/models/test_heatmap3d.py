import numpy as np
import pytest

import mogacore.registry  # noqa: F401
from mogacore.models import RootRelativeHeatmap


@pytest.fixture
def codec():
    return RootRelativeHeatmap((128, 96), (32, 24, 20), sigma=1.5)


def random_joints(rng, low, high):
    return rng.uniform(low, high, (1, 21, 3)).astype(np.float32)


def test_decoding_inverts_encoding(codec):
    rng = np.random.default_rng(0)
    inside = random_joints(rng, (8, 8, -160), (116, 84, 140))
    found, scores = codec.decode(codec.encode(inside)['heatmaps'])
    assert found.shape == (1, 21, 3) and scores.shape == (1, 21)
    np.testing.assert_allclose(found, inside, atol=1e-2)  # where all neighbors exist
    anywhere = random_joints(rng, (0, 0, -200), (125, 93, 180))
    found, scores = codec.decode(codec.encode(anywhere)['heatmaps'])
    assert (abs(found - anywhere) <= [2, 2, 10]).all()  # half a voxel
    assert ((scores > 0.6) & (scores <= 1)).all()


def test_heatmaps_and_weights_equal_those_of_mmpose(codec):
    codecs = pytest.importorskip('mmpose.registry').KEYPOINT_CODECS
    theirs = codecs.build(
        dict(type='Hand3DHeatmap', image_size=[128, 96], heatmap_size=[32, 24, 20], sigma=1.5, max_bound=255.0)
    )
    joints = random_joints(np.random.default_rng(1), (-5, -5, -250), (135, 100, 250))
    visible = np.ones((1, 21), np.float32)
    visible[0, 4] = 0
    expected = theirs.encode(joints, visible, None, np.float32(0), np.float32(1), None, None, None, None)
    ours = codec.encode(joints, visible)
    np.testing.assert_array_equal(ours['keypoint_weights'][:, ::20], expected['keypoint_weights'])
    assert ours['keypoint_weights'].shape == (1, 21 * 20) and (ours['keypoint_weights'] == 0).sum() >= 20
    kept = expected['keypoint_weights'][0] > 0  # mmpose sets a border voxel for joints that are outside
    kept &= ((joints[0, :, :2] > 4) & (joints[0, :, :2] < [120, 88]) & (abs(joints[0, :, 2:]) < 150)).all(1)
    assert kept.sum() >= 5
    ours, expected = (encoded['heatmaps'].reshape(21, 20, 24, 32)[kept] for encoded in (ours, expected))
    np.testing.assert_allclose(ours, expected, atol=1e-3)


def test_mmpose_codec_returns_joints_within_half_a_voxel():
    codecs = pytest.importorskip('mmpose.registry').KEYPOINT_CODECS
    codec = codecs.build(dict(type='Hand3DHeatmap', sigma=2.5, max_bound=255))  # the sizes of the InterNet configs
    joints = np.random.default_rng(0).uniform((0, 0, -200), (253, 253, 196), (1, 4, 3)).astype(np.float32)
    one, hands = np.ones(1, np.float32), np.array([[1, 0]], np.float32)
    encoded = codec.encode(joints, np.ones((1, 4), np.float32), None, 37.5 * one, one, hands, one, None, None)
    volumes = encoded['heatmaps'].reshape(4, 64, 64, 64)
    found, _, depth, hand_type = codec.decode(volumes, encoded['root_depth'], hands)
    assert (abs(found - joints) <= [2 + 1e-4, 2 + 1e-4, 3.125 + 1e-4]).all()
    assert depth == pytest.approx(37.5) and hand_type.tolist() == [[1, 0]]


def test_an_empty_heatmap_gives_no_joint(codec):
    found, scores = codec.decode(np.zeros((21 * 20, 24, 32), np.float32))
    assert not found.any() and not scores.any()


def test_codec_is_built_by_name_from_mmpose_registry():
    codecs = pytest.importorskip('mmpose.registry').KEYPOINT_CODECS
    built = codecs.build(dict(type='RootRelativeHeatmap', input_size=(64, 64), heatmap_size=(16, 16, 16)))
    assert type(built) is RootRelativeHeatmap
