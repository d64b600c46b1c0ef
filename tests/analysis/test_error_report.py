"""The report of errors against the config's own evaluators, other libraries, and brute force."""

import base64
import gzip
import json
import math
import shutil
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
from perturbed import LIBRARIES, write_project

from mogacore.analysis.errors.run import analyze
from mogacore.cli.main import main as command
from mogacore.engine.runner import test as run_test
from mogacore.errors import UserError
from mogacore.inference.prediction_files import PredictionFile

pytestmark = pytest.mark.filterwarnings('ignore')


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    return write_project(tmp_path_factory.mktemp('project'))


@pytest.fixture(scope='module')
def runs(project):
    """Function of a task: metrics of its test, path of its predictions, and the report, each made once."""
    done = {}

    def get(task):
        pytest.importorskip(LIBRARIES[task])
        if task not in done:
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(project)
                path = project / f'{task}.jsonl'
                metrics = run_test(f'{task}.py', 'weights.pth', work_dir='work', predictions=str(path))
                done[task] = metrics, path, analyze(f'{task}.py', path, project / 'out' / task, num_images=3)
        return done[task]

    return get


@pytest.fixture
def in_project(project, monkeypatch):
    monkeypatch.chdir(project)
    return project


def without_prefix(metrics):
    return {name.rpartition('/')[2]: value for name, value in metrics.items()}


@pytest.mark.parametrize('task, names, decimals', [
    ('classification', ('top1', 'top5', 'precision', 'recall', 'f1-score'), None),
    ('detection', ('bbox_mAP', 'bbox_mAP_50', 'bbox_mAP_75', 'bbox_mAP_s', 'bbox_mAP_m', 'segm_mAP', 'segm_mAP_50',
                   'segm_mAP_75'), 3),
    ('segmentation', ('aAcc', 'mIoU', 'mAcc'), 2),
    ('pose', ('PCK', 'EPE', 'AP', 'AP .5', 'AP .75', 'AR', 'AR .5'), None),
])  # fmt: skip
def test_scores_equal_those_of_the_evaluator(task, names, decimals, runs):
    metrics, _, report = runs(task)
    metrics = without_prefix(metrics)
    for name in names:
        own = report['scores'][name]
        assert 0 < own < 100
        if decimals is None:
            assert own == pytest.approx(metrics[name], rel=1e-6), name
        else:
            assert round(own, decimals) == pytest.approx(metrics[name], abs=1e-9), name
    assert report['notes'] == []
    assert without_prefix(report['evaluator']) == pytest.approx(metrics, nan_ok=True)


def samples(path):
    return list(PredictionFile(path))


def true_label(names):
    return int(names['image'].split('/')[-2])


def test_classes_of_a_classifier_agree_with_scikit_learn(runs):
    sklearn = pytest.importorskip('sklearn.metrics')
    _, path, report = runs('classification')
    found = samples(path)
    truth = np.array([true_label(names) for names, _ in found])
    scores = np.stack([result['probabilities'] for _, result in found])
    predicted = scores.argmax(1)
    expected = sklearn.classification_report(truth, predicted, output_dict=True, zero_division=0)
    for k, row in enumerate(report['classes']):
        of_class = expected[str(k)]
        got = [row['class'], row['precision'], row['recall'], row['F1'], row['images']]
        assert got[0] == str(k)
        wanted = [of_class[key] for key in ('precision', 'recall', 'f1-score', 'support')]
        assert got[1:] == pytest.approx(wanted)
        assert row['AP'] == pytest.approx(sklearn.average_precision_score(truth == k, scores[:, k]))
    matrix = sklearn.confusion_matrix(truth, predicted)
    for pair in report['confused']:
        row, column = int(pair['truth']), int(pair['predicted'])
        assert pair['count'] == matrix[row, column] and row != column
        assert pair['share of the class'] == pytest.approx(matrix[row, column] / matrix[row].sum())
    np.fill_diagonal(matrix, 0)
    assert report['confused'][0]['count'] == matrix.max()


def test_calibration_error_agrees_with_a_loop(runs):
    _, path, report = runs('classification')
    found = samples(path)
    total = 0.0
    for number in range(15):
        part = [
            (result['probabilities'].argmax() == true_label(names), float(result['probabilities'].max()))
            for names, result in found
            if number / 15 < result['probabilities'].max() <= (number + 1) / 15
        ]
        if part:
            total += abs(sum(right for right, _ in part) - sum(confidence for _, confidence in part))
    assert report['scores']['ECE'] == pytest.approx(100 * total / len(found), rel=1e-5)


def iou(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(width, 0) * max(height, 0)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def annotations(project):
    content = json.loads((project / 'data/digits/scenes/annotations/instances_val.json').read_text())
    names = {entry['id']: entry['name'] for entry in content['categories']}
    found = {image['id']: [] for image in content['images']}
    for entry in content['annotations']:
        if entry['iscrowd']:
            continue
        x, y, width, height = entry['bbox']
        found[entry['image_id']].append((names[entry['category_id']], [x, y, x + width, y + height]))
    return found


def brute_force_ap(truth, found, name, threshold):
    """COCO's average precision of one class at one threshold, by loops; one result belongs to at most one object."""
    boxes = [
        (float(score), image, box.tolist())
        for image, result in found
        for box, score, label in zip(result['boxes'], result['scores'], result['labels'], strict=True)
        if str(label) == name
    ]
    objects = {image: [box for label, box in entries if label == name] for image, entries in truth.items()}
    total, used, hits = sum(map(len, objects.values())), set(), []
    for _, image, box in sorted(boxes, key=lambda item: -item[0]):
        overlaps = [(iou(box, other), i) for i, other in enumerate(objects[image]) if (image, i) not in used]
        best = max(overlaps, default=(0, 0))
        hits.append(best[0] >= threshold)
        if hits[-1]:
            used.add((image, best[1]))
    right = np.cumsum(hits)
    precision, recall = right / np.arange(1, len(hits) + 1), right / total
    return np.mean([max(precision[recall >= level - 1e-12], default=0) for level in np.linspace(0, 1, 101)])


def test_average_precision_of_each_class_agrees_with_brute_force(runs, project):
    metrics, path, report = runs('detection')
    metrics = without_prefix(metrics)
    found = [(names['image_id'], result) for names, result in samples(path)]
    truth = annotations(project)
    for row in report['classes']:
        number = sum(name == row['class'] for entries in truth.values() for name, _ in entries)
        assert row['objects'] == number > 0
        for key, threshold in (('AP50', 0.5), ('AP75', 0.75)):
            assert row[key] == pytest.approx(brute_force_ap(truth, found, row['class'], threshold), abs=1e-6)
        assert round(row['AP'], 3) == pytest.approx(metrics[f'bbox_{row["class"]}_precision'])
        assert round(row['mask AP'], 3) == pytest.approx(metrics[f'segm_{row["class"]}_precision'])
    assert np.mean([row['AP'] for row in report['classes']]) == pytest.approx(report['scores']['bbox_mAP'])


def test_counts_of_objects_and_the_worst_images_agree_with_brute_force(runs, project):
    _, path, report = runs('detection')
    truth = annotations(project)
    right, claimed, overlaps, f1 = {}, {}, {}, []
    for names, result in samples(path):
        entries = truth[names['image_id']]
        chosen = [(str(label), box) for label, box, score in
                  zip(result['labels'], result['boxes'], result['scores'], strict=True) if score >= 0.3]  # fmt: skip
        pairs = sorted(((iou(a, b), i, j) for i, (_, a) in enumerate(entries) for j, (_, b) in enumerate(chosen)),
                       reverse=True)  # fmt: skip
        rows, columns, hits = set(), set(), 0
        for overlap, i, j in pairs:
            if overlap >= 0.5 and i not in rows and j not in columns:
                rows.add(i)
                columns.add(j)
                if entries[i][0] == chosen[j][0]:
                    hits += 1
                    right[entries[i][0]] = right.get(entries[i][0], 0) + 1
                    overlaps.setdefault(entries[i][0], []).append(overlap)
        for name, _ in chosen:
            claimed[name] = claimed.get(name, 0) + 1
        f1.append(2 * hits / (len(entries) + len(chosen)))
    for row in report['classes']:
        name = row['class']
        assert row['recall'] == pytest.approx(right.get(name, 0) / row['objects'])
        if claimed.get(name):
            assert row['precision'] == pytest.approx(right.get(name, 0) / claimed[name])
        if right.get(name):
            assert row['IoU'] == pytest.approx(np.mean(overlaps[name]), rel=1e-5)
    assert [entry['score'] for entry in report['worst']] == pytest.approx(sorted(f1)[:3])
    assert [entry['score'] for entry in report['best']] == pytest.approx(sorted(f1)[::-1][:3])


def test_iou_of_each_class_agrees_with_sets_of_pixels(runs, project):
    _, path, report = runs('segmentation')
    pixels = []
    for names, result in samples(path):
        name = names['image'].rpartition('/')[2]
        truth = cv2.imread(str(project / 'data/digits/scenes/segmentation/val' / name), cv2.IMREAD_UNCHANGED)
        pixels += [(t, p) for t, p in zip(truth.ravel(), result['class_map'].ravel(), strict=True) if t != 255]
    for k, row in enumerate(report['classes']):
        both = sum(t == k and p == k for t, p in pixels)
        either = sum(t == k or p == k for t, p in pixels)
        true = sum(t == k for t, _ in pixels)
        assert row['IoU'] == pytest.approx(both / either) and row['pixels'] == true
        assert row['recall'] == pytest.approx(both / true)
        assert row['precision'] == pytest.approx(both / sum(p == k for _, p in pixels), nan_ok=True)
    first = report['confused'][0]
    names = [row['class'] for row in report['classes']]
    assert first['count'] == sum(
        (t, p) == (names.index(first['truth']), names.index(first['predicted'])) for t, p in pixels
    )


def test_errors_of_each_joint_agree_with_a_loop(runs, project):
    _, path, report = runs('pose')
    content = json.loads((project / 'data/digits/scenes/annotations/keypoints_val.json').read_text())
    objects = {entry['id']: entry for entry in content['annotations']}
    errors = {row['joint']: [] for row in report['joints']}
    for names, result in samples(path):
        entry = objects[names['id']]
        side = max(entry['bbox'][2:])
        for k, joint in enumerate(errors):
            x, y, visible = entry['keypoints'][3 * k : 3 * k + 3]
            if visible:
                px, py = result['keypoints'][0, k].tolist()
                errors[joint].append((math.hypot(px - x, py - y), side))
    assert len(errors) == 5
    for row in report['joints']:
        values = errors[row['joint']]
        assert row['objects'] == len(values)
        assert row['error px'] == pytest.approx(np.mean([error for error, _ in values]), rel=1e-5)
        assert row['error / box'] == pytest.approx(np.mean([error / side for error, side in values]), rel=1e-5)
        for threshold in (0.05, 0.1, 0.2):
            share = np.mean([error / side < threshold for error, side in values])
            assert row[f'PCK@{threshold:g}'] == pytest.approx(share)
    assert max(report['joints'], key=lambda row: row['error px'])['joint'] == 'centroid'  # three times the noise


@pytest.mark.parametrize('size', [(64, 64), (48, 64), (96, 32)])
def test_scales_of_crops_are_those_of_the_pipeline(size, in_project):
    """CocoMetric suppresses duplicates by their area."""
    pytest.importorskip('mmpose')
    from mmengine.registry import DATASETS

    from mogacore.analysis.errors.pose import padded_scale
    from mogacore.engine.config import load_config, locate_data, use_library

    cfg = load_config('pose.py', {'test_dataloader.dataset.pipeline.2.input_size': size})
    use_library(cfg)
    locate_data(cfg, 'test')
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    for index in range(5):
        info, sample = dataset.get_data_info(index), dataset[index]['data_samples']
        found = padded_scale(info['bbox'], cfg.test_dataloader.dataset.pipeline)
        np.testing.assert_allclose(found, sample.gt_instances.bbox_scales, rtol=1e-6)


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.images, self.links = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag == 'img':
            self.images.append(attrs['src'])
        self.links += [attrs[name] for name in ('href', 'src') if name in attrs]


@pytest.mark.parametrize('task, num_pictures', [
    ('classification', 3), ('detection', 3), ('segmentation', 1), ('pose', 2)
])  # fmt: skip
def test_the_page_contains_its_pictures(task, num_pictures, runs, project):
    *_, report = runs(task)
    folder = project / 'out' / task
    assert {path.name for path in folder.iterdir()} == {'report.html', 'report.json'}
    page = Page((folder / 'report.html').read_text())
    assert len(page.images) == num_pictures + 6 and all(link.startswith('data:image/') for link in page.links)
    for source in page.images:
        content = np.frombuffer(base64.b64decode(source.partition(',')[2]), np.uint8)
        image = cv2.imdecode(content, cv2.IMREAD_COLOR)
        assert image.std() > 5
    written = json.loads((folder / 'report.json').read_text())
    assert written['scores'] == pytest.approx(
        {name: None if math.isnan(value) else value for name, value in report['scores'].items()}
    )
    assert len(written['worst']) == len(written['best']) == 3


def rewrite(path, target, change):
    """A copy of a file of predictions whose header and samples have been changed."""
    first, *lines = path.read_text().splitlines()
    header, records = json.loads(first), [json.loads(line) for line in lines]
    records = change(header, records) or records
    header.setdefault('num_samples', len(records))
    target.write_text('\n'.join(map(json.dumps, [header, *records])) + '\n')


def fewer(header, records):
    header['num_samples'] = len(records) - 1
    return records[:-1]


def none_left(header, records):
    header['num_samples'] = 0
    records.clear()
    return []


def other_images(header, records):
    records[0], records[-1] = records[-1], records[0]


def nine_classes(header, records):
    for record in records:
        record['probabilities'].pop()


def other_names(header, records):
    header['classes'] = ['cat', 'dog']


def infinite(header, records):
    records[3]['probabilities'][0] = float('inf')


def text(header, records):
    records[3]['probabilities'] = 'high'


def missing(header, records):
    del records[3]['probabilities']


def other_format(header, records):
    header['format'] = 'mogacore predictions 99'


@pytest.mark.parametrize('change, message', [
    (fewer, 'has predictions for 354 samples, but the test set of .* has 355'),
    (none_left, 'hold no sample'),
    (other_images, r'line 2 of .* is for image .*, but the test set has .* in its place'),
    (nine_classes, 'the predictions have 9 classes, but the test set has 10'),
    (other_names, r'has predictions of 2 classes \(cat, dog\), but the test set has 10'),
    (infinite, r'line 5 of predictions .* is malformed \(ValueError: probabilities is not finite\)'),
    (text, r'line 5 of predictions .* is malformed'),
    (missing, r"line 5 of predictions .* is malformed \(KeyError: 'probabilities'\)"),
    (other_format, 'is not a file of predictions of this version'),
])  # fmt: skip
def test_predictions_that_do_not_fit_are_one_line(change, message, runs, in_project, tmp_path):
    _, path, _ = runs('classification')
    rewrite(path, tmp_path / 'p.jsonl', change)
    with pytest.raises(UserError, match=message) as error:
        analyze('classification.py', tmp_path / 'p.jsonl', tmp_path / 'out')
    assert '\n' not in str(error.value)
    assert not (tmp_path / 'out').exists()


def test_damaged_files_are_one_line(runs, in_project, tmp_path):
    _, path, _ = runs('classification')
    content = path.read_bytes()
    zipped = gzip.compress(content)
    cases = {
        content[:-200]: 'are cut off, 355 samples are expected',
        content[: content.index(b'\n', 5000) + 1]: 'are cut off',
        zipped[:-100]: 'are cut off or damaged',
        zipped[:1000] + b'\0' * 9 + zipped[1009:]: 'are cut off or damaged',
        b'': 'is not a file of predictions',
        b'\xff\xfe\x00': 'is not a file of predictions',
        b'[1, 2]\n': 'is not a file of predictions',
    }
    for damaged, message in cases.items():
        (tmp_path / 'p.jsonl').write_bytes(damaged)
        with pytest.raises(UserError, match=message):
            analyze('classification.py', tmp_path / 'p.jsonl', tmp_path / 'out')
    with pytest.raises(UserError, match=r'cannot be read \(No such file or directory\)'):
        analyze('classification.py', tmp_path / 'none.jsonl', tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def no_objects(header, records):
    for record in records:
        record.update(boxes=[], scores=[], labels=[], masks=[])


def other_label(header, records):
    record = next(record for record in records if record['labels'])
    record['labels'][0] = 10


def other_image_id(header, records):
    records[0]['image_id'] = 77


def other_size(header, records):
    record = next(record for record in records if record['labels'])
    record['masks'] = [{'size': [9, 9], 'counts': 'a2'}] * len(record['labels'])


def long_boxes(header, records):
    for box in next(record for record in records if record['labels'])['boxes']:
        box.append(1)


def unequal_lengths(header, records):
    next(record for record in records if record['labels'])['labels'].append(1)


@pytest.mark.parametrize('change, message', [
    (no_objects, 'the predictions hold no object of the classes of the test set'),
    (other_label, 'has class 10, but the test set has 10 classes, counted from 0'),
    (other_image_id, 'the predictions have image id 77 where the test set has 1'),
    (unequal_lengths, 'the arrays have different lengths'),
    (other_size, 'have another size than the annotation file says, 128 x 128 px'),
    (long_boxes, 'boxes have no four coordinates'),
])  # fmt: skip
def test_boxes_that_do_not_fit_are_one_line(change, message, runs, in_project, tmp_path):
    _, path, _ = runs('detection')
    rewrite(path, tmp_path / 'p.jsonl', change)
    with pytest.raises(UserError, match=message):
        analyze('detection.py', tmp_path / 'p.jsonl', tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def two_objects(header, records):
    for name in ('boxes', 'keypoints', 'scores'):
        records[0][name] *= 2


def fewer_joints(header, records):
    for record in records:
        record['keypoints'][0].pop()
        record['scores'][0].pop()


def other_object(header, records):
    records[0]['id'] = 777


@pytest.mark.parametrize('change, message', [
    (two_objects, 'has 2 objects: only models that predict one object per box'),
    (fewer_joints, 'has 4 keypoints, but the test set has 5'),
    (other_object, 'a prediction is for object 777, but the test set has object 1 in its place'),
])  # fmt: skip
def test_poses_that_do_not_fit_are_one_line(change, message, runs, in_project, tmp_path):
    _, path, _ = runs('pose')
    rewrite(path, tmp_path / 'p.jsonl', change)
    with pytest.raises(UserError, match=message):
        analyze('pose.py', tmp_path / 'p.jsonl', tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_the_config_of_another_task_and_missing_images_are_one_line(runs, in_project, tmp_path, capsys):
    _, path, _ = runs('classification')
    with pytest.raises(UserError, match=r'has predictions of classification, but .*pose.py is a config of pose'):
        analyze('pose.py', path, tmp_path / 'out')
    for library in ('mmseg', 'mmdet'):
        pytest.importorskip(library)
    shutil.copytree('data', tmp_path / 'moved')
    images = sorted((tmp_path / 'moved/digits/scenes/val').glob('*.png'))
    images[2].unlink()
    options = ['--cfg-options', f'test_dataloader.dataset.data_root={tmp_path / "moved/digits/scenes"}']
    for task, message in [
        ('segmentation', 'has predictions for 12 samples, but the test set of'),
        ('detection', f'image {images[2]} of the test set is missing: restore it'),
    ]:
        _, path, _ = runs(task)
        with pytest.raises(SystemExit) as leave:
            command(['analyze', f'{task}.py', str(path), '--out', str(tmp_path / 'out'), *options])
        assert leave.value.code == 2
        errors = capsys.readouterr().err.splitlines()
        assert len(errors) == 1 and errors[0].startswith('error: ') and message in errors[0]
        assert not (tmp_path / 'out').exists()


def test_moved_data_is_found_and_changed_annotations_are_noted(runs, in_project, tmp_path, capsys):
    _, path, _ = runs('segmentation')
    shutil.copytree('data', tmp_path / 'moved')
    for file in (tmp_path / 'moved/digits/scenes/segmentation/val').glob('*.png'):
        cv2.imwrite(str(file), np.roll(cv2.imread(str(file), cv2.IMREAD_UNCHANGED), 5, 1))
    options = ['--cfg-options', f'test_dataloader.dataset.data_root={tmp_path / "moved/digits/scenes"}']
    with pytest.raises(SystemExit) as leave:
        command(
            ['analyze', 'segmentation.py', str(path), '--out', str(tmp_path / 'out'), '--num-images', '0', *options]
        )
    assert not leave.value.code
    shown = capsys.readouterr().out
    assert 'note: mIoU was' in shown and 'written to' in shown
    assert not Page((tmp_path / 'out/report.html').read_text()).images[1:]


def test_an_invalid_output_or_number_is_refused(runs, in_project, tmp_path):
    _, path, _ = runs('classification')
    (tmp_path / 'file').write_text('')
    for out, settings, message in [
        ('file', {}, '--out .* is a file'), ('out', dict(num_images=-1), '--num-images -1 is out of range'),
        ('out', dict(score_thr=2), '--score-thr 2 is out of range'),
        ('out', dict(score_thr=0.5), '--score-thr 0.5 has no effect for classification: omit it'),
    ]:  # fmt: skip
        with pytest.raises(UserError, match=message):
            analyze('classification.py', path, tmp_path / out, **settings)


def test_saving_needs_a_supported_task_and_a_known_suffix(in_project):
    with pytest.raises(UserError, match=r'give the name of a file that ends in \.jsonl or \.jsonl\.gz'):
        run_test('classification.py', 'weights.pth', work_dir='work', predictions='p.pkl')
    with pytest.raises(UserError, match='needs a config with default_scope'):
        run_test('video_prediction/simvp_moganet_moving-digits', 'weights.pth', work_dir='work', predictions='p.jsonl')
