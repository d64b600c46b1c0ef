"""Writing a smaller file, and what it changes: size, latency and accuracy, before and after."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mogacore.errors import UserError
from mogacore.files import copy_atomic, writable_folder
from mogacore.runtime.backends import Backend, open_backend

from .accuracy import evaluate_files
from .calibration import find_images, read_feeds
from .export import Exported, export
from .quantize import SUFFIXES, check_precision, convert, has_int8_instructions
from .source import Source

ROUNDS = 15
FASTER = 0.95  # int8 that takes more of the time of fp32 is not worth its loss


def export_smaller(
    source: Source,
    paths: Sequence[str | Path],
    settings: tuple,
    precision: str,
    calibration: str | Path | None = None,
    reduce_range: bool | None = None,
    config: str | None = None,
    cfg_options: dict | None = None,
    num_images: int | None = None,
    log: Callable[[str], None] = print,
    progress: Callable[[str], None] = lambda text: None,
) -> tuple[list[Exported], list[dict]]:
    """Export a network in fp16 or int8, and compare the files with those in fp32, which are not kept.

    Args:
        source: See :func:`mogacore.deploy.export.export`.
        paths: ``.onnx`` or ``.xml`` files.
        settings: Further arguments of ``export``.
        precision, reduce_range: See :func:`mogacore.deploy.quantize.convert`.
        calibration: For int8: folder of images, see :func:`mogacore.deploy.calibration.find_images`.
        config: The config, for its test set; None to measure no accuracy.
        cfg_options: Settings that override the config's.
        num_images: Number of test images for the accuracy; None for all.
        log: Called with lines about what is skipped.
        progress: Called with a description of each step.

    Returns:
        What was written, and a report per file: that of :func:`compare` with ``path``; ``accuracy``, metric to
        [before, after], and ``num_images``; or ``no_accuracy``, the reason why there is none.

    Raises:
        UserError: See the functions above. Then no file is written.
    """
    images = _calibration_images(source, calibration) if precision == 'int8' else []
    targets = [Path(path) for path in paths]
    for target in targets:
        check_precision(target, precision)
        writable_folder(target.parent)
    reports = []
    with tempfile.TemporaryDirectory(prefix='mogacore-export-') as name:
        folder = Path(name)
        full = [folder / f'fp32-{number}{target.suffix}' for number, target in enumerate(targets)]
        progress('exporting in fp32')
        try:
            files = export(source, full, *settings)
        except UserError as error:  # that names a file which the user has not given
            text = str(error)
            for draft, target in zip(full, targets, strict=True):
                text = text.replace(str(draft), str(target))
            raise UserError(text) from error
        feeds = read_feeds(full[0], images, log) if images else []
        drafts = [folder / f'smaller-{number}{target.suffix}' for number, target in enumerate(targets)]
        for before, after, target in zip(full, drafts, targets, strict=True):
            progress(f'converting {target} to {precision}' + (f' with {len(feeds)} images' if feeds else ''))
            convert(before, after, precision, feeds, reduce_range)
            progress(f'timing {target}')
            report: dict[str, Any] = {
                'path': str(target),
                **compare(before, after, feeds[0] if feeds else _example(before)),
            }
            reports.append(report | _accuracy(before, after, config, cfg_options, num_images, progress))
        written = dict(zip(drafts, targets, strict=True))
        for after, target in zip(drafts, targets, strict=True):
            if target.suffix == '.xml':
                written[after.with_suffix('.bin')] = target.with_suffix('.bin')
        copy_atomic(written)
    for done, target in zip(files, targets, strict=True):
        done.path = target
    return files, reports


def _calibration_images(source: Source, folder: str | Path | None) -> list[Path]:
    """The images for int8; what has none is refused before the network is exported."""
    if len(source.shape) != 3:
        raise UserError('a video predictor has no int8 form, since its inputs are not images: use fp16')
    if source.raw or source.features:
        raise UserError('--raw and --features have no int8 form: use fp16, or omit them')
    if folder is None:
        raise UserError('int8 needs images to find the range of each map: give --calibration FOLDER of at least one')
    return find_images(folder)


def _accuracy(
    before: Path,
    after: Path,
    config: str | None,
    cfg_options: dict | None,
    num_images: int | None,
    progress: Callable[[str], None],
) -> dict[str, Any]:
    if config is None:
        return {'no_accuracy': 'accuracy: not measured'}
    try:
        found, count = evaluate_files([before, after], config, cfg_options, num_images, log=progress)
    except UserError as error:
        return {'no_accuracy': f'accuracy: not measured, since {error}'}
    return {'accuracy': {key: [float(one[key]) for one in found] for key in found[0]}, 'num_images': count}


def _example(path: Path) -> dict[str, np.ndarray]:
    """Random inputs of an exported file, of the size of its example."""
    backend = open_backend(path)
    facts = backend.metadata['input']
    (name, shape), *others = backend.inputs.items()
    sizes = [own or 1 for own in shape[:-2]]
    values = np.random.default_rng(0).integers(0, 256, (*sizes, *facts['size'])).astype(facts['dtype'])
    return {name: values, **{other: np.array(facts['size'], np.int64) for other, _ in others}}


def file_size(path: str | Path) -> int:
    """Bytes of an exported file, with the weights beside an ``.xml`` file."""
    path = Path(path)
    weights = path.with_suffix('.bin')
    return path.stat().st_size + (weights.stat().st_size if path.suffix == '.xml' else 0)


def alternate(runs: Sequence[Callable[[], object]], rounds: int = ROUNDS) -> list[float]:
    """Median seconds of each function; they run in turn, so that a busy machine slows all of them."""
    for run in runs:
        run()
    seconds: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for run, times in zip(runs, seconds, strict=True):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
    return [statistics.median(times) for times in seconds]


def compare(
    before: str | Path, after: str | Path, inputs: Mapping[str, np.ndarray], threads: int | None = None
) -> dict:
    """Size and latency of two files of one model.

    Args:
        before, after: Exported files.
        inputs: Inputs by name, for the latency.
        threads: CPU threads; None for the default of the backend.

    Returns:
        JSON value: ``precision``, ``size`` in bytes and ``latency_ms``, each [before, after]; ``shape`` of the first
        input; ``advice``, '' if there is none.
    """
    backends: list[Backend] = [open_backend(path, threads=threads) for path in (before, after)]
    seconds = alternate([partial(backend.run, dict(inputs)) for backend in backends])
    precision = [backend.metadata.get('precision', 'fp32') for backend in backends]
    return {
        'precision': precision,
        'size': [file_size(before), file_size(after)],
        'latency_ms': [round(1e3 * value, 3) for value in seconds],
        'shape': list(next(iter(inputs.values())).shape),
        'advice': _advice(precision[1], seconds),
    }


def _advice(precision: str, seconds: Sequence[float]) -> str:
    if precision != 'int8' or seconds[1] < FASTER * seconds[0]:
        return ''
    reason = 'this machine' if has_int8_instructions() else 'this CPU, which has no 8-bit dot products (VNNI)'
    return (
        f'int8 takes {seconds[1] / seconds[0]:.2f} times as long as fp32 on {reason}: use fp16, another format '
        f'({" or ".join(SUFFIXES)}), or int8 only for its size; other CPUs may differ'
    )


def describe(report: Mapping) -> list[str]:
    """The report as lines of text."""
    (old, new), (old_size, new_size), (old_ms, new_ms) = report['precision'], report['size'], report['latency_ms']
    lines = [
        f'size: {old} {old_size / 1e6:.2f} MB, {new} {new_size / 1e6:.2f} MB ({new_size / old_size:.0%})',
        f'latency for {" x ".join(map(str, report["shape"]))}: {old} {old_ms:.1f} ms, {new} {new_ms:.1f} ms',
    ]
    for name, (first, second) in report.get('accuracy', {}).items():
        lines.append(f'{name}: {old} {first:.4g}, {new} {second:.4g} ({report["num_images"]} test images)')
    return lines + [line for line in (report['advice'], report.get('no_accuracy', '')) if line]
