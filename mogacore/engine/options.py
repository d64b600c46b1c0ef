"""The flags of a training run, in one place."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RunOptions:
    """What a user asks of a training run besides the config's own settings.

    Args:
        config: Config file.
        work_dir: Folder of logs and checkpoints; None is ``work_dirs/`` and the config's name.
        resume: 'auto' resumes from the newest complete checkpoint of the work dir, or starts where there is none; a
            path resumes from that file; None starts a new run.
        amp: Train in mixed precision.
        auto_scale_lr: Scale the learning rate by the real batch over the recipe's.
        seed: Seed of everything random; None is the config's. A resumed run keeps the one it started with.
        cfg_options: Settings that override the config's.
        launcher: What started the processes: none, pytorch, slurm or mpi.
    """

    config: str
    work_dir: str | None = None
    resume: str | None = None
    amp: bool = False
    auto_scale_lr: bool = False
    seed: int | None = None
    cfg_options: dict | None = None
    launcher: str = 'none'
