"""Parameters and multiply-adds of the model of a config, by part.

The model is built and run on torch's meta device, which propagates shapes only: the largest detector takes seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mogacore.engine.config import build_on_meta, load_config, project_root
from mogacore.errors import UserError, accepting
from mogacore.models import accelerated
from mogacore.models.simvp import SimVP
from mogacore.published import published_complexity

# Numbers of regions for which the second stage of a detector is counted, as in the published figures (mmdet 2.x).
NUM_PROPOSALS = 1000
NUM_MASKS = 100
# Parts in the order of execution; parts that a model lacks are skipped.
PARTS = ('backbone', 'neck', 'rpn_head', 'bbox_head', 'roi_head', 'decode_head', 'auxiliary_head', 'head')
TRANSFORMER = 'transformer'  # all of a DETR-like detector after its neck
TRAINING_PARTS = ('auxiliary_head',)  # they have parameters but do not run at test time


@dataclass(frozen=True)
class Part:
    """Cost of one part of a model.

    Args:
        name: Name of the attribute of the model.
        params: Number of parameters.
        macs: Multiply-adds per image.
    """

    name: str
    params: int
    macs: int


@torch.no_grad()
def complexity(config: str | Path | Config, shape: tuple[int, ...] | None = None) -> list[Part]:
    """Parameters and multiply-adds of each part of a config's model.

    Args:
        config: Config file, or a loaded config.
        shape: (C, H, W) of the image, or (T, C, H, W) of the input frames of a SimVP; None is the config's
            ``input_shape``, the size of the published figures.

    Returns:
        The parts of the model in the order of :data:`PARTS`; for a SimVP, encoder, translator and decoder in one pass;
        for a DETR-like detector, backbone, neck and transformer.

    Raises:
        UserError: If the config cannot be read, no shape is known, the shape has the wrong number of axes, or the
            model has no backbone or does not accept the shape.
    """
    cfg = config if isinstance(config, Config) else load_config(config)
    shape = shape or cfg.get('input_shape')
    if shape is None:
        raise UserError(f'config {cfg.filename} has no input_shape: give --shape C H W')
    model = build_on_meta(cfg)
    axes = 'T C H W' if isinstance(model, SimVP) else 'C H W'
    if len(shape) != len(axes.split()):
        raise UserError(f'shape {" ".join(map(str, shape))} is invalid for {type(model).__name__}: give {axes}')
    name = Path(cfg.filename).stem if cfg.filename else type(model).__name__
    if isinstance(model, SimVP):
        with accepting(name, shape):
            return _parts_of_simvp(model, torch.empty(1, *shape, device='meta'))
    if not hasattr(model, 'backbone'):
        raise UserError(f'a {type(model).__name__} has no backbone: choose a config of a complete model')
    with accepting(name, shape):
        macs = dict(_macs_of_parts(model, torch.empty(1, *shape, device='meta')))
    parts = [Part(name, _num_params(getattr(model, name)), macs[name]) for name in PARTS if name in macs]
    if TRANSFORMER in macs:
        rest = _num_params(model) - sum(part.params for part in parts)
        parts.append(Part(TRANSFORMER, rest, macs[TRANSFORMER]))
    return parts


def count_macs(module: Callable, *inputs) -> int:
    """Multiply-adds of one forward pass: those of convolutions and matrix products, and 2 per BatchNorm value.

    Element-wise products, activations, resampling and other norms are not counted. Acceleration is off, so Moga blocks
    count as the paper defines them.

    Args:
        module: The network, in eval mode, or a function that calls it.
        *inputs: Its inputs, on any device, the meta device included.

    Source: the convention of fvcore for these operators, which the published figures follow.
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
    # The counter counts 2 FLOPs per multiply-add.
    return 2 * 2 * math.prod(input_shape)


def _has(model: nn.Module, name: str) -> bool:
    return isinstance(getattr(model, name, None), nn.Module)


def _num_params(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _macs_of_parts(model: Any, image: Tensor) -> Iterator[tuple[str, int]]:
    features = model.backbone(image)
    yield 'backbone', count_macs(model.backbone, image)
    if _has(model, 'neck'):
        yield 'neck', count_macs(model.neck, features)
        features = model.neck(features)
    if hasattr(model, 'forward_transformer'):
        yield TRANSFORMER, _transformer_macs(model, features, image.shape[2:])
        return
    for name in PARTS[2:]:
        if not _has(model, name):
            continue
        head = getattr(model, name)
        if name in TRAINING_PARTS:
            yield name, 0
        elif name == 'roi_head':
            yield name, _roi_head_macs(head)
        elif hasattr(head, 'pixel_decoder'):  # of a Mask2Former
            yield name, count_macs(_with_values(head), _zeros(features), [SimpleNamespace()])
        else:
            yield name, count_macs(head, features)


def _transformer_macs(model: Any, features: tuple[Tensor, ...], size: torch.Size) -> int:
    """Encoder, decoder and heads of mmdet's DetectionTransformer, for the queries of a test."""
    sample = SimpleNamespace(batch_input_shape=tuple(size), img_shape=tuple(size))
    _with_values(model)
    return count_macs(lambda maps: model.bbox_head(**model.forward_transformer(maps, [sample])), _zeros(features))


def _with_values(module: nn.Module) -> nn.Module:
    """Move a module from the meta device to the CPU: deformable attention reads the sizes of its maps from tensors."""
    module.to_empty(device='cpu')
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.zero_()
    return module


def _zeros(features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(torch.zeros(map_.shape) for map_ in features)


def _parts_of_simvp(model: SimVP, video: Tensor) -> list[Part]:
    model.check_frames(video)
    frames = video.flatten(0, 1)
    maps, skip = model.enc(frames)
    inputs = {'enc': (frames,), 'hid': (maps.flatten(0, 1)[None],), 'dec': (maps, skip)}
    return [
        Part(name, _num_params(getattr(model, name)), count_macs(getattr(model, name), *args))
        for name, args in inputs.items()
    ]


def _roi_head_macs(roi_head: Any) -> int:
    """Box heads run on ``NUM_PROPOSALS`` regions, mask heads on ``NUM_MASKS``; pooling is not counted."""
    return sum(
        count_macs(stage, torch.empty(num_regions, extractor.out_channels, size, size, device='meta'))
        for heads, extractors, num_regions in (
            (roi_head.bbox_head, roi_head.bbox_roi_extractor, NUM_PROPOSALS),
            (getattr(roi_head, 'mask_head', None), getattr(roi_head, 'mask_roi_extractor', None), NUM_MASKS),
        )
        if heads is not None and extractors is not None
        for stage, extractor in zip(_listed(heads), _listed(extractors), strict=True)
        for size in extractor.roi_layers[0].output_size[:1]
    )


def _listed(module: nn.Module) -> list[Any]:
    return list(module) if isinstance(module, nn.ModuleList) else [module]


def compare(configs: list[str | Path]) -> str:
    """A Markdown table of configs: computed parameters and multiply-adds next to the published ones.

    Args:
        configs: Config files below a folder ``configs``.

    Raises:
        UserError: See :func:`complexity`.
    """
    published = published_complexity()
    lines = ['| config | input | parameters (M) | published | GMACs | published |', '|---|---|---|---|---|---|']
    for path in configs:
        cfg = load_config(path)
        parts = complexity(cfg)
        name = Path(cfg.filename).resolve().relative_to(project_root(cfg.filename) / 'configs').as_posix()
        params, macs = (f'{value:g}' for value in published[name]) if name in published else ('', '')
        lines.append(
            f'| {name.removesuffix(".py")} | {" x ".join(map(str, cfg.input_shape[-2:]))} '
            f'| {sum(part.params for part in parts) / 1e6:.2f} | {params} '
            f'| {sum(part.macs for part in parts) / 1e9:.2f} | {macs} |'
        )
    return '\n'.join(lines)
