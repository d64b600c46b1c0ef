"""Check data of COCO's size: 118,287 images and 860,001 annotations with masks; prints seconds and peak memory.

    python tests/stress/coco_size_check.py FOLDER

The annotation file (0.4 GB) and links to a few images are written to FOLDER unless they exist.
"""

import argparse
import json
import random
import resource
import sys
import time
from pathlib import Path

from PIL import Image

from mogacore.datasets.checks import Expected, Sample, find_problems

NUM_IMAGES, NUM_ANNOTATIONS, NUM_CLASSES = 118_287, 860_001, 80
WIDTH, HEIGHT = 640, 480
LINKS = 20_000  # to one file, which most file systems allow
MAX_SECONDS, MAX_GIB = 30, 3
NAMES = [f'class {number}' for number in range(NUM_CLASSES)]


def image_name(number):
    return f'{number:012}.jpg'


def annotation(number, rng):
    """An object with a polygon of as many numbers as COCO's have on average."""
    x, y = round(rng.uniform(0, 500), 2), round(rng.uniform(0, 380), 2)
    w, h = round(rng.uniform(5, 130), 2), round(rng.uniform(5, 95), 2)
    polygon = [round(rng.uniform(0, 480), 2) for _ in range(2 * rng.randrange(4, 42))]
    return dict(
        segmentation=[polygon],
        area=round(w * h, 4),
        iscrowd=0,
        image_id=rng.randrange(NUM_IMAGES),
        bbox=[x, y, w, h],
        category_id=rng.randrange(NUM_CLASSES) + 1,
        id=number,
    )


def write(root):
    """Write the images and the annotation file, in parts, since the whole takes gigabytes."""
    (root / 'images').mkdir(parents=True, exist_ok=True)
    for number in range(NUM_IMAGES):
        path, first = (root / 'images' / image_name(n) for n in (number, number - number % LINKS))
        if number % LINKS == 0:
            Image.new('RGB', (WIDTH, HEIGHT)).save(path)
        else:
            path.hardlink_to(first)
    rng = random.Random(0)
    images = [dict(id=n, file_name=image_name(n), width=WIDTH, height=HEIGHT) for n in range(NUM_IMAGES)]
    categories = [dict(id=n, name=name) for n, name in enumerate(NAMES, 1)]
    with (root / 'objects.json').open('w') as file:
        file.write(json.dumps(dict(images=images, categories=categories))[:-1] + ', "annotations": [')
        for number in range(NUM_ANNOTATIONS):
            file.write((', ' if number else '') + json.dumps(annotation(number, rng)))
        file.write(']}')


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path)
    root = parser.parse_args().folder.resolve()
    if not (root / 'objects.json').exists():
        write(root)
    dataset = dict(
        type='CocoDataset',
        data_root=str(root),
        ann_file='objects.json',
        data_prefix=dict(img='images/'),
        metainfo=dict(classes=NAMES),
        pipeline=[dict(type='LoadAnnotations', with_bbox=True, with_mask=True)],
    )
    start = time.monotonic()
    problems = find_problems(dataset, Expected({'model.bbox_head': NUM_CLASSES}), Sample(20))
    seconds = time.monotonic() - start
    gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    used = time.process_time()
    print(f'{seconds:.1f} s (at most {MAX_SECONDS}), of the processor with imports {used:.1f} s')
    print(f'{gib:.2f} GiB (at most {MAX_GIB})')
    print(f'problems: {problems or "none"}')
    return int(bool(problems) or seconds > MAX_SECONDS or gib > MAX_GIB)


if __name__ == '__main__':
    sys.exit(main())
