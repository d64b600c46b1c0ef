"""The metainfo of keypoints in a config: read from a file, and with defaults."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from mmengine.config import Config

from mogacore.errors import UserError
from mogacore.text import shorten

SIGMA = 0.067  # mean of COCO's 17 sigmas


def read_metainfo(metainfo: Mapping) -> dict:
    """The metainfo of a data set's config, or ``dataset_info`` of the file that its ``from_file`` names.

    Without the other entries there is no skeleton, every keypoint has the loss weight 1, and sigma is the mean of
    COCO's.

    Raises:
        UserError: If the file does not exist or cannot be read, or ``keypoint_info`` is missing.
    """
    info = dict(metainfo)
    if 'from_file' in info:
        path = _find(info['from_file'])
        try:
            info = dict(Config.fromfile(path).get('dataset_info') or {})
        except Exception as error:  # a config is a program
            reason = ' '.join(str(error).split())
            raise UserError(f'metainfo.from_file {path} cannot be read ({reason}): correct the file') from error
        if 'keypoint_info' not in info:
            raise UserError(
                f'metainfo.from_file {path} has no dataset_info with keypoint_info: define dataset_info='
                'dict(keypoint_info=...) in it'
            )
    if not info:
        return info
    if 'keypoint_info' not in info:
        raise UserError(
            f'metainfo of the data set has {shorten(info)}, but no keypoint_info: add the names of the keypoints, as '
            'in docs/own_data.md'
        )
    count = len(info['keypoint_info'])
    defaults = dict(dataset_name='own', skeleton_info={}, joint_weights=[1.0] * count, sigmas=[SIGMA] * count)
    return defaults | info


def _find(path: str) -> Path:
    """The file, or else mmpose's own of the same name, as mmpose looks it up."""
    spec = find_spec('mmpose')
    packages = (spec.submodule_search_locations if spec else None) or ()
    known = [Path(package, '.mim/configs/_base_/datasets', Path(path).name) for package in packages]
    found = next((candidate for candidate in (Path(path), *known) if candidate.is_file()), None)
    if found is None:
        raise UserError(f'metainfo.from_file {path} not found: give the path of a file with dataset_info')
    return found
