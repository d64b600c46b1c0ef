"""The configs of heads that the paper does not use, and the public configs that their values come from."""

from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import ROOT

# Part of a config's name -> library, and its config below ``.mim/configs``.
HEADS = {
    'faster-rcnn': ('mmdet', 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'),
    'fcos': ('mmdet', 'fcos/fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco.py'),
    'rtmdet': ('mmdet', 'rtmdet/rtmdet_l_swin_b_4xb32-100e_coco.py'),
    'dino-4scale': ('mmdet', 'dino/dino-4scale_r50_8xb2-12e_coco.py'),
    'segformer': ('mmseg', 'segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py'),
    'deeplabv3plus': ('mmseg', 'deeplabv3plus/deeplabv3plus_r50-d8_4xb4-160k_ade20k-512x512.py'),
    'mask2former': ('mmseg', 'mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py'),
    'rtmpose': ('mmpose', 'body_2d_keypoint/rtmpose/coco/rtmpose-m_8xb256-420e_coco-256x192.py'),
    'multi-label': ('mmpretrain', 'csra/resnet101-csra_1xb16_voc07-448px.py'),
}


def head_of(path: Path) -> str | None:
    """Key of HEADS for a config; None for one with a head of the paper."""
    return next((head for head in HEADS if head in path.stem.split('_')), None)


LEAVES = [path for path in sorted((ROOT / 'configs').glob('[!_]*/*.py')) if head_of(path)]
FULL_SIZE = [path for path in LEAVES if 'digits' not in path.stem]
DIGITS = [path for path in LEAVES if 'digits' in path.stem]


def public_config(head: str) -> Path:
    """The config of the installed library."""
    library, name = HEADS[head]
    spec = find_spec(library)
    if spec is None:
        pytest.skip(f'{library} is not installed')
    return Path(spec.origin).parent / '.mim' / 'configs' / name
