"""The report of a run: the results of all images as JSON, NumPy archive and figure."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mogacore.errors import UserError
from mogacore.files import write_figure, write_json, write_npz

from .scores import bootstrap_error, strength
from .settings import Settings


def write_report(
    folder: Path, settings: Settings, found: dict[str, np.ndarray], models: dict[str, dict], facts: dict
) -> dict:
    """Combine the results of all images; write ``interactions.json``, ``.npz`` and ``.png``.

    Args:
        folder: Existing output folder.
        settings: Settings of the measurement.
        found: Interactions of each model by label, (images, orders, pairs).
        models: Description of each model by label, copied to the report.
        facts: Description of the run, copied to the report as ``settings``.

    Returns:
        ``settings``, ``orders``, ``ratios`` (order over largest order), and for each model, by order: ``strength``, its
        standard error ``strength_error``, and ``magnitude``, the mean absolute interaction.

    Raises:
        UserError: If all interactions of a model are 0, which leaves its strength undefined.
    """
    orders = settings.orders
    report: dict = {'settings': facts, 'orders': orders, 'models': {}}
    report['ratios'] = [order / (settings.players - 2) for order in orders]
    arrays = {'orders': np.array(orders), 'ratios': np.array(report['ratios'])}
    for label, pairs in found.items():
        magnitudes = np.abs(pairs).mean(axis=-1)
        if not magnitudes.any():
            raise UserError(
                f'all interactions of {label} are 0, so their strength is undefined: its output does not depend on the '
                'images, check its weights'
            )
        numbers = {
            'strength': strength(magnitudes),
            'strength_error': bootstrap_error(magnitudes),
            'magnitude': magnitudes.mean(axis=0),
        }
        arrays |= {f'{label}/interactions': pairs, f'{label}/magnitudes': magnitudes}
        arrays |= {f'{label}/{name}': values for name, values in numbers.items()}
        report['models'][label] = models[label] | {name: values.tolist() for name, values in numbers.items()}
    write_npz(folder / 'interactions.npz', arrays)
    write_json(folder / 'interactions.json', report)
    draw(report, folder / 'interactions.png')
    return report


def draw(found: dict, path: str | Path) -> None:
    """Draw strength and magnitude over order, one line per model; the band is one standard error of the strength.

    Args:
        found: The report of :func:`write_report`.
        path: PNG file to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout='constrained')
    left, right = figure.subplots(1, 2)
    ratios = np.array(found['ratios'])
    for label, model in found['models'].items():
        values, errors = np.array(model['strength']), np.array(model['strength_error'])
        (line,) = left.plot(ratios, values, marker='.', label=label)
        left.fill_between(ratios, values - errors, values + errors, color=line.get_color(), alpha=0.2, linewidth=0)
        right.plot(ratios, model['magnitude'], marker='.', color=line.get_color(), label=label)
    settings = found['settings']
    left.set_ylabel('Interaction Strength')
    right.set_ylabel(f'mean |I|, {settings["score"]}')
    for axis in (left, right):
        ticks = np.linspace(0, 1, 6)
        axis.set_xticks(ticks, [f'{tick:.1f}n' for tick in ticks])
        axis.set(xlabel='Order', ylim=(0, None))
        axis.grid(alpha=0.3)
    left.legend()
    figure.suptitle(
        f'{settings["images"]} images, {settings["pairs"]} pairs per image, {settings["contexts"]} contexts per pair '
        f'and order, {settings["grid"]} x {settings["grid"]} cells',
        fontsize=9,
    )
    write_figure(path, figure, dpi=110)
