import hashlib
from pathlib import Path

import pytest
import torch
from small_models import build_small, predict, write_small

from mogacore.deploy.graphs import create_graph
from mogacore.deploy.source import load_source
from mogacore.errors import UserError
from mogacore.locations import find_config
from mogacore.models.factory import create_model

CONFIG = 'classification/moganet-xtiny_digits'


@pytest.fixture(scope='module')
def named(tmp_path_factory):
    """Weight file of a moganet_xtiny with 7 classes, and its classes."""
    path = tmp_path_factory.mktemp('named') / 'weights.pth'
    meta = {'dataset_meta': {'classes': tuple('abcdefg')}}
    torch.save({'state_dict': create_model('moganet_xtiny', num_classes=7).state_dict(), 'meta': meta}, path)
    return path


def test_facts_of_a_config(tmp_path):
    config, weights = write_small(tmp_path, CONFIG)
    source = load_source(config, weights)
    digest = hashlib.sha256(Path(weights).read_bytes()).hexdigest()
    assert source.facts == {
        'config': 'moganet-xtiny_digits', 'classes': None, 'palette': None, 'keypoints': None, 'preprocess': [],
        'checkpoint': {'name': 'moganet-xtiny_digits.pth', 'sha256': digest},
    }  # fmt: skip
    assert source.shape == (1, 32, 32) and not source.model.training


def test_a_model_that_repeats_the_gray_channel_takes_gray_images(tmp_path):
    pytest.importorskip('mmpretrain')
    name = 'classification/mobilenetv3-small_digits'
    torch.save(build_small(find_config(name)).state_dict(), tmp_path / 'weights.pth')
    source = load_source(name, str(tmp_path / 'weights.pth'))
    assert source.shape == (1, 32, 32) and source.cfg.input_shape[0] == 3
    images = torch.randint(0, 256, (2, 1, 32, 32), dtype=torch.uint8)
    samples = predict(source.model, images, {})
    with torch.no_grad():
        (found,) = create_graph(source.model, source.cfg)(images)
    torch.testing.assert_close(found, torch.stack([sample.pred_score for sample in samples]))


def test_a_network_by_name_has_the_preprocessing_of_imagenet(named):
    source = load_source('moganet_xtiny', str(named), num_classes=7)
    assert source.facts['classes'] == list('abcdefg')
    assert [step['step'] for step in source.facts['preprocess']] == ['resize', 'center_crop']
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    normalized = (images.float() - mean[:, None, None]) / std[:, None, None]
    with torch.no_grad():
        (found,) = create_graph(source.model, source.cfg)(images)
        torch.testing.assert_close(found, source.model(normalized).softmax(1))


def test_a_network_by_name_and_its_number_of_classes_must_match(named, tmp_path):
    with pytest.raises(UserError, match=r'head'):
        load_source('moganet_xtiny', str(named))
    config, weights = write_small(tmp_path, CONFIG)
    with pytest.raises(UserError, match='--num-classes 7 is for networks by name: use --cfg-options'):
        load_source(config, weights, num_classes=7)
    with pytest.raises(UserError, match='are for configs, not for the network moganet_xtiny: omit them'):
        load_source('moganet_xtiny', str(named), cfg_options={'a': 1})


def test_options_change_the_config(tmp_path):
    config, weights = write_small(tmp_path, CONFIG)
    with pytest.raises(UserError, match=r'moganet-xtiny_digits\.pth: .*head\.fc'):
        load_source(config, weights, cfg_options={'model.head.num_classes': 5})
    for name in ('model.nosuch', 'model.backbone.nosuch'):
        with pytest.raises(UserError, match='nosuch') as raised:
            load_source(config, weights, cfg_options={name: 1})
        assert '\n' not in str(raised.value)
