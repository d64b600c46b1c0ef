"""init-data on every format, task and several recipes: ``python tests/stress/init_data_matrix.py [PART OF A NAME]``.

Each folder of ``tests/init_data/folder_makers.py`` goes through init-data, ten iterations of training with a tiny
network, a test with test-time augmentation, drawings, and a prediction. Prints a row for each, and exits with 1 if one
fails.
"""

from __future__ import annotations

import sys
import tempfile
import time
import traceback
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / 'init_data')]

import folder_makers as makers  # noqa: E402
from test_init_data import small  # noqa: E402

from mogacore.engine.config import load_config  # noqa: E402
from mogacore.engine.runner import test, train  # noqa: E402
from mogacore.inference.predictor import infer  # noqa: E402
from mogacore.init_data import Options, init_data  # noqa: E402


def maps(kind):
    return lambda folder: makers.masks(folder, kind)


FOLDERS = {
    ('coco', 'detection'): makers.coco,
    ('coco', 'instance'): makers.coco,
    ('coco', 'segmentation'): makers.coco,
    ('coco', 'pose'): makers.coco_keypoints,
    ('yolo', 'detection'): makers.yolo,
    ('yolo', 'instance'): makers.yolo_polygons,
    ('yolo', 'segmentation'): makers.yolo_polygons,
    ('yolo', 'pose'): makers.yolo_keypoints,
    ('voc', 'detection'): makers.voc,
    ('voc from 0', 'detection'): lambda folder: makers.voc(folder, first=0),
    ('labelme', 'detection'): makers.labelme,
    ('labelme', 'instance'): makers.labelme,
    ('labelme', 'segmentation'): makers.labelme,
    ('labelme', 'pose'): makers.labelme_keypoints,
    ('folders', 'classification'): makers.class_folders,
    ('folders of splits', 'classification'): lambda folder: makers.class_folders(folder, ('train', 'val', 'test')),
    **{(f'{kind} maps', 'segmentation'): maps(kind) for kind in ('index', 'palette', 'colors', 'binary')},
}
# Recipes besides the default of the task.
RECIPES = {
    'detection': [
        'detection/cascade-rcnn_moganet-small_fpn_ms-3x_coco',
        'detection/retinanet_moganet-xtiny_fpn_digits',
    ],
    'instance': ['detection/cascade-mask-rcnn_moganet-small_fpn_ms-3x_coco'],
    'segmentation': [
        'segmentation/upernet_moganet-tiny_160k_ade20k-512x512',
        'segmentation/upernet_moganet-xtiny_digits',
    ],
    'classification': ['classification/moganet-small_8xb128_in1k-224'],
    'pose': ['pose/td-hm_moganet-xtiny_digits'],
}


def settings(config, task):
    """Options for a tiny network, of UperNet as well."""
    found = small(config, task)
    if 'auxiliary_head' in load_config(config).model:
        found = {key: value for key, value in found.items() if '.neck.' not in key}
        found['model.decode_head.in_channels'] = found.pop('model.backbone.widths', [8, 16, 24, 32])
        found |= {'model.auxiliary_head.in_channels': 24, 'model.auxiliary_head.channels': 8}
    return found


def has_tta(recipe):
    """mmdet cannot flip the masks of Cascade Mask R-CNN back."""
    return 'cascade-mask' not in (recipe or '')


def run(maker, task, recipe, root):
    folder = root / 'data'
    folder.mkdir()
    maker(folder)
    config = root / 'own.py'
    init_data(Options(folder, task, recipe, out=config, val_fraction=0.4))
    options = settings(config, task)
    train(str(config), work_dir=str(root / 'run'), cfg_options=options)
    (best,) = (root / 'run').glob('best_*.pth')
    metrics = test(
        str(config),
        str(best),
        str(root / 'test'),
        show_dir=str(root / 'shown'),
        tta=has_tta(recipe),
        cfg_options=options,
    )
    images = sorted(path for path in folder.rglob('*.jpg'))[:2]
    threshold = None if task in ('classification', 'segmentation') else 0.0
    infer(str(config), str(best), images, root / 'predictions', cfg_options=options, score_thr=threshold)
    assert list((root / 'shown').rglob('*.png'))
    return metrics


def main():
    wanted, status = sys.argv[1:], 0
    for (name, task), maker in FOLDERS.items():
        for recipe in [None, *RECIPES[task]]:
            row = f'{name} | {task} | {recipe or "default"}'
            if not all(part in row for part in wanted):
                continue
            start = time.perf_counter()
            with tempfile.TemporaryDirectory(prefix='init data ') as root:
                try:
                    outcome = f'{len(run(maker, task, recipe, Path(root)))} scores'
                except Exception as error:  # one row, and the next one is tried
                    traceback.print_exc(limit=-3)
                    outcome, status = f'FAILED: {str(error)[:200]}', 1
            print(f'| {row} | {outcome} | {time.perf_counter() - start:.0f} s |', flush=True)
    return status


if __name__ == '__main__':
    sys.exit(main())
