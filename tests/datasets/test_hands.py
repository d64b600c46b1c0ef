import json

import cv2
import numpy as np
import pytest

from mogacore.datasets import hands
from mogacore.datasets.hands import BASES, BONES, PARENTS, TO_INTERHAND, draw_hands, pose_hand, write_hands
from mogacore.errors import UserError


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp('hands')
    counts = write_hands(root, num_train=6, num_test=3, seed=1)
    assert counts['freihand'] == {'training images': 6, 'evaluation images': 3}
    assert counts['interhand2.6m'] == {'train images': 6, 'val images': 3, 'test images': 3}
    return root


def load(path):
    return json.loads(path.read_text())


def bone_lengths(joints):
    return np.array([np.linalg.norm(joints[i] - joints[parent]) for i, parent in enumerate(PARENTS) if parent >= 0])


def test_bone_lengths_do_not_depend_on_the_pose():
    rng = np.random.default_rng(0)
    expected = np.column_stack([np.linalg.norm(BASES, axis=1), BONES]).ravel()
    for is_left in (False, True):
        for _ in range(20):
            joints, size = pose_hand(rng, is_left)
            assert joints.shape == (21, 3) and not joints[0].any()
            ratio = bone_lengths(joints) / size / expected
            np.testing.assert_allclose(ratio, 1, atol=0.15)
            np.testing.assert_allclose(ratio[::4], 1, atol=1e-9)  # the palm is rigid


def test_left_hand_is_the_mirror_image_before_rotation(monkeypatch):
    monkeypatch.setattr(hands, '_rotation', lambda *angles: np.eye(3))
    right, left = (pose_hand(np.random.default_rng(3), is_left)[0] for is_left in (False, True))
    np.testing.assert_allclose(left, right * [-1, 1, 1])


def test_rotation_equals_that_of_scipy():
    rotation = pytest.importorskip('scipy.spatial.transform').Rotation
    angles = (0.3, -0.7, 1.9)
    np.testing.assert_allclose(hands._rotation(*angles), rotation.from_euler('xyz', angles).as_matrix(), atol=1e-12)


def test_hand_is_drawn_at_its_projection_and_occludes_the_one_behind_it(monkeypatch):
    monkeypatch.setattr(hands, '_draw_background', lambda rng, canvas: np.zeros((canvas, canvas, 3)))
    joints = pose_hand(np.random.default_rng(0))[0]
    joints += np.array([0, 0, 500]) - joints.mean(0)
    focal, center = np.array([280.0, 280.0]), np.array([64.0, 64.0])
    image = draw_hands(np.random.default_rng(1), [(joints, 1.0)], focal, center)
    ink = image.sum(2, dtype=int) > 60
    x, y = (joints[:, :2] / joints[:, 2:] * focal + center).round().astype(int).T
    assert ink[y, x].all()
    near_a_joint = np.zeros((128, 128), np.uint8)
    near_a_joint[y, x] = 1
    assert not ink[cv2.dilate(near_a_joint, np.ones((61, 61))) == 0].any()
    # The same hand farther away has the same projected joints and thinner bones: it is fully occluded.
    both = draw_hands(np.random.default_rng(1), [(joints, 1.0), (joints * 1.5, 1.0)], focal, center)
    np.testing.assert_array_equal(both, image)
    both = draw_hands(np.random.default_rng(1), [(joints * 1.5, 1.0), (joints, 1.0)], focal, center)
    np.testing.assert_array_equal(both, image)


def test_freihand_files_are_consistent(root):
    for split, count in (('training', 6), ('evaluation', 3)):
        cameras, joints, scales = (
            np.array(load(root / 'freihand' / f'{split}_{name}.json')) for name in ('K', 'xyz', 'scale')
        )
        assert cameras.shape == (count, 3, 3) and joints.shape == (count, 21, 3)
        projected = np.einsum('nij,nkj->nki', cameras, joints)
        pixels = projected[..., :2] / projected[..., 2:]
        assert pixels.min() >= 5.9 and pixels.max() <= 121.1
        np.testing.assert_allclose(scales, np.linalg.norm(joints[:, 10] - joints[:, 9], axis=1), atol=1e-6)
        names = sorted(path.name for path in (root / 'freihand' / split / 'rgb').iterdir())
        assert names == [f'{i:08}.jpg' for i in range(count)]
        assert cv2.imread(str(root / 'freihand' / split / 'rgb' / names[0])).shape == (128, 128, 3)


def test_interhand_files_are_consistent(root):
    folder = root / 'interhand2.6m'
    for split in ('train', 'val', 'test'):
        annotations = folder / 'annotations' / 'all'
        data, cameras, frames = (
            load(annotations / f'InterHand2.6M_{split}_{name}.json') for name in ('data', 'camera', 'joint_3d')
        )
        for image, annotation in zip(data['images'], data['annotations'], strict=True):
            assert (folder / 'images' / split / image['file_name']).is_file()
            camera = {key: np.array(values[image['camera']]) for key, values in cameras['0'].items()}
            frame = frames['0'][str(image['frame_idx'])]
            np.testing.assert_allclose(camera['camrot'] @ camera['camrot'].T, np.eye(3), atol=1e-6)
            valid = np.array(annotation['joint_valid']).ravel().astype(bool)
            assert valid[:21].all() == (annotation['hand_type'] in ('right', 'interacting'))
            assert valid[21:].all() == (annotation['hand_type'] in ('left', 'interacting'))
            assert frame['joint_valid'] == [[bool(value)] for value in valid]
            joints = (np.array(frame['world_coord']) - camera['campos']) @ camera['camrot'].T
            pixels = (joints[:, :2] / joints[:, 2:] * camera['focal'] + camera['princpt'])[valid]
            x, y, width, height = annotation['bbox']
            assert (pixels >= [x, y]).all() and (pixels <= [x + width, y + height]).all()
            for side in np.flatnonzero(valid.reshape(2, 21).all(1)):
                hand = joints[21 * side : 21 * side + 21][np.argsort(TO_INTERHAND)]  # back in FreiHAND's order
                assert 0.8 < bone_lengths(hand)[8] / np.linalg.norm(BASES[2]) < 1.2


def test_same_seed_gives_the_same_bytes_and_another_seed_gives_others(root, tmp_path):
    def content(folder):
        return {path.relative_to(folder): path.read_bytes() for path in folder.rglob('*.jp*g')}

    write_hands(tmp_path / 'same', num_train=6, num_test=3, seed=1)
    write_hands(tmp_path / 'other', num_train=6, num_test=3, seed=2)
    assert content(tmp_path / 'same') == content(root) != content(tmp_path / 'other')
    # A larger number of images does not change the first ones.
    write_hands(tmp_path / 'more', ('freihand',), num_train=8, num_test=3, seed=1)
    assert content(tmp_path / 'more' / 'freihand').items() >= content(root / 'freihand').items()


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(parts=('feet',)), r"'feet'.*freihand, interhand2.6m"),
        (dict(num_train=0), 'num_train is 0: use 1'),
        (dict(seed=-1), 'seed is -1: use 0'),
    ],
)
def test_invalid_arguments_are_reported(tmp_path, arguments, message):
    with pytest.raises(UserError, match=message):
        write_hands(tmp_path, **arguments)


def test_existing_parts_are_kept(root):
    assert write_hands(root, num_train=6, num_test=3, seed=1)['freihand']['training images'] == 6
    with pytest.raises(UserError, match=r'holds hands made with .*move it away'):
        write_hands(root, ('freihand',), num_train=7, num_test=3, seed=1)
