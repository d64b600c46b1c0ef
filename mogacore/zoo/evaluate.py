"""Test published weight files, each with the config, gate function and set of weights of its published figures."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from mogacore.checkpoint import read, weight_sets
from mogacore.engine.config import load_config
from mogacore.engine.runner import test
from mogacore.errors import UserError
from mogacore.files import sha256, write_json
from mogacore.published import Result

from .reproduce import OUR_METRICS, cfg_options, published_test


@dataclass(frozen=True)
class Trial:
    """The test of one weight file.

    Args:
        result: Published result of the weight file.
        config: Config file.
        checkpoint: The weight file.
        ema: Weights to load, see :func:`mogacore.checkpoint.load`.
        options: Settings that override the config.
        container: Description of the kind of file.
    """

    result: Result
    config: Path
    checkpoint: Path
    ema: bool | None
    options: dict
    container: str


def trials(folder: Path, results: Iterable[Result], configs: Path) -> list[Trial]:
    """A trial for each result whose weight file is in ``folder`` under its published name.

    Raises:
        UserError: If a file is damaged or not a weight file.
    """
    found = []
    for result in results:
        checkpoint = folder / result.weights_file
        if not result.weights or not result.config or not checkpoint.is_file():
            continue
        config = configs / result.config
        sets = weight_sets(read(checkpoint, mmap=True))
        ema = sets.choose_published(result.weight_set).is_ema if sets.other is not None else None
        found.append(Trial(result, config, checkpoint, ema, cfg_options(result, load_config(config)), sets.kind))
    return found


def evaluate_folder(
    folder: Path,
    results: Iterable[Result],
    configs: Path,
    work_dirs: Path,
    options: dict,
    log: Callable[[str], None],
) -> int:
    """Test every published weight file in a folder and write its metrics where the tables read them.

    Args:
        folder: Folder of weight files, under their published names.
        results: Results to test.
        configs: Folder of the configs.
        work_dirs: Folder in which to write ``published/ID.json``; a result that has one for the same file is skipped.
        options: Settings that override every config.
        log: Called with one line of text about each file.

    Returns:
        Exit code: 0, or 1 if a file could not be tested.

    Raises:
        UserError: If the folder does not exist or has no published weight file.
    """
    if not folder.is_dir():
        raise UserError(f'folder {folder} does not exist: give a folder of published weight files')
    results = list(results)
    names = {result.weights_file for result in results}
    if not any((folder / name).is_file() for name in names if name):
        raise UserError(f'{folder} has no published weight file: tools/weights.py lists the file names')
    failed = 0
    for result in results:
        try:
            for trial in trials(folder, [result], configs):
                _evaluate(trial, work_dirs, options, log)
        except UserError as error:
            failed += 1
            log(f'{result.id} {result.weights_file}: not tested: {error}')
    for path in sorted(folder.glob('*.pth*')):
        if path.name not in names and path.suffix in ('.pth', '.tar'):
            log(f'{path.name}: not a published file of these rows')
    return 1 if failed else 0


def _evaluate(trial: Trial, work_dirs: Path, options: dict, log: Callable[[str], None]) -> None:
    result, out = trial.result, published_test(trial.result, work_dirs)
    digest = sha256(trial.checkpoint)
    if out.exists() and json.loads(out.read_text()).get('sha256') == digest:
        log(f'{result.id} {trial.checkpoint.name}: already tested, see {out}')
        return
    chosen = {None: 'the only weights', True: 'EMA weights', False: 'raw weights'}[trial.ema]
    gate = f', {result.gate} gate' if result.gate else ''
    log(f'{result.id} {trial.checkpoint.name} ({trial.container}): {chosen}{gate}, {trial.config.name}')
    metrics = test(
        str(trial.config),
        str(trial.checkpoint),
        work_dir=str(out.parent / result.id),
        cfg_options={**trial.options, 'load_ema': trial.ema, **options},
    )
    report: dict = {'result': result.id, 'config': trial.config.name, 'checkpoint': str(trial.checkpoint)}
    report |= {'sha256': digest, 'ema': trial.ema, 'options': trial.options, 'metrics': metrics}
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, report, default=float)
    for name, value in result.metrics.items():
        key, factor = OUR_METRICS.get(name, (None, 1))
        if key in metrics:
            log(f'    {name} {factor * float(metrics[key]):.4g}, published {value}')
