"""Data loaders without a batch are reported before the training starts."""

import errno
import json
import sys

import pytest
import torch
from mmengine.dataset import BaseDataset
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS
from torch.utils.data import Dataset

from mogacore import machine
from mogacore.engine import loaders
from mogacore.engine.loaders import build_loader, describe_dataset
from mogacore.engine.runner import train
from mogacore.errors import UserError


@DATASETS.register_module()
class FilteredList(BaseDataset):
    """Items of a JSON file; ``filter_cfg`` gives the smallest that is kept."""

    def __init__(self, **kwargs):
        super().__init__(data_prefix={}, **kwargs)

    def filter_data(self):
        return [item for item in self.data_list if item['size'] >= (self.filter_cfg or {}).get('min_size', 0)]


@DATASETS.register_module()
class NoHandles(Dataset):
    """What happens in a worker whose thread that hands over file handles has none left."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        sys.excepthook(OSError, OSError(errno.EMFILE, 'Too many open files'), None)


@MODELS.register_module()
class LoaderToy(BaseModel):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, **kwargs):
        raise AssertionError('training has started')


@pytest.fixture
def ann_file(tmp_path):
    path = tmp_path / 'items.json'
    path.write_text(json.dumps(dict(metainfo={}, data_list=[dict(size=size) for size in range(5)])))
    return str(path)


@pytest.fixture
def build(ann_file):
    """Function that builds a loader of five items."""

    def call(sampler='DefaultSampler', batch_size=2, drop_last=False, **dataset):
        dataset = dict(type='FilteredList', ann_file=ann_file, **dataset)
        return build_loader(
            dict(dataset=dataset, sampler=dict(type=sampler), batch_size=batch_size, num_workers=0, drop_last=drop_last)
        )

    return call


@pytest.mark.parametrize('serialize', [True, False])
@pytest.mark.parametrize('sampler', ['DefaultSampler', 'InfiniteSampler'])
def test_a_data_set_that_its_filter_empties_is_reported(build, ann_file, sampler, serialize):
    with pytest.raises(UserError, match=rf'the data set FilteredList \({ann_file}\) has no samples, or its filter'):
        build(sampler, filter_cfg=dict(min_size=9), serialize_data=serialize)
    assert len(build(sampler, filter_cfg=dict(min_size=3), serialize_data=serialize).dataset) == 2


def test_fewer_samples_than_a_batch_that_is_dropped_are_reported(build):
    with pytest.raises(UserError, match=r'has 5 samples for 1 process, not a batch of 6 for each, and drop_last'):
        build(batch_size=6, drop_last=True)
    assert len(build(batch_size=5, drop_last=True)) == 1
    assert len(build(batch_size=6)) == 1
    assert len(next(iter(build('InfiniteSampler', batch_size=6, drop_last=True)))['sample_idx']) == 6


def test_more_processes_than_samples_are_reported(build, monkeypatch):
    monkeypatch.setattr(loaders, 'get_world_size', lambda: 6)
    with pytest.raises(UserError, match='has 5 samples for 6 processes: start at most 5 processes'):
        build()
    monkeypatch.setattr(loaders, 'get_world_size', lambda: 5)
    build()


@pytest.mark.parametrize(
    'options, message',
    [
        ({'train_dataloader.dataset.filter_cfg': dict(min_size=9)}, 'has no samples'),
        ({'val_dataloader.dataset.filter_cfg': dict(min_size=9)}, 'has no samples'),
        ({'train_dataloader.batch_size': 6, 'train_dataloader.drop_last': True}, 'not a batch of 6'),
    ],
)
def test_training_does_not_start_without_batches(tmp_path, ann_file, options, message):
    loader = f"""dict(
    batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='FilteredList', ann_file={ann_file!r}))"""
    (tmp_path / 'toy.py').write_text(f"""
model = dict(type='LoaderToy')
train_dataloader = {loader}
val_dataloader = {loader}
val_evaluator = dict(type='DumpResults', out_file_path='unused.pkl')
val_cfg = dict()
train_cfg = dict(by_epoch=True, max_epochs=1)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01))
param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=True, convert_to_iter_based=True)]
default_scope = 'mmengine'
log_level = 'ERROR'
""")
    with pytest.raises(UserError, match=message) as raised:
        train(str(tmp_path / 'toy.py'), work_dir=str(tmp_path / 'run'), cfg_options=options)
    assert '\n' not in str(raised.value)


def test_data_sets_are_described_inside_wrappers():
    settings = dict(type='RepeatDataset', dataset=dict(type='CocoDataset', data_root='data/coco', ann_file='a.json'))
    assert describe_dataset(settings) == 'the data set CocoDataset (a.json)'
    assert describe_dataset(dict(type=FilteredList, data_root='')) == 'the data set FilteredList'


class Unsendable:
    """Raises when a worker passes it on, in the thread that does so."""

    def __init__(self, error):
        self.error = error

    def __reduce__(self):
        raise self.error


@DATASETS.register_module()
class UnsendableDataset(Dataset):
    def __init__(self, text):
        self.error = RuntimeError(text)

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return Unsendable(self.error)


@pytest.mark.parametrize('text, line', [
    ('unable to allocate shared memory(shm) for file </torch_1_2_3>: No space left on device (28)',
     'shared memory, /dev/shm, is full'),
    ('[Errno 24] Too many open files', 'too many files are open'),
    ('cannot pickle', 'a data loader worker was killed'),
])  # fmt: skip
def test_a_worker_that_cannot_pass_on_a_batch_ends_the_loop(text, line):
    settings = dict(
        batch_size=2, num_workers=2, collate_fn=dict(type='pseudo_collate'),
        sampler=dict(type='DefaultSampler', shuffle=False), dataset=dict(type='UnsendableDataset', text=text),
    )  # fmt: skip
    with pytest.raises(RuntimeError) as raised:
        list(build_loader(settings))
    assert str(machine.explain(raised.value)).startswith(line)


def test_a_worker_without_file_handles_ends_without_a_traceback(capfd):
    loader = build_loader(
        dict(dataset=dict(type='NoHandles'), sampler=dict(type='DefaultSampler'), batch_size=2, num_workers=1)
    )
    with pytest.raises(RuntimeError) as caught:
        next(iter(loader))
    assert machine.explain(caught.value).what == machine.FILES[0]
    assert 'Traceback' not in capfd.readouterr().err
