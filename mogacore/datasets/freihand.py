"""FreiHAND (Zimmermann et al., ICCV 2019, arXiv 1909.04349): 21 3D joints of one right hand per image."""

from __future__ import annotations

import colorsys
import json
import os
from pathlib import Path
from typing import ClassVar

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS

from mogacore import images
from mogacore.errors import UserError
from mogacore.files import read_file

from .hands import FINGERS, NUM_JOINTS, PARENTS

FARTHEST = 1e6  # meters, or pixels, that are taken for an error; float32, in which poses are computed, ends at 3e38
SUBSETS = ('train', 'val', 'trainval', 'test')


def _describe_joints() -> dict:
    """Keypoint metadata in the form that mmpose's ``parse_pose_metainfo`` returns."""
    names = ['wrist', *(f'{finger}{joint}' for finger in FINGERS for joint in range(1, 5))]
    hues = [[round(255 * value) for value in colorsys.hsv_to_rgb(i / 5, 0.8, 1)] for i in range(5)]
    colors = [[128, 128, 128], *(hues[i // 4] for i in range(NUM_JOINTS - 1))]
    links = [(parent, joint) for joint, parent in enumerate(PARENTS) if parent >= 0]
    return dict(
        dataset_name='freihand',
        num_keypoints=NUM_JOINTS,
        keypoint_id2name=dict(enumerate(names)),
        keypoint_name2id={name: i for i, name in enumerate(names)},
        keypoint_colors=np.array(colors, np.uint8),
        skeleton_links=links,
        skeleton_link_colors=np.array([colors[joint] for _, joint in links], np.uint8),
        num_skeleton_links=len(links),
        flip_pairs=[],
        flip_indices=list(range(NUM_JOINTS)),
        upper_body_ids=[],
        lower_body_ids=[],
        dataset_keypoint_weights=np.ones(NUM_JOINTS, np.float32),
        sigmas=np.full(NUM_JOINTS, 0.05, np.float32),
    )


@DATASETS.register_module()
class FreiHAND(BaseDataset):
    """FreiHAND for mmpose pipelines: reads images, cameras and joints; needs no hand model.

    The training images show each sample several times with different backgrounds: image i shows sample i modulo the
    number of samples (32,560). ``val`` is the last samples with all their images: no pose is also in ``train``, and a
    recording, whose frames are consecutive samples, is cut in two at most once.

    Each item has the keys of mmpose's ``InterHand3DDataset`` before the pipeline runs: ``keypoints`` (1, 21, 3), x and
    y in pixels and z in mm relative to the wrist; ``keypoints_cam`` (1, 21, 3) in mm; ``keypoints_visible`` (1, 21);
    ``abs_depth``, the depth of the wrist in mm, (1,); ``focal`` and ``principal_pt`` (2,) in pixels; and ``bbox``
    (1, 4), the whole image.

    Args:
        data_root: Folder with ``training/rgb``, ``training_K.json``, ``training_xyz.json``, and the same for
            ``evaluation``.
        subset: 'train' and 'val' split the training samples, 'trainval' is all of them, 'test' is the evaluation split.
        held_out: Fraction of the training samples that form ``val``.
        with_mano: Also read ``*_mano.json`` and return its first 48 numbers as ``mano_pose``, for
            :class:`mogacore.models.iterative.IterativeHandHead`.
        kwargs: Passed to mmengine's BaseDataset: pipeline, indices, ...

    Raises:
        UserError: If a file is missing or inconsistent with the others.
    """

    METAINFO: ClassVar[dict] = _describe_joints()

    def __init__(self, data_root: str, subset: str = 'train', held_out: float = 0.2, with_mano: bool = False, **kwargs):
        if subset not in SUBSETS:
            raise UserError(f'FreiHAND subset {subset!r} is unknown: choose from {", ".join(SUBSETS)}')
        if not 0 <= held_out < 1:
            raise UserError(f'held_out of FreiHAND is {held_out}: use a fraction of at least 0 and below 1')
        self.subset = subset
        self.held_out = held_out
        self.with_mano = with_mano
        super().__init__(data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        split = split_of(self.subset)
        self.cameras, joints = read_annotations(self.data_root, split)
        self.joints_mm = (joints * 1000).astype(np.float32)
        if self.with_mano:
            self.poses = read_mano(self.data_root, split, len(joints))[:, :48]
        names = list_images(self.data_root, split, len(joints))
        num_train = len(joints) - round(self.held_out * len(joints))
        wanted = {'train': range(num_train), 'val': range(num_train, len(joints))}.get(self.subset, range(len(joints)))
        if not len(wanted):
            raise UserError(f'subset {self.subset!r} of {len(joints)} samples is empty: change held_out')
        folder = Path(self.data_root, split, 'rgb')
        first = images.read(folder / names[0])  # all images have the same size
        if first is None:
            raise UserError(f'image {folder / names[0]} cannot be read: download it again')
        self.box = np.array([[0, 0, first.shape[1], first.shape[0]]], np.float32)
        return [
            dict(id=i, img_id=i, sample=i % len(joints), img_path=str(folder / name))
            for i, name in enumerate(names)
            if i % len(joints) in wanted
        ]

    def get_data_info(self, idx: int) -> dict:
        info = super().get_data_info(idx)
        # Added here rather than in load_data_list: more than 100,000 items would each hold a copy.
        camera, joints = self.cameras[info['sample']], self.joints_mm[info['sample']]
        focal, principal_point = camera[[0, 1], [0, 1]], camera[:2, 2]
        keypoints = np.concatenate(
            [joints[:, :2] / joints[:, 2:] * focal + principal_point, joints[:, 2:] - joints[0, 2]], axis=1
        )
        if self.with_mano:
            info['mano_pose'] = self.poses[info['sample']].copy()
        return dict(
            info,
            bbox=self.box.copy(),
            bbox_score=np.ones(1, np.float32),
            keypoints=keypoints[None].astype(np.float32),
            keypoints_cam=joints[None].copy(),
            keypoints_visible=np.ones((1, NUM_JOINTS), np.float32),
            abs_depth=[float(joints[0, 2])],
            focal=focal.copy(),
            principal_pt=principal_point.copy(),
            flip_indices=self.metainfo['flip_indices'],
        )


def split_of(subset: str) -> str:
    """File name prefix of a subset."""
    return 'evaluation' if subset == 'test' else 'training'


def read_annotations(data_root: str | Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Cameras and joints of a split.

    Returns:
        Camera matrices (N, 3, 3) float32, in pixels; joints (N, 21, 3) float64, in meters, in camera coordinates.

    Raises:
        UserError: If a file is missing or malformed, or the lengths differ.
    """
    cameras_file, joints_file = (Path(data_root, f'{split}_{name}.json') for name in ('K', 'xyz'))
    cameras = _read_array(cameras_file, (3, 3), 'a camera has 3 x 3 numbers')
    joints = _read_array(joints_file, (NUM_JOINTS, 3), f'a hand has {NUM_JOINTS} joints of 3 numbers')
    if len(cameras) != len(joints):
        counts = f'{cameras_file} has {len(cameras)} entries, but {joints_file} has {len(joints)}'
        raise UserError(f'{counts}: the entries must match one to one, download both files again')
    for i, (camera, hand) in enumerate(zip(cameras, joints, strict=True)):
        if not (np.abs(hand) < FARTHEST).all() or (hand[:, 2] <= 0).any():
            raise UserError(f'{joints_file}: entry {i} has a joint that is not in front of the camera: correct it')
        if not (np.abs(camera) < FARTHEST).all() or (camera[[0, 1], [0, 1]] <= 0).any():
            raise UserError(f'{cameras_file}: entry {i} lacks a positive focal length: correct it')
    return cameras.astype(np.float32), joints


def read_mano(data_root: str | Path, split: str, num_samples: int) -> np.ndarray:
    """MANO parameters of a split, (N, 61) float32: 48 for the pose (axis-angle), 10 for the shape, 3 for the camera.

    Raises:
        UserError: If the file is missing or malformed, or does not have ``num_samples`` entries.
    """
    path = Path(data_root, f'{split}_mano.json')
    numbers = _read_array(path, (1, 61), 'MANO has 1 x 61 numbers')
    if len(numbers) != num_samples:
        raise UserError(
            f'{path} has {len(numbers)} entries, but {split}_xyz.json has {num_samples}: download both files again'
        )
    return numbers[:, 0].astype(np.float32)


def _read_array(path: Path, shape: tuple[int, ...], form: str) -> np.ndarray:
    try:
        entries = json.loads(read_file(path).decode())
    except OSError as error:
        raise UserError(f'annotation file {path} cannot be read ({error.strerror}): see docs/pose3d.md') from None
    except (ValueError, RecursionError) as error:  # the latter for thousands of nested lists
        raise UserError(f'annotation file {path} is not valid JSON ({error}): download it again') from None
    if not isinstance(entries, list) or not entries:
        raise UserError(f'annotation file {path} is not a list with at least one entry: download it again')
    for i, entry in enumerate(entries):
        found: tuple[int, ...] | None
        try:
            found = np.shape(np.asarray(entry, np.float64))
        except (TypeError, ValueError, OverflowError):
            found = None
        if found != shape:
            given = 'not a numeric array' if found is None else ' x '.join(map(str, found)) or 'a single number'
            raise UserError(f'annotation file {path}: entry {i} is {given}, but {form}: correct it')
    return np.array(entries, np.float64)


def list_images(data_root: str | Path, split: str, num_samples: int) -> list[str]:
    """File names of the images of a split, in order; every sample has the same number of images.

    Raises:
        UserError: If the folder or an image is missing, or the number of images is not a multiple of ``num_samples``.
    """
    folder = Path(data_root, split, 'rgb')
    if not folder.is_dir():
        raise UserError(f'image folder {folder} not found: see docs/pose3d.md')
    found = {name for name in os.listdir(folder) if name.endswith('.jpg')}
    names = [f'{i:08}.jpg' for i in range(max(len(found), num_samples))]
    if missing := [name for name in names if name not in found]:
        raise UserError(f'{folder} lacks {len(missing)} of {len(names)} images, the first is {missing[0]}: add them')
    if len(names) % num_samples:
        problem = f'{folder} has {len(names)} images, not a multiple of the {num_samples} entries in {split}_xyz.json'
        raise UserError(f'{problem}: image i shows entry i modulo {num_samples}, add the missing images')
    return names
