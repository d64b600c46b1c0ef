"""How the time of a network grows with the size and the number of images."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mogacore.engine.devices import choose_device, describe_machine
from mogacore.files import write_figure

from .throughput import DTYPES, measure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def measure_growth(
    name: str,
    backend: str = 'eager',
    sizes: Sequence[int] = (112, 224, 336, 448),
    batch_sizes: Sequence[int] = (1, 2, 4, 8),
    size: int = 224,
    batch_size: int = 1,
    mode: str = 'infer',
    rounds: int = 11,
    device: str = 'cpu',
    dtype: torch.dtype = torch.float32,
    progress: Callable[[str], None] = lambda text: None,
) -> dict:
    """Measure how time grows with the pixels of an image and with the images of a batch.

    Args:
        name, backend, mode, rounds, device, dtype, progress: See :func:`measure`.
        sizes: Heights of square images, measured in batches of ``batch_size``.
        batch_sizes: Batch sizes, measured with images of height ``size``.
        size, batch_size: The constants of the two series.

    Returns:
        ``pixels`` and ``batch``, lists of dicts with ``size``, ``batch_size``, ``pixels`` (of the whole batch), ``ms``
        (median) and ``quartiles``. A case of both series is measured once.
    """
    series = {
        'pixels': [(height, batch_size) for height in sizes],
        'batch': [(size, images) for images in batch_sizes],
    }
    rows: dict[tuple[int, int], dict] = {}
    for height, images in dict.fromkeys([*series['pixels'], *series['batch']]):
        (result,) = measure([(name, backend)], (3, height, height), images, mode, rounds, device, dtype, progress)
        milliseconds = [1e3 * seconds for seconds in result.seconds]
        quartiles = statistics.quantiles(milliseconds, n=4) if rounds > 1 else milliseconds * 3
        rows[height, images] = {
            'size': height,
            'batch_size': images,
            'pixels': height * height * images,
            'ms': statistics.median(milliseconds),
            'quartiles': [quartiles[0], quartiles[2]],
        }
    return {key: [rows[case] for case in cases] for key, cases in series.items()}


def draw_growth(report: dict, path: str | Path) -> None:
    """Draw time over pixels, see :func:`growth_figure`, to a PNG file."""
    write_figure(path, growth_figure(report), dpi=120)


def growth_figure(report: dict) -> Figure:
    """Time over pixels for both series, each with the line from the origin to its largest case.

    Args:
        report: ``growth`` from :func:`measure_growth`, ``mode``, ``machine``, ``network`` and ``backend``.
    """
    from matplotlib.figure import Figure

    series = {key: rows for key, rows in report['growth'].items() if rows}
    figure = Figure(figsize=(4.5 * len(series), 3.6), layout='constrained')
    for axis, (key, rows) in zip(figure.subplots(1, len(series), squeeze=False)[0], series.items(), strict=True):
        pixels, times = [row['pixels'] / 1e6 for row in rows], [row['ms'] for row in rows]
        low, high = zip(*(row['quartiles'] for row in rows), strict=True)
        spreads = [
            [max(time - edge, 0) for time, edge in zip(times, low, strict=True)],
            [max(edge - time, 0) for time, edge in zip(times, high, strict=True)],
        ]
        axis.plot([0, pixels[-1]], [0, times[-1]], color='gray', linewidth=0.8, label='proportional to the last')
        label = 'median, quartiles' if low != high else 'median'
        axis.errorbar(pixels, times, yerr=spreads, marker='o', color='#4477aa', capsize=3, label=label)
        right, top = 1.1 * max(pixels), 1.15 * max(*high, *times)
        for row, x, y in zip(rows, pixels, times, strict=True):
            # Below the point on the left, above it on the right, where the frame leaves room.
            offset, side = ((6, -12), 'left') if x < right / 2 else ((-6, 5), 'right')
            text = f'{row["batch_size"]} x {row["size"]} px'
            behind = dict(facecolor='white', edgecolor='none', pad=0.5)  # hides the gray line
            axis.annotate(text, (x, y), offset, textcoords='offset points', ha=side, fontsize=8, bbox=behind)
        titles = {
            'pixels': f'larger images, {rows[0]["batch_size"]} per batch',
            'batch': f'more images, of {rows[0]["size"]} px',
        }
        axis.set(title=titles[key], xlabel='megapixels per batch')
        axis.set(ylabel='ms per batch', xlim=(0, right), ylim=(0, top))
        axis.locator_params(axis='x', nbins=6)
        axis.legend(loc='upper left', fontsize=8)
    figure.suptitle(f'{report["network"]} ({report["backend"]}), {report["mode"]}; {report["machine"]}', fontsize=9)
    return figure


def benchmark(
    networks: list[tuple[str, str]],
    shape: tuple[int, ...],
    batch_size: int,
    sizes: Sequence[int] = (),
    batch_sizes: Sequence[int] = (),
    device: str | None = None,
    dtype: str = 'fp32',
    **settings,
) -> dict:
    """Measure networks side by side, or, given ``sizes`` or ``batch_sizes``, how the cost of the first one grows.

    Args:
        networks, shape, batch_size: See :func:`measure`.
        sizes, batch_sizes: See :func:`measure_growth`.
        device: torch device; None is a GPU if available.
        dtype: A key of ``DTYPES``.
        **settings: ``mode``, ``rounds`` and ``progress`` of :func:`measure`.

    Returns:
        A report that is serializable as JSON: machine and settings, and either ``measurements``, a list of
        :meth:`Measurement.summary`, or ``growth``, the result of :func:`measure_growth`.
    """
    device = choose_device(device)
    report = {
        'machine': describe_machine(device),
        'device': torch.device(device).type,
        'mode': settings['mode'],
        'dtype': dtype,
    }
    report['rounds'] = settings['rounds']
    settings |= dict(device=device, dtype=DTYPES[dtype])
    if sizes or batch_sizes:
        name, backend = networks[0]
        growth = measure_growth(name, backend, sizes, batch_sizes, shape[1], batch_size, **settings)
        return report | {'network': name, 'backend': backend, 'growth': growth}
    found = measure(networks, shape, batch_size, **settings)
    report |= {'shape': list(shape), 'batch_size': batch_size}
    return report | {'measurements': [measurement.summary(batch_size) for measurement in found]}
