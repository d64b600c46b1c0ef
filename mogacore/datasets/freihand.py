"""FreiHAND (Zimmermann et al., ICCV 2019, arXiv 1909.04349): 21 joints of one right hand a picture, in 3D."""

from __future__ import annotations

import colorsys
import json
import os
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS

from mogacore.errors import UserError

from .hands import FINGERS, NUM_JOINTS, PARENTS

SUBSETS = ('train', 'val', 'trainval', 'test')


def _describe_joints() -> dict:
    """What mmpose keeps of a data set's keypoints, in the form it has once it is parsed."""
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
    """FreiHAND for the pipelines of mmpose; of its files it reads pictures, cameras and joints, and no body model.

    The training pictures show each sample several times, on other grounds: picture i is of sample i modulo the number
    of samples (32,560). Samples are held out, never pictures, so that no pose is in both ``train`` and ``val``; those
    at the end, since neighbours are frames of one recording.

    Each item before the pipeline has the keys of mmpose's ``InterHand3DDataset``: ``keypoints`` (1, 21, 3), x and y in
    pixels and z in mm from the wrist; ``keypoints_cam`` (1, 21, 3) in mm; ``keypoints_visible`` (1, 21); ``abs_depth``,
    the wrist's depth in mm, (1,); ``focal`` and ``principal_pt`` (2,) in pixels; and ``bbox`` (1, 4), the whole
    picture.

    Args:
        data_root: Folder with ``training/rgb``, ``training_K.json``, ``training_xyz.json`` and the same of
            ``evaluation``.
        subset: 'train' and 'val' share the training samples, 'trainval' is all of them, 'test' the evaluation pictures.
        held_out: Share of the training samples that are ``val``.
        with_mano: Read ``*_mano.json`` too and give its first 48 numbers as ``mano_pose``, for
            :class:`mogacore.models.iterative.IterativeHandHead`.
        kwargs: As mmengine's BaseDataset takes them: pipeline, indices, ...

    Raises:
        UserError: If a file is missing or does not fit the others.
    """

    METAINFO: ClassVar[dict] = _describe_joints()

    def __init__(self, data_root: str, subset: str = 'train', held_out: float = 0.2, with_mano: bool = False, **kwargs):
        if subset not in SUBSETS:
            raise UserError(f'subset {subset!r} of FreiHAND is unknown: choose from {", ".join(SUBSETS)}')
        if not 0 <= held_out < 1:
            raise UserError(f'held_out of FreiHAND is {held_out}: give a share from 0 to below 1')
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
        names = list_pictures(self.data_root, split, len(joints))
        num_train = len(joints) - round(self.held_out * len(joints))
        wanted = {'train': range(num_train), 'val': range(num_train, len(joints))}.get(self.subset, range(len(joints)))
        if not len(wanted):
            raise UserError(f'subset {self.subset!r} of {len(joints)} samples is empty: set another held_out')
        folder = Path(self.data_root, split, 'rgb')
        first = cv2.imread(str(folder / names[0]))  # all are of one size
        if first is None:
            raise UserError(f'picture {folder / names[0]} cannot be read: fetch it again')
        self.box = np.array([[0, 0, first.shape[1], first.shape[0]]], np.float32)
        return [
            dict(id=i, img_id=i, sample=i % len(joints), img_path=str(folder / name))
            for i, name in enumerate(names)
            if i % len(joints) in wanted
        ]

    def get_data_info(self, idx: int) -> dict:
        info = super().get_data_info(idx)
        # Laid on here, that a hundred thousand items need not each hold them.
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
    """The name that the files of a subset begin with."""
    return 'evaluation' if subset == 'test' else 'training'


def read_annotations(data_root: str | Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Cameras and joints of a split.

    Returns:
        (N, 3, 3) float32, pixels; (N, 21, 3) float64, metres, in the axes of the camera.

    Raises:
        UserError: If a file is missing, is of another form, or they are not of one length.
    """
    cameras_file, joints_file = (Path(data_root, f'{split}_{name}.json') for name in ('K', 'xyz'))
    cameras = _read_array(cameras_file, (3, 3), 'a camera has 3 x 3 numbers')
    joints = _read_array(joints_file, (NUM_JOINTS, 3), f'a hand has {NUM_JOINTS} joints of 3 numbers')
    if len(cameras) != len(joints):
        counts = f'{cameras_file} has {len(cameras)} entries, but {joints_file} has {len(joints)}'
        raise UserError(f'{counts}: they belong together one to one, fetch them again')
    for i, (camera, hand) in enumerate(zip(cameras, joints, strict=True)):
        if not np.isfinite(hand).all() or (hand[:, 2] <= 0).any():
            raise UserError(f'{joints_file}: entry {i} has a joint that is not in front of the camera: correct it')
        if not np.isfinite(camera).all() or (camera[[0, 1], [0, 1]] <= 0).any():
            raise UserError(f'{cameras_file}: entry {i} has no focal length above 0: correct it')
    return cameras.astype(np.float32), joints


def read_mano(data_root: str | Path, split: str, num_samples: int) -> np.ndarray:
    """MANO's parameters of a split, (N, 61) float32: 48 of pose as axis-angles, 10 of shape, 3 of a camera.

    Raises:
        UserError: If the file is missing, is of another form, or has not ``num_samples`` entries.
    """
    path = Path(data_root, f'{split}_mano.json')
    numbers = _read_array(path, (1, 61), 'MANO has 1 x 61 numbers')
    if len(numbers) != num_samples:
        raise UserError(f'{path} has {len(numbers)} entries, but {split}_xyz.json {num_samples}: fetch them again')
    return numbers[:, 0].astype(np.float32)


def _read_array(path, shape, form):
    try:
        entries = json.loads(path.read_text(encoding='utf-8'))
    except OSError as error:
        raise UserError(f'annotation file {path} cannot be read ({error.strerror}): see docs/pose3d.md') from None
    except ValueError as error:
        raise UserError(f'annotation file {path} is no JSON ({error}): fetch it again') from None
    if not isinstance(entries, list) or not entries:
        raise UserError(f'annotation file {path} holds no list of entries: fetch it again')
    for i, entry in enumerate(entries):
        try:
            found = np.shape(np.asarray(entry, np.float64))
        except (TypeError, ValueError):
            found = 'no array'
        if found != shape:
            told = ' x '.join(map(str, found)) if isinstance(found, tuple) else found
            raise UserError(f'annotation file {path}: entry {i} is {told or "one"}, but {form}: correct it')
    return np.array(entries, np.float64)


def list_pictures(data_root: str | Path, split: str, num_samples: int) -> list[str]:
    """File names of the pictures of a split, in order: each sample as many times as the others.

    Raises:
        UserError: If there is none, one is missing, or their number is no multiple of ``num_samples``.
    """
    folder = Path(data_root, split, 'rgb')
    if not folder.is_dir():
        raise UserError(f'folder {folder} of the pictures is missing: see docs/pose3d.md')
    found = {name for name in os.listdir(folder) if name.endswith('.jpg')}
    names = [f'{i:08}.jpg' for i in range(max(len(found), num_samples))]
    if missing := [name for name in names if name not in found]:
        raise UserError(f'{folder} lacks {len(missing)} of {len(names)} pictures, the first is {missing[0]}: add them')
    if len(names) % num_samples:
        problem = f'{folder} has {len(names)} pictures, no multiple of the {num_samples} entries of {split}_xyz.json'
        raise UserError(f'{problem}: picture i is of entry i modulo {num_samples}, fetch what is missing')
    return names
