"""Generated sequences compared with the published rule, pixel by pixel."""

import cv2
import numpy as np
import pytest
import torch
from conftest import write_idx
from mmengine.dataset import default_collate
from torch.utils.data import DataLoader

from mogacore.datasets import MovingDigits, MovingMNIST
from mogacore.datasets.digits import glyph, load_digits
from mogacore.datasets.moving import read_cifar10
from mogacore.engine.resume import ResumableSampler, SeededDataset
from mogacore.errors import UserError


@pytest.fixture
def folder(tmp_path):
    """MNIST's two image files and CIFAR-10, with few images each."""
    rng = np.random.default_rng(5)
    for name, num in (('train', 30), ('t10k', 20)):
        write_idx(tmp_path / f'{name}-images-idx3-ubyte.gz', rng.integers(0, 256, (num, 28, 28)))
    (tmp_path / 'cifar-10-batches-bin').mkdir()
    for name in (*(f'data_batch_{i}' for i in range(1, 6)), 'test_batch'):
        content = rng.integers(0, 256, (2, 3073), dtype=np.uint8)
        content.tofile(tmp_path / 'cifar-10-batches-bin' / f'{name}.bin')
    return tmp_path


def follow_rule(rng, digits, num_frames=20, velocity_noise=0.0, num_noisy=0):
    """Section 6.1 of the published rule, pixel by pixel; frames (T, 64, 64) uint8."""
    frames = np.zeros((num_frames, 64, 64), np.uint8)
    for _ in range(2):
        x, y = rng.random(2)
        theta = rng.random() * 2 * np.pi
        digit = digits[rng.integers(len(digits))]
        bounce_x = bounce_y = 1
        for t in range(num_frames):
            noise_x, noise_y = rng.normal(0, velocity_noise, 2) if velocity_noise and t < num_noisy else (0, 0)
            x += (bounce_x * np.cos(theta) + noise_x) * 0.1
            y += (bounce_y * np.sin(theta) + noise_y) * 0.1
            if x <= 0 or x >= 1:
                x, bounce_x = float(x >= 1), -bounce_x
            if y <= 0 or y >= 1:
                y, bounce_y = float(y >= 1), -bounce_y
            column, row = int(36 * x), int(36 * y)
            assert 0 <= column <= 36 and 0 <= row <= 36
            for i in range(28):
                for j in range(28):
                    frames[t, row + i, column + j] = max(frames[t, row + i, column + j], digit[i, j])
    return frames


def all_frames(item):
    """All frames of an item, (T, C, H, W), 0..255."""
    return (torch.cat([item['inputs'], item['data_samples'].gt_frames]) * 255).round().byte().numpy()


def test_a_seeded_sequence_follows_the_rule_to_the_pixel(folder):
    dataset = MovingMNIST(folder, seed=3, num_sequences=5)
    assert len(dataset) == 5
    for index in (0, 4):
        item = dataset[index]
        assert item['inputs'].shape == item['data_samples'].gt_frames.shape == (10, 1, 64, 64)
        assert item['inputs'].dtype == torch.float32 and 0.5 < item['inputs'].max() <= 1
        expected = follow_rule(np.random.default_rng([3, index]), dataset.digits)
        np.testing.assert_array_equal(all_frames(item)[:, 0], expected)


def test_bundled_digits_are_split(folder):
    images, _, held_out = load_digits()
    for split, selected in (('train', ~held_out), ('test', held_out)):
        dataset = MovingDigits(split=split, seed=0, num_sequences=1)
        np.testing.assert_array_equal(dataset.digits, np.stack([glyph(image, 28) for image in images[selected]]))
        expected = follow_rule(np.random.default_rng([0, 0]), dataset.digits)
        np.testing.assert_array_equal(all_frames(dataset[0])[:, 0], expected)


def test_without_a_seed_every_access_gives_a_new_sequence(folder):
    dataset = MovingMNIST(folder, num_sequences=3)
    first, second = all_frames(dataset[0]), all_frames(dataset[0])
    assert (first != second).any()
    np.random.seed(7)
    one = all_frames(MovingMNIST(folder, num_sequences=3)[0])
    np.random.seed(7)
    np.testing.assert_array_equal(all_frames(MovingMNIST(folder, num_sequences=3)[0]), one)


def test_items_differ_between_epochs_but_do_not_depend_on_the_number_of_workers(folder):
    dataset = SeededDataset(dict(type='MovingMNIST', data_root=str(folder), num_sequences=4))
    seen = {}
    for num_workers in (0, 2):
        sampler = ResumableSampler(dict(type='DefaultSampler', shuffle=True), dataset, seed=0)
        loader = DataLoader(dataset, sampler=sampler, num_workers=num_workers, collate_fn=default_collate)
        seen[num_workers] = []
        for epoch in range(2):
            sampler.set_epoch(epoch)
            seen[num_workers] += [batch['inputs'].numpy().tobytes() for batch in loader]
    assert seen[0] == seen[2] and len(set(seen[0])) == 8


def test_dynamic_noise_affects_only_the_input_frames(folder):
    dataset = MovingMNIST(folder, seed=1, noise='dynamic')
    expected = follow_rule(np.random.default_rng([1, 2]), dataset.digits, velocity_noise=0.2, num_noisy=10)
    np.testing.assert_array_equal(all_frames(dataset[2])[:, 0], expected)


def test_input_frames_are_missing_with_probability_one_fifth(folder):
    dataset, clean = (MovingMNIST(folder, seed=1, noise=noise) for noise in ('missing', None))
    black = []
    for index in range(60):
        noisy, expected = all_frames(dataset[index]), all_frames(clean[index])
        is_black = ~noisy.any((1, 2, 3))
        black.append(is_black[:10])
        np.testing.assert_array_equal(noisy[~is_black], expected[~is_black])
        assert not is_black[10:].any()
    assert 0.14 < np.mean(black) < 0.26


def test_perceptual_noise_puts_a_black_square_on_each_input_frame(folder):
    dataset, clean = (MovingMNIST(folder, seed=1, noise=noise) for noise in ('perceptual', None))
    noisy, expected = all_frames(dataset[0])[:, 0], all_frames(clean[0])[:, 0]
    np.testing.assert_array_equal(noisy[10:], expected[10:])
    positions = set()
    for ours, theirs in zip(noisy[:10], expected[:10], strict=True):
        rows, columns = np.nonzero(ours != theirs)
        if len(rows):
            assert np.ptp(rows) < 24 and np.ptp(columns) < 24 and not ours[ours != theirs].any()
            positions.add((rows.min(), columns.min()))
    assert len(positions) > 2


def test_digits_on_a_background_image_are_white(folder):
    images = read_cifar10(folder / 'cifar-10-batches-bin')
    assert images.shape == (12, 32, 32, 3)
    first = np.fromfile(folder / 'cifar-10-batches-bin' / 'data_batch_1.bin', np.uint8)[1:3073]
    np.testing.assert_array_equal(images[0, :, :, 2], first[2048:].reshape(32, 32))
    dataset = MovingMNIST(folder, seed=2, backgrounds='cifar-10-batches-bin')
    rng = np.random.default_rng([2, 0])
    digits = follow_rule(rng, dataset.digits)
    background = cv2.resize(images[rng.integers(12)], (64, 64), interpolation=cv2.INTER_CUBIC)
    frames = all_frames(dataset[0])
    assert frames.shape == (20, 3, 64, 64)
    for frame, digit in zip(frames, digits, strict=True):
        expected = np.where(digit[..., None] > 1, 255, background).transpose(2, 0, 1)
        np.testing.assert_array_equal(frame, expected)


@pytest.mark.parametrize(
    'settings, message',
    [
        (dict(images='none'), r'IDX file .*none \(or the same with \.gz\) not found'),
        (dict(images='labels'), r'labels contains an array of shape \(4,\), not square images'),
        (dict(images='cut.gz'), r'cut\.gz is a corrupt or truncated gzip file'),
        (dict(noise='static'), "noise 'static' is unknown: choose from dynamic, missing, perceptual"),
        (dict(num_sequences=0), 'num_sequences is 0'),
        (dict(num_inputs=0), 'num_inputs is 0'),
        (dict(backgrounds='none'), r'none/data_batch_1\.bin of .* not found'),
        (dict(backgrounds='cut'), r'cut/data_batch_1\.bin is truncated: 100 bytes'),
    ],
)
def test_user_errors_are_reported_in_one_line(settings, message, folder):
    write_idx(folder / 'labels', np.arange(4))
    (folder / 'cut.gz').write_bytes((folder / 'train-images-idx3-ubyte.gz').read_bytes()[:500])
    (folder / 'cut').mkdir()
    (folder / 'cut' / 'data_batch_1.bin').write_bytes(bytes(100))
    with pytest.raises(UserError, match=message) as raised:
        MovingMNIST(folder, **settings)
    assert '\n' not in str(raised.value)


def test_unknown_split_is_reported():
    with pytest.raises(UserError, match="split 'val' is unknown: choose from train, test"):
        MovingDigits(split='val')
