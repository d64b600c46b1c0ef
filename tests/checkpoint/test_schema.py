"""Types of the content of a file: what writers store passes, and the first wrong entry is named."""

import re
from collections import Counter, OrderedDict

import numpy as np
import pytest
import torch
from broken_containers import attributed, replaced
from torch import nn

from mogacore.checkpoint.schema import (
    MalformedError,
    check_container,
    check_optimizer_state,
    check_resume_parts,
    is_state_dict,
    shown,
)

SPARSE = torch.eye(3).to_sparse()
LONG = 'a' * 1000  # the longest text


class Scaled(torch.Tensor):
    pass


def with_attribute():
    tensor = torch.ones(2)
    tensor.numel = 5
    return tensor


def training_state():
    """A file of a training run of a model with the weights w and b."""
    weights = OrderedDict(w=torch.zeros(3, 2), b=nn.Parameter(torch.zeros(3)), num_batches_tracked=torch.tensor(4))
    weights._metadata = OrderedDict({'': {'version': 1}, 'norm': {'version': None}, 'act': {}})
    slots = dict(step=torch.tensor(6.0), exp_avg=torch.zeros(3, 2), exp_avg_sq=torch.zeros(3, 2))
    group = dict(params=[0, 1], lr=0.1, betas=(0.9, 0.999), eps=1e-8, weight_decay=0, amsgrad=False, initial_lr=0.1)
    position = dict(
        batch_in_epoch=0, batch_size=2, world_size=1, num_images=12, num_batches=6, accumulative_counts=1
    )  # fmt: skip
    names = dict(
        classes=('a', 'b'), palette=[(1, 2, 3), [4, 5, 6]], keypoint_id2name={0: 'eye'}, keypoint_name2id={'eye': 0},
        flip_indices=[1, 0], keypoint_colors=np.zeros((2, 3)), skeleton_links=[(0, 1)], sigmas=np.array([0.1, 0.2]),
        skeleton_link_colors=[[0, 0, 0]], dataset_keypoint_weights=[1.0, np.float32(2)], dataset_name='own',
    )  # fmt: skip
    return dict(
        meta=dict(epoch=1, iter=np.int64(6), seed=0, position=position, dataset_meta=names, cfg='text'),
        state_dict=weights,
        optimizer=dict(state={0: slots}, param_groups=[group], base_param_settings=dict(lr=0.1), loss_scaler={}),
        param_schedulers=[
            dict(last_step=6, base_values=[0.1], by_epoch=np.bool_(True), param_name='lr', T_max=5, eta_min=None)
        ],
        message_hub=dict(
            log_scalars={},
            runtime_info=dict(
                best_score=np.float64(0.5), best_ckpt=None, last_ckpt='epoch_1.pth', keep_ckpt_ids=[1], stage='train'
            ),
            resumed_keys=dict(epoch=True, loss=False),
        ),
        gradients=dict(w=torch.ones(3, 2)),
        ema_state_dict={'module.w': torch.ones(3, 2), 'module.b': torch.ones(3), 'steps': torch.tensor(6)},
    )  # fmt: skip


def place(path):
    """Keys of a path such as ``meta.position.epoch``; numbers are positions or keys."""
    return [int(part) if part.isdecimal() else part for part in path.split('/')]


def check(state):
    check_container(state, 'f.pth')
    check_resume_parts(state, 'f.pth')


NAMES = 'meta/dataset_meta'
GROUP = 'optimizer/param_groups/0'
SLOTS = 'optimizer/state/0'
SCHEDULER = 'param_schedulers/0'


@pytest.mark.parametrize(
    'path, value',
    [
        ('meta/seed', None),
        ('meta/seed', 2**32 - 1),
        ('meta/epoch', 2**62 - 1),
        ('meta/epoch', 0),
        ('meta/position/batch_size', 1),
        ('meta/position/batch_size', 2**62 - 1),
        ('meta/position/num_batches', ...),
        (NAMES, None),
        (f'{NAMES}/classes', None),
        (f'{NAMES}/palette', 'random'),
        (f'state_dict/{LONG}', torch.zeros(1)),
        ('state_dict/epoch', 5),  # strict loading reports it
        ('state_dict/expanded', torch.zeros(1).expand(2**28)),  # 1 GiB
        ('state_dict_ema', None),
        ('state_dict_ema', dict(w=torch.zeros(1))),
        ('ema', None),
        ('ema', 0.999),
        ('ema', dict(module=dict(w=torch.zeros(1)), updates=5)),
        ('optimizer', dict(a=dict(state={}, param_groups=[]), b=dict(state={}, param_groups=[]))),
        ('optimizer/state', OrderedDict()),
        ('optimizer/loss_scaler', ...),
        ('optimizer/loss_scaler', dict(scale=65536.0, growth_interval=2000)),
        ('optimizer/base_param_settings', None),
        (f'{GROUP}/lr', torch.tensor(0.1)),
        (f'{GROUP}/params', [0, 'fc.weight']),
        (f'{SLOTS}/step', 6),
        (f'{SLOTS}/exp_avg', None),
        (f'{SLOTS}/history', [1]),
        ('param_schedulers', dict(a=[dict(last_step=-1)], b=[])),
        (f'{SCHEDULER}/eta_min', 1e-5),
        ('message_hub/runtime_info/best_ckpt', 'best.pth'),
        ('message_hub/runtime_info/last_ckpt', None),
        ('message_hub/runtime_info/last_ckpt', 'a\udcff.pth'),  # a file name that is no UTF-8
        ('message_hub/resumed_keys', {}),
        ('ema_state_dict/steps', 6),
    ],
)
def test_what_writers_store_is_accepted(path, value):
    check(training_state())
    check(replaced(training_state(), place(path), value))


@pytest.mark.parametrize(
    'path, value, found',
    [
        ('state_dict', 5, 'state_dict is 5, not a dict'),
        ('state_dict', [1], 'state_dict is a list, not a dict'),
        ('state_dict', Counter('a'), 'state_dict is a Counter, not a dict'),
        ('state_dict', attributed({}, get=5), 'state_dict is a dict with replaced attributes, not an ordinary dict'),
        ('state_dict', attributed({}, _metadata=5), '_metadata of state_dict is 5, not a dict'),
        ('state_dict', attributed({}, _metadata={'a': 5}), "_metadata of state_dict for 'a' is 5, not a dict"),
        (
            'state_dict',
            attributed({}, _metadata={'a': {'version': 'x'}}),
            "_metadata of state_dict for 'a'.version is the text 'x', not an integer or None",
        ),
        ('state_dict/5', torch.zeros(1), 'a key of state_dict is 5, not printable text'),
        ('state_dict/a\nb', torch.zeros(1), r"a key of state_dict is the text 'a\nb', not printable text"),
        (f'state_dict/{LONG}a', torch.zeros(1), f"a key of state_dict is the text '{'a' * 40}', not printable text"),
        ('state_dict/', torch.zeros(1), "a key of state_dict is '', not the name of a weight"),
        ('state_dict/w', SPARSE, 'w in state_dict is a sparse tensor, not a dense tensor'),
        ('state_dict/w', torch.eye(3).to_sparse_csr(), 'w in state_dict is a sparse tensor, not a dense tensor'),
        ('state_dict/w', torch.nested.nested_tensor([torch.ones(1)]), 'w in state_dict is a nested tensor, not'),
        ('state_dict/w', torch.empty(2, device='meta'), 'w in state_dict is a meta tensor, which has no values, not'),
        ('state_dict/w', torch.ones(2).as_subclass(Scaled), 'w in state_dict is a Scaled, not a dense tensor'),
        ('state_dict/w', with_attribute(), 'w in state_dict is a tensor with replaced attributes, not a dense tensor'),
        (
            'state_dict/w',
            torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
            'w in state_dict is a quantized tensor, not a dense tensor',
        ),
        (
            'state_dict/w',
            torch.zeros(1).expand(2**28 + 1),
            'w in state_dict is a tensor of shape (268435457,) without that many values, not a dense tensor',
        ),
        ('model', {'w': SPARSE}, 'w in model is a sparse tensor, not'),
        ('module', {'w': SPARSE}, 'w in module is a sparse tensor, not'),
        ('state_dict_ema', {'w': SPARSE}, 'w in state_dict_ema is a sparse tensor, not'),
        ('model_ema', 5, 'model_ema is 5, not a dict'),
        ('ema', {'w': SPARSE}, 'w in ema is a sparse tensor, not'),
        ('ema', {'module': {'w': SPARSE}}, 'w in ema.module is a sparse tensor, not'),
        ('meta', None, 'meta is None, not a dict'),
        (NAMES, 5, 'meta.dataset_meta is 5, not a dict'),
        (f'{NAMES}/classes', 'abc', "meta.dataset_meta.classes is the text 'abc', not a list of names or None"),
        (f'{NAMES}/classes', [1], 'classes is a list with other content, not a list of names or None'),
        (f'{NAMES}/palette', [1, 2], 'palette is a list with other content, not a list of colors or text or None'),
        (f'{NAMES}/palette', [[1, 2]], 'palette is a list with other content, not'),
        (f'{NAMES}/keypoint_id2name', {'a': 'b'}, 'keypoint_id2name is a dict with other content, not a dict of names'),
        (f'{NAMES}/keypoint_id2name', {0: 1}, 'keypoint_id2name is a dict with other content, not'),
        (f'{NAMES}/keypoint_name2id', {'a': 'b'}, 'keypoint_name2id is a dict with other content, not a dict of integ'),
        (f'{NAMES}/keypoint_name2id', ['a'], 'keypoint_name2id is a list, not a dict of integers or None'),
        (f'{NAMES}/flip_indices', [0.5], 'flip_indices is a list with other content, not a list of integers or None'),
        (f'{NAMES}/keypoint_colors', [[1, 2]], 'keypoint_colors is a list with other content, not a list of colors'),
        (f'{NAMES}/skeleton_links', [[1, 2, 3]], 'skeleton_links is a list with other content, not a list of pairs of'),
        (f'{NAMES}/skeleton_link_colors', [1], 'skeleton_link_colors is a list with other content, not a list of'),
        (f'{NAMES}/dataset_keypoint_weights', ['a'], 'dataset_keypoint_weights is a list with other content, not'),
        (f'{NAMES}/sigmas', 1, 'sigmas is 1, not a list of numbers or None'),
        ('meta/epoch', -1, 'meta.epoch is -1, not an integer of 0 or more'),
        ('meta/epoch', True, 'meta.epoch is True, not'),
        ('meta/epoch', 2**62, 'meta.epoch is 4611686018427387904, not'),
        ('meta/iter', 1.5, 'meta.iter is 1.5, not an integer of 0 or more'),
        ('meta/seed', -1, 'meta.seed is -1, not an integer from 0 to 2**32 - 1 or None'),
        ('meta/seed', 2**32, 'meta.seed is 4294967296, not'),
        ('meta/position', 5, 'meta.position is 5, not a dict with text keys'),
        ('meta/position/5', 5, 'meta.position is a dict with other content, not a dict with text keys'),
        ('meta/position/batch_in_epoch', -1, 'meta.position.batch_in_epoch is -1, not an integer of 0 or more'),
        ('meta/position/batch_in_epoch', ..., 'meta.position has no batch_in_epoch'),
        ('meta/position/batch_size', ..., 'meta.position has no batch_size'),
        ('meta/position/world_size', ..., 'meta.position has no world_size'),
        ('meta/position/batch_size', 0, 'meta.position.batch_size is 0, not a positive integer'),
        ('meta/position/batch_size', 2**62, 'meta.position.batch_size is 4611686018427387904, not a positive integer'),
        ('meta/position/num_batches', 0, 'meta.position.num_batches is 0, not a positive integer'),
        ('state_dict', ..., 'the checkpoint has no state_dict'),
        ('optimizer', 5, 'optimizer is 5, not a dict'),
        ('optimizer/state', ..., 'optimizer has no state'),
        ('optimizer', {}, 'optimizer has no state'),
        ('optimizer', {'a': {'state': {}}}, 'optimizer.a has no param_groups'),
        ('optimizer', {'state': {}}, 'optimizer has no param_groups'),
        ('optimizer', {'param_groups': []}, 'optimizer has no state'),
        ('optimizer', {'a': 5}, 'optimizer.a is 5, not a dict'),
        ('optimizer/param_groups', 5, 'optimizer.param_groups is 5, not a list of dicts'),
        ('optimizer/param_groups', [5], 'optimizer.param_groups is a list with other content, not a list of dicts'),
        (
            'optimizer/base_param_settings',
            {'lr': 'x'},
            "optimizer.base_param_settings.lr is the text 'x', not a number",
        ),
        ('optimizer/loss_scaler', 5, 'optimizer.loss_scaler is 5, not a dict with text keys'),
        ('optimizer/loss_scaler', {'scale': 'x'}, "optimizer.loss_scaler.scale is the text 'x', not a number"),
        (f'{GROUP}/lr', 'x', "optimizer.param_groups[0].lr is the text 'x', not a number"),
        (f'{GROUP}/lr', True, 'optimizer.param_groups[0].lr is True, not a number'),
        (f'{GROUP}/lr', np.bool_(True), f'optimizer.param_groups[0].lr is a {np.bool_.__name__}, not a number'),
        (f'{GROUP}/lr', SPARSE, 'optimizer.param_groups[0].lr is a sparse tensor, not a number'),
        (f'{GROUP}/lr', torch.ones(2), 'optimizer.param_groups[0].lr is a tensor of shape (2,), not a number'),
        (f'{GROUP}/lr', torch.ones((), dtype=torch.complex64), 'optimizer.param_groups[0].lr is a tensor of shape ()'),
        *(
            (f'{GROUP}/{name}', 'x', f"optimizer.param_groups[0].{name} is the text 'x', not a number")
            for name in ('initial_lr', 'weight_decay', 'eps', 'momentum', 'dampening', 'alpha', 'rho')
        ),
        (f'{GROUP}/betas', [0.9], 'optimizer.param_groups[0].betas is a list with other content, not a list of two'),
        (f'{GROUP}/params', ..., 'optimizer.param_groups[0] has no params'),
        (f'{GROUP}/params', [0.5], 'optimizer.param_groups[0].params is a list with other content, not a list of par'),
        (f'{GROUP}/params', ['a'], 'a key of optimizer.state is 0, not the number of a parameter'),
        ('optimizer/state', 5, 'optimizer.state is 5, not a dict'),
        ('optimizer/state', Counter('a'), 'optimizer.state is a Counter, not a dict'),
        ('optimizer/state/9', {}, 'a key of optimizer.state is 9, not the number of a parameter'),
        (SLOTS, 5, 'optimizer.state[0] is 5, not a dict'),
        (f'{SLOTS}/step', 'x', "optimizer.state[0].step is the text 'x', not a number"),
        (f'{SLOTS}/exp_avg', 'x', "optimizer.state[0].exp_avg is the text 'x', not a tensor or number"),
        (f'{SLOTS}/exp_avg', SPARSE, 'exp_avg in optimizer.state[0] is a sparse tensor, not a dense tensor'),
        ('message_hub', 5, 'message_hub is 5, not a dict'),
        ('message_hub/log_scalars', ..., 'message_hub has no log_scalars'),
        ('message_hub/log_scalars', 5, 'message_hub.log_scalars is 5, not a dict with text keys'),
        (
            'message_hub/resumed_keys/epoch',
            5,
            'message_hub.resumed_keys is a dict with other content, not a dict of fla',
        ),
        (
            'message_hub/runtime_info/best_score',
            'x',
            "message_hub.runtime_info.best_score is the text 'x', not a number",
        ),
        ('message_hub/runtime_info/best_score_top1', 'x', 'message_hub.runtime_info.best_score_top1 is the text'),
        ('message_hub/runtime_info/best_ckpt', 5, 'message_hub.runtime_info.best_ckpt is 5, not a path or None'),
        ('message_hub/runtime_info/keep_ckpt_ids', 5, 'message_hub.runtime_info.keep_ckpt_ids is 5, not a list of int'),
        ('message_hub/runtime_info/last_ckpt', 5, 'message_hub.runtime_info.last_ckpt is 5, not a path or None'),
        ('param_schedulers', 5, 'param_schedulers is 5, not a list of dicts'),
        ('param_schedulers', {'a': 5}, 'param_schedulers.a is 5, not a list of dicts'),
        ('param_schedulers', {'a': [{'end': 'x'}]}, "param_schedulers.a[0].end is the text 'x', not an integer"),
        (f'{SCHEDULER}/last_step', 0.5, 'param_schedulers[0].last_step is 0.5, not an integer'),
        (f'{SCHEDULER}/begin', -(2**62), 'param_schedulers[0].begin is -4611686018427387904, not an integer'),
        (f'{SCHEDULER}/base_values', 5, 'param_schedulers[0].base_values is 5, not a list of numbers'),
        (f'{SCHEDULER}/gamma', None, 'param_schedulers[0].gamma is None, not a number'),
        (f'{SCHEDULER}/eta_min', 'x', "param_schedulers[0].eta_min is the text 'x', not a number or None"),
        (f'{SCHEDULER}/by_epoch', 1, 'param_schedulers[0].by_epoch is 1, not True or False'),
        (f'{SCHEDULER}/param_name', 5, 'param_schedulers[0].param_name is 5, not text'),
        (f'{SCHEDULER}/optimizer', 5, "a key of param_schedulers[0] is 'optimizer', not a setting of a scheduler"),
        (f'{SCHEDULER}/step', 5, "a key of param_schedulers[0] is 'step', not a setting of a scheduler"),
        ('gradients', 5, 'gradients is 5, not a dict'),
        ('gradients/w', 1, 'w in gradients is 1, not a tensor for a weight of state_dict'),
        ('gradients/other', torch.ones(1), 'other in gradients is a tensor of shape (1,), not a tensor for a weight'),
        (
            'gradients/w',
            torch.ones(3, 3),
            'w in gradients is torch.float32 of shape (3, 3), not torch.float32 of (3, 2)',
        ),
        (
            'gradients/w',
            torch.ones(3, 2).double(),
            'w in gradients is torch.float64 of shape (3, 2), not torch.float32',
        ),
        ('ema_state_dict', 5, 'ema_state_dict is 5, not a dict'),
        ('ema_state_dict/steps', ..., 'ema_state_dict.steps is None, not a number'),
        ('ema_state_dict/steps', 'x', "ema_state_dict.steps is the text 'x', not a number"),
        (
            'ema_state_dict/module.other',
            torch.ones(1),
            'other in ema_state_dict is a tensor of shape (1,), not a tensor',
        ),
        ('ema_state_dict/module.w', torch.ones(3), 'w in ema_state_dict is torch.float32 of shape (3,), not'),
    ],
)
def test_the_first_wrong_entry_is_named(path, value, found):
    with pytest.raises(MalformedError, match=r'^f\.pth is malformed, .*: use another file$') as caught:
        check(replaced(training_state(), place(path), value))
    assert found in str(caught.value)


def test_a_bare_state_dict_may_have_any_names():
    check_container({name: torch.zeros(1) for name in ('state_dict', 'meta', 'ema', 'model')}, 'f.pth')
    with pytest.raises(MalformedError, match='meta in the checkpoint is a sparse tensor'):
        check_container({'meta': SPARSE}, 'f.pth')


def test_a_file_without_the_parts_of_a_run_is_accepted():
    check({'state_dict': {}})


@pytest.mark.parametrize(
    'value, expected',
    [
        ({'a': torch.zeros(1)}, True),
        ({'a': torch.zeros(1), 'epoch': 3}, True),
        ({'a': torch.zeros(1), 'b': {'c': torch.zeros(1)}}, False),
        ({'a': 1}, False),
        ({}, False),
        (5, False),
    ],
)
def test_a_state_dict_is_one_level_of_tensors(value, expected):
    assert is_state_dict(value) is expected


@pytest.mark.parametrize(
    'value, text',
    [
        (None, 'None'),
        (True, 'True'),
        (10**60, '1' + 39 * '0'),
        (np.float64(2), repr(np.float64(2))),
        ('b' * 60, f"the text '{'b' * 40}'"),
        (torch.zeros(2, 3), 'a tensor of shape (2, 3)'),
        (SPARSE, 'a sparse tensor'),
        ({1}, 'a set'),
        (..., 'an ellipsis'),
        (OrderedDict(), 'a OrderedDict'),
    ],
)
def test_values_are_described_shortly(value, text):
    assert shown(value) == text


class TestOptimizerState:
    """A state that torch has loaded; torch itself compares neither settings nor shapes."""

    @staticmethod
    def optimizer(kind, **settings):
        params = [nn.Parameter(torch.ones(3, 2)), nn.Parameter(torch.ones(3))]
        optimizer = kind(params, lr=0.1, **settings)
        params[0].grad = torch.ones(3, 2)
        optimizer.step()  # the second parameter has no state
        return optimizer, optimizer.state[params[0]]

    @pytest.mark.parametrize('kind', [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD, torch.optim.RMSprop])
    def test_its_own_state_fits(self, kind):
        check_optimizer_state(self.optimizer(kind)[0], 'f.pth')

    @pytest.mark.parametrize('kind', [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD])
    def test_a_missing_setting_is_named(self, kind):
        optimizer, _ = self.optimizer(kind)
        del optimizer.param_groups[0]['weight_decay'], optimizer.param_groups[0]['lr']
        with pytest.raises(
            MalformedError, match=r'^f\.pth does not fit this run, .*param_groups lacks lr, weight_decay: '
        ):
            check_optimizer_state(optimizer, 'f.pth')

    @pytest.mark.parametrize('kind', [torch.optim.Adam, torch.optim.AdamW])
    def test_a_missing_average_is_named(self, kind):
        optimizer, state = self.optimizer(kind)
        del state['step'], state['exp_avg']
        with pytest.raises(MalformedError, match=r'optimizer\.state lacks exp_avg, step: '):
            check_optimizer_state(optimizer, 'f.pth')

    # Of torch's Adam with amsgrad, SGD, RMSprop and Adagrad.
    @pytest.mark.parametrize(
        'slot', ['exp_avg', 'exp_avg_sq', 'max_exp_avg_sq', 'momentum_buffer', 'square_avg', 'sum']
    )
    @pytest.mark.parametrize('value, text', [(torch.zeros(7), r'a tensor of shape \(7,\)'), (None, 'None'), (5, '5')])
    def test_a_slot_of_another_shape_is_named(self, slot, value, text):
        optimizer, state = self.optimizer(torch.optim.AdamW)
        state[slot] = value
        if value is None and slot == 'momentum_buffer':  # SGD stores None before its first step
            return check_optimizer_state(optimizer, 'f.pth')
        with pytest.raises(MalformedError, match=rf'{re.escape(slot)} of a parameter \(3, 2\) is {text}: '):
            check_optimizer_state(optimizer, 'f.pth')
