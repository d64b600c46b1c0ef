"""Settings that depend on the number of classes are compared before training."""

import pytest
import torch
from conftest import ROOT
from mmengine.config import Config

from mogacore.engine.check_classes import check_classes
from mogacore.engine.config import load_config
from mogacore.engine.runner import dry_run
from mogacore.errors import UserError
from mogacore.libraries import import_quietly

LEAVES = sorted(path for path in (ROOT / 'configs').glob('*/**/*.py') if '_base_' not in path.parts)


def check(scope, **parts):
    check_classes(Config(dict(default_scope=scope, **parts)))


def fits_the_loss(scope, loss, num_classes):
    """Whether the library's loss accepts its class weights for a head with ``num_classes``."""
    pytest.importorskip(scope)
    import_quietly(scope)
    from mmengine.registry import MODELS, DefaultScope

    with DefaultScope.overwrite_default_scope(scope):
        module = MODELS.build(dict(loss))
    outputs = num_classes + (scope == 'mmdet' and not loss.get('use_sigmoid', False))
    shape = (2, outputs, 4, 4) if scope == 'mmseg' else (2, outputs)
    target = torch.zeros((2, 4, 4) if scope == 'mmseg' else 2, dtype=torch.long)
    try:
        module(torch.zeros(shape), target)
    except (RuntimeError, AssertionError):
        return False
    return True


@pytest.mark.parametrize('num_weights', [2, 3, 4])
@pytest.mark.parametrize('scope, head, loss', [
    ('mmseg', 'decode_head', 'loss_decode'), ('mmpretrain', 'head', 'loss'), ('mmdet', 'bbox_head', 'loss_cls'),
    ('mmdet', 'bbox_head', 'sigmoid'),
])  # fmt: skip
@pytest.mark.filterwarnings('ignore:Default ``avg_non_ignore``')
def test_class_weights_are_refused_where_the_loss_of_the_library_fails(scope, head, loss, num_weights):
    settings = dict(type='CrossEntropyLoss', class_weight=[1.0] * num_weights)
    if loss == 'sigmoid':
        settings['use_sigmoid'] = True
    model = {head: [dict(num_classes=3, **{loss: settings})]}
    if fits_the_loss(scope, settings, 3):
        check(scope, model=model)
    else:
        with pytest.raises(UserError, match=rf'model\.{head}\.0\.{loss}\.class_weight has {num_weights} weights'):
            check(scope, model=model)


@pytest.mark.usefixtures('hidden_data')
def test_a_forgotten_number_of_classes_of_the_preprocessor_is_reported_where_labels_are_mixed():
    pytest.importorskip('mmpretrain')
    options = {'model.head.num_classes': 3}
    with pytest.raises(
        UserError, match=r'data_preprocessor\.num_classes=1000, but model\.head\.num_classes=3: set both'
    ):
        dry_run('classification/moganet-xtiny_8xb128_in1k-224', cfg_options=options)
    dry_run('classification/moganet-xtiny_digits', cfg_options=options)  # nothing is mixed
    with pytest.raises(UserError, match=r'data_preprocessor\.num_classes=10, but'):
        dry_run('classification/moganet-xtiny_digits', cfg_options=options | {'data_preprocessor.to_onehot': True})


@pytest.mark.parametrize('kind', ['ConcatDataset', 'RepeatDataset'])
def test_classes_cannot_be_balanced_over_joined_data(kind):
    balanced = dict(type='ClassBalancedDataset', oversample_thr=0.1)
    joined = dict(balanced, dataset=dict(type=kind, datasets=[dict(type='A'), dict(type='B')]))
    with pytest.raises(UserError, match=rf'train_dataloader\.dataset is a ClassBalancedDataset, .* of a {kind}: wrap'):
        check('mmdet', train_dataloader=dict(dataset=joined))
    members = [dict(balanced, dataset=dict(type=name)) for name in 'AB']
    check('mmdet', train_dataloader=dict(dataset=dict(type=kind, datasets=members)))


def test_every_config_of_the_repository_passes():
    for path in LEAVES:
        check_classes(load_config(path))
