"""Pictures of the statistics: counts by class, and histograms of sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mogacore.files import write_figure

from .collect import LARGE, SMALL, Arrays

MAX_BARS = 60  # the most frequent classes; more would not be legible
BINS = 40


def draw(out_dir: Path, name: str, report: dict, arrays: Arrays) -> None:
    """Write ``SPLIT_classes.png`` and ``SPLIT_sizes.png``, as far as the split has classes and sizes."""
    stem = name.replace(', ', '-')
    rows = report.get('classes') or report.get('keypoints') or []
    if rows:
        _draw_classes(out_dir / f'{stem}_classes.png', name, rows)
    if any(len(values) for values in arrays.values()):
        _draw_sizes(out_dir / f'{stem}_sizes.png', name, report, arrays)


def _draw_classes(path: Path, name: str, rows: list[dict]) -> None:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    unit = next(key for key in ('objects', 'pixels', 'images', 'labeled') if key in rows[0])
    shown = sorted(rows, key=lambda row: -row[unit])[:MAX_BARS]
    figure = Figure(figsize=(6, 1.2 + 0.22 * len(shown)), layout='constrained')
    axis = figure.subplots()
    axis.barh(range(len(shown)), [row[unit] for row in shown])
    axis.set_yticks(range(len(shown)), [str(row['name']) for row in shown], parse_math=False)
    axis.invert_yaxis()
    more = f', {len(shown)} of {len(rows)}' if len(shown) < len(rows) else ''
    kind = 'keypoint' if unit == 'labeled' else 'class'
    axis.set(title=f'{name}: {unit} by {kind}{more}', xlabel=unit)
    axis.grid(axis='x', alpha=0.3)
    axis.margins(y=0.01)
    axis.xaxis.set_major_locator(MaxNLocator('auto', integer=True))
    write_figure(path, figure, dpi=100)


def _draw_sizes(path: Path, name: str, report: dict, arrays: Arrays) -> None:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    panels = []
    if len(arrays.get('width', ())):
        panels.append(('image sizes', 'width and height (px)', {key: arrays[key] for key in ('width', 'height')}))
        panels.append(('image aspect ratios', 'width / height', {'': arrays['width'] / arrays['height']}))
    if len(arrays.get('box_width', ())):
        width, height = arrays['box_width'], arrays['box_height']
        panels.append(('box sizes', 'square root of the area (px)', {'': np.sqrt(width * height)}))
        panels.append(('box aspect ratios', 'width / height', {'': width / height.clip(1e-6)}))
    per_image = report.get('objects_per_image') or report.get('classes_per_image')
    figure = Figure(figsize=(4.2 * (len(panels) + bool(per_image)), 3.2), layout='constrained')
    axes = figure.subplots(1, len(panels) + bool(per_image), squeeze=False)[0]
    for axis, (title, label, values) in zip(axes, panels, strict=False):
        is_ratio = 'ratio' in title
        pooled = np.concatenate([*values.values()])
        pooled = pooled[pooled > 0]
        low, high = (pooled.min(), pooled.max()) if len(pooled) else (1, 1)
        is_wide = high > 4 * low
        bins = np.geomspace(low, high, BINS) if is_wide else np.linspace(0.9 * low, 1.1 * high, BINS)
        for key, one in values.items():
            axis.hist(one, bins, alpha=0.6, label=key)
        if is_wide:
            axis.set_xscale('log')
        if title == 'box sizes':
            for limit in (SMALL, LARGE):
                axis.axvline(limit**0.5, color='gray', linestyle=':')
        if len(values) > 1:
            axis.legend(fontsize=8)
        axis.set(title=title, xlabel=label, ylabel='' if is_ratio else 'number')
        axis.grid(alpha=0.3)
        axis.yaxis.set_major_locator(MaxNLocator('auto', integer=True))
    if per_image:
        unit = 'objects' if 'objects_per_image' in report else 'classes'
        axes[-1].bar([int(number) for number in per_image], list(per_image.values()))
        axes[-1].set(title=f'{unit} per image', xlabel=unit, ylabel='images')
        axes[-1].grid(axis='y', alpha=0.3)
        for counts in (axes[-1].xaxis, axes[-1].yaxis):
            counts.set_major_locator(MaxNLocator('auto', integer=True))
    figure.suptitle(name)
    write_figure(path, figure, dpi=80)
