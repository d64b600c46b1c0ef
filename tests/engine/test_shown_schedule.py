"""The schedule and the parameter groups that `mogacore config` shows, against trainings and the optimizer itself."""

import json

import numpy as np
import pytest
from conftest import TINY_ARCH
from toy_runs import CONFIG, rates, toy_run

from mogacore.analysis.configs.groups import list_groups
from mogacore.analysis.configs.schedule import run_schedule
from mogacore.cli.config import main
from mogacore.engine.config import load_config
from mogacore.errors import UserError

BY_ITERATION = """
train_cfg = dict(by_epoch=False, max_iters=17, val_interval=17)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=4),
    dict(type='CosineAnnealingParamScheduler', param_name='weight_decay', eta_min=0.01, by_epoch=False)]
"""
BY_EPOCH = "param_scheduler = dict(type='MultiStepLR', milestones=[2, 4], gamma=0.1, by_epoch=True)\n"
MOMENTUM = """
param_scheduler = [dict(type='OneCycleLR', eta_max=0.1, total_steps=36, by_epoch=False),
                   dict(type='OneCycleMomentum', total_steps=36, by_epoch=False)]
"""


@pytest.mark.parametrize('more, options', [
    ('', {}),
    ('', {'train_cfg__max_epochs': 9}),  # schedules follow the length
    (BY_ITERATION, {}),
    (BY_EPOCH, {}),
    (MOMENTUM, {}),
])  # fmt: skip
def test_values_are_those_of_a_training(more, options, tmp_path):
    runner = toy_run(tmp_path, 'run', config=more, **options)
    cfg_options = {key.replace('__', '.'): value for key, value in options.items()}
    schedule = run_schedule(load_config(tmp_path / 'run.py', cfg_options), cfg_options)
    recorded = [record[3][0] for record in rates(tmp_path, 'run')]
    per_epoch = 6 if schedule.unit == 'epoch' else 1
    assert runner.max_iters == schedule.num_steps * per_epoch == len(recorded)
    recorded = recorded[::per_epoch]
    np.testing.assert_allclose(schedule.values['lr'], [group[0] for group in recorded], rtol=1e-12)
    np.testing.assert_allclose(schedule.values['weight_decay'], [group[-1] for group in recorded], rtol=1e-12)
    if 'Momentum' in more:
        np.testing.assert_allclose(schedule.values['momentum'], [group[1][0] for group in recorded], rtol=1e-12)
    assert schedule.unit == ('epoch' if more == BY_EPOCH else 'iteration')


def test_the_length_of_an_epoch_replaces_the_data(tmp_path):
    path = tmp_path / 'own.py'
    path.write_text("_base_ = 'classification/moganet-tiny_8xb128_in1k-224'\n")
    cut = {'train_dataloader.dataset.data_root': '/nowhere'}
    with pytest.raises(UserError, match=r'is missing: .*; or give the iterations of an epoch with --epoch-length'):
        run_schedule(load_config(path, cut), cut)
    schedule = run_schedule(load_config(path, cut), cut, epoch_length=3)
    assert schedule.num_steps == 900 and schedule.epoch_length == 3
    lr = schedule.values['lr']
    assert lr.max() == pytest.approx(1e-3, rel=1e-3) and (np.diff(lr[:15]) > 0).all() and (np.diff(lr[18:]) <= 0).all()
    with pytest.raises(UserError, match='--epoch-length 0 is out of range'):
        run_schedule(load_config(path, cut), cut, epoch_length=0)


def test_a_plateau_is_left_out_with_a_note(tmp_path):
    (tmp_path / 'run.py').write_text(CONFIG + "param_scheduler = dict(type='ReduceOnPlateauLR', monitor='toy/score')\n")
    schedule = run_schedule(load_config(tmp_path / 'run.py'))
    assert set(schedule.values['lr']) == {0.01} and 'depends on the validation' in schedule.notes[0]


def test_a_config_without_training_is_a_user_error(tmp_path):
    (tmp_path / 'test.py').write_text("model = dict(type='ToyLine')\n")
    for function in (run_schedule, list_groups):
        with pytest.raises(UserError, match='give the config of a training'):
            function(load_config(tmp_path / 'test.py'))


def test_groups_are_those_of_the_optimizer(tmp_path):
    runner = toy_run(tmp_path, 'run')
    groups = {group.names[0]: group for group in list_groups(load_config(tmp_path / 'run.py'))}
    real = {name: group for group in runner.optim_wrapper.optimizer.param_groups for name, param in
            runner.model.named_parameters() if any(param is item for item in group['params'])}  # fmt: skip
    assert set(groups) == set(real) == {'line.weight', 'line.bias'}
    for name, group in groups.items():
        assert group.lr == pytest.approx(real[name]['initial_lr']) and group.weight_decay == real[name]['weight_decay']
    assert groups['line.bias'].lr_mult == pytest.approx(0.1) and groups['line.bias'].decay_mult == 0


def test_equal_groups_are_folded_and_frozen_parameters_are_separate(tmp_path):
    path = tmp_path / 'own.py'
    path.write_text(f"""
_base_ = 'detection/retinanet_moganet-xtiny_fpn_digits'
model = dict(
    backbone=dict(arch=dict(_delete_=True, **{TINY_ARCH}), frozen_stages=1), neck=dict(in_channels=[8, 16, 24, 32]))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.5))))
""")
    pytest.importorskip('mmdet')
    groups = list_groups(load_config(path))
    settings = [(group.lr_mult, group.decay_mult) for group in groups]
    assert settings == [(1, 1), (1, 0), (0.5, 1), (0.5, 0), (None, None)]
    frozen = groups[-1]
    assert all(name.startswith(('backbone.patch_embed', 'backbone.blocks', 'backbone.norm')) for name in frozen.names)
    assert any(name.startswith('backbone.patch_embed1') for name in frozen.names)
    names = [name for group in groups for name in group.names]
    assert len(names) == len(set(names))
    for group in groups[:-1]:  # no_decay_vectors: biases and vectors do not decay
        assert all(name.startswith('backbone') == (group.lr_mult == 0.5) for name in group.names)
        if group.decay_mult == 1:
            assert not any(name.endswith('.bias') for name in group.names)


def test_the_command_draws_and_prints(tmp_path, capsys):
    (tmp_path / 'run.py').write_text(CONFIG)
    main([str(tmp_path / 'run.py'), '--plot', str(tmp_path / 'lr.png'), '--groups', '--json'])
    report = json.loads(capsys.readouterr().out)
    assert report['schedule']['num_steps'] == 36 and len(report['groups']) == 2 and 'values' not in report
    assert (tmp_path / 'lr.png').read_bytes()[:4] == b'\x89PNG'
    main([str(tmp_path / 'run.py'), '--plot', str(tmp_path / 'lr.png'), '--groups'])
    shown = capsys.readouterr().out
    assert '36 iterations, 6 iterations per epoch' in shown and 'line.weight' in shown
    with pytest.raises(UserError, match='--epoch-length 3 is only for --plot'):
        main([str(tmp_path / 'run.py'), '--epoch-length', '3'])
