"""Training with the model sharded across two processes, compared with unsharded training."""

import json
import os
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from conftest import ROOT, TINY_ARCH, free_ports
from mmengine._strategy import FSDPStrategy
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from mogacore.checkpoint import read
from mogacore.datasets.digits import write_digits
from mogacore.engine.runner import train
from mogacore.engine.sharding import ShardedStrategy
from mogacore.errors import UserError
from mogacore.models import MogaNet, accelerated
from mogacore.models.layers import MogaBlock

pytest.importorskip('mmpretrain')
SHARDED = {'strategy.type': 'ShardedStrategy'}


@HOOKS.register_module()
class ShareHook(Hook):
    """Writes how many parameter values each process keeps."""

    def after_train(self, runner):
        share = sum(p.numel() for group in runner.optim_wrapper.param_groups for p in group['params'])
        Path(runner.work_dir, f'share_{runner.rank}.json').write_text(json.dumps(share))


def train_all(rank, folder, ports):
    """Train unsharded, sharded, resumed midway, with twice the rate, from unsharded weights, and from others."""
    os.chdir(folder)
    os.environ.update(MASTER_ADDR='127.0.0.1', WORLD_SIZE='2', RANK=str(rank), LOCAL_RANK=str(rank))

    def run(work_dir, options, resume=None):
        os.environ['MASTER_PORT'] = str(ports.pop())
        train('config.py', work_dir=work_dir, resume=resume, launcher='pytorch', cfg_options=options)

    run('unsharded', {})
    run('sharded', SHARDED)
    run('resumed', SHARDED, resume='sharded/iter_3.pth')
    run('faster', SHARDED | {'optim_wrapper.optimizer.lr': 0.2}, resume='sharded/iter_3.pth')
    run('pretrained', SHARDED | {'load_from': 'unsharded/iter_6.pth'})
    with pytest.raises(UserError, match=r'iter_6.pth: the weights do not fit .* \(32,\) vs\. \(40,\)'):
        wider = {'model.backbone.arch.embed_dims': (8, 16, 24, 40), 'model.head.in_channels': 40}
        run('mismatch', SHARDED | {'load_from': 'unsharded/iter_6.pth', **wider})


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp('sharded')
    write_digits(folder / 'data' / 'digits', parts=('classification',))
    (folder / 'config.py').write_text(f"""
_base_ = '{ROOT / 'configs' / 'classification' / 'moganet-xtiny_digits.py'}'
model = dict(backbone=dict(arch=dict(_delete_=True, **{TINY_ARCH}), drop_path_rate=0.0), head=dict(in_channels=32))
train_dataloader = dict(
    batch_size=4, num_workers=0, persistent_workers=False, dataset=dict(times=1, dataset=dict(indices=48))
)
val_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False, dataset=dict(indices=9))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=1)
# SGD, since AdamW amplifies small differences. Gradients must be clipped by their global norm.
optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=0.05, _delete_=True), clip_grad=dict(max_norm=0.5)
)
custom_hooks = [dict(type='ShareHook')]
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(by_epoch=False, interval=3, max_keep_ckpts=-1))
""")
    mp.spawn(train_all, (str(folder), free_ports(6)), nprocs=2)
    return folder


def largest_difference(ours, theirs):
    ours, theirs = (read(path)['state_dict'] for path in (ours, theirs))
    assert ours.keys() == theirs.keys()
    return max((ours[name].double() - theirs[name].double()).abs().max().item() for name in ours)


def scalars(work_dir, name):
    lines = next(work_dir.glob('*/vis_data/scalars.json')).read_text().splitlines()
    return [value[name] for value in map(json.loads, lines) if name in value]


def test_sharded_and_unsharded_training_give_the_same_weights(trained):
    assert largest_difference(trained / 'sharded' / 'iter_6.pth', trained / 'unsharded' / 'iter_6.pth') <= 1e-6
    assert largest_difference(trained / 'sharded' / 'iter_6.pth', trained / 'sharded' / 'iter_3.pth') > 1e-3
    norms = scalars(trained / 'sharded', 'grad_norm')
    assert norms == pytest.approx(scalars(trained / 'unsharded', 'grad_norm'), rel=1e-4) and min(norms) > 0.5


def test_each_process_keeps_only_its_shard(trained):
    unsharded, sharded = (
        [json.loads((trained / name / f'share_{rank}.json').read_text()) for rank in (0, 1)]
        for name in ('unsharded', 'sharded')
    )
    assert unsharded[0] == unsharded[1]
    assert unsharded[0] <= sum(sharded) < 1.001 * unsharded[0]  # shards may be padded
    assert max(sharded) < 0.51 * unsharded[0]


def test_resumed_sharded_training_ends_with_bit_identical_weights(trained):
    sharded, resumed = (read(trained / name / 'iter_6.pth') for name in ('sharded', 'resumed'))
    assert largest_difference(trained / 'resumed' / 'iter_6.pth', trained / 'sharded' / 'iter_6.pth') == 0
    for name, state in sharded['optimizer']['state'].items():
        assert torch.equal(state['momentum_buffer'], resumed['optimizer']['state'][name]['momentum_buffer'])


def test_resumed_sharded_training_follows_a_new_rate(trained):
    assert scalars(trained / 'faster', 'lr') == pytest.approx([2 * lr for lr in scalars(trained / 'sharded', 'lr')[3:]])


def test_sharded_training_starts_from_weights_of_an_unsharded_model(trained):
    assert scalars(trained / 'pretrained', 'loss')[0] < scalars(trained / 'sharded', 'loss')[0] - 0.05


@pytest.mark.parametrize(
    'launcher, hooks, message',
    [
        ('none', [], 'strategy needs several processes to shard the model: use tools/dist_train.sh'),
        ('pytorch', [dict(type='EMAHook')], 'strategy shards the model, so EMAHook cannot average its weights'),
    ],
)
def test_unsupported_sharding_is_reported(trained, monkeypatch, launcher, hooks, message):
    monkeypatch.chdir(trained)
    for name, value in dict(RANK='1', WORLD_SIZE='2', LOCAL_RANK='1').items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        train('config.py', work_dir='refused', launcher=launcher, cfg_options=SHARDED | {'custom_hooks': hooks})


@pytest.mark.parametrize('drop_rate, is_off', [(0.0, False), (0.5, False), (0.0, True)])
def test_blocks_keep_their_dropout_and_acceleration_stays_off(drop_rate, is_off, monkeypatch):
    """The accelerated form, which has no dropout, is chosen before FSDP wraps the model."""
    monkeypatch.setattr(FSDPStrategy, '_wrap_model', lambda self, model: model)
    model = MogaNet(TINY_ARCH, drop_rate=drop_rate)
    with accelerated.disabled() if is_off else nullcontext():
        ShardedStrategy()._wrap_model(model)
    is_replaced = ['forward' in m.__dict__ for m in model.modules() if isinstance(m, MogaBlock)]
    assert is_replaced == 5 * [drop_rate == 0 and not is_off]
