import torch
from torch import nn

from mogacore.models.layers import MogaBlock
from mogacore.models.recompute import FrozenRunningStats, recompute


def test_frozen_running_stats_change_neither_output_nor_statistics():
    norm = nn.BatchNorm2d(4)
    x = torch.randn(3, 4, 5, 5)
    expected = norm(x)
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    with FrozenRunningStats(norm):
        assert torch.equal(norm(x), expected)
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())
    norm(x)
    assert norm.num_batches_tracked == 2


def test_a_norm_without_running_statistics_is_recomputed():
    block = MogaBlock(8, norm_cfg=dict(type='BN', track_running_stats=False))
    x = torch.randn(2, 8, 4, 4, requires_grad=True)
    expected = torch.autograd.grad(block(x).square().sum(), x)
    assert torch.equal(torch.autograd.grad(recompute(block, block, x).square().sum(), x)[0], expected[0])
