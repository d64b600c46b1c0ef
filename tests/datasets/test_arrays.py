"""Damaged and unusual .npy files."""

import io

import numpy as np
import pytest

from mogacore.datasets.arrays import LoadArray, open_array
from mogacore.datasets.sequences import load_array
from mogacore.errors import UserError


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def with_header(text):
    """An .npy file of version 1 with any header."""
    data = text.encode('latin1') + b'\n'
    return b'\x93NUMPY\x01\x00' + len(data).to_bytes(2, 'little') + data


WHOLE = npy(np.zeros((3, 4), np.uint8))
DAMAGED = {
    'empty': b'',
    'cut': WHOLE[:-1],
    'open quote': with_header("{'descr': '|u1', 'fortran_order': False, 'shape': (3, 4"),
    'nested': with_header("{'descr': '|u1', 'shape': " + '-' * 5000 + '1}'),
    'huge': with_header("{'descr': '|u1', 'fortran_order': False, 'shape': (4611686018427387904, 4)}"),
    'negative': with_header("{'descr': '|u1', 'fortran_order': False, 'shape': (-3, 4)}"),
    'objects': npy(np.array([[None]], object)),
    'zip': b'PK\x03\x04' + bytes(40),
    'pickle': b'\x80\x04.',
}


@pytest.mark.parametrize('data', DAMAGED.values(), ids=DAMAGED)
def test_damaged_files_are_reported_in_one_line(tmp_path, data):
    path = tmp_path / 'a.npy'
    path.write_bytes(data)
    for read in (lambda: LoadArray()({'img_path': str(path)}), lambda: load_array(path)):
        with pytest.raises(UserError, match=r'a\.npy is truncated or not a \.npy file \(.+\): ') as caught:
            read()
        assert '\n' not in str(caught.value)


def test_archives_are_reported(tmp_path):
    np.savez(tmp_path / 'a.npz', a=np.zeros(3))
    with pytest.raises(UserError, match='contains an archive, not a single array: save it again'):
        open_array(tmp_path / 'a.npz', 'save it again')


@pytest.mark.parametrize('shape', [(0, 4), (3, 0, 3), (3,), (1, 1, 1, 1)])
def test_arrays_that_are_no_image_are_reported(tmp_path, shape):
    np.save(tmp_path / 'a.npy', np.zeros(shape))
    with pytest.raises(UserError, match=r'has float64 of shape .*: store numbers of shape \(height, width\)'):
        LoadArray()({'img_path': str(tmp_path / 'a.npy')})


def test_images_keep_bytes_and_convert_other_numbers(tmp_path):
    for dtype, loaded in ((np.uint8, np.uint8), ('>f8', np.float32), (bool, np.float32)):
        array = np.arange(12).reshape(3, 4).astype(dtype)
        np.save(tmp_path / 'a.npy', array)
        results = LoadArray()({'img_path': str(tmp_path / 'a.npy')})
        assert results['img'].dtype == loaded and results['img_shape'] == (3, 4)
        np.testing.assert_array_equal(results['img'][..., 0], array)


def test_values_beyond_float32_are_refused(tmp_path):
    np.save(tmp_path / 'image.npy', np.array([[0.0, 1e39]]))
    with pytest.raises(UserError, match='beyond the range of float32'):
        LoadArray()(dict(img_path=str(tmp_path / 'image.npy')))
    np.save(tmp_path / 'image.npy', np.array([[np.inf, 1e38]]))
    assert LoadArray()(dict(img_path=str(tmp_path / 'image.npy')))['img'].dtype == np.float32
