"""Requirements of the missing rows of the tables: config, data, weights, GPUs, hours, and the training command."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from mmengine.config import Config

from mogacore.checkpoint import SCHEME, cached_path, official_address, recorded
from mogacore.engine.config import leaf_datasets, load_config, locate_data
from mogacore.errors import UserError
from mogacore.published import Result

from .reproduce import Sizes, cfg_options, find_measured, run_name

# Training images or sequences, by data root; for COCO images with boxes, for poses persons with keypoints.
TRAINING_ITEMS = {
    'data/imagenet': 1_281_167,
    'data/coco': 117_266,
    'pose': 149_813,
    'data/moving_mnist': 10_000,
    'data/moving_fmnist': 10_000,
    'data/human36m': 73_404,
}
HINT = 'Append --dry-run to a command to check it without data or cluster; docs/data.md gives the data layout.'


@dataclass(frozen=True)
class PlannedRun:
    """A training that provides the accuracy of one or several rows.

    Args:
        name: Name of the work dir and of the job.
        rows: Ids of the results.
        config: Config file.
        data: Data set and whether it was found.
        weights: (label, text) of the initial weights, and of the published ones for comparison.
        gpus: Number of GPUs.
        hours: Estimated time; None if the size of the data set is unknown.
        basis: Machine of the estimate: the GPUs, or one machine without a GPU, if the speed was measured there.
        invocation: Environment variables and arguments of the command.
    """

    name: str
    rows: tuple[str, ...]
    config: Path
    data: str
    weights: tuple[tuple[str, str], ...]
    gpus: int
    hours: float | None
    basis: str
    invocation: tuple[dict[str, str], list[str]]

    @property
    def command(self) -> str:
        """The shell command, preceded by its environment variables."""
        environment, arguments = self.invocation
        return ' '.join([*(f'{key}={shlex.quote(value)}' for key, value in environment.items()), shlex.join(arguments)])

    def needs(self) -> list[tuple[str, str]]:
        """Label and text of each requirement."""
        hours = f'{self.hours:,.0f} hours {self.basis}' if self.hours is not None else f'unknown, {self.basis}'
        return [
            ('config', str(self.config)),
            ('data', self.data),
            *self.weights,
            ('machine', f'{self.gpus} GPU{"s" * (self.gpus > 1)}'),
            ('time', hours),
        ]


def missing_runs(
    results: Iterable[Result],
    root: Path,
    work_dirs: Path,
    partition: str,
    gpus: int | None = None,
    benchmark: Path | None = None,
    options: dict | None = None,
) -> list[PlannedRun]:
    """The trainings of all results with a config but without a measured accuracy, without duplicates.

    Args:
        results: Results from :func:`mogacore.zoo.selection.select`.
        root: Folder of ``configs/`` and ``tools/``.
        work_dirs: Folder of the trainings.
        partition: Slurm partition.
        gpus: GPUs per training; None is the number of the recipe.
        benchmark: JSON of ``tools/benchmark.py --mode train``; None is the bundled measurement.
        options: Settings that override every config.

    Raises:
        UserError: If the benchmark file is invalid.
    """
    speed, sizes = Speed.load(benchmark), Sizes(root / 'configs')
    found: dict[str, tuple[Config, list[Result]]] = {}
    for result in results:
        if not result.config or find_measured(result, root / 'configs', work_dirs):
            continue
        cfg = load_config(root / 'configs' / result.config)
        found.setdefault(run_name(result, cfg), (cfg, []))[1].append(result)
    return [
        _plan(name, cfg, own, root, work_dirs, partition, gpus, speed, sizes, options or {})
        for name, (cfg, own) in found.items()
    ]


def _plan(
    name: str,
    cfg: Config,
    results: list[Result],
    root: Path,
    work_dirs: Path,
    partition: str,
    gpus: int | None,
    speed: Speed,
    sizes: Sizes,
    options: dict,
) -> PlannedRun:
    recipe_gpus = max(1, _batch(cfg) // cfg.train_dataloader.batch_size)
    count = gpus or recipe_gpus
    settings = {**cfg_options(results[0], cfg), **options}
    config, script = shown(cfg.filename), shown(root / 'tools' / 'sbatch_train.sh')
    arguments = ['bash', script, partition, name, config, str(work_dirs / name)]
    if count != recipe_gpus:
        arguments.append('--auto-scale-lr')
    if settings:
        arguments += ['--cfg-options', *(f'{key}={value}' for key, value in settings.items())]
    items = training_items(cfg)
    hours = None
    if items is not None:
        # Multiply-adds are those at test size; the cost of a training crop is proportional to its pixels.
        printed = next((float(result.gmacs) * 1e9 for result in results if result.gmacs and not result.exception), None)
        macs = printed or sizes.of(results[0].config)[1]
        machines = count if speed.is_gpu else 1
        hours = items * macs * _crop(cfg) / (speed.macs_per_s(cfg.model) * machines) / 3600
    return PlannedRun(
        name=name,
        rows=tuple(result.id for result in results),
        config=Path(config),
        data=_data(cfg),
        weights=tuple(_weights(cfg, results)),
        gpus=count,
        hours=hours,
        basis='since the size of the data set is' if items is None else speed.basis(count),
        invocation=({'GPUS': str(count)}, arguments),
    )


def submit(run: PlannedRun) -> str:
    """Queue a run with Slurm, unless a job with its name is already queued.

    Returns:
        The outcome as text.

    Raises:
        UserError: If the command fails.
    """
    if shutil.which('squeue'):
        queued = subprocess.run(['squeue', '-h', '-o', '%j'], capture_output=True, text=True)
        if run.name in queued.stdout.split():
            return 'already queued'
    environment, command = run.invocation
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
    if done.returncode:
        raise UserError(
            f'{shlex.join(command)} failed with exit code {done.returncode}: {(done.stderr or done.stdout).strip()}'
        )
    return done.stdout.strip()


def training_items(cfg: Config) -> int | None:
    """Images or sequences processed in one training of a config; None if the size of the data set is unknown."""
    train_cfg = cfg.train_cfg
    if 'max_iters' in train_cfg:
        return train_cfg.max_iters * _batch(cfg)
    root = next(iter(leaf_datasets(cfg, 'train'))).get('data_root')
    images = TRAINING_ITEMS.get('pose' if cfg.default_scope == 'mmpose' else str(root))
    return None if images is None else images * train_cfg.max_epochs


def _batch(cfg: Config) -> int:
    """Total batch size of the recipe over all GPUs; a config without auto_scale_lr is a recipe for one GPU."""
    return cfg.get('auto_scale_lr', {}).get('base_batch_size', cfg.train_dataloader.batch_size)


def _crop(cfg: Config) -> float:
    """Pixels of a training crop relative to those of ``input_shape``; 1 if the pipeline does not define a crop."""
    sides = [step.get('scale') if step.type == 'RandomResizedCrop' else step.get('crop_size')
             for step in cfg.get('train_pipeline', []) if step.type in ('RandomResizedCrop', 'RandomCrop')]  # fmt: skip
    side = next((side for side in sides if side), None)
    if side is None or cfg.default_scope not in ('mmpretrain', 'mmseg'):
        return 1.0
    height, width = side if isinstance(side, (tuple, list)) else (side, side)
    return height * width / (cfg.input_shape[-1] * cfg.input_shape[-2])


def _data(cfg: Config) -> str:
    roots = sorted({str(dataset.get('data_root')) for dataset in leaf_datasets(cfg, 'train')})
    try:
        locate_data(cfg.copy(), 'train')
    except UserError as error:
        return str(error)
    return f'{", ".join(roots)}: found'


def _weights(cfg: Config, results: list[Result]) -> Iterable[tuple[str, str]]:
    """Labels and texts of the initial and the published weights, with the recorded SHA-256."""
    start = (cfg.model.get('backbone', {}).get('init_cfg') or {}).get('checkpoint') or cfg.get('load_from')
    if start and start.startswith(SCHEME):
        yield 'starts at', f'{start}, {_state(official_address(start))}'
    elif start:
        yield 'starts at', start
    for address in dict.fromkeys(result.weights for result in results if result.weights):
        yield 'published', _state(address)


def _state(address: str) -> str:
    path = cached_path(address)
    digest = recorded(path)
    if digest:
        return f'{path} (sha256 {digest})'
    return (
        f'{path} (sha256 not recorded yet)'
        if path.exists()
        else f'{address} (not downloaded; sha256 is recorded on first use)'
    )


def shown(path: str | Path) -> str:
    """The path relative to the current folder if it is inside it, otherwise unchanged."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith(os.pardir) else relative


@dataclass(frozen=True)
class Speed:
    """Training speed of a machine.

    Args:
        rates: Network to training speed: images per second times multiply-adds of a forward pass.
        machine: Description of the machine.
        is_gpu: Whether it is a GPU.
    """

    rates: dict[str, float]
    machine: str
    is_gpu: bool

    def basis(self, gpus: int) -> str:
        """What the hours of a plan refer to."""
        if self.is_gpu:
            return f'on {gpus} GPU{"s" * (gpus > 1)}, from step times on {self.machine}'
        return f'on one {self.machine}, where step times were measured; --benchmark takes those of your GPU'

    def macs_per_s(self, model: dict) -> float:
        """Rate of the network of a model's size; if it was not measured, of the network with the most multiply-adds."""
        arch = model.get('backbone', {}).get('arch')
        return self.rates.get(f'moganet_{arch}', list(self.rates.values())[-1])

    @classmethod
    def load(cls, path: Path | None = None) -> Speed:
        """Read a benchmark of training steps; None is the bundled one.

        Raises:
            UserError: If the file is not such a benchmark.
        """
        source = files(__package__) / 'step_times.json' if path is None else path
        try:
            report = json.loads(source.read_text())
            steps = [step for step in report['measurements'] if step['name'].startswith('moganet_')]
            steps.sort(key=lambda step: step['macs'])
            if report['mode'] != 'train' or not steps:
                raise KeyError('mode')
            rates = {step['name']: step['images_per_s'] * step['macs'] for step in steps}
            # Files of earlier versions have no device; their description of a CPU counts its threads.
            is_gpu = report.get('device', 'cpu' if 'threads' in report['machine'] else 'cuda') != 'cpu'
            return cls(rates, report['machine'], is_gpu)
        except (OSError, KeyError, RecursionError, TypeError, ValueError):
            raise UserError(
                f'{source} has no training step times of a MogaNet: create it with tools/benchmark.py moganet_small '
                '--mode train --json FILE'
            ) from None
