"""The Runner loads weights strictly, and silently ignores no argument of mmengine."""

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel

from mogacore.checkpoint import CheckpointError, register_safe_loader
from mogacore.engine import runner as engine
from mogacore.engine.runner import Runner
from mogacore.errors import UserError


class Toy(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def forward(self, inputs, mode='tensor'):
        return self.layer(inputs)


@pytest.fixture
def runner(tmp_path):
    register_safe_loader()
    return Runner(Toy(), work_dir=str(tmp_path / 'run'), log_level='ERROR', experiment_name=tmp_path.name)


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / 'toy.pth'
    torch.save({'module.layer.weight': torch.ones(1, 2), 'module.layer.bias': torch.full((1,), 3.0)}, path)
    return str(path)


def test_loads_a_file_with_mmengines_default_arguments(runner, checkpoint):
    runner.load_checkpoint(checkpoint, revise_keys=[(r'^module.', '')])
    assert runner.model(torch.ones(1, 2)).item() == 5


def test_map_location_is_honored(runner, checkpoint):
    locations = []
    runner.load_checkpoint(checkpoint, map_location=lambda storage, location: locations.append(location) or storage)
    assert locations == ['cpu', 'cpu']


@pytest.mark.parametrize('settings', [dict(strict=False), dict(revise_keys=[('^layer', 'head')])])
def test_unsupported_arguments_are_refused(runner, checkpoint, settings):
    with pytest.raises(UserError, match='|'.join(settings)):
        runner.load_checkpoint(checkpoint, **settings)
    with pytest.raises(CheckpointError, match='missing'):
        torch.save({'layer.weight': torch.ones(1, 2)}, checkpoint)
        runner.load_checkpoint(checkpoint)


def test_a_wrapper_of_the_config_keeps_its_settings_on_cpu(monkeypatch):
    monkeypatch.setattr(engine, 'is_distributed', lambda: True)
    monkeypatch.setattr(engine.torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(Runner, 'from_cfg', classmethod(lambda cls, cfg: cfg.model_wrapper_cfg))
    settings = dict(type='MMDistributedDataParallel', broadcast_buffers=True)
    built = engine._build_runner(Config(dict(default_scope='mmengine', model_wrapper_cfg=settings)), 'none')
    assert built == dict(settings, device_ids=None, find_unused_parameters=False)
    assert engine._build_runner(Config(dict(default_scope='mmengine')), 'none')['broadcast_buffers'] is False
