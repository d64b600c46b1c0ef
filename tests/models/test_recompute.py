import torch
from torch import nn

from mogacore.models.recompute import FrozenRunningStats


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
