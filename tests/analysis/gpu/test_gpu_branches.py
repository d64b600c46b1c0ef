"""The branches for GPUs, run on the CPU with functions of torch.cuda replaced."""

import pytest
import torch

from mogacore.analysis.gpu import numerics, parallel, run, speed, training
from mogacore.analysis.gpu.results import at_most
from mogacore.analysis.gpu.subjects import Plan


@pytest.fixture
def plan(monkeypatch):
    """A quick plan for the CPU that passes for a GPU."""
    monkeypatch.setattr(Plan, 'is_cuda', True)
    for name in ('synchronize', 'reset_peak_memory_stats', 'empty_cache'):
        monkeypatch.setattr(torch.cuda, name, lambda *args: None)
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, 'memory_allocated', lambda device: 1000)
    return Plan('cpu', quick=True)


def test_peak_memory_is_compared_with_the_plain_block(plan, monkeypatch):
    peaks = iter([3000, 5000, 2000, 2000, 4000, 5000, 2500, 2000])
    monkeypatch.setattr(torch.cuda, 'max_memory_allocated', lambda device: next(peaks))
    results = [*training.memory(plan)]
    assert [result.figure for result in results] == [0.5, 1.0, 0.75, 1.5]
    assert [result.status for result in results] == ['ok', 'ok', 'ok', 'FAILED']
    assert results[0].name == 'fp32, tiny: peak memory in training, relative to plain'
    assert results[3].name == 'bf16, tiny: peak memory in inference, relative to plain'


def test_losses_are_checked_in_tf32_too(plan):
    results = [*training.losses(plan)]
    assert {result.name.partition(',')[0] for result in results} == {'fp32', 'tf32', 'bf16', 'fp16'}
    assert {result.status for result in results} == {'ok'}


def test_cuda_graphs_are_compared(plan, monkeypatch):
    modes = []
    monkeypatch.setattr(torch, 'compile', lambda model, **settings: modes.append(settings) or model)
    results = [*numerics.compiled(plan)]
    assert {'mode': 'reduce-overhead'} in modes and {result.status for result in results} == {'ok'}
    assert results[1].name == 'tiny, aot_eager with CUDA graphs: logits'


def test_speed_reports_peak_memory(plan, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'max_memory_allocated', lambda device: 3 * 2**29)
    rows = []
    (result,) = run._row(speed.Case('moganet_xtiny', 'test'), rows, plan)
    assert rows[0]['peak_bytes'] == 3 * 2**29 and result.note.endswith('1.50 GiB')


@pytest.mark.parametrize('num_gpus, started', [(1, [('nccl', 1), ('gloo', 2)]), (2, [('nccl', 2)]), (8, [('nccl', 8)])])
def test_ddp_uses_all_gpus_and_shares_a_single_one(plan, monkeypatch, num_gpus, started):
    calls = []
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: num_gpus)
    monkeypatch.setattr(parallel, 'run_processes', lambda *args: calls.append(args) or {'frozen statistics': 0.0})
    results = [*parallel.data_parallel(plan)]
    assert calls == [(*call, True, True) for call in started]
    single = ['one GPU: nothing is exchanged between GPUs', 'both processes share the GPU']
    assert [result.note for result in results] == (single if num_gpus == 1 else [''])


def test_processes_that_fail_are_a_failed_check(plan, monkeypatch):
    def broken(*args):
        raise RuntimeError('rank 0: NCCL error')

    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    monkeypatch.setattr(parallel, 'run_processes', broken)
    (result,) = parallel.data_parallel(plan)
    assert (result.status, result.note) == ('FAILED', 'rank 0: NCCL error')


def test_compiling_needs_the_headers_of_python(plan, monkeypatch, tmp_path):
    monkeypatch.setattr('sysconfig.get_path', lambda name: str(tmp_path))
    assert 'Python.h' in numerics.missing_compiler(Plan('cuda'))
    (tmp_path / 'Python.h').touch()
    assert numerics.missing_compiler(Plan('cuda')) == ''


@pytest.mark.parametrize('name, index', [('cuda', 0), ('cuda:3', 3)])
def test_the_chosen_gpu_becomes_the_current_one(monkeypatch, name, index):
    chosen = []
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'set_device', chosen.append)
    monkeypatch.setattr(run, 'choose_device', lambda device: device)
    assert run.check_device(name) == name and chosen == [index]


def test_full_size_in_the_default_time(plan):
    """The estimates of all parts leave time for the first ten measurements of speed."""
    estimates = sum(on_gpu for _, on_gpu, _ in run.RUN.values())
    assert estimates + sum(case.estimate_s for case in speed.cases(Plan('cuda'))[:10]) <= 8 * 60
    assert at_most('', estimates, 5 * 60).status == 'ok'
