"""Effective receptive fields, and the share of each order in the multi-order convolutions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mogacore.analysis.classifiers import ModelSpec, open_classifiers
from mogacore.analysis.maps import Trace, as_maps, check_layer, get_layer, last_map, trace
from mogacore.errors import UserError, accepting
from mogacore.files import make_folder, write_figure, write_json
from mogacore.models.layers import MultiOrderDWConv

SHARES = (0.2, 0.5, 0.95)
ORDERS = ('low', 'middle', 'high')


def receptive_field(
    forward: Callable[[Tensor], object], layer: nn.Module, images: Tensor, traced: Trace | None = None
) -> tuple[np.ndarray, tuple[float, float]]:
    """Effective receptive field of the central cell of a layer.

    This is the absolute gradient, with respect to each pixel, of the cell's sum over channels, summed over color
    channels and averaged over images.

    Args:
        forward: Runs the network, in eval mode, on images.
        layer: A layer whose output is a map, see :func:`mogacore.analysis.maps.as_maps`.
        images: (B, C, H, W).
        traced: Trace of the network for these images, from which the grid of tokens is known; None for a layer with
            maps, or with tokens of the image only.

    Returns:
        The field (H, W), normalized to sum 1, and the center of the cell (row, column), in pixels: of the two
        alignments of cells and pixels, the one with half of the field in the smaller square around it.

    Raises:
        UserError: If the layer does not depend on the images.

    Source: Luo et al., arXiv 1701.04128.
    """
    maps: list[Tensor] = []
    known = traced or Trace((images.shape[2], images.shape[3]), len(images), prefix=0)
    handle = layer.register_forward_hook(lambda module, args, out: maps.append(as_maps(out, known)))
    images = images.detach().clone().requires_grad_()
    try:
        with torch.enable_grad():
            forward(images)
    finally:
        handle.remove()
    height, width = maps[0].shape[2:]
    row, column = height // 2, width // 2
    (gradient,) = torch.autograd.grad(maps[0][:, :, row, column].sum(), images)
    found = gradient.abs().sum(1).double().mean(0)
    if found.sum() == 0:
        raise UserError('the central cell of the layer does not depend on the image: choose another layer')
    field = (found / found.sum()).cpu().numpy()
    step = images.shape[2] / height, images.shape[3] / width
    # Cells of patches lie side by side; those of strided convolutions with odd kernels start at the first pixel.
    patch = (row + 0.5) * step[0] - 0.5, (column + 0.5) * step[1] - 0.5
    return field, min(patch, (row * step[0], column * step[1]), key=lambda center: side_holding(field, center, 0.5))


def side_holding(field: np.ndarray, center: tuple[float, float], share: float) -> float:
    """Side of the smallest square around ``center`` that holds ``share`` of a field, in pixels.

    Args:
        field: (H, W), not negative.
        center: Row and column in pixels; 0 is the center of the first pixel.
        share: Fraction of the field's sum, in [0, 1].
    """
    rows, columns = np.indices(field.shape)
    reach = np.maximum(abs(rows - center[0]), abs(columns - center[1])).ravel()
    order = reach.argsort(kind='stable')
    held = field.ravel()[order].cumsum() / field.sum()
    return 2 * float(reach[order][np.searchsorted(held, min(share, held[-1]))]) + 1


def order_spectra(network: nn.Module, forward: Callable[[Tensor], object], images: Tensor) -> list[dict]:
    """Contribution of each order to the output of each multi-order convolution.

    The 1x1 convolution that mixes the orders is linear, so its output is a sum of three maps, one per order. The energy
    of a map is its sum of squares about the mean of each channel over images and positions. Its frequency is the
    power-weighted mean radius of the Fourier spectrum of each image, without the zero frequency.

    Args:
        network: Contains :class:`mogacore.models.layers.MultiOrderDWConv` layers.
        forward: Runs the network, in eval mode, on images.
        images: (B, C, H, W).

    Returns:
        One dict per convolution, by depth: ``layer``; ``share`` of each order in the total energy, low to high;
        ``frequency`` of each order in cycles per cell of the map, None if a map is constant.

    Raises:
        UserError: If the network has no multi-order convolution.
    """
    layers = {name: module for name, module in network.named_modules() if isinstance(module, MultiOrderDWConv)}
    if not layers:
        raise UserError('the network has no multi-order convolutions: choose a MogaNet')
    found: list[dict] = []

    def record(name: str, module: MultiOrderDWConv) -> Callable:
        def hook(mix: nn.Conv2d, args: tuple) -> None:
            parts = args[0].split(module.split_dims, dim=1)
            weights = mix.weight.split(module.split_dims, dim=1)
            maps = [F.conv2d(part, weight).double() for part, weight in zip(parts, weights, strict=True)]
            energies = [(x - x.mean((0, 2, 3), keepdim=True)).square().sum().item() for x in maps]
            total = sum(energies) or 1.0
            frequencies = [mean_frequency(x) for x in maps]
            found.append({'layer': name, 'share': [e / total for e in energies], 'frequency': frequencies})

        return hook

    handles = [module.PW_conv.register_forward_pre_hook(record(name, module)) for name, module in layers.items()]
    try:
        with torch.no_grad():
            forward(images)
    finally:
        for handle in handles:
            handle.remove()
    return found


def mean_frequency(maps: Tensor) -> float | None:
    """Power-weighted mean radial frequency of maps (B, C, H, W), in cycles per cell; None if all are constant."""
    power = torch.fft.fft2(maps).abs().square().sum((0, 1))
    power[0, 0] = 0
    rows, columns = (torch.fft.fftfreq(size, dtype=power.dtype, device=power.device) for size in power.shape)
    total = power.sum().item()
    return (power * torch.hypot(rows[:, None], columns[None])).sum().item() / total if total > 0 else None


def run(
    specs: list[ModelSpec],
    out_dir: str | Path,
    data: str | None = None,
    num_images: int = 16,
    size: int | None = None,
    layer: str | None = None,
    device: str | None = None,
) -> dict:
    """Measure models; write ``receptive_field.png`` and ``.json``, and ``orders.png`` for multi-order convolutions.

    Args:
        specs: The models.
        out_dir: Output folder, created if missing.
        data: See :func:`mogacore.analysis.classifiers.open_classifiers`.
        num_images: Number of test images, evenly spaced over the data set.
        size: Height to which the square images are resized; None is no resizing.
        layer: Name of a layer of all models; None is the last map of each backbone.
        device: torch device; None is a GPU if available.

    Returns:
        The content of ``receptive_field.json``.

    Raises:
        UserError: If an argument is invalid, or a file is missing or invalid.
    """
    if num_images < 1 or (size is not None and size < 1):
        raise UserError(f'{num_images} images of size {size} are invalid: give numbers of at least 1')
    report: dict = {'models': {}}
    fields = {}
    for classifier in open_classifiers(specs, data, 'test', device):
        chosen = np.unique(np.linspace(0, len(classifier.images) - 1, num_images).round().astype(int))
        images = torch.cat([classifier.images[int(index)][0] for index in chosen])
        if size is not None:
            images = F.interpolate(images, size=(size, size), mode='bilinear', antialias=True)
        with accepting(classifier.spec.name, images.shape[1:]):
            traced = trace(classifier.network, lambda: classifier(images), images)  # noqa: B023
        name = layer or last_map(classifier.network, traced)
        module = get_layer(classifier.network, name)
        check_layer(name, traced)
        field, center = receptive_field(classifier, module, images, traced)
        label = classifier.spec.label
        fields[label] = field, center
        model = {'name': classifier.spec.name, 'layer': name, 'size': list(images.shape[2:]), 'images': len(images)}
        model['side'] = {f'{share:g}': side_holding(field, center, share) for share in SHARES}
        if any(isinstance(module, MultiOrderDWConv) for module in classifier.network.modules()):
            model['orders'] = order_spectra(classifier.network, classifier, images)
        report['models'][label] = model
    out_dir = make_folder(out_dir)
    write_json(out_dir / 'receptive_field.json', report)
    draw_fields(fields, report, out_dir / 'receptive_field.png')
    if spectra := {label: model['orders'] for label, model in report['models'].items() if 'orders' in model}:
        draw_orders(spectra, out_dir / 'orders.png')
    return report


def draw_fields(fields: dict[str, tuple[np.ndarray, tuple[float, float]]], report: dict, path: str | Path) -> None:
    """Draw the fields on a logarithmic scale of four decades, one panel per model, with the squares of ``SHARES``.

    Args:
        fields: Results of :func:`receptive_field` by label.
        report: Result of :func:`run`.
        path: Image file to write.
    """
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    figure = Figure(figsize=(3 * len(fields) + 1, 3.6), layout='constrained')
    axes = figure.subplots(1, len(fields), squeeze=False)[0]
    for axis, (label, (field, (row, column))) in zip(axes, fields.items(), strict=True):
        model = report['models'][label]
        image = axis.imshow(field / field.max() + 1e-12, norm=LogNorm(1e-4, 1), cmap='magma')
        sides = ', '.join(f'{float(share):.0%}: {side:g} px' for share, side in model['side'].items())
        for side, style in zip(model['side'].values(), ('-', '--', ':'), strict=True):
            corner = column - side / 2, row - side / 2
            axis.add_patch(Rectangle(corner, side, side, fill=False, color='cyan', linestyle=style, linewidth=1.2))
        axis.set_title(f'{label}, {model["layer"]}\n{sides}', fontsize=8, parse_math=False)
        axis.axis('off')
    figure.colorbar(image, ax=list(axes), label='gradient relative to its maximum', shrink=0.8)
    write_figure(path, figure, dpi=100)


def draw_orders(spectra: dict[str, Sequence[dict]], path: str | Path) -> None:
    """Draw the share and the frequency of each order over depth, one row per model."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.2 * len(spectra)), layout='constrained')
    for (shares, frequencies), (label, layers) in zip(
        figure.subplots(len(spectra), 2, squeeze=False), spectra.items(), strict=True
    ):
        positions = np.arange(1, len(layers) + 1)
        below = np.zeros(len(layers))
        for number, (order, color) in enumerate(zip(ORDERS, ('#ccbb44', '#4477aa', '#cc6677'), strict=True)):
            values = np.array([layer['share'][number] for layer in layers])
            shares.bar(positions, values, bottom=below, color=color, label=order)
            below += values
            heights = [math.nan if (f := layer['frequency'][number]) is None else f for layer in layers]
            frequencies.plot(positions, heights, marker='.', color=color, label=order)
        stages = [layer['layer'].split('blocks')[-1].split('.')[0] for layer in layers]
        for axis in (shares, frequencies):
            for position in positions[1:]:
                if stages[position - 1] != stages[position - 2]:
                    axis.axvline(position - 0.5, color='black', linewidth=0.8)
            axis.set(xlabel='block; lines separate the stages', xlim=(0.5, len(layers) + 0.5), ylim=(0, None))
        shares.set(title=label, ylabel='share of energy', ylim=(0, 1))
        frequencies.set(title=label, ylabel='mean frequency, cycles per cell')
        frequencies.legend(loc='upper left', fontsize=8)
    write_figure(path, figure, dpi=100)
