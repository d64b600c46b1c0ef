"""RLE of masks compared with the encoders of COCO's libraries."""

from importlib import import_module

import numpy as np
import pytest

from mogacore.runtime.rle import encode_rle


@pytest.mark.parametrize('library', ['pycocotools.mask', 'faster_coco_eval.core.mask'])
@pytest.mark.parametrize('density', [0.0, 0.0005, 0.02, 0.5, 1.0])
def test_compressed_rle_equals_that_of_the_library(density, library):
    pytest.importorskip(library.partition('.')[0])
    mask = np.random.default_rng(0).random((187, 253)) < density
    expected = import_module(library).encode(np.asfortranarray(mask, np.uint8))
    assert encode_rle(mask, compressed=True) == {'counts': expected['counts'].decode(), 'size': [187, 253]}
