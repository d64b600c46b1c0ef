"""The uniform average of the weights of several checkpoints.

Source: Izmailov et al., arXiv 1803.05407 (averages along one training); Wortsman et al., arXiv 2203.05482 (of several).
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from mmengine.config import Config
from mmengine.model import BaseModel
from torch import Tensor

from mogacore.checkpoint import load_into, read, weight_sets
from mogacore.errors import UserError
from mogacore.text import shorten

from .config import build_model, locate_data, prepare_loaders, replace_sync_bn
from .devices import choose_device
from .ema import _norms, estimate_statistics
from .explain import user_errors
from .loaders import build_loader
from .resume import seed_all

NUM_SAMPLES = 8192  # as in PreciseBatchNormHook


def average(paths: Sequence[str | Path], ema: bool | None = None) -> dict[str, Tensor]:
    """Mean of the weights of several checkpoints of one model.

    Args:
        paths: Weight files, at least two.
        ema: Set of weights in files that have two, see :func:`mogacore.checkpoint.load`.

    Returns:
        Means, computed in fp64, in the types of the last file. Tensors of integers, such as the counters of batch
        norms, are those of the last file.

    Raises:
        UserError: If a file cannot be read, or the files differ in names, shapes, types or the config of the model.
    """
    if len(paths) < 2:
        raise UserError(f'an average needs at least two checkpoints, but there is {len(paths)}: give more')
    sums: dict[str, Tensor] = {}
    model = None
    for path in paths:
        container = read(path)
        last = weight_sets(container).choose(ema).state_dict
        config = _model_config(container)
        if not sums:
            sums = {name: value.double() if value.is_floating_point() else value for name, value in last.items()}
            model = config
            continue
        _check_same(sums, last, paths[0], path)
        if None not in (model, config) and model != config:
            raise UserError(f'{path} has another model config than {paths[0]}: average checkpoints of one model')
        for name, value in last.items():
            sums[name] = sums[name] + value.double() if value.is_floating_point() else value
    return {
        name: (sums[name] / len(paths)).to(value.dtype) if value.is_floating_point() else value
        for name, value in last.items()
    }


def _check_same(sums: dict[str, Tensor], tensors: dict[str, Tensor], first: str | Path, path: str | Path) -> None:
    if names := [*(name for name in sums if name not in tensors), *(name for name in tensors if name not in sums)]:
        raise UserError(f'{path} and {first} differ in {shorten(names, 3)}: average checkpoints of one model')
    for name, value in tensors.items():
        if value.shape != sums[name].shape or value.is_floating_point() != sums[name].is_floating_point():
            raise UserError(
                f'{name} is {value.dtype} {tuple(value.shape)} in {path}, but {sums[name].dtype} '
                f'{tuple(sums[name].shape)} in {first}: average checkpoints of one model'
            )


def _model_config(container: dict) -> str | None:
    """The ``model`` of the config text in a checkpoint, in a form to compare; None if there is none.

    The text is parsed, never executed.
    """
    meta = container.get('meta')
    text = meta.get('cfg') if isinstance(meta, dict) else None
    try:
        tree = ast.parse(text) if isinstance(text, str) else ast.Module([], [])
    except SyntaxError:
        return None
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == 'model' for t in node.targets):
            return ast.dump(node.value)
    return None


def estimate(cfg: Config, state_dict: dict[str, Tensor], device: str | None = None) -> dict[str, Tensor]:
    """Replace the statistics of batch norms with those of the training data under the given weights.

    Args:
        cfg: Training config, which is changed: its data folders become absolute.
        state_dict: Weights of its model.
        device: torch device; None for a GPU if available.

    Returns:
        The weights with the new statistics, over ``NUM_SAMPLES`` images or all, see
        :func:`mogacore.engine.ema.estimate_statistics`. Norms that the training freezes keep theirs.

    Raises:
        UserError: If the data is missing, or the weights do not fit the model.
    """
    device = choose_device(device)
    replace_sync_bn(cfg.model)
    locate_data(cfg, 'train')
    prepare_loaders(cfg)
    model = cast(BaseModel, build_model(cfg))
    load_into(model, state_dict, advice='')
    model.to(device).train()
    if not any(norm.training for norm in _norms(model)):
        return state_dict
    seed = cfg.get('randomness', {}).get('seed') or 0
    with user_errors():
        loader = build_loader(cfg.train_dataloader, seed=seed)
        seed_all(seed)
        estimate_statistics(model, loader, NUM_SAMPLES, description='estimating the statistics of batch norms')
    found = model.state_dict()
    return {name: found[name].cpu() if name in found else value for name, value in state_dict.items()}
