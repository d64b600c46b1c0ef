import json
import re
import subprocess
import sys

import pytest
from conftest import ROOT

from mogacore.cli import doctor as module
from mogacore.cli.doctor import (
    ABSENT,
    FAIL,
    OK,
    Finding,
    describe,
    find_conflicts,
    format_table,
    installed_distributions,
    run_probe,
)

DOCTOR = ROOT / 'tools' / 'doctor.py'


def packages(folder, *requirements, files=('{name}/__init__.py',)):
    """Metadata that pip would write to ``folder`` for each 'name==version'."""
    for requirement in requirements:
        name, version = requirement.split('==')
        info = folder / f'{name.replace("-", "_")}-{version}.dist-info'
        info.mkdir(parents=True)
        (info / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n')
        (info / 'RECORD').write_text(''.join(f'{file.format(name=name)},,\n' for file in files))
    return installed_distributions([str(folder)])


def test_pinned_environment_has_no_conflict(tmp_path):
    pins = [
        line.split(' ;')[0]
        for line in (ROOT / 'requirements.txt').read_text().splitlines()
        if line and not line.startswith('#')
    ]
    assert find_conflicts(packages(tmp_path, *pins)) == []


@pytest.mark.parametrize(
    'installed, detail, advice',
    [
        (['mmengine==0.10.7', 'onedl-mmengine==0.10.12'], 'both install mmengine', 'uninstall -y mmengine onedl'),
        (['mmcv==2.1.0', 'onedl-mmcv==2.3.6'], 'both install mmcv', 'uninstall -y mmcv onedl-mmcv'),
        (['mmcv==2.1.0', 'mmcv-lite==2.1.0'], 'both install mmcv', 'uninstall -y mmcv mmcv-lite'),
        (['mmdet==3.3.0', 'onedl-mmdetection==3.5.1'], 'both install mmdet', 'onedl-mmdetection'),
        (['mmsegmentation==1.2.2', 'onedl_mmsegmentation==1.4.2'], 'both install mmseg', 'onedl-mmsegmentation'),
        (['mmpretrain==1.2.0', 'onedl-mmpretrain==1.3.6'], 'both install mmpretrain', 'onedl-mmpretrain'),
        (['opencv-python==4.11.0.86', 'opencv-python-headless==4.11.0.86'], 'all .* install cv2', 'python-headless'),
        (['torch==2.13.0+cpu', 'torchvision==0.28.0+cpu'], 'torchvision::nms does not exist', 'torch torchvision'),
        (['torch==2.11.0', 'torchvision==0.25.0'], 'needs torchvision 0.26', 'torch torchvision'),
        (['torch==2.3.1'], 'needs torch >= 2.4', 'torch'),
        (['numpy==2.1.0', 'xtcocotools==1.14.3'], 'fails on numpy 2', 'faster-coco-eval'),
        (['torch==2.6.0', 'mmengine==0.10.7'], 'cannot load ordinary checkpoints', 'onedl-mmengine'),
        (['setuptools==82.0.1'], 'no pkg_resources', 'setuptools'),
    ],
)  # fmt: skip
def test_each_known_conflict_is_reported_with_its_fix(tmp_path, installed, detail, advice):
    findings = [f for f in find_conflicts(packages(tmp_path, *installed)) if re.search(detail, f.detail)]
    assert len(findings) == 1
    assert findings[0].status == FAIL
    assert advice in findings[0].advice
    for requirement in installed:
        assert requirement.split('==')[1] in findings[0].installed


@pytest.mark.parametrize(
    'installed',
    [
        ['torch==2.5.1', 'torchvision==0.20.1', 'mmengine==0.10.7', 'mmdet==3.3.0'],
        ['torch==2.13.0', 'torchvision==0.28.0', 'onedl-mmengine==0.10.12', 'mmpose==1.3.2'],
        ['numpy==2.2.0', 'opencv-python==4.12.0.88', 'setuptools==81.0.0'],
        ['numpy==2.2.0', 'xtcocotools==1.14.3', 'faster-coco-eval==1.8.0'],
    ],
)  # fmt: skip
def test_combinations_that_work_are_not_reported(tmp_path, installed):
    assert find_conflicts(packages(tmp_path, *installed)) == []


@pytest.mark.parametrize('extension', [(), ('mmcv/_ext.cpython-311-x86_64-linux-gnu.so',)], ids=['pure', 'compiled'])
def test_mmcv_conflicts_with_nothing_compiled_or_not(tmp_path, extension):
    assert find_conflicts(packages(tmp_path, 'onedl-mmcv==2.3.6', files=('mmcv/__init__.py', *extension))) == []


def test_original_and_fork_are_distinguished(tmp_path):
    found = packages(tmp_path, 'mmdet==3.3.0', 'onedl-mmengine==0.10.12')
    assert describe('mmdet', found) == 'mmdet 3.3.0 (original)'
    assert describe('mmengine', found) == 'onedl-mmengine 0.10.12 (OneDL)'
    assert describe('mmseg', found) == ''


def test_leftovers_of_an_uninstall_are_skipped(tmp_path):
    (tmp_path / 'gone-1.0.dist-info').mkdir()
    assert packages(tmp_path) == {}


def test_crash_or_exception_is_confined_to_its_probe():
    assert run_probe('import os; os.abort()') == (False, 'crashed with signal 6')
    assert run_probe('raise OSError("no libGL")') == (False, 'OSError: no libGL')
    assert run_probe('print("first"); print("last")') == (True, 'last')


def test_each_check_is_reported_when_it_ends(monkeypatch):
    monkeypatch.setattr(module, 'run_probe', lambda code: (code != module.PROBES['mogacore'], ''))
    lines = []
    findings = module.examine(installed_distributions(), lines.append)
    tried = [finding for finding in findings if finding.name in module.PROBES and finding.status != ABSENT]
    assert [line.partition(' checked: ')[0] for line in lines] == [
        f'{n} of {len(lines)}' for n in range(1, len(lines) + 1)
    ]
    assert {line.partition(': ')[2] for line in lines} == {f'{finding.name} {finding.status}' for finding in tried}
    assert any(line.endswith('mogacore FAIL') for line in lines)


@pytest.mark.parametrize('is_terminal', [True, False])
def test_progress_goes_to_a_terminal_only(is_terminal, monkeypatch, capsys):
    monkeypatch.setattr(module, 'run_probe', lambda code: (True, ''))
    monkeypatch.setattr(sys.stderr, 'isatty', lambda: is_terminal)
    module.main(['--json'])
    out, err = capsys.readouterr()
    assert json.loads(out)['findings']
    assert (len(err.splitlines()) > 2) == is_terminal


def test_table_shows_the_fix_below_each_failure():
    table = format_table([
        Finding('torch', OK, 'torch 2.11.0'),
        Finding('mmcv', FAIL, 'onedl-mmcv 2.3.6 (OneDL)', 'no _ext', 'compile it'),
    ])  # fmt: skip
    lines = table.splitlines()
    assert lines[0].split() == ['torch', 'ok', 'torch', '2.11.0']
    assert lines[1].endswith('no _ext') and lines[1].index('onedl') == lines[0].index('torch 2.11')
    assert lines[2].strip() == '-> compile it'


def doctor(*args, python_options=()):
    done = subprocess.run(
        [sys.executable, *python_options, DOCTOR, *args], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.stderr == ''
    return done


def test_exit_status_and_json_agree_on_the_real_environment():
    done = doctor('--json')
    report = json.loads(done.stdout)
    statuses = [finding['status'] for finding in report['findings']]
    assert set(statuses) <= {OK, ABSENT, FAIL}
    assert report['ok'] is (FAIL not in statuses)
    assert done.returncode == (FAIL in statuses)
    assert all(finding['advice'] for finding in report['findings'] if finding['status'] != OK)


def test_doctor_runs_with_nothing_installed():
    done = doctor('--json', python_options=['-I', '-S'])
    findings = {finding['name']: finding for finding in json.loads(done.stdout)['findings']}
    assert done.returncode == 1
    assert findings['torch']['status'] == FAIL and 'torch' in findings['torch']['advice']
    assert findings['mmdet']['status'] == ABSENT and 'onedl-mmdetection' in findings['mmdet']['advice']
