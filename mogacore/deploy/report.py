"""Writing a smaller file, and what it changes: size, latency and accuracy, before and after."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from mogacore.errors import UserError
from mogacore.files import writable_folder
from mogacore.locations import is_config_name
from mogacore.runtime.backends import Backend, open_backend

from .accuracy import evaluate_files
from .calibration import read_feeds
from .export import Exported, export
from .quantize import check_precision, convert, has_int8_instructions
from .source import Source

ROUNDS = 15


def export_smaller(
    source: Source,
    path: str | Path,
    precision: str,
    calibration: str | Path | None = None,
    reduce_range: bool | None = None,
    network: str = '',
    cfg_options: dict | None = None,
    num_images: int | None = None,
    log: Callable[[str], None] = print,
    **settings,
) -> tuple[Exported, dict]:
    """Export a network in fp16 or int8, and compare the file with that in fp32, which is not kept.

    Args:
        source: See :func:`mogacore.deploy.export.export`.
        path: ``.onnx`` or ``.xml``.
        precision, reduce_range: See :func:`mogacore.deploy.quantize.convert`.
        calibration: For int8: folder of images, see :func:`mogacore.deploy.calibration.read_feeds`.
        network: The config, for its test set; a network by name has none.
        cfg_options: Settings that override the config's.
        num_images: Number of test images for the accuracy; 0 for none, None for all.
        log: Called with lines about what is skipped.
        **settings: Further arguments of ``export``.

    Returns:
        What was written, and the report: that of :func:`compare` with ``accuracy``, metric to [before, after], and
        ``num_images``; or ``no_accuracy``, the reason why there is none.

    Raises:
        UserError: See the functions above.
    """
    path = Path(path)
    check_precision(path, precision)
    if precision == 'int8' and calibration is None:
        raise UserError('int8 needs images to find the range of each map: give --calibration FOLDER of at least one')
    with tempfile.TemporaryDirectory(dir=writable_folder(path.parent), prefix='.export-') as folder:
        draft, full = Path(folder) / path.name, Path(folder) / f'fp32{path.suffix}'
        done = export(source, full, **settings)
        feeds = read_feeds(full, calibration, log) if precision == 'int8' and calibration is not None else []
        convert(full, draft, precision, feeds, reduce_range)
        report = compare(full, draft, feeds[0] if feeds else _example(full))
        if num_images == 0 or source.raw or source.features or not is_config_name(network):
            report['no_accuracy'] = 'accuracy: not measured'
        else:
            try:
                found, report['num_images'] = evaluate_files([full, draft], network, cfg_options, num_images)
                report['accuracy'] = {name: [float(one[name]) for one in found] for name in found[0]}
            except UserError as error:
                report['no_accuracy'] = f'accuracy: not measured, {error}'
        for file in Path(folder).glob(f'{draft.stem}.*'):
            file.replace(path.parent / file.name)
    done.path = path
    return done, report


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
    seconds = alternate([lambda backend=backend: backend.run(dict(inputs)) for backend in backends])
    precision = [backend.metadata.get('precision', 'fp32') for backend in backends]
    return {
        'precision': precision,
        'size': [file_size(before), file_size(after)],
        'latency_ms': [round(1e3 * value, 3) for value in seconds],
        'shape': list(next(iter(inputs.values())).shape),
        'advice': _advice(precision[1], seconds),
    }


def _advice(precision: str, seconds: Sequence[float]) -> str:
    if precision != 'int8' or seconds[1] <= seconds[0]:
        return ''
    slower = f'int8 is {seconds[1] / seconds[0]:.1f} times as slow as fp32 on this machine'
    if not has_int8_instructions():
        return f'{slower}, whose CPU has no 8-bit dot products (VNNI): use fp16 here, int8 only where memory counts'
    return f'{slower}: use fp16, or measure on the machine that will run it'


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
