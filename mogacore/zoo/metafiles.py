"""The results in OpenMMLab's form: model-index.yml and a metafile a task, and the page of all of them.

A model is a config; its figures and weights are those of the first published result that it has. Weights that were
trained with the other gate function than the config's are left out: by name a model would load and predict badly.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mogacore.files import write_whole

from .reproduce import Row, to_markdown
from .results import Result, load_results

PAPER = 'https://arxiv.org/abs/2211.03295'
COLLECTION = 'MogaNet'
FOLDERS = ('classification', 'detection', 'segmentation', 'pose', 'video_prediction')
# Configs that say attn_force_fp32=True, since all of their published weights were trained so.
DOUBLE_GATE = ('_3aug_', '_rsb-a3_')
TASK_NAMES = {
    'classification': 'Image Classification',
    'object-detection': 'Object Detection',
    'instance-segmentation': 'Instance Segmentation',
    'semantic-segmentation': 'Semantic Segmentation',
    'pose': 'Body 2D Keypoint',
    'video-prediction': 'Video Prediction',
}
METRIC_NAMES = {
    'top1': 'Top 1 Accuracy',
    'top5': 'Top 5 Accuracy',
    'box_mAP': 'box AP',
    'mask_mAP': 'mask AP',
    'AP50': 'AP@0.5',
    'AP75': 'AP@0.75',
    'AR_M': 'AR (M)',
    'AR_L': 'AR (L)',
    'mse': 'MSE',
    'mae': 'MAE',
    'rmse': 'RMSE',
    'ssim': 'SSIM',
    'psnr': 'PSNR',
    'lpips': 'LPIPS',
}
PAGE = """# All published results

Written by `python tools/reproduce.py --write`; do not edit. Sizes are ours / published, computed from our configs;
"ours" are accuracies measured here. How to fill the table, and what its columns mean: [reproduce](reproduce.md).

"""


def metafiles() -> dict[str, str]:
    """Content of ``model-index.yml`` and of each ``configs/TASK/metafile.yml``, by path below the project."""
    names = {folder: f'configs/{folder}/metafile.yml' for folder in FOLDERS}
    found = {'model-index.yml': _yaml({'Import': list(names.values())})}
    for folder, name in names.items():
        models = [_model(result) for result in _firsts() if result.config.startswith(f'{folder}/')]
        content = {'Collections': [_collection()], 'Models': models} if folder == FOLDERS[0] else {'Models': models}
        found[name] = _yaml(content)
    return found


def _firsts() -> Iterable[Result]:
    """The first result of each config that has figures."""
    firsts = {}
    for result in load_results():
        if result.config and result.metrics:
            firsts.setdefault(result.config, result)
    return firsts.values()


def _collection() -> dict:
    return {
        'Name': COLLECTION,
        'Metadata': {
            'Training Data': 'ImageNet-1k',
            'Architecture': ['Multi-order Gated Aggregation', 'Channel Aggregation'],
        },
        'Paper': {'URL': PAPER, 'Title': 'MogaNet: Multi-order Gated Aggregation Network'},
        'README': 'docs/reproduce.md',
        'Code': {'URL': 'https://github.com/Westlake-AI/MogaNet'},
    }


def _model(result: Result) -> dict:
    stem = result.config.rpartition('/')[2].removesuffix('.py')
    metadata = {}
    if result.params_m and not result.exception:
        metadata['Parameters'] = round(float(result.params_m) * 1e6)
    if result.gmacs and not result.exception:
        metadata['FLOPs'] = round(float(result.gmacs) * 1e9)
    metrics = {METRIC_NAMES.get(name, name): float(value) for name, value in result.metrics.items()}
    model = {'Name': stem, 'In Collection': COLLECTION, 'Metadata': metadata}
    model['Results'] = [{'Task': TASK_NAMES[result.task], 'Dataset': result.dataset, 'Metrics': metrics}]
    if result.weights and result.gate in ('', _gate_of(stem)):
        model['Weights'] = result.weights
    model['Config'] = f'configs/{result.config}'
    return model


def _gate_of(stem: str) -> str:
    return 'double' if any(part in stem for part in DOUBLE_GATE) else 'single'


def _yaml(content: dict) -> str:
    import yaml

    text = yaml.safe_dump(content, sort_keys=False, width=200)
    return f'# Written by "python tools/reproduce.py --write" from mogacore/zoo/results.csv.\n{text}'


def model_zoo_page(rows: Iterable[Row]) -> str:
    """The page of all results, docs/model_zoo.md."""
    return PAGE + to_markdown(rows)


def write_all(root: Path, rows: Iterable[Row]) -> list[str]:
    """Write the metafiles and the page of all results.

    Args:
        root: The checkout.
        rows: Of the page, as of :func:`mogacore.zoo.reproduce.reproduce`.

    Returns:
        The files, as paths below the checkout.
    """
    written = {**metafiles(), 'docs/model_zoo.md': model_zoo_page(rows)}
    for name, text in written.items():
        write_whole(root / name, text.encode())
    return list(written)
