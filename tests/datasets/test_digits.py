import hashlib
import json
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from sklearn.datasets import load_digits as load_sklearn_digits

from mogacore.datasets.digits import (
    KEYPOINTS,
    MIN_VISIBLE,
    draw_scene,
    glyph,
    ink_keypoints,
    load_digits,
    moving_sequence,
    write_digits,
)
from mogacore.errors import UserError
from mogacore.runtime.rle import encode_rle

SMALL = {'num_train_scenes': 12, 'num_val_scenes': 8, 'num_sequences': 6}


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp('data') / 'digits'
    write_digits(root, **SMALL)
    return root


@pytest.fixture(scope='module', params=['train', 'val'])
def split(request):
    return request.param


def make_rng(*seed):
    return np.random.Generator(np.random.PCG64(seed))


def read_gray(path):
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert image.dtype == np.uint8 and image.ndim == 2
    return image


def contents(root):
    return {path.relative_to(root): path.read_bytes() for path in root.rglob('*') if path.is_file()}


def crop_to_ink(mask):
    ys, xs = np.nonzero(mask)
    return mask[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]


def test_held_out_is_a_fifth_of_every_class():
    images, labels, held_out = load_digits()
    source = load_sklearn_digits()
    assert np.array_equal(labels, source.target)
    assert np.abs(images / 255 * 16 - source.images).max() < 0.04
    for label in range(10):
        assert held_out[labels == label].mean() == pytest.approx(0.2, abs=0.005)


def test_every_digit_is_written_once_in_the_folder_of_its_class(root):
    _, labels, held_out = load_digits()
    found = sorted((int(p.stem), p.parent.name, p.parents[1].name) for p in (root / 'classification').rglob('*.png'))
    splits = ['val' if held else 'train' for held in held_out]
    assert found == [(i, str(labels[i]), splits[i]) for i in range(1797)]


def test_classification_images_are_the_digits_enlarged(root):
    source = load_sklearn_digits().images
    for path in (root / 'classification').rglob('*.png'):
        expected = cv2.resize(source[int(path.stem)] / 16 * 255, (32, 32), interpolation=cv2.INTER_CUBIC)
        # Ours rounds to integers before and after enlarging.
        assert np.abs(read_gray(path) - np.clip(expected, 0, 255)).max() < 1.3


def read_scenes(root, kind, split):
    coco = COCO(root / 'scenes' / 'annotations' / f'{kind}_{split}.json')
    for image in coco.loadImgs(sorted(coco.getImgIds())):
        yield coco, image, coco.loadAnns(sorted(coco.getAnnIds(image['id'])))


def test_scene_images_exist_and_are_colored(root, split):
    names = [image['file_name'] for _, image, _ in read_scenes(root, 'instances', split)]
    assert len(names) == {'train': 12, 'val': 8}[split]
    assert names == sorted(path.name for path in (root / 'scenes' / split).iterdir())
    for name in names:
        image = cv2.imread(str(root / 'scenes' / split / name), cv2.IMREAD_UNCHANGED)
        assert image.shape == (128, 128, 3) and image.dtype == np.uint8
        assert image.std(axis=2).max() > 10


def test_class_map_is_the_sum_of_the_instance_masks(root, split):
    for coco, image, annotations in read_scenes(root, 'instances', split):
        expected = np.zeros((128, 128), int)
        for annotation in annotations:
            mask = coco.annToMask(annotation)
            assert not expected[mask == 1].any(), 'masks of visible ink must not overlap'
            expected += mask * annotation['category_id']
        assert np.array_equal(read_gray(root / 'scenes' / 'segmentation' / split / image['file_name']), expected)


def test_boxes_and_areas_match_the_masks(root, split):
    for coco, _, annotations in read_scenes(root, 'instances', split):
        assert 2 <= len(annotations) <= 5
        for annotation in annotations:
            rle = coco.annToRLE(annotation)
            assert annotation['bbox'] == coco_mask.toBbox(rle).tolist()
            assert annotation['area'] == coco_mask.area(rle)
            assert annotation['iscrowd'] == 0


def test_keypoints_are_the_extremes_and_mean_of_the_ink(root, split):
    for coco, _, annotations in read_scenes(root, 'keypoints', split):
        for annotation in annotations:
            ink = [(x, y) for y, row in enumerate(coco.annToMask(annotation)) for x in np.flatnonzero(row)]
            points = np.array(annotation['keypoints']).reshape(5, 3)
            assert annotation['num_keypoints'] == 5 and (points[:, 2] == 2).all()
            top, bottom, left, right = [(int(x), int(y)) for x, y, _ in points[:4]]
            assert {top, bottom, left, right} <= set(ink)
            assert (top[1], bottom[1]) == (min(y for _, y in ink), max(y for _, y in ink))
            assert (left[0], right[0]) == (min(x for x, _ in ink), max(x for x, _ in ink))
            assert points[4, :2] == pytest.approx(np.mean(ink, axis=0), abs=0.005)


def test_categories_are_ten_digits_or_one_digit_with_keypoints(root, split):
    instances, _, _ = next(read_scenes(root, 'instances', split))
    assert [(c['id'], c['name']) for c in instances.dataset['categories']] == list(enumerate('0123456789', start=1))
    keypoints, _, annotations = next(read_scenes(root, 'keypoints', split))
    (category,) = keypoints.dataset['categories']
    assert category['name'] == 'digit' and category['keypoints'] == list(KEYPOINTS)
    assert {joint for bone in category['skeleton'] for joint in bone} == {1, 2, 3, 4, 5}
    assert {annotation['category_id'] for annotation in annotations} == {category['id']}


def test_scenes_show_only_digits_of_their_split(root, split):
    _, labels, held_out = load_digits()
    for _, _, annotations in read_scenes(root, 'instances', split):
        for annotation in annotations:
            assert held_out[annotation['source_index']] == (split == 'val')
            assert annotation['category_id'] == labels[annotation['source_index']] + 1


def test_the_topmost_digit_has_the_shape_of_its_source(root, split):
    images, _, _ = load_digits()
    for coco, _, annotations in read_scenes(root, 'instances', split):
        ink = crop_to_ink(coco.annToMask(annotations[-1]) == 1)
        source = images[annotations[-1]['source_index']]
        shapes = [crop_to_ink(glyph(source, size) >= 128) for size in range(30, 65)]
        assert any(np.array_equal(ink, shape) for shape in shapes)


def test_ink_is_brighter_than_the_background_and_mostly_visible():
    digits = load_digits()[0]
    for seed in range(20):
        image, instances, pasted = draw_scene(make_rng(seed), digits)
        background = image[instances == 0].mean()
        for order, index in enumerate(pasted, start=1):
            ink = instances == order
            assert image[ink].mean() > background + 40
            # The ink fraction hardly depends on the size: measure it on 64 px glyphs.
            fraction = (glyph(digits[index], 64) >= 128).mean()
            assert ink.sum() > 0.85 * MIN_VISIBLE * fraction * 30**2


def test_scenes_scale_with_the_canvas():
    image, instances, pasted = draw_scene(make_rng(0), load_digits()[0], canvas=256)
    assert image.shape == (256, 256, 3) and instances.shape == (256, 256)
    assert instances.max() == len(pasted)
    assert max(crop_to_ink(instances == order + 1).shape[0] for order in range(len(pasted))) > 45


def test_ties_between_extreme_pixels_go_to_the_middle_one():
    mask = np.zeros((6, 8), bool)
    mask[1, 2:6] = True  # four top pixels: the second of them
    mask[2:5, 3] = True
    mask[4, 1] = mask[4, 3] = mask[4, 6] = True  # three bottom pixels: the second of them
    top, bottom, left, right, centroid = ink_keypoints(mask).tolist()
    assert (top, bottom, left, right) == ([3, 1], [3, 4], [1, 4], [6, 4])
    assert centroid == pytest.approx([(2 + 3 + 4 + 5 + 3 + 3 + 1 + 3 + 6) / 9, (4 * 1 + 2 + 3 + 3 * 4) / 9])


@pytest.mark.parametrize('fill', [0, 1, 'random'])
def test_rle_decodes_to_the_mask(fill):
    mask = make_rng(0).random((5, 7)) < 0.5 if fill == 'random' else np.full((5, 7), bool(fill))
    for image in (mask, ~mask):
        assert np.array_equal(coco_mask.decode(coco_mask.frPyObjects(encode_rle(image), 5, 7)), image)


def test_moving_file_has_the_format_of_moving_mnist(root):
    sequences = np.load(root / 'moving' / 'mnist_test_seq.npy', allow_pickle=False)
    assert sequences.shape == (20, 6, 64, 64) and sequences.dtype == np.uint8
    assert sequences.max() == 255 and np.median(sequences) == 0
    assert [path.name for path in sorted((root / 'moving').iterdir())] == ['digits.json', 'mnist_test_seq.npy']


def test_moving_sequences_show_only_held_out_digits(root):
    images, _, held_out = load_digits()
    glyphs = [glyph(image, 28) for image in images]
    sequences = np.load(root / 'moving' / 'mnist_test_seq.npy')
    rng = make_rng(0, 2)
    for sequence in sequences.transpose(1, 0, 2, 3):
        replay = moving_sequence(rng, np.stack([g for g, held in zip(glyphs, held_out, strict=True) if held]))
        assert np.array_equal(sequence, replay)


def test_moving_sequence_equals_the_published_rule():
    digits = np.stack([glyph(image, 28) for image in load_digits()[0][:50]])
    for seed in range(5):
        rng, expected = make_rng(seed), np.zeros((20, 64, 64), np.uint8)
        for _ in range(2):
            x, y = rng.random(2)
            theta = rng.random() * 2 * np.pi
            digit = digits[rng.integers(50)]
            bounce_x = bounce_y = 1
            for t in range(20):
                x, y = x + bounce_x * np.cos(theta) * 0.1, y + bounce_y * np.sin(theta) * 0.1
                if x <= 0 or x >= 1:
                    x, bounce_x = float(x >= 1), -bounce_x
                if y <= 0 or y >= 1:
                    y, bounce_y = float(y >= 1), -bounce_y
                column, row = int(36 * x), int(36 * y)
                for i in range(28):
                    for j in range(28):
                        expected[t, row + i, column + j] = max(expected[t, row + i, column + j], digit[i, j])
        assert np.array_equal(moving_sequence(make_rng(seed), digits), expected)


def test_speed_is_constant_between_the_walls_and_direction_changes_only_at_them():
    digits = np.stack([np.zeros((28, 28), np.uint8), np.full((28, 28), 255, np.uint8)])
    turns = stretches = 0
    for seed in range(60):
        frames = moving_sequence(make_rng(seed), digits)
        if not (frames.sum(axis=(1, 2)) == 28 * 28 * 255).all():
            continue  # none or both of the digits are visible
        corners = np.array([np.argwhere(frame)[0] for frame in frames])
        assert corners.min() >= 0 and corners.max() <= 36
        at_wall = ((corners == 0) | (corners == 36)).any(axis=1)
        for start, end in combinations(range(20), 2):
            if not at_wall[start : end + 1].any():
                # 0.1 of 36 px per frame; both positions are truncated to whole pixels.
                assert np.hypot(*(corners[end] - corners[start])) == pytest.approx(3.6 * (end - start), abs=np.sqrt(2))
                stretches += 1
        directions = np.sign(np.diff(corners, axis=0))
        for axis in range(2):
            turned = directions[1:, axis] * directions[:-1, axis] < 0
            assert np.isin(corners[1:-1, axis][turned], (0, 36)).all()
            turns += turned.sum()
    assert turns > 10 and stretches > 100


def test_digit_larger_than_the_canvas_is_refused():
    with pytest.raises(ValueError, match=r'28 px do not fit.*16 px'):
        moving_sequence(make_rng(0), np.zeros((1, 28, 28), np.uint8), canvas=16)


def test_two_runs_write_the_same_bytes(root, tmp_path):
    write_digits(tmp_path / 'again', **SMALL)
    assert contents(tmp_path / 'again') == contents(root)


def test_pixels_are_the_same_on_every_machine():
    images, _, held_out = load_digits()
    digest = hashlib.sha256()
    for seed in range(5):
        image, instances, _ = draw_scene(make_rng(seed), images)
        digest.update(image.tobytes() + instances.tobytes())
    digest.update(moving_sequence(make_rng(0), np.stack([glyph(image, 28) for image in images[held_out]])).tobytes())
    assert digest.hexdigest()[:16] == '481185faca7506db'


def test_scenes_depend_on_the_seed_but_not_on_the_counts(root, tmp_path):
    write_digits(tmp_path / 'more', ('scenes',), num_train_scenes=3, num_val_scenes=9)
    write_digits(tmp_path / 'other', ('scenes',), num_train_scenes=3, num_val_scenes=1, seed=1)
    more, other, first = contents(tmp_path / 'more'), contents(tmp_path / 'other'), contents(root)
    for name in (Path('scenes/train/0002.png'), Path('scenes/val/0007.png')):
        assert more[name] == first[name]
    assert other[Path('scenes/val/0000.png')] != first[Path('scenes/val/0000.png')]


def test_counts_are_returned_and_a_second_call_writes_nothing(root, monkeypatch):
    monkeypatch.setattr('mogacore.datasets.digits.load_digits', lambda: pytest.fail('must not be called'))
    counts = write_digits(root, **SMALL)
    assert counts['classification'] == {'train images': 1442, 'val images': 355}
    assert counts['scenes']['train images'] == 12 and counts['scenes']['val images'] == 8
    assert counts['moving'] == {'sequences': 6}
    for split in ('train', 'val'):
        coco = json.loads((root / 'scenes' / 'annotations' / f'instances_{split}.json').read_text())
        assert counts['scenes'][f'{split} digits'] == len(coco['annotations'])


def test_an_interrupted_run_leaves_no_files_and_the_next_run_succeeds(tmp_path, monkeypatch):
    def interrupt(path, _):
        Path(path).write_bytes(b'partial')
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(np, 'save', interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_digits(tmp_path, ('moving',), num_sequences=1)
    assert list(tmp_path.iterdir()) == []
    assert write_digits(tmp_path, ('moving',), num_sequences=1) == {'moving': {'sequences': 1}}


@pytest.mark.parametrize('changed', [{'num_sequences': 2}, {'seed': 1}])
def test_existing_part_with_other_parameters_is_refused(tmp_path, changed):
    write_digits(tmp_path, ('moving',), num_sequences=1)
    before = contents(tmp_path)
    with pytest.raises(UserError, match=r"moving holds digits made with .*'num_sequences': 1.*choose another root"):
        write_digits(tmp_path, ('moving',), **{'num_sequences': 1, **changed})
    assert contents(tmp_path) == before


@pytest.mark.parametrize('marker', [None, '', '[]', '{"parameters": {}}'])
def test_an_unrelated_folder_is_refused_and_kept(tmp_path, marker):
    (tmp_path / 'moving').mkdir()
    (tmp_path / 'moving' / 'mine.txt').write_text('keep')
    if marker is not None:
        (tmp_path / 'moving' / 'digits.json').write_text(marker)
    before = contents(tmp_path)
    with pytest.raises(UserError, match='moving exists but is not a complete set of digits'):
        write_digits(tmp_path, ('moving',), num_sequences=1)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'parts': ('moving', 'pose')}, "part 'pose' is unknown: choose from classification, scenes, moving"),
        ({'num_train_scenes': 0}, 'num_train_scenes is 0: use 1 or more'),
        ({'num_val_scenes': -1}, 'num_val_scenes is -1: use 1 or more'),
        ({'num_sequences': 0}, 'num_sequences is 0: use 1 or more'),
        ({'seed': -1}, 'seed is -1: use 0 or more'),
    ],
)
def test_arguments_out_of_range_are_refused(tmp_path, arguments, message):
    with pytest.raises(UserError, match=message):
        write_digits(tmp_path / 'digits', **arguments)
    assert not (tmp_path / 'digits').exists()


def test_root_below_a_file_is_refused(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match='cannot create folder'):
        write_digits(tmp_path / 'file' / 'digits')


def test_missing_scikit_learn_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr('mogacore.datasets.digits.find_spec', lambda name: None)
    with pytest.raises(UserError, match='pip install scikit-learn'):
        write_digits(tmp_path, ('moving',))
    assert list(tmp_path.iterdir()) == []
