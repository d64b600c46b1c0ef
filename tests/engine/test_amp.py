import pytest
import torch
from torch import nn

from mogacore.engine.amp import CpuAmpOptimWrapper


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
