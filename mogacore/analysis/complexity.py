"""Parameters and multiply-adds of any model of a config, part by part, without computing anything.

The model is built and run on torch's meta device: shapes alone, so that the largest detector takes seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.config import Config
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mogacore.engine.config import build_on_meta, load_config, project_root
from mogacore.errors import UserError
from mogacore.models import accelerated
from mogacore.models.simvp import SimVP
from mogacore.published import published_complexity

# Regions that the second stage of a detector is counted for, as in the published figures (mmdet 2.x).
NUM_PROPOSALS = 1000
NUM_MASKS = 100
# Parts in the order of the data; one that a model lacks is left out. The heads are last.
PARTS = ('backbone', 'neck', 'rpn_head', 'bbox_head', 'roi_head', 'decode_head', 'auxiliary_head', 'head')
TRAINING_PARTS = ('auxiliary_head',)  # they have parameters but do not run in a test


@dataclass(frozen=True)
class Part:
    """Cost of a part of a model.

    Args:
        name: Attribute of the model.
        params: Number of parameters.
        macs: Multiply-adds of one image.
    """

    name: str
    params: int
    macs: int


@torch.no_grad()
def complexity(config: str | Path | Config, shape: tuple[int, ...] | None = None) -> list[Part]:
    """Parameters and multiply-adds of each part of a config's model.

    Args:
        config: Config file, or a loaded config.
        shape: (C, H, W) of the image, (T, C, H, W) of the frames that a SimVP takes; None is the config's
            ``input_shape``, for which its figures are published.

    Returns:
        The parts that the model has, in the order of :data:`PARTS`; of a SimVP encoder, translator and decoder, for one
        pass.

    Raises:
        UserError: If the config cannot be read, has no ``input_shape`` and none is given, the shape has another number
            of axes than the model takes, or the model has no backbone.
    """
    cfg = config if isinstance(config, Config) else load_config(config)
    shape = shape or cfg.get('input_shape')
    if shape is None:
        raise UserError(f'config {cfg.filename} has no input_shape: give --shape C H W')
    model = build_on_meta(cfg)
    axes = 'T C H W' if isinstance(model, SimVP) else 'C H W'
    if len(shape) != len(axes.split()):
        raise UserError(f'shape {" ".join(map(str, shape))} does not fit a {type(model).__name__}: give {axes}')
    if isinstance(model, SimVP):
        return _parts_of_simvp(model, torch.empty(1, *shape, device='meta'))
    if not hasattr(model, 'backbone'):
        raise UserError(f'a {type(model).__name__} has no backbone: parts are {", ".join(PARTS)}')
    macs = dict(_macs_of_parts(model, torch.empty(1, *shape, device='meta')))
    return [
        Part(name, sum(p.numel() for p in getattr(model, name).parameters()), macs[name])
        for name in PARTS
        if _has(model, name)
    ]


def count_macs(module: nn.Module, *inputs) -> int:
    """Multiply-adds of one call: those of convolutions and matrix products, and 2 per value for BatchNorm.

    Element-wise products, activations and resampling are not counted. Moga blocks count as the paper writes them.

    Source: the conventions of fvcore, which the published figures follow.
    """
    with (
        accelerated.disabled(),
        torch.no_grad(),
        FlopCounterMode(display=False, custom_mapping=dict.fromkeys(BATCH_NORMS, _batch_norm_flops)) as counter,
    ):
        module(*inputs)
    return counter.get_total_flops() // 2


BATCH_NORMS = (torch.ops.aten.native_batch_norm, torch.ops.aten._native_batch_norm_legit_no_training)


def _batch_norm_flops(input_shape, *args, out_shape=None, **kwargs) -> int:
    return 2 * 2 * math.prod(input_shape)


def _has(model: nn.Module, name: str) -> bool:
    return isinstance(getattr(model, name, None), nn.Module)


def _macs_of_parts(model: nn.Module, image: Tensor) -> Iterator[tuple[str, int]]:
    features = model.backbone(image)
    yield 'backbone', count_macs(model.backbone, image)
    if _has(model, 'neck'):
        yield 'neck', count_macs(model.neck, features)
        features = model.neck(features)
    for name in PARTS[2:]:
        if name in TRAINING_PARTS:
            yield name, 0
        elif name == 'roi_head' and _has(model, name):
            yield name, _roi_head_macs(model.roi_head)
        elif _has(model, name):
            yield name, count_macs(getattr(model, name), features)


def _parts_of_simvp(model: SimVP, video: Tensor) -> list[Part]:
    model.check_frames(video)
    frames = video.flatten(0, 1)
    maps, skip = model.enc(frames)
    inputs = {'enc': (frames,), 'hid': (maps.flatten(0, 1)[None],), 'dec': (maps, skip)}
    return [
        Part(name, sum(p.numel() for p in getattr(model, name).parameters()), count_macs(getattr(model, name), *args))
        for name, args in inputs.items()
    ]


def _roi_head_macs(roi_head: nn.Module) -> int:
    """Every box head sees all proposals, every mask head the first of them; pooling is not counted."""
    return sum(
        count_macs(stage, torch.empty(num_regions, extractor.out_channels, size, size, device='meta'))
        for heads, extractors, num_regions in (
            (roi_head.bbox_head, roi_head.bbox_roi_extractor, NUM_PROPOSALS),
            (getattr(roi_head, 'mask_head', None), getattr(roi_head, 'mask_roi_extractor', None), NUM_MASKS),
        )
        if heads is not None
        for stage, extractor in zip(_listed(heads), _listed(extractors), strict=True)
        for size in extractor.roi_layers[0].output_size[:1]
    )


def _listed(module: nn.Module) -> list[nn.Module]:
    return list(module) if isinstance(module, nn.ModuleList) else [module]


def compare(configs: list[str | Path]) -> str:
    """A Markdown table of configs: parameters and multiply-adds computed now, beside those published.

    Args:
        configs: Config files below a folder ``configs``.

    Raises:
        UserError: As :func:`complexity`.
    """
    published = published_complexity()
    lines = ['| config | input | parameters (M) | published | GMACs | published |', '|---|---|---|---|---|---|']
    for path in configs:
        cfg = load_config(path)
        parts = complexity(cfg)
        name = Path(cfg.filename).resolve().relative_to(project_root(cfg) / 'configs').as_posix()
        params, macs = (f'{value:g}' for value in published[name]) if name in published else ('', '')
        lines.append(
            f'| {name.removesuffix(".py")} | {" x ".join(map(str, cfg.input_shape[-2:]))} '
            f'| {sum(part.params for part in parts) / 1e6:.2f} | {params} '
            f'| {sum(part.macs for part in parts) / 1e9:.2f} | {macs} |'
        )
    return '\n'.join(lines)
