import json
import shutil

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from PIL import Image
from torch.utils.data import DataLoader

from mogacore import images
from mogacore.datasets.checks import check_dataset, explain
from mogacore.datasets.digits import CLASSES, KEYPOINTS, write_digits
from mogacore.errors import UserError


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp('digits')
    write_digits(root, parts=('scenes',), num_train_scenes=4, num_val_scenes=2)
    return root / 'scenes'


@pytest.fixture
def scenes(written, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(written, tmp_path / 'scenes')


def detection(root, **changes):
    return ConfigDict(
        type='CocoDataset',
        data_root=str(root),
        ann_file='annotations/instances_train.json',
        data_prefix=dict(img='train/'),
        metainfo=dict(classes=CLASSES),
        pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, with_mask=True)],
        **changes,
    )


def pose(root):
    return ConfigDict(
        type='CocoDataset',
        data_root=str(root),
        data_mode='topdown',
        ann_file='annotations/keypoints_train.json',
        data_prefix=dict(img='train/'),
        metainfo=dict(keypoint_info={i: dict(name=name, id=i) for i, name in enumerate(KEYPOINTS)}),
    )


def segmentation(root, **changes):
    prefix = dict(img_path='train', seg_map_path='segmentation/train')
    fields = dict(type='BaseSegDataset', data_root=str(root), data_prefix=prefix, img_suffix='.png')
    return ConfigDict(fields | changes)


def edit(dataset, change):
    """Apply ``change`` to the content of the annotation file."""
    path = f'{dataset.data_root}/{dataset.ann_file}'
    with open(path) as file:
        content = json.load(file)
    change(content)
    with open(path, 'w') as file:
        json.dump(content, file)


def message_for(dataset, **counts):
    with pytest.raises(UserError) as caught:
        check_dataset(dataset, **counts)
    message = str(caught.value)
    assert '\n' not in message
    return message


def set_first(**fields):
    return lambda content: content['annotations'][0].update(fields)


def test_valid_detection_data_pass(scenes):
    check_dataset(detection(scenes), num_classes=10)
    check_dataset(dict(detection(scenes), type='mmdet.CocoDataset'))


def test_valid_pose_data_pass(scenes):
    check_dataset(pose(scenes), num_keypoints=5)
    check_dataset(pose(scenes))


def test_valid_segmentation_data_pass(scenes):
    check_dataset(segmentation(scenes), num_classes=11)
    check_dataset(segmentation(scenes))


# COCO files


def test_invalid_json_is_reported(scenes):
    (scenes / 'annotations/instances_train.json').write_text('{"images": [')
    message = message_for(detection(scenes))
    assert 'instances_train.json cannot be read as JSON' in message


@pytest.mark.parametrize('content', ['[]', '{"images": []}', '{"images": {}, "annotations": [], "categories": []}'])
def test_json_that_is_not_coco_is_reported(scenes, content):
    (scenes / 'annotations/instances_train.json').write_text(content)
    message = message_for(detection(scenes))
    assert 'instances_train.json' in message and "'images'" in message


@pytest.mark.parametrize('key', ['images', 'annotations', 'categories'])
def test_missing_list_is_reported(scenes, key):
    edit(detection(scenes), lambda content: content.pop(key))
    assert (
        f'is not a COCO file: it lacks the list {key!r}, required are images, annotations, categories'
        in message_for(detection(scenes))
    )


@pytest.mark.parametrize('key', ['images', 'annotations'])
def test_empty_list_is_reported(scenes, key):
    edit(detection(scenes), lambda content: content[key].clear())
    assert f'list {key!r} is empty' in message_for(detection(scenes))


def test_missing_field_is_reported(scenes):
    edit(detection(scenes), lambda content: content['annotations'][2].pop('bbox'))
    message = message_for(detection(scenes))
    assert "annotations lack 'bbox', the first has id 3" in message and ': 1 of ' in message


def test_duplicate_id_is_reported(scenes):
    edit(detection(scenes), lambda content: content['annotations'][1].update(id=1))
    assert '2 of the annotations have id 1' in message_for(detection(scenes))


@pytest.mark.parametrize('key, kind', [('image_id', 'images'), ('category_id', 'categories')])
@pytest.mark.parametrize('make', [detection, pose])
def test_unknown_id_is_reported(scenes, make, key, kind):
    edit(make(scenes), set_first(**{key: 77}))
    message = message_for(make(scenes))
    assert f' {key} that is not among the {kind} (such as 77), the first has id 1' in message


@pytest.mark.parametrize('box', [[1, 2, 3], [1, 2, 3, None], [1, 2, 3, float('nan')], None])
@pytest.mark.parametrize('make', [detection, pose])
def test_box_that_is_not_four_numbers_is_reported(scenes, make, box):
    edit(make(scenes), set_first(bbox=box))
    message = message_for(make(scenes))
    assert 'a bbox that is not 4 numbers, the first has id 1' in message and ': 1 of ' in message


def test_box_without_width_passes_since_mmdet_drops_it(scenes):
    edit(detection(scenes), set_first(bbox=[1, 2, 0, 4]))
    check_dataset(detection(scenes))


# Classes


def test_class_missing_in_the_file_is_reported(scenes):
    dataset = detection(scenes)
    dataset.metainfo.classes = ('0', '1', 'two')
    message = message_for(dataset, num_classes=3)
    assert 'metainfo.classes has two, but' in message and 'categories 0, 1, 2, 3, 4, 5, 6, 7, 8, 9:' in message


def test_a_subset_of_the_classes_passes(scenes):
    dataset = detection(scenes)
    dataset.metainfo.classes = ('1', '7')
    check_dataset(dataset, num_classes=2)


def test_number_of_classes_that_differs_from_the_head_is_reported(scenes):
    message = message_for(detection(scenes), num_classes=80)
    assert 'metainfo.classes has 10 classes, but the model has 80' in message


def test_head_without_the_80_classes_of_coco_is_reported(scenes):
    dataset = detection(scenes)
    del dataset['metainfo']
    message = message_for(dataset, num_classes=10)
    assert 'CocoDataset without metainfo.classes has 80 classes, but the model has 10' in message
    check_dataset(dataset, num_classes=80)


def test_string_for_classes_is_reported(scenes):
    dataset = detection(scenes)
    dataset.metainfo.classes = 'cell'
    assert "for one class, use ('cell',)" in message_for(dataset)


def test_classes_are_read_from_a_file(scenes):
    dataset = detection(scenes)
    dataset.metainfo.classes = str(scenes / 'classes.txt')
    (scenes / 'classes.txt').write_text('\n'.join(CLASSES) + '\n')
    check_dataset(dataset, num_classes=10)


# Images


@pytest.mark.parametrize('make', [detection, pose])
def test_missing_images_are_reported(scenes, make):
    for name in ('0001.png', '0003.png'):
        (scenes / 'train' / name).unlink()
    message = message_for(make(scenes))
    assert '2 of 4 images' in message and f'not in {scenes}/train, the first is 0001.png' in message


def test_missing_image_folder_is_reported(scenes):
    dataset = detection(scenes)
    dataset.data_prefix.img = 'images'
    assert f'folder {scenes}/images with the images' in message_for(dataset)


def test_images_in_subfolders_are_found(scenes):
    def move(content):
        for image in content['images']:
            image['file_name'] = f'train/{image["file_name"]}'

    dataset = detection(scenes)
    dataset.data_prefix.img = ''
    edit(dataset, move)
    check_dataset(dataset)
    edit(dataset, lambda content: content['images'][0].update(file_name='other/0000.png'))
    assert 'the first is other/0000.png' in message_for(dataset)


@pytest.mark.parametrize('content', [b'', b'not an image', b'\x89PNG\r\n\x1a\n\x00'])
@pytest.mark.parametrize('make', [detection, pose, segmentation])
def test_corrupt_image_is_reported(scenes, make, content):
    (scenes / 'train/0002.png').write_bytes(content)
    assert f'image {scenes}/train/0002.png is empty, truncated or not an image' in message_for(make(scenes))


@pytest.mark.parametrize('make', [detection, pose])
def test_image_of_another_size_is_reported(scenes, make):
    Image.new('RGB', (40, 30)).save(scenes / 'train/0002.png')
    message = message_for(make(scenes))
    assert '0002.png is 40 x 30 px' in message and 'but 128 x 128 in' in message


def turned(scenes, name, orientation, width, height):
    """The pose data set with a 40 x 30 image of an EXIF orientation, annotated as width x height."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new('RGB', (40, 30)).save(scenes / 'train' / name, exif=exif)
    dataset = pose(scenes)
    edit(dataset, lambda content: content['images'][0].update(file_name=name, width=width, height=height))
    edit(dataset, lambda content: [entry.pop('segmentation', None) for entry in content['annotations']])
    return dataset


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'tif', 'webp'])
def test_exif_orientation_is_applied_to_the_image_size(scenes, suffix):
    for orientation in range(1, 9):
        stored, other = ((40, 30), (30, 40)) if orientation < 5 else ((30, 40), (40, 30))
        dataset = turned(scenes, f'turned.{suffix}', orientation, *stored)
        check_dataset(dataset)
        message = message_for(turned(scenes, f'turned.{suffix}', orientation, *other))
        assert f'but {other[0]} x {other[1]} in' in message
        swapped = (
            f"look swapped since the loader applies its EXIF orientation {orientation}; set color_type='color_ignore"
        )
        assert (swapped in message) == (orientation >= 5)


def test_exif_orientation_is_ignored_where_the_loading_step_says_so(scenes):
    for color_type in ('color_ignore_orientation', 'grayscale_ignore_orientation', 'unchanged'):
        step = dict(type='LoadImage', color_type=color_type)
        check_dataset(turned(scenes, 'turned.webp', 6, 40, 30) | dict(pipeline=[step]))
        message = message_for(turned(scenes, 'turned.webp', 6, 30, 40) | dict(pipeline=[step]))
        assert "look swapped since the loader ignores its EXIF orientation 6; set color_type='color' in" in message


def test_a_map_of_the_stored_size_of_a_turned_image_is_reported_with_the_reason(scenes):
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.new('RGB', (40, 30)).save(scenes / 'train/0000.png', exif=exif)
    Image.new('L', (40, 30)).save(scenes / 'segmentation/train/0000.png', exif=exif)
    message = message_for(segmentation(scenes))
    assert '0000.png is 40 x 30 px (width x height), but its image 30 x 40: width and height look swapped' in message
    step = dict(type='LoadImageFromFile', color_type='color_ignore_orientation')
    check_dataset(segmentation(scenes, pipeline=[step]))


def test_an_image_that_the_pipeline_shrinks_to_nothing_is_explained():
    import cv2

    with pytest.raises(cv2.error) as caught:
        cv2.resize(np.zeros((1, 3000, 3), np.uint8), (1333, 0))
    assert 'so elongated that the pipeline resizes one of its sides to 0 px' in explain(caught.value)


# Masks


def test_mask_of_another_size_is_reported(scenes):
    edit(detection(scenes), set_first(segmentation={'counts': [0, 1200], 'size': [40, 30]}))
    message = message_for(detection(scenes))
    assert 'mask whose size differs from that of the image, the first has id 1' in message and ': 1 of ' in message


@pytest.mark.parametrize('polygons', [[[1, 2, 3, 4]], [[]], [1, 2, 3, 4, 5, 6]])
def test_too_short_polygon_is_reported(scenes, polygons):
    edit(detection(scenes), set_first(segmentation=polygons))
    assert 'no polygon of 6 or more numbers, the first has id 1' in message_for(detection(scenes))


def test_polygons_pass(scenes):
    edit(detection(scenes), set_first(segmentation=[[1, 2, 3, 4], [1, 2, 9, 2, 9, 9]]))
    check_dataset(detection(scenes))


def test_missing_mask_is_reported_if_the_pipeline_loads_it(scenes):
    dataset = detection(scenes)
    edit(dataset, set_first(segmentation=[]))
    assert 'lack the segmentation' in message_for(dataset)
    dataset.pipeline[1].with_mask = False
    check_dataset(dataset)


# Keypoints


def test_head_with_another_number_of_keypoints_is_reported(scenes):
    message = message_for(pose(scenes), num_keypoints=17)
    assert 'metainfo.keypoint_info has 5 keypoints, but the head has 17' in message and 'head.out_channels' in message


def test_category_with_another_number_of_keypoints_is_reported(scenes):
    dataset = pose(scenes)
    del dataset['metainfo']
    message = message_for(dataset, num_keypoints=17)
    assert "category 'digit' has 5 keypoints, but the model has 17" in message


@pytest.mark.parametrize('keypoints, count', [([1, 2, 2] * 4, 12), (None, 0)])
def test_annotation_with_another_number_of_keypoints_is_reported(scenes, keypoints, count):
    edit(pose(scenes), set_first(keypoints=keypoints))
    message = message_for(pose(scenes), num_keypoints=5)
    assert f'have {count} keypoint values, but the model needs 15, the first has id 1' in message


def test_file_without_keypoints_is_reported(scenes):
    dataset = pose(scenes)
    dataset.ann_file = 'annotations/instances_train.json'
    assert 'no annotation has both bbox and keypoints' in message_for(dataset)


# Segmentation


@pytest.mark.parametrize('key, kind', [('img_path', 'images'), ('seg_map_path', 'maps')])
def test_missing_segmentation_folder_is_reported(scenes, key, kind):
    dataset = segmentation(scenes)
    dataset.data_prefix[key] = 'nowhere'
    assert f'folder {scenes}/nowhere with the {kind} not found' in message_for(dataset)
    del dataset.data_prefix[key]
    assert f'has no {key}' in message_for(dataset)


def test_empty_folders_are_reported(scenes):
    dataset = segmentation(scenes)
    for folder in ('train', 'segmentation/train'):
        (scenes / folder).rename(scenes / 'away' if folder == 'train' else scenes / 'maps')
        (scenes / folder).mkdir()
    assert 'no images with suffix .png, it is empty' in message_for(dataset)
    dataset.data_prefix.img_path = 'away'
    assert '4 of 4 maps are not in' in message_for(dataset)


def test_wrong_suffix_is_reported(scenes):
    dataset = segmentation(scenes)
    del dataset['img_suffix']
    assert 'suffix .jpg, only 4 other files, such as 0000.png: set img_suffix' in message_for(dataset)


def test_images_without_map_are_reported(scenes):
    for name in ('0001.png', '0002.png'):
        (scenes / 'segmentation/train' / name).unlink()
    message = message_for(segmentation(scenes))
    assert '2 of 4 maps' in message and f'in {scenes}/segmentation/train, the first is 0001.png' in message


def test_images_in_a_list_file_are_checked(scenes):
    (scenes / 'train.txt').write_text('0000\n0009\n')
    assert '1 of 2 images' in message_for(segmentation(scenes, ann_file='train.txt'))
    (scenes / 'train.txt').write_text('')
    assert 'train.txt is empty' in message_for(segmentation(scenes, ann_file='train.txt'))


def test_map_of_another_size_is_reported(scenes):
    Image.new('L', (40, 30)).save(scenes / 'segmentation/train/0001.png')
    message = message_for(segmentation(scenes))
    assert 'train/0001.png is 40 x 30 px' in message and 'its image 128 x 128' in message


@pytest.mark.parametrize('share', [0, 0.1, 0.7])
def test_truncated_map_is_reported(scenes, share):
    path = scenes / 'segmentation/train/0003.png'
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert f'image {path} is empty, truncated or not an image' in message_for(segmentation(scenes))


def write_map(scenes, *values):
    Image.fromarray(np.resize(np.array(values, np.uint8), (128, 128))).save(scenes / 'segmentation/train/0001.png')


@pytest.mark.parametrize('reduce_zero_label, highest', [(False, 10), (True, 11)])
def test_map_value_without_class_is_reported(scenes, reduce_zero_label, highest):
    dataset = segmentation(scenes, reduce_zero_label=reduce_zero_label)
    write_map(scenes, 0, highest, 255)
    check_dataset(dataset, num_classes=11)
    write_map(scenes, 0, highest, highest + 1, 255)
    message = message_for(dataset, num_classes=11)
    assert f'0001.png has the value {highest + 1} (1 of its 4 values' in message
    assert f'0 to {highest} and 255 are allowed for num_classes=11' in message


def test_ade20k_ignores_zero_by_default(scenes):
    write_map(scenes, 0, 150)
    check_dataset(segmentation(scenes, type='ADE20KDataset'), num_classes=150)
    write_map(scenes, 0, 151)
    assert 'has the value 151' in message_for(segmentation(scenes, type='ADE20KDataset'), num_classes=150)


def test_color_map_is_reported(scenes):
    Image.new('RGB', (128, 128)).save(scenes / 'segmentation/train/0001.png')
    assert '0001.png is a color image' in message_for(segmentation(scenes))


def test_segmentation_classes_that_differ_from_the_head_are_reported(scenes):
    dataset = segmentation(scenes, metainfo=dict(classes=CLASSES))
    assert 'has 10 classes, but the model has 11' in message_for(dataset, num_classes=11)


# Errors of the loaders


class ImageDataset:
    """A data set of one image or map, read with a library's loader."""

    def __init__(self, load, path):
        self.load, self.path = load, str(path)

    def __len__(self):
        return 1

    def __getitem__(self, index):
        self.load(dict(img_path=self.path, seg_map_path=self.path, reduce_zero_label=False, seg_fields=[]))


def make_loader(library):
    if library == 'mmpose':
        return pytest.importorskip('mmpose.datasets.transforms').LoadImage()
    if library == 'mmseg':
        return pytest.importorskip('mmseg.datasets.transforms').LoadAnnotations()
    transforms = pytest.importorskip('mmcv.transforms')
    images.register()  # as every command does
    return transforms.LoadImageFromFile()


def load_error(library, path, num_workers):
    loader = DataLoader(ImageDataset(make_loader(library), path), num_workers=num_workers)
    try:
        next(iter(loader))
    except Exception as error:  # its class depends on the library and the file
        return error.with_traceback(None)  # releases the workers
    pytest.fail('the file was loaded')


def damage_image(scenes, how):
    path = scenes / 'train/0001.png'
    content = path.read_bytes()
    path.write_bytes({'empty': b'', 'text': b'not an image', 'truncated': content[:5000], 'missing': b''}[how])
    if how == 'missing':
        path.unlink()
    return path


@pytest.mark.parametrize(
    'how, num_workers', [('empty', 0), ('text', 0), ('truncated', 0), ('missing', 0), ('empty', 1), ('missing', 1)]
)
@pytest.mark.parametrize('library', ['mmcv', 'mmpose', 'mmseg'])
def test_error_of_a_loader_is_explained(scenes, library, how, num_workers):
    path = damage_image(scenes, how)
    line = explain(load_error(library, path, num_workers))
    assert '\n' not in line
    if how == 'missing':
        assert line.startswith(f'image {path} not found')
    elif library in ('mmcv', 'mmpose'):
        assert line.startswith(f'image {path} is empty, truncated or not an image')
    else:  # the library does not report the file
        assert line.startswith('an image or map of the data set is empty, truncated or not an image')


def test_a_training_batch_that_batch_norm_refuses_is_explained():
    """An image below 32 px gives a single pixel in the last stage of a backbone."""
    with pytest.raises(ValueError) as caught:
        torch.nn.BatchNorm2d(3).train()(torch.zeros(1, 3, 1, 1))
    assert explain(caught.value).startswith('batch norm cannot train on a batch of one image whose feature map')


@pytest.mark.parametrize(
    'error',
    [
        AssertionError('shapes differ'),
        FileNotFoundError(2, 'No such file or directory', 'weights.pth'),
        RuntimeError('CUDA out of memory'),
        OSError('No space left on device'),
        KeyboardInterrupt(),
    ],
)
def test_other_errors_are_not_explained(error):
    assert explain(error) is None
