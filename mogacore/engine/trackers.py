"""Experiment trackers of a training: TensorBoard, Weights & Biases, MLflow, by mmengine's visualization backends.

A tracker writes to ``trackers/NAME`` in the work dir, and a resumed run continues its log. Only rank 0 writes.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import VISBACKENDS
from mmengine.visualization.vis_backend import MLflowVisBackend, TensorboardVisBackend, WandbVisBackend, force_init_env

from mogacore.errors import UserError
from mogacore.files import write_text
from mogacore.text import type_name

TRACKERS = {
    'tensorboard': ('TensorBoardTracker', 'TensorboardVisBackend'),
    'wandb': ('WandbTracker', 'WandbVisBackend'),
    'mlflow': ('MLflowTracker', 'MLflowVisBackend'),
}
FOLDER = 'trackers'
TIMES = ('time', 'data_time')


def check_trackers(names: Iterable[str]) -> None:
    """Check that trackers are known and their packages installed.

    Raises:
        UserError: If one is not.
    """
    for name in names:
        if name not in TRACKERS:
            raise UserError(f'tracker {name!r} is unknown: choose from {", ".join(TRACKERS)}')
        if find_spec(name) is None:
            raise UserError(f'--track {name} needs the package {name}, which is not installed: pip install {name}')


def add_trackers(cfg: Config, names: Iterable[str]) -> None:
    """Add trackers to the visualizer of a training config, in place.

    A backend of mmengine for the same tracker is replaced; its settings are kept.

    Args:
        cfg: Config with ``work_dir``, and ``resume`` if the run continues another one.
        names: Keys of ``TRACKERS``.

    Raises:
        UserError: See :func:`check_trackers`.
    """
    names = list(dict.fromkeys(names))
    check_trackers(names)
    if not names:
        return
    visualizer = cfg.get('visualizer') or dict(type='Visualizer')
    backends = list(visualizer.get('vis_backends') or [dict(type='LocalVisBackend')])
    for name in names:
        ours, theirs = TRACKERS[name]
        given: dict = next((backend for backend in backends if type_name(backend['type']) == theirs), {})
        settings = dict(given, type=ours, save_dir=str(Path(cfg.work_dir).resolve() / FOLDER / name))
        if name != 'tensorboard':
            settings['is_resumed'] = bool(cfg.get('resume'))
        backends = [backend for backend in backends if backend is not given] + [settings]
    cfg.visualizer = dict(visualizer, vis_backends=backends)


def run_id(folder: str | Path, is_resumed: bool) -> str:
    """Id of a run at a tracker, kept in the file ``run_id`` of ``folder``; a run that is not resumed gets a new one."""
    path = Path(folder) / 'run_id'
    if not (is_resumed and path.is_file()):
        write_text(path, uuid.uuid4().hex)
    return path.read_text().strip()


@VISBACKENDS.register_module()
class TensorBoardTracker(TensorboardVisBackend):
    """mmengine's backend for TensorBoard, which hides what an interrupted run logged after its last checkpoint.

    The times of a validation are left out: they are counted by epoch under the names of the times of the training,
    which are counted by iteration.
    """

    _has_started = False

    @force_init_env
    def add_scalars(self, scalar_dict: dict, step: int = 0, file_path: str | None = None, **kwargs) -> None:
        if 'iter' not in scalar_dict:
            scalar_dict = {name: value for name, value in scalar_dict.items() if name not in TIMES}
        elif not self._has_started:
            self._has_started = True
            # The writer opens another file in the same folder, which starts with the notice that hides later steps.
            self._tensorboard.close()
            self._tensorboard.purge_step = step
        super().add_scalars(scalar_dict, step, file_path, **kwargs)


@VISBACKENDS.register_module()
class WandbTracker(WandbVisBackend):
    """mmengine's backend for Weights & Biases with a lasting id of the run and the iteration as the horizontal axis.

    Args:
        save_dir: Folder of the local files.
        is_resumed: Continue the run whose id is in ``save_dir``.
        init_kwargs: Arguments of ``wandb.init``. The default project is that of ``WANDB_PROJECT``, or mogacore; the
            default name is that of the work dir.
        **kwargs: Further settings of mmengine's backend.
    """

    def __init__(self, save_dir: str, is_resumed: bool = False, init_kwargs: dict | None = None, **kwargs):
        defaults = dict(
            project=os.environ.get('WANDB_PROJECT', 'mogacore'),
            name=Path(save_dir).parents[1].name,
            resume='allow',
            allow_val_change=True,  # the config of a resumed run names its checkpoint
        )
        kwargs.setdefault('define_metric_cfg', [dict(name='*', step_metric='iter')])
        super().__init__(save_dir, init_kwargs=defaults | (init_kwargs or {}), **kwargs)
        self._is_resumed = is_resumed

    def _init_env(self) -> None:
        self._init_kwargs.setdefault('id', run_id(self._save_dir, self._is_resumed))
        super()._init_env()

    def close(self) -> None:
        if hasattr(self, '_wandb'):
            self._wandb.finish()  # mmengine calls join, which current versions lack


@VISBACKENDS.register_module()
class MLflowTracker(MLflowVisBackend):
    """mmengine's backend for MLflow, which continues the run of a resumed training.

    The config is stored as the file ``config.py`` only: MLflow refuses to change a parameter, as a resumed run would.

    Args:
        save_dir: Folder of the id of the run, and of the runs if there is no server.
        is_resumed: Continue the run whose id is in ``save_dir``.
        tracking_uri: Address of the server; None is that of ``MLFLOW_TRACKING_URI``, or a database in ``save_dir``.
        run_name: Name of the run; None is that of the work dir.
        **kwargs: Further settings of mmengine's backend.
    """

    def __init__(
        self,
        save_dir: str,
        is_resumed: bool = False,
        tracking_uri: str | None = None,
        run_name: str | None = None,
        **kwargs,
    ):
        uri = tracking_uri or os.environ.get('MLFLOW_TRACKING_URI') or f'sqlite:///{save_dir}/mlflow.db'
        if uri.startswith('sqlite:'):
            kwargs.setdefault('artifact_location', f'file://{save_dir}/artifacts')
        kwargs.setdefault('exp_name', 'mogacore')  # the artifacts of MLflow's default one are in the current folder
        super().__init__(save_dir, tracking_uri=uri, **kwargs)
        self._is_resumed, self._name = is_resumed, run_name or Path(save_dir).parents[1].name

    def _init_env(self) -> None:
        super()._init_env()
        path = Path(self._save_dir) / 'run_id'
        known = path.read_text().strip() if self._is_resumed and path.is_file() else None
        run = self._mlflow.start_run(run_id=known, run_name=None if known else self._name)
        write_text(path, run.info.run_id)

    @force_init_env
    def add_config(self, config: Config, **kwargs) -> None:
        self._mlflow.log_text(config.pretty_text, 'config.py')

    def close(self) -> None:
        if hasattr(self, '_mlflow'):
            self._mlflow.end_run()
