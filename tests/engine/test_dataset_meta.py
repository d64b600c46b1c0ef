import pytest
from conftest import ROOT
from mmengine.config import Config

from mogacore.engine.dataset_meta import channel_order, ignores_orientation

ORDERS = {
    'classification/moganet-small_8xb128_in1k-224.py': 'bgr',
    'classification/moganet-small_1xb100_cifar100-32.py': 'rgb',
    'classification/efficientnet-b0_digits.py': 'gray',
    'classification/efficientnet-b0_fashion-mnist.py': 'gray',
    'classification/moganet-xtiny_fashion-mnist.py': 'gray',
    'segmentation/upernet_moganet-tiny_160k_ade20k-512x512.py': 'bgr',
    'pose/hand3d/heatmap3d_moganet-tiny_100e_freihand-224x224.py': 'bgr',
}


@pytest.mark.parametrize('name', ORDERS)
def test_channel_order_of_the_test_images(name):
    cfg = Config.fromfile(ROOT / 'configs' / name)
    assert channel_order(cfg) == ORDERS[name]
    cfg.test_dataloader.dataset = dict(type='ConcatDataset', datasets=[cfg.test_dataloader.dataset])
    assert channel_order(cfg) == ORDERS[name]


def test_decoded_images_of_another_data_set_are_gray_if_the_backbone_takes_one_channel():
    pipeline = [dict(type='PackInputs')]
    cfg = dict(test_dataloader=dict(dataset=dict(type='Own', pipeline=pipeline)), model=dict(backbone={}))
    assert channel_order(cfg) == 'rgb'
    cfg['model']['backbone']['in_channels'] = 1
    assert channel_order(cfg) == 'gray'


@pytest.mark.parametrize(
    'pipeline, ignores',
    [
        ([{'type': 'LoadImageFromFile'}], False),
        ([{'type': 'LoadImageFromFile', 'color_type': 'grayscale'}], False),
        ([{'type': 'mmpose.LoadImage', 'color_type': 'color_ignore_orientation'}], True),
        ([{'type': 'LoadImageFromFile', 'color_type': 'unchanged'}], True),
        ([{'type': 'PackInputs'}], False),
    ],
)
def test_the_loading_step_says_whether_the_exif_orientation_is_ignored(pipeline, ignores):
    cfg = {'test_dataloader': {'dataset': {'type': 'CocoDataset', 'pipeline': pipeline}}}
    assert ignores_orientation(cfg) is ignores
