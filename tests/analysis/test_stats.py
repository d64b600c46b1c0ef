"""Statistics equal counts of the files by other means, and what is wrong with data is reported."""

import io
import json
import shutil
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from mogacore.analysis.stats import pictures, statistics
from mogacore.analysis.stats.collect import distribution
from mogacore.analysis.stats.table import format_report
from mogacore.cli.main import main
from mogacore.errors import UserError

DETECTION = 'detection/retinanet_moganet-xtiny_fpn_digits'
CLASSIFICATION = 'classification/moganet-xtiny_digits'
SEGMENTATION = 'segmentation/semantic-fpn_moganet-xtiny_digits'
POSE = 'pose/td-hm_moganet-xtiny_digits'
VIDEO = 'video_prediction/simvp_moganet_moving-digits'


@pytest.fixture
def at_data(digit_data, monkeypatch):
    monkeypatch.chdir(digit_data)
    return digit_data / 'data' / 'digits'


@pytest.fixture
def copied(digit_data, tmp_path, monkeypatch):
    """A copy of the scenes, to change, in the current folder."""
    shutil.copytree(digit_data / 'data' / 'digits' / 'scenes', tmp_path / 'data' / 'digits' / 'scenes')
    monkeypatch.chdir(tmp_path)
    return tmp_path / 'data' / 'digits' / 'scenes'


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def numbers(rows, unit):
    return {row['name']: row[unit] for row in rows}


def test_objects_are_those_of_the_json_file(at_data, tmp_path):
    pytest.importorskip('mmdet')
    result = statistics(DETECTION, out_dir=tmp_path / 'out')
    assert list(result['splits']) == ['train', 'val, test']  # these two have the same data
    for name, file in (('train', 'train'), ('val, test', 'val')):
        report = result['splits'][name]
        content = json.loads((at_data / 'scenes' / 'annotations' / f'instances_{file}.json').read_text())
        names = {category['id']: category['name'] for category in content['categories']}
        annotations = content['annotations']
        expected = Counter(names[entry['category_id']] for entry in annotations)
        found = numbers(report['classes'], 'objects')
        assert {name: count for name, count in found.items() if count} == expected
        assert report['objects'] == len(annotations) and report['images'] == len(content['images'])
        pairs = {(names[entry['category_id']], entry['image_id']) for entry in annotations}
        in_images = Counter(label for label, _ in pairs)
        assert numbers(report['classes'], 'images') == {name: in_images[name] for name in found}
        per_image = Counter(entry['image_id'] for entry in annotations)
        counts = Counter(per_image[image['id']] for image in content['images'])
        assert report['objects_per_image'] == {str(key): value for key, value in sorted(counts.items())}
        boxes = np.array([entry['bbox'] for entry in annotations], float)
        area = boxes[:, 2] * boxes[:, 3]
        kinds = Counter('small' if value < 32**2 else 'medium' if value < 96**2 else 'large' for value in area)
        assert {kind: report['boxes'][kind] for kind in ('small', 'medium', 'large')} == {
            kind: kinds[kind] for kind in ('small', 'medium', 'large')
        }
        for key, values in (('width', boxes[:, 2]), ('side', area**0.5), ('aspect', boxes[:, 2] / boxes[:, 3])):
            assert report['boxes'][key]['median'] == pytest.approx(np.median(values), abs=1e-4)
            assert report['boxes'][key]['max'] == pytest.approx(values.max(), abs=1e-4)
        assert report['image_sizes']['common'] == [dict(width=128, height=128, images=len(content['images']))]
        assert not report['problems'] and result['duplicates']['complete']
    assert json.loads((tmp_path / 'out' / 'stats.json').read_text()) == result
    written = {path.name for path in (tmp_path / 'out').glob('*.png')}
    assert written == {f'{split}_{kind}.png' for split in ('train', 'val-test') for kind in ('classes', 'sizes')}


def test_images_of_class_folders_are_counted(at_data):
    pytest.importorskip('mmpretrain')
    report = statistics(CLASSIFICATION, ['val'])['splits']['val']
    folders = {folder.name: len(list(folder.iterdir())) for folder in (at_data / 'classification' / 'val').iterdir()}
    assert numbers(report['classes'], 'images') == folders and report['images'] == sum(folders.values())


def test_a_repeated_data_set_is_counted_once(at_data):
    pytest.importorskip('mmpretrain')
    report = statistics(CLASSIFICATION, ['train'])['splits']['train']
    assert report['images'] == 1442


def test_pixels_of_class_maps_are_counted_as_training_reads_them(copied):
    pytest.importorskip('mmseg')
    maps = [np.asarray(Image.open(path)) for path in sorted((copied / 'segmentation' / 'train').iterdir())]
    for zero in (False, True):
        options = {
            'train_dataloader.dataset.reduce_zero_label': zero,
            'train_dataloader.dataset.pipeline': [
                dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', reduce_zero_label=zero),
                dict(type='PackSegInputs'),
            ],
        }  # fmt: skip
        report = statistics(SEGMENTATION, ['train'], cfg_options=options)['splits']['train']
        pixels = [sum(int((values == label + zero).sum()) for values in maps) for label in range(11)]
        images = [sum(bool((values == label + zero).any()) for values in maps) for label in range(11)]
        assert [row['pixels'] for row in report['classes']] == pixels
        assert [row['images'] for row in report['classes']] == images
        assert report['ignored_pixels'] == zero * sum(int((values == 0).sum()) for values in maps)
        assert report['maps_read'] == 12
        counts = Counter(len(np.unique(values[values > 0] if zero else values)) for values in maps)
        assert report['classes_per_image'] == {str(key): value for key, value in sorted(counts.items())}


def test_labeled_keypoints_are_counted(copied):
    pytest.importorskip('mmpose')

    def hide(content):
        for entry in content['annotations'][:7]:
            entry['keypoints'][3 * 2 + 2] = 0  # left
        for entry in content['annotations']:
            entry['keypoints'][3 * 4 + 2] = 0  # centroid

    edit(copied / 'annotations' / 'keypoints_train.json', hide)
    result = statistics(POSE, ['train'])
    report = result['splits']['train']
    total = len(json.loads((copied / 'annotations' / 'keypoints_train.json').read_text())['annotations'])
    expected = dict(top=total, bottom=total, left=total - 7, right=total, centroid=0)
    assert numbers(report['keypoints'], 'labeled') == expected and report['objects'] == total
    assert any('1 keypoint never labeled: centroid' in note for note in report['notes'])
    assert f'{total - 7:,} ({(total - 7) / total:.0%}): left' in format_report(result)


def test_sequences_are_described(at_data):
    report = statistics(VIDEO, ['test'])['splits']['test']
    frames = np.load(at_data / 'moving' / 'mnist_test_seq.npy') / 255
    assert report['sequences'] == frames.shape[1] == 4
    assert report['frame_sizes'] == [dict(height=64, width=64, channels=1, sequences=4)]
    assert report['mean']['mean'] == pytest.approx(frames.mean(), abs=1e-4)


def test_hands_are_counted_by_side(tmp_path, monkeypatch):
    pytest.importorskip('mmpose')
    from mogacore.datasets.hands import write_hands

    monkeypatch.chdir(tmp_path)
    write_hands(tmp_path / 'data' / 'hands', parts=('interhand2.6m',), num_train=7, num_test=3)
    report = statistics('pose/hand3d/internet_moganet-xtiny_interhand3d-synthetic', ['train'])['splits']['train']
    path = tmp_path / 'data/hands/interhand2.6m/annotations/all/InterHand2.6M_train_data.json'
    kinds = Counter(entry['hand_type'] for entry in json.loads(path.read_text())['annotations'])
    assert report['hands'] == {'both' if kind == 'interacting' else kind: count for kind, count in kinds.items()}


def test_what_training_ignores_is_noted(copied, capsys):
    pytest.importorskip('mmdet')
    path = copied / 'annotations' / 'instances_train.json'
    before = json.loads(path.read_text())

    def change(content):
        objects = content['annotations']
        objects[0]['bbox'][2] = 0.5
        objects[1]['bbox'][:2] = [200, 10]
        objects[2]['iscrowd'] = 1
        objects[3]['bbox'] = [0, 0, 120, 4]
        content['images'].append(dict(id=999, file_name='0999.png', width=128, height=128))
        for entry in objects:
            if entry['category_id'] == 8:  # the digit 7
                entry['category_id'] = 1
        Image.new('RGB', (128, 128)).save(copied / 'train' / '0999.png')

    edit(path, change)
    report = statistics(DETECTION, ['train'])['splits']['train']
    assert report['objects'] == len(before['annotations']) - 3 and report['boxes']['crowd'] == 1
    assert report['boxes']['below_1px'] == 1 and report['boxes']['outside'] == 1
    notes = '\n'.join(report['notes'])
    empty = {999} | {image['id'] for image in before['images']} - {e['image_id'] for e in before['annotations'][3:]}
    assert report['objects_per_image']['0'] == len(empty)
    for text in (
        '1 class of 10 without objects: 7; they cannot be learned', '1 box narrower or lower than 1 px',
        '1 box completely outside the image', 'without objects', 'width / height from',
    ):  # fmt: skip
        assert text in notes
    filtered = {'train_dataloader.dataset.filter_cfg': dict(filter_empty_gt=True)}
    report = statistics(DETECTION, ['train'], cfg_options=filtered)['splits']['train']
    assert report['left_out'] == 1 and '1 record left out by filter_cfg' in '\n'.join(report['notes'])


def test_rare_classes_are_noted(tmp_path, digit_data, monkeypatch):
    pytest.importorskip('mmpretrain')
    source = digit_data / 'data' / 'digits' / 'classification' / 'val'
    for split in ('train', 'val'):
        shutil.copytree(source, tmp_path / 'data' / 'digits' / 'classification' / split)
    for path in sorted((tmp_path / 'data/digits/classification/train/4').iterdir())[1:]:
        path.unlink()
    monkeypatch.chdir(tmp_path)
    notes = statistics(CLASSIFICATION, ['train'])['splits']['train']['notes']
    assert any('has 36 images, 4 only 1' in note for note in notes)


def test_copies_are_found_within_and_across_splits(copied):
    pytest.importorskip('mmdet')
    shutil.copy(copied / 'train' / '0003.png', copied / 'train' / '0008.png')
    shutil.copy(copied / 'train' / '0005.png', copied / 'val' / '0002.png')
    result = statistics(DETECTION)
    within = result['duplicates']['within']
    assert within['train']['copies'] == 1 and within['val, test']['copies'] == 0
    assert [path[-14:] for path in within['train']['groups'][0]] == ['train/0003.png', 'train/0008.png']
    (pair,) = result['duplicates']['across']
    assert pair['images'] == 1 and pair['splits'] == ['train', 'val, test']
    assert [path[-8:] for path in pair['examples'][0]] == ['0005.png', '0002.png']
    notes = result['splits']['val, test']['notes']
    assert any('1 image also in train' in note for note in notes)


def test_decoded_images_are_compared(tmp_path, monkeypatch):
    from mogacore.analysis.stats.duplicates import find_duplicates
    from mogacore.analysis.stats.records import Images
    from mogacore.datasets.checks import Sample

    rng = np.random.default_rng(0)
    train, test = rng.integers(0, 256, (2, 5, 4, 4), np.uint8)
    test[1], train[4] = train[2], train[0]
    found = find_duplicates(dict(train=Images(arrays=[*train]), test=Images(arrays=[*test])), Sample())
    assert found['within']['train']['copies'] == 1 and found['across'][0]['images'] == 1 and found['compared'] == 10


def test_distributions_are_quantiles():
    values = np.arange(101.0)
    found = distribution(values)
    assert (found['min'], found['5%'], found['median'], found['max'], found['mean']) == (0, 5, 50, 100, 50)
    assert distribution(np.zeros(0)) == {}


BREAKING = {
    'missing': (DETECTION, lambda scenes: (scenes / 'train' / '0004.png').unlink(), '0004.png'),
    'unreadable': (DETECTION, lambda scenes: (scenes / 'train' / '0004.png').write_bytes(b'no image'), '0004.png'),
    'category': (
        DETECTION,
        lambda scenes: edit(
            scenes / 'annotations' / 'instances_train.json', lambda c: c['annotations'][3].update(category_id=77)
        ),
        'category_id',
    ),
    'map': (
        SEGMENTATION,
        lambda scenes: Image.fromarray(np.full((128, 128), 77, np.uint8)).save(scenes / 'segmentation/train/0004.png'),
        'value 77',
    ),
    'json': (DETECTION, lambda scenes: (scenes / 'annotations' / 'instances_train.json').write_text('{'), 'JSON'),
    'keypoints': (
        POSE,
        lambda scenes: edit(
            scenes / 'annotations' / 'keypoints_train.json', lambda c: c['annotations'][3].update(keypoints=[1, 2, 3])
        ),
        'keypoint values',
    ),
}


@pytest.mark.parametrize('name', BREAKING)
def test_problems_are_one_line_each_and_the_exit_code_is_1(name, copied, capsys):
    config, damage, message = BREAKING[name]
    pytest.importorskip({DETECTION: 'mmdet', SEGMENTATION: 'mmseg', POSE: 'mmpose'}[config])
    damage(copied)
    with pytest.raises(SystemExit) as end:
        main(['stats', config, '--split', 'train'])
    assert end.value.code == 1
    lines = capsys.readouterr().out.splitlines()
    start = lines.index('  problems:') + 1
    problems = [line for line in lines[start:] if line.startswith('  - ')]
    assert message in problems[0]


def test_the_command_prints_json(at_data, capsys):
    pytest.importorskip('mmdet')
    with pytest.raises(SystemExit) as end:
        main(['stats', DETECTION, '--split', 'val', '--json'])
    assert end.value.code == 0
    assert list(json.loads(capsys.readouterr().out)['splits']) == ['val']


def test_missing_splits_and_data_are_user_errors(at_data, tmp_path, monkeypatch):
    pytest.importorskip('mmdet')
    with pytest.raises(UserError, match='has no val_dataloader: choose from train, test'):
        statistics(DETECTION, ['val'], cfg_options={'val_dataloader': None})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match='data folder data/nowhere is missing'):
        statistics(DETECTION, cfg_options={'train_dataloader.dataset.data_root': 'data/nowhere'})


def test_names_are_drawn_as_they_are_and_counts_have_whole_numbers(tmp_path, monkeypatch):
    """Text between dollar signs is a formula for matplotlib, and an error if it is none."""
    figures = {}
    monkeypatch.setattr(pictures, 'write_figure', lambda path, figure, **settings: figures.update({path.stem: figure}))
    rows = [dict(name=name, objects=number) for name, number in (('$x_$', 3), ('b', 2), ('b', 1))]
    sizes = {'width': np.array([8, 9, 9]), 'height': np.array([8, 8, 9])}
    pictures.draw(tmp_path, 'train', {'classes': rows, 'objects_per_image': {'1': 2, '2': 1}}, sizes)
    for figure in figures.values():
        figure.savefig(io.BytesIO(), format='png')
    (axis,) = figures['train_classes'].axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ['$x_$', 'b', 'b'] and len(axis.patches) == 3
    per_image = figures['train_sizes'].axes[-1]
    for counts in (axis.xaxis, per_image.xaxis, per_image.yaxis, figures['train_sizes'].axes[0].yaxis):
        assert all(tick == round(tick) for tick in counts.get_ticklocs())
