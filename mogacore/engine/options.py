"""The options of a training run, in one place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mogacore.kinds import check_fields


@dataclass(frozen=True)
class RunOptions:
    """Options of a training run, in addition to the settings of its config.

    Args:
        config: Path or short name of the config.
        work_dir: Folder for logs and checkpoints; None means ``work_dirs/`` and the config's name.
        resume: 'auto' resumes from the newest intact checkpoint of the work dir, or starts a new run if there is none;
            a path resumes from that file; None starts a new run.
        precision: 'fp32', 'bf16' or 'fp16'; 'amp' for mixed precision in the config's type, or in bfloat16; None for
            the config's precision.
        auto_scale_lr: Scale the learning rate by the ratio of the actual batch size to the recipe's.
        seed: Seed of all random numbers; None means the config's. A resumed run keeps its original seed.
        cfg_options: Settings that override the config's.
        track: Experiment trackers that get the log, see :mod:`mogacore.engine.trackers`.
        check: 'sample' checks the data in about 20 seconds, 'full' reads every file.
        launcher: What started the processes: none, pytorch, slurm or mpi.

    Raises:
        UserError: If one is of another kind.
    """

    config: str
    work_dir: str | None = None
    resume: str | None = None
    precision: str | None = None
    auto_scale_lr: bool = False
    seed: int | None = None
    cfg_options: dict | None = None
    track: Sequence[str] = ()
    check: str = 'sample'
    launcher: str = 'none'

    def __post_init__(self) -> None:
        check_fields(self, 'the training')
