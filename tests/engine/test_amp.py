import pytest
import torch
from mmengine.config import Config
from torch import nn

from mogacore.engine import amp
from mogacore.engine.amp import CpuAmpOptimWrapper, cpu_has_bf16, set_precision
from mogacore.errors import UserError


def test_forward_runs_in_bfloat16_and_weights_stay_in_full_precision():
    model = nn.Linear(4, 2)
    wrapper = CpuAmpOptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    before = model.weight.detach().clone()
    with wrapper.optim_context(model):
        out = model(torch.ones(3, 4))
    assert out.dtype == torch.bfloat16
    wrapper.update_params(out.float().sum())
    assert model.weight.dtype == torch.float32
    torch.testing.assert_close(model.weight, before - 0.1 * 3)


def test_gradients_accumulate_under_autocast():
    model = nn.Linear(1, 1, bias=False)
    wrapper = CpuAmpOptimWrapper(torch.optim.SGD(model.parameters(), lr=1.0), accumulative_counts=2)
    wrapper.initialize_count_status(model, 0, 2)
    before = model.weight.item()
    for _ in range(2):
        with wrapper.optim_context(model):
            loss = model(torch.ones(1, 1)).float().sum()
        wrapper.update_params(loss)
    assert model.weight.item() == pytest.approx(before - 1.0)


SGD = dict(type='SGD', lr=0.1)
MIXED = dict(type='AmpOptimWrapper', dtype='bfloat16', loss_scale='dynamic', optimizer=SGD)
HALF = dict(type='AmpOptimWrapper', optimizer=SGD)


def settings(wrapper, precision=None):
    cfg = Config(dict(optim_wrapper=dict(wrapper)))
    set_precision(cfg, precision)
    return cfg.optim_wrapper.to_dict()


def device(monkeypatch, gpu, bf16):
    """Pretend to have a GPU or not, with or without bfloat16, and return the list of warnings."""
    warnings = []
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)
    monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda: bf16)
    monkeypatch.setattr(amp, 'cpu_has_bf16', lambda: bf16)
    monkeypatch.setattr(amp, 'print_log', lambda message, *_: warnings.append(message))
    return warnings


@pytest.mark.parametrize(
    'wrapper, precision, kind, dtype',
    [
        (dict(optimizer=SGD), None, None, None),
        (dict(optimizer=SGD), 'fp32', 'OptimWrapper', None),
        (dict(optimizer=SGD), 'amp', 'AmpOptimWrapper', 'bfloat16'),
        (dict(optimizer=SGD), 'fp16', 'AmpOptimWrapper', 'float16'),
        (MIXED, None, 'AmpOptimWrapper', 'bfloat16'),
        (MIXED, 'amp', 'AmpOptimWrapper', 'bfloat16'),
        (MIXED, 'fp32', 'OptimWrapper', None),
        (MIXED, 'fp16', 'AmpOptimWrapper', 'float16'),
        (HALF, 'amp', 'AmpOptimWrapper', 'float16'),
        (HALF, 'bf16', 'AmpOptimWrapper', 'bfloat16'),
    ],
)
def test_precision_on_a_gpu(monkeypatch, wrapper, precision, kind, dtype):
    warnings = device(monkeypatch, gpu=True, bf16=True)
    result = settings(wrapper, precision)
    assert (result.get('type'), result.get('dtype')) == (kind, dtype) and result['optimizer'] == SGD
    assert ('loss_scale' in result) == (dtype is not None)
    assert not warnings


@pytest.mark.parametrize(
    'wrapper, precision, kind, message',
    [
        (MIXED, None, 'OptimWrapper', 'training in fp32'),
        (dict(optimizer=SGD), 'amp', 'OptimWrapper', 'training in fp32'),
        (dict(optimizer=SGD), 'bf16', 'CpuAmpOptimWrapper', 'many times longer'),
        (MIXED, 'fp32', 'OptimWrapper', None),
    ],
)
def test_cpu_without_bfloat16_trains_in_fp32_unless_forced(monkeypatch, wrapper, precision, kind, message):
    warnings = device(monkeypatch, gpu=False, bf16=False)
    assert settings(wrapper, precision) == dict(type=kind, optimizer=SGD)
    assert len(warnings) == (message is not None) and all(message in warning for warning in warnings)


def test_cpu_with_bfloat16_trains_float16_configs_in_it(monkeypatch):
    assert not device(monkeypatch, gpu=False, bf16=True)
    assert settings(HALF) == dict(type='CpuAmpOptimWrapper', optimizer=SGD)
    with pytest.raises(UserError, match='fp16 needs a GPU: use bf16 or fp32'):
        settings(HALF, 'fp16')


def test_gpu_without_bfloat16_trains_in_float16(monkeypatch):
    warnings = device(monkeypatch, gpu=True, bf16=False)
    assert settings(MIXED) == dict(MIXED, dtype='float16')
    assert 'float16' in warnings[0]


def test_precision_applies_to_every_optimizer(monkeypatch):
    device(monkeypatch, gpu=True, bf16=True)
    result = settings(
        dict(constructor='Two', enc=dict(optimizer=SGD), dec=dict(type='OptimWrapper', optimizer=SGD)), 'amp'
    )
    assert result['constructor'] == 'Two'
    assert [result[name]['type'] for name in ('enc', 'dec')] == ['AmpOptimWrapper'] * 2


def test_precision_of_a_custom_wrapper_is_not_overridden():
    with pytest.raises(UserError, match='precision of its ApexOptimWrapper'):
        settings(dict(type='ApexOptimWrapper', optimizer=SGD), 'bf16')
    assert settings(dict(type='ApexOptimWrapper', optimizer=SGD))['type'] == 'ApexOptimWrapper'


@pytest.mark.parametrize(
    'flags, expected',
    [
        ('flags : fpu avx512f avx512_bf16 amx_tile', True),
        ('flags : fpu amx_bf16', True),
        ('Features : asimd bf16 i8mm', True),
        ('flags : fpu avx2 avx512f avx512_vnni', False),
    ],
)
def test_bfloat16_of_a_cpu_is_read_from_its_flags(tmp_path, flags, expected):
    path = tmp_path / 'cpuinfo'
    path.write_text(f'processor : 0\n{flags}\n')
    assert cpu_has_bf16(path) == expected
    assert cpu_has_bf16(tmp_path / 'none')
