import gzip
import tracemalloc

import numpy as np
import pytest
from conftest import write_idx

from mogacore.datasets import FashionMNISTFiles
from mogacore.datasets.idx import read_idx
from mogacore.errors import UserError


@pytest.fixture
def fashion_folder(tmp_path):
    """Four files in Fashion-MNIST's format, with 6 training and 4 test images; the test files are gzipped."""
    rng = np.random.default_rng(0)
    for prefix, num, suffix in (('train', 6, ''), ('t10k', 4, '.gz')):
        write_idx(tmp_path / f'{prefix}-images-idx3-ubyte{suffix}', rng.integers(0, 256, (num, 28, 28)))
        write_idx(tmp_path / f'{prefix}-labels-idx1-ubyte{suffix}', np.arange(num) % 10)
    return tmp_path


@pytest.mark.parametrize('suffix', ['', '.gz'])
@pytest.mark.parametrize('shape', [(5,), (3, 4, 6)])
def test_reading_returns_the_written_array(tmp_path, shape, suffix):
    array = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    write_idx(tmp_path / f'values-ubyte{suffix}', array)
    np.testing.assert_array_equal(read_idx(tmp_path / 'values-ubyte'), array)


def test_missing_file_is_reported(tmp_path):
    with pytest.raises(UserError, match=r'images-ubyte \(or the same with .gz\) not found'):
        read_idx(tmp_path / 'images-ubyte')


def test_file_of_another_format_is_reported(tmp_path):
    (tmp_path / 'page-ubyte').write_bytes(b'<html>not found</html>')
    with pytest.raises(UserError, match='is not an IDX file'):
        read_idx(tmp_path / 'page-ubyte')


@pytest.mark.parametrize('suffix, message', [('', 'truncated'), ('.gz', 'corrupt or truncated gzip')])
@pytest.mark.parametrize('share', [0.3, 0.9])
def test_truncated_file_is_reported(tmp_path, suffix, message, share):
    path = tmp_path / f'images-ubyte{suffix}'
    write_idx(path, np.random.default_rng(0).integers(0, 256, (5, 28, 28)))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match=message):
        read_idx(tmp_path / 'images-ubyte')


@pytest.mark.parametrize('split, num', [('train', 6), ('test', 4)])
def test_items_are_images_with_labels(fashion_folder, split, num):
    dataset = FashionMNISTFiles(fashion_folder, split)
    assert len(dataset) == num
    item = dataset[3]
    assert item['img'].shape == (28, 28) and item['img'].dtype == np.uint8
    assert item['gt_label'] == 3
    assert dataset.metainfo['classes'][9] == 'Ankle boot'


def test_different_numbers_of_images_and_labels_are_reported(fashion_folder):
    write_idx(fashion_folder / 'train-labels-idx1-ubyte', np.arange(5))
    with pytest.raises(UserError, match='6 train images but 5 labels'):
        FashionMNISTFiles(fashion_folder, 'train')


def test_unknown_split_is_reported(fashion_folder):
    with pytest.raises(UserError, match="split 'val' is unknown: choose from train, test"):
        FashionMNISTFiles(fashion_folder, 'val')


def header(*shape):
    return bytes([0, 0, 8, len(shape)]) + np.array(shape, '>u4').tobytes()


@pytest.mark.parametrize(
    'content, message',
    [
        (header()[:3] + b'\x03' + b'\0\0\1\0\0', 'truncated'),  # ends within a size
        (header(*[1] * 9) + b'a', '9 dimensions, more than 8'),
        (header(2**31, 2**31, 4) + b'', 'truncated or too long'),  # the product is 0 modulo 2**64
        (header(0, 2**31) + b'a', 'truncated or too long'),
        (header(2**31, 2**31, 0, 2**31), 'truncated or too long'),  # overflows without the 0
    ],
)
def test_impossible_headers_are_reported(tmp_path, content, message):
    (tmp_path / 'values-ubyte').write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_idx(tmp_path / 'values-ubyte')


@pytest.mark.parametrize(
    'name, shape, message',
    [
        ('labels-idx1', (), r'images of shape \(6, 28, 28\) and labels of \(\), not \(N, 28, 28\) and \(N,\)'),
        ('labels-idx1', (6, 1), r'labels of \(6, 1\)'),
        ('images-idx3', (6,), r'images of shape \(6,\)'),
        ('images-idx3', (6, 28, 27), r'images of shape \(6, 28, 27\)'),
    ],
)
def test_files_of_other_shapes_are_reported(fashion_folder, name, shape, message):
    write_idx(fashion_folder / f'train-{name}-ubyte', np.zeros(shape))
    with pytest.raises(UserError, match=message):
        FashionMNISTFiles(fashion_folder, 'train')


def test_unknown_labels_are_reported(fashion_folder):
    write_idx(fashion_folder / 'train-labels-idx1-ubyte', np.array([0, 1, 2, 10, 4, 5]))
    with pytest.raises(UserError, match='has the label 10, but Fashion-MNIST has the classes 0 to 9'):
        FashionMNISTFiles(fashion_folder, 'train')


@pytest.mark.parametrize('shape', [(1 << 31, 1 << 31, 4), (0,) * 9, (0xFFFFFFFF,)])
def test_sizes_that_do_not_fit_an_array_are_reported(shape, tmp_path):
    """The product of the first overflows 64 bits to 0, the length of the values."""
    (tmp_path / 'a').write_bytes(bytes([0, 0, 8, len(shape)]) + np.array(shape, '>u4').tobytes())
    with pytest.raises(UserError, match=r'too long for the shape|more than 8'):
        read_idx(tmp_path / 'a')


def test_a_gzip_file_is_not_expanded_beyond_its_header(tmp_path):
    write_idx(tmp_path / 'a.gz', np.zeros((2, 2)))
    content = (tmp_path / 'a.gz').read_bytes() + gzip.compress(bytes(64 << 20))
    (tmp_path / 'a.gz').write_bytes(content)
    tracemalloc.start()
    with pytest.raises(UserError, match='too long for the shape'):
        read_idx(tmp_path / 'a')
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


def test_files_without_images_are_reported(tmp_path):
    write_idx(tmp_path / 'train-images-idx3-ubyte', np.zeros((0, 28, 28)))
    write_idx(tmp_path / 'train-labels-idx1-ubyte', np.zeros(0))
    with pytest.raises(UserError, match='has no train images'):
        FashionMNISTFiles(tmp_path)
