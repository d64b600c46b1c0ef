"""Each step gives the pixels of the transform of the task library that it stands for."""

import numpy as np
import pytest
from mmengine.registry import init_default_scope

from mogacore.errors import UserError
from mogacore.libraries import import_quietly
from mogacore.runtime.preprocess import prepare, to_image, warp

SIZES = ((97, 61), (60, 131), (33, 33), (64, 48))


@pytest.fixture(scope='module')
def images():
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (height, width, 3), np.uint8) for height, width in SIZES]


def transform(library, **settings):
    """A transform of a library."""
    pytest.importorskip(library)
    import_quietly(library)
    init_default_scope(library)
    from mmengine.registry import TRANSFORMS

    return TRANSFORMS.build(settings)


RESIZE = dict(interpolation='bilinear', backend='cv2')


@pytest.mark.parametrize(
    'library, settings, step',
    [
        ('mmdet', dict(type='Resize', scale=(80, 50), keep_ratio=True), dict(mode='fit', size=[50, 80])),
        ('mmdet', dict(type='Resize', scale=(200, 90), keep_ratio=False), dict(mode='exact', size=[90, 200])),
        ('mmseg', dict(type='Resize', scale=(2048, 51), keep_ratio=True), dict(mode='fit', size=[51, 2048])),
        ('mmseg', dict(type='ResizeToMultiple', size_divisor=32), dict(mode='multiple', size=32)),
        (
            'mmpretrain', dict(type='ResizeEdge', scale=47, edge='short', backend='pillow', interpolation='bicubic'),
            dict(mode='short_edge', size=47, backend='pillow', interpolation='bicubic'),
        ),
        ('mmpretrain', dict(type='ResizeEdge', scale=90, interpolation='area'),
         dict(mode='short_edge', size=90, interpolation='area')),
        ('mmpretrain', dict(type='Resize', scale=(38, 38), backend='pillow', interpolation='bicubic'),
         dict(mode='exact', size=[38, 38], backend='pillow', interpolation='bicubic')),
    ],
)  # fmt: skip
def test_resizing_equals_that_of_the_library(library, settings, step, images):
    resize = transform(library, **settings)
    for image in images:
        expected = resize(dict(img=image, img_shape=image.shape[:2]))['img']
        np.testing.assert_array_equal(prepare(image, [dict(step='resize', **RESIZE | step)]), expected)
        gray = prepare(image[..., :1], [dict(step='resize', **RESIZE | step)])
        assert gray.shape == (*expected.shape[:2], 1)


@pytest.mark.parametrize('size', [(32, 32), (50, 33), (61, 97)])
def test_crops_and_padding_equal_those_of_the_library(size, images):
    crop = transform('mmpretrain', type='CenterCrop', crop_size=size[::-1])
    pad = transform('mmdet', type='Pad', size=size[::-1], pad_val=dict(img=(1, 2, 3)))
    steps = [dict(step='center_crop', size=list(size)), dict(step='pad', size=list(size), value=[1, 2, 3])]
    for image in images:
        cropped = crop(dict(img=image, img_shape=image.shape[:2]))['img']
        np.testing.assert_array_equal(prepare(image, steps[:1]), cropped)
        np.testing.assert_array_equal(prepare(image, steps), pad(dict(img=cropped))['img'])


@pytest.mark.parametrize('udp', [False, True])
@pytest.mark.parametrize('size', [(64, 48), (48, 64)])
def test_crops_of_objects_equal_those_of_mmpose(udp, size, images):
    scale = transform('mmpose', type='GetBBoxCenterScale', padding=1.25)
    affine = transform('mmpose', type='TopdownAffine', input_size=size[::-1], use_udp=udp)
    step = dict(step='warp', size=list(size), padding=1.25, udp=udp)
    for image, box in zip(images, [[3.5, 7, 40, 91], [-10, 5, 140, 30], [0, 0, 33, 33], [5, 5, 6, 7]], strict=True):
        results = affine(scale(dict(img=image, bbox=np.array([box], np.float32))))
        crop, center, area = warp(image, np.array(box), step)
        np.testing.assert_array_equal(crop, results['img'])
        np.testing.assert_array_equal(center, results['input_center'])
        np.testing.assert_allclose(area, results['input_scale'], rtol=1e-6)
        points = np.array([[0, 0], [size[1], size[0]]])
        expected = np.array([center - area / 2, center + area / 2])
        np.testing.assert_allclose(to_image(points, step, center, area), expected, atol=1e-4)


@pytest.mark.parametrize(
    'step, message',
    [
        (dict(step='resize', mode='fit', size=[10, 100]), 'of 3000 x 1 px cannot be resized to 100 x 0'),
        (dict(step='resize', mode='none', size=9), "mode 'none' .* unknown"),
        (dict(step='flip'), "step 'flip' .* unknown .* update"),
    ],
)
def test_what_cannot_be_prepared_is_reported(step, message):
    with pytest.raises(UserError, match=message):
        prepare(np.zeros((1, 3000, 3), np.uint8), [step])
