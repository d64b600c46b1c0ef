"""Random erasing of normalized images, against the procedure of timm written as a loop."""

import math
import random

import numpy as np
import pytest

from mogacore.datasets import NormalizedRandomErasing

MEAN, STD = np.array([100.0, 110.0, 120.0]), np.array([50.0, 55.0, 60.0])
SHAPE = (24, 40, 3)


def erased(image, **settings):
    """The normalized image and a mask of its changed pixels."""
    out = NormalizedRandomErasing(MEAN, STD, **settings)(dict(img=image))['img']
    assert out.dtype == np.float32
    return (out - MEAN) / STD, (out != image).all(axis=2)


def rectangle_of(mask):
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    assert mask.sum() == len(rows) * len(columns) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
    return rows[0], columns[0], len(rows), len(columns)


def rectangles_of_timm(count, generator):
    """Rectangles drawn as timm 0.6.12 does, with its default areas and aspect ratios."""
    height, width = SHAPE[:2]
    while count:
        area = generator.uniform(0.02, 1 / 3) * height * width
        aspect = math.exp(generator.uniform(math.log(0.3), math.log(1 / 0.3)))
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if w < width and h < height:
            yield generator.randint(0, height - h), generator.randint(0, width - w), h, w
            count -= 1


def test_rectangles_are_distributed_as_in_timm():
    np.random.seed(0)
    image = np.zeros(SHAPE, np.uint8)
    ours = np.array([rectangle_of(erased(image, erase_prob=1.0)[1]) for _ in range(4000)])
    theirs = np.array(list(rectangles_of_timm(4000, random.Random(0))))
    for name, a, b in zip(('top', 'left', 'height', 'width'), ours.T, theirs.T, strict=True):
        # Kolmogorov-Smirnov: the largest difference of the distributions, 0.1 % level for two samples of 4,000.
        difference = max(abs((a <= value).mean() - (b <= value).mean()) for value in np.unique(b))
        assert difference < 1.95 * math.sqrt(2 / 4000), name


def test_rectangle_is_standard_normal_noise_after_normalization_and_the_rest_is_unchanged():
    np.random.seed(0)
    image = np.random.randint(0, 256, SHAPE, dtype=np.uint8)
    values = []
    for _ in range(300):
        out, mask = erased(image, erase_prob=1.0)
        np.testing.assert_allclose(out[~mask], ((image - MEAN) / STD)[~mask], atol=1e-5)
        values.append(out[mask])
    values = np.concatenate(values)
    assert values.mean(axis=0) == pytest.approx(np.zeros(3), abs=0.02)
    assert values.std(axis=0) == pytest.approx(np.ones(3), abs=0.02)
    assert np.abs(values).max() > 3.5  # beyond the range of 8-bit pixels


def test_a_quarter_of_the_images_is_erased_by_default():
    np.random.seed(0)
    image = np.zeros(SHAPE, np.uint8)
    share = np.mean([erased(image)[1].any() for _ in range(2000)])
    assert share == pytest.approx(0.25, abs=4 * math.sqrt(0.25 * 0.75 / 2000))
