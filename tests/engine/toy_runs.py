"""A model of one weight and one bias, trained on a few numbers, to test whole runs in a fraction of a second."""

import itertools
import json
from pathlib import Path
from unittest import mock

import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS, OPTIM_WRAPPER_CONSTRUCTORS, OPTIMIZERS
from torch.utils.data import Dataset

from mogacore.engine.runner import train

CONFIG = """
model = dict(type='ToyLine')
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True), dataset=dict(type='ToyNumbers'))
val_dataloader = dict(
    batch_size=6, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False), dataset=dict(type='ToyNumbers'))
val_evaluator = dict(type='ToyMetric')
train_cfg = dict(by_epoch=True, max_epochs=6)
val_cfg = dict()
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=0.01, weight_decay=0.05),
    paramwise_cfg=dict(custom_keys=dict(bias=dict(lr_mult=0.1, decay_mult=0.0))))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, begin=0, end=2, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=2, end=6, convert_to_iter_based=True)]
auto_scale_lr = dict(base_batch_size=2)
default_hooks = dict(
    checkpoint=dict(type='CheckpointHook', interval=1), param_scheduler=dict(type='ParamSchedulerHook'))
custom_hooks = [dict(type='RecordHook')]
default_scope = 'mmengine'
log_level = 'WARNING'
randomness = dict(seed=3)
env_cfg = dict(dist_cfg=dict(backend='gloo'))
"""
_numbers = itertools.count()


@MODELS.register_module()
class ToyLine(BaseModel):
    def __init__(self):
        super().__init__()
        self.line = torch.nn.Linear(1, 1)

    def forward(self, inputs, target, mode='tensor'):
        error = self.line(torch.stack(inputs)[:, None])[:, 0] - torch.stack(target)
        return dict(loss=error.square().mean()) if mode == 'loss' else [dict(error=value) for value in error]


@MODELS.register_module()
class ToyPair(ToyLine):
    """Trained with two optimizers, named weight and bias."""

    def train_step(self, data, optim_wrapper):
        loss = self(**data, mode='loss')['loss']
        for wrapper in optim_wrapper.values():
            wrapper.zero_grad()
        loss.backward()
        for wrapper in optim_wrapper.values():
            wrapper.step()
        return dict(loss=loss)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class ToyPairConstructor:
    def __init__(self, optim_wrapper_cfg, paramwise_cfg=None):
        self.settings = optim_wrapper_cfg

    def __call__(self, model):
        wrappers = {}
        for name, param in model.line.named_parameters():
            optimizer = OPTIMIZERS.build(self.settings[name].optimizer, default_args=dict(params=[param]))
            wrappers[name] = OptimWrapper(optimizer)
        return OptimWrapperDict(**wrappers)


@DATASETS.register_module()
class ToyNumbers(Dataset):
    def __init__(self, size=12):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return dict(inputs=torch.tensor(index / self.size), target=torch.tensor(1.0 - index / self.size))


@METRICS.register_module()
class ToyMetric(BaseMetric):
    """Gives the scores of ``values`` in turn, one per validation."""

    def __init__(self, prefix='toy', values=(1.0,)):
        super().__init__(prefix=prefix)
        self.values = itertools.cycle(values)

    def process(self, data_batch, data_samples):
        self.results.append(1)

    def compute_metrics(self, results):
        return dict(score=next(self.values))


@HOOKS.register_module()
class RecordHook(Hook):
    """Writes the settings of the parameter groups in each iteration, and the number of updates of an average."""

    def before_train(self, runner):
        self.path = Path(runner.work_dir) / 'rates.jsonl'

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        names = ('lr', 'betas', 'momentum', 'weight_decay')
        groups = runner.optim_wrapper.param_groups
        groups = list(itertools.chain(*groups.values())) if isinstance(groups, dict) else groups
        groups = [[group[name] for name in names if name in group] for group in groups]
        averages = [hook.ema_model.steps.item() for hook in runner.hooks if hasattr(hook, 'ema_model')]
        with self.path.open('a') as file:
            file.write(json.dumps([runner.epoch, runner.iter, batch_idx, groups, averages]) + '\n')


def toy_run(folder, name, resume=None, config='', track=(), **options):
    """Train the toy in ``folder / name`` with settings named like ``train_cfg__max_epochs``; returns the Runner."""
    path = Path(folder) / f'{name}.py'
    path.write_text(CONFIG + config)
    options = {key.replace('__', '.'): value for key, value in options.items()}
    auto_scale_lr = options.pop('auto_scale_lr', False)
    options['experiment_name'] = f'toy_{next(_numbers)}'  # mmengine shares logs and histories by this name
    with mock.patch.object(Config, 'pretty_text', property(str)):  # formatting it takes longer than the training
        return train(
            str(path), work_dir=str(Path(folder) / name), resume=None if resume is None else str(resume),
            cfg_options=options, auto_scale_lr=auto_scale_lr, track=track,
        )  # fmt: skip


def rates(folder, name):
    """What RecordHook has written: (epoch, iteration, batch, groups, updates of the average) of each iteration."""
    return [json.loads(line) for line in (Path(folder) / name / 'rates.jsonl').read_text().splitlines()]


def log(folder, name):
    return '\n'.join(path.read_text() for path in sorted((Path(folder) / name).glob('*/*.log')))
