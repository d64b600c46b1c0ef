"""The unit in which a training is counted, and schedules that do not fit into it."""

import math
import re

import pytest
from conftest import ROOT
from mmengine.config import Config
from toy_runs import CONFIG, log, rates, toy_run

from mogacore.engine.config import load_config
from mogacore.engine.length import check_schedules, choose_loop
from mogacore.engine.rescale import follow_length
from mogacore.engine.runner import dry_run, train
from mogacore.errors import UserError
from mogacore.locations import find_config

WARM_UP = "param_scheduler = [dict(type='LinearLR', start_factor=0.1, by_epoch={}, begin=0, end={})]\n"


@pytest.mark.parametrize('settings, expected', [
    (dict(by_epoch=False, max_epochs=300, max_iters=20), dict(type='IterBasedTrainLoop', max_iters=20)),
    (dict(by_epoch=True, max_epochs=3, max_iters=20), dict(type='EpochBasedTrainLoop', max_epochs=3)),
    (dict(type='IterBasedTrainLoop', by_epoch=True, max_epochs=3, max_iters=20),
     dict(type='EpochBasedTrainLoop', max_epochs=3)),
    (dict(max_epochs=3), dict(type='EpochBasedTrainLoop', max_epochs=3)),
    (dict(max_iters=3), dict(type='IterBasedTrainLoop', max_iters=3)),
    (dict(type='OwnLoop', max_epochs=3, max_iters=5), dict(type='OwnLoop', max_epochs=3, max_iters=5)),
])  # fmt: skip
def test_by_epoch_decides_the_unit(settings, expected):
    choose_loop(settings)
    assert settings == expected


@pytest.mark.parametrize('settings, message', [
    (dict(type='IterBasedTrainLoop', max_iters=20, max_epochs=3),
     r'train_cfg\.max_epochs=3 has no effect, .* set train_cfg\.max_iters, or train_cfg\.by_epoch=True'),
    (dict(max_iters=20, max_epochs=3), r'train_cfg\.max_iters=20 has no effect, .* or train_cfg\.by_epoch=False'),
    (dict(by_epoch=False, max_epochs=3), r'train_cfg has no max_iters'),
    (dict(by_epoch=True), r'train_cfg has no max_epochs'),
])  # fmt: skip
def test_a_length_in_the_other_unit_is_not_ignored(settings, message):
    with pytest.raises(UserError, match=message):
        choose_loop(settings)


@pytest.mark.parametrize('kind', [dict(by_epoch=True), dict(type='EpochBasedTrainLoop')])
def test_a_length_given_as_an_option_is_not_ignored(kind, tmp_path):
    settings = dict(kind, max_epochs=3, max_iters=20)
    with pytest.raises(UserError, match=r'train_cfg\.max_iters=20 has no effect, .* or train_cfg\.by_epoch=False'):
        choose_loop(settings, ['train_cfg.max_iters'])
    settings = dict(settings, by_epoch=False)
    choose_loop(settings, ['train_cfg.max_iters', 'train_cfg.by_epoch'])
    assert settings == dict(type='IterBasedTrainLoop', max_iters=20)
    with pytest.raises(UserError, match=r'train_cfg\.max_iters=15 has no effect'):
        toy_run(tmp_path, 'run', train_cfg__max_iters=15)


def test_lengths_in_both_units_are_refused_in_our_configs(tmp_path):
    for path in sorted((ROOT / 'configs').rglob('*_digits.py')):
        config = tmp_path / path.name
        config.write_text(f"_base_ = '{path}'\ntrain_cfg = dict(max_epochs=7, max_iters=20)\n")
        with pytest.raises(UserError, match='has no effect'):
            choose_loop(load_config(config).train_cfg)


def test_training_by_iteration_beside_inherited_epochs_runs(tmp_path):
    toy_run(tmp_path, 'run', train_cfg__by_epoch=False, train_cfg__max_iters=15, train_cfg__val_interval=15)
    assert [record[1] for record in rates(tmp_path, 'run')] == list(range(15))


@pytest.mark.parametrize('loop, by_epoch', [('max_epochs=2', True), ('by_epoch=False, max_iters=2', False)])
def test_a_warm_up_longer_than_the_training_is_refused(loop, by_epoch, tmp_path):
    config = f'train_cfg = dict({loop}, val_interval=1)\n' + WARM_UP.format(by_epoch, 3)
    with pytest.raises(UserError) as error:
        toy_run(tmp_path, 'run', config=config)
    unit = 'max_epochs' if by_epoch else 'max_iters'
    assert str(error.value) == (
        f'the warm-up of param_scheduler.0 (LinearLR) ends at 3, but training at train_cfg.{unit}=2: train longer, or '
        'set param_scheduler.0.end to a smaller value'
    )
    toy_run(tmp_path, 'run', config=config, param_scheduler__0__end=2)
    assert rates(tmp_path, 'run')[-1][3][0][0] == pytest.approx(0.01)  # the base rate


@pytest.mark.usefixtures('hidden_data')
@pytest.mark.parametrize('by_epoch', [True, None])
def test_a_recipe_in_iterations_is_counted_in_epochs_if_by_epoch_says_so(by_epoch):
    options = {'train_cfg.max_epochs': 4, 'train_cfg.val_interval': 1, 'param_scheduler': None}
    name = 'segmentation/semantic-fpn_moganet-xtiny_digits'
    if by_epoch is None:
        with pytest.raises(UserError, match=r'train_cfg\.max_epochs=4 has no effect'):
            dry_run(name, cfg_options=options)
    else:
        assert ', 4 epochs, ' in dry_run(name, cfg_options=options | {'train_cfg.by_epoch': True})


def test_a_recipe_shortened_below_its_warm_up_is_refused_before_data_is_read():
    with pytest.raises(UserError, match=r'warm-up of .* ends at 5, but training at train_cfg\.max_epochs=4'):
        dry_run('classification/moganet-xtiny_8xb128_in1k-224', cfg_options={'train_cfg.max_epochs': 4})


def test_a_warm_up_longer_than_the_data_is_reported(tmp_path):
    """In iterations, so that only the length of an epoch (6) shows that 2 epochs are too short."""
    toy_run(tmp_path, 'run', config=WARM_UP.format(False, 13), train_cfg__max_epochs=2)
    assert 'warm-up of param_scheduler.0 (LinearLR) ends at 13, but training at iteration 12 (2 epochs of 6)' in log(
        tmp_path, 'run'
    )
    toy_run(tmp_path, 'fits', config=WARM_UP.format(False, 12), train_cfg__max_epochs=2)
    assert 'warm-up' not in log(tmp_path, 'fits')


def test_a_warm_up_in_epochs_longer_than_the_iterations_is_reported(tmp_path):
    options = dict(train_cfg__by_epoch=False, train_cfg__max_iters=11, train_cfg__val_interval=11)
    toy_run(tmp_path, 'run', **options)
    text = log(tmp_path, 'run')
    assert 'warm-up of param_scheduler.0 (LinearLR) ends at 12, but training at iteration 11' in text
    assert 'param_scheduler.1 (CosineAnnealingLR) begins at 12, but training ends at iteration 11' in text


def check(schedules, **train_cfg):
    choose_loop(train_cfg)
    return check_schedules(Config(dict(train_cfg=train_cfg, param_scheduler=schedules)))


COSINE = dict(type='CosineAnnealingLR', by_epoch=True)


@pytest.mark.parametrize('schedule, key', [
    (dict(type='ConstantLR', factor=0.1, end=5), 'end'),
    (dict(type='LinearMomentum', start_factor=0.1, end=5), 'end'),
    (dict(type='WarmupCosineLR', warmup=5, end=9), 'warmup'),
    (dict(type='OneCycleLR', eta_max=1, total_steps=20), 'total_steps'),
    (dict(type='OneCycleLR', eta_max=1, end=20), 'end'),
])  # fmt: skip
def test_every_kind_of_warm_up_is_compared(schedule, key):
    with pytest.raises(UserError, match=rf'warm-up of param_scheduler\.0 .* set param_scheduler\.0\.{key} to'):
        check([schedule], max_epochs=4)
    assert not check([schedule], max_epochs=20)[1:]


@pytest.mark.parametrize('schedules, expected', [
    ([dict(COSINE, end=4)], []),
    ([dict(COSINE, end=5)], []),
    ([COSINE], []),
    ([dict(COSINE, end=9)], ['param_scheduler.0 (CosineAnnealingLR) ends at 9, but training at train_cfg.max']),
    ([COSINE, dict(COSINE, begin=4, end=9)], ['param_scheduler.1 (CosineAnnealingLR) begins at 4, but training ends']),
    (dict(a=[COSINE], b=dict(COSINE, end=9)), ['param_scheduler.b (CosineAnnealingLR) ends at 9']),
    ([dict(COSINE, end=9, T_max=9)], [
        'param_scheduler.0 (CosineAnnealingLR) ends at 9, but training at train_cfg.max_epochs=4: the schedule is cut '
        'off; set param_scheduler.0.end and param_scheduler.0.T_max if']),
    ([dict(COSINE, end=3)], ['the last schedule, param_scheduler.0, ends at 3, but training at train_cfg.max']),
    ([dict(type='LinearLR', start_factor=1.0, end_factor=0.1, end=9)], ['param_scheduler.0 (LinearLR) ends at 9']),
    (None, []),
])  # fmt: skip
def test_a_schedule_that_does_not_fit_is_reported(schedules, expected):
    found = check(schedules, max_epochs=4)
    assert len(found) == len(expected)
    assert all(line.startswith(start) for line, start in zip(found, expected, strict=True))


def test_a_schedule_in_epochs_needs_a_training_in_epochs():
    with pytest.raises(UserError, match=r'param_scheduler\.0 .* takes a step per epoch, .*by_epoch=False'):
        check([COSINE], by_epoch=False, max_iters=10)


def test_every_schedule_of_the_repository_fits_its_training():
    """Files of schedules, and the configs that change a schedule or a length."""
    folder = find_config('classification/moganet-xtiny_digits').parents[1]
    is_own = re.compile(r'param_scheduler|max_epochs|max_iters').search
    paths = [path for path in folder.rglob('*.py') if is_own(path.read_text())]
    assert len(paths) > 20
    for path in paths:
        cfg = load_config(path)
        if 'train_cfg' in cfg and 'param_scheduler' in cfg:
            choose_loop(cfg.train_cfg)
            assert check_schedules(cfg) == [], path


def cosine_after_warm_up(step, warm_up, total, base=0.01):
    """Rate of the toy's schedules, in iterations: mmengine's warm-up, and half a period of a cosine."""
    if step < warm_up:
        return base * (0.01 + 0.99 * step / (warm_up - 1))
    return base / 2 * (1 + math.cos(math.pi * (step - warm_up) / (total - warm_up)))


def of_base(folder, text):
    """A config whose base is the toy's."""
    (folder / 'base.py').write_text(CONFIG)
    path = folder / 'child.py'
    path.write_text(f"_base_ = './base.py'\n{text}")
    return path


@pytest.mark.parametrize('epochs', [4, 9])
@pytest.mark.parametrize('how', ['option', 'child', 'grandchild'])
def test_schedules_follow_a_changed_number_of_epochs(how, epochs, tmp_path):
    """The toy has 6 epochs of 6 iterations, 2 epochs of them warm-up."""
    if how == 'option':
        toy_run(tmp_path, 'run', train_cfg__max_epochs=epochs)
    else:
        path = of_base(tmp_path, f'train_cfg = dict(max_epochs={epochs if how == "child" else 5})\n')
        if how == 'grandchild':
            path = tmp_path / 'grandchild.py'
            path.write_text(f"_base_ = './child.py'\ntrain_cfg = dict(max_epochs={epochs})\n")
        train(str(path), work_dir=str(tmp_path / 'run'), cfg_options=dict(experiment_name=f'{how}_{epochs}'))
    found = [groups[0][0] for *_, groups, _ in rates(tmp_path, 'run')]
    assert found == pytest.approx([cosine_after_warm_up(i, 12, 6 * epochs) for i in range(6 * epochs)])
    assert f'schedules follow train_cfg.max_epochs 6 -> {epochs}: param_scheduler.1.end 6 -> {epochs}' in log(
        tmp_path, 'run'
    )


def test_a_resumed_run_has_the_rates_of_an_uninterrupted_one_of_the_new_length(tmp_path):
    toy_run(tmp_path, 'run')
    toy_run(tmp_path, 'run', 'auto', train_cfg__max_epochs=8)
    found = [groups[0][0] for *_, groups, _ in rates(tmp_path, 'run')]
    assert found[36:] == pytest.approx([cosine_after_warm_up(i, 12, 48) for i in range(36, 48)])


def followed(schedules, old, new, tmp_path, **options):
    """The schedules after the number of epochs has changed from ``old`` to ``new``, and the report."""
    path = tmp_path / 'config.py'
    path.write_text(f'train_cfg = dict(max_epochs={old})\nparam_scheduler = {schedules!r}\n')
    options = {'train_cfg.max_epochs': new} | options
    cfg = load_config(path, options)
    report = follow_length(cfg, options)
    return cfg.to_dict()['param_scheduler'], report


@pytest.mark.parametrize('schedule, expected', [
    (dict(type='MultiStepLR', milestones=[8, 11], end=12), dict(milestones=[16, 22], end=24)),
    (dict(COSINE, begin=6, end=12, T_max=6), dict(begin=12, end=24, T_max=12)),
    (dict(COSINE, T_max=12), dict(T_max=24)),
    (dict(COSINE, end=13), dict(end=25)),
    (dict(type='WarmupCosineLR', warmup=2, cosine_end=9, end=12), dict(cosine_end=18, end=24)),
    (dict(type='OneCycleLR', eta_max=1, total_steps=12), dict(total_steps=24)),
    (dict(type='PolyLR', power=0.9, end=12), dict(end=24)),
    (dict(type='StepLR', step_size=3), dict(step_size=6)),
    (dict(type='CosineRestartLR', periods=[4, 8], restart_weights=[1, 1]), dict(periods=[8, 16])),
    (dict(type='LinearLR', start_factor=1e-3, end=5), {}),
    (dict(COSINE, by_epoch=False, end=12), {}),
    (dict(type='ReduceOnPlateauLR', monitor='loss', patience=3), {}),
])  # fmt: skip
def test_every_kind_of_schedule_follows(schedule, expected, tmp_path):
    (found,), report = followed([schedule], 12, 24, tmp_path)
    assert found == schedule | expected
    assert bool(report) == bool(expected)


def test_options_for_a_schedule_win(tmp_path):
    schedules = [dict(COSINE, end=12, T_max=12)]
    (found,), report = followed(schedules, 12, 24, tmp_path, **{'param_scheduler.0.end': 20})
    assert found == dict(COSINE, end=20, T_max=24)
    assert report == ['schedules follow train_cfg.max_epochs 12 -> 24: param_scheduler.0.T_max 12 -> 24']
    for option in ({'param_scheduler': [dict(COSINE, end=7)]}, {'param_scheduler.0': dict(end=7)}):
        (found,), report = followed([dict(COSINE, end=12)], 12, 24, tmp_path, **option)
        assert (found['end'], report) == (7, [])


def test_a_config_with_schedules_of_its_own_keeps_them(tmp_path):
    path = of_base(tmp_path, f'train_cfg = dict(max_epochs=9)\nparam_scheduler = [{dict(COSINE, end=7)}]\n')
    cfg = load_config(path)
    assert follow_length(cfg) == []
    assert cfg.param_scheduler[0].end == 7


def test_no_schedule_of_the_repository_changes():
    for path in sorted(find_config('classification/moganet-xtiny_digits').parents[1].rglob('*.py')):
        if re.search(r'max_epochs|max_iters', path.read_text()):
            assert follow_length(load_config(path)) == [], path


@pytest.mark.usefixtures('hidden_data')
def test_a_dry_run_shows_the_changed_schedules():
    options = {'train_cfg.max_epochs': 20}
    line = (
        'schedules follow train_cfg.max_epochs 5 -> 20: param_scheduler.1.end 5 -> 20, param_scheduler.1.T_max 4 -> 19'
    )
    found = dry_run('classification/moganet-xtiny_digits', cfg_options=options)
    assert line in found and 'warning' not in found


def test_schedules_in_iterations_follow_and_the_warm_up_stays():
    options = {'train_cfg.max_iters': 80000}
    cfg = load_config('segmentation/upernet_moganet-tiny_160k_ade20k-512x512', options)
    warm_up = cfg.param_scheduler[0].to_dict()
    assert len(follow_length(cfg, options)) == 1
    assert cfg.param_scheduler[0] == warm_up
    assert (cfg.param_scheduler[1].begin, cfg.param_scheduler[1].end) == (
        0,
        80001,
    )  # 160,001 of 160,000: one step after the last
