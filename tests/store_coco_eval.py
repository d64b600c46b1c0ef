"""Write tests/data/coco_eval.json.gz: synthetic annotations and results, with scores of xtcocotools and pycocotools.

Run it in an environment with numpy 1.26, xtcocotools 1.14.3 and pycocotools 2.0.10: `python tests/store_coco_eval.py`.
The tests then need neither of the two packages.
"""

import copy
import gzip
import json
import tempfile
from pathlib import Path

import numpy as np

TARGET = Path(__file__).parent / 'data' / 'coco_eval.json.gz'
SIZE = 400  # height and width of the images, pixels
WHOLEBODY = {'keypoints': 17, 'foot_kpts': 6, 'face_kpts': 68, 'lefthand_kpts': 21, 'righthand_kpts': 21}


def make_poses(seed, parts, sigmas, num_images=12, num_categories=1, first_id=1):
    """Annotations and results for keypoints, with all special cases of the evaluation.

    The first image has no annotations, the second no results, the third 26 results, more than the 20 that count. Sizes
    span COCO's area ranges; scores have one digit, so there are ties. Some annotations are crowd regions, some have no
    visible keypoint, one is exactly 32 x 32 and one 96 x 96 pixels; one result has no keypoints.
    """
    rng = np.random.default_rng(seed)
    num_keypoints = sum(parts.values())
    images, anns, results = [], [], []

    def split(points, marks):
        flat = np.column_stack([points.round(1), marks])
        ends = np.cumsum(list(parts.values()))[:-1]
        return {part: piece.ravel().tolist() for part, piece in zip(parts, np.split(flat, ends), strict=True)}

    def add_result(image_id, category, points, marks=None):
        marks = rng.uniform(0.1, 1, num_keypoints).round(2) if marks is None else marks
        score = round(rng.uniform(0.05, 1), 1)
        results.append(dict(image_id=image_id, category_id=category, score=score, **split(points, marks)))

    for i in range(num_images):
        image_id = 7 * i + 3
        images.append(dict(id=image_id, width=SIZE, height=SIZE, crowdIndex=round(rng.uniform(), 3)))
        for j in range(0 if i == 0 else rng.integers(1, 5)):
            width, height = np.exp(rng.uniform(np.log(14), np.log(250), 2)).round(1)
            if j == 0 and i in (3, 4):
                width = height = (32, 96)[i - 3]
            extent = np.array([width, height])
            corner = rng.uniform(0, SIZE - extent).round(1)
            points = corner + rng.uniform(size=(num_keypoints, 2)) * extent
            marks = rng.integers(0, 3, num_keypoints) if rng.uniform() > 0.1 else np.zeros(num_keypoints, int)
            area = width * height * (1 if j == 0 else rng.uniform(0.3, 0.9))
            category = int(rng.integers(num_categories)) + 1
            anns.append(
                dict(
                    id=first_id + len(anns), image_id=image_id, category_id=category, area=float(round(area, 2)),
                    bbox=[*corner.tolist(), float(width), float(height)], iscrowd=int(rng.uniform() < 0.1),
                    num_keypoints=int((marks == 2).sum()), **split(points * (marks > 0)[:, None], marks),
                )
            )  # fmt: skip
            if i == 1 or rng.uniform() < 0.15:
                continue
            for _ in range(rng.integers(1, 3)):
                spread = np.sqrt(area) * 2 * np.asarray(sigmas)[:, None] * rng.choice([0.2, 0.5, 1, 2])
                add_result(image_id, category, points + rng.normal(size=points.shape) * spread)
        for _ in range(26 if i == 2 else rng.integers(i != 1, 3)):
            wrong = rng.uniform(0, SIZE, 2) + rng.uniform(0, rng.choice([20, 60, 200]), (num_keypoints, 2))
            add_result(image_id, int(rng.integers(num_categories)) + 1, wrong)
    add_result(images[5]['id'], 1, np.zeros((num_keypoints, 2)), np.zeros(num_keypoints))
    order = rng.permutation(len(results))
    categories = [dict(id=c + 1, name=f'c{c + 1}') for c in range(num_categories)]
    return dict(images=images, annotations=anns, categories=categories), [results[k] for k in order]


def make_shapes(seed, num_images=12, num_categories=3, crowded_image=0):
    """Annotations and results for boxes and masks: polygons, and crowd regions as run lengths."""
    from pycocotools import mask as coco_mask

    rng = np.random.default_rng(seed)
    images, anns, results = [], [], []

    def polygon(box):
        angles = np.linspace(0, 2 * np.pi, 9, endpoint=False) + rng.normal(0, 0.1, 9)
        x, y, width, height = box
        points = np.column_stack([x + width / 2 * (1 + np.cos(angles)), y + height / 2 * (1 + np.sin(angles))])
        return points.round(1).ravel().tolist()

    def add_result(image_id, category, box):
        mask = coco_mask.merge(coco_mask.frPyObjects([polygon(box)], SIZE, SIZE))
        mask = dict(size=mask['size'], counts=mask['counts'].decode())
        score = round(rng.uniform(0.05, 1), 2)
        box = [float(v) for v in box]
        results.append(dict(image_id=image_id, category_id=category, bbox=box, segmentation=mask, score=score))

    for i in range(num_images):
        image_id = 5 * i + 2
        images.append(dict(id=image_id, width=SIZE, height=SIZE))
        for j in range(0 if i == 0 else rng.integers(1, 7)):
            extent = np.exp(rng.uniform(np.log(12), np.log(200), 2)).round(1)
            box = np.r_[rng.uniform(0, SIZE - extent).round(1), extent]
            category = int(rng.integers(num_categories)) + 1
            crowd = int(rng.uniform() < 0.12)
            segmentation = [polygon(box)]
            if j % 3 == 2:
                segmentation.append(polygon([*(box[:2] + 3).tolist(), *(extent / 2).tolist()]))
            rle = coco_mask.merge(coco_mask.frPyObjects(segmentation, SIZE, SIZE))
            area = float(coco_mask.area(rle))
            if crowd:
                flat = coco_mask.decode(rle).ravel(order='F')
                edges = np.flatnonzero(np.diff(np.r_[0, flat, 1 - flat[-1]]))
                segmentation = dict(size=[SIZE, SIZE], counts=np.diff(np.r_[0, edges]).tolist())
            anns.append(
                dict(
                    id=len(anns) + 1, image_id=image_id, category_id=category, area=area, iscrowd=crowd,
                    bbox=box.tolist(), segmentation=segmentation,
                )
            )  # fmt: skip
            for _ in range(0 if i == 1 else rng.integers(0, 4)):
                moved = box + rng.normal(size=4) * extent.mean() * rng.choice([0.01, 0.05, 0.15])
                add_result(image_id, category, np.r_[moved[:2], np.maximum(moved[2:], 3)].clip(0, SIZE).round(1))
        for _ in range(crowded_image if i == 2 else rng.integers(0, 3)):
            add_result(image_id, int(rng.integers(num_categories)) + 1, rng.uniform([0, 0, 5, 5], 150).round(1))
    categories = [
        dict(id=c + 1, name=f'c{c + 1}') for c in range(num_categories + 1)
    ]  # the last one has no annotations
    return dict(images=images, annotations=anns, categories=categories), results


def pose_cases():
    """(name, annotations, results, kind, sigmas, use_area) of every keypoint case."""
    rng = np.random.default_rng(0)
    coco = [0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087]
    coco += [0.089, 0.089]

    truth, results = make_poses(1, {'keypoints': 17}, coco, num_images=20)
    yield 'coco', truth, results, 'keypoints', None, True
    yield 'coco without areas', truth, results, 'keypoints', None, False
    yield 'no results', truth, [], 'keypoints', None, True
    boxed = [dict(result, bbox=[10.0, 10.0, 9.0 * (1 + k % 13), 30.0]) for k, result in enumerate(results)]
    yield 'results with boxes', truth, boxed, 'keypoints', None, True

    truth, results = make_poses(2, {'keypoints': 5}, [0.05] * 5)
    for ann in truth['annotations']:  # a minimal file with only the fields that mmpose needs
        for key in ('area', 'iscrowd', 'num_keypoints'):
            del ann[key]
    yield 'sparse', truth, results, 'keypoints', [0.05] * 5, False

    sigmas = rng.uniform(0.02, 0.12, 21).round(3).tolist()
    truth, results = make_poses(3, {'keypoints': 21}, sigmas, num_images=8, num_categories=2, first_id=0)
    truth['categories'].append(dict(id=3, name='never seen'))
    yield 'two categories', truth, results, 'keypoints_body', sigmas, True
    yield 'two categories without areas', truth, results, 'keypoints', sigmas, False

    for seed, top in ((4, 1), (5, 0.7)):  # the second has no hard image
        sigmas = rng.uniform(0.03, 0.12, 14).round(3).tolist()
        truth, results = make_poses(seed, {'keypoints': 14}, sigmas, num_images=10)
        for image in truth['images']:
            image['crowdIndex'] = round(image['crowdIndex'] * top, 3)
        yield f'crowd {seed}', truth, results, 'keypoints_crowd', sigmas, False
        yield f'crowd {seed} with areas', truth, results, 'keypoints_crowd', sigmas, True

    sigmas = rng.uniform(0.03, 0.12, 133).round(3).tolist()
    truth, results = make_poses(6, WHOLEBODY, sigmas, num_images=6)
    start = 0
    for part, number in WHOLEBODY.items():
        kind = 'keypoints_' + ('body' if part == 'keypoints' else part.removesuffix('_kpts'))
        yield kind, truth, results, kind, sigmas[start : start + number], True
        start += number
    yield 'wholebody', truth, results, 'keypoints_wholebody', sigmas, True
    yield 'wholebody without areas', truth, results, 'keypoints_wholebody', sigmas, False


def shape_cases():
    """(name, annotations, results, kind, params) of every box and mask case."""
    truth, results = make_shapes(11)
    for kind in ('bbox', 'segm'):
        yield kind, truth, results, kind, {}
        yield f'{kind} of proposals', truth, results, kind, dict(useCats=0, maxDets=[10, 100, 300])
        # mmdet's default: AP uses the first of the three.
        yield f'{kind} as in mmdet', truth, results, kind, dict(maxDets=[100, 300, 1000], iouThrs=[0.5, 0.6, 0.75])
        yield f'{kind} of some images', truth, results, kind, dict(imgIds=[7, 12, 22], catIds=[3, 1])
    # More than 100 results of a category in an image: precision over 100 differs from that over 1000.
    truth, results = make_shapes(12, num_images=5, num_categories=1, crowded_image=130)
    for result in results:
        del result['segmentation']
    yield 'bbox with many results', truth, results, 'bbox', dict(maxDets=[100, 300, 1000])


def score_poses(truth, results, kind, sigmas, use_area):
    from xtcocotools.coco import COCO
    from xtcocotools.cocoeval import COCOeval

    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, name) for name in ('truth.json', 'results.json')]
        for path, content in zip(paths, (truth, results), strict=True):
            path.write_text(json.dumps(content))
        coco = COCO(str(paths[0]))
        found = COCOeval(coco, coco.loadRes(str(paths[1])), kind, sigmas and np.array(sigmas), use_area)
        found.evaluate()
        found.accumulate()
        found.summarize()
    return dict(stats=found.stats.tolist())


def score_shapes(truth, results, kind, params):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    coco = COCO()
    coco.dataset = copy.deepcopy(dict(truth, info={}))
    coco.createIndex()
    results = copy.deepcopy(results)
    if kind == 'segm':  # as in mmdet, so that the area is the mask's
        for result in results:
            del result['bbox']
    found = COCOeval(coco, coco.loadRes(results), kind)
    for name, value in params.items():
        setattr(found.params, name, np.array(value) if name == 'iouThrs' else value)
    found.evaluate()
    found.accumulate()
    found.summarize()
    precision, recall = found.eval['precision'].mean(1), found.eval['recall']
    return dict(stats=found.stats.tolist(), precision=precision.tolist(), recall=recall.tolist())


def main():
    data = dict(truths=[], results=[], poses=[], shapes=[])

    def index(key, content):
        """Several cases share annotations; each is stored once."""
        if content not in data[key]:
            data[key].append(content)
        return data[key].index(content)

    for name, truth, results, kind, sigmas, use_area in pose_cases():
        found = score_poses(truth, results, kind, sigmas, use_area)
        case = dict(name=name, truth=index('truths', truth), results=index('results', results), kind=kind)
        data['poses'].append(dict(case, sigmas=sigmas, use_area=use_area, **found))
    for name, truth, results, kind, params in shape_cases():
        found = score_shapes(truth, results, kind, params)
        case = dict(name=name, truth=index('truths', truth), results=index('results', results), kind=kind)
        data['shapes'].append(dict(case, params=params, **found))
    text = json.dumps(data, separators=(',', ':'))
    TARGET.write_bytes(gzip.compress(text.encode(), mtime=0))
    print(f'{TARGET}: {TARGET.stat().st_size / 1024:.0f} KiB')


if __name__ == '__main__':
    main()
