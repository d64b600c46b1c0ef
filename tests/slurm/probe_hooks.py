"""Hooks that tests add to training runs through ``custom_imports``."""

import json
import os
import time
from pathlib import Path

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class PaceHook(Hook):
    """Slows down each step, so that a test can act during training; writes the process id and step to a file."""

    def __init__(self, seconds: float):
        self.seconds = seconds

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        time.sleep(self.seconds)
        Path(runner.work_dir, f'rank_{get_rank()}').write_text(f'{os.getpid()} {runner.iter}')


@HOOKS.register_module()
class RecordSamplesHook(Hook):
    """Appends the image paths of each step to ``samples_RANK.jsonl`` in the work dir."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        names = [sample.img_path for sample in data_batch['data_samples']]
        with open(Path(runner.work_dir, f'samples_{get_rank()}.jsonl'), 'a') as file:
            file.write(json.dumps([runner.epoch, names]) + '\n')
