"""What timm calls a pretrained_cfg: how the images of a published classification file are prepared."""

from __future__ import annotations

import re

from .results import Result, load_results

FIRST_CONV = 'patch_embed1.projection.0'
CLASSIFIER = 'head'
# RSB A3 (arXiv 2110.00476) tests at 0.95; every other published recipe at 0.9.
CROPS = {'_rsb_a3_': 0.95}


def pretrained_cfg(arch: str, file_name: str = '') -> dict:
    """Description of a published classification file by the keys of timm.

    Args:
        arch: Published size.
        file_name: Name of the weight file; '' or that of no published classifier means the file of the MogaNet release
            at 224 x 224.
    """
    files = [result for result in load_results() if result.task == 'classification' and result.weights]
    result = next((r for r in files if r.weights_file == file_name), None)
    result = result or next(r for r in files if r.weights_name.startswith(f'moganet_{arch}_sz224_'))
    size = image_size(result)
    return {
        'url': result.weights,
        'architecture': f'moganet_{arch}',
        'tag': tag(result),
        'num_classes': 1000,
        'input_size': (3, size, size),
        'pool_size': (size // 32, size // 32),
        'crop_pct': next((crop for part, crop in CROPS.items() if part in result.weights_name), 0.9),
        'crop_mode': 'center',
        'interpolation': 'bicubic',
        'mean': (0.485, 0.456, 0.406),
        'std': (0.229, 0.224, 0.225),
        'first_conv': FIRST_CONV,
        'classifier': CLASSIFIER,
        'license': 'apache-2.0',
        'origin_url': 'https://github.com/Westlake-AI/MogaNet',
        'paper_name': 'MogaNet: Multi-order Gated Aggregation Network',
        'paper_ids': 'arXiv:2211.03295',
    }


def released(arch: str) -> list[dict]:
    """:func:`pretrained_cfg` of the classification files of the MogaNet release, the one at 224 x 224 first."""
    files = [
        result.weights_file
        for result in load_results()
        if result.task == 'classification' and result.weights_name.startswith(f'moganet_{arch}_sz')
    ]
    return [pretrained_cfg(arch, name) for name in files]


def image_size(result: Result) -> int:
    """Height and width of the test images of a classification result."""
    return int(re.findall(r'\d+', result.resolution)[-1])


def tag(result: Result) -> str:
    """timm's tag for a file of the MogaNet release, such as 'in1k' or 'in1k_256'; the file's name for any other."""
    if not result.weights_name.startswith('moganet_'):
        return result.weights_name
    size = image_size(result)
    return 'in1k' if size == 224 else f'in1k_{size}'
