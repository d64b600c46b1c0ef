"""Checks of user data before training: each error is reported in one line that names the file and the fix.

The checks interpret a dataset config as mmdet's and mmpose's CocoDataset and mmseg's BaseSegDataset do, but do not
import them. In large data sets they check an evenly spaced sample: the files of ``MAX_LISTED`` entries, the size of
``MAX_OPENED`` images and the values of ``MAX_DECODED`` maps.
"""

import json
import math
import os
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mogacore import images as image_files
from mogacore.errors import UserError

from .freihand import list_images, read_annotations, read_mano, split_of

MAX_LISTED = 20000
MAX_OPENED = 200
MAX_DECODED = 50
IGNORED = 255  # map value of pixels without a class
COCO_CLASSES = 80  # number of classes of mmdet's CocoDataset without metainfo

ENTRIES = {
    'images': ('id', 'file_name', 'width', 'height'),
    'annotations': ('id', 'image_id', 'category_id'),
    'categories': ('id', 'name'),
}
INTERHAND_ENTRIES = {
    'images': (*ENTRIES['images'], 'capture', 'camera', 'frame_idx'),
    'annotations': ('id', 'image_id', 'bbox', 'joint_valid', 'hand_type', 'hand_type_valid'),
}
INTERHAND_JOINTS = 42
HAND_TYPES = ('right', 'left', 'interacting')
MISSING = r"(?i)No such file or directory: '(.+\.(?:jpe?g|png|bmp|tiff?|webp))'"
NAMED = (r'occurs when loading `([^`]+)`', r'failed to load image: (.+)')  # messages of mmpose and mmcv
UNNAMED = (
    r"error: .*in function 'imdecode|cannot identify image file|image file is truncated|Truncated File Read"
    r'|data stream (contents )?when reading image file|broken PNG file'
)
RESIZED = r"error: .*in function 'resize'"


def check_dataset(dataset: Mapping, num_classes: int | None = None, num_keypoints: int | None = None) -> None:
    """Check the files of a data set for errors that would stop training or silently degrade it.

    Args:
        dataset: Config of a single data set without wrapper, with an absolute ``data_root``. Types other than
            CocoDataset, BaseSegDataset, ADE20KDataset, InterHand3DDataset and FreiHAND are not checked.
        num_classes: Number of classes of the model's head; None to skip this check.
        num_keypoints: Number of keypoints of the model's head; None to skip this check.

    Raises:
        UserError: For the first error found.
    """
    kind = str(dataset['type']).rpartition('.')[2]
    if kind == 'CocoDataset':
        _check_coco(dataset, num_classes, num_keypoints)
    elif kind in ('BaseSegDataset', 'ADE20KDataset'):
        _check_segmentation(dataset, num_classes, is_ade=kind == 'ADE20KDataset')
    elif kind == 'InterHand3DDataset':
        _check_interhand(dataset)
    elif kind == 'FreiHAND':
        _check_freihand(dataset)


def explain(error: BaseException) -> str | None:
    """Explain in one line an exception of a data loader or its workers about a corrupt or missing image or map.

    Returns:
        The line, or None if the exception has another cause.
    """
    text = str(error)  # in an exception from a worker, the whole traceback: the last match is the actual message
    missing = re.findall(MISSING, text)
    if missing:
        return f'image {missing[-1]} not found: add it, or remove it from the data set'
    for pattern in NAMED:
        if named := re.findall(pattern, text):
            return _unreadable(named[-1])
    if re.search(UNNAMED, text):
        remedy = 'the loader does not report which one, but "find FOLDER -size 0" lists empty files'
        return f'an image or map of the data set is empty, truncated or not an image: {remedy}'
    if re.search(RESIZED, text):
        problem = 'an image of the data set is so elongated that the pipeline resizes one of its sides to 0 px'
        return f'{problem}: remove images such as 3000 x 1 px'
    return None


def _check_coco(dataset, num_classes, num_keypoints):
    metainfo = dataset.get('metainfo') or {}
    ann_file = Path(dataset.get('data_root') or '', dataset.get('ann_file') or '')
    content = _read_coco(ann_file)
    annotations = content['annotations']
    if 'data_mode' in dataset or 'keypoint_info' in metainfo or num_keypoints is not None:
        annotations = [annotation for annotation in annotations if {'bbox', 'keypoints'} <= annotation.keys()]
        if not annotations:
            raise UserError(f'{ann_file}: no annotation has both bbox and keypoints: use a keypoint file')
        _check_keypoints(content['categories'], annotations, ann_file, metainfo.get('keypoint_info'), num_keypoints)
    else:
        _check_classes(content['categories'], ann_file, metainfo.get('classes'), num_classes)
        _check_keys(annotations, 'annotations', ('bbox', 'area'), ann_file)
    _check_annotations(content, annotations, ann_file)
    _check_masks(dataset, content, annotations, ann_file)
    folder = Path(dataset.get('data_root') or '', (dataset.get('data_prefix') or {}).get('img') or '')
    _check_images(content['images'], folder, ann_file, _ignores_orientation(dataset))


def _read_json(ann_file):
    try:
        return json.loads(ann_file.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise UserError(f'annotation file {ann_file} cannot be read as JSON ({error}): recreate it') from error


def _read_coco(ann_file, kinds=ENTRIES):
    content = _read_json(ann_file)
    for key, required in kinds.items():
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise UserError(
                f'{ann_file} is not a COCO file: it lacks the list {key!r}, required are {", ".join(kinds)}'
            )
        if not entries:
            raise UserError(f'{ann_file}: list {key!r} is empty: use a file with {key}')
        _check_keys(entries, key, required, ann_file)
        entry_id, count = Counter(entry['id'] for entry in entries).most_common(1)[0]
        if count > 1:
            raise UserError(f'{ann_file}: {count} of the {key} have id {entry_id!r}: give each a unique id')
    return content


def _check_keys(entries, kind, required, ann_file):
    for key in required:
        bad = [entry for entry in entries if key not in entry]
        _refuse(bad, entries, ann_file, kind, f'lack {key!r}', 'add this field, the COCO format requires it')


def _refuse(bad, entries, ann_file, kind, problem, remedy):
    if bad:
        first = f'the first has id {bad[0].get("id")!r}'
        raise UserError(f'{ann_file}: {len(bad)} of {len(entries)} {kind} {problem}, {first}: {remedy}')


def _check_classes(categories, ann_file, classes, num_classes):
    classes = _read_classes(classes)
    if classes is not None:
        names = [category['name'] for category in categories]
        if unknown := [name for name in classes if name not in names]:
            problem = f'metainfo.classes has {_shorten(unknown)}, but {ann_file} has the categories {_shorten(names)}'
            raise UserError(f'{problem}: use the names in the file')
        in_file = [name for name in names if name in classes]
        if in_file != classes:  # mmdet takes the indices from the file, but the names from metainfo
            problem = f'differs from the categories of {ann_file} in its order, or one of them repeats a name'
            raise UserError(f'metainfo.classes {problem}: use {_shorten(in_file)}')
    _check_num_classes(num_classes, COCO_CLASSES if classes is None else len(classes), classes is not None)


def _read_classes(classes):
    """The class names as a list, read from a text file if a path is given; None if not given."""
    if not isinstance(classes, str):
        return None if classes is None else list(classes)
    if not Path(classes).is_file():
        raise UserError(
            f'metainfo.classes is the string {classes!r}, but no such file exists: for one class, use ({classes!r},)'
        )
    return Path(classes).read_text(encoding='utf-8').splitlines()


def _check_num_classes(num_classes, num_given, is_given=True):
    if num_classes not in (None, num_given):
        source = 'metainfo.classes has' if is_given else 'CocoDataset without metainfo.classes has'
        remedy = f"change metainfo=dict(classes=...) of the data set or num_classes={num_classes} of the model's head"
        raise UserError(f'{source} {num_given} classes, but the model has {num_classes}: {remedy}')


def _check_keypoints(categories, annotations, ann_file, keypoint_info, num_keypoints):
    if num_keypoints is None:
        if keypoint_info is None:
            return
        num_keypoints = len(keypoint_info)
    remedy = f'make metainfo.keypoint_info and head.out_channels (now {num_keypoints}) match the file'
    if keypoint_info is not None and len(keypoint_info) != num_keypoints:
        problem = f'metainfo.keypoint_info has {len(keypoint_info)} keypoints, but the head has {num_keypoints}'
        raise UserError(f'{problem}: {remedy}')
    for category in categories:
        if len(category.get('keypoints', range(num_keypoints))) != num_keypoints:
            problem = f'category {category["name"]!r} has {len(category["keypoints"])} keypoints'
            raise UserError(f'{ann_file}: {problem}, but the model has {num_keypoints}: {remedy}')
    bad = [annotation for annotation in annotations if len(annotation['keypoints'] or ()) != 3 * num_keypoints]
    if bad:
        found = len(bad[0]['keypoints'] or ())
        problem = f'have {found} keypoint values, but the model needs {3 * num_keypoints}'
        _refuse(bad, annotations, ann_file, 'annotations', problem, remedy)


def _check_annotations(content, annotations, ann_file):
    for key, kind in (('image_id', 'images'), ('category_id', 'categories')):
        known = {entry['id'] for entry in content[kind]}
        bad = [annotation for annotation in content['annotations'] if annotation[key] not in known]
        if bad:
            problem = f'have a {key} that is not among the {kind} (such as {bad[0][key]!r})'
            remedy = f'add it to {kind}, or remove these annotations'
            _refuse(bad, content['annotations'], ann_file, 'annotations', problem, remedy)
    bad = [annotation for annotation in annotations if not _is_box(annotation['bbox'])]
    _refuse(bad, annotations, ann_file, 'annotations', 'have a bbox that is not 4 numbers', 'use x, y, width, height')


def _is_box(box):
    is_list = isinstance(box, list) and len(box) == 4
    return is_list and all(isinstance(value, int | float) and math.isfinite(value) for value in box)


def _check_masks(dataset, content, annotations, ann_file):
    with_mask = any(step.get('with_mask') for step in dataset.get('pipeline') or ())
    sizes = {image['id']: [image['height'], image['width']] for image in content['images']}
    faults = [_find_mask_fault(entry.get('segmentation'), sizes[entry['image_id']], with_mask) for entry in annotations]
    if first := next(filter(None, faults), None):
        bad = [entry for entry, fault in zip(annotations, faults, strict=True) if fault == first]
        _refuse(bad, annotations, ann_file, 'annotations', *first)


def _find_mask_fault(segmentation, size, with_mask):
    """Problem of a mask and its fix, or None if the mask is valid."""
    if not segmentation:
        fault = 'lack the segmentation that the pipeline loads (with_mask)', 'add it, or use a config without masks'
        return fault if with_mask else None
    if isinstance(segmentation, dict):
        fault = 'have a mask whose size differs from that of the image', 'set its size to [height, width] of the image'
        return fault if segmentation.get('size') != size else None
    # mmdet drops shorter polygons, and ignores the object if none is left.
    fault = 'have no polygon of 6 or more numbers', 'use x1, y1, x2, y2, x3, y3, ... or remove these annotations'
    return None if any(isinstance(part, list) and len(part) >= 6 for part in segmentation) else fault


def _check_images(images, folder, ann_file, ignore_orientation):
    _check_files([image['file_name'] for image in images], folder, f'images of {ann_file}', 'data_prefix.img')
    for image in _spread(images, MAX_OPENED):
        path, size = folder / image['file_name'], (image['width'], image['height'])
        actual, orientation = _read_size(path, ignore_orientation)
        if actual != size:
            problem = f'image {path} is {_times(actual)} px (width x height), but {_times(size)} in {ann_file}'
            raise UserError(
                f'{problem}: {_explain_swap(actual, size, orientation, ignore_orientation)}'
                'correct the annotation file, including boxes and masks'
            )


def _explain_swap(actual, size, orientation, ignore_orientation):
    """Cause and first remedy if width and height look swapped because of the EXIF orientation; otherwise ''."""
    if actual != size[::-1] or orientation < 5:
        return ''
    if ignore_orientation:
        color_type, what = 'color', 'ignores'
    else:
        color_type, what = 'color_ignore_orientation', 'applies'
    return (
        f'width and height look swapped since the loader {what} its EXIF orientation {orientation}; '
        f"set color_type='{color_type}' in the loading step, or "
    )


def _ignores_orientation(dataset):
    """Whether the first step of the pipeline loads images as they are stored, without their EXIF orientation."""
    loading = [step for step in dataset.get('pipeline') or () if 'LoadImage' in str(step.get('type'))]
    color_type = str(loading[0].get('color_type', 'color')) if loading else 'color'
    return color_type == 'unchanged' or color_type.endswith('ignore_orientation')


def _check_files(names, folder, kind, setting):
    if not folder.is_dir():
        raise UserError(f'folder {folder} with the {kind} not found: set data_root and {setting}')
    checked = _spread(names, MAX_LISTED)
    listed = {parent: _list_names(parent) for parent in {os.path.dirname(folder / name) for name in checked}}
    missing = [name for name in checked if os.path.basename(name) not in listed[os.path.dirname(folder / name)]]
    if missing:
        count = f'{len(missing)} of {len(checked)} {kind} are not in {folder}, the first is {missing[0]}'
        raise UserError(f'{count}: add them, or set data_root and {setting}')


def _list_names(folder):
    return set(os.listdir(folder)) if os.path.isdir(folder) else set()


def _check_segmentation(dataset, num_classes, is_ade):
    folders = dataset.get('data_prefix') or {'img_path': '', 'seg_map_path': ''}
    for key in ('img_path', 'seg_map_path'):
        if folders.get(key) is None:
            raise UserError(f'data_prefix of the data set has no {key}: set it to the folder below data_root')
    root = Path(dataset.get('data_root') or '')
    image_folder, map_folder = root / folders['img_path'], root / folders['seg_map_path']
    image_suffix, map_suffix = dataset.get('img_suffix', '.jpg'), dataset.get('seg_map_suffix', '.png')
    stems = _list_stems(dataset, image_folder, image_suffix)
    _check_files([stem + image_suffix for stem in stems], image_folder, 'images', 'data_prefix.img_path')
    _check_files([stem + map_suffix for stem in stems], map_folder, 'maps', 'data_prefix.seg_map_path, seg_map_suffix')
    for stem in _spread(stems, MAX_OPENED):
        image, label_map = image_folder / f'{stem}{image_suffix}', map_folder / f'{stem}{map_suffix}'
        ignores = _ignores_orientation(dataset)
        size, orientation = _read_size(image, ignores)
        map_size, _ = _read_size(label_map, ignore_orientation=True)  # maps are loaded as they are stored
        if size != map_size:
            problem = f'map {label_map} is {_times(map_size)} px (width x height), but its image {_times(size)}'
            swap = _explain_swap(size, map_size, orientation, ignores)
            raise UserError(f'{problem}: {swap}make each map the size of its image')
    classes = _read_classes((dataset.get('metainfo') or {}).get('classes'))
    if classes is not None:
        _check_num_classes(num_classes, len(classes))
        if is_ade:  # metainfo.classes may select some of the 150 classes, while the map values stay the same
            return
    maps = [map_folder / f'{stem}{map_suffix}' for stem in _spread(stems, MAX_DECODED)]
    _check_map_values(maps, num_classes, dataset.get('reduce_zero_label', is_ade))


def _list_stems(dataset, folder, suffix):
    """Relative paths of the images without suffix: the lines of ``ann_file`` if given, else all files in ``folder``."""
    if not folder.is_dir():
        raise UserError(f'folder {folder} with the images not found: set data_root and data_prefix.img_path')
    ann_file = Path(dataset.get('data_root') or '', dataset.get('ann_file') or '')
    if ann_file.is_file():
        if stems := [line.strip() for line in ann_file.read_text(encoding='utf-8').splitlines()]:
            return stems
        raise UserError(f'{ann_file} is empty: list one image per line, without {suffix}')
    walked = os.walk(folder, followlinks=True)
    names = sorted(os.path.relpath(os.path.join(at, name), folder) for at, _, names in walked for name in names)
    stems = [name[: -len(suffix)] for name in names if name.endswith(suffix) and os.path.basename(name)[0] != '.']
    if not stems:
        found = f'only {len(names)} other files, such as {names[0]}' if names else 'it is empty'
        raise UserError(f'folder {folder} has no images with suffix {suffix}, {found}: set img_suffix or data_prefix')
    return stems


def _check_map_values(maps, num_classes, reduce_zero_label):
    for path in maps:
        values = _read_image(path, np.asarray)
        if values is None:
            continue
        if values.ndim != 2:
            raise UserError(f'map {path} is a color image: store the class index of each pixel in a single channel')
        if num_classes is None:
            continue
        num_values = num_classes + bool(reduce_zero_label)  # with it, 0 is ignored and 1 is the first class
        found = np.unique(values)
        bad = found[(found >= num_values) & (found != IGNORED)]
        if len(bad):
            zero = ' with reduce_zero_label' if reduce_zero_label else ''
            problem = f'map {path} has the value {bad[0]} ({len(bad)} of its {len(found)} values are too high)'
            allowed = f'0 to {num_values - 1} and {IGNORED} are allowed for num_classes={num_classes}{zero}'
            raise UserError(f'{problem}, but {allowed}: correct the maps, num_classes or reduce_zero_label')


def _check_freihand(dataset):
    root, split = dataset['data_root'], split_of(dataset.get('subset', 'train'))
    _, joints = read_annotations(root, split)
    if dataset.get('with_mano'):
        read_mano(root, split, len(joints))
    folder = Path(root, split, 'rgb')
    paths = [folder / name for name in _spread(list_images(root, split, len(joints)), MAX_OPENED)]
    ignores = _ignores_orientation(dataset)
    sizes = {path: _read_size(path, ignores)[0] for path in paths}
    for path, size in sizes.items():
        if size != sizes[paths[0]]:
            problem = f'image {path} is {_times(size)} px (width x height), but {paths[0]} {_times(sizes[paths[0]])}'
            raise UserError(f'{problem}: all FreiHAND images must have one size, correct them and their cameras')


def _check_interhand(dataset):
    root = Path(dataset.get('data_root') or '')
    files = [root / dataset[key] for key in ('ann_file', 'camera_param_file', 'joint_file')]
    ann_file, camera_file, joint_file = files
    content = _read_coco(ann_file, INTERHAND_ENTRIES)
    images = {image['id']: image for image in content['images']}
    annotations = content['annotations']
    bad = [annotation for annotation in annotations if annotation['image_id'] not in images]
    problem, remedy = 'have an image_id that is not among the images', 'add it to images, or remove these annotations'
    _refuse(bad, annotations, ann_file, 'annotations', problem, remedy)
    annotated = {annotation['image_id'] for annotation in annotations}
    bad = [image for image in content['images'] if image['id'] not in annotated]
    _refuse(bad, content['images'], ann_file, 'images', 'have no annotation', 'add one, or remove these images')
    bad = [annotation for annotation in annotations if not _is_box(annotation['bbox'])]
    _refuse(bad, annotations, ann_file, 'annotations', 'have a bbox that is not 4 numbers', 'use x, y, width, height')
    bad = [annotation for annotation in annotations if np.size(annotation['joint_valid']) != INTERHAND_JOINTS]
    problem = f'have a joint_valid that is not {INTERHAND_JOINTS} numbers'
    _refuse(bad, annotations, ann_file, 'annotations', problem, 'use one for each joint, right hand first')
    bad = [annotation for annotation in annotations if annotation['hand_type'] not in HAND_TYPES]
    problem = f'have a hand_type other than {", ".join(HAND_TYPES)}'
    _refuse(bad, annotations, ann_file, 'annotations', problem, 'correct it')
    cameras, frames = _read_json(camera_file), _read_json(joint_file)
    for image in images.values():
        capture, camera, frame = str(image['capture']), image['camera'], str(image['frame_idx'])
        for key in ('campos', 'camrot', 'focal', 'princpt'):
            if camera not in (cameras.get(capture) or {}).get(key, ()):
                problem = f'{camera_file} has no {key} for camera {camera} in capture {capture}'
                raise UserError(
                    f'{problem}, needed by image {image["id"]!r} of {ann_file}: use files of the same split'
                )
        joints = (frames.get(capture) or {}).get(frame, {}).get('world_coord')
        if joints is None:
            problem = f'{joint_file} has no world_coord for frame {frame} in capture {capture}'
            raise UserError(f'{problem}, needed by image {image["id"]!r} of {ann_file}: use files of the same split')
        if len(joints) != INTERHAND_JOINTS or any(len(joint) != 3 for joint in joints):
            problem = f'{joint_file}: world_coord of frame {frame} in capture {capture} has {len(joints)} joints'
            raise UserError(f'{problem}, not {INTERHAND_JOINTS} of 3 numbers: use right hand first, then left hand')
    folder = root / (dataset.get('data_prefix') or {}).get('img', '')
    _check_images(content['images'], folder, ann_file, _ignores_orientation(dataset))


def _read_image(path, read):
    """``read(image)`` of an image that PIL opens; None if PIL refuses it as too large."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return read(image)
    except Image.DecompressionBombError:
        return None
    except (OSError, SyntaxError) as error:  # PIL raises both for corrupt files
        raise UserError(_unreadable(path)) from error


def _read_size(path, ignore_orientation):
    """(width, height) of an image as it is loaded, and its EXIF orientation."""
    try:
        return image_files.read_size(path, ignore_orientation)
    except (OSError, SyntaxError) as error:  # PIL raises both for corrupt files
        raise UserError(_unreadable(path)) from error


def _unreadable(path):
    return f'image {path} is empty, truncated or not an image: replace it, or remove it from the data set'


def _spread(items, limit):
    """Up to ``limit`` of the items, evenly spaced."""
    count = min(len(items), limit)
    return [items[i * len(items) // count] for i in range(count)]


def _shorten(names):
    return ', '.join(map(str, names[:10])) + (f' and {len(names) - 10} more' if len(names) > 10 else '')


def _times(size):
    return f'{size[0]} x {size[1]}'
