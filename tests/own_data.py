"""Small data sets in the formats of docs/own_data.md: colored rectangles, one color per class."""

import json

import cv2
import numpy as np

COLORS = ((40, 40, 230), (230, 230, 230), (60, 200, 60))  # BGR
SIZE = 64
NUM_IMAGES = dict(train=8, val=4)


def rectangles(rng, count):
    """Random boxes (x, y, width, height) of an image and their classes."""
    corners, sides = rng.integers(2, 24, (count, 2)), rng.integers(16, 36, (count, 2))
    return np.concatenate([corners, sides], 1).tolist()


def draw(boxes, classes):
    """Image and class map, with the last box on top."""
    image, labels = np.full((SIZE, SIZE, 3), 90, np.uint8), np.zeros((SIZE, SIZE), np.uint8)
    for (x, y, width, height), label in zip(boxes, classes, strict=True):
        image[y : y + height, x : x + width] = COLORS[label]
        labels[y : y + height, x : x + width] = label
    return image, labels


def write_image(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def write_flowers(root):
    """Class folders."""
    rng = np.random.default_rng(0)
    for split, number in NUM_IMAGES.items():
        for label, name in enumerate(('daisy', 'rose', 'tulip')):
            for index in range(number // 2):
                write_image(root / split / name / f'{index}.jpg', draw(rectangles(rng, 1), [label])[0])


def write_cells(root):
    """COCO boxes and masks of the classes red and white."""
    rng = np.random.default_rng(0)
    for split, number in NUM_IMAGES.items():
        images, annotations = [], []
        for index in range(number):
            name, boxes = f'{split}_{index}.jpg', rectangles(rng, 2)
            write_image(root / 'images' / name, draw(boxes, (0, 1))[0])
            images.append(dict(id=index, file_name=name, width=SIZE, height=SIZE))
            for label, (x, y, width, height) in enumerate(boxes):
                polygon = [x, y, x + width, y, x + width, y + height, x, y + height]
                annotations.append(
                    dict(id=len(annotations) + 1, image_id=index, category_id=label + 1, area=width * height,
                         bbox=[x, y, width, height], segmentation=[polygon])
                )  # fmt: skip
        categories = [dict(id=1, name='red'), dict(id=2, name='white')]
        write_json(root / f'{split}.json', images, annotations, categories)


def write_fields(root):
    """Class maps of soil (0) and wheat (1)."""
    rng = np.random.default_rng(0)
    for split, number in NUM_IMAGES.items():
        for index in range(number):
            image, labels = draw(rectangles(rng, 1), [1])
            write_image(root / split / 'images' / f'{index}.jpg', image)
            write_image(root / split / 'maps' / f'{index}.png', labels)


def write_birds(root):
    """COCO keypoints: the middles of the four sides of a rectangle."""
    rng = np.random.default_rng(0)
    names = ['beak', 'left_wing', 'right_wing', 'tail']
    for split, number in NUM_IMAGES.items():
        images, annotations = [], []
        for index in range(number):
            name, boxes = f'{split}_{index}.jpg', rectangles(rng, 1)
            write_image(root / 'images' / name, draw(boxes, (2,))[0])
            images.append(dict(id=index, file_name=name, width=SIZE, height=SIZE))
            ((x, y, width, height),) = boxes
            points = [(x + width / 2, y), (x, y + height / 2), (x + width, y + height / 2), (x + width / 2, y + height)]
            keypoints = [value for point in points for value in (*point, 2)]
            annotations.append(
                dict(id=index + 1, image_id=index, category_id=1, bbox=boxes[0], keypoints=keypoints, num_keypoints=4)
            )
        write_json(root / f'{split}.json', images, annotations, [dict(id=1, name='bird', keypoints=names)])


def write_json(path, images, annotations, categories):
    path.write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))


def write_clips(root):
    """Folders of frames: a rectangle that moves."""
    for split, number in NUM_IMAGES.items():
        for clip in range(number // 2):
            for frame in range(8):
                image, _ = draw([(4 + 2 * frame, 8 + 4 * clip, 20, 20)], [clip % 2])
                write_image(root / split / f'clip_{clip}' / f'{frame:04}.png', image)


WRITERS = dict(flowers=write_flowers, cells=write_cells, fields=write_fields, birds=write_birds, clips=write_clips)

if __name__ == '__main__':
    import sys
    from pathlib import Path

    for name, write in WRITERS.items():
        write(Path(sys.argv[1]) / 'data' / name)
