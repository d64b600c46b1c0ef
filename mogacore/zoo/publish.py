"""Publishes a training: weights with their hash in the name, config, metrics and model card in one folder."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mmengine
import torch
from mmengine.config import Config
from torch import Tensor

from mogacore.analysis.curves import read_validations
from mogacore.checkpoint import check_source, load, not_finite, read, weight_sets, write
from mogacore.engine.averaging import average, estimate
from mogacore.engine.config import load_config
from mogacore.engine.plain_config import plain_config, relative_paths
from mogacore.engine.saving import newest_intact_checkpoint
from mogacore.errors import UserError
from mogacore.files import new_folder, plain, sha256, write_json, write_text
from mogacore.version import __version__

from .model_card import model_card

FORMATS = ('pth', 'safetensors')
# Parts of the names of scores that are better if lower; the others are better if higher.
LOWER_IS_BETTER = ('loss', 'mse', 'mae', 'rmse', 'lpips', 'epe', 'mpjpe', 'mrrpe', 'nme', 'error')


@dataclass
class Publication:
    """What is published.

    Args:
        name: Name of the model: that of the config.
        cfg: Config without what belongs to the run, see :func:`mogacore.engine.plain_config.plain_config`, with paths
            as :func:`mogacore.engine.plain_config.relative_paths` gives them.
        sources: Checkpoints of the weights.
        meta: ``meta`` of the last of them.
        counter: What validations are counted by, 'epoch' or 'iter'.
        validations: Scores by epoch or iteration.
        state_dict: Weights.
        file: Name of the weight file.
    """

    name: str
    cfg: Config
    sources: list[Path]
    meta: dict[str, Any]
    counter: str
    validations: dict[int, dict[str, float]]
    state_dict: dict[str, Tensor]
    file: str = ''

    @property
    def position(self) -> int | None:
        """Epoch or iteration of the weights; None for an average."""
        return self.meta.get(self.counter) if len(self.sources) == 1 else None

    @property
    def scores(self) -> dict[str, float]:
        """Scores of the weights in the run's own validation; empty for an average."""
        return self.validations.get(self.position, {}) if self.position is not None else {}

    @property
    def best(self) -> dict[str, dict[str, float]]:
        """Best value of each score of the run and where it was reached."""
        names = dict.fromkeys(name for scores in self.validations.values() for name in scores)
        return {name: self._best(name) for name in names}

    def _best(self, name: str) -> dict[str, float]:
        found = [(scores[name], step) for step, scores in self.validations.items() if name in scores]
        value, step = (min if self.is_lower_better(name) else max)(found, key=lambda pair: pair[0])
        return {'value': value, self.counter: step}

    def is_lower_better(self, name: str) -> bool:
        """Whether lower values of a score are better: the rule of the run's checkpoints, or a known name."""
        hook = self.cfg.get('default_hooks', {}).get('checkpoint') or {}
        if hook.get('save_best') == name and isinstance(hook.get('rule'), str):
            return hook['rule'] == 'less'
        return any(part in LOWER_IS_BETTER for part in re.split(r'[/_\s-]', name.lower()))

    def metrics(self) -> dict:
        """Content of ``metrics.json``."""
        last = next(reversed(self.validations), None)
        return {
            'file': self.file,
            'checkpoints': [path.name for path in self.sources],
            'counted_by': self.counter,
            'published': {self.counter: self.position, 'scores': self.scores},
            'best': self.best,
            'last': {self.counter: last, 'scores': self.validations.get(last, {}) if last is not None else {}},
        }


def publish(
    run: str | Path,
    out: str | Path,
    checkpoint: str = 'best',
    averaged: Sequence[str] | int | None = None,
    file_format: str = 'pth',
    license_id: str = 'apache-2.0',
    device: str | None = None,
) -> Publication:
    """Publish a training.

    Args:
        run: Its work dir.
        out: Folder to create. It gets ``NAME-HASH.pth``, whose name contains the first eight digits of its SHA-256,
            ``NAME.py``, ``metrics.json`` and ``README.md``.
        checkpoint: 'best', 'last' or a file; 'best' is the last one in a run without ``best_*.pth``.
        averaged: Files, or the number of the newest ones of the run, to publish the average of instead, see
            :func:`mogacore.engine.averaging.average`. The statistics of its batch norms are recomputed.
        file_format: One of ``FORMATS``.
        license_id: License for the model card, by its SPDX identifier in lower case.
        device: torch device for the estimation; None for a GPU if available.

    Raises:
        UserError: If ``run`` is no work dir of a training, ``out`` exists, or a checkpoint cannot be used.
    """
    if file_format not in FORMATS:
        raise UserError(f'format {file_format!r} is unknown: choose from {", ".join(FORMATS)}')
    run = Path(run)
    with new_folder(out) as folder:
        name, cfg = find_config(run)
        ema = cfg.get('load_ema')
        if averaged is None:
            sources = [find_checkpoint(run, checkpoint)]
            container = read(sources[0])
            state_dict = weight_sets(container).choose(ema).state_dict
        else:
            sources = newest_checkpoints(run, averaged) if isinstance(averaged, int) else [Path(p) for p in averaged]
            for source in sources:
                check_source(source)
            container = read(sources[-1], mmap=True)
            state_dict = estimate(deepcopy(cfg), average(sources, ema), device)
            name += '_average'
        if bad := not_finite(state_dict, ()):
            raise UserError(f'{sources[-1]} cannot be published, since {bad[0]}: choose an earlier checkpoint')
        saved = container.get('meta')
        meta = saved if isinstance(saved, dict) else {}
        counter = 'iter' if cfg.get('train_cfg', {}).get('type') == 'IterBasedTrainLoop' else 'epoch'
        item = Publication(name, relative_paths(cfg), sources, meta, counter, _validations(run), state_dict)
        item.file = _write_weights(item, folder, file_format)
        write_text(folder / f'{name}.py', item.cfg.pretty_text)
        write_json(folder / 'metrics.json', item.metrics(), default=plain)
        write_text(folder / 'README.md', model_card(item, license_id))
    return item


def _write_weights(item: Publication, folder: Path, file_format: str) -> str:
    facts: dict[str, Any] = {
        'mogacore_version': __version__,
        'mmengine_version': mmengine.__version__,
        'torch_version': str(torch.__version__),  # the safe reader refuses its class
        'checkpoints': [path.name for path in item.sources],
        item.counter: item.position,
    }
    if 'dataset_meta' in item.meta:  # the class names, which predictions need
        facts['dataset_meta'] = item.meta['dataset_meta']
    path = folder / f'weights.{file_format}'
    write(item.state_dict, path, {key: value for key, value in facts.items() if value is not None})
    load(path)  # refuses anything but tensors and plain values
    name = f'{item.name}-{sha256(path)[:8]}.{file_format}'
    path.rename(folder / name)
    return name


def _validations(run: Path) -> dict[int, dict[str, float]]:
    """Scores by epoch or iteration, without those that are not finite."""
    try:
        found = read_validations(run)
    except UserError:
        if any(run.glob('*/vis_data/scalars.json')):
            raise
        return {}
    return {
        step: {name: value for name, value in scores.items() if math.isfinite(value)} for step, scores in found.items()
    }


def find_config(run: Path) -> tuple[str, Config]:
    """Name and plain config of the newest training in a work dir.

    A test with the same work dir also writes its config there, without the parts of a training. The weights that a
    resumed training started from are named in the config of its first run.

    Raises:
        UserError: If there is none.
    """
    files = [*sorted(run.glob('*/vis_data/config.py'), reverse=True), *sorted(run.glob('*.py'))]
    files = [path for path in files if re.search(r'^train_dataloader\b', path.read_text(), re.MULTILINE)]
    if not files:
        raise UserError(f'{run} has no config of a training: give the work dir of a training')
    newest = load_config(files[0])
    cfg = plain_config(newest)
    if newest.get('resume'):
        firsts = (first for first in map(load_config, files[1:]) if not first.get('resume'))
        if start := next((first.get('load_from') for first in firsts), None):
            cfg.load_from = start
    stems = [file.stem for file in run.glob('*.py')]
    return stems[0] if len(stems) == 1 else run.resolve().name, cfg


def find_checkpoint(run: Path, choice: str) -> Path:
    """Checkpoint of a run by 'best', 'last' or path.

    Raises:
        UserError: If there is none, or several best ones.
    """
    if choice not in ('best', 'last'):
        check_source(choice)
        return Path(choice)
    best = sorted(run.glob('best_*.pth')) if choice == 'best' else []
    if len(best) > 1:
        raise UserError(
            f'{run} has {len(best)} best checkpoints, one per score: give one with --checkpoint, such as {best[0]}'
        )
    newest = str(best[0]) if best else newest_intact_checkpoint(run)
    if newest is None:
        raise UserError(f'{run} has no checkpoints: give the work dir of a training')
    return Path(newest)


def newest_checkpoints(run: Path, number: int) -> list[Path]:
    """The last checkpoints of a run by iteration, oldest first, without the best ones, which are copies of others.

    Raises:
        UserError: If there are fewer, or ``number`` is below 2.
    """
    if number < 2:
        raise UserError(f'--average {number} is not an average: give at least 2 checkpoints')
    found = []
    for path in (path for path in run.glob('*.pth') if not path.name.startswith('best_')):
        meta = read(path, mmap=True).get('meta')
        if isinstance(meta, dict) and isinstance(meta.get('iter'), int):
            found.append((meta['iter'], path))
    if len(found) < number:
        raise UserError(
            f'--average {number} is not possible: {run} has {len(found)} checkpoints; give at least 2, and let the '
            'training keep them with default_hooks.checkpoint.max_keep_ckpts'
        )
    return [path for _, path in sorted(found)[-number:]]
