"""init-data with every recipe: ``python tests/stress/init_data_recipes.py [PART OF A NAME ...]``.

A recipe that init-data accepts for a folder of small images must train for one epoch of three iterations, from random
weights; one that it refuses must be refused in one line. Prints a row for each, and exits with 1 if one fails.
"""

from __future__ import annotations

import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / 'init_data')]

import folder_makers as makers  # noqa: E402

from mogacore.engine.config import load_config  # noqa: E402
from mogacore.engine.runner import train  # noqa: E402
from mogacore.errors import UserError  # noqa: E402
from mogacore.init_data import Options, init_data  # noqa: E402
from mogacore.locations import config_names  # noqa: E402

# Folder of configs -> tasks, each with a maker of its data.
TASKS = {
    'detection': {'detection': makers.coco, 'instance': makers.coco},
    'segmentation': {'segmentation': makers.coco},
    'pose': {'pose': makers.coco_keypoints},
    'classification': {'classification': makers.class_folders},
}


def run(task, maker, recipe, root):
    folder, config = root / 'data', root / 'own.py'
    folder.mkdir()
    maker(folder)
    try:
        init_data(Options(folder, task, recipe, out=config, weights='none', val_fraction=0.4, batch_size=2))
    except UserError as error:
        assert '\n' not in str(error)
        return f'refused: {error}'
    options = {f'{stage}_dataloader.num_workers': 0 for stage in ('train', 'val', 'test')}
    if 'max_iters' in load_config(config).train_cfg:
        options |= {'train_cfg.max_iters': 3, 'train_cfg.val_interval': 3, 'param_scheduler.0.end': 1}
    else:
        options |= {'train_cfg.max_epochs': 1, 'train_cfg.val_interval': 1}
    assert train(str(config), work_dir=str(root / 'run'), cfg_options=options).iter >= 3
    return 'trained'


def main():
    wanted, status = sys.argv[1:], 0
    warnings.simplefilter('ignore')
    for recipe in config_names():
        for task, maker in TASKS.get(recipe.rpartition('/')[0], {}).items():
            if wanted and not any(part in f'{task} {recipe}' for part in wanted):
                continue
            start = time.perf_counter()
            with tempfile.TemporaryDirectory(prefix='init data ') as root:
                try:
                    outcome = run(task, maker, recipe, Path(root))
                except Exception as error:  # one row, and the next one is tried
                    traceback.print_exc(limit=-3)
                    outcome, status = f'FAILED: {str(error)[:200]}', 1
            print(f'| {task} | {recipe} | {outcome} | {time.perf_counter() - start:.0f} s |', flush=True)
    return status


if __name__ == '__main__':
    sys.exit(main())
