"""KITTI and Caltech Pedestrian on files in the original formats."""

import sys
from types import ModuleType

import numpy as np
import pytest
import torch

from mogacore.datasets import KittiCaltech
from mogacore.errors import UserError


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def frames_of(item):
    return torch.cat([item['inputs'], item['data_samples'].gt_frames])


@pytest.mark.parametrize('dtype', [np.uint8, np.float32])
def test_driving_sequences_start_at_the_given_frames(dtype, tmp_path, rng):
    frames = rng.integers(0, 256, (30, 8, 10, 3), dtype=np.uint8)
    np.save(tmp_path / 'test_data.npy', frames if dtype is np.uint8 else (frames / 255).astype(dtype))
    np.save(tmp_path / 'test_idx.npy', np.array([0, 19]))
    dataset = KittiCaltech(tmp_path, 'test')
    assert len(dataset) == 2
    np.testing.assert_allclose(frames_of(dataset[1]), frames[19:30].transpose(0, 3, 1, 2) / 255, atol=1e-6)
    assert dataset[1]['inputs'].shape[0] == 10


def test_kitti_is_cut_from_the_end_of_each_source(tmp_path, rng, monkeypatch):
    frames = rng.integers(0, 256, (40, 8, 10, 3), dtype=np.uint8)
    sources = ['a'] * 25 + ['b'] * 15
    library = ModuleType('hickle')
    library.load = lambda path: frames if 'X_train' in path else sources
    monkeypatch.setitem(sys.modules, 'hickle', library)
    for name in ('X_train.hkl', 'sources_train.hkl'):
        (tmp_path / name).touch()
    dataset = KittiCaltech(tmp_path, 'train')
    assert [dataset.get_data_info(i)['start'] for i in range(len(dataset))] == [29, 14, 3]
    np.testing.assert_allclose(frames_of(dataset[0]), frames[29:40].transpose(0, 3, 1, 2) / 255, atol=1e-6)


def test_corrupt_and_missing_files_are_reported_in_one_line(tmp_path):
    for name in ('none', 'starts', 'far', 'shape', 'hickle'):
        (tmp_path / name).mkdir()
    np.save(tmp_path / 'starts' / 'test_data.npy', np.zeros((12, 8, 8, 3), np.uint8))
    np.save(tmp_path / 'far' / 'test_data.npy', np.zeros((12, 8, 8, 3), np.uint8))
    np.save(tmp_path / 'far' / 'test_idx.npy', np.array([0, 2]))
    np.save(tmp_path / 'shape' / 'test_data.npy', np.zeros((12, 8), np.uint8))
    (tmp_path / 'hickle' / 'X_train.hkl').touch()
    for folder, split, message in (
        ('none', 'test', r'test_data\.npy not found'),
        ('starts', 'test', r'test_idx\.npy not found'),
        ('far', 'test', r'has 12 frames, too few .*11.* at 0 to 2'),
        ('shape', 'test', 'not an array of 4 dimensions'),
        ('hickle', 'train', r'X_train\.hkl (requires the package hickle|is truncated)'),
    ):
        with pytest.raises(UserError, match=message) as raised:
            KittiCaltech(tmp_path / folder, split)
        assert '\n' not in str(raised.value), message
