"""Compare backbones trained from scratch on a small data set, with the same data, schedule, optimizer and search.

Each network is trained with every learning rate on four fifths of the training set and scored on the remaining fifth.
With the best rate it is trained on the whole training set, once per seed, and tested once, at the end. The test set is
not used for any choice. Completed runs are not repeated, so a comparison can be interrupted and resumed.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import platform
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch.multiprocessing import _prctl_pr_set_pdeathsig  # type: ignore[attr-defined]  # missing in torch's stubs

from mogacore.analysis.complexity import complexity
from mogacore.engine.config import leaf_datasets, load_config, locate_data
from mogacore.engine.runner import train
from mogacore.errors import UserError
from mogacore.files import make_folder, writable_folder, write_figure, write_json, write_text
from mogacore.libraries import import_quietly
from mogacore.locations import project

RATES = (5e-4, 2e-3, 8e-3)
SEEDS = (0, 1, 2)
FOLDS = 5  # the search holds out one of them
METRIC = 'accuracy/top1'


@dataclass(frozen=True)
class Run:
    """One training of a comparison.

    Args:
        config: Config file.
        rate: Peak learning rate.
        seed: Random seed.
        epochs: Passes over the training set; the first is the warm-up.
        is_search: Hold out one fold of the training set and test on it.
        threads: CPU threads of the process.
        images: Number of training images to use, from the first; None is all.
    """

    config: str
    rate: float
    seed: int
    epochs: int
    is_search: bool
    threads: int = 1
    images: int | None = None

    @property
    def folder(self) -> str:
        """Work dir of the run, relative to that of the comparison; different settings have different folders."""
        kind = 'search' if self.is_search else 'final'
        part = '' if self.images is None else f'_{self.images}images'
        return f'{Path(self.config).stem}/{kind}_{self.epochs}e{part}_lr{self.rate:g}_seed{self.seed}'


@dataclass(frozen=True)
class Row:
    """Result of one network.

    Args:
        name: Name of the config, without data set and suffix.
        params: Number of parameters.
        macs: Multiply-adds per image.
        rates: Learning rate to accuracy in the search, in percent.
        rate: The best learning rate.
        accuracies: Test accuracy of each seed, in percent.
        seconds: CPU time of a final training, or wall time on a GPU; mean over the seeds.
    """

    name: str
    params: int
    macs: int
    rates: dict[float, float]
    rate: float
    accuracies: list[float]
    seconds: float

    @property
    def mean(self) -> float:
        """Mean accuracy over the seeds, in percent."""
        return statistics.mean(self.accuracies)

    @property
    def spread(self) -> float:
        """Sample standard deviation over the seeds (N - 1), in percentage points."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else 0.0


def select(dataset: str, only: Sequence[str] | None = None) -> list[Path]:
    """The classification configs of a data set.

    Args:
        dataset: Last part of their names, e.g. 'digits'.
        only: Names of backbones, the part of the config names before the data set; None is all.

    Raises:
        UserError: If a backbone has no config.
    """
    configs = {
        path.stem.rpartition('_')[0]: path
        for path in sorted((project() / 'configs' / 'classification').glob(f'*_{dataset}.py'))
    }
    if only is not None and not set(only) <= set(configs):
        raise UserError(f'--only {" ".join(only)} is unknown: choose from {", ".join(configs)}')
    return [path for name, path in configs.items() if only is None or name in only]


def compare(
    configs: Sequence[str | Path],
    work_dir: str | Path,
    epochs: int,
    rates: Sequence[float] = RATES,
    seeds: Sequence[int] = SEEDS,
    jobs: int = 1,
    threads: int = 1,
    images: int | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, name: None,
) -> list[Row]:
    """Train what is missing, and collect the results.

    Args:
        configs: Classification configs over one data set.
        work_dir: Folder of the runs; completed runs in it are reused.
        epochs: See :class:`Run`.
        rates: Learning rates to search.
        seeds: Seeds of the final trainings; the search uses the first.
        jobs: Number of parallel trainings.
        threads: CPU threads of each training.
        images: See :class:`Run`.
        progress: Called with the number of completed runs, the total, and the name of the last run.

    Returns:
        One row per config, in the order of the configs.

    Raises:
        UserError: If data is missing or a run fails.
    """
    for flag, value in (('--jobs', jobs), ('--threads', threads), ('--epochs', epochs)):
        if value < 1:
            raise UserError(f'{flag} {value} is out of range: give 1 or more')
    if not all(0 < rate < math.inf for rate in rates):
        raise UserError(f'--rates {" ".join(f"{rate:g}" for rate in rates)} are not all positive: correct them')
    for name in {str(load_config(config).get('default_scope', 'mmengine')) for config in configs}:
        import_quietly(name)  # before forking, so that the processes of the runs need not import it again
    work_dir = Path(work_dir)
    if images is not None and images < FOLDS:
        raise UserError(f'{images} images are too few: give at least {FOLDS}')
    writable_folder(work_dir)
    total, done = len(configs) * (len(rates) + len(seeds)), 0

    def run_all(runs: list[Run]) -> list[dict]:
        nonlocal done
        for run in _trained(runs, work_dir, jobs):
            done += 1
            progress(done, total, run.folder)
        return [json.loads(_result_file(run, work_dir).read_text()) for run in runs]

    searches = [Run(str(c), rate, seeds[0], epochs, True, threads, images) for c in configs for rate in rates]
    found = [result['accuracy'] for result in run_all(searches)]
    by_config = [dict(zip(rates, found[i : i + len(rates)], strict=True)) for i in range(0, len(found), len(rates))]
    best = [max(scores, key=scores.__getitem__) for scores in by_config]
    finals = [
        Run(str(c), rate, seed, epochs, False, threads, images)
        for c, rate in zip(configs, best, strict=True)
        for seed in seeds
    ]
    results = run_all(finals)
    rows = []
    for i, (config, scores, rate) in enumerate(zip(configs, by_config, best, strict=True)):
        own = results[i * len(seeds) : (i + 1) * len(seeds)]
        parts = complexity(config)
        rows.append(
            Row(
                name=Path(config).stem.rpartition('_')[0],
                params=sum(part.params for part in parts),
                macs=sum(part.macs for part in parts),
                rates=scores,
                rate=rate,
                accuracies=[result['accuracy'] for result in own],
                seconds=statistics.mean(result['seconds'] for result in own),
            )
        )
    return rows


def derive(cfg: Config, run: Run) -> Config:
    """Derive the config of a run: learning rate, length and data subset, on top of a classification config.

    Raises:
        UserError: If the data is missing, or has fewer images than the run asks for.
    """
    locate_data(cfg, 'train')
    (train_set,) = (dataset for dataset in leaf_datasets(cfg, 'train') if dataset is not cfg.val_dataloader.dataset)
    cfg.train_dataloader.dataset = train_set  # without a wrapper that repeats it: an epoch is one pass
    if run.is_search or run.images is not None:
        from mmengine.registry import DATASETS, init_default_scope

        init_default_scope(cfg.default_scope)
        total = len(DATASETS.build(train_set))
        images = total if run.images is None else run.images
        if not 0 < images <= total:
            raise UserError(f'{images} images are invalid: choose from 1 to {total}, the size of the training set')
        everything = range(images)
        train_set.indices = list(everything)
    if run.is_search:
        held_out = dict(train_set, pipeline=cfg.val_dataloader.dataset.pipeline, indices=list(everything[::FOLDS]))
        cfg.val_dataloader.dataset = held_out
        train_set.indices = [index for index in everything if index % FOLDS]
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.num_workers, loader.persistent_workers = 0, False
    cfg.train_dataloader.drop_last = True  # BatchNorm of a 1 x 1 map fails on a batch of one image
    cfg.test_dataloader = cfg.val_dataloader
    cfg.optim_wrapper.optimizer.lr = run.rate
    cfg.train_cfg.max_epochs = cfg.train_cfg.val_interval = run.epochs
    for scheduler in cfg.param_scheduler:
        if scheduler.type == 'CosineAnnealingLR':
            scheduler.end, scheduler.T_max = run.epochs, run.epochs - scheduler.begin
    # The final weights are tested; the periodic checkpoints of a long run allow it to resume.
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', interval=10, max_keep_ckpts=1, save_last=False)
    return cfg


def _result_file(run: Run, work_dir: Path) -> Path:
    return work_dir / run.folder / 'result.json'


def _trained(runs: list[Run], work_dir: Path, jobs: int) -> Iterator[Run]:
    """Yield each run when it is complete; runs have separate processes, ``jobs`` at a time."""
    yield from (run for run in runs if _result_file(run, work_dir).exists())
    pending = [run for run in runs if not _result_file(run, work_dir).exists()]
    running: dict[Any, tuple[Run, ForkProcess]] = {}  # by sentinel
    try:
        while pending or running:
            while pending and len(running) < jobs:
                run = pending.pop(0)
                folder = work_dir / run.folder
                folder.mkdir(parents=True, exist_ok=True)
                process = multiprocessing.get_context('fork').Process(target=_train, args=(run, folder))
                process.start()
                running[process.sentinel] = run, process
            for sentinel in wait(list(running)):
                run, process = running.pop(sentinel)
                process.join()
                if process.exitcode:
                    output = work_dir / run.folder / 'output.txt'
                    lines = [line for line in output.read_text().splitlines() if line.strip()]
                    last = lines[-1] if lines else 'no output'
                    raise UserError(f'run {run.folder} failed ({_ending(process.exitcode)}): {last} (see {output})')
                yield run
    finally:
        for _, process in running.values():
            process.terminate()
            process.join()


def _ending(exit_code: int) -> str:
    return f'exit code {exit_code}' if exit_code > 0 else signal.Signals(-exit_code).name


def _train(run: Run, folder: Path) -> None:
    _prctl_pr_set_pdeathsig(signal.SIGKILL)  # a run must not outlive the comparison
    sys.stdout = sys.stderr = (folder / 'output.txt').open('w', buffering=1)
    os.dup2(sys.stdout.fileno(), 1)
    os.dup2(sys.stdout.fileno(), 2)
    torch.set_num_threads(run.threads)
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    config = make_folder(folder / 'derived') / 'config.py'  # mmengine writes the complete config into the work dir
    derive(load_config(run.config), run).dump(config)
    start = clock()
    runner = train(str(config), work_dir=str(folder), resume='auto', seed=run.seed)
    seconds = clock() - start
    accuracy = runner.message_hub.get_scalar(f'val/{METRIC}').current()
    report = dict(asdict(run), accuracy=float(accuracy), seconds=seconds)
    write_json(folder / 'result.json', report)
    for path in folder.glob('*.pth'):
        path.unlink()


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table, best accuracy first."""
    lines = [
        '| backbone | parameters (M) | MMACs | learning rate | top-1, mean | std | min to max | seconds |',
        '|---|---|---|---|---|---|---|---|',
    ]
    for row in sorted(rows, key=lambda row: -row.mean):
        lines.append(
            f'| {row.name} | {row.params / 1e6:.2f} | {row.macs / 1e6:.1f} | {row.rate:g} | {row.mean:.2f} % '
            f'| {row.spread:.2f} | {min(row.accuracies):.2f} to {max(row.accuracies):.2f} | {row.seconds:.0f} |'
        )
    return '\n'.join(lines)


def report(rows: Sequence[Row], **facts) -> dict:
    """The rows, the machine and ``facts``, serializable as JSON."""
    return dict(
        facts,
        machine=machine(),
        date=time.strftime('%Y-%m-%d'),
        rows=[dict(asdict(row), mean=row.mean, spread=row.spread) for row in rows],
    )


def write_report(rows: Sequence[Row], work_dir: Path, **facts) -> None:
    """Write ``comparison.json``, ``comparison.md`` and ``comparison.png`` into the work dir.

    Args:
        rows: Rows from :func:`compare`.
        work_dir: Folder of the runs.
        **facts: Entries of the JSON file; ``dataset``, ``images``, ``epochs`` and ``seeds`` form the title of the plot.
    """
    write_json(work_dir / 'comparison.json', report(rows, **facts))
    write_text(work_dir / 'comparison.md', markdown(rows) + '\n')
    part = f'{facts["images"]} images of ' if facts['images'] else ''
    title = f'{part}{facts["dataset"]}, {facts["epochs"]} epochs from scratch, {len(facts["seeds"])} seeds'
    draw(rows, title, work_dir / 'comparison.png')


def machine() -> str:
    """Processor or GPU and versions, in one line."""
    from mogacore.engine.devices import describe_machine

    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    return f'{describe_machine(device)}, Python {platform.python_version()}'


def draw(rows: Sequence[Row], title: str, path: str | Path) -> None:
    """Draw accuracy with its standard deviation over multiply-adds; the area of a point shows its parameters.

    Args:
        rows: Rows from :func:`compare`.
        title: Title of the figure.
        path: PNG file to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout='constrained')
    axis = figure.subplots()
    for i, row in enumerate(sorted(rows, key=lambda row: row.macs)):
        color = '#cc3311' if row.name.startswith('moganet') else '#4477aa'
        x = row.macs / 1e6
        axis.errorbar(x, row.mean, yerr=row.spread, color=color, capsize=3)
        axis.scatter(x, row.mean, s=20 * row.params / 1e6, color=color, alpha=0.6)
        # Alternately above and below, because neighbors are often close.
        offset = (0, 12 if i % 2 == 0 else -18)
        axis.annotate(row.name, (x, row.mean), offset, textcoords='offset points', ha='center', fontsize=8)
    axis.set_xscale('log')
    axis.set_xlabel('multiply-adds per image, M (area of a point: parameters)')
    axis.set_ylabel('top-1 accuracy, %')
    axis.set_title(title, fontsize=9)
    axis.margins(0.15)
    write_figure(path, figure, dpi=120)
