"""Run lengths of masks against COCO's own encoder."""

import numpy as np
import pytest

from mogacore.datasets.rle import encode_rle

coco_mask = pytest.importorskip('pycocotools.mask')


@pytest.mark.parametrize('share', [0.0, 0.02, 0.5, 1.0])
def test_compressed_run_lengths_are_cocos_own(share):
    mask = np.random.default_rng(0).random((37, 53)) < share
    expected = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    assert encode_rle(mask, compressed=True) == {'counts': expected['counts'].decode(), 'size': [37, 53]}
