"""Check of COCO keypoints, as mmpose's data sets read them."""

from collections.abc import Mapping
from pathlib import Path

from mogacore.datasets.keypoint_info import read_metainfo
from mogacore.errors import UserError
from mogacore.text import shorten, show

from .coco_files import (
    check_annotations,
    check_ids,
    check_image_prefix,
    check_images,
    check_masks,
    is_number,
    read_coco,
    refuse,
)
from .common import repeated_names
from .report import Expected, Problems, Sample

# Keypoints of mmpose's CocoDataset without metainfo.
COCO_KEYPOINTS = (
    'nose', 'left_eye', 'right_eye', 'left_ear', 'right_ear', 'left_shoulder', 'right_shoulder', 'left_elbow',
    'right_elbow', 'left_wrist', 'right_wrist', 'left_hip', 'right_hip', 'left_knee', 'right_knee', 'left_ankle',
    'right_ankle',
)  # fmt: skip
NO_NUMBERS, REMEDY = 'have keypoints that are not numbers', 'use x, y, visibility for each, with 0, 0, 0 where unknown'


def check_keypoints(dataset: Mapping, expected: Expected, sample: Sample, problems: Problems) -> None:
    """Check keypoints: names, annotations, and images."""
    metainfo = read_metainfo(dataset.get('metainfo') or {})
    ann_file = Path(dataset.get('data_root') or '', dataset.get('ann_file') or '')
    if (mode := dataset.get('data_mode', 'topdown')) not in ('topdown', 'bottomup'):
        raise UserError(f"data_mode {mode!r} of the data set is unknown: choose from 'topdown', 'bottomup'")
    if 'data_prefix' in dataset:
        check_image_prefix(dataset['data_prefix'])
    content = read_coco(ann_file, may_be_empty=expected.may_be_empty)
    check_ids(content, ann_file)
    names = _read_names(metainfo)
    with problems.collect():
        _check_head(names, expected.num_keypoints, 'keypoint_info' in metainfo)
        _check_names(content['categories'], ann_file, names)
    if content['annotations']:
        with problems.collect():
            _check_objects(dataset, content, ann_file, len(names))
    folder = Path(dataset.get('data_root') or '', (dataset.get('data_prefix') or {}).get('img') or '')
    with problems.collect():
        check_images(dataset, content['images'], folder, ann_file, sample, problems)


def _check_objects(dataset, content, ann_file, num_keypoints):
    annotations = _select(content['annotations'], ann_file)
    _check_counts(annotations, ann_file, num_keypoints)
    _check_values(annotations, ann_file)
    check_annotations(content, annotations, ann_file)
    _check_visible(annotations, ann_file)
    if dataset.get('data_mode') == 'bottomup':  # which ignores the regions of objects without keypoints
        check_masks(content, [entry for entry in annotations if entry.get('segmentation')], ann_file)


def _read_names(metainfo):
    """Names of the keypoints in their order."""
    if 'keypoint_info' not in metainfo:
        return list(COCO_KEYPOINTS)
    points = metainfo['keypoint_info']
    is_valid = isinstance(points, Mapping) and all(
        isinstance(point, Mapping) and isinstance(point.get('name'), str) for point in points.values()
    )
    if not is_valid or list(points) != list(range(len(points))):
        raise UserError(
            "metainfo.keypoint_info is not {0: dict(name='NAME'), 1: ...} with the keypoints in the order of the file, "
            'numbered from 0: correct it, see docs/own_data.md'
        )
    names = [point['name'] for point in points.values()]
    if repeated := repeated_names(names):
        raise UserError(f'metainfo.keypoint_info repeats the name {shorten(repeated)}: give each keypoint its own name')
    for key in ('sigmas', 'joint_weights'):
        if key in metainfo and len(metainfo[key]) != len(names):
            problem = (
                f'metainfo.{key} has {len(metainfo[key])} values, but metainfo.keypoint_info {len(names)} keypoints'
            )
            raise UserError(f'{problem}: give one value per keypoint, or omit {key} to use the default')
    if any(not sigma > 0 for sigma in metainfo.get('sigmas', ())):
        raise UserError('metainfo.sigmas has values that are not positive: correct it, or omit it to use the default')
    if any(len(link['link']) != 2 for link in (metainfo.get('skeleton_info') or {}).values()):
        raise UserError('metainfo.skeleton_info has a link that is not the names of two keypoints: correct it')
    links = [name for link in (metainfo.get('skeleton_info') or {}).values() for name in link['link']]
    swaps = [point['swap'] for point in points.values() if point.get('swap')]
    for key, used in (('skeleton_info', links), ('swap of keypoint_info', swaps)):
        if unknown := [name for name in used if name not in names]:
            problem = f'metainfo: {key} names {shorten(unknown)}, but the keypoints are {shorten(names)}'
            raise UserError(f'{problem}: use these names')
    pairs = {point['name']: point.get('swap') or point['name'] for point in points.values()}
    if single := [name for name, other in pairs.items() if pairs[other] != name]:
        problem = f'metainfo.keypoint_info: {single[0]} has swap={pairs[single[0]]!r}, but {pairs[single[0]]} has not'
        raise UserError(f'{problem} swap={single[0]!r}: mirrored keypoints must name each other')
    return names


def _check_head(names, num_keypoints, is_given):
    if num_keypoints in (None, len(names)):
        return
    if is_given:
        problem = f'metainfo.keypoint_info has {len(names)} keypoints, but the head has {num_keypoints}'
        raise UserError(
            f'{problem}: make metainfo.keypoint_info and head.out_channels (now {num_keypoints}) match the file'
        )
    raise UserError(
        f"CocoDataset without metainfo has COCO's {len(names)} keypoints, but the head has {num_keypoints}: set "
        'metainfo=dict(keypoint_info=...) of each data set to the keypoints of the file'
    )


def _select(annotations, ann_file):
    """Annotations with keypoints, which must have a box; others are ignored, as in mmpose."""
    found = [annotation for annotation in annotations if 'keypoints' in annotation]
    if not found:
        raise UserError(f'{ann_file}: no annotation has both bbox and keypoints: use a keypoint file')
    bad = [annotation for annotation in found if 'bbox' not in annotation]
    problem, remedy = 'have keypoints, but no bbox', 'add the box of the object, with which the model crops it'
    refuse(bad, found, ann_file, 'annotations', problem, remedy)
    return found


def _check_counts(annotations, ann_file, num_keypoints):
    bad = [annotation for annotation in annotations if len(_flatten(annotation['keypoints'])) != 3 * num_keypoints]
    if bad:
        problem = f'have {len(_flatten(bad[0]["keypoints"]))} keypoint values, but the model needs {3 * num_keypoints}'
        remedy = f'make metainfo.keypoint_info and head.out_channels (now {num_keypoints}) match the file'
        refuse(bad, annotations, ann_file, 'annotations', problem, remedy)


def _check_values(annotations, ann_file):
    bad = [entry for entry in annotations if not all(map(is_number, _flatten(entry['keypoints'])))]
    refuse(bad, annotations, ann_file, 'annotations', NO_NUMBERS, REMEDY)
    wrong = {id(entry): [value for value in _flatten(entry['keypoints'])[2::3] if not 0 <= value <= 2]
             for entry in annotations}  # fmt: skip
    if bad := [entry for entry in annotations if wrong[id(entry)]]:
        problem = f'have a visibility of {wrong[id(bad[0])][0]}'
        remedy = 'use 0 for unknown, 1 for hidden and 2 for visible keypoints'
        refuse(bad, annotations, ann_file, 'annotations', problem, remedy)


def _flatten(points):
    """x, y, visibility of all keypoints, which may be nested as in [[x, y, v], ...]; a value that is no list itself."""
    if not isinstance(points, list):
        return [] if points is None else [points]
    return [value for point in points for value in (point if isinstance(point, list) else [point])]


def _check_names(categories, ann_file, names):
    for category in categories:
        listed = category.get('keypoints') or names
        if listed == names:
            continue
        if not isinstance(listed, list):
            problem = f'{ann_file}: category {show(category["name"])} has the keypoints {show(listed)}'
            raise UserError(f'{problem}: use a list of names')
        problem = f'{ann_file}: category {show(category["name"])} has the keypoints {_list_all(listed)}'
        if len(listed) != len(names):
            problem = f'{ann_file}: category {show(category["name"])} has {len(listed)} keypoints'
            remedy = 'make metainfo.keypoint_info and head.out_channels match the file'
            raise UserError(f'{problem}, but the model has {len(names)}: {remedy}')
        if sorted(map(show, listed)) == sorted(map(show, names)):
            given = f'metainfo.keypoint_info has them in the order {_list_all(names)}'
            raise UserError(f'{problem}, but {given}: use the order of the file, coordinates have no names')
        raise UserError(f'{problem}, but the data set has {_list_all(names)}: use the names of the file in metainfo')


def _list_all(names):
    return ', '.join(name if isinstance(name, str) else show(name) for name in names)


def _check_visible(annotations, ann_file):
    """mmpose ignores objects whose num_keypoints is 0 and those without visible keypoints; some must be left."""
    if all(annotation.get('num_keypoints') == 0 for annotation in annotations):
        raise UserError(
            f'{ann_file}: num_keypoints is 0 in all {len(annotations)} annotations, so that all are ignored: set it '
            'to the number of keypoints whose visibility is not 0, or remove the field'
        )
    if not any(any(_flatten(annotation['keypoints'])[2::3]) for annotation in annotations):
        raise UserError(
            f'{ann_file}: every keypoint has visibility 0, not labeled: use x, y, visibility with 1 for hidden and 2 '
            'for visible keypoints'
        )
