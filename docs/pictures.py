"""Remake the pictures of predictions on the digits: ``python docs/pictures.py WORK_DIRS``.

WORK_DIRS has the work dirs of trainings of the configs below, under the names of the configs, as ``mogacore train``
writes them; a picture whose training is missing is left as it is. Run it where ``data/digits`` is. The lower half of
``tasks.jpg`` consists of parts of other pictures.
"""

import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

from mogacore.inference.predictor import infer
from mogacore.runtime.drawing.overview import draw_grid

IMAGES = Path(__file__).parent / 'images'
SCENES = Path('data/digits/scenes')
POSES = {'boxes': SCENES / 'annotations/keypoints_val.json'}
CLASSIFIER = 'classification/moganet-xtiny_digits'
MASK_RCNN = 'detection/mask-rcnn_moganet-xtiny_fpn_digits'
UPERNET = 'segmentation/upernet_moganet-xtiny_digits'
POSE = 'pose/td-hm_moganet-xtiny_digits'
# Config of each picture, and the scenes that it shows.
PICTURES = {
    'digits-mask-rcnn': (MASK_RCNN, '00[01][0-7].png'),
    'digits-upernet': (UPERNET, '00[01][0-7].png'),
    'digits-pose': (POSE, '00[01][0-7].png'),
    'heads-rtmdet': ('detection/rtmdet_moganet-xtiny_digits', '000[0-3].png'),
}
WIDTH, HALF_WIDTH = 1200, 380  # of a picture, and of a part of tasks.jpg
# Parts of other pictures in tasks.jpg: file and x1, y1, x2, y2.
PARTS = {
    '3D hand pose': ('hands-3d.jpg', (396, 0, 792, 264)),
    'Predicted frames': ('moving-digits.png', (0, 0, 425, 264)),
    'Multi-order interactions': ('interactions-digits.png', (0, 24, 605, 440)),
    'Activation maps': ('cam-detection.jpg', (0, 280, 480, 560)),
}


class Missing(Exception):
    """There is no training of a config."""


def predict(work_dirs, config, source, folder):
    """Predict images with the best weights of a training; returns the folder of the results."""
    weights = sorted((work_dirs / config.rpartition('/')[2]).glob('best_*.pth'))
    if not weights:
        raise Missing(config)
    infer(config, str(weights[0]), source, folder, **(POSES if config.startswith('pose/') else {}), device='cpu')
    return folder


def read(path):
    """An image as (H, W, 3) uint8 BGR."""
    return cv2.imread(str(path))


def write(name, image, width):
    """Write an image with at most this width as JPEG."""
    scale = min(1, width / image.shape[1])
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(IMAGES / f'{name}.jpg'), image, [cv2.IMWRITE_JPEG_QUALITY, 85])
    print(f'{name}.jpg')


def two_rows(images):
    """Six images of one size in two rows, with the shape of a part of tasks.jpg."""
    return np.concatenate([np.concatenate(images[:3], 1), np.concatenate(images[3:], 1)])


def draw_tasks(work_dirs, folder):
    """The picture of all tasks."""
    digits = [min(Path(f'data/digits/classification/val/{digit}').iterdir()) for digit in range(2, 8)]
    overview = read(predict(work_dirs, CLASSIFIER, digits, folder / 'digits') / 'predictions.png')
    parts = {'Classification': np.concatenate(np.split(overview[:, : overview.shape[1] // 6 * 6], 2, 1))}
    for title, config in (('Boxes and masks', MASK_RCNN), ('Class maps', UPERNET), ('Keypoints', POSE)):
        out = predict(work_dirs, config, str(SCENES / 'val/000[0-5].png'), folder / title)
        parts[title] = two_rows([read(path) for path in sorted((out / 'drawn').glob('*.png'))])
    for title, (name, (left, top, right, bottom)) in PARTS.items():
        parts[title] = read(IMAGES / name)[top:bottom, left:right]
    grid = draw_grid([part[..., ::-1] for part in parts.values()], [(title, 'black') for title in parts], HALF_WIDTH, 4)
    write('tasks', grid[..., ::-1], 4 * WIDTH)


def main():
    work_dirs = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as name:
        for picture, (config, pattern) in PICTURES.items():
            try:
                out = predict(work_dirs, config, str(SCENES / 'val' / pattern), Path(name) / config)
            except Missing as error:
                print(f'{picture}.jpg: no training of {error} in {work_dirs}')
                continue
            write(picture, read(out / 'predictions.png'), WIDTH)
        try:
            draw_tasks(work_dirs, Path(name) / 'tasks')
        except Missing as error:
            print(f'tasks.jpg: no training of {error} in {work_dirs}')


if __name__ == '__main__':
    main()
