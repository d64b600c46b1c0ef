"""Exact resume: the weights of runs that were killed, and the parts that make them so."""

import json
import os
import random
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT
from mmengine.config import Config
from mmengine.registry import DATA_SAMPLERS, DATASETS
from torch.utils.data import DataLoader, Dataset

from mogacore.engine import resume
from mogacore.engine.resume import EndlessBatches, SeededDataset, derive_seed, make_resumable, seeded, skip_batches

LIBRARIES = {'classification': 'mmpretrain', 'detection': 'mmdet', 'segmentation': 'mmseg', 'pose': 'mmpose'}


@pytest.mark.parametrize('task', LIBRARIES)
def test_runs_killed_at_five_steps_end_with_the_weights_of_a_run_never_stopped(task, tmp_path):
    pytest.importorskip(LIBRARIES[task])
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', ROOT / 'tests' / 'engine' / 'killed_runs.py', task, tmp_path],
        capture_output=True, text=True, timeout=300,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT), str(ROOT / 'tests')])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert len({run['step'] for run in report}) == 5
    assert {run['killed_by'] for run in report} == {signal.SIGKILL}
    assert [run['differs'] for run in report] == [[]] * 5, report
