"""Analyses of data sets with several labels, without image files, and with detected boxes; files of predictions."""

import json

import numpy as np
import pytest
from conftest import write_idx
from perturbed import CONFIGS, write_project

from mogacore.analysis.errors.classification import ClassificationAnalysis
from mogacore.analysis.errors.findings import confused_pairs
from mogacore.analysis.errors.page import format_number, join_panels, render
from mogacore.analysis.errors.run import Ranking, analyze
from mogacore.engine.runner import test as run_test
from mogacore.errors import UserError
from mogacore.inference.prediction_files import FORMAT, PredictionFile, encode, write_prediction_file

pytestmark = pytest.mark.filterwarnings('ignore')


class Labels:
    """A data set of which only the class names matter."""

    def __init__(self):
        self.metainfo = dict(classes=('cat', 'dog', 'cow'))


def test_several_labels_per_image_have_precision_and_recall_of_each_class():
    sklearn = pytest.importorskip('sklearn.metrics')
    rng = np.random.default_rng(0)
    truth = rng.random((40, 3)) < 0.4
    scores = (0.5 * truth + rng.random((40, 3))).astype(np.float32) / 1.5
    analysis = ClassificationAnalysis({}, Labels(), 0.3)
    ranks = [
        analysis.add({}, {'gt_label': np.flatnonzero(row).tolist()}, {'probabilities': values})[0]
        for row, values in zip(truth, scores, strict=True)
    ]
    findings = analysis.findings()
    areas = [sklearn.average_precision_score(truth[:, k], scores[:, k]) for k in range(3)]
    assert [row['AP'] for row in findings.tables['classes'].rows] == pytest.approx(areas)
    assert findings.scores == pytest.approx({'mAP': 100 * np.mean(areas)})
    entropy = [-sklearn.log_loss(t, s.astype(float), labels=[0, 1]) for t, s in zip(truth, scores, strict=True)]
    assert ranks == pytest.approx(entropy, rel=1e-5)


def test_labels_beyond_the_classes_are_refused():
    analysis = ClassificationAnalysis({}, Labels(), 0.3)
    with pytest.raises(UserError, match='has class 3, but the test set has 3 classes, counted from 0'):
        analysis.add({}, {'gt_label': 3}, {'probabilities': np.ones(3, np.float32)})
    with pytest.raises(UserError, match='the test set has no labels'):
        analysis.add({}, {}, {'probabilities': np.ones(3, np.float32)})


def test_data_without_image_files_are_drawn_from_memory(tmp_path, monkeypatch):
    pytest.importorskip('mmpretrain')
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for part, number in (('train', 20), ('t10k', 12)):
        write_idx(tmp_path / f'{part}-images-idx3-ubyte', rng.integers(0, 256, (number, 28, 28)))
        write_idx(tmp_path / f'{part}-labels-idx1-ubyte', np.arange(number) % 10)
    (tmp_path / 'own.py').write_text("""
_base_ = 'classification/moganet-xtiny_fashion-mnist'
model = dict(_delete_=True, type='PerturbedClassifier')
test_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(data_root='.'))
""")
    (write_project(tmp_path / 'project') / 'weights.pth').rename('weights.pth')
    metrics = run_test('own.py', 'weights.pth', work_dir='work', predictions='p.jsonl')
    report = analyze('own.py', 'p.jsonl', 'out', num_images=2)
    assert report['scores']['top1'] == pytest.approx(metrics['accuracy/top1'], rel=1e-6)
    assert report['num_images'] == 12 and report['worst'][0]['image'].startswith('sample ')
    assert (tmp_path / 'out/report.html').read_text().count('data:image/jpeg') == 4


def test_detected_boxes_are_compared_with_the_object_that_they_overlap(tmp_path, monkeypatch):
    """Boxes of a detector: shifted true boxes, in another order, and one where there is no object."""
    pytest.importorskip('mmpose')
    folder = write_project(tmp_path)
    monkeypatch.chdir(folder)
    content = json.loads((folder / 'data/digits/scenes/annotations/keypoints_val.json').read_text())
    objects = content['annotations'][::-1]
    boxes = [dict(image_id=entry['image_id'], bbox=[value + 1 for value in entry['bbox']], score=0.9, category_id=1)
             for entry in objects]  # fmt: skip
    boxes.append(dict(image_id=objects[0]['image_id'], bbox=[0, 0, 3, 3], score=0.9, category_id=1))
    (folder / 'data/digits/scenes/boxes.json').write_text(json.dumps(boxes))
    (folder / 'detected.py').write_text(f"""
_base_ = '{CONFIGS['pose']}'
test_dataloader = dict(dataset=dict(bbox_file='boxes.json'))
""")
    lines = []
    expected = []
    for number, (entry, box) in enumerate(zip([*objects, None], boxes, strict=True)):
        x, y, width, height = box['bbox']
        points = np.reshape(entry['keypoints'], (5, 3))[:, :2] if entry else np.zeros((5, 2))
        result = dict(
            boxes=np.array([[x, y, x + width, y + height]], np.float32),
            keypoints=(points[None] + [3, 4]).astype(np.float32), scores=np.ones((1, 5), np.float32),
        )  # fmt: skip
        image = next(image for image in content['images'] if image['id'] == box['image_id'])
        lines.append(encode(dict(image=f'val/{image["file_name"]}', image_id=box['image_id'], id=number), result))
        if entry:
            expected += [5.0] * sum(visible > 0 for visible in entry['keypoints'][2::3])
    write_prediction_file('p.jsonl', {'task': 'pose'}, lines)
    report = analyze('detected.py', 'p.jsonl', 'out', num_images=1)
    assert report['scores']['EPE'] == pytest.approx(5, rel=1e-5)
    assert sum(row['objects'] for row in report['joints']) == len(expected)


RESULTS = {
    'classification': {'probabilities': np.random.default_rng(0).random(7, np.float32)},
    'detection': {
        'boxes': np.random.default_rng(1).random((3, 4), np.float32) * 100,
        'scores': np.random.default_rng(2).random(3, np.float32),
        'labels': np.array([4, 0, 2]),
        'masks': np.random.default_rng(3).random((3, 9, 8)) < 0.5,
    },
    'segmentation': {'class_map': np.random.default_rng(4).integers(0, 700, (6, 5))},
    'pose': {
        'boxes': np.random.default_rng(5).random((1, 4), np.float32),
        'keypoints': np.random.default_rng(6).random((1, 5, 2), np.float32) / 3,
        'scores': np.random.default_rng(7).random((1, 5), np.float32),
    },
}


@pytest.mark.parametrize('suffix', ['jsonl', 'jsonl.gz'])
@pytest.mark.parametrize('task', RESULTS)
def test_a_file_keeps_every_bit(task, suffix, tmp_path):
    result, path = RESULTS[task], tmp_path / f'p.{suffix}'
    names = {'image': 'a/b.png', 'image_id': np.int64(3)}
    write_prediction_file(path, {'task': task, 'metrics': {'x': np.float32(0.5)}}, [encode(names, result)] * 2)
    file = PredictionFile(path)
    assert file.header == {'format': FORMAT, 'task': task, 'metrics': {'x': 0.5}, 'num_samples': 2}
    assert (path.read_bytes()[:2] == b'\x1f\x8b') == suffix.endswith('gz')
    for got_names, got in file:
        assert got_names == {'image': 'a/b.png', 'image_id': 3} and got.keys() == result.keys()
        for name in result:
            np.testing.assert_array_equal(got[name], result[name])


def test_an_image_without_objects_keeps_its_shapes(tmp_path):
    empty = {name: values[:0] for name, values in RESULTS['detection'].items()}
    write_prediction_file(tmp_path / 'p.jsonl', {'task': 'detection'}, [encode({'image': None}, empty)])
    _, got = PredictionFile(tmp_path / 'p.jsonl')[0]
    assert [got[name].shape for name in ('boxes', 'scores', 'labels')] == [(0, 4), (0,), (0,)] and not len(got['masks'])


def test_ranking_puts_heavy_samples_first_and_leaves_out_unknown_ones():
    ranking = Ranking(2)
    for index, (value, weight) in enumerate([(1, 1), (float('nan'), 9), (1, 5), (0, 1), (0, 3)]):
        ranking.add(index, value, weight)
    assert ranking.worst() == [(4, 0), (3, 0)] and ranking.best() == [(2, 1), (0, 1)]


def test_confused_pairs_are_sorted_by_count_then_share():
    matrix = np.array([[9, 2, 0], [2, 1, 0], [3, 0, 0]])
    pairs = [(pair['truth'], pair['predicted'], pair['count']) for pair in confused_pairs(matrix, ['a', 'b', 'c'])]
    assert pairs == [('c', 'a', 3), ('b', 'a', 2), ('a', 'b', 2)]


def test_names_cannot_inject_markup():
    from mogacore.analysis.errors.findings import Findings, Table

    findings = Findings({'x': 1.0}, {'t': Table('t', '', [{'class': '<script>alert(1)</script>', 'n': 3}])})
    report = dict(config='<b>', task='t', num_images=1, predictions='p', checkpoint='c', notes=[], evaluator={})
    page = render(report, findings, {}, 'image')
    assert '<script>' not in page and '&lt;script&gt;' in page and '<b>' not in page


def test_panels_of_any_size_are_joined_below_their_titles():
    import cv2

    panels = [('a', np.zeros((20, 900, 3), np.uint8)), ('b', np.full((7, 5, 3), 90, np.uint8))]
    image = cv2.imdecode(np.frombuffer(join_panels(panels, 400), np.uint8), cv2.IMREAD_COLOR)
    assert image.shape[1] < 440 and image[-1, 0].max() < 20


@pytest.mark.parametrize('value, shown', [
    (None, ''), (float('nan'), ''), (0.123456, '0.1235'), (12345, '12,345'), ('a', 'a'), (2.0, '2')
])  # fmt: skip
def test_values_of_tables(value, shown):
    assert format_number(value) == shown
