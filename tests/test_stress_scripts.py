"""A quick part of the scripts in tests/stress that let the machine fail and look for leaks."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

pytest.importorskip('mmpretrain')


def run_script(name, out, *arguments):
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', ROOT / 'tests' / 'stress' / name, *arguments, '--json', out],
        capture_output=True, text=True, timeout=300,
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads(out.read_text())


def test_faults_end_in_one_line_and_lose_nothing(tmp_path):
    report = run_script(
        'faults.py', tmp_path / 'report.json', '--tasks', 'classification', '--only', 'read-only', 'kill', 'two-runs',
        'environment', '--cases', 'stdin, stdout and stderr', 'LANG=C', '--number', '3',
    )  # fmt: skip
    assert report['counts']['failed'] == 0 and report['kills'] == 3
    assert report['counts']['passed'] >= 5  # mounts need root


def test_loading_data_leaves_nothing(tmp_path):
    cases = run_script('resources.py', tmp_path / 'report.json', '--only', 'ClassFolders', 'SequenceFile')
    assert [case['passed'] for case in cases] == [True] * 4
