"""Short names of configs in the shell scripts, with a stand-in for sbatch."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT


@pytest.fixture
def queue(tmp_path):
    """Function that calls sbatch_train.sh with the given configs."""
    (tmp_path / 'sbatch').write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / 'sbatch').chmod(0o755)
    env = {**os.environ, 'PATH': f'{tmp_path}:/usr/bin:/bin', 'PYTHON': sys.executable, 'PYTHONPATH': str(ROOT)}

    def call(configs):
        return subprocess.run(
            ['bash', ROOT / 'tools' / 'sbatch_train.sh', 'part', 'job', configs, 'work'],
            cwd=tmp_path, capture_output=True, text=True, env=env,
        )  # fmt: skip

    return call


def test_sbatch_train_accepts_short_names(queue):
    done = queue('classification/moganet-xtiny_digits pose/td-hm_moganet-xtiny_digits')
    assert done.returncode == 0, done.stderr
    assert '--array=0-1' in done.stdout
    assert 'classification/moganet-xtiny_digits pose/td-hm_moganet-xtiny_digits' in done.stdout


def test_sbatch_train_rejects_a_wrong_name_in_one_line(queue):
    done = queue('classification/moganet-xtiny_digits classification/moganet-xtiny_digit')
    assert done.returncode == 2 and done.stdout == ''
    (line,) = done.stderr.splitlines()
    assert line.startswith('error: config classification/moganet-xtiny_digit not found: did you mean classification')
