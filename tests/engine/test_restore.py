"""Rates of resumed runs, compared with those recorded in uninterrupted runs with the same settings."""

import mmengine.dataset.sampler
import numpy as np
import pytest
import torch
from toy_runs import log, rates, toy_run

from mogacore.engine import restore, resume
from mogacore.errors import UserError

ONE_CYCLE = """
param_scheduler = [
    dict(type='OneCycleLR', eta_max=0.01, by_epoch=True, convert_to_iter_based=True),
    dict(type='OneCycleMomentum', by_epoch=True, convert_to_iter_based=True)]
"""
MIXED = """
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=14),
    dict(type='MultiStepLR', by_epoch=True, milestones=[1, 3, 5], gamma=0.5)]
"""
SGD = """
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=0.05))
param_scheduler = [
    dict(type='PolyLR', power=0.9, eta_min=1e-5, by_epoch=True),
    dict(type='CosineAnnealingMomentum', eta_min=0.5, by_epoch=True, convert_to_iter_based=True)]
"""
BY_ITERATION = """
train_cfg = dict(by_epoch=False, max_iters=36, val_interval=36)
train_dataloader['sampler'] = dict(type='InfiniteSampler', shuffle=True)
default_hooks['checkpoint'].update(by_epoch=False, interval=6)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=9),
    dict(type='PolyLR', eta_min=0, power=1.0, by_epoch=False, begin=9, end=36)]
"""
CONSTANT = 'param_scheduler = None\n'
LAYERS = """
optim_wrapper['paramwise_cfg'] = dict(custom_keys={'line.weight': dict(lr_mult=0.7), 'line.bias': dict(lr_mult=0.5)})
"""


def assert_same_rates(folder, resumed, reference, start):
    """Rates of each iteration from epoch ``start`` on equal those of the reference at the same epoch and batch."""
    ours = rates(folder, resumed)
    theirs = [record for record in rates(folder, reference) if record[0] >= start]
    assert [record[:3] for record in ours] == [record[:3] for record in theirs]
    for found, expected in zip(ours, theirs, strict=True):
        for group, other in zip(found[3], expected[3], strict=True):
            np.testing.assert_allclose(np.hstack(group), np.hstack(other), rtol=1e-9, atol=1e-15, err_msg=str(found))


PAIR = """
model = dict(type='ToyPair')
optim_wrapper = dict(
    constructor='ToyPairConstructor',
    weight=dict(optimizer=dict(type='AdamW', lr=0.01)),
    bias=dict(optimizer=dict(type='SGD', lr=0.02, momentum=0.9)))
param_scheduler = dict(
    weight=[dict(type='CosineAnnealingLR', by_epoch=True, convert_to_iter_based=True)],
    bias=[dict(type='MultiStepLR', by_epoch=True, milestones=[2, 4], gamma=0.5)])
"""

CASES = dict(
    longer=('', dict(train_cfg__max_epochs=8, param_scheduler__1__end=8)),
    shorter=('', dict(train_cfg__max_epochs=5, param_scheduler__1__end=5)),
    base_rate=('', dict(optim_wrapper__optimizer__lr=0.04)),
    weight_decay=('', dict(optim_wrapper__optimizer__weight_decay=0.2)),
    betas=('', dict(optim_wrapper__optimizer__betas=(0.8, 0.95))),
    schedule_setting=('', dict(param_scheduler__1__eta_min=1e-3)),
    warm_up=('', dict(param_scheduler__0__start_factor=0.5)),
    no_schedule=('', dict(param_scheduler=None)),
    new_schedule=(CONSTANT, dict(param_scheduler=[dict(type='StepLR', step_size=1, gamma=0.7)])),
    other_schedule=('', dict(param_scheduler=[dict(type='ExponentialLR', gamma=0.9, by_epoch=False)])),
    larger_batch=('', dict(train_dataloader__batch_size=4)),
    smaller_batch=('', dict(train_dataloader__batch_size=1)),
    more_images=('', dict(train_dataloader__dataset__size=18)),
    scaled_rate=('', dict(train_dataloader__batch_size=6, auto_scale_lr=True)),
    batch_rate_and_length=('', dict(
        train_dataloader__batch_size=3, optim_wrapper__optimizer__lr=0.02, train_cfg__max_epochs=9,
        param_scheduler__1__end=9)),
    one_cycle_longer=(ONE_CYCLE, dict(train_cfg__max_epochs=8)),
    one_cycle_batch=(ONE_CYCLE, dict(train_dataloader__batch_size=4)),
    one_cycle_rate=(ONE_CYCLE, dict(param_scheduler__0__eta_max=0.03)),
    one_cycle_momentum=(ONE_CYCLE, dict(param_scheduler__1__base_momentum=0.7)),
    mixed_batch=(MIXED, dict(train_dataloader__batch_size=4)),
    mixed_milestones=(MIXED, dict(param_scheduler__1__milestones=[2, 4])),
    momentum_longer=(SGD, dict(train_cfg__max_epochs=8)),
    momentum_of_sgd=(SGD, dict(optim_wrapper__optimizer__momentum=0.6)),
    momentum_batch=(SGD, dict(train_dataloader__batch_size=1)),
    layers_rate=(LAYERS, dict(optim_wrapper__optimizer__lr=0.04)),
    one_of_two_optimizers=(PAIR, dict(optim_wrapper__bias__optimizer__lr=0.05)),
    two_optimizers_batch=(PAIR, dict(train_dataloader__batch_size=4)),
    accumulation=('', dict(optim_wrapper__accumulative_counts=4)),
)  # fmt: skip


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('toys')


@pytest.fixture(scope='module')
def saved(folder):
    """Folder of a finished run with the given config text, with its checkpoints of all epochs."""
    names = {}

    def run(config):
        if config not in names:
            names[config] = f'saved_{len(names)}'
            toy_run(folder, names[config], config=config)
        return folder / names[config]

    return run


@pytest.mark.parametrize('case', CASES)
def test_rates_after_a_change_equal_those_of_a_run_with_the_new_settings(case, folder, saved):
    config, changes = CASES[case]
    toy_run(folder, f'{case}_resumed', saved(config) / 'epoch_3.pth', config, **changes)
    toy_run(folder, f'{case}_whole', config=config, **changes)
    assert_same_rates(folder, f'{case}_resumed', f'{case}_whole', start=3)
    if case != 'accumulation':
        assert rates(folder, f'{case}_resumed')[0][3] != rates(saved(config), '.')[18][3]


@pytest.mark.parametrize('config', [pytest.param('', id='cosine'), ONE_CYCLE, MIXED, SGD, CONSTANT, LAYERS, PAIR])
def test_unchanged_resume_keeps_the_saved_rates_bit_for_bit(config, folder, saved):
    name = f'same_{len(config)}'
    runner = toy_run(folder, name, saved(config) / 'epoch_3.pth', config)
    assert rates(folder, name) == [record for record in rates(saved(config), '.') if record[0] >= 3]
    assert 'changed settings' not in log(folder, name)
    expected = torch.load(saved(config) / 'epoch_6.pth', weights_only=False)['state_dict']
    assert all(torch.equal(expected[key], value) for key, value in runner.model.state_dict().items())


@pytest.mark.parametrize('changes', [
    dict(train_cfg__max_iters=48, train_cfg__val_interval=48, param_scheduler__1__end=48),
    dict(optim_wrapper__optimizer__lr=0.05),
    dict(param_scheduler__0__end=12, param_scheduler__1__begin=12),
    {},
])  # fmt: skip
def test_rates_of_a_run_counted_in_iterations_follow_the_new_settings(changes, folder, saved):
    name = '_'.join(['iterations', *changes])
    toy_run(folder, f'{name}_resumed', saved(BY_ITERATION) / 'iter_6.pth', BY_ITERATION, **changes)
    toy_run(folder, f'{name}_whole', config=BY_ITERATION, **changes)
    ours, theirs = rates(folder, f'{name}_resumed'), rates(folder, f'{name}_whole')[6:]
    assert [record[1] for record in ours] == [record[1] for record in theirs]
    for found, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(found[3][0][0], expected[3][0][0], rtol=1e-9)


def test_mid_epoch_resume_with_another_length_follows_the_new_settings(folder):
    config = "default_hooks['checkpoint'].update(by_epoch=False, interval=4)\n"
    changes = dict(train_cfg__max_epochs=8, param_scheduler__1__end=8, optim_wrapper__optimizer__lr=0.02)
    toy_run(folder, 'mid_saved', config=config)
    toy_run(folder, 'mid_resumed', folder / 'mid_saved' / 'iter_16.pth', config, **changes)
    toy_run(folder, 'mid_whole', config=config, **changes)
    ours, theirs = rates(folder, 'mid_resumed'), rates(folder, 'mid_whole')[16:]
    assert [record[:3] for record in ours] == [record[:3] for record in theirs]
    for found, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(found[3][0][0], expected[3][0][0], rtol=1e-9)


@pytest.mark.parametrize('config', [pytest.param('', id='cosine'), ONE_CYCLE, MIXED])
def test_rates_after_a_change_of_the_number_of_processes_follow_the_epoch(config, folder, saved, monkeypatch):
    path = saved(config) / 'epoch_3.pth'
    # One of two processes: the sampler gives it every second image.
    monkeypatch.setattr(mmengine.dataset.sampler, 'get_dist_info', lambda: (0, 2))
    monkeypatch.setattr(resume, 'get_dist_info', lambda: (0, 2))
    monkeypatch.setattr(resume, 'get_world_size', lambda: 2)
    name = f'world_{len(config)}'
    toy_run(folder, f'{name}_resumed', path, config)
    toy_run(folder, f'{name}_whole', config=config)
    assert len(rates(folder, f'{name}_whole')) == 18
    assert_same_rates(folder, f'{name}_resumed', f'{name}_whole', start=3)


def test_a_second_resume_returns_to_the_first_settings(folder, saved):
    toy_run(folder, 'there', saved('') / 'epoch_2.pth', train_dataloader__batch_size=4, optim_wrapper__optimizer__lr=1)
    toy_run(folder, 'back', folder / 'there' / 'epoch_4.pth', config="default_hooks['checkpoint']['interval'] = 9")
    assert_same_rates(folder, 'back', saved('').name, start=4)


def test_the_change_is_logged_with_old_and_new_values(folder, saved):
    toy_run(
        folder, 'logged', saved('') / 'epoch_3.pth', train_cfg__max_epochs=8, param_scheduler__1__end=8,
        optim_wrapper__optimizer__lr=0.04,
    )  # fmt: skip
    (line,) = [line for line in log(folder, 'logged').splitlines() if 'changed settings' in line]
    for change in ('max_epochs 6 -> 8', 'lr 0.01 -> 0.04', 'param_scheduler.1.end 36 -> 48', 'T_max 24 -> 36'):
        assert change in line


def test_a_longer_training_with_the_old_schedule_is_logged_and_its_constant_rate_is_reported(folder, saved):
    options = dict(train_cfg__max_epochs=8, param_scheduler__1__end=6)
    toy_run(folder, 'only_longer', saved('') / 'epoch_6.pth', **options)
    assert 'max_epochs 6 -> 8' in log(folder, 'only_longer')
    assert 'the last schedule, param_scheduler.1, ends at 6, but training at train_cfg.max_epochs=8' in log(
        folder, 'only_longer'
    )
    assert len(rates(folder, 'only_longer')) == 12


EMA = "custom_hooks += [dict(type='EMAHook', ema_type='LinearWarmupEMA', momentum=0.1, warmup_iters=30{})]\n"


@pytest.mark.parametrize('begin', ['', ', begin_epoch=2', ', begin_iter=5'])
def test_updates_of_averaged_weights_are_counted_as_in_a_run_with_the_new_batch(begin, folder, saved):
    config, name = EMA.format(begin), f'ema_{begin[-1:]}'
    toy_run(folder, f'{name}_resumed', saved(config) / 'epoch_3.pth', config, train_dataloader__batch_size=1)
    toy_run(folder, f'{name}_whole', config=config, train_dataloader__batch_size=1)
    ours, theirs = rates(folder, f'{name}_resumed'), rates(folder, f'{name}_whole')
    assert [record[4] for record in ours] == [record[4] for record in theirs if record[0] >= 3]
    assert ours[-1][4][0] > 36


PLATEAU = """
val_evaluator['values'] = (1.0,)
optim_wrapper.pop('paramwise_cfg')
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=9),
    dict(type='ReduceOnPlateauLR', monitor='toy/score', rule='less', factor=0.5, patience=1)]
"""


@pytest.mark.parametrize('changes', [
    {}, dict(optim_wrapper__optimizer__lr=0.08), dict(train_cfg__max_epochs=9), dict(train_dataloader__batch_size=1),
])  # fmt: skip
def test_a_schedule_that_follows_a_metric_keeps_its_state(changes, folder, saved):
    name = '_'.join(['plateau', *changes])
    toy_run(folder, f'{name}_resumed', saved(PLATEAU) / 'epoch_4.pth', PLATEAU, **changes)
    toy_run(folder, f'{name}_whole', config=PLATEAU, **changes)
    ours = [record for record in rates(folder, f'{name}_resumed')]
    theirs = [record for record in rates(folder, f'{name}_whole') if record[0] >= 4]
    assert len(ours) == len(theirs) and theirs[0][3] != theirs[-1][3]
    # The validation of epoch 4 follows the checkpoint, so it is run again on resume.
    np.testing.assert_allclose([r[3][0][0] for r in ours], [r[3][0][0] for r in theirs], rtol=1e-9)


def test_replay_of_a_long_training_takes_seconds():
    from time import perf_counter

    from mmengine.registry import PARAM_SCHEDULERS

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    settings = [
        dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=1500),
        dict(type='MultiStepLR', by_epoch=True, milestones=[200], gamma=0.1),
    ]
    schedules = [PARAM_SCHEDULERS.build(s, default_args=dict(optimizer=optimizer, epoch_length=1252)) for s in settings]
    start = perf_counter()
    restore.replay(schedules, 300, 300 * 1252)
    assert perf_counter() - start < 5  # a step that changes nothing costs nothing
    assert optimizer.param_groups[0]['lr'] == pytest.approx(0.1)
    assert [schedule._global_step for schedule in schedules] == [300 * 1252, 300]


def without(path, target, *keys, group_keys=()):
    container = torch.load(path, weights_only=False)
    for key in keys:
        del container[key]
    for group in container.get('optimizer', {}).get('param_groups', []) if group_keys else []:
        for key in group_keys:
            group.pop(key, None)
    torch.save(container, target)
    return target


@pytest.mark.parametrize('keys, missing', [
    (['optimizer'], 'state of the optimizer'),
    (['optimizer', 'param_schedulers'], 'state of the optimizer'),
    (['param_schedulers'], 'state of the schedules'),
    (['meta'], 'training state'),
])  # fmt: skip
def test_a_file_without_a_part_of_the_state_is_refused(keys, missing, folder, saved, tmp_path):
    path = without(saved('') / 'epoch_3.pth', tmp_path / 'part.pth', *keys)
    with pytest.raises(UserError, match=rf'part\.pth contains no {missing}, .*load_from=.*part\.pth') as error:
        toy_run(tmp_path, 'refused', path)
    assert '\n' not in str(error.value)


def test_the_best_checkpoint_is_no_training_state(tmp_path):
    toy_run(tmp_path, 'run', default_hooks__checkpoint__save_best='toy/score', default_hooks__checkpoint__rule='less')
    (best,) = (tmp_path / 'run').glob('best_*.pth')
    with pytest.raises(UserError, match=r'best_.* contains no state of the optimizer, .* load_from='):
        toy_run(tmp_path, 'from_best', best)
    for path in (tmp_path / 'run').glob('epoch_*.pth'):
        path.unlink()
    content = best.read_bytes()
    with pytest.raises(UserError, match=r'none of the 1 checkpoints .* is an intact training state.* load_from='):
        toy_run(tmp_path, 'run', 'auto')
    assert best.read_bytes() == content


def test_a_checkpoint_without_a_history_resumes(folder, saved, tmp_path):
    path = without(saved('') / 'epoch_3.pth', tmp_path / 'no_history.pth', 'message_hub')
    toy_run(folder, 'no_history', path)
    assert_same_rates(folder, 'no_history', saved('').name, start=3)
    assert 'the checkpoint has no message_hub' in log(folder, 'no_history')


@pytest.mark.parametrize('changes', [{}, dict(train_dataloader__batch_size=4)])
def test_a_checkpoint_of_mmengine_resumes_at_its_epoch(changes, folder, saved, tmp_path):
    """Their checkpoints have neither the position in an epoch nor the name of the optimizer."""
    container = torch.load(saved('') / 'epoch_3.pth', weights_only=False)
    del container['meta']['position'], container['meta']['optimizers']
    torch.save(container, tmp_path / 'other.pth')
    name = f'mmengine_{len(changes)}'
    toy_run(folder, f'{name}_resumed', tmp_path / 'other.pth', **changes)
    toy_run(folder, f'{name}_whole', **changes)
    assert_same_rates(folder, f'{name}_resumed', f'{name}_whole', start=3)


@pytest.mark.parametrize('config, changes, message', [
    (SGD, dict(optim_wrapper__optimizer=dict(type='AdamW', lr=1e-3, _delete_=True), param_scheduler=None),
     'saved with the optimizer SGD, but this run has AdamW'),
    ('', dict(optim_wrapper__optimizer__type='Adam'), 'saved with the optimizer AdamW, but this run has Adam:'),
    ('', dict(optim_wrapper__optimizer__amsgrad=True), 'saved with amsgrad=False, but this run has amsgrad=True'),
    ('', dict(optim_wrapper__paramwise_cfg=None), r'parameter groups of \[1, 1\] parameters.* groups of \[2\]'),
])  # fmt: skip
def test_another_optimizer_is_refused(config, changes, message, folder, saved, tmp_path):
    with pytest.raises(UserError, match=message) as error:
        toy_run(tmp_path, 'refused', saved(config) / 'epoch_3.pth', config, **changes)
    assert 'load_from=' in str(error.value) and '\n' not in str(error.value)


def test_another_number_of_images_is_refused_mid_epoch(tmp_path):
    config = "default_hooks['checkpoint'].update(by_epoch=False, interval=4)\n"
    toy_run(tmp_path, 'saved', config=config)
    path = tmp_path / 'saved' / 'iter_4.pth'
    with pytest.raises(
        UserError, match=r'mid-epoch with .* 12 images, but this run has .* 14 images: use the same data'
    ):
        toy_run(tmp_path, 'refused', path, config, train_dataloader__dataset__size=14)
