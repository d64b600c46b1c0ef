"""Checkpoints written atomically, and the search for the newest intact one in a work dir."""

from __future__ import annotations

import contextlib
import zipfile
from itertools import chain
from numbers import Real
from pathlib import Path
from typing import cast

from mmengine.dist import all_reduce, is_main_process
from mmengine.hooks import CheckpointHook, EarlyStoppingHook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP

from mogacore.checkpoint import check_resume_parts, read
from mogacore.datasets.local_files import LocalFiles, register_local_files
from mogacore.errors import UserError
from mogacore.files import PARTIAL_SUFFIX

INTERRUPTED = 'interrupted.pth'


def newest_intact_checkpoint(work_dir: str | Path) -> str | None:
    """Find the training state with the most iterations in a work dir, skipping damaged files.

    The iteration stored inside each file decides, so a dangling ``last_checkpoint`` and the timestamps of copied files
    have no effect. ``best_*`` files and files without an optimizer are not training states.

    Returns:
        A path, or None if there is no checkpoint at all.

    Raises:
        UserError: If there are checkpoints, but none is an intact training state: a new run would overwrite them.
    """
    files = list(Path(work_dir).glob('*.pth'))
    states = []
    for path in (path for path in files if not path.name.startswith('best_')):
        with contextlib.suppress(UserError, KeyError, TypeError):
            container = read(path, mmap=True)
            check_resume_parts(container, path)
            if 'optimizer' in container:
                states.append((container['meta']['iter'], path.stat().st_mtime_ns, str(path)))
    for _, _, newest in sorted(states, reverse=True):
        if is_intact(newest):
            return newest
    if files:
        raise UserError(
            f'none of the {len(files)} checkpoints in {work_dir} is an intact training state: give one with --resume '
            'PATH, or start a new run in another --work-dir, from the weights of one with --cfg-options load_from=PATH'
        )
    return None


def is_intact(path: str | Path) -> bool:
    """Whether a file written by torch.save matches the checksums that it contains."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile):
        return False


def pending_gradients(model: nn.Module, optim_wrapper: OptimWrapper) -> dict[str, Tensor]:
    """Accumulated gradients that the optimizer has not applied yet, averaged over the processes.

    Every process must call this. The result is empty unless gradients are being accumulated and the step is not due
    yet. It is also empty for a sharded model (FSDP), whose accumulated gradients do not match its parameters.
    """
    counts = getattr(optim_wrapper, '_accumulative_counts', 1)
    if counts == 1 or optim_wrapper.should_update() or isinstance(model, FSDP):
        return {}
    if is_model_wrapper(model):
        model = cast('nn.Module', model.module)
    gradients = {}
    for name, param in model.named_parameters():
        if param.grad is not None:
            gradients[name] = param.grad.detach().clone()
            all_reduce(gradients[name], op='mean')
    return gradients


def drop_functions(schedulers: list[dict] | dict[str, list[dict]]) -> None:
    """Remove functions from scheduler states, in place: only pickle could save them.

    A resumed scheduler has its own; mmengine's OneCycleParamScheduler keeps one in its state.
    """
    lists = schedulers.values() if isinstance(schedulers, dict) else [schedulers]
    for state in chain.from_iterable(lists):
        for name in [name for name, value in state.items() if callable(value)]:
            del state[name]


def _is_number(value: object) -> bool:
    return isinstance(value, Real) or (isinstance(value, Tensor) and value.numel() == 1)


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's CheckpointHook, but it removes an old checkpoint only after the new one is complete.

    It also saves the gradients of an unfinished accumulation, and can save between two regular checkpoints to
    ``interrupted.pth``, which the next regular one replaces. The settings are those of CheckpointHook. The disk needs
    room for one more checkpoint than are kept.
    """

    best_ckpt_path: str | None
    best_ckpt_path_dict: dict[str, str | None]

    def before_train(self, runner) -> None:
        super().before_train(runner)
        if is_main_process():
            for partial in Path(self.out_dir).glob(f'*{PARTIAL_SUFFIX}'):  # left by a killed process
                partial.unlink()

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        if runner._resume:
            params = dict(runner.model.named_parameters())
            prefix = 'module.' if is_model_wrapper(runner.model) else ''
            for name, gradient in checkpoint.get('gradients', {}).items():
                params[prefix + name].grad = gradient.to(params[prefix + name].device)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        if gradients := getattr(self, 'gradients', None):
            checkpoint['gradients'] = gradients
        drop_functions(checkpoint.get('param_schedulers') or [])

    def save_interrupted(self, runner) -> str:
        """Save the state after the iteration that has just finished; every process must call this.

        Returns:
            Path of the checkpoint.
        """
        return self._save_state(runner, dict(epoch=runner.epoch, iter=runner.iter + 1))

    def _save_state(self, runner, meta: dict) -> str:
        runner.train_loop.validated_iter = None  # a hook may have interrupted the validation
        path = self._save(runner, INTERRUPTED, meta)
        self._point_to(runner, path)
        return path

    def _save(self, runner, filename: str, meta: dict) -> str:
        self.gradients = pending_gradients(runner.model, runner.optim_wrapper)
        runner.save_checkpoint(
            self.out_dir,
            filename,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        return self.file_backend.join_path(self.out_dir, filename)

    def _point_to(self, runner, path: str) -> None:
        if is_main_process():
            LocalFiles().put_text(path, Path(runner.work_dir) / 'last_checkpoint')

    def _remove(self, *paths: str | None) -> None:
        for path in paths:
            if is_main_process() and path and self.file_backend.isfile(path):
                self.file_backend.remove(path)

    def _save_checkpoint_with_step(self, runner, step: int, meta: dict) -> None:
        filename = self.filename_tmpl.format(step)
        outdated = None
        if self.max_keep_ckpts > 0 and step not in self.keep_ckpt_ids:
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                outdated = self.filename_tmpl.format(self.keep_ckpt_ids.popleft())
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        self.last_ckpt = self.file_backend.join_path(self.out_dir, filename)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        self._save(runner, filename, meta)
        self._point_to(runner, self.last_ckpt)
        join = self.file_backend.join_path
        self._remove(join(self.out_dir, INTERRUPTED), outdated and join(self.out_dir, outdated))

    def _save_best_checkpoint(self, runner, metrics: dict) -> None:
        if not self.save_best:
            return
        for key in self.key_indicators:
            if key != 'auto' and key not in metrics:
                _refuse_score(runner, f'save_best={key}', metrics, 'default_hooks.checkpoint.save_best')
        if 'auto' in self.key_indicators:  # mmengine takes the first score, also one that is not a number
            metrics = {key: value for key, value in metrics.items() if _is_number(value)}
            if not metrics:
                return
        # mmengine would remove the previous best one before it saves the new one, so its path is hidden meanwhile.
        if len(self.key_indicators) == 1:
            best = self.best_ckpt_path
            self.best_ckpt_path = None
            super()._save_best_checkpoint(runner, metrics)
            self.best_ckpt_path = self.best_ckpt_path or best
            previous, current = {best}, {self.best_ckpt_path}
        else:
            bests = dict(self.best_ckpt_path_dict)
            self.best_ckpt_path_dict = dict.fromkeys(bests)
            super()._save_best_checkpoint(runner, metrics)
            self.best_ckpt_path_dict = {key: path or bests[key] for key, path in self.best_ckpt_path_dict.items()}
            previous, current = set(bests.values()), set(self.best_ckpt_path_dict.values())
        self._remove(*(previous - current))


@HOOKS.register_module(name='EarlyStoppingHook', force=True)
class StrictEarlyStoppingHook(EarlyStoppingHook):
    """mmengine's EarlyStoppingHook, but a score that the validation does not give ends the training at once.

    mmengine warns at each validation and never stops.
    """

    def after_val_epoch(self, runner, metrics: dict) -> None:
        if self.monitor not in metrics:
            choice = f'EarlyStoppingHook.monitor={self.monitor}'
            _refuse_score(runner, choice, metrics, 'monitor of the EarlyStoppingHook')
        super().after_val_epoch(runner, metrics)


def _refuse_score(runner, choice: str, metrics: dict, setting: str) -> None:
    """Save the state after a validation without the score that a setting names; every process must call this.

    Raises:
        UserError: Always.
    """
    meta = dict(epoch=runner.epoch, iter=runner.iter)
    paths = [hook._save_state(runner, dict(meta)) for hook in runner.hooks if isinstance(hook, SafeCheckpointHook)]
    raise UserError(
        f'{choice} is no score of the validation, which gives {", ".join(metrics)}: resume with --resume and another '
        f'{setting}' + ''.join(f'; the state is saved in {path}' for path in paths)
    )


register_local_files()
