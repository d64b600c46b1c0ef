"""A folder with a tiny classifier, its data, and the training state of its first epoch."""

import os
from contextlib import contextmanager

import cv2
import numpy as np
from conftest import ROOT

from mogacore.engine.runner import train

CONFIG = f"""
_base_ = '{ROOT}/configs/classification/moganet-xtiny_digits.py'
model = dict(
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=(8, 8, 8, 32), depths=(1, 1, 1, 1), ffn_ratios=(1, 1, 1, 1))),
    head=dict(in_channels=32))
optim_wrapper = dict(_delete_=True, optimizer=dict(type='AdamW', lr=0.002))
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False,
                        dataset=dict(times=1, dataset=dict(data_root='data')))
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(data_root='data'))
test_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(data_root='data'))
"""


@contextmanager
def inside_project(folder):
    """Write the project, with ``tiny.py``, ``data/`` and ``trained/epoch_1.pth``, and make it the current folder."""
    (folder / 'tiny.py').write_text(CONFIG)
    for split in ('train', 'val'):
        for name in range(10):
            (folder / 'data' / split / str(name)).mkdir(parents=True)
            image = np.full((32, 32), 25 * name, np.uint8)
            cv2.imwrite(str(folder / 'data' / split / str(name) / 'a.png'), image)
    before = os.getcwd()
    os.chdir(folder)
    train('tiny.py', work_dir='trained', cfg_options={'train_cfg.max_epochs': 1, 'log_level': 'ERROR'})
    try:
        yield folder
    finally:
        os.chdir(before)
