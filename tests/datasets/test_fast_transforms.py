"""The fast transforms draw the random numbers of mmpretrain's and give their images."""

import cv2
import numpy as np
import pytest

pytest.importorskip('mmpretrain')
from mmengine.registry import TRANSFORMS, DefaultScope

import mogacore.datasets  # noqa: F401, registers
from mogacore.libraries import import_quietly

AUGMENT = dict(
    policies='timm_increasing', num_policies=2, total_level=10, magnitude_level=9, magnitude_std=0.5,
    hparams=dict(pad_val=[124, 116, 104], interpolation='bicubic'),
)  # fmt: skip
CROP = dict(scale=56, backend='pillow', interpolation='bicubic')


@pytest.fixture(scope='module', autouse=True)
def library():
    import_quietly('mmpretrain')


def build(kind, **settings):
    with DefaultScope.overwrite_default_scope('mmpretrain' if '.' in kind else 'mmpose'):
        return TRANSFORMS.build(dict(type=kind, **settings))


def photo(seed, size=(120, 161)):
    """Smooth colors with noise; every fifth image has a single value per channel."""
    generator = np.random.default_rng(seed)
    if seed % 5 == 4:
        return np.full((*size, 3), generator.integers(0, 256, 3), np.uint8)
    coarse = generator.integers(generator.integers(0, 100), 256, (6, 8, 3)).astype(np.uint8)
    image = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)
    return np.clip(image + generator.normal(0, 5, image.shape), 0, 255).astype(np.uint8)


def apply(transform, image, seed):
    """The output, and the next random number, which tells how many were drawn."""
    np.random.seed(seed)
    output = transform({'img': image.copy(), 'img_shape': image.shape[:2]})
    return output, np.random.rand()


@pytest.mark.parametrize('operation', range(15))
def test_each_operation_of_randaugment_gives_equal_images(operation):
    ours, theirs = build('FastRandAugment', **AUGMENT), build('mmpretrain.RandAugment', **AUGMENT)
    changed = 0
    for transform in (ours.published, theirs):
        transform.random_policy_indices = lambda: [operation]
    for seed in range(30):
        image = photo(seed)
        (found, ours_next), (expected, theirs_next) = apply(ours, image, seed), apply(theirs, image, seed)
        np.testing.assert_array_equal(found['img'], expected['img'])
        assert found['img'].dtype == np.uint8 and ours_next == theirs_next
        changed += not np.array_equal(found['img'], image)
    assert 3 < changed < 30  # applied half of the time


def test_randaugment_draws_the_same_operations():
    ours, theirs = build('FastRandAugment', **AUGMENT), build('mmpretrain.RandAugment', **AUGMENT)
    for seed in range(60):
        image = photo(seed)
        (found, ours_next), (expected, theirs_next) = apply(ours, image, seed), apply(theirs, image, seed)
        np.testing.assert_array_equal(found['img'], expected['img'])
        assert ours_next == theirs_next


def test_gray_images_are_augmented_as_by_mmpretrain():
    policies = [dict(type='Brightness', magnitude_range=(0, 0.9))]
    settings = dict(AUGMENT, policies=policies)
    ours, theirs = build('FastRandAugment', **settings), build('mmpretrain.RandAugment', **settings)
    image = photo(0)[..., 0]
    for seed in range(4):
        np.testing.assert_array_equal(apply(ours, image, seed)[0]['img'], apply(theirs, image, seed)[0]['img'])


@pytest.mark.parametrize('size', [(120, 161), (40, 33), (300, 60)], ids=['reduced', 'enlarged', 'narrow'])
@pytest.mark.parametrize('channels', [3, 1])
def test_crops_are_the_same_to_rounding(size, channels):
    ours, theirs = build('FastRandomResizedCrop', **CROP), build('mmpretrain.RandomResizedCrop', **CROP)
    for seed in range(20):
        image = photo(seed, size)
        image = image if channels == 3 else np.ascontiguousarray(image[..., 0])
        (found, ours_next), (expected, theirs_next) = apply(ours, image, seed), apply(theirs, image, seed)
        assert found['img'].shape == expected['img'].shape and found['img_shape'] == expected['img_shape']
        difference = np.abs(found['img'].astype(int) - expected['img'])
        assert difference.max() <= 2 and difference.mean() < 0.05
        assert ours_next == theirs_next


def test_other_interpolations_are_refused():
    with pytest.raises(ValueError, match='must be bicubic'):
        build('FastRandomResizedCrop', scale=56, interpolation='bilinear')


def test_images_of_one_pixel_and_crops_of_one_column():
    ours = build('FastRandomResizedCrop', **CROP)
    for size in ((1, 1), (1, 90), (90, 1)):
        image = photo(0, size)
        assert apply(ours, image, 0)[0]['img'].shape == (56, 56, 3)
