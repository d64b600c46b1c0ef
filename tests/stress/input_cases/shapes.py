"""Images of extreme shapes through the test pipelines for ImageNet, COCO, ADE20K and poses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from conftest import ROOT, TINY_ARCH
from small_models import CHANGES, build_small

from mogacore.inference.predictor import infer

from .core import case
from .pictures import black_png, check_report, encoded

WIDTHS = list(TINY_ARCH['embed_dims'])
NARROW = 'backbone=dict(type="Pyramid")'
CONFIGS = {
    'classification': (
        'classification/moganet-xtiny_8xb128_in1k-224',
        f'backbone=dict(arch={dict(TINY_ARCH, _delete_=True)}), head=dict(in_channels={WIDTHS[3]})',
    ),
    'detection': (
        'detection/retinanet_moganet-tiny_fpn_1x_coco',
        f'{NARROW}, neck=dict(in_channels={WIDTHS}, out_channels=16), bbox_head=dict(in_channels=16, feat_channels=16)',
    ),
    'segmentation': (
        'segmentation/semantic-fpn_moganet-tiny_80k_ade20k-512x512',
        f'{NARROW}, {CHANGES["segmentation/semantic-fpn_moganet-xtiny_digits"]}',
    ),
    'pose': (
        'pose/td-hm_moganet-tiny_210e_coco-256x192',
        f'{NARROW}, {CHANGES["pose/td-hm_moganet-xtiny_digits"]}',
    ),
}
ELONGATED = r'cannot be resized .*: pad or cut it to a less elongated shape'
TOO_LARGE = r'has more than 200,000,000 pixels|less elongated shape'
# Width and height -> pattern of the line, by task; others work.
SIZES: dict[tuple[int, int], dict[str, str]] = {
    (1, 1): {},
    (1, 64): {},
    (64, 1): {},
    (3, 2): {},
    (1, 5000): {'classification': TOO_LARGE, 'detection': ELONGATED, 'segmentation': ELONGATED},
    (5000, 1): {'classification': TOO_LARGE, 'detection': ELONGATED, 'segmentation': ELONGATED},
    (2, 30_000): {'classification': TOO_LARGE, 'detection': ELONGATED, 'segmentation': ELONGATED},
    (60_000, 1): dict.fromkeys(('classification', 'detection', 'segmentation', 'pose'), f'{TOO_LARGE}|{ELONGATED}'),
    (12_000, 12_000): {'segmentation': 'there is not enough memory .* predict parts with --tile'},
}


def write_small(folder: Path, task: str) -> tuple[str, str]:
    """Config and weights of a small model with the test pipeline of a real config."""
    base, changes = CONFIGS[task]
    path = folder / f'{task}.py'
    path.write_text(f'_base_ = {str(ROOT / "configs" / base) + ".py"!r}\nmodel = dict({changes})\n')
    torch.save(build_small(path).state_dict(), folder / f'{task}.pth')
    return str(path), str(folder / f'{task}.pth')


for task in CONFIGS:
    for size, lines in SIZES.items():

        def run(root: Path, task: str = task, size: tuple[int, int] = size) -> None:
            config, weights = write_small(root, task)
            if size[0] * size[1] > 10**7:
                content = black_png(*size)
            else:
                content = encoded(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8))
            (root / 'photo.png').write_bytes(content)
            (record,) = infer(config, weights, 'photo.png', 'out', device='cpu')
            assert record['image'] == 'photo.png'
            check_report('out', 1)

        case(
            f'shapes: {task}', f'{size[0]} x {size[1]}', lines.get(task), size in ((1, 1), (5000, 1)) and task == 'pose'
        )(run)
