"""Training from packed data is training from the folder: same samples in the same order, same weights."""

import shutil
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import pytest
import torch
from conftest import ROOT, TINY_ARCH
from mmengine.registry import DATASETS
from mmengine.structures import BaseDataElement
from packed_data import write_webdataset

from mogacore import packs
from mogacore.engine.config import load_config, locate_data, prepare_loaders, use_library
from mogacore.engine.data import data_problems, label_class_folders
from mogacore.engine.loaders import build_loader
from mogacore.engine.resume import make_resumable, skip_batches
from mogacore.engine.runner import test as run_test
from mogacore.engine.runner import train
from mogacore.errors import UserError
from mogacore.packing import pack, write_index

PARTS = {'classification': 'classification', 'detection': 'scenes', 'segmentation': 'scenes'}
LIBRARIES = {'classification': 'mmpretrain', 'detection': 'mmdet', 'segmentation': 'mmseg'}
WIDTHS = [8, 16, 24, 32]
CONFIGS = {
    'classification': ('moganet-xtiny_digits.py', 'head=dict(in_channels=32)'),
    'detection': ('mask-rcnn_moganet-xtiny_fpn_digits.py', f'neck=dict(in_channels={WIDTHS})'),
    'segmentation': (
        'semantic-fpn_moganet-xtiny_digits.py',
        f'neck=dict(in_channels={WIDTHS}, out_channels=8), decode_head=dict(in_channels=[8] * 4, channels=8)',
    ),
}


@pytest.fixture(scope='module')
def data(digit_data, tmp_path_factory):
    """A folder with few digits in folder/, and their packed copies in shards/ and lmdb/."""
    pytest.importorskip('lmdb')
    root = tmp_path_factory.mktemp('packed')
    source = root / 'folder'
    shutil.copytree(digit_data / 'data' / 'digits' / 'scenes', source / 'scenes')
    for split, number in (('train', 6), ('val', 2)):
        for folder in sorted((digit_data / 'data' / 'digits' / 'classification' / split).iterdir()):
            target = source / 'classification' / split / folder.name
            target.mkdir(parents=True)
            for file in sorted(folder.iterdir())[:number]:
                shutil.copy(file, target)
    for part in ('classification', 'scenes'):
        pack(source / part, root / 'shards' / part, 'shards', shard_size=30_000)
        pack(source / part, root / 'lmdb' / part, 'lmdb')
    return root


def write_config(folder, task, data_root):
    """A small config of a task, for data in ``data_root``."""
    config, widths = CONFIGS[task]
    annotations = f"val_evaluator = dict(ann_file='{data_root}/annotations/instances_val.json')"
    root = f"data_root='{data_root}'"
    dataset = f'dataset=dict({root})' if task == 'classification' else root
    lines = f"""
_base_ = '{ROOT / 'configs' / task / config}'
model = dict(backbone=dict(arch=dict(_delete_=True, **{TINY_ARCH})), {widths})
train_dataloader = dict(batch_size=3, dataset=dict({dataset}))
val_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False, dataset=dict({root}))
test_dataloader = val_dataloader
train_cfg = dict({'max_iters=4, val_interval=4' if task == 'segmentation' else 'max_epochs=1, val_interval=1'})
{'param_scheduler = []' if task == 'segmentation' else ''}
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(by_epoch=False, interval=2, max_keep_ckpts=-1))
{annotations if task == 'detection' else ''}
test_evaluator = val_evaluator
"""
    path = folder / f'{task}-{Path(data_root).parent.name}.py'
    path.write_text(lines if task == 'detection' else lines.replace('test_evaluator = val_evaluator', ''))
    return str(path)


def make_loader(config, workers=4, **options):
    """The training loader of a run."""
    cfg = load_config(config, options)
    use_library(cfg)
    locate_data(cfg, 'train')
    label_class_folders(cfg, 'train', cfg.train_dataloader)
    assert not data_problems(cfg, 'train', 'full')
    make_resumable(cfg)
    cfg.train_dataloader.num_workers = workers
    prepare_loaders(cfg)
    return build_loader(cfg.train_dataloader, seed=3)


def plain(value, root):
    """Nested lists and dicts of a batch, to compare; paths are relative to ``root``."""
    if isinstance(value, BaseDataElement):
        return {key: plain(item, root) for key, item in value.all_items()}
    if isinstance(value, Mapping):
        return {key: plain(item, root) for key, item in value.items()}
    if hasattr(value, 'to_ndarray') or hasattr(value, 'tensor'):  # masks, boxes
        value = value.to_ndarray() if hasattr(value, 'to_ndarray') else value.tensor
    if isinstance(value, list | tuple):
        return [plain(item, root) for item in value]
    return (
        str(value).removeprefix(str(root))
        if isinstance(value, str | Path)
        else getattr(value, 'tolist', lambda: value)()
    )


def batches(task, root, folder, number, workers, start=0):
    """Batches ``start`` to ``number`` of the first epoch."""
    loader = make_loader(write_config(folder, task, root / PARTS[task]), workers)
    skip_batches(loader, start)
    return [plain(batch, root) for batch in islice(loader, number - start)]


@pytest.mark.parametrize(
    'task, kind',
    [
        ('classification', 'shards'),
        ('classification', 'lmdb'),
        ('detection', 'shards'),
        ('detection', 'lmdb'),
        ('segmentation', 'shards'),
    ],
)
def test_four_workers_yield_the_batches_of_the_folder_from_any_batch_on(task, kind, data, tmp_path):
    pytest.importorskip(LIBRARIES[task])
    number = 4
    expected = batches(task, data / 'folder', tmp_path, number, workers=0)
    assert len(expected) == number and len({str(batch) for batch in expected}) == number
    assert all(sample['img_path'] for batch in expected for sample in batch['data_samples'])
    assert batches(task, data / kind, tmp_path, number, workers=4) == expected
    assert batches(task, data / kind, tmp_path, number, workers=4, start=2) == expected[2:]


def weights(work_dir, name):
    return torch.load(work_dir / name, weights_only=False)['state_dict']


@pytest.mark.parametrize('task', ['classification', 'detection'])
def test_a_run_stopped_mid_epoch_continues_from_packed_data_with_the_same_weights(task, data, tmp_path):
    pytest.importorskip(LIBRARIES[task])
    for kind in ('folder', 'shards', 'lmdb'):
        config = write_config(tmp_path, task, data / kind / PARTS[task])
        options = {'train_dataloader.num_workers': 2, 'experiment_name': f'packed_{task}_{kind}'}
        if task == 'classification':
            options |= {'train_dataloader.dataset.times': 1, 'train_dataloader.batch_size': 12}
        resume = None
        if kind != 'folder':
            resume = str(tmp_path / 'folder' / 'iter_2.pth')  # of 4 or 5
        runner = train(config, work_dir=str(tmp_path / kind), resume=resume, cfg_options=options)
        last = f'iter_{runner.iter}.pth' if runner.iter % 2 == 0 else f'iter_{runner.iter - 1}.pth'
        found = weights(tmp_path / kind, last)
        if kind == 'folder':
            expected = found
            assert runner.iter >= 4
        assert found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in expected)
    metrics = [
        run_test(
            write_config(tmp_path, task, data / kind / PARTS[task]), str(tmp_path / 'folder' / last),
            work_dir=str(tmp_path / 'test'), cfg_options={'experiment_name': f'packed_test_{task}_{kind}'},
        )
        for kind in ('folder', 'shards', 'lmdb')
    ]  # fmt: skip
    assert metrics[0] == metrics[1] == metrics[2] and metrics[0]


def test_a_classifier_learns_the_labels_of_shards_of_webdataset(tmp_path):
    pytest.importorskip('mmpretrain')
    labels = [label % 10 for label in range(30)]
    images = write_webdataset(tmp_path / 'wds' / 'train', labels)
    write_webdataset(tmp_path / 'wds' / 'val', [9, 4, 0])  # the labels of the training set, some of which are absent
    for split in ('train', 'val'):
        write_index(tmp_path / 'wds' / split)
    loader = make_loader(write_config(tmp_path, 'classification', tmp_path / 'wds'), workers=2)
    found = [
        (Path(sample.img_path).name, sample.gt_label.item()) for batch in loader for sample in batch['data_samples']
    ]
    expected = dict(zip(images, labels, strict=True))
    assert len(found) == 90 and all(label == expected[name] for name, label in found)
    cfg = load_config(write_config(tmp_path, 'classification', tmp_path / 'wds'))
    locate_data(cfg, 'train')
    label_class_folders(cfg, 'train', cfg.train_dataloader)
    dataset = DATASETS.build({**cfg.val_dataloader.dataset, 'pipeline': []})
    assert [dataset.get_data_info(number)['gt_label'] for number in range(3)] == [0, 4, 9]


def assert_refused(config, message):
    packs.forget()
    with pytest.raises(UserError, match=message) as caught:
        train(config, work_dir=str(Path(config).with_suffix('')))
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('task', ['classification', 'detection'])
def test_packed_data_that_cannot_be_read_is_one_line_before_the_training(task, data, tmp_path):
    pytest.importorskip(LIBRARIES[task])
    root = tmp_path / 'copy' / PARTS[task]
    shutil.copytree(data / 'shards' / PARTS[task], root)
    config = write_config(tmp_path, task, root)
    (root / 'train' / packs.INDEX_NAME).rename(root / 'kept')
    assert_refused(config, 'train has packed images, but no mogacore.index.npz: run "mogacore pack .*train --index"')
    (root / 'kept').rename(root / 'train' / packs.INDEX_NAME)
    shard = root / 'train' / 'train-000000.tar'
    shard.rename(root / 'kept')
    assert_refused(config, 'shard .*train-000000.tar cannot be read')
    (root / 'kept').rename(shard)
    content = shard.read_bytes()
    shard.write_bytes(content.replace(b'ustar', b'USTAR'))
    assert_refused(config, 'shard .*train-000000.tar has changed since its index was written')


def test_an_annotated_image_that_is_not_packed_is_one_line(data, tmp_path):
    pytest.importorskip('mmdet')
    root = tmp_path / 'copy' / 'scenes'
    shutil.copytree(data / 'shards' / 'scenes', root)
    path = root / 'annotations' / 'instances_train.json'
    path.write_text(path.read_text().replace('"0003.png"', '"9003.png"'))
    assert '"9003.png"' in path.read_text()
    assert_refused(write_config(tmp_path, 'detection', root), '1 of 12 images .* are not in .*first is 9003.png')


def test_an_error_in_a_worker_is_one_line(data, tmp_path, monkeypatch):
    pytest.importorskip('mmpretrain')
    root = tmp_path / 'copy' / 'classification'
    shutil.copytree(data / 'shards' / 'classification', root)
    config = write_config(tmp_path, 'classification', root)
    monkeypatch.setattr(
        'mogacore.engine.runner.prepare_data', lambda cfg, *args: label_class_folders(cfg, 'train', None)
    )
    shard = root / 'train' / 'train-000001.tar'
    shard.write_bytes(shard.read_bytes().replace(b'ustar', b'USTAR'))
    assert_refused(config, '^shard .*train-000001.tar has changed since its index was written: run')
