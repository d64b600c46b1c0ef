"""Data sets of fixed sequences, each on files in the original format."""

import sys
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch

from mogacore.datasets import KTH, FrameFolders, KittiCaltech, SequenceFile, TaxiBJ
from mogacore.datasets.sequences import starts_from_end
from mogacore.errors import UserError


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def frames_of(item):
    return torch.cat([item['inputs'], item['data_samples'].gt_frames])


@pytest.mark.parametrize('shape', [(20, 3, 16, 18), (20, 3, 16, 18, 3)])
def test_frame_axis_of_a_sequence_file_is_the_first(shape, tmp_path, rng):
    sequences = rng.integers(0, 256, shape, dtype=np.uint8)
    np.save(tmp_path / 'mnist_test_seq.npy', sequences)
    dataset = SequenceFile(tmp_path)
    assert len(dataset) == 3 and dataset.metainfo == dict(mean=0.0, std=1.0)
    for index in range(3):
        frames = frames_of(dataset[index])
        expected = sequences[:, index].reshape(20, 16, 18, -1).transpose(0, 3, 1, 2) / np.float32(255)
        np.testing.assert_allclose(frames, expected, atol=1e-7)
        assert dataset[index]['inputs'].shape[0] == 10 and dataset[index]['data_samples'].sample_idx == index


def test_shorter_sequences_are_taken_from_the_start(tmp_path, rng):
    np.save(tmp_path / 'mnist_test_seq.npy', rng.integers(0, 256, (20, 1, 8, 8), dtype=np.uint8))
    item = SequenceFile(tmp_path, num_inputs=4, num_targets=1)[0]
    np.testing.assert_array_equal(frames_of(item), frames_of(SequenceFile(tmp_path)[0])[:5])
    assert len(item['inputs']) == 4


def test_noise_on_fixed_sequences_is_the_same_on_every_access(tmp_path):
    np.save(tmp_path / 'mnist_test_seq.npy', np.full((20, 30, 64, 64), 200, np.uint8))
    missing, square = (SequenceFile(tmp_path, noise=noise) for noise in ('missing', 'perceptual'))
    for dataset in (missing, square):
        np.testing.assert_array_equal(dataset[3]['inputs'], dataset[3]['inputs'])
        assert (dataset[3]['data_samples'].gt_frames == 200 / 255).all()
    black = torch.stack([missing[i]['inputs'].amax((1, 2, 3)) == 0 for i in range(30)])
    assert 0.1 < black.float().mean() < 0.3
    assert ((square[0]['inputs'] == 0).sum((1, 2, 3)) == 24 * 24).all()


def write_taxi(path, rng, **changes):
    arrays = {
        f'{part}_{split}': rng.uniform(-1, 1, (num, 4, 2, 32, 32)).astype(np.float32)
        for split, num in (('train', 3), ('test', 2))
        for part in 'XY'
    }
    arrays |= changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return arrays


def test_taxi_flow_is_scaled_to_0_1(tmp_path, rng):
    arrays = write_taxi(tmp_path / 'dataset.npz', rng)
    for split, num in (('train', 3), ('test', 2)):
        dataset = TaxiBJ(tmp_path, split)
        assert len(dataset) == num
        item = dataset[1]
        np.testing.assert_allclose(item['inputs'], (arrays[f'X_{split}'][1] + 1) / 2, atol=1e-6)
        np.testing.assert_allclose(item['data_samples'].gt_frames, (arrays[f'Y_{split}'][1] + 1) / 2, atol=1e-6)


def write_clip(folder, numbers, rng, size=(12, 16)):
    folder.mkdir(parents=True)
    frames = rng.integers(0, 256, (len(numbers), *size, 3), dtype=np.uint8)
    for number, frame in zip(numbers, frames, strict=True):
        cv2.imwrite(str(folder / f'image-{number:03}_{size[1]}x{size[0]}.png'), frame[..., ::-1])
    return frames


def windows_by_hand(numbers, length, stride):
    """From the end: where the frames of a window are consecutive, take it and move by the stride, else by one frame."""
    found, last = [], len(numbers) - 1
    while last - length + 1 >= 0:
        window = numbers[last - length + 1 : last + 1]
        if window == list(range(window[0], window[0] + length)):
            found.append(window[0])
            last -= stride
        else:
            last -= 1
    return found


def test_kth_is_split_by_person_and_cut_by_action(tmp_path, rng):
    with_gap = [*range(1, 8), *range(20, 29)]
    clips = {
        'boxing/person01_boxing_d1': list(range(1, 15)),
        'running/person02_running_d2': with_gap,
        'walking/person16_walking_d1': list(range(1, 5)),
        'jogging/person17_jogging_d1': list(range(3, 14)),
    }
    images = {name: write_clip(tmp_path / name, numbers, rng) for name, numbers in clips.items()}
    settings = dict(num_inputs=3, num_targets=2, size=(12, 16))
    for split, names in (('train', list(clips)[:3]), ('test', list(clips)[3:])):
        dataset = KTH(tmp_path, split, **settings)
        found = {(dataset[i]['data_samples'].name) for i in range(len(dataset))}
        expected = {
            f'{name.partition("/")[2]}/image-{first:03}_16x12.png'
            for name in names
            for first in windows_by_hand(clips[name], 5, 3 if 'running' in name or 'jogging' in name else 5)
        }
        assert found == expected and len(dataset) == len(expected)
    dataset = KTH(tmp_path, 'train', **settings)
    items = {dataset[i]['data_samples'].name: dataset[i] for i in range(len(dataset))}
    frames = frames_of(items['person01_boxing_d1/image-010_16x12.png'])
    np.testing.assert_allclose(frames[:, 0], images['boxing/person01_boxing_d1'][9:14, ..., 0] / 255, atol=1e-6)


def test_frames_of_kth_are_resized_to_128(tmp_path, rng):
    write_clip(tmp_path / 'boxing' / 'person01_boxing_d1', range(30), rng, size=(120, 160))
    item = KTH(tmp_path)[0]
    assert item['inputs'].shape == (10, 1, 128, 128) and item['data_samples'].gt_frames.shape == (20, 1, 128, 128)


def test_clips_of_any_folder_are_rgb(tmp_path, rng):
    frames = write_clip(tmp_path / 'train' / 'a', range(7), rng)
    write_clip(tmp_path / 'test' / 'b', range(4), rng)
    dataset = FrameFolders(tmp_path, (12, 16), data_prefix=dict(img='train'), num_inputs=2, num_targets=1)
    assert [dataset[i]['data_samples'].name[-15:] for i in range(2)] == ['a/image-004_16x12.png'[-15:],
                                                                         'a/image-001_16x12.png'[-15:]]  # fmt: skip
    np.testing.assert_allclose(frames_of(dataset[0]), frames[4:7].transpose(0, 3, 1, 2) / 255, atol=1e-6)
    assert (
        len(FrameFolders(tmp_path, (6, 8), data_prefix=dict(img='train'), stride=1, num_inputs=2, num_targets=1)) == 5
    )


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


def test_sequence_starts_match_examples_worked_by_hand():
    assert starts_from_end(10, 4, 4, lambda first, last: True) == [6, 2]
    assert starts_from_end(10, 4, 1, lambda first, last: last != 8) == [6, 4, 3, 2, 1, 0]
    assert starts_from_end(3, 4, 4, lambda first, last: True) == []


def invalid_data(folder, rng):
    """Map the name of each error to a function that reads invalid data and the expected message."""
    good = np.zeros((20, 2, 8, 8), np.uint8)
    np.save(folder / 'float.npy', good.astype(float))
    np.save(folder / 'short.npy', good[:15])
    np.save(folder / 'flat.npy', good[0])
    np.save(folder / 'objects.npy', np.array([{}], object), allow_pickle=True)
    np.save(folder / 'whole.npy', good)
    (folder / 'cut.npy').write_bytes((folder / 'whole.npy').read_bytes()[:1000])
    (folder / 'page.npy').write_text('<html>')
    for name in ('t_none', 't_cut', 't_lacks', 't_shape', 't_short', 'k_one', 'k_idx', 'k_far', 'k_two', 'hkl', 'v'):
        (folder / name).mkdir()
    write_taxi(folder / 't_cut' / 'dataset.npz', rng)
    whole = (folder / 't_cut' / 'dataset.npz').read_bytes()
    (folder / 't_cut' / 'dataset.npz').write_bytes(whole[: len(whole) // 2])
    write_taxi(folder / 't_lacks' / 'dataset.npz', rng, Y_train=None)
    write_taxi(folder / 't_shape' / 'dataset.npz', rng, Y_train=np.zeros((2, 4, 2, 32, 32)))
    write_taxi(folder / 't_short' / 'dataset.npz', rng)
    np.save(folder / 'k_idx' / 'test_data.npy', np.zeros((12, 8, 8, 3), np.uint8))
    np.save(folder / 'k_far' / 'test_data.npy', np.zeros((12, 8, 8, 3), np.uint8))
    np.save(folder / 'k_far' / 'test_idx.npy', np.array([0, 2]))
    np.save(folder / 'k_two' / 'test_data.npy', np.zeros((12, 8), np.uint8))
    (folder / 'hkl' / 'X_train.hkl').touch()
    write_clip(folder / 'v' / 'clip', range(3), rng)
    return {
        'missing': (lambda: SequenceFile(folder, 'none.npy'), r'none\.npy not found: see docs/video_prediction\.md'),
        'cut': (lambda: SequenceFile(folder, 'cut.npy'), r'cut\.npy is truncated or not a \.npy file'),
        'page': (lambda: SequenceFile(folder, 'page.npy'), r'page\.npy is truncated or not a \.npy file'),
        'pickled': (lambda: SequenceFile(folder, 'objects.npy'), r'objects\.npy is truncated or not a \.npy file'),
        'type': (lambda: SequenceFile(folder, 'float.npy'), r'float\.npy contains float64 .*not uint8'),
        'axes': (lambda: SequenceFile(folder, 'flat.npy'), r'flat\.npy contains uint8 of shape \(2, 8, 8\)'),
        'frames': (lambda: SequenceFile(folder, 'short.npy'), r'short\.npy has 15 frames .* num_targets is 20'),
        'noise': (lambda: SequenceFile(folder, noise='dynamic'), "noise 'dynamic' is unknown for fixed sequences"),
        'taxi missing': (lambda: TaxiBJ(folder / 't_none'), r't_none/dataset\.npz not found'),
        'taxi cut': (lambda: TaxiBJ(folder / 't_cut'), r'dataset\.npz is truncated or not a \.npz file'),
        'taxi lacks': (lambda: TaxiBJ(folder / 't_lacks'), r'dataset\.npz has no array Y_train'),
        'taxi shape': (lambda: TaxiBJ(folder / 't_shape'), r'X_train \(3, .* and Y_train \(2, .* do not match'),
        'taxi short': (lambda: TaxiBJ(folder / 't_short', num_targets=5), r'has 4 \+ 4 frames .* not 4 \+ 5'),
        'split': (lambda: TaxiBJ(folder / 't_short', 'val'), "split 'val' is unknown"),
        'driving missing': (lambda: KittiCaltech(folder / 'k_one', 'test'), r'test_data\.npy not found'),
        'driving without starts': (lambda: KittiCaltech(folder / 'k_idx', 'test'), r'test_idx\.npy not found'),
        'driving too short': (
            lambda: KittiCaltech(folder / 'k_far', 'test'),
            r'has 12 frames, too few .*11.* at 0 to 2',
        ),
        'driving shape': (lambda: KittiCaltech(folder / 'k_two', 'test'), 'not an array of 4 dimensions'),
        'hickle': (lambda: KittiCaltech(folder / 'hkl'), r'X_train\.hkl (requires the package hickle|is truncated)'),
        'no clip': (lambda: FrameFolders(folder / 'v', (8, 8)), 'no clip of 20 consecutive frames in 1 folders'),
        'no folder': (lambda: FrameFolders(folder / 'none', (8, 8)), 'data folder .*none not found'),
        'color': (lambda: FrameFolders(folder / 'v', (8, 8), 'rgb'), "color_type 'rgb' is unknown"),
    }


def test_corrupt_and_missing_files_are_reported_in_one_line(tmp_path, rng):
    for name, (read, message) in invalid_data(tmp_path, rng).items():
        with pytest.raises(UserError, match=message) as raised:
            read()
        assert '\n' not in str(raised.value), name


@pytest.mark.parametrize('content', [b'', b'not an image'])
def test_a_corrupt_frame_is_reported_when_it_is_read(content, tmp_path, rng):
    write_clip(tmp_path / 'clip', range(3), rng)
    dataset = FrameFolders(tmp_path, (8, 8), num_inputs=2, num_targets=1)
    (tmp_path / 'clip' / 'image-001_16x12.png').write_bytes(content)
    with pytest.raises(UserError, match=r'image .*image-001_16x12\.png is corrupt'):
        dataset[0]


def test_a_frame_without_a_number_is_reported(tmp_path, rng):
    write_clip(tmp_path / 'clip', range(3), rng)
    (tmp_path / 'clip' / 'last.png').write_bytes(b'')
    with pytest.raises(UserError, match=r'last\.png has no number in its name'):
        FrameFolders(tmp_path, (8, 8), num_inputs=2, num_targets=1)
