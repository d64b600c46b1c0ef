"""The Runner loads weights strictly, and silently ignores no argument of mmengine."""

import pytest
import torch
from conftest import free_ports
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import CheckpointHook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS
from mmengine.runner import EpochBasedTrainLoop
from toy_runs import CONFIG, ToyLine, rates, toy_run

from mogacore.checkpoint import CheckpointError, register_safe_loader
from mogacore.engine import runner as engine
from mogacore.engine.resume import ResumableEpochLoop
from mogacore.engine.runner import Runner, train
from mogacore.engine.runner import test as run_test
from mogacore.engine.saving import SafeCheckpointHook
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


def test_a_mismatch_names_the_settings_of_the_config(runner, checkpoint):
    torch.save({'layer.weight': torch.ones(1, 2)}, checkpoint)
    with pytest.raises(CheckpointError, match='in load_allow_missing and load_allow_unexpected of the config'):
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


@pytest.mark.parametrize('hook, loop', [
    (CheckpointHook, EpochBasedTrainLoop), ('mmengine.CheckpointHook', 'mmengine.EpochBasedTrainLoop')
])  # fmt: skip
def test_classes_and_full_names_are_made_resumable_as_names_are(hook, loop, tmp_path):
    options = {'default_hooks__checkpoint__type': hook, 'train_cfg__type': loop, 'train_cfg__max_epochs': 1}
    runner = toy_run(tmp_path, 'run', **options, param_scheduler=None)
    assert type(runner.train_loop) is ResumableEpochLoop
    assert sum(type(found) is SafeCheckpointHook for found in runner.hooks) == 1


STOPPING = "custom_hooks += [dict(type='EarlyStoppingHook', monitor='toy/score', rule='less', patience=2)]\n"


@pytest.mark.parametrize('loop, num_iters', [
    ('max_epochs=6, val_interval=1', 18),
    ('by_epoch=False, max_iters=36, val_interval=5', 15),
])  # fmt: skip
def test_early_stopping_ends_training(loop, num_iters, tmp_path):
    """The score is constant, so the first of three validations is the best one."""
    toy_run(tmp_path, 'run', config=f'{STOPPING}train_cfg = dict({loop})\nparam_scheduler = None\n')
    assert len(rates(tmp_path, 'run')) == num_iters


@pytest.mark.parametrize('hook', [
    STOPPING, STOPPING.replace('EarlyStoppingHook', 'mmengine.EarlyStoppingHook'),
    "default_hooks['stop'] = dict(type='EarlyStoppingHook', monitor='toy/score', rule='less')\n",
])  # fmt: skip
def test_a_config_with_early_stopping_is_tested(hook, tmp_path):
    config = tmp_path / 'config.py'
    loaders = 'test_dataloader, test_cfg, test_evaluator = val_dataloader, val_cfg, val_evaluator\n'
    # Workers may not be persistent if there are none.
    workers = 'val_dataloader.update(persistent_workers=True, prefetch_factor=4)\n'
    config.write_text(CONFIG.replace("dict(type='RecordHook')", '') + hook + workers + loaders)
    torch.save(ToyLine().state_dict(), tmp_path / 'toy.pth')
    name = {'experiment_name': tmp_path.name}
    metrics = run_test(str(config), str(tmp_path / 'toy.pth'), work_dir=str(tmp_path / 'test'), cfg_options=name)
    assert metrics == {'toy/score': 1.0}


def test_persistent_workers_are_ignored_without_workers(tmp_path):
    options = {f'{stage}_dataloader__persistent_workers': True for stage in ('train', 'val')}
    toy_run(tmp_path, 'run', train_cfg__max_epochs=3, **options)
    assert len(rates(tmp_path, 'run')) == 18


def test_a_wrapper_of_the_config_keeps_its_settings_on_cpu(monkeypatch):
    monkeypatch.setattr(engine, 'is_distributed', lambda: True)
    monkeypatch.setattr(engine.torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(Runner, 'from_cfg', classmethod(lambda cls, cfg: cfg.model_wrapper_cfg))
    settings = dict(type='MMDistributedDataParallel', broadcast_buffers=True)
    built = engine._build_runner(Config(dict(default_scope='mmengine', model_wrapper_cfg=settings)), 'none')
    assert built == dict(settings, device_ids=None, find_unused_parameters=False)
    assert engine._build_runner(Config(dict(default_scope='mmengine')), 'none')['broadcast_buffers'] is False


@MODELS.register_module()
class NormToy(BaseModel):
    def __init__(self, norm='BN'):
        super().__init__()
        self.norm = (torch.nn.SyncBatchNorm if norm == 'SyncBN' else torch.nn.BatchNorm1d)(2)

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
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler'), dataset=dict(type='FourPairs'))
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
