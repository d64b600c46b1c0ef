"""Settings that a class of the libraries reads late, or that turn it off, are refused before a run."""

import inspect
from importlib import import_module

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import CheckpointHook, EMAHook, LoggerHook
from mmengine.optim import CosineAnnealingLR, LinearLR, OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, LogProcessor, set_random_seed
from mmengine.utils.dl_utils import set_multi_processing
from torch.utils.data import DataLoader

from mogacore.deploy.source import load_source
from mogacore.engine.check_classes import check_topk
from mogacore.engine.check_settings import OF_BUILDERS, RULES, check_settings
from mogacore.engine.runner import dry_run
from mogacore.engine.runner import test as run_test
from mogacore.errors import UserError
from mogacore.inference.predictor import infer
from mogacore.libraries import TASK_LIBRARIES, find_class, import_quietly, registered_names

DIGITS = 'classification/moganet-xtiny_digits'


def metric(library, name):
    pytest.importorskip(library)
    import_quietly(library)
    import_module('mogacore.registry')
    return next(cls for cls, registry in find_class(name, library) if registry == 'metric')


def problems(cls, registry, **settings):
    return dict(check_settings(cls, registry, settings, 'part'))


@pytest.mark.parametrize(
    'library, name, wrong, right',
    [
        (
            'mmpretrain', 'Accuracy',
            dict(topk=[0, -1, 1.5, 'abc', True, None, [], (), (1, 0), ['5']], thrs=['a', [], ['a'], True]),
            dict(topk=[1, 5, (1, 5), [1]], thrs=[0.5, None, (0.1, None)]),
        ),
        (
            'mmpretrain', 'SingleLabelMetric', dict(average=['mean', 5, []], items=[[], ['recal'], 5], num_classes=[0]),
            dict(average=['micro', None], items=[['recall'], ('precision', 'f1-score')]),
        ),
        ('mmpretrain', 'MultiLabelMetric', dict(topk=[0, 'a'], thr=['a', [0.5]]), dict(topk=[2, None], thr=[0.3, 1])),
        ('mmpretrain', 'AveragePrecision', dict(average=['micro', 'mean']), dict(average=['macro', None])),
        (
            'mmdet', 'CocoMetric',
            dict(proposal_nums=[100, [100], ['a'] * 3], iou_thrs=['a', []], metric_items=[[], ['AP'], 'AP'],
                 classwise=['yes', 1], metric=[5, [5]]),
            dict(proposal_nums=[(1, 10, 100)], iou_thrs=[0.5, [0.5, 0.75]], metric_items=[['mAP', 'mAP_50'], None],
                 classwise=[True], metric=['bbox', ['bbox', 'segm'], ('bbox',)]),
        ),
        (
            'mmseg', 'IoUMetric', dict(iou_metrics=[[], ['IoU'], 'miou', 5], ignore_index=['a', 1.5], beta=['a']),
            dict(iou_metrics=[['mIoU', 'mDice'], 'mIoU'], ignore_index=[0], nan_to_num=[0]),
        ),
        ('mmpose', 'CocoMetric', dict(iou_type=['bbox'], nms_thr=['a'], score_mode=[5]), dict(nms_thr=[1, 0.5])),
        ('mmpose', 'AUC', dict(num_thrs=[0, 1.5], norm_factor=['a']), dict(num_thrs=[5], norm_factor=[10])),
        ('mmpose', 'PCKAccuracy', dict(thr=['a', None]), dict(thr=[0.1], norm_item=['bbox', ['bbox', 'torso']])),
        (
            'mmengine', 'VideoPredictionMetric', dict(metric=[5, [5]], spatial_norm=['yes'], groups=[5]),
            dict(metric=['mse', ['mse', 'ssim']], spatial_norm=[True], groups=[dict(a=1), None]),
        ),
    ],
)  # fmt: skip
def test_settings_of_metrics(library, name, wrong, right):
    cls = metric(library, name)
    for key, values in wrong.items():
        for value in values:
            assert list(problems(cls, 'metric', **{key: value})) == [f'part.{key}'], (key, value)
    for key, values in right.items():
        for value in values:
            assert not problems(cls, 'metric', **{key: value}), (key, value)


def test_what_the_library_refuses_in_a_metric_is_refused_before():
    """The library's own calculation is the oracle."""
    calculate = metric('mmpretrain', 'SingleLabelMetric').calculate
    scores, labels = torch.eye(3), torch.arange(3)
    for average in ('micro', 'macro', None, 'weighted', 'binary', ''):
        try:
            calculate(scores, labels, average=average)
            is_accepted = True
        except AssertionError:
            is_accepted = False
        assert is_accepted is not bool(problems(metric('mmpretrain', 'SingleLabelMetric'), 'metric', average=average))


@pytest.mark.parametrize('cls, key, wrong, right', [
    (CheckpointHook, 'interval', [0, -2, 1.5, 'a', True], [1, 20, -1]),
    (CheckpointHook, 'max_keep_ckpts', [0, -3, 2.5, 'all'], [1, -1]),
    (CheckpointHook, 'by_epoch', ['yes', 1], [True, False]),
    (CheckpointHook, 'out_dir', [5], ['folder', None]),
    (LoggerHook, 'interval', [0, -1, 1.5, 'often'], [1, 50]),
    (LoggerHook, 'interval_exp_name', [0], [100]),
    (CheckpointHook, 'filename_tmpl', ['abc', 'a_{}', 'a/b_{}.pth', 'a.pth', 5], ['net_{}.pth']),
    (CheckpointHook, 'rule', ['bigger', 5, []], ['less', ['less', 'greater']]),
    (CheckpointHook, 'priority', ['HIGHER', 101, -1, 1.5, [1]], ['low', 'VERY_LOW', 0, 100]),
    (EMAHook, 'begin_iter', [1.5, 'a'], [0, 5]),
    (EMAHook, 'strict_load', ['no'], [False]),
])  # fmt: skip
def test_settings_of_hooks(cls, key, wrong, right):
    for value in wrong:
        assert list(problems(cls, 'hook', **{key: value})) == [f'part.{key}'], value
    for value in right:
        assert not problems(cls, 'hook', **{key: value}), value


@pytest.mark.parametrize('key, wrong, right', [
    ('num_workers', ['a', 1.5], [0, 4]), ('prefetch_factor', [0, -1, 1.5, 'a'], [2, None]),
    ('timeout', [-1, 'a'], [0, 2.5]), ('drop_last', ['no', 0], [True]), ('pin_memory', ['yes'], [True]),
    ('persistent_workers', ['a', 1], [False]), ('multiprocessing_context', ['thread'], ['spawn']),
    ('worker_init_fn', ['abc'], [dict(type='worker_init_fn')]), ('generator', [5], [None]),
])  # fmt: skip
def test_settings_of_data_loaders(key, wrong, right):
    for value in wrong:
        assert list(problems(DataLoader, 'dataloader', **{key: value})) == [f'part.{key}'], value
    for value in right:
        assert not problems(DataLoader, 'dataloader', **{key: value}), value


@pytest.mark.parametrize('cls, registry, key, wrong, right', [
    (EpochBasedTrainLoop, 'loop', 'dynamic_intervals', [5, [(0, 0)], [(1, 'a')], [(1,)]], [[(0, 2), (5, 1)]]),
    (EpochBasedTrainLoop, 'loop', 'val_begin', [-1, 1.5], [0, 1]),
    (OptimWrapper, 'optim_wrapper', 'accumulative_counts', [0, 1.5], [4]),
    (LogProcessor, 'log_processor', 'window_size', [0, 1.5], [10]),
    (LogProcessor, 'log_processor', 'mean_pattern', ['(', 5], ['.*loss.*']),
    (set_multi_processing, 'mp_cfg', 'mp_start_method', ['abc', 5], ['spawn']),
    (set_random_seed, 'randomness', 'deterministic', [1, 'yes'], [True]),
    (CosineAnnealingLR, 'parameter scheduler', 'T_max', [0, -5, 1.5], [10]),
    (CosineAnnealingLR, 'parameter scheduler', 'begin', [-1], [0]),
    (CosineAnnealingLR, 'parameter scheduler', 'convert_to_iter_based', ['yes', 1], [True]),
    (LinearLR, 'parameter scheduler', 'start_factor', [0, 2, 'a'], [1, 1e-3]),
])  # fmt: skip
def test_settings_of_other_parts(cls, registry, key, wrong, right):
    for value in wrong:
        assert list(problems(cls, registry, **{key: value})) == [f'part.{key}'], value
    for value in right:
        assert not problems(cls, registry, **{key: value}), value


def test_the_message_has_the_value_and_what_is_allowed():
    assert problems(CheckpointHook, 'hook', interval=0) == {
        'part.interval': 'is 0: it must be a positive integer, or -1, which is the default'
    }
    text = "is the text 'yes': it must be True or False"
    assert problems(CheckpointHook, 'hook', by_epoch='yes') == {'part.by_epoch': text}
    assert problems(DataLoader, 'dataloader', timeout='a') == {
        'part.timeout': "is 'a': it must be 0 or a positive number of seconds"
    }


def test_classes_of_the_user_may_take_other_values():
    class OwnMetric:
        def __init__(self, average: str = 'weighted', topk: int | str = 'all', interval: int = 1):
            pass

    settings = dict(average='harmonic', topk='half', interval=0)
    assert not problems(OwnMetric, 'metric', **settings) and not problems(OwnMetric, 'hook', **settings)
    assert problems(OwnMetric, 'metric', interval='often')  # but no text for a number


def test_every_rule_is_of_a_setting_that_a_class_has():
    names = {key.rpartition('.')[2] for rules in RULES.values() for key in rules}
    known = set()
    for library in TASK_LIBRARIES:
        pytest.importorskip(library)
        import_quietly(library)
        for name in registered_names(library):
            for cls, registry in find_class(name, library):
                if registry in RULES:
                    for base in getattr(cls, '__mro__', ())[:-1]:
                        known |= set(inspect.signature(base.__init__).parameters)
    for reader in (DataLoader, EpochBasedTrainLoop, set_multi_processing):
        known |= set(inspect.signature(reader).parameters)
    known |= set(OF_BUILDERS)
    assert names <= known


@pytest.mark.parametrize('topk', [11, (1, 11), [99]])
def test_topk_is_compared_with_the_classes_of_the_head(topk):
    pytest.importorskip('mmpretrain')
    options = {'val_evaluator.topk': topk}
    with pytest.raises(UserError, match=r'val_evaluator: topk of Accuracy is \d+, but model.head.num_classes=10: set'):
        dry_run(DIGITS, cfg_options=options)
    with pytest.raises(UserError, match='test_evaluator: topk of Accuracy is'):
        run_test(DIGITS, 'none.pth', cfg_options={'test_evaluator.topk': topk})


def test_topk_of_an_evaluator_with_several_metrics():
    model = dict(head=dict(num_classes=3))
    evaluator = dict(type='Evaluator', metrics=[dict(type='Accuracy', topk=(1, 4))])
    with pytest.raises(UserError, match='val_evaluator: topk of Accuracy is 4'):
        check_topk(Config(dict(model=model, val_evaluator=evaluator)), 'train')
    check_topk(Config(dict(model=model, val_evaluator=evaluator)), 'test')
    for topk in (3, (1, 3), None):
        evaluator['metrics'][0]['topk'] = topk
        check_topk(Config(dict(model=model, val_evaluator=[evaluator])), 'train')
    check_topk(Config(dict(model=dict(head=None), val_evaluator=evaluator)), 'train')
    head = dict(type='LinearClsHead', num_classes=3, topk=(1, 5))
    check_topk(Config(dict(model=dict(head=head))), 'train')  # it is not read
    with pytest.raises(UserError, match=r'model\.head: topk of LinearClsHead is 5'):
        check_topk(Config(dict(model=dict(head=dict(head, cal_acc=True)))), 'train')


@pytest.mark.parametrize('option, message', [
    ({'test_dataloader': 5}, 'test_dataloader is 5: it must be a dict'),
    ({'test_dataloader': None}, 'the config has no test_dataloader: add it'),
    ({'test_dataloader.dataset.pipeline': 5}, r'pipeline is 5: it must be a list'),
    ({'test_dataloader.dataset.data_root': 5}, r'data_root is 5: it must be a text'),
    ({'data_preprocesor.std': [1]}, 'data_preprocesor is not a setting: did you mean data_preprocessor'),
])  # fmt: skip
def test_inference_checks_the_config_as_training_does(option, message, tmp_path):
    pytest.importorskip('mmpretrain')
    with pytest.raises(UserError, match=message):
        infer(DIGITS, 'none.pth', tmp_path, tmp_path / 'out', cfg_options=option)


@pytest.mark.parametrize('option, message', [
    ({'model': None}, 'the config has no model: add it'),
    ({'input_shape': ['a', 'b']}, r"input_shape is \['a', 'b'\]: it must be a list of integers"),
    ({'model.foo': 5}, r'model\.foo is not a parameter of ImageClassifier'),
    ({'data_preprocessor.std': 0}, r'data_preprocessor\.std is 0: it must be positive'),
    ({'data_preprocessor.mean': [1, 2]}, r'data_preprocessor\.mean has 2 values, but the backbone has in_channels=1'),
])  # fmt: skip
def test_export_checks_the_config_as_training_does(option, message):
    pytest.importorskip('mmpretrain')
    with pytest.raises(UserError, match=message):
        load_source(DIGITS, 'none.pth', cfg_options=option)


@pytest.mark.parametrize(
    'option, message',
    [
        ({'val_evaluator.topk': 0}, r'val_evaluator\.topk is 0: it must be a positive integer, or a list of these'),
        ({'val_evaluator.topk': []}, r'val_evaluator\.topk is \[\]: it must be a positive integer'),
        ({'default_hooks.checkpoint.interval': 0}, r'default_hooks\.checkpoint\.interval is 0: it must be a positive'),
        ({'train_dataloader.drop_last': 'flase'}, r"drop_last is the text 'flase': it must be True or False"),
        ({'train_cfg.val_begin': 1.5}, r'train_cfg\.val_begin is 1\.5: it must be 0 or a positive integer'),
        ({'val_cfg.fp16': 'yes'}, r"val_cfg\.fp16 is the text 'yes': it must be True or False"),
        ({'randomness.deterministic': 'yes'}, r"randomness\.deterministic is the text 'yes': it must be True or False"),
        ({'launcher': 'abc'}, "launcher is 'abc': it must be 'none' or 'pytorch'"),
        ({'launcher': 'pytorch'}, 'launcher=pytorch has no effect: use --launcher'),
        ({'resume': True}, 'resume=True has no effect: use --resume'),
        ({'resume': 'yes'}, "resume is 'yes': it must be True or False"),
        ({'train_dataloader': None}, 'the config has no train_dataloader: add it$'),
        ({'model': None}, 'the config has no model: add it$'),
        ({'val_cfg': None}, 'no val_cfg: add it, or set val_dataloader and val_evaluator to None to train without'),
        ({'randomness.seed': 2**32}, r'randomness\.seed is 4294967296: it must be at most 4294967295'),
        ({'custom_imports.imports': 'absent_module'}, 'custom_imports=.* cannot be imported: Failed to import absent_'),
        ({'default_scope': 'mmfoo'}, "default_scope is 'mmfoo': use one of mmengine"),
        ({'work_dir': 5}, 'work_dir is 5: it must be a text'),
        ({'load_allow_missing': 5}, 'load_allow_missing is 5: it must be a text or a list of texts'),
    ],
)
def test_options_of_a_training_are_checked(option, message):
    pytest.importorskip('mmpretrain')
    with pytest.raises(UserError, match=message) as error:
        dry_run(DIGITS, cfg_options=option)
    assert '\n' not in str(error.value)
