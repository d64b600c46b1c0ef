"""TaxiBJ on files in the original format."""

import numpy as np
import pytest

from mogacore.datasets import TaxiBJ
from mogacore.datasets.checks import check_dataset
from mogacore.errors import UserError


@pytest.fixture
def rng():
    return np.random.default_rng(0)


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


def test_corrupt_and_missing_files_are_reported_in_one_line(tmp_path, rng):
    for name in ('none', 'cut', 'bits', 'lacks', 'shape', 'short'):
        (tmp_path / name).mkdir()
    write_taxi(tmp_path / 'cut' / 'dataset.npz', rng)
    whole = (tmp_path / 'cut' / 'dataset.npz').read_bytes()
    (tmp_path / 'cut' / 'dataset.npz').write_bytes(whole[: len(whole) // 2])
    # A file in the archive whose compressed bytes are damaged.
    np.savez_compressed(tmp_path / 'bits' / 'dataset.npz', X_train=np.zeros((1, 4, 2, 8, 8)), Y_train=np.zeros(1))
    bits = bytearray((tmp_path / 'bits' / 'dataset.npz').read_bytes())
    bits[60:70] = bytes(range(200, 210))
    (tmp_path / 'bits' / 'dataset.npz').write_bytes(bits)
    write_taxi(tmp_path / 'lacks' / 'dataset.npz', rng, Y_train=None)
    write_taxi(tmp_path / 'shape' / 'dataset.npz', rng, Y_train=np.zeros((2, 4, 2, 32, 32)))
    write_taxi(tmp_path / 'short' / 'dataset.npz', rng)
    for folder, settings, message in (
        ('none', {}, r'none/dataset\.npz not found'),
        ('cut', {}, r'dataset\.npz is truncated or not a \.npz file'),
        ('bits', {}, r'dataset\.npz is truncated or not a \.npz file \(Error -3'),
        ('lacks', {}, r'dataset\.npz has no array Y_train'),
        ('shape', {}, r'X_train \(3, .* and Y_train \(2, .* do not match'),
        ('short', dict(num_targets=5), r'has 4 \+ 4 frames .* not 4 \+ 5'),
        ('short', dict(split='val'), "split 'val' is unknown"),
    ):
        with pytest.raises(UserError, match=message) as raised:
            TaxiBJ(tmp_path / folder, **settings)
        assert '\n' not in str(raised.value), message


def test_arrays_that_are_no_numbers_or_too_large_are_reported(tmp_path, rng, monkeypatch):
    write_taxi(tmp_path / 'dataset.npz', rng, X_train=np.full((3, 4, 2, 8, 8), 1j))
    with pytest.raises(UserError, match=r'dataset\.npz: array X_train contains complex128, not numbers'):
        TaxiBJ(tmp_path)
    monkeypatch.setattr('mogacore.datasets.taxibj.MAX_BYTES', 1000)
    write_taxi(tmp_path / 'dataset.npz', rng)
    with pytest.raises(UserError, match=r'dataset\.npz: array X_train has [\d,]+ bytes, more than 1,000'):
        TaxiBJ(tmp_path)


def test_a_single_number_in_place_of_an_array_is_reported(tmp_path, rng):
    write_taxi(tmp_path / 'dataset.npz', rng, Y_train=np.float32(1))
    with pytest.raises(UserError, match=r'Y_train \(\) do not match'):
        TaxiBJ(tmp_path)


def test_frames_without_pixels_are_refused_by_the_check(tmp_path, rng):
    import mogacore.registry  # noqa: F401, registers the data set

    empty = np.zeros((3, 4, 2, 0, 8), np.float32)
    write_taxi(tmp_path / 'dataset.npz', rng, X_train=empty, Y_train=empty)
    with pytest.raises(UserError, match=r'are 0 x 8 px'):
        check_dataset(dict(type='TaxiBJ', data_root=str(tmp_path)))
