"""RLE of masks compared with COCO's encoder."""

import numpy as np
import pytest

from mogacore.datasets.rle import encode_rle

coco_mask = pytest.importorskip('pycocotools.mask')


@pytest.mark.parametrize('density', [0.0, 0.02, 0.5, 1.0])
def test_compressed_rle_equals_that_of_coco(density):
    mask = np.random.default_rng(0).random((37, 53)) < density
    expected = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    assert encode_rle(mask, compressed=True) == {'counts': expected['counts'].decode(), 'size': [37, 53]}
