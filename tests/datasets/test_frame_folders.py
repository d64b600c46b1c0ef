"""Clips as folders of images, on small copies in the original layouts."""

import cv2
import numpy as np
import pytest
import torch

from mogacore.datasets import KTH, FrameFolders
from mogacore.errors import UserError


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def frames_of(item):
    return torch.cat([item['inputs'], item['data_samples'].gt_frames])


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


PREFIX = 'images/S1_Directions.54138969_'


def write_listed(folder, rng, num_frames=59, size=(12, 16), lines=('1,71', '6,76', '19,89')):
    """Frames of a clip with the names of Human3.6M, in one folder, and a list of sequences."""
    (folder / 'images').mkdir()
    frames = {number: rng.integers(0, 256, (*size, 3), dtype=np.uint8) for number in range(1, num_frames + 1)}
    for number, frame in frames.items():
        # PNG bytes under the published name: JPEG would change the values.
        (folder / f'{PREFIX}{number:06}.jpg').write_bytes(cv2.imencode('.png', frame)[1].tobytes())
    (folder / 'train.txt').write_text(''.join(f'{PREFIX},{line}\n' for line in lines))
    return frames


def test_listed_sequences_start_where_the_list_says_and_take_every_fifth_frame(tmp_path, rng):
    images = write_listed(tmp_path, rng)
    dataset = FrameFolders(
        tmp_path, (7, 9), ann_file='train.txt', frame_step=5, interpolation='bicubic', channel_order='bgr',
        num_inputs=4, num_targets=4,
    )  # fmt: skip
    assert len(dataset) == 3 and dataset.metainfo['channel_order'] == 'bgr'
    for index, first in enumerate((1, 6, 19)):
        item = dataset[index]
        assert item['inputs'].shape == (4, 3, 7, 9) and item['data_samples'].name == f'{PREFIX}{first:06}.jpg'
        taken = [images[first + 5 * step] for step in range(8)]
        expected = [cv2.resize(image, (9, 7), interpolation=cv2.INTER_CUBIC).transpose(2, 0, 1) for image in taken]
        np.testing.assert_allclose(frames_of(item), np.stack(expected) / 255, atol=1e-6)


def test_default_resizing_is_bilinear_and_a_frame_of_the_right_size_is_unchanged(tmp_path, rng):
    images = write_listed(tmp_path, rng)
    settings = dict(ann_file='train.txt', num_inputs=2, num_targets=1)
    small = frames_of(FrameFolders(tmp_path, (7, 9), **settings)[0])[0]
    expected = cv2.resize(images[1], (9, 7), interpolation=cv2.INTER_LINEAR)[..., ::-1].transpose(2, 0, 1)
    np.testing.assert_allclose(small, expected / 255, atol=1e-6)
    for interpolation in ('nearest', 'bilinear', 'bicubic', 'area', 'lanczos'):
        same = frames_of(FrameFolders(tmp_path, (12, 16), interpolation=interpolation, **settings)[0])[0]
        np.testing.assert_allclose(same, images[1][..., ::-1].transpose(2, 0, 1) / 255, atol=1e-6)


@pytest.mark.parametrize('stride', [None, 2])
def test_clips_are_cut_with_a_frame_step(stride, tmp_path, rng):
    numbers = [*range(1, 12), *range(20, 34)]
    frames = dict(zip(numbers, write_clip(tmp_path / 'a', numbers, rng), strict=True))
    dataset = FrameFolders(tmp_path, (12, 16), frame_step=3, stride=stride, num_inputs=2, num_targets=1)
    firsts = windows_by_hand(numbers, 7, stride or 7)
    assert len(dataset) == len(firsts) > 2
    for index, first in enumerate(firsts):
        taken = np.stack([frames[first], frames[first + 3], frames[first + 6]])
        np.testing.assert_allclose(frames_of(dataset[index]), taken.transpose(0, 3, 1, 2) / 255, atol=1e-6)


def test_errors_of_lists_and_settings_are_reported_in_one_line(tmp_path, rng):
    write_listed(tmp_path, rng, 3)
    (tmp_path / 'columns.txt').write_text(f'{PREFIX},1\n{PREFIX}\n')
    (tmp_path / 'number.txt').write_text(f'{PREFIX},one\n')
    (tmp_path / 'empty.txt').write_text('\n')
    (tmp_path / 'v').mkdir()
    write_clip(tmp_path / 'v' / 'clip', range(3), rng)
    for folder, settings, message in (
        ('', dict(ann_file='none.txt'), r'list of sequences .*none\.txt not found: see docs/video_prediction\.md'),
        ('', dict(ann_file='columns.txt'), r"columns\.txt, line 2: 'images.*_' is not PREFIX,FIRST"),
        ('', dict(ann_file='number.txt'), r"number\.txt, line 1: '.*,one' is not PREFIX,FIRST"),
        ('', dict(ann_file='empty.txt'), r'empty\.txt is empty'),
        ('v', {}, 'no clip of 20 consecutive frames in 1 folders'),
        ('v', dict(frame_step=2), 'no clip of 39 consecutive frames in 1 folders'),
        ('none', {}, 'data folder .*none not found'),
        ('v', dict(color_type='rgb'), "color_type 'rgb' is unknown"),
        ('v', dict(interpolation='cubic'), "interpolation 'cubic' is unknown: choose from nearest, bilinear, bicubic"),
        ('v', dict(channel_order='gbr'), "channel_order 'gbr' is unknown: choose from rgb, bgr"),
        ('v', dict(frame_step=0), 'frame_step is 0: use 1 or more'),
    ):
        with pytest.raises(UserError, match=message) as raised:
            FrameFolders(tmp_path / folder, (8, 8), **settings)
        assert '\n' not in str(raised.value), message
    dataset = FrameFolders(tmp_path, (8, 8), ann_file='train.txt')
    with pytest.raises(UserError, match=r'image .*_000004\.jpg not found'):
        dataset[0]


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
