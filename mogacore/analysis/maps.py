"""Layers of a network whose outputs are maps over the image, and the grid on which tokens are laid out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mogacore.errors import UserError

# Parameters of transformers that are tokens in front of those of the image.
PREFIX_TOKENS = ('cls_token', 'class_token', 'dist_token', 'reg_token', 'register_tokens')
Grid = tuple[int, int]


@dataclass
class Trace:
    """Outputs of the layers of a network for one batch of images.

    Args:
        size: Height and width of the images.
        batch: Number of images.
        prefix: Number of tokens in front of those of the image, such as a class token.
        outputs: (name, output) of every call of a layer, in order of their ends; None if the output is no tensor.
        grids: Heights and widths of the maps of convolutions that fit the image.
        may_be_last: Whether channels may be the last dimension of a map: a layer that works on the last dimension, as
            linear layers do, returns four dimensions.
    """

    size: Grid
    batch: int
    prefix: int
    outputs: list[tuple[str, torch.Size | None]] = field(default_factory=list)
    grids: set[Grid] = field(default_factory=set)
    may_be_last: bool = False


def trace(network: nn.Module, forward: Callable[[], object], images: Tensor) -> Trace:
    """Run a network once and record the shapes of what its layers return.

    Args:
        network: The network.
        forward: Runs it on ``images``.
        images: (B, C, H, W).
    """
    height, width = images.shape[2:]
    found = Trace((height, width), len(images), _prefix_tokens(network))

    def record(name: str) -> Callable:
        def hook(module: nn.Module, args: tuple, out: object) -> None:
            found.outputs.append((name, out.shape if isinstance(out, Tensor) else None))
            if isinstance(module, nn.Conv2d) and isinstance(out, Tensor) and _fits(found.size, out.shape[2:]):
                found.grids.add((out.shape[2], out.shape[3]))
            if isinstance(module, (nn.Linear, nn.LayerNorm)) and isinstance(out, Tensor) and out.ndim == 4:
                found.may_be_last = True

        return hook

    handles = [module.register_forward_hook(record(name)) for name, module in network.named_modules() if name]
    try:
        with torch.no_grad():
            forward()
    finally:
        for handle in handles:
            handle.remove()
    return found


def _prefix_tokens(network: nn.Module) -> int:
    declared = [getattr(module, 'num_prefix_tokens', None) for module in network.modules()]  # in timm
    if numbers := [number for number in declared if isinstance(number, int)]:
        return numbers[0]
    tokens = [p for name, p in network.named_parameters() if name.rpartition('.')[2] in PREFIX_TOKENS and p.ndim > 1]
    return sum(parameter.shape[-2] for parameter in tokens)


def _fits(size: Grid, grid: Sequence[int]) -> bool:
    """Whether a grid can be that of an image: at one stride, both sides agree within the cell that rounding may add."""
    low = max(side / (cells + 1) for side, cells in zip(size, grid, strict=True))
    high = min(side / (cells - 1) if cells > 1 else math.inf for side, cells in zip(size, grid, strict=True))
    return low < high


def _resembles(size: Grid, grid: Sequence[int]) -> bool:
    """Whether the aspect of a grid is that of an image within a factor of 2, as after convolutions without padding."""
    return 0.5 < size[0] * grid[1] / (size[1] * grid[0]) < 2


def _candidates(traced: Trace) -> set[Grid]:
    """Grids on which tokens may be laid out: those of the network's maps, and these merged 2 x 2 up to five times.

    If the network has no convolutions, all grids of the image at an integer stride.
    """
    if not traced.grids:
        height, width = traced.size
        strides = range(1, max(height, width) + 1)
        return {(height // s, width // s) for s in strides} | {(-(-height // s), -(-width // s)) for s in strides}
    found = set()
    for height, width in traced.grids:
        for times in range(6):
            found.add((-(-height // 2**times), -(-width // 2**times)))
    return found


def token_grid(traced: Trace, count: int) -> Grid | None:
    """Height and width of the grid of ``count`` tokens, which may include those in front; None if not exactly one."""
    wanted = {count, count - traced.prefix}
    found = {grid for grid in _candidates(traced) if grid[0] * grid[1] in wanted}
    return found.pop() if len(found) == 1 else None


def as_maps(tensor: Tensor, traced: Trace) -> Tensor:
    """Convert the output of a layer to maps (B, C, h, w).

    Accepts (B, C, h, w); (B, h, w, C), which is recognized by the shape of the image; and tokens (B, N, C) with row by
    row an unambiguous grid, see :func:`token_grid`. Tokens in front, such as a class token, are dropped.

    Raises:
        UserError: If the tensor is none of these, or has a single cell.
    """
    shape = tuple(tensor.shape)
    if tensor.ndim not in (3, 4):
        raise UserError(f'{_described(shape)} is not a map of the image')
    if tensor.ndim == 3:
        grid = token_grid(traced, shape[1])
        if grid is None or grid == (1, 1):
            raise UserError(f'{_described(shape)}: the grid of its {shape[1]} tokens is not known')
        return tensor[:, shape[1] - grid[0] * grid[1] :].transpose(1, 2).unflatten(2, grid)
    if _are_channels_last(shape, traced):
        tensor = tensor.permute(0, 3, 1, 2)
    if tensor.shape[2] * tensor.shape[3] == 1:
        raise UserError(f'{_described(shape)} has a single cell')
    return tensor


def _are_channels_last(shape: Sequence[int], traced: Trace) -> bool:
    first, last = _fits(traced.size, shape[2:]), _fits(traced.size, shape[1:3])
    if first and last and traced.may_be_last:
        grids = _candidates(traced)
        first, last = tuple(shape[2:]) in grids, tuple(shape[1:3]) in grids
        if first == last:
            raise UserError(f'{_described(shape)} may have channels first or last')
    if not first and not last and not _resembles(traced.size, shape[2:]):
        raise UserError(f'{_described(shape)} fits no grid of the image')
    return last and not first


def _described(shape: Sequence[int]) -> str:
    return f'its output {" x ".join(map(str, shape))}'


def check_layer(name: str, traced: Trace) -> bool:
    """Check that the output of a layer is a map that :func:`as_maps` accepts.

    Returns:
        Whether channels are the last dimension of the output.

    Raises:
        UserError: If the layer does not run, runs several times, or returns something else.
    """
    shapes = [shape for layer, shape in traced.outputs if layer == name]
    advice = 'choose another with --target-layers (docs/analysis.md)'
    if len(shapes) != 1:
        times = f'runs {len(shapes)} times' if shapes else 'does not run by itself'
        raise UserError(f'layer {name} {times} for an image, so it has no single map: {advice}')
    (shape,) = shapes
    if shape is None:
        raise UserError(f'layer {name} returns several tensors, not one map: {advice}, such as a layer inside it')
    if shape[0] != traced.batch:
        raise UserError(f'layer {name} cannot be explained, {_described(shape)} is per window or region: {advice}')
    try:
        maps = as_maps(torch.empty(shape, device='meta'), traced)
    except UserError as error:
        raise UserError(f'layer {name} cannot be explained, {error}: {advice}') from None
    return maps.shape != shape


def last_map(network: nn.Module, traced: Trace) -> str:
    """Name of the last layer of the backbone whose output is a map of more than one cell, the usual choice.

    Args:
        network: A network, or a model with a ``backbone``.
        traced: Its trace.

    Raises:
        UserError: If no layer outputs such a map, or the backbone continues with tokens. The user must then name a
            layer.
    """
    prefix = 'backbone.' if hasattr(network, 'backbone') else ''
    for name, shape in reversed(traced.outputs):
        if shape is None or not name.startswith(prefix):
            continue
        if len(shape) == 3 and shape[1] > 1:
            break
        if len(shape) == 4 and shape[2] > 1 and shape[3] > 1:
            return name
    raise UserError(
        'the backbone does not end with a feature map: name a layer with --target-layers (docs/analysis.md)'
    )


def get_layer(network: nn.Module, name: str) -> nn.Module:
    """A layer by name.

    Raises:
        UserError: If the network has no layer of that name.
    """
    try:
        return network.get_submodule(name)
    except AttributeError:
        some = ', '.join(child for child, _ in network.named_children())
        raise UserError(f'the network has no layer {name!r}: its top-level layers are {some}') from None
