import pytest
from conftest import ROOT
from mmengine.config import Config

from mogacore.deploy.preprocess import pipeline_of, steps_of
from mogacore.errors import UserError

IMAGENET = 'classification/moganet-small_8xb128_in1k-224.py'
LARGE = 'classification/moganet-xlarge_finetune_8xb16-accu4_in1k-384.py'
BICUBIC = {'interpolation': 'bicubic', 'backend': 'pillow'}
BILINEAR = {'interpolation': 'bilinear', 'backend': 'cv2'}
STEPS = {
    IMAGENET: [
        {'step': 'resize', 'mode': 'short_edge', 'size': 248, **BICUBIC},
        {'step': 'center_crop', 'size': [224, 224]},
    ],
    LARGE: [{'step': 'resize', 'mode': 'exact', 'size': [384, 384], **BICUBIC}],
    'classification/moganet-small_1xb100_cifar100-32.py': [],
    'segmentation/upernet_moganet-tiny_160k_ade20k-512x512.py': [
        {'step': 'resize', 'mode': 'fit', 'size': [512, 2048], **BILINEAR},
        {'step': 'resize', 'mode': 'multiple', 'size': 32, **BILINEAR},
    ],
    'detection/mask-rcnn_moganet-tiny_fpn_1x_coco.py': [
        {'step': 'resize', 'mode': 'fit', 'size': [800, 1333], **BILINEAR}
    ],
    'pose/td-hm_moganet-tiny_210e_coco-256x192.py': [
        {'step': 'warp', 'size': [256, 192], 'padding': 1.25, 'udp': False}
    ],
    'pose/hand3d/heatmap3d_moganet-tiny_100e_freihand-224x224.py': [
        {'step': 'warp', 'size': [224, 224], 'padding': 1.0, 'udp': False}
    ],
}


@pytest.mark.parametrize('name', STEPS)
def test_steps_of_the_configs(name):
    assert steps_of(pipeline_of(Config.fromfile(ROOT / 'configs' / name))) == STEPS[name]


def test_padding_of_a_letter_box_has_a_value_per_rgb_channel():
    step = dict(type='mmdet.Pad', size=(640, 480), pad_val=dict(img=(1, 2, 3)))
    assert steps_of([step]) == [{'step': 'pad', 'size': [480, 640], 'value': [3, 2, 1]}]


@pytest.mark.parametrize(
    'step, named',
    [
        (dict(type='RandomFlip', prob=0.5), 'RandomFlip'),
        (dict(type='Resize', scale_factor=0.5), 'Resize'),
        (dict(type='ResizeEdge', scale=248, edge='long'), 'ResizeEdge of the long edge'),
        (dict(type='Resize', scale=32, backend='tifffile'), "Resize with backend 'tifffile'"),
        (dict(type='CenterCrop', crop_size=8, auto_pad=True), 'CenterCrop with auto_pad'),
        (dict(type='Pad', size_divisor=32), 'Pad without a size'),
        (dict(type='Normalize', mean=[1, 2, 3], std=[4, 5, 6], to_rgb=True), 'Normalize'),
        (dict(type='Pad', size=(9, 9), padding_mode='reflect'), "Pad with padding_mode 'reflect'"),
    ],
)
def test_a_step_without_equivalent_is_refused_by_name(step, named):
    with pytest.raises(UserError, match=f'{named} in the test pipeline has no'):
        steps_of([dict(type='LoadImageFromFile'), step, dict(type='PackInputs')])
