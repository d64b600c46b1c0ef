"""``fast_data`` in a config: what it replaces, and what it refuses."""

import pytest

pytest.importorskip('mmpretrain')

from mogacore.engine.config import leaves, load_config
from mogacore.engine.fast_data import use_fast_data
from mogacore.errors import UserError


def types(cfg, stage='train'):
    return [step['type'] for step in next(leaves(cfg[f'{stage}_dataloader'])).pipeline]


def test_the_training_pipeline_is_replaced_and_nothing_else():
    cfg = load_config('classification/moganet-small_8xb128_in1k-224')
    before, test_pipeline = types(cfg), types(cfg, 'val')
    use_fast_data(cfg)
    assert types(cfg) == before  # without the setting
    cfg.fast_data = True
    use_fast_data(cfg)
    names = {'RandomResizedCrop': 'FastRandomResizedCrop', 'RandAugment': 'FastRandAugment'}
    assert types(cfg) == [names.get(name, name) for name in before] != before
    assert types(cfg, 'val') == test_pipeline


def test_crops_that_opencv_resizes_stay():
    cfg = load_config('classification/moganet-small_8xb128_in1k-224')
    cfg.fast_data = True
    next(leaves(cfg.train_dataloader)).pipeline[1]['backend'] = 'cv2'
    use_fast_data(cfg)
    assert types(cfg)[1] == 'RandomResizedCrop' and 'FastRandAugment' in types(cfg)


@pytest.mark.parametrize(
    'name',
    [
        'classification/moganet-xtiny_digits',
        'detection/retinanet_moganet-xtiny_fpn_digits',
        'detection/cascade-mask-rcnn_moganet-small_fpn_ms-3x_coco',  # crops masks
    ],
)
def test_a_pipeline_without_such_steps_is_refused(name):
    cfg = load_config(name)
    cfg.fast_data = True
    with pytest.raises(UserError, match=r'^fast_data=True, but the training pipeline has no step [^\n]*: omit it$'):
        use_fast_data(cfg)


@pytest.mark.parametrize('scope', ['', 'mmseg.'])
def test_crops_of_class_maps_are_replaced(scope):
    cfg = load_config('segmentation/semantic-fpn_moganet-small_80k_ade20k-512x512')
    steps = next(leaves(cfg.train_dataloader)).pipeline
    (crop,) = (step for step in steps if step['type'] == 'RandomCrop')
    crop['type'] = f'{scope}RandomCrop'
    before = types(cfg)
    cfg.fast_data = True
    use_fast_data(cfg)
    assert types(cfg) == [name.replace(f'{scope}RandomCrop', 'FastRandomCrop') for name in before]


def test_masks_stay_polygons_until_they_are_packed():
    cfg = load_config('detection/mask-rcnn_moganet-small_fpn_1x_coco')
    cfg.fast_data = True
    test_pipeline = types(cfg, 'val')
    use_fast_data(cfg)
    assert types(cfg, 'val') == test_pipeline
    assert types(cfg) == [
        'LoadImageFromFile', 'LoadPolygons', 'Resize', 'RandomFlip', 'RasterizePolygons', 'PackDetInputs'
    ]  # fmt: skip


def test_masks_that_are_polygons_already_stay():
    cfg = load_config('detection/mask-rcnn_moganet-small_fpn_1x_coco')
    next(leaves(cfg.train_dataloader)).pipeline[1]['poly2mask'] = False
    cfg.fast_data = True
    with pytest.raises(UserError, match='has no step'):
        use_fast_data(cfg)
