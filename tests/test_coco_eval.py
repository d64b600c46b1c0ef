"""Scores compared with those of xtcocotools and pycocotools, stored by store_coco_eval.py; loading of the stand-ins."""

import copy
import gzip
import json
import os
import subprocess
import sys
from importlib import import_module

import numpy as np
import pytest
from conftest import DATA, ROOT

pytest.importorskip('faster_coco_eval')

import mogacore.registry  # noqa: F401  (so that mmpose imports)
from mogacore import coco_eval
from mogacore.coco_eval import mask
from mogacore.coco_eval.coco import COCO
from mogacore.coco_eval.cocoeval import COCOeval
from mogacore.errors import UserError

STORED = json.loads(gzip.decompress((DATA / 'coco_eval.json.gz').read_bytes()))
BY_NAME = {case['name']: case for case in STORED['poses'] + STORED['shapes']}


def content(case):
    """Annotations and results of a stored case."""
    truth, results = copy.deepcopy((STORED['truths'][case['truth']], STORED['results'][case['results']]))
    if case['kind'] == 'segm':  # as in mmdet, so that the area is the mask's
        for result in results:
            del result['bbox']
    return truth, results


def evaluate(truth, results, kind, params=None, **kwargs):
    coco = COCO(ann_data=truth)
    found = COCOeval(coco, coco.loadRes(results), kind, **kwargs)
    found.params.useSegm = None  # as in mmpose
    for name, value in (params or {}).items():
        setattr(found.params, name, value)
    found.evaluate()
    found.accumulate()
    found.summarize()
    return found


@pytest.mark.parametrize('case', STORED['poses'], ids=lambda case: case['name'])
def test_keypoint_scores_equal_those_of_xtcocotools(case):
    found = evaluate(*content(case), case['kind'], sigmas=case['sigmas'], use_area=case['use_area'])
    np.testing.assert_allclose(found.stats, case['stats'], rtol=0, atol=1e-6)


@pytest.mark.parametrize('case', STORED['shapes'], ids=lambda case: case['name'])
def test_box_and_mask_scores_equal_those_of_pycocotools(case):
    found = evaluate(*content(case), case['kind'], case['params'])
    np.testing.assert_allclose(found.stats, case['stats'], rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.eval['precision'].mean(1), case['precision'], rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.eval['recall'], case['recall'], rtol=0, atol=1e-9)


@pytest.mark.parametrize('case', STORED['shapes'], ids=lambda case: case['name'])
def test_every_precision_and_score_equals_those_of_the_installed_pycocotools(case):
    if coco_eval.MARKER in (pytest.importorskip('pycocotools').__doc__ or ''):
        pytest.skip('pycocotools is the stand-in here')
    coco, evaluator = (pytest.importorskip(f'pycocotools.{name}') for name in ('coco', 'cocoeval'))
    truth, results = content(case)
    theirs = coco.COCO()
    theirs.dataset = dict(truth, info={})
    theirs.createIndex()
    live = evaluator.COCOeval(theirs, theirs.loadRes(results), case['kind'])
    for name, value in case['params'].items():
        setattr(live.params, name, value)
    live.evaluate()
    live.accumulate()
    found = evaluate(*content(case), case['kind'], case['params'])
    for name in ('precision', 'recall', 'scores'):
        np.testing.assert_allclose(found.eval[name], live.eval[name], rtol=0, atol=1e-9)


@pytest.mark.parametrize('name', ['coco', 'sparse', 'crowd 4', 'wholebody'])
def test_mmpose_metrics_return_the_scores_of_xtcocotools(name, tmp_path):
    pytest.importorskip('mmpose')
    metrics = import_module('mmpose.evaluation.metrics')
    case = BY_NAME[name]
    truth, results = content(case)
    (tmp_path / 'truth.json').write_text(json.dumps(truth))
    (tmp_path / 'out.keypoints.json').write_text(json.dumps(results))
    kind = metrics.CocoWholeBodyMetric if name == 'wholebody' else metrics.CocoMetric
    settings = dict(iou_type=case['kind']) if case['kind'] == 'keypoints_crowd' else {}
    metric = kind(str(tmp_path / 'truth.json'), use_area=case['use_area'], **settings)
    sigmas = [0.26, 0.25, 0.25, 0.35, 0.35, 0.79, 0.79, 0.72, 0.72, 0.62, 0.62, 1.07, 1.07, 0.87, 0.87, 0.89, 0.89]
    metric.dataset_meta = dict(sigmas=np.array(case['sigmas'] or sigmas) / (1 if case['sigmas'] else 10))
    found = metric._do_python_keypoint_eval(str(tmp_path / 'out'))
    np.testing.assert_allclose([value for _, value in found], case['stats'], rtol=0, atol=1e-6)


MMDET = """
import sys
sys.modules['pycocotools'] = None  # as if it were not installed
import mogacore.registry
del sys.modules['pycocotools']
import json
from mmdet.datasets.api_wrappers import COCO, COCOeval
import mmdet.structures.mask
from mogacore.coco_eval import detection
assert COCOeval is detection.COCOeval and issubclass(COCO, detection.COCO)
for truth, results, kind, params in json.load(sys.stdin):
    open('truth.json', 'w').write(json.dumps(truth))
    coco = COCO('truth.json')
    found = COCOeval(coco, coco.loadRes(results), kind)
    for name, value in params.items():
        setattr(found.params, name, value)
    found.evaluate()
    found.accumulate()
    found.summarize()
    print(json.dumps(found.stats.tolist()))
"""


def test_mmdet_without_pycocotools_returns_the_same_scores(tmp_path):
    pytest.importorskip('mmdet')
    cases = [BY_NAME[name] for name in ('bbox as in mmdet', 'segm as in mmdet', 'bbox with many results')]
    given = json.dumps([[*content(case), case['kind'], case['params']] for case in cases])
    found = [json.loads(line) for line in run_python(MMDET, tmp_path, given).splitlines() if line.startswith('[')]
    np.testing.assert_allclose(found, [case['stats'] for case in cases], rtol=0, atol=1e-9)


def run_python(code, folder, given=None):
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code], cwd=folder, input=given, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def test_mask_encoding_and_overlap_equal_brute_force():
    rng = np.random.default_rng(0)
    masks = (rng.random((37, 53, 4)) > [0.3, 0.5, 0.7, 0.9]).astype(np.uint8, order='F')
    codes = mask.encode(masks)
    np.testing.assert_array_equal(mask.decode(codes), masks)
    np.testing.assert_array_equal(mask.area(codes), masks.sum((0, 1)))
    np.testing.assert_array_equal(mask.decode(mask.merge(codes)), masks.any(2))
    np.testing.assert_array_equal(mask.decode(mask.merge(codes[:2], intersect=True)), masks[..., :2].all(2))
    flat = masks.reshape(-1, 4).astype(float)
    overlap = flat.T @ flat
    area = flat.sum(0)
    union = area[:, None] + area - overlap
    union[:, 1] = area  # a crowd region: the share of the result that it covers
    np.testing.assert_allclose(mask.iou(codes[:3], codes[:2], [0, 1]), (overlap / union)[:3, :2])
    box = np.zeros((20, 30), bool)
    box[4:9, 6:16] = True
    code = mask.merge(mask.frPyObjects([[6, 4, 16, 4, 16, 9, 6, 9]], 20, 30))
    np.testing.assert_array_equal(mask.decode(code), box)
    np.testing.assert_array_equal(mask.toBbox(code), [6, 4, 10, 5])


def test_annotations_are_found_by_image_category_area_and_crowd():
    coco = COCO(
        ann_data=dict(
            images=[dict(id=i, file_name=f'{i}.jpg') for i in (5, 300, 4)],
            categories=[dict(id=1, name='cat', supercategory='animal'), dict(id=2, name='at', supercategory='sign')],
            annotations=[
                dict(id=0, image_id=300, category_id=1, area=10, keypoints=[1, 2, 2, 3, 4, 1]),
                dict(id=1, image_id=5, category_id=2, area=20, iscrowd=1, keypoints=[5, 6, 2, 7, 8, 0]),
                dict(id=2, image_id=5, category_id=1, area=30, keypoints=[0] * 6),
            ],
        ),
        test_index=[1],
    )
    assert coco.getImgIds() == [5, 300, 4]
    assert coco.getAnnIds() == [0, 1, 2]
    assert coco.getAnnIds(imgIds=[300, 5, 77]) == [0, 1, 2] and coco.getAnnIds(imgIds=[5, 300]) == [1, 2, 0]
    assert coco.getAnnIds(imgIds=4) == [] and coco.getAnnIds(imgIds=5, catIds=[1]) == [2]
    assert coco.getAnnIds(areaRng=[10, 30]) == [0, 1]
    assert coco.getAnnIds(iscrowd=False) == [0, 2] and coco.getAnnIds(iscrowd=True) == [1]
    assert coco.getCatIds('cat') == [1] and coco.getCatIds(supNms=['sign', 'animal']) == [1, 2]
    assert coco.loadImgs(300)[0]['file_name'] == '300.jpg' and coco.loadAnns([1])[0]['keypoints'] == [7, 8, 0]
    results = coco.loadRes([dict(image_id=5, category_id=1, keypoints=[1, 2, 1, 4, 6, 1], score=1)])
    assert isinstance(results, COCO)
    assert results.anns[1]['bbox'] == [1, 2, 3, 4] and results.anns[1]['area'] == 12
    assert coco.loadRes([]).getAnnIds() == []
    with pytest.raises(AssertionError, match='do not correspond'):
        coco.loadRes([dict(image_id=6, category_id=1, keypoints=[1, 2, 1], score=1)])


def without(truth, key):
    for ann in truth['annotations']:
        ann.pop(key)
    return truth


@pytest.mark.parametrize(
    ('name', 'change', 'settings', 'params', 'message'),
    [
        ('crowd 4', 'num_keypoints', {}, {}, "has no 'num_keypoints'"),
        ('coco', None, dict(sigmas=[0.1] * 16), {}, 'has 17 keypoints for keypoints, but there are 16 sigmas'),
        ('coco', None, {}, dict(useCats=0), 'set params.useCats to 1'),
        ('bbox', None, {}, dict(maxDets=[100]), 'the summary needs three entries'),
    ],
)
def test_invalid_input_is_reported(name, change, settings, params, message):
    case = BY_NAME[name]
    truth, results = content(case)
    settings = dict(sigmas=case.get('sigmas'), use_area=name != 'crowd 4') | settings
    with pytest.raises(UserError, match=message):
        evaluate(without(truth, change) if change else truth, results, case['kind'], params, **settings)


def test_keypoints_without_areas_are_scored_with_areas_from_the_boxes():
    case = BY_NAME['coco']
    truth, results = content(case)
    expected = evaluate(*content(case), 'keypoints', sigmas=case['sigmas'], use_area=False).stats
    np.testing.assert_equal(
        evaluate(without(truth, 'area'), results, 'keypoints', sigmas=case['sigmas']).stats, expected
    )


def test_boxes_without_areas_have_the_areas_of_the_boxes():
    case = BY_NAME['bbox as in mmdet']
    truth, results = content(case)
    for ann in truth['annotations']:
        ann['area'] = ann['bbox'][2] * ann['bbox'][3]
    expected = evaluate(copy.deepcopy(truth), copy.deepcopy(results), 'bbox', case['params']).stats
    np.testing.assert_equal(evaluate(without(truth, 'area'), results, 'bbox', case['params']).stats, expected)


def test_keypoints_may_be_nested_and_objects_may_lack_them():
    case = BY_NAME['coco']
    truth, results = content(case)
    for ann in truth['annotations']:
        ann['keypoints'] = np.reshape(ann['keypoints'], (-1, 3)).tolist()
    other = dict(truth['annotations'][0], id=10**6)
    del other['keypoints']
    truth['annotations'].append(other)
    np.testing.assert_allclose(
        evaluate(truth, results, 'keypoints', sigmas=case['sigmas']).stats, case['stats'], rtol=0, atol=1e-6
    )


def test_unknown_iou_type_is_reported():
    with pytest.raises(UserError, match="iouType 'boxes' is unknown"):
        COCOeval(iouType='boxes')


REGISTER = """
import sys
sys.path.insert(0, 'other')
from mogacore.coco_eval import register
register()
register()
assert 'faster_coco_eval' not in sys.modules
import xtcocotools, xtcocotools.mask as mask
from importlib.util import find_spec
from xtcocotools.coco import COCO
from xtcocotools.cocoeval import COCOeval
assert COCO.__module__ == 'mogacore.coco_eval.coco' and find_spec('xtcocotools.mask').name == 'xtcocotools.mask'
try:
    import xtcocotools._mask
except ModuleNotFoundError:
    print('done')
"""


def test_stand_in_takes_precedence_over_an_installed_xtcocotools(tmp_path):
    """Like the compiled one, which fails on NumPy 2."""
    package = tmp_path / 'other' / 'xtcocotools'
    package.mkdir(parents=True)
    for name in ('__init__', 'coco', 'cocoeval', 'mask'):
        (package / f'{name}.py').write_text('raise ValueError("numpy.dtype size changed")')
    assert run_python(REGISTER, tmp_path) == 'done\n'


def test_installed_pycocotools_takes_precedence(tmp_path):
    package = tmp_path / 'other' / 'pycocotools'
    package.mkdir(parents=True)
    (package / '__init__.py').touch()
    (package / 'coco.py').write_text('COCO = 7')
    code = 'import sys; sys.path.insert(0, "other")\nfrom mogacore.coco_eval import register; register()\n'
    assert run_python(f'{code}from pycocotools.coco import COCO; print(COCO)', tmp_path) == '7\n'


def test_without_faster_coco_eval_nothing_is_registered_or_installed(tmp_path):
    code = """
import sys
sys.modules['faster_coco_eval'] = None
from mogacore.coco_eval import install, register
finders = list(sys.meta_path)
register()
assert sys.meta_path == finders
try:
    install('.')
except ValueError as error:
    print(error)
"""
    assert 'pip install faster-coco-eval' in run_python(code, tmp_path)


def test_installed_stand_ins_are_found_without_registration(tmp_path):
    for _ in range(2):  # rewriting is allowed
        outcome = coco_eval.install(tmp_path)
    assert outcome == {name: f'stand-in written to {tmp_path / name}' for name in ('xtcocotools', 'pycocotools')}
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import xtcocotools.mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from xtcocotools.cocoeval import COCOeval as KeypointEval
print(xtcocotools.mask.__file__, COCO.__module__, COCOeval.__module__, KeypointEval.__module__)
"""
    names = ('detection', 'detection', 'cocoeval')
    expected = ' '.join([str(tmp_path / 'xtcocotools' / 'mask.py'), *(f'mogacore.coco_eval.{name}' for name in names)])
    assert run_python(code, ROOT) == f'{expected}\n'


def test_installing_does_not_change_other_packages(tmp_path):
    for name in ('pycocotools', 'xtcocotools'):
        (tmp_path / name).mkdir()
        (tmp_path / name / '__init__.py').write_text('# another')
    with pytest.raises(UserError, match='pip uninstall xtcocotools'):
        coco_eval.install(tmp_path)
    (tmp_path / 'xtcocotools' / '__init__.py').unlink()
    (tmp_path / 'xtcocotools').rmdir()
    assert coco_eval.install(tmp_path)['pycocotools'] == 'already installed, kept'
    assert (tmp_path / 'pycocotools' / '__init__.py').read_text() == '# another'


def test_detection_classes_reject_what_needs_pycocotools():
    from mogacore.coco_eval import detection

    with pytest.raises(UserError, match="'keypoints' needs pycocotools"):
        detection.COCOeval(iouType='keypoints')
    with pytest.raises(UserError, match='use_mp_eval=True needs pycocotools'):
        detection.COCOeval().computeIoU(1, 1)
    coco = detection.COCO()
    coco.dataset = dict(images=[], annotations=[], categories=[])
    coco.createIndex()
    with pytest.raises(IndexError):
        coco.loadRes([])


def test_no_value_of_iscrowd_means_a_single_object(tmp_path):
    boxes = [dict(id=n, image_id=1, category_id=1, bbox=[0, 0, 9, 9], area=81, **more)
             for n, more in ((1, {}), (2, {'iscrowd': None}), (3, {'iscrowd': 1}))]  # fmt: skip
    content = dict(images=[dict(id=1)], categories=[dict(id=1, name='a')], annotations=boxes)
    (tmp_path / 'a.json').write_text(json.dumps(content))
    truth = COCO(tmp_path / 'a.json')
    assert truth.getAnnIds(iscrowd=False) == [1, 2] and truth.getAnnIds(iscrowd=True) == [3]


def test_a_fifo_is_refused(tmp_path):
    os.mkfifo(tmp_path / 'a.json')
    with pytest.raises(UserError, match=r'a\.json is not an ordinary file'):
        COCO(str(tmp_path / 'a.json'))
