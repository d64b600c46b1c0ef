"""The command gpu-check as a whole, on the CPU."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from mogacore.analysis.gpu import PARTS, parallel, run, speed
from mogacore.analysis.gpu.results import Skip, at_most
from mogacore.cli.gpu_check import main
from mogacore.errors import UserError
from mogacore.models import accelerated, convolutions


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """The quick check in an empty folder, with mogacore on the path only and many packages missing."""
    folder = tmp_path_factory.mktemp('whole')
    script = Path(__file__).with_name('blocked_gpu_check.py')
    environment = {name: value for name, value in os.environ.items() if name != 'MOGACORE_ACCELERATED'}
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', script, '--device', 'cpu', '--quick', '--out', 'report'], cwd=folder,
        capture_output=True, text=True, env={**environment, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'},
    )  # fmt: skip
    return done, folder / 'report'


def check(tmp_path, *args):
    """Exit code of the command and its report."""
    code = main(['--device', 'cpu', '--quick', '--out', str(tmp_path), *args])
    return code, json.loads((tmp_path / 'gpu-check.json').read_text())


def test_quick_check_passes_without_task_libraries(whole):
    done, folder = whole
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == 'report/gpu-check.json and report/gpu-check.md written'
    assert ', 0 FAILED, 0 skipped in ' in lines[-2]
    assert sorted(path.name for path in folder.iterdir()) == ['gpu-check.json', 'gpu-check.md']


def test_report_has_every_part_and_the_counts_add_up(whole):
    report = json.loads((whole[1] / 'gpu-check.json').read_text())
    assert set(report) == {'settings', 'machine', 'started', 'seconds', 'complete', 'counts', 'checks', 'speed'}
    assert report['complete'] and report['settings']['quick'] and report['machine']['torch'] == torch.__version__
    assert [*dict.fromkeys(check['part'] for check in report['checks'])] == list(PARTS)
    assert report['counts'] == {'ok': len(report['checks']), 'FAILED': 0, 'skipped': 0}
    for found in report['checks']:
        assert set(found) == {'part', 'name', 'status', 'figure', 'bar', 'note', 'traceback'}
        assert found['part'] == 'speed' or 0 <= found['figure'] <= found['bar']
    names = [check['name'] for check in report['checks']]
    assert len(set(names)) == len(names)
    for words in ('fp32', 'bf16', 'fp16', 'plain', 'aot_eager', 'DDP, gloo, 2 processes', 'overflow'):
        assert any(words in name for name in names), words


def test_speed_is_measured_beside_torchvision(whole):
    report = json.loads((whole[1] / 'gpu-check.json').read_text())
    assert [(row['network'], row['mode']) for row in report['speed']] == [
        ('moganet_xtiny', 'test'), ('moganet_xtiny', 'train'), ('convnext_tiny', 'test'),
    ]  # fmt: skip
    assert [row['parameters'] for row in report['speed'][1:3]] == [2_956_066, 28_589_128]
    for row in report['speed']:
        assert row['images_per_s'] == pytest.approx(1e3 * row['batch_size'] / row['ms'])


def test_markdown_has_a_line_for_each_result(whole):
    report = json.loads((whole[1] / 'gpu-check.json').read_text())
    page = (whole[1] / 'gpu-check.md').read_text()
    for found in report['checks']:
        assert found['part'] == 'speed' or f'| {found["name"]} | ok | {found["figure"]:.2g} |' in page
    for row in report['speed']:
        assert (
            f'| `{row["network"]}` | {row["mode"]} | bf16 | channels_last | no | 4 of 64 px | {row["ms"]:.1f} ' in page
        )
    assert 'Quick check' in page and 'did not reach' not in page
    widths = {line.count('|') for line in page.splitlines() if line.startswith('| `')}
    assert widths == {11}


def test_a_wrong_value_of_the_accelerated_block_fails(tmp_path, monkeypatch, capsys):
    right = accelerated._orders
    monkeypatch.setattr(accelerated, '_orders', lambda value, context: right(value, context) * 1.01)
    code, report = check(tmp_path, '--only', 'golden', 'float64', 'layouts')
    assert code == 1 and report['counts']['FAILED'] > 20  # logits and gradients of all layouts
    failed = {found['name'] for found in report['checks'] if found['status'] == 'FAILED'}
    assert 'fp32, xtiny, accelerated: published logits' in failed
    assert 'fp32, xtiny, plain: published logits' not in failed
    assert {'float64, tiny: logits', 'tiny, strided images: logits'} <= failed
    shown = capsys.readouterr().out
    assert 'FAILED   float64, tiny: logits  ' in shown and f'{len(failed)} FAILED' in shown
    assert '| FAILED |' in (tmp_path / 'gpu-check.md').read_text()


def test_a_wrong_gradient_of_one_role_fails_in_every_precision(tmp_path, monkeypatch):
    right = convolutions.depthwise_conv_backward

    def wrong(grad, x, weight, dilation=1):
        grad_x, grad_weight, grad_bias = right(grad, x, weight, dilation)
        return grad_x, grad_weight, grad_bias * (1 + (dilation == 3))

    monkeypatch.setattr(accelerated, 'depthwise_conv_backward', wrong)
    code, report = check(tmp_path, '--only', 'precisions', 'float64')
    assert code == 1
    failed = [found['name'] for found in report['checks'] if found['status'] == 'FAILED']
    assert not any('logits' in name for name in failed)
    for precision in ('float64', 'fp32', 'bf16', 'fp16'):
        assert any(name.startswith(f'{precision}, tiny') and 'gradients' in name for name in failed), precision
    (note,) = (check['note'] for check in report['checks'] if check['name'] == 'float64, tiny: gradients')
    assert note == 'largest for block.attn.value.DW_conv2.bias'


def test_acceleration_that_is_off_fails(tmp_path):
    with accelerated.disabled():
        code, report = check(tmp_path, '--only', 'golden')
    assert code == 1
    (failed,) = (found for found in report['checks'] if found['status'] == 'FAILED')
    assert failed['name'] == 'blocks that are not accelerated' and failed['figure'] == 18


def test_an_exception_does_not_end_the_other_parts(tmp_path, monkeypatch):
    def broken(plan):
        """Always broken."""
        yield at_most('first', 0.5, 1)
        raise RuntimeError('no kernel image\nis available')

    monkeypatch.setitem(run.RUN, 'float64', (broken, 1, 1))
    code, report = check(tmp_path, '--only', 'float64', 'memory')
    assert code == 1 and report['counts'] == {'ok': 2, 'FAILED': 1, 'skipped': 0}
    assert report['checks'][1]['name'] == 'float64' and 'in broken' in report['checks'][1]['traceback']
    assert report['checks'][1]['note'] == 'RuntimeError: no kernel image'


@pytest.mark.parametrize('error', [Skip('no compiler'), torch.cuda.OutOfMemoryError('out')])
def test_a_part_that_cannot_run_is_skipped(tmp_path, monkeypatch, error):
    def impossible(plan):
        """Always impossible."""
        raise error
        yield

    monkeypatch.setitem(run.RUN, 'float64', (impossible, 1, 1))
    code, report = check(tmp_path, '--only', 'float64')
    assert code == 0 and report['counts'] == {'ok': 0, 'FAILED': 0, 'skipped': 1}
    assert report['checks'][0]['note'] in ('no compiler', 'out of memory')


def test_interrupted_check_keeps_what_is_done(tmp_path, monkeypatch):
    def interrupted(plan):
        """Always interrupted."""
        raise KeyboardInterrupt
        yield

    monkeypatch.setitem(run.RUN, 'float64', (interrupted, 1, 1))
    with pytest.raises(KeyboardInterrupt):
        check(tmp_path, '--only', 'memory', 'float64', 'golden')
    report = json.loads((tmp_path / 'gpu-check.json').read_text())
    assert not report['complete'] and {found['part'] for found in report['checks']} == {'golden'}
    assert 'did not reach its end' in (tmp_path / 'gpu-check.md').read_text()


class Clock:
    """Seconds that pass only when a part runs."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize(
    'minutes, parts, rows',
    # Parts take 25 s and are expected to take 30 s; rows take 36 s and are expected to take 5 s.
    [(8, 8, 3), (4.0, 8, 1), (1.25, 2, 1), (0.05, 0, 0)],
)
def test_what_does_not_fit_into_the_budget_is_skipped(tmp_path, monkeypatch, minutes, parts, rows):
    clock, ran = Clock(), []

    def part(plan):
        """Takes 25 seconds."""
        clock.now += 25
        ran.append('part')
        yield at_most('figure', 0, 1)

    def measure(case, plan):
        clock.now += 36
        ran.append('row')
        return {**vars(case), 'batch_size': 2, 'image_size': 64, 'ms': 4.0, 'images_per_s': 500.0, 'peak_bytes': None,
                'parameters': 1, 'note': ''}  # fmt: skip

    for name in run.RUN:
        monkeypatch.setitem(run.RUN, name, (part, 30, 30))
    monkeypatch.setattr(speed, 'measure', measure)
    lines = []
    report = run.gpu_check('cpu', True, minutes, tmp_path, show=lines.append, clock=clock)
    assert (ran.count('part'), ran.count('row')) == (parts, rows)
    assert report['counts'] == {'ok': parts + rows, 'FAILED': 0, 'skipped': 11 - parts - rows}
    assert report['seconds'] == 25 * parts + 36 * rows
    assert all('no time left' in line for line in lines if line.startswith('skipped'))


def test_a_part_is_stopped_at_the_end_of_the_time(tmp_path, monkeypatch):
    def slow(plan):
        """Takes a minute, and takes an exception for a failure, as torch.compile does."""
        yield at_most('first', 0, 1)
        try:
            time.sleep(60)
        except Exception as error:
            raise RuntimeError('failed') from error

    monkeypatch.setitem(run.RUN, 'float64', (slow, 0, 0))
    start = time.monotonic()
    code, report = check(tmp_path, '--only', 'float64', 'memory', '--minutes', '0.01')
    assert code == 0 and time.monotonic() - start < 30
    assert [(found['name'], found['status']) for found in report['checks']] == [
        ('first', 'ok'), ('float64', 'skipped'), ('memory', 'skipped'),
    ]  # fmt: skip
    assert report['checks'][1]['note'] == 'stopped, since the time is over' and report['complete']
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0 and signal.getsignal(signal.SIGALRM) == signal.SIG_DFL


def test_without_a_gpu_the_command_says_so_in_one_line(tmp_path):
    code = 'import sys, torch; torch.cuda.is_available = lambda: False; from mogacore.cli.main import main; main()'
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code, 'gpu-check'], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 2 and not done.stdout and not list(tmp_path.iterdir())
    (line,) = done.stderr.splitlines()
    assert line.startswith('error: --device cuda is not available (torch finds no GPU): ')
    assert '--device cpu --quick' in line


@pytest.mark.parametrize(
    'settings, message',
    [
        (dict(device='tpu'), '--device tpu is unknown: choose cuda'),
        (dict(minutes=0), '0 minutes'),
        (dict(minutes=float('nan')), 'nan minutes'),
        (dict(batch_size=0), 'batch size 0'),
        (dict(only=['speeed']), "part 'speeed' is unknown: choose from golden"),
        (dict(out='file'), 'folder .*file cannot be'),
    ],
)
def test_wrong_settings_are_reported_in_one_line(tmp_path, settings, message):
    (tmp_path / 'file').touch()
    settings = {'device': 'cpu', 'quick': True, **settings, 'out': tmp_path / settings.get('out', 'out')}
    with pytest.raises(UserError, match=message) as caught:
        run.gpu_check(**settings)
    assert '\n' not in str(caught.value)


def test_speed_of_a_cpu_is_not_measured_in_full_size(tmp_path):
    report = run.gpu_check('cpu', out=tmp_path, only=['speed'], show=lambda line: None)
    assert report['counts']['skipped'] == 1 and not report['speed']
    assert 'Not measured.' in (tmp_path / 'gpu-check.md').read_text()


def test_processes_that_hang_are_terminated():
    with pytest.raises(RuntimeError, match='2 of 2 processes did not end within 0 s'):
        parallel.run_processes('gloo', 2, True, False, timeout_s=0.1)


def test_a_process_that_fails_is_reported(tmp_path, monkeypatch):
    """In this process: rank 0 of a backend that does not exist."""
    with pytest.raises(SystemExit):
        parallel._work(0, 'smoke-signals', 1, True, False, str(tmp_path))
    assert (tmp_path / 'failed-0').read_text().startswith('rank 0: ')


def test_gradients_that_differ_between_processes_fail(monkeypatch):
    from mogacore.analysis.gpu.subjects import Plan

    monkeypatch.setattr(parallel, 'run_processes', lambda *args: {'frozen statistics': 1e-3})
    (result,) = parallel.data_parallel(Plan('cpu', True))
    assert result.status == 'FAILED' and result.name == 'DDP, gloo, 2 processes: frozen statistics'
