"""Training and testing of every task with mmengine's Runner and strict weight loading."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import broadcast_object_list, is_distributed, is_main_process
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.registry import RUNNERS
from mmengine.runner import CheckpointLoader, FlexibleRunner
from mmengine.runner import Runner as MMEngineRunner
from torch import nn
from torch.distributed.fsdp import FullStateDictConfig, StateDictType
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP

from mogacore.checkpoint import (
    CheckpointError,
    check_gate,
    check_optimizer_state,
    check_resume_parts,
    check_source,
    load_into,
    read,
    register_safe_loader,
    report_choice,
)
from mogacore.errors import UserError
from mogacore.files import plain, writable_folder, write_json
from mogacore.kinds import checks_arguments
from mogacore.libraries import import_quietly
from mogacore.process import keep_freed_memory
from mogacore.text import type_name

from .check_classes import check_classes, check_topk
from .check_config import check_keys
from .check_kinds import MAX_SEED, check_parts
from .check_scores import check_scores
from .class_names import check_class_names
from .config import (
    build_on_meta,
    enable_tta,
    load_config,
    locate_data,
    prepare_for_device,
    prepare_loaders,
    restored_scope,
    save_predictions,
    show_predictions,
)
from .data import prepare_data
from .explain import user_errors
from .fast_data import use_fast_data
from .hooks import CheckMapsHook, ReduceLossHook
from .launch import COLLECTIVE_TIMEOUT_S, close_process_group, init_process_group
from .length import check_schedules, choose_loop
from .loaders import build_loader
from .lock import only_run
from .numbers import FiniteHook
from .optim import check_paramwise, named_wrappers
from .options import RunOptions
from .rescale import follow_length
from .restore import check_training_state
from .resume import make_resumable
from .saving import newest_intact_checkpoint
from .sharding import check_sharding
from .stop import Stopped, end_workers, stop_signals
from .threads import add_thread_choice
from .trackers import add_trackers, check_trackers
from .trained import BACKBONE_ADVICE

# Hooks that need the training loop, its data or the weights being trained; a test has none of them.
TRAINING_HOOKS = ('EMAHook', 'PreciseBNHook', 'PreciseBatchNormHook', 'ReduceStatisticsHook', 'EarlyStoppingHook')


@RUNNERS.register_module(name='mogacore.Runner')
class Runner(MMEngineRunner):
    """mmengine's Runner with safe reading and strict loading of weight files.

    In a config, ``load_allow_missing`` and ``load_allow_unexpected`` list patterns such as ``head.*`` of the keys that
    the ``load_from`` file may lack or have in addition, and ``load_ema`` chooses between its raw and averaged weights;
    see :func:`mogacore.checkpoint.load_into`. For ``load_allow_other_classes``, see
    :func:`mogacore.engine.class_names.check_class_names`.
    """

    build_dataloader = staticmethod(build_loader)

    def load_checkpoint(self, filename, map_location='cpu', strict=True, revise_keys=()) -> dict:
        """Load a file into the model strictly, and return its container for :meth:`resume`.

        Args:
            filename: Path, URL or name of a weight file.
            map_location: As in :func:`torch.load`.
            strict: Must be True; the config lists the keys that may be left out.
            revise_keys: Must be empty; :func:`mogacore.checkpoint.map_keys` maps the keys.

        Raises:
            UserError: If the file cannot be read or does not fit the model, or for other values of ``strict`` and
                ``revise_keys``.
        """
        model = self.model
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        container = _load_strictly(self, model, filename, map_location, strict, revise_keys)
        self._has_loaded = True
        # mmengine would execute this text as Python, only to look up a setting of its version 1.x.
        container.get('meta', {}).pop('config', None)
        return container

    def build_optim_wrapper(self, optim_wrapper):
        """As in mmengine, after a check of ``paramwise_cfg``, see :func:`mogacore.engine.optim.check_paramwise`."""
        check_paramwise(optim_wrapper, self.model)
        return super().build_optim_wrapper(optim_wrapper)

    def resume(self, filename, resume_optimizer=True, resume_param_scheduler=True, map_location='cpu') -> None:
        """As in mmengine, but the container stays on the CPU by default, since a copy on the device wastes memory."""
        try:
            super().resume(filename, resume_optimizer, resume_param_scheduler, map_location)
        except UserError:
            raise
        except (KeyError, ValueError) as error:  # torch's and mmengine's checks of the optimizer and the schedulers
            reason = ' '.join(str(error).split())
            raise UserError(
                f'the training state of {filename} does not fit this run ({reason}): resume with the config of that '
                'run, or start from its weights with load_from'
            ) from error
        for wrapper in named_wrappers(self).values():
            check_optimizer_state(wrapper.optimizer, filename)


@RUNNERS.register_module(name='mogacore.ShardedRunner')
class ShardedRunner(FlexibleRunner):
    """mmengine's Runner for strategies, with the strict weight loading of :class:`Runner`."""

    build_dataloader = staticmethod(build_loader)

    def load_checkpoint(self, filename, map_location='cpu', strict=True, revise_keys=()) -> None:
        """Load a file into the model strictly; every process must call this. Arguments as in :class:`Runner`."""
        with FSDP.state_dict_type(self.model, StateDictType.FULL_STATE_DICT, FullStateDictConfig()):
            _load_strictly(self, self.model, filename, map_location, strict, revise_keys)


def _load_strictly(
    runner: Runner | ShardedRunner, model: nn.Module, filename: str, map_location, strict: bool, revise_keys
) -> dict:
    if not strict:
        raise UserError(
            'strict=False would skip keys silently: list the keys that may be left out in load_allow_missing and '
            'load_allow_unexpected of the config'
        )
    if list(revise_keys) not in ([], [(r'^module.', '')]):  # the latter is mmengine's default, which load_into covers
        raise UserError(
            f'revise_keys {revise_keys} cannot be applied: rename the keys in the file, see docs/checkpoints.md'
        )
    container = CheckpointLoader.load_checkpoint(filename, map_location=map_location)  # reads safely, URLs too
    ema = runner.cfg.get('load_ema')
    load = partial(
        load_into,
        model,
        allow_missing=runner.cfg.get('load_allow_missing', ()),
        allow_unexpected=runner.cfg.get('load_allow_unexpected', ()),
        ema=ema,
        advice='or list what may be left out in load_allow_missing and load_allow_unexpected of the config',
    )
    if runner._resume:
        _check_resumable(container, filename)
    else:
        check_gate(model, filename, BACKBONE_ADVICE)
        report_choice(container, filename, ema)
        check_class_names(runner, container, filename)
    # Hooks copy the weights to their averages by the model's names, or, in a resumed run, swap the two sets.
    try:
        load(container)
    except CheckpointError as error:
        raise CheckpointError(f'{filename}: {error}') from None
    for_hooks = container if runner._resume else {**container, 'state_dict': model.state_dict()}
    runner.call_hook('after_load_checkpoint', checkpoint=for_hooks)
    if runner._resume:
        load(container)
    runner.logger.info(f'Load checkpoint from {filename}')
    return container


def _check_resumable(container: dict, filename: str) -> None:
    check_resume_parts(container, filename)  # types first: the other check reads the parts
    check_training_state(container, filename)


def train(config: str, **flags) -> Runner:
    """Train the model of a config.

    Args:
        config: Path or short name of the config.
        **flags: Fields of :class:`mogacore.engine.options.RunOptions`.

    Raises:
        UserError: If a file is missing, a setting is invalid, another run uses the work dir, or the machine fails,
            see :mod:`mogacore.machine`.
        Stopped: After a stop signal, once the state is saved; see :mod:`mogacore.engine.stop`.
    """
    options = RunOptions(config, **flags)
    with stop_signals(), user_errors():
        return _train(options)


def _train(options: RunOptions) -> Runner:
    cfg = _training_config(options)
    changes = follow_length(cfg, options.cfg_options)
    if cfg.get('load_from'):
        check_source(cfg.load_from)
    locate_data(cfg, 'train')
    use_fast_data(cfg)
    prepare_data(cfg, 'train', options.check, options.launcher)
    if 'strategy' in cfg:
        check_sharding(cfg, options.launcher)
    writable_folder(cfg.work_dir)
    make_resumable(cfg, changes)
    add_thread_choice(cfg, options.launcher)
    _init_process_group(cfg, options.launcher)
    with user_errors(is_training=True), only_run(cfg.work_dir):
        if options.resume is None:
            _refuse_checkpoints(cfg.work_dir)  # of a run that has ended meanwhile
        else:
            _resume_from(cfg, options.resume)
        add_trackers(cfg, options.track)
        runner = _build_runner(cfg, options.launcher)
        try:
            try:
                runner.train()
            finally:
                end_workers(runner)
        except Stopped:
            close_process_group()
            raise
        close_process_group()
    return runner


def _training_config(options: RunOptions) -> Config:
    """The config of a training run with the user's flags applied."""
    check_trackers(options.track)
    cfg = load_config(options.config, options.cfg_options)
    check_keys(cfg)
    check_parts(cfg, 'train', options.cfg_options)
    resume, seed = options.resume, options.seed
    if resume is not None and resume != 'auto':
        check_source(resume)
        _check_resumable(read(resume, mmap=True), resume)  # before the data
    cfg.work_dir = _work_dir(cfg, options.work_dir)
    if resume is None:
        _refuse_checkpoints(cfg.work_dir)
    if options.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise UserError(
                f'--auto-scale-lr needs auto_scale_lr.base_batch_size: set it in {options.config}, or omit the flag'
            )
        cfg.auto_scale_lr.enable = True
    if seed is not None:
        if not 0 <= seed <= MAX_SEED:
            raise UserError(f'seed {seed} is out of range: give an integer from 0 to {MAX_SEED}')
        cfg.randomness = dict(cfg.get('randomness', {}), seed=seed)
    check_classes(cfg)
    check_topk(cfg, 'train')
    check_scores(cfg)
    prepare_for_device(cfg, options.precision)
    prepare_loaders(cfg)
    choose_loop(cfg.train_cfg, options.cfg_options or ())
    return cfg


def _refuse_checkpoints(work_dir: str) -> None:
    if any(Path(work_dir).glob('*.pth')):
        raise UserError(
            f'work dir {work_dir} already contains checkpoints: resume with --resume, or choose another --work-dir'
        )


def dry_run(config: str, **flags) -> str:
    """Check the config, the flags and the model of a training, and its data if they exist; needs no weights and no GPU.

    Args:
        config: Path or short name of the config.
        **flags: Fields of :class:`mogacore.engine.options.RunOptions`.

    Returns:
        A human-readable line, which also reports missing data.

    Raises:
        UserError: If a file is missing, a setting is invalid, or the data have errors.
    """
    options = RunOptions(config, **flags)
    with user_errors():
        cfg = _training_config(options)
        changes = follow_length(cfg, options.cfg_options)
        warnings = check_schedules(cfg)
        model = build_on_meta(cfg)
        check_paramwise(cfg.optim_wrapper, model)
    length = cfg.train_cfg.get('max_epochs') or cfg.train_cfg.get('max_iters')
    unit = 'epochs' if 'max_epochs' in cfg.train_cfg else 'iterations'
    try:
        locate_data(cfg, 'train')
        data = 'the data exists'
    except UserError as error:
        data = f'not ready: {error}'
    else:
        prepare_data(cfg, 'train', options.check, options.launcher)
    return (
        f'{config}: {type(model).__name__} with {sum(p.numel() for p in model.parameters()):,} parameters, '
        f'{length} {unit}, batch size {cfg.train_dataloader.batch_size} per process, work dir {cfg.work_dir}; {data}'
        + ''.join(f'; {line}' for line in changes)
        + ''.join(f'; warning: {line}' for line in warnings)
    )


def _init_process_group(cfg: Config, launcher: str) -> None:
    settings = cfg.get('env_cfg', {}).get('dist_cfg', {})
    init_process_group(launcher, settings.get('backend', 'nccl'), settings.get('timeout', COLLECTIVE_TIMEOUT_S))


def _resume_from(cfg: Config, resume: str) -> None:
    """Make the Runner resume from a checkpoint, with that run's seed; rank 0 finds the newest one for all ranks."""
    found = [newest_intact_checkpoint(cfg.work_dir) if resume == 'auto' and is_main_process() else resume]
    broadcast_object_list(found)
    checkpoint = found[0]
    cfg.resume = checkpoint is not None
    cfg.load_from = checkpoint
    if checkpoint is None:
        return
    container = read(checkpoint, mmap=True)
    _check_resumable(container, checkpoint)
    if (seed := container['meta'].get('seed')) is not None:
        cfg.randomness = dict(cfg.get('randomness', {}), seed=seed)


@restored_scope()
@checks_arguments()
def test(
    config: str,
    checkpoint: str,
    work_dir: str | None = None,
    out: str | None = None,
    show_dir: str | None = None,
    predictions: str | None = None,
    tta: bool = False,
    cfg_options: dict | None = None,
    check: str = 'sample',
    launcher: str = 'none',
) -> dict[str, float]:
    """Test a weight file on the test data of a config.

    Args:
        config: Path or short name of the config.
        checkpoint: Weight file; it must match the model completely.
        work_dir: Folder for logs; None means ``work_dirs/`` and the config's name.
        out: JSON file for the metrics.
        show_dir: Folder for images with drawn predictions.
        predictions: File for the predictions, see :mod:`mogacore.inference.prediction_files`.
        tta: Average the predictions of several views of each image.
        cfg_options: Settings that override the config's.
        check: 'sample' checks the data in about 20 seconds, 'full' reads every file.
        launcher: What started the processes: none, pytorch, slurm or mpi.

    Returns:
        Metric name to value, as the config's evaluator names them.

    Raises:
        UserError: If a file is missing, the weights do not fit the model, or a setting is invalid.
    """
    cfg = load_config(config, cfg_options)
    check_keys(cfg)
    check_parts(cfg, 'test', cfg_options)
    check_topk(cfg, 'test')
    check_source(checkpoint)
    cfg.work_dir = _work_dir(cfg, work_dir)
    cfg.load_from, cfg.resume = checkpoint, False
    # Only the test part of the config is built, so that a test needs no training data.
    training = cfg.pop('train_dataloader', None)
    for key in ('train_cfg', 'optim_wrapper', 'param_scheduler', 'strategy'):
        cfg.pop(key, None)
    for key in ('val_dataloader', 'val_cfg', 'val_evaluator', 'auto_scale_lr'):
        cfg.pop(key, None)
    prepare_for_device(cfg)
    cfg.custom_hooks = [hook for hook in cfg.get('custom_hooks', []) if not _is_for_training(hook)]
    cfg.default_hooks = {
        name: hook for name, hook in cfg.get('default_hooks', {}).items() if hook is None or not _is_for_training(hook)
    }
    prepare_loaders(cfg)
    if out is not None:
        if Path(out).is_dir():
            raise UserError(
                f'--out {out} is a folder: give the name of a file in it, such as {Path(out) / "metrics.json"}'
            )
        writable_folder(Path(out).parent)
    if show_dir is not None:
        show_predictions(cfg, str(writable_folder(show_dir)))
    if predictions is not None:
        save_predictions(cfg, predictions, {'config': str(config), 'checkpoint': str(checkpoint), 'tta': tta})
    if tta:
        enable_tta(cfg)
    locate_data(cfg, 'test')
    prepare_data(cfg, 'test', check, launcher, training, checkpoint)
    writable_folder(cfg.work_dir)
    _init_process_group(cfg, launcher)
    with user_errors():
        metrics = _build_runner(cfg, launcher).test()
    if out is not None and is_main_process():
        report = {'config': str(config), 'checkpoint': str(checkpoint), 'tta': tta, 'metrics': metrics}
        write_json(out, report, default=plain)
    close_process_group()
    return metrics


def _is_for_training(hook: dict) -> bool:
    return type_name(hook['type']) in TRAINING_HOOKS


def _work_dir(cfg: Config, work_dir: str | None) -> str:
    config = Path(cfg.filename).resolve()
    chosen = str(work_dir or cfg.get('work_dir') or Path('work_dirs') / config.stem)
    if Path(chosen).resolve() == config.parent:
        raise UserError(
            f'work dir {chosen} contains the config, which a copy would overwrite: choose another --work-dir'
        )
    return chosen


def _build_runner(cfg: Config, launcher: str) -> Runner:
    cfg.launcher = launcher
    if not torch.cuda.is_available():
        keep_freed_memory()
    if is_distributed() and not torch.cuda.is_available():
        cfg.model_wrapper_cfg = dict(
            type='MMDistributedDataParallel',
            device_ids=None,
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),
        ) | cfg.get('model_wrapper_cfg', {})
    hooks = [dict(type=FiniteHook.__name__)]
    if launcher != 'none':
        hooks.append(dict(type=ReduceLossHook.__name__))
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), *hooks]
    import_quietly(cfg.get('default_scope', 'mmengine'))
    register_safe_loader()
    runner = (ShardedRunner if 'strategy' in cfg else Runner).from_cfg(cfg)
    if cfg.get('default_scope') == 'mmseg':
        runner.register_hook(CheckMapsHook(), priority='HIGHEST')
    return runner
