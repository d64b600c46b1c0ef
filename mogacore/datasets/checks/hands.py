"""Check of InterHand2.6M and FreiHAND."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mogacore.datasets.freihand import list_images, read_annotations, read_mano, split_of
from mogacore.errors import UserError

from .coco_files import ENTRIES, check_images, is_box, read_coco, read_json, refuse
from .common import ignores_orientation, read_size, times
from .report import Expected, Problems, Sample

INTERHAND_ENTRIES = {
    'images': (*ENTRIES['images'], 'capture', 'camera', 'frame_idx'),
    'annotations': ('id', 'image_id', 'bbox', 'joint_valid', 'hand_type', 'hand_type_valid'),
}
INTERHAND_JOINTS = 42
HAND_TYPES = ('right', 'left', 'interacting')


def check_freihand(dataset: Mapping, expected: Expected, sample: Sample, problems: Problems) -> None:
    """Check FreiHAND: cameras, joints, parameters of the hand mesh, and that all images have one size."""
    root, split = dataset['data_root'], split_of(dataset.get('subset', 'train'))
    _, joints = read_annotations(root, split)
    if dataset.get('with_mano'):
        read_mano(root, split, len(joints))
    folder = Path(root, split, 'rgb')
    names = sample.of(list_images(root, split, len(joints)))
    ignores = ignores_orientation(dataset)
    sizes = {folder / name: read_size(folder / name, ignores)[0] for name in names}
    first = min(sizes)
    for path, size in sorted(sizes.items()):
        if size != sizes[first]:
            problem = f'image {path} is {times(size)} px (width x height), but {first} {times(sizes[first])}'
            raise UserError(f'{problem}: all FreiHAND images must have one size, correct them and their cameras')


def check_interhand(dataset: Mapping, expected: Expected, sample: Sample, problems: Problems) -> None:
    """Check InterHand2.6M: annotations, cameras and joints of every image, and images."""
    root = Path(dataset.get('data_root') or '')
    files = [root / dataset[key] for key in ('ann_file', 'camera_param_file', 'joint_file')]
    ann_file, camera_file, joint_file = files
    content = read_coco(ann_file, INTERHAND_ENTRIES)
    images = {image['id']: image for image in content['images']}
    annotations = content['annotations']
    bad = [annotation for annotation in annotations if annotation['image_id'] not in images]
    problem, remedy = 'have an image_id that is not among the images', 'add it to images, or remove these annotations'
    refuse(bad, annotations, ann_file, 'annotations', problem, remedy)
    annotated = {annotation['image_id'] for annotation in annotations}
    bad = [image for image in content['images'] if image['id'] not in annotated]
    refuse(bad, content['images'], ann_file, 'images', 'have no annotation', 'add one, or remove these images')
    bad = [annotation for annotation in annotations if not is_box(annotation['bbox'])]
    refuse(bad, annotations, ann_file, 'annotations', 'have a bbox that is not 4 numbers', 'use x, y, width, height')
    bad = [annotation for annotation in annotations if np.size(annotation['joint_valid']) != INTERHAND_JOINTS]
    problem = f'have a joint_valid that is not {INTERHAND_JOINTS} numbers'
    refuse(bad, annotations, ann_file, 'annotations', problem, 'use one for each joint, right hand first')
    bad = [annotation for annotation in annotations if annotation['hand_type'] not in HAND_TYPES]
    problem = f'have a hand_type other than {", ".join(HAND_TYPES)}'
    refuse(bad, annotations, ann_file, 'annotations', problem, 'correct it')
    cameras, frames = read_json(camera_file), read_json(joint_file)
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
    check_images(dataset, content['images'], folder, ann_file, sample, problems)
