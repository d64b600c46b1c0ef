from copy import deepcopy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from conftest import TINY_ARCH
from mmengine.dataset import pseudo_collate
from mmengine.evaluator import BaseMetric
from mmengine.hooks import EMAHook, Hook
from mmengine.model import BaseDataPreprocessor, BaseModel, ExponentialMovingAverage
from mmengine.registry import MODELS
from mmengine.runner import Runner
from torch import nn
from torch.nn.functional import linear
from torch.utils.data import DataLoader, Dataset

from mogacore.engine.ema import LinearWarmupEMA, ReduceStatisticsHook, estimate_statistics


def averages(values, **kwargs):
    """The average after each update, when ``values`` are the successive values of a model's only weight."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, values[0])
    ema = LinearWarmupEMA(model, **kwargs)
    outs = []
    for value in values:
        nn.init.constant_(model.weight, value)
        ema.update_parameters(model)
        outs.append(ema.module.weight.item())
    return outs


@pytest.mark.parametrize('warmup_iters', [0, 4, 100])
def test_average_equals_the_explicit_recursion(warmup_iters):
    values = np.random.default_rng(0).standard_normal(12)
    expected, average = [], values[0]
    for step, value in enumerate(values):
        if step > 0:  # mmengine copies the weights at the first update
            progress = min(step / warmup_iters, 1) if warmup_iters else 1
            decay = 0.99 * (0.9 + 0.1 * progress)
            average = decay * average + (1 - decay) * value
        expected.append(average)
    ours = averages(values, momentum=0.01, start_factor=0.9, warmup_iters=warmup_iters)
    np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_statistics_of_batch_norm_are_copied_not_averaged():
    model = nn.BatchNorm1d(2)
    ema = LinearWarmupEMA(model, momentum=0.5)
    model.running_mean.fill_(3.0)
    ema.update_parameters(model)
    model.running_mean.fill_(5.0)
    ema.update_parameters(model)
    assert torch.equal(ema.module.running_mean, torch.full((2,), 5.0))


def test_configs_can_name_it():
    assert MODELS.get('LinearWarmupEMA') is LinearWarmupEMA


@pytest.mark.parametrize('interval', [1, 3])
def test_average_moves_at_each_interval_and_warms_up_by_iteration(interval):
    values = np.random.default_rng(1).standard_normal(10)
    expected, average = [], values[0]
    for step, value in enumerate(values):
        if step > 0 and step % interval == 0:
            decay = 0.99 * (0.9 + 0.1 * step / 20)
            average = decay * average + (1 - decay) * value
        expected.append(average)
    ours = averages(values, momentum=0.01, start_factor=0.9, warmup_iters=20, interval=interval)
    np.testing.assert_allclose(ours, expected, atol=1e-6)


class Mixing(BaseDataPreprocessor):
    """Mixes the points of a batch in training, as Mixup does with a fixed ratio."""

    def forward(self, data, training=False):
        inputs = super().forward(data, training)['inputs']
        return {'inputs': mixed(inputs) if training else inputs}


def mixed(batch):
    return 0.7 * batch + 0.3 * batch.flip(0)


class Toy(BaseModel):
    def __init__(self):
        super().__init__(data_preprocessor=Mixing())
        self.fc, self.bn, self.frozen = nn.Linear(3, 4), nn.BatchNorm1d(4), nn.BatchNorm1d(4)

    def train(self, mode=True):
        super().train(mode)
        self.frozen.eval()
        return self

    def forward(self, inputs, mode='tensor'):
        out = self.frozen(self.bn(self.fc(inputs)))
        return {'loss': (out - 1).pow(4).mean()} if mode == 'loss' else out


class Points(Dataset):
    def __init__(self):
        self.points = torch.randn(12, 3, generator=torch.Generator().manual_seed(0)) + 2

    def __len__(self):
        return len(self.points)

    def __getitem__(self, index):
        return {'inputs': self.points[index]}


class Nothing(BaseMetric):
    default_prefix = 'nothing'

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        return {'at_all': 0.0}


class Validated(Hook):
    """Keeps the weights that the validation uses."""

    priority = 'LOWEST'

    def before_val_epoch(self, runner):
        self.state_dict = deepcopy(runner.model.state_dict())


def trained(work_dir, custom_hooks, **kwargs):
    def loader(shuffle):
        return dict(
            dataset=Points(),
            batch_size=4,
            sampler=dict(type='DefaultSampler', shuffle=shuffle),
            collate_fn=dict(type='default_collate'),
        )

    runner = Runner(
        Toy(),
        work_dir=str(work_dir),
        train_dataloader=loader(False),
        val_dataloader=loader(False),
        val_evaluator=[Nothing()],
        val_cfg=dict(),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        custom_hooks=custom_hooks,
        default_scope='mmengine',
        log_level='ERROR',
        **kwargs,
    )
    runner.train()
    return runner


def precise_hook():
    return dict(type='PreciseBatchNormHook', num_samples=8)


def ema_hooks():
    return [precise_hook(), dict(type='EMAHook', ema_type='LinearWarmupEMA', momentum=0.1, warmup_iters=4)]


@pytest.mark.parametrize('averaged', [False, True])
def test_saved_and_validated_weights_agree_and_have_the_statistics_of_mixed_batches(tmp_path, averaged):
    spy = Validated()
    runner = trained(
        tmp_path,
        [*(ema_hooks() if averaged else [precise_hook()]), spy],
        train_cfg=dict(by_epoch=True, max_epochs=2),
        experiment_name=f'saved-{averaged}',
    )
    saved = torch.load(tmp_path / 'epoch_2.pth', weights_only=False)['state_dict']
    assert saved.keys() == spy.state_dict.keys()
    assert all(torch.equal(saved[name], spy.state_dict[name]) for name in saved)
    assert torch.equal(saved['fc.weight'], runner.model.fc.weight) is not averaged

    # Computed directly: the two mixed batches of num_samples through the layer before the norm.
    batches = torch.cat([mixed(batch) for batch in Points().points[:8].split(4)])
    hidden = linear(batches, saved['fc.weight'], saved['fc.bias']).reshape(2, 4, 4)
    torch.testing.assert_close(saved['bn.running_mean'], hidden.mean(dim=(0, 1)))
    torch.testing.assert_close(saved['bn.running_var'], hidden.var(dim=1, unbiased=True).mean(dim=0))
    assert torch.equal(saved['frozen.running_mean'], torch.zeros(4))
    assert runner.model.bn.momentum == 0.1


def test_resumed_run_continues_from_the_raw_weights(tmp_path):
    options = dict(custom_hooks=ema_hooks(), experiment_name='whole')
    whole = trained(tmp_path / 'whole', train_cfg=dict(by_epoch=True, max_epochs=2), **options)
    options = dict(custom_hooks=ema_hooks(), experiment_name='rest', resume=True)
    path = str(tmp_path / 'whole' / 'epoch_1.pth')
    rest = trained(tmp_path / 'rest', train_cfg=dict(by_epoch=True, max_epochs=2), load_from=path, **options)
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(rest.model.state_dict()[name], value, msg=name)


def test_statistics_are_means_over_batches_with_mixup_and_cutmix():
    """Every BatchNorm of a classifier, against the mean and variance of its inputs for the same random numbers."""
    pytest.importorskip('mmpretrain')
    import mogacore.registry  # noqa: F401, registers our classes
    from mogacore.libraries import import_quietly

    import_quietly('mmpretrain')
    from mmpretrain.structures import DataSample

    model = MODELS.build(
        dict(
            _scope_='mmpretrain',
            type='ImageClassifier',
            backbone=dict(type='MogaNet', arch=TINY_ARCH, out_indices=(3,)),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=3, in_channels=32),
            train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
            data_preprocessor=dict(num_classes=3, mean=[100.0] * 3, std=[50.0] * 3),
        )
    )
    images = torch.randint(0, 256, (12, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    items = [dict(inputs=image, data_samples=DataSample().set_gt_label(i % 3)) for i, image in enumerate(images)]
    loader = DataLoader(items, batch_size=4, collate_fn=pseudo_collate)

    def seed():
        np.random.seed(0)
        torch.manual_seed(0)

    seed()
    estimate_statistics(model, loader, 8)
    ours = {name: m for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    found = {name: (m.running_mean.clone(), m.running_var.clone()) for name, m in ours.items()}
    inputs = {name: [] for name in ours}
    for name, m in ours.items():
        m.register_forward_pre_hook(lambda m, args, name=name: inputs[name].append(args[0].detach()))

    def expected(training):
        for values in inputs.values():
            values.clear()
        seed()
        for batch in list(loader)[:2]:
            model(**model.data_preprocessor(batch, training), mode='loss')
        return {
            name: (
                torch.stack([x.mean((0, 2, 3)) for x in values]).mean(0),
                torch.stack([x.transpose(0, 1).flatten(1).var(1) for x in values]).mean(0),
            )
            for name, values in inputs.items()
        }

    for name, statistics in expected(training=True).items():
        torch.testing.assert_close(found[name], statistics, rtol=1e-4, atol=1e-6, msg=name)
    stem = 'backbone.patch_embed1.projection.1'
    assert not torch.allclose(found[stem][1], expected(training=False)[stem][1], rtol=1e-2)  # unmixed images


def reduce_in_process(rank, store, results):
    dist.init_process_group('gloo', init_method=f'file://{store}', rank=rank, world_size=2)
    model = nn.Sequential(nn.BatchNorm1d(1), nn.BatchNorm1d(1, track_running_stats=False))
    hook = EMAHook()
    hook.ema_model = ExponentialMovingAverage(model)
    for number, norm in enumerate((model[0], hook.ema_model.module[0])):
        norm.running_mean.fill_(1 + 2 * rank + 10 * number)
        norm.running_var.fill_(4 + 4 * rank + 10 * number)
    runner = SimpleNamespace(model=model, hooks=[Hook(), hook])
    ReduceStatisticsHook().after_train_epoch(runner)
    norms = model[0], hook.ema_model.module[0]
    results[rank] = [(norm.running_mean.item(), norm.running_var.item()) for norm in norms]
    dist.destroy_process_group()


def test_running_statistics_of_model_and_average_become_their_means_over_processes(tmp_path):
    with mp.get_context('spawn').Manager() as manager:
        results = manager.dict()
        mp.spawn(reduce_in_process, (tmp_path / 'store', results), nprocs=2)
        assert dict(results) == {rank: [(2.0, 6.0), (12.0, 16.0)] for rank in (0, 1)}


def test_average_with_buffers_covers_the_statistics_as_in_timm():
    model = nn.BatchNorm1d(1)
    ema = ExponentialMovingAverage(model, momentum=0.25, update_buffers=True)
    expected = None
    for value in (4.0, 8.0, 2.0):
        model.running_mean.fill_(value)
        model.weight.data.fill_(value)
        ema.update_parameters(model)
        expected = value if expected is None else 0.75 * expected + 0.25 * value  # the first update copies
        assert ema.module.running_mean.item() == ema.module.weight.item() == expected


@pytest.mark.parametrize('num_samples, count', [(8, 2), (100, 3), (1, 1)])
def test_statistics_are_those_of_the_data_set_once_also_with_an_infinite_sampler(num_samples, count):
    from mmengine.dataset import InfiniteSampler

    class Model(BaseModel):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(2)
            self.count = 0

        def forward(self, inputs, mode):
            self.count += 1
            return self.norm(inputs)

    items = [dict(inputs=torch.randn(2)) for _ in range(10)]
    model, loader = Model(), DataLoader(items, batch_size=4, sampler=InfiniteSampler(items))
    estimate_statistics(model, loader, num_samples)
    assert model.count == count
