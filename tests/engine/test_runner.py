"""The Runner loads weights strictly, and silently ignores no argument of mmengine."""

import pytest
import torch
from mmengine.model import BaseModel

from mogacore.checkpoint import CheckpointError, register_safe_loader
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


@pytest.mark.parametrize(
    'wrap',
    [lambda sd: sd, lambda sd: {'model': sd}, lambda sd: {f'_orig_mod.module.{name}': v for name, v in sd.items()}],
    ids=['bare', 'model', 'wrapped'],
)
def test_an_average_starts_from_the_loaded_weights_of_any_container(tmp_path, wrap):
    """mmengine's EMAHook reads only state_dict, by the names of the model."""
    register_safe_loader()
    weights = {'layer.weight': torch.ones(1, 2), 'layer.bias': torch.full((1,), 3.0)}
    torch.save(wrap(weights), tmp_path / 'w.pth')
    runner = training(tmp_path, load_from=str(tmp_path / 'w.pth'))
    runner.call_hook('before_run')
    runner.load_or_resume()
    average = runner.hooks[0].ema_model.module.state_dict()
    assert all(torch.equal(average[name], value) for name, value in weights.items())


def training(tmp_path, **settings):
    return Runner(
        Toy(), work_dir=str(tmp_path / 'run'), log_level='ERROR', experiment_name=tmp_path.name,
        train_dataloader=dict(dataset=[0], sampler=dict(type='DefaultSampler')), train_cfg=dict(max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)), cfg=dict(), default_hooks=dict.fromkeys(
            ('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint')),
        custom_hooks=[dict(type='EMAHook')], **settings,
    )  # fmt: skip
