"""The Runner loads weights strictly, and silently ignores no argument of mmengine."""

import pytest
import torch
from conftest import free_ports
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS

from mogacore.checkpoint import CheckpointError, register_safe_loader
from mogacore.engine.runner import Runner, train
from mogacore.engine.runner import test as run_test
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


@MODELS.register_module()
class NormToy(BaseModel):
    def __init__(self, norm='BatchNorm1d'):
        super().__init__()
        self.norm = dict(SyncBN=torch.nn.SyncBatchNorm, BN=torch.nn.BatchNorm1d).get(norm, torch.nn.BatchNorm1d)(2)

    def forward(self, inputs, mode='tensor'):
        output = self.norm(torch.stack(inputs))
        return dict(loss=output.square().mean() + self.norm.weight.sum()) if mode == 'loss' else list(output)


DATASETS.register_module(name='FourPairs', module=lambda: [dict(inputs=torch.randn(2)) for _ in range(4)])


@METRICS.register_module()
class CountMetric(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results += data_samples

    def compute_metrics(self, results):
        return dict(count=len(results))


@pytest.mark.skipif(torch.cuda.is_available(), reason='tests the behavior without a GPU')
@pytest.mark.parametrize('setting', ["sync_bn = 'torch'", "model = dict(norm='SyncBN')"])
def test_synchronized_norms_train_and_test_in_processes_on_cpus(tmp_path, monkeypatch, setting):
    (tmp_path / 'toy.py').write_text(f"""
model = dict(type='NormToy')
train_dataloader = dict(batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler'), dataset=dict(type='FourPairs'))
test_dataloader = train_dataloader
test_evaluator = dict(type='CountMetric')
test_cfg = dict()
train_cfg = dict(by_epoch=True, max_epochs=1)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01))
default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1))
default_scope = 'mmengine'
log_level = 'ERROR'
{setting.replace('dict(', "dict(type='NormToy', ")}
""")
    config, run = str(tmp_path / 'toy.py'), str(tmp_path / 'run')
    for launch in (
        lambda: train(config, work_dir=run, launcher='pytorch'),
        lambda: run_test(config, f'{run}/epoch_1.pth', run, launcher='pytorch'),
    ):
        environ = dict(RANK=0, WORLD_SIZE=1, LOCAL_RANK=0, MASTER_ADDR='127.0.0.1', MASTER_PORT=free_ports(1)[0])
        for name, value in environ.items():
            monkeypatch.setenv(name, str(value))
        result = launch()
    assert result == dict(count=4)
