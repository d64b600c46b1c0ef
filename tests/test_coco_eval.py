"""Scores against those that xtcocotools and pycocotools gave (tests/store_coco_eval.py), and live where installed."""

import copy
import gzip
import json

import numpy as np
import pytest
from conftest import DATA

pytest.importorskip('faster_coco_eval')

from mogacore.coco_eval.coco import COCO
from mogacore.coco_eval.cocoeval import COCOeval

STORED = json.loads(gzip.decompress((DATA / 'coco_eval.json.gz').read_bytes()))


def content(case):
    return copy.deepcopy(STORED['truths'][case['truth']]), copy.deepcopy(STORED['results'][case['results']])


def evaluated(truth, results, kind, params, **kwargs):
    coco = COCO(ann_data=truth)
    found = COCOeval(coco, coco.loadRes(results), kind, **kwargs)
    found.params.useSegm = None  # mmpose does so
    for name, value in params.items():
        setattr(found.params, name, np.array(value) if name == 'iouThrs' else value)
    found.evaluate()
    found.accumulate()
    found.summarize()
    return found


@pytest.mark.parametrize('case', STORED['poses'], ids=lambda case: case['name'])
def test_keypoint_scores_equal_those_of_xtcocotools(case):
    found = evaluated(*content(case), case['kind'], {}, sigmas=case['sigmas'], use_area=case['use_area'])
    np.testing.assert_allclose(found.stats, case['stats'], atol=1e-6)


@pytest.mark.parametrize('case', STORED['shapes'], ids=lambda case: case['name'])
def test_box_and_mask_scores_equal_those_of_pycocotools(case):
    truth, results = content(case)
    if case['kind'] == 'segm':
        for result in results:
            del result['bbox']
    found = evaluated(truth, results, case['kind'], case['params'])
    np.testing.assert_allclose(found.stats, case['stats'], atol=1e-9)
    np.testing.assert_allclose(found.eval['precision'].mean(1), case['precision'], atol=1e-9)
    np.testing.assert_allclose(found.eval['recall'], case['recall'], atol=1e-9)
