import json
import shutil

import numpy as np
import pytest
from mmengine.config import ConfigDict

from mogacore.datasets.checks import check_dataset
from mogacore.datasets.freihand import FreiHAND
from mogacore.datasets.hands import write_hands
from mogacore.errors import UserError
from mogacore.evaluation.hand import pixel_to_camera


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    """FreiHAND with five training samples of four images each, and InterHand2.6M."""
    root = tmp_path_factory.mktemp('hands')
    write_hands(root, num_train=5, num_test=2)
    images = root / 'freihand' / 'training' / 'rgb'
    for i in range(5, 20):
        shutil.copy(images / f'{i % 5:08}.jpg', images / f'{i:08}.jpg')
    (root / 'freihand' / 'training_mano.json').write_text(json.dumps([[[i] * 61] for i in range(5)]))
    return root


@pytest.fixture
def root(written, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(written, tmp_path / 'hands')


def test_val_holds_out_samples_with_all_their_images(written):
    train, val, every, test = (
        FreiHAND(written / 'freihand', subset) for subset in ('train', 'val', 'trainval', 'test')
    )
    assert [len(dataset) for dataset in (train, val, every, test)] == [16, 4, 20, 2]
    assert {info['img_id'] % 5 for info in train} == {0, 1, 2, 3}
    assert {info['img_id'] % 5 for info in val} == {4}
    assert every[7]['img_path'].endswith('00000007.jpg')
    np.testing.assert_array_equal(every[7]['keypoints_cam'], every[2]['keypoints_cam'])
    assert test[1]['img_path'].endswith('evaluation/rgb/00000001.jpg')


def test_keypoints_are_the_projected_joints(written):
    joints = np.array(json.loads((written / 'freihand' / 'training_xyz.json').read_text())) * 1000
    camera = np.array(json.loads((written / 'freihand' / 'training_K.json').read_text()))[3]
    info = FreiHAND(written / 'freihand', 'trainval')[3]
    np.testing.assert_allclose(info['keypoints_cam'][0], joints[3], atol=1e-3)
    projected = joints[3] @ camera.T
    np.testing.assert_allclose(info['keypoints'][0, :, :2], projected[:, :2] / projected[:, 2:], atol=1e-3)
    np.testing.assert_allclose(info['keypoints'][0, :, 2], joints[3, :, 2] - joints[3, 0, 2], atol=1e-3)
    pixels = info['keypoints'].astype(np.float64) + np.array([0, 0, info['abs_depth'][0]])
    np.testing.assert_allclose(pixel_to_camera(pixels, info['focal'], info['principal_pt'])[0], joints[3], atol=1e-2)
    np.testing.assert_array_equal(info['bbox'], [[0, 0, 128, 128]])


def test_changing_an_item_leaves_the_data_set_unchanged(written):
    dataset = FreiHAND(written / 'freihand', 'train', with_mano=True)
    info = dataset[2]
    assert info['mano_pose'].tolist() == [2.0] * 48
    for key in ('keypoints', 'keypoints_cam', 'bbox', 'focal', 'principal_pt', 'mano_pose'):
        info[key] += 1
    for key in ('keypoints', 'keypoints_cam', 'bbox', 'focal', 'principal_pt', 'mano_pose'):
        np.testing.assert_allclose(dataset[2][key], info[key] - 1, atol=1e-3)


def test_metainfo_equals_that_parsed_by_mmpose(written):
    parse = pytest.importorskip('mmpose.datasets.datasets.utils').parse_pose_metainfo
    ours = FreiHAND(written / 'freihand').metainfo
    theirs = parse(dict(from_file='configs/_base_/datasets/freihand2d.py'))
    assert theirs.keys() - ours.keys() <= {'CLASSES', 'num_skeleton_links', 'paper_info'}
    assert [ours['keypoint_id2name'][i] for i in range(5)] == ['wrist', 'thumb1', 'thumb2', 'thumb3', 'thumb4']
    assert [name.replace('forefinger', 'index').replace('_finger', '').replace('pinky_', 'pinky') for name in
            theirs['keypoint_name2id']] == list(ours['keypoint_name2id'])  # fmt: skip
    assert sorted(map(tuple, theirs['skeleton_links'])) == sorted(ours['skeleton_links'])
    assert theirs['flip_indices'] == ours['flip_indices']


def edit(path, change):
    content = json.loads(path.read_text())
    path.write_text(json.dumps(change(content)))


def drop_image(root):
    (root / 'training' / 'rgb' / '00000007.jpg').unlink()


FREIHAND_ERRORS = {
    r'training_xyz\.json cannot be read': lambda root: (root / 'training_xyz.json').unlink(),
    r'training_K\.json has 4 entries, but .*training_xyz\.json has 5': lambda root: edit(
        root / 'training_K.json', lambda cameras: cameras[:4]
    ),
    r'training_xyz\.json: entry 1 is 20 x 3, but a hand has 21 joints': lambda root: edit(
        root / 'training_xyz.json', lambda hands: [hands[0], hands[1][:20], *hands[2:]]
    ),
    r'training_K\.json: entry 0 is .*3 x 3': lambda root: edit(root / 'training_K.json', lambda cameras: [1, 2, 3]),
    r'training_xyz\.json: entry 0 has a joint that is not in front': lambda root: edit(
        root / 'training_xyz.json', lambda hands: (np.array(hands) * [1, 1, -1]).tolist()
    ),
    r'lacks 1 of 19 images, the first is 00000007\.jpg': drop_image,
    r'19 images, not a multiple of the 5 entries': lambda root: (root / 'training' / 'rgb' / '00000019.jpg').unlink(),
    r'image folder .*rgb not found': lambda root: shutil.rmtree(root / 'training' / 'rgb'),
    r'00000004\.jpg is empty, truncated or not an image': lambda root: (
        root / 'training' / 'rgb' / '00000004.jpg'
    ).write_bytes(b'no'),
    r'training_mano\.json has 4 entries': lambda root: edit(root / 'training_mano.json', lambda hands: hands[:4]),
}


@pytest.mark.parametrize('message', FREIHAND_ERRORS)
def test_errors_in_freihand_are_reported_in_one_line(root, message):
    dataset = ConfigDict(type='FreiHAND', data_root=str(root / 'freihand'), with_mano=True)
    check_dataset(dataset)
    FREIHAND_ERRORS[message](root / 'freihand')
    with pytest.raises(UserError, match=message) as error:
        check_dataset(dataset)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(subset='all'), r"'all'.*train, val, trainval, test"),
        (dict(held_out=1.0), 'held_out of FreiHAND is 1.0'),
        (dict(subset='val', held_out=0.05), "subset 'val' of 5 samples is empty"),
    ],
)
def test_invalid_arguments_are_reported(written, arguments, message):
    with pytest.raises(UserError, match=message):
        FreiHAND(written / 'freihand', **arguments)


def edit_interhand(root, name, change):
    def changed(content):
        change(content)
        return content

    edit(root / 'annotations' / 'all' / f'InterHand2.6M_train_{name}.json', changed)


INTERHAND_ERRORS = {
    r'camera\.json cannot be read': lambda root: (
        root / 'annotations' / 'all' / 'InterHand2.6M_train_camera.json'
    ).unlink(),
    r"data\.json: 5 of 5 images lack 'capture'": lambda root: edit_interhand(
        root, 'data', lambda data: [image.pop('capture') for image in data['images']]
    ),
    r'data\.json: 1 of 5 annotations have a joint_valid that is not 42 numbers': lambda root: edit_interhand(
        root, 'data', lambda data: data['annotations'][2].update(joint_valid=[[1]] * 21)
    ),
    r'1 of 5 annotations have a hand_type other than right, left, interacting': lambda root: edit_interhand(
        root, 'data', lambda data: data['annotations'][2].update(hand_type='both')
    ),
    r'1 of 5 images have no annotation, the first has id 4': lambda root: edit_interhand(
        root, 'data', lambda data: data['annotations'].pop()
    ),
    r'camera\.json has no focal for camera cam000001 in capture 0': lambda root: edit_interhand(
        root, 'camera', lambda data: data['0']['focal'].pop('cam000001')
    ),
    r'joint_3d\.json has no world_coord for frame 3': lambda root: edit_interhand(
        root, 'joint_3d', lambda data: data['0'].pop('3')
    ),
    r'world_coord of frame 3 in capture 0 has 21 joints, not 42': lambda root: edit_interhand(
        root, 'joint_3d', lambda data: data['0']['3'].update(world_coord=data['0']['3']['world_coord'][:21])
    ),
    r'1 of 5 images .*image000002\.jpg': lambda root: next(root.glob('images/train/*/*/*2/*.jpg')).unlink(),
}


@pytest.mark.parametrize('message', INTERHAND_ERRORS)
def test_errors_in_interhand_are_reported_in_one_line(root, message):
    names = {'ann_file': 'data', 'camera_param_file': 'camera', 'joint_file': 'joint_3d'}
    dataset = ConfigDict(
        type='InterHand3DDataset', data_root=str(root / 'interhand2.6m'), data_prefix=dict(img='images/train/')
    )
    dataset.update({key: f'annotations/all/InterHand2.6M_train_{name}.json' for key, name in names.items()})
    check_dataset(dataset)
    INTERHAND_ERRORS[message](root / 'interhand2.6m')
    with pytest.raises(UserError, match=message) as error:
        check_dataset(dataset)
    assert '\n' not in str(error.value)
