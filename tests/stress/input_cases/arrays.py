"""IDX, npy, npz and netCDF files: the data sets that read them, and the checks before training."""

from __future__ import annotations

import gzip
import io
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import own_data_makers as own_data
from conftest import write_idx, write_netcdf

from mogacore.datasets import FashionMNISTFiles, KittiCaltech, MovingMNIST, TaxiBJ, WeatherBench
from mogacore.datasets.checks import check_dataset
from mogacore.datasets.idx import read_idx
from mogacore.errors import UserError

from .annotations import cli_statistics
from .core import case

# IDX

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (5, 28, 28), np.uint8)
LABELS = np.array([0, 9, 3, 3, 1], np.uint8)
IMAGE_FILE, LABEL_FILE = 't10k-images-idx3-ubyte', 't10k-labels-idx1-ubyte'
Change = Callable[[Path], object]


def idx(name: str, refused: str | None = None, quick: bool = False):
    """Declare a case that changes a folder with the two files of a split; what is read equals the arrays."""

    def add(change: Change) -> None:
        def run(root: Path) -> None:
            write_idx(root / IMAGE_FILE, IMAGES)
            write_idx(root / LABEL_FILE, LABELS)
            change(root)
            dataset = FashionMNISTFiles(str(root), 'test')
            np.testing.assert_array_equal(np.stack([item['img'] for item in dataset]), IMAGES)
            assert [item['gt_label'] for item in dataset] == LABELS.tolist()

        case('IDX', name, refused, quick)(run)

    return add


def header(*shape: int, kind: int = 8) -> bytes:
    return bytes([0, 0, kind, len(shape)]) + np.array(shape, '>u4').tobytes()


def images(data: bytes) -> Change:
    return lambda root: (root / IMAGE_FILE).write_bytes(data)


def zipped(data: bytes) -> Change:
    """The images as a gzip file alone."""

    def change(root: Path) -> None:
        (root / IMAGE_FILE).unlink()
        (root / f'{IMAGE_FILE}.gz').write_bytes(data)

    return change


WHOLE = header(5, 28, 28) + IMAGES.tobytes()
CUT = r'images-idx3-ubyte(\.gz)? is truncated or too long for the shape'
NO_IDX = r'images-idx3-ubyte is not an IDX file of unsigned bytes'
NO_GZIP = r'is a corrupt or truncated gzip file'
for name, change, refused in (
    ('plain', lambda root: None, None),
    ('gzip', zipped(gzip.compress(WHOLE)), None),
    ('gzip without the suffix', images(gzip.compress(WHOLE)), None),
    ('gzip in two parts', zipped(gzip.compress(WHOLE[:900]) + gzip.compress(WHOLE[900:])), None),
    ('gzip, truncated', zipped(gzip.compress(WHOLE)[:-30]), NO_GZIP),
    ('gzip, damaged', zipped(gzip.compress(WHOLE)[:300] + b'xxxx' + gzip.compress(WHOLE)[304:]), NO_GZIP),
    ('a suffix of gzip without compression', zipped(WHOLE), None),
    ('empty', images(b''), NO_IDX),
    ('a header only', images(header(5, 28, 28)), CUT),
    ('truncated', images(WHOLE[:-1]), CUT),
    ('a byte too long', images(WHOLE + b'\0'), CUT),
    ('truncated header', images(WHOLE[:9]), CUT),
    ('text', images(b'5 images'), NO_IDX),
    ('floats', images(header(5, 28, 28, kind=0x0D) + bytes(5 * 28 * 28 * 4)), NO_IDX),
    ('255 dimensions', images(bytes([0, 0, 8, 255]) + bytes(4 * 255)), '255 dimensions, more than 8'),
    ('a product of sizes that overflows', images(header(1 << 31, 1 << 31, 4)), 'larger than'),
    ('a size of 4 billion', images(header(0xFFFFFFFF, 28, 28) + bytes(100)), 'larger than'),
    ('no images', lambda root: (write_idx(root / IMAGE_FILE, IMAGES[:0]), write_idx(root / LABEL_FILE, LABELS[:0])),
     'has no test images'),
    ('fewer labels', lambda root: write_idx(root / LABEL_FILE, LABELS[:4]), 'has 5 test images but 4 labels'),
    ('images and labels swapped', lambda root: [
        write_idx(root / IMAGE_FILE, LABELS), write_idx(root / LABEL_FILE, IMAGES)], 'not .N, 28, 28. and .N,.'),
    ('labels for images', lambda root: write_idx(root / IMAGE_FILE, LABELS), 'not .N, 28, 28. and .N,.'),
    ('images for labels', lambda root: write_idx(root / LABEL_FILE, IMAGES), 'not .N, 28, 28. and .N,.'),
    ('labels up to 255', lambda root: write_idx(root / LABEL_FILE, np.array([0, 255, 3, 3, 1])),
     'has the label 255, but Fashion-MNIST has the classes 0 to 9'),
    ('a folder', lambda root: [(root / IMAGE_FILE).unlink(), (root / IMAGE_FILE).mkdir()], 'not found'),
    ('a FIFO', lambda root: [(root / IMAGE_FILE).unlink(), os.mkfifo(root / IMAGE_FILE)], 'not found'),
    ('missing', lambda root: (root / IMAGE_FILE).unlink(), 'not found: see docs/data.md'),
    ('a gzip file of 8 GiB of zeros', lambda root: zipped(bomb())(root), CUT),
    ('a gzip file that states 8 GiB', lambda root: zipped(bomb(header(1 << 13, 1 << 20)))(root), 'larger than'),
):  # fmt: skip
    idx(name, refused, quick=name in ('truncated', 'a product of sizes that overflows', 'images for labels'))(change)


def bomb(start: bytes = WHOLE) -> bytes:
    """A gzip file that begins with an IDX file and continues with 8 GiB of zeros, in parts of 64 MiB."""
    part = gzip.compress(bytes(64 << 20))
    return gzip.compress(start) + part * 128


@case('IDX', 'images larger than the frames of Moving MNIST', 'not square images of at most 64 px')
def _(root):
    write_idx(root / 'train-images-idx3-ubyte', np.zeros((3, 65, 65)))
    MovingMNIST(str(root))


@case('IDX', 'no images for Moving MNIST', 'has no images')
def _(root):
    write_idx(root / 'train-images-idx3-ubyte', np.zeros((0, 28, 28)))
    MovingMNIST(str(root))[0]


@case('IDX', 'Moving MNIST')
def _(root):
    write_idx(root / 'train-images-idx3-ubyte', IMAGES)
    frames = MovingMNIST(str(root), seed=0, num_sequences=2)[1]['inputs']
    assert frames.shape == (10, 1, 64, 64) and 0.9 < frames.max() <= 1


@case('IDX', 'through the check before training', CUT)
def _(root):
    images(WHOLE[:-1])(root)
    write_idx(root / LABEL_FILE, LABELS)
    check_dataset(dict(type='MovingMNIST', data_root=str(root), images=IMAGE_FILE))


@case('IDX', 'read alone')
def _(root):
    write_idx(root / 'a', IMAGES[:, :0])
    assert read_idx(root / 'a').shape == (5, 0, 28)


# Sequences in npy files

FRAMES = RNG.integers(0, 256, (6, 3, 16, 16), np.uint8)


def sequences(name: str, refused: str | None = None, quick: bool = False):
    """Declare a case that writes the array of a video predictor, which is trained and tested."""

    def add(write: Callable[[Path], object]) -> None:
        def run(root: Path) -> None:
            project = own_data.sequences(root)
            write(project.data / 'frames.npy')
            config, _, _ = project.write_config()
            try:
                project.call('train')
            except UserError as error:
                problems = cli_statistics(config)['splits']['train']['problems']
                assert problems, f'stats reports no problem, but training: {error}'
                raise
            found = project.call('test')['video/copy_last_mse']
            scaled = FRAMES.astype(float) / 255
            np.testing.assert_allclose(found, ((scaled[4:] - scaled[3]) ** 2).sum((2, 3)).mean(), rtol=1e-4)

        case('npy', name, refused, quick)(run)

    return add


def saved(array: np.ndarray, **settings) -> Callable[[Path], object]:
    return lambda path: np.save(path, array, **settings)


def with_header(text: str, version: bytes = b'\x01\x00') -> Callable[[Path], object]:
    data = text.encode()
    return lambda path: path.write_bytes(b'\x93NUMPY' + version + struct.pack('<H', len(data)) + data + bytes(200))


def descr(shape: str, kind: str = "'|u1'") -> Callable[[Path], object]:
    return with_header(f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}\n")


class Trap:
    """An object that makes the file "ran" when it is unpickled."""

    def __reduce__(self):
        return (os.mkdir, ('ran',))


def pickled(path: Path) -> None:
    """A run that unpickles it would create a folder, which fails since it exists: the error shows."""
    np.save(path, np.array([Trap()], object), allow_pickle=True)


NO_NPY = r'frames\.npy is truncated or not a \.npy file'
NO_UINT8 = r'frames\.npy contains .* of shape .*, not (uint8|numbers)'
for name, write, refused in (
    ('uint8', saved(FRAMES), None),
    ('columns first', saved(np.asfortranarray(FRAMES)), None),
    ('sequences first', saved(FRAMES.swapaxes(0, 1)), None),
    ('with a channel', saved(FRAMES[..., None]), None),
    ('empty', lambda path: path.write_bytes(b''), NO_NPY),
    ('text', lambda path: path.write_text('0 1 2'), NO_NPY),
    ('truncated', lambda path: [np.save(path, FRAMES), path.write_bytes(path.read_bytes()[:-100])], NO_NPY),
    ('truncated header', lambda path: [np.save(path, FRAMES), path.write_bytes(path.read_bytes()[:20])], NO_NPY),
    ('objects', pickled, NO_NPY),
    ('a pickle', lambda path: path.write_bytes(b'\x80\x04\x95' + bytes(50)), NO_NPY),
    ('a truncated npz file', lambda path: path.write_bytes(b'PK\x03\x04' + bytes(50)), NO_NPY),
    ('an npz file', lambda path: path.write_bytes(npz(a=FRAMES)), 'contains an archive'),
    ('version 9', lambda path: path.write_bytes(b'\x93NUMPY\x09\x00' + bytes(50)), NO_NPY),
    ('a size of 30 digits', descr(f'({"9" * 30},)'), NO_NPY),
    ('sizes whose product overflows', descr('(1000000000000000000, 1000000000000000000)'), NO_NPY),
    ('a terabyte', descr('(1000000, 1000, 1000, 1)'), NO_NPY),
    ('a negative size', descr('(-6, 3, 16, 16)'), NO_NPY),
    ('a size of True', descr('(True, 3, 16, 16)'), NO_NPY),
    ('a type that does not exist', descr('(6, 3, 16, 16)', "'<f99'"), NO_NPY),
    ('a header of code', with_header('__import__("os").mkdir("ran")\n'), NO_NPY),
    ('a nested header', with_header('(' * 3000 + ')' * 3000), NO_NPY),
    ('floats of 0 to 1', saved(FRAMES / 255), NO_UINT8),
    ('float16', saved((FRAMES / 255).astype(np.float16)), NO_UINT8),
    ('NaN', saved(np.full(FRAMES.shape, np.nan)), NO_UINT8),
    ('signed', saved(FRAMES.astype(np.int8)), NO_UINT8),
    ('bool', saved(FRAMES > 127), NO_UINT8),
    ('16 bits', saved(FRAMES.astype(np.uint16)), NO_UINT8),
    ('texts', saved(np.array([['a']])), NO_UINT8),
    ('records', saved(np.zeros((6, 3, 16, 16), [('a', 'u1')])), NO_UINT8),
    ('a single number', saved(np.uint8(1)), NO_UINT8),
    ('three dimensions', saved(FRAMES[:, 0]), NO_UINT8),
    ('six dimensions', saved(FRAMES[None, ..., None]), NO_UINT8),
    ('no sequences', saved(FRAMES[:, :0]), 'has no sequences'),
    ('frames of no height', saved(FRAMES[:, :, :0]), r'are 0 x 16 px'),
    ('frames of no channel', saved(np.zeros((6, 3, 16, 16, 0), np.uint8)), 'has 0 channels'),
    ('two channels', saved(np.stack([FRAMES] * 2, -1)), 'has 2 channels'),
    ('values of 0 and 1', saved(FRAMES // 128), 'uint8 with values up to 1'),
    ('odd size', saved(FRAMES[..., :15]), 'the network needs multiples of 2'),
    ('a folder', lambda path: [path.unlink(), path.mkdir()], 'not found'),
    ('a FIFO', lambda path: [path.unlink(), os.mkfifo(path)], 'not found'),
    ('missing', lambda path: path.unlink(), 'not found'),
):  # fmt: skip
    sequences(name, refused, quick=name in ('objects', 'sizes whose product overflows', 'a truncated npz file'))(write)


@case('npy', 'objects are not unpickled', NO_NPY)
def _(root):
    project = own_data.sequences(root)
    pickled(project.data / 'frames.npy')
    try:
        project.call('train')
    finally:
        assert not list(root.rglob('ran'))


# Archives


def npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def taxi_arrays(**changes) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    arrays = {f'{part}_{split}': rng.uniform(-1, 1, (3, 4, 2, 8, 8)).astype(np.float32)
              for part in 'XY' for split in ('train', 'test')}  # fmt: skip
    return {name: array for name, array in (arrays | changes).items() if array is not None}


def taxi(name: str, get: Callable[[], bytes], refused: str | None = None, quick: bool = False) -> None:
    """Declare a case of the file of TaxiBJ, which is checked as before training."""

    def run(root: Path) -> None:
        (root / 'dataset.npz').write_bytes(get())
        config = dict(type='TaxiBJ', data_root=str(root), split='train')
        check_dataset(config)
        item = TaxiBJ(str(root))[2]
        expected = (taxi_arrays()['X_train'][2].astype(np.float64) + 1) / 2
        np.testing.assert_allclose(item['inputs'].numpy(), expected, atol=1e-3)
        assert not (root / 'ran').exists()

    case('npz', name, refused, quick)(run)


def changed(index: tuple, value: float) -> np.ndarray:
    array = taxi_arrays()['X_train']
    array[index] = value
    return array


def zip_bomb() -> bytes:
    """An archive of a few hundred kilobytes whose first array states and holds 256 MiB of zeros."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in taxi_arrays(X_train=np.zeros((1 << 17, 4, 2, 8, 8), np.float32)).items():
            archive.writestr(f'{name}.npy', npy_of(array))
    return buffer.getvalue()


NO_NPZ = r'dataset\.npz is truncated or not a \.npz file'
for name, get, refused in (
    ('float32', lambda: npz(**taxi_arrays()), None),
    ('float64', lambda: npz(**{key: array.astype(float) for key, array in taxi_arrays().items()}), None),
    ('float16', lambda: npz(**{key: array.astype(np.float16) for key, array in taxi_arrays().items()}), None),
    ('big-endian', lambda: npz(**{key: array.astype('>f4') for key, array in taxi_arrays().items()}), None),
    ('further arrays', lambda: npz(**taxi_arrays(other=np.zeros(3))), None),
    ('empty', lambda: b'', NO_NPZ),
    ('text', lambda: b'no archive', NO_NPZ),
    ('truncated', lambda: npz(**taxi_arrays())[:-500], NO_NPZ),
    ('damaged', lambda: npz(**taxi_arrays())[:900] + b'xxxx' + npz(**taxi_arrays())[904:], NO_NPZ),
    ('an npy file', lambda: npy_of(taxi_arrays()['X_train']), NO_NPZ),
    ('no array of targets', lambda: npz(**taxi_arrays(Y_train=None)), 'has no array Y_train'),
    ('objects', lambda: npz(**taxi_arrays(X_train=np.array([Trap()], object))), NO_NPZ),
    ('texts', lambda: npz(**taxi_arrays(X_train=np.array(['a', 'b', 'c']))), 'array X_train contains <U1'),
    ('complex', lambda: npz(**taxi_arrays(X_train=taxi_arrays()['X_train'].astype(complex))), 'complex|' + NO_NPZ),
    ('NaN', lambda: npz(**taxi_arrays(X_train=changed((2, 1), np.nan))), 'has values that are not finite'),
    ('infinity', lambda: npz(**taxi_arrays(X_train=changed((2, 1), np.inf))), 'has values that are not finite'),
    ('in persons', lambda: npz(**taxi_arrays(X_train=changed((0, 0), 1000))), 'in network scale, which must be 0 to 1'),
    ('other shapes', lambda: npz(**taxi_arrays(Y_train=np.zeros((2, 4, 2, 8, 8)))), 'do not match'),
    ('three dimensions', lambda: npz(**taxi_arrays(X_train=np.zeros((3, 4, 2)))), 'do not match'),
    ('a single number for targets', lambda: npz(**taxi_arrays(Y_train=np.float32(1))), 'do not match'),
    ('too short', lambda: npz(**taxi_arrays(X_train=np.zeros((3, 2, 2, 8, 8)))), r'has 2 \+ 4 frames'),
    ('no sequences', lambda: npz(**taxi_arrays(
        X_train=np.zeros((0, 4, 2, 8, 8)), Y_train=np.zeros((0, 4, 2, 8, 8)))), 'has no sequences'),
    ('no height', lambda: npz(**taxi_arrays(
        X_train=np.zeros((3, 4, 2, 0, 8)), Y_train=np.zeros((3, 4, 2, 0, 8)))), 'of 0 x 8|are 0 x 8'),
):  # fmt: skip
    taxi(name, get, refused, quick=name in ('objects', 'NaN'))


@case('npz', 'more zeros than the limit, in a small file', r'dataset\.npz: array X_train has [\d,]+ bytes, more than')
def _(root):
    (root / 'dataset.npz').write_bytes(zip_bomb())
    with mock.patch('mogacore.datasets.taxibj.MAX_BYTES', 128 << 20):
        TaxiBJ(str(root))


def npy_of(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def kitti(name: str, change: Callable[[dict], object], refused: str | None = None) -> None:
    """Declare a case of the two arrays of KITTI."""

    def run(root: Path) -> None:
        arrays: dict = dict(data=np.random.default_rng(0).random((14, 8, 8, 3), np.float32), idx=np.arange(3))
        change(arrays)
        for key, array in arrays.items():
            np.save(root / f'train_{key}.npy', array)
        check_dataset(dict(type='KittiCaltech', data_root=str(root), split='train'))
        item = KittiCaltech(str(root))[2]
        np.testing.assert_allclose(item['inputs'][0, 0].numpy(), arrays['data'][2, ..., 0], atol=1e-3)

    case('npy of KITTI', name, refused)(run)


for name, update, refused in (
    ('floats of 0 to 1', {}, None),
    ('float16', {'data': np.random.default_rng(0).random((14, 8, 8, 3)).astype(np.float16)}, None),
    ('floats up to 255', {'data': np.full((14, 8, 8, 3), 255.0)}, 'in network scale, which must be 0 to 1'),
    ('NaN', {'data': np.full((14, 8, 8, 3), np.nan)}, 'has values that are not finite'),
    ('signed 8 bits', {'data': np.full((14, 8, 8, 3), -3, np.int8)}, 'in network scale|int8'),
    ('texts', {'data': np.full((14, 8, 8, 3), 'a')}, 'contains <U1'),
    ('complex', {'data': np.full((14, 8, 8, 3), 1j)}, 'contains complex128'),
    ('times', {'data': np.zeros((14, 8, 8, 3), 'M8[s]')}, 'contains datetime64'),
    ('no height', {'data': np.zeros((14, 0, 8, 3))}, 'are 0 x 8'),
    ('three dimensions', {'data': np.zeros((14, 8, 8))}, 'not an array of 4 dimensions'),
    ('a start beyond the end', {'idx': np.array([0, 99])}, 'too few for sequences of 11'),
    ('a negative start', {'idx': np.array([-1, 2])}, 'too few for sequences of 11'),
    ('starts as fractions', {'idx': np.array([0.0, 1.5, 2.0])}, 'idx.npy contains float64'),
    ('starts as texts', {'idx': np.array(['0', '1'])}, 'idx.npy contains <U1'),
    ('starts that are NaN', {'idx': np.array([np.nan, 1])}, 'idx.npy contains float64'),
    ('no starts', {'idx': np.array([], int)}, 'has no train sequence of 11 frames'),
):
    kitti(name, lambda arrays, update=update: arrays.update(update), refused)


# netCDF


def weather(name: str, change: Callable[[Path], object], refused: str | None = None) -> None:
    """Declare a case of the files of two years of WeatherBench."""

    def run(root: Path) -> None:
        rng = np.random.default_rng(0)
        for year in (2010, 2011):
            write_netcdf(root / f't2m/t2m_{year}_5deg.nc', 't2m', rng.normal(280, 10, (40, 4, 8)).astype(np.float32))
        change(root / 't2m/t2m_2010_5deg.nc')
        dataset = WeatherBench(str(root), ['t2m'], years=(2010, 2011), train_years=None)
        inputs = dataset[0]['inputs']
        assert inputs.shape == (12, 1, 4, 8) and np.isfinite(inputs).all()

    case('netCDF', name, refused)(run)


def field(array: np.ndarray) -> Callable[[Path], object]:
    return lambda path: write_netcdf(path, 't2m', array.astype(np.float32))


for name, change, refused in (
    ('valid', lambda path: None, None),
    ('empty', lambda path: path.write_bytes(b''), r'2010_5deg\.nc (is truncated|requires the package netCDF4)'),
    ('truncated', lambda path: path.write_bytes(path.read_bytes()[:-900]), 'is truncated or not readable by scipy'),
    ('NaN', field(np.full((40, 4, 8), np.nan)), 'not finite'),
    ('constant', lambda path: [field(np.ones((40, 4, 8)))(path.with_name(f't2m_{year}_5deg.nc'))
                               for year in (2010, 2011)], 'is constant'),
    ('another grid', field(np.ones((40, 8, 8))), 'have different grids'),
    ('no hours', field(np.ones((0, 4, 8))), r'2010_5deg\.nc|has \d+ fields'),
    ('a FIFO', lambda path: [path.unlink(), os.mkfifo(path)], 'not found'),
):  # fmt: skip
    weather(name, change, refused)
