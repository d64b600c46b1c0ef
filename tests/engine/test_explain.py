"""Exceptions of a run in one line."""

import pytest
import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.registry import HOOKS, Registry

from mogacore.engine.explain import user_errors
from mogacore.errors import UserError


def test_a_missing_folder_is_named(tmp_path):
    message = f'^folder {tmp_path}/gone does not exist, or was removed while it was in use: '
    with pytest.raises(UserError, match=message), user_errors():
        (tmp_path / 'gone' / 'log.json').write_text('')


def test_other_missing_files_pass(tmp_path):
    with pytest.raises(FileNotFoundError), user_errors():
        (tmp_path / 'log.json').read_text()


def test_a_setting_that_a_class_of_a_library_refuses_is_one_line():
    message = r'^EMAHook cannot be built \(.*begin_iter.*\): correct its settings in the config$'
    with pytest.raises(UserError, match=message), user_errors():
        HOOKS.build(dict(type='EMAHook', begin_iter=-1))
    with (
        pytest.raises(UserError, match=r'^a part of the config cannot be built \(.*NoneType.*\): correct'),
        user_errors(),
    ):
        HOOKS.build(None)


def test_a_setting_that_a_metric_refuses_when_it_computes_is_one_line():
    pytest.importorskip('mmpretrain')
    from mmpretrain.evaluation import MultiLabelMetric

    evaluator = Evaluator(MultiLabelMetric(average='mean'))
    sample = dict(pred_score=torch.tensor([0.2, 0.9]), gt_score=torch.tensor([0, 1]))
    evaluator.process([sample])
    message = r'^MultiLabelMetric cannot compute its scores \(.*average.*\): correct its settings in the config$'
    with pytest.raises(UserError, match=message), user_errors():
        evaluator.evaluate(1)


def test_an_error_of_the_users_own_metric_passes():
    class Broken(BaseMetric):
        def process(self, data_batch, data_samples):
            raise KeyError('a bug')

        compute_metrics = process

    with pytest.raises(KeyError, match='a bug') as raised, user_errors():
        Evaluator(Broken()).process([])
    assert not isinstance(raised.value, UserError)


def test_an_error_of_the_users_own_class_passes():
    own = Registry('own')

    @own.register_module()
    class Broken:
        def __init__(self):
            raise ValueError('a bug')

    with pytest.raises(ValueError, match='a bug') as raised, user_errors():
        own.build(dict(type='Broken'))
    assert not isinstance(raised.value, UserError)
    with pytest.raises(TypeError), user_errors():  # not while a part of a config is built
        len(5)
