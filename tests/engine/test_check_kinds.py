"""Parts of a config with a value of another kind are named in one line."""

import re

import pytest
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.hooks import EMAHook

from mogacore.engine.check_config import check_keys
from mogacore.engine.check_kinds import check_kind, replaced_dicts
from mogacore.engine.config import load_config
from mogacore.errors import UserError

HOOK = dict(type='EMAHook')
LOADER = dict(batch_size=2, num_workers=0, dataset=dict(type='X'))


@pytest.mark.parametrize(
    'name, value, problem',
    [
        ('custom_hooks', 5, ('custom_hooks', 'is 5: it must be a list of dicts')),
        ('custom_hooks', HOOK, ('custom_hooks', "is {'type': 'EMAHook'}: it must be a list of dicts")),
        ('custom_hooks', [HOOK, 5], ('custom_hooks.1', 'is 5: it must be a dict')),
        ('custom_hooks', [dict(momentum=1)], ('custom_hooks.0', 'has no type: add it')),
        ('val_evaluator', 'Accuracy', ('val_evaluator', "is 'Accuracy': it must be a list of dicts")),
        ('val_evaluator', dict(topk=1), ('val_evaluator', 'has no type: add it')),
        (
            'param_scheduler',
            [dict(type='LinearLR', begin='a')],
            ('param_scheduler.0.begin', "is 'a': it must be a number"),
        ),
        ('param_scheduler', dict(one=[5]), ('param_scheduler.0', 'is 5: it must be a dict')),
        ('optim_wrapper', dict(clip_grad=1), ('optim_wrapper.clip_grad', 'is 1: it must be a dict')),
        ('train_dataloader', dict(LOADER, dataset=[]), ('train_dataloader.dataset', 'is []: it must be a dict')),
        (
            'train_dataloader',
            dict(LOADER, num_workers=1.5),
            ('train_dataloader.num_workers', 'is 1.5: it must be 0 or'),
        ),
        (
            'train_dataloader',
            dict(LOADER, batch_size=True),
            ('train_dataloader.batch_size', 'is True: it must be a pos'),
        ),
        ('train_cfg', dict(val_interval=0), ('train_cfg.val_interval', 'is 0: it must be a positive integer')),
        ('train_cfg', dict(max_epochs=None), ('train_cfg.max_epochs', 'is None: it must be a positive integer')),
        (
            'optim_wrapper',
            dict(optimizer=dict(lr=[1, 2])),
            ('optim_wrapper.optimizer.lr', 'is [1, 2]: it must be a num'),
        ),
        (
            'optim_wrapper',
            dict(optimizer=dict(lr=None)),
            ('optim_wrapper.optimizer.lr', 'is None: it must be a number'),
        ),
        (
            'optim_wrapper',
            dict(clip_grad=dict(max_norm='a')),
            ('optim_wrapper.clip_grad.max_norm', "is 'a': it must be"),
        ),
        (
            'default_hooks',
            dict(checkpoint=dict(type='X', save_best=5)),
            ('default_hooks.checkpoint.save_best', 'is 5: it must'),
        ),
        ('auto_scale_lr', dict(base_batch_size=0), ('auto_scale_lr.base_batch_size', 'is 0: it must be a positive')),
        (
            'optim_wrapper',
            dict(clip_grad=dict(max_norm=0)),
            ('optim_wrapper.clip_grad.max_norm', 'is 0: it must be a p'),
        ),
        ('optim_wrapper', dict(clip_grad=dict(norm_type=2)), ('optim_wrapper.clip_grad', 'has no max_norm: add it')),
        ('optim_wrapper', dict(clip_grad=dict(type='value')), ('optim_wrapper.clip_grad', 'has no clip_value: add it')),
        (
            'optim_wrapper',
            dict(paramwise_cfg=dict(norm_decay_mult='a')),
            ('optim_wrapper.paramwise_cfg.norm_decay_mult', "is 'a': it must be 0 or a positive number"),
        ),
        (
            'optim_wrapper',
            dict(paramwise_cfg=dict(custom_keys=dict(bias=dict(lr_mult=-1)))),
            ('optim_wrapper.paramwise_cfg.custom_keys.bias.lr_mult', 'is -1: it must be 0 or'),
        ),
        (
            'optim_wrapper',
            dict(paramwise_cfg=dict(custom_keys=dict(bias=0.1))),
            ('optim_wrapper.paramwise_cfg.custom_keys.bias', 'is 0.1: it must be a dict'),
        ),
        ('default_hooks', dict(logger=dict(interval=5)), ('default_hooks.logger', 'has no type: add it')),
        ('env_cfg', dict(dist_cfg='nccl'), ('env_cfg.dist_cfg', "is 'nccl': it must be a dict")),
        ('env_cfg', dict(resource_limit=-1), ('env_cfg.resource_limit', 'is -1: it must be a positive integer')),
        ('compile', 5, ('compile', 'is 5: it must be True or False or a dict')),
        ('data_preprocessor', 5, ('data_preprocessor', 'is 5: it must be a dict')),
        ('load_from', 5, ('load_from', 'is 5: it must be the path or name of a weight file')),
        ('log_level', 'abc', ('log_level', "is 'abc': choose from CRITICAL, ERROR")),
        ('randomness', dict(seed=-1), ('randomness.seed', 'is -1: it must be 0 or a positive integer')),
    ],
)
def test_a_value_of_another_kind_is_a_problem(name, value, problem):
    ((path, what),) = check_kind(name, value)
    assert path == problem[0] and what.startswith(problem[1])


@pytest.mark.parametrize(
    'name, value',
    [
        ('custom_hooks', None),
        ('custom_hooks', (HOOK,)),
        ('val_evaluator', dict(type='Accuracy')),
        ('val_evaluator', [dict(type='Accuracy')] * 2),
        ('param_scheduler', dict(type='LinearLR', begin=0, end=1)),
        ('param_scheduler', dict(one=[dict(type='LinearLR')], two=dict(type='LinearLR'))),
        ('optim_wrapper', dict(clip_grad=None, optimizer=dict(type='SGD'))),
        ('train_dataloader', LOADER),
        ('randomness', dict(seed=None)),
        ('resume', True),
        ('load_ema', None),
        ('load_allow_missing', ('head.*',)),
    ],
)
def test_values_that_the_parts_take_are_no_problem(name, value):
    assert not list(check_kind(name, value))


def test_an_option_may_remove_or_change_a_dict_but_not_replace_it():
    before = dict(model=dict(backbone=dict(type='A'), head=dict(topk=(1,))), hooks=[dict(type='B')])
    for change in (dict(backbone=None), dict(backbone=dict(type='C')), dict(head=dict(topk=1)), dict(new=5)):
        assert not list(replaced_dicts(dict(before, model=dict(before['model'], **change)), before))
    assert not list(replaced_dicts(dict(before, hooks=[]), before))
    assert [path for path, _ in replaced_dicts(dict(model=dict(backbone=5), hooks='x'), before)] == [
        'model.backbone',
        'hooks',
    ]
    assert [path for path, _ in replaced_dicts(dict(before, hooks=[5]), before)] == ['hooks.0']


@pytest.mark.parametrize('name, value, problem', [
    ('custom_hooks', [EMAHook()], ('custom_hooks.0', r'use a dict with the class as its type, .*EMAHook\)$')),
    ('custom_hooks', EMAHook(), ('custom_hooks', r'dict\(type=EMAHook\)$')),
    ('custom_hooks', [EMAHook], ('custom_hooks.0', r'dict\(type=EMAHook\)$')),
    ('val_evaluator', [Evaluator([])], ('val_evaluator.0', r'dict\(type=Evaluator\)$')),
])  # fmt: skip
def test_objects_are_answered_with_the_dict_that_builds_them(name, value, problem):
    """mmengine cannot write objects into the config of the run either."""
    for found in (check_kind(name, value), replaced_dicts({name: value}, {name: [HOOK]})):
        for path, what in found:
            assert path == problem[0] and re.search(problem[1], what)
    assert list(check_kind(name, value))


@pytest.mark.parametrize(
    'option, message',
    [
        ({'val_dataloader.dataset': 5}, 'val_dataloader.dataset is 5: it must be a dict'),
        ({'default_hooks.logger': 'often'}, "default_hooks.logger is 'often': it must be a dict; set single entries"),
    ],
)
def test_options_are_checked(option, message):
    with pytest.raises(UserError, match=message):
        check_keys(load_config('video_prediction/simvp_moganet_moving-digits', option))


def test_mmengine_cannot_write_objects_into_a_config():
    with pytest.raises(SyntaxError):
        _ = Config(dict(custom_hooks=[EMAHook()])).pretty_text
