"""Run lengths of masks against the encoders of COCO's libraries."""

from importlib import import_module

import numpy as np
import pytest

from mogacore.datasets.rle import encode_rle


@pytest.mark.parametrize('library', ['pycocotools.mask', 'faster_coco_eval.core.mask'])
@pytest.mark.parametrize('share', [0.0, 0.0005, 0.02, 0.5, 1.0])
def test_compressed_run_lengths_are_those_of_the_library(share, library):
    pytest.importorskip(library.partition('.')[0])
    mask = np.random.default_rng(0).random((187, 253)) < share
    expected = import_module(library).encode(np.asfortranarray(mask, np.uint8))
    assert encode_rle(mask, compressed=True) == {'counts': expected['counts'].decode(), 'size': [187, 253]}
