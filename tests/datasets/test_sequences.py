"""Fixed sequences from a file, and what the data sets of sequences share."""

import numpy as np
import pytest
import torch

from mogacore.datasets import SequenceFile
from mogacore.datasets.arrays import open_image
from mogacore.datasets.sequences import add_frame_noise, load_array, starts_from_end
from mogacore.errors import UserError


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def frames_of(item):
    return torch.cat([item['inputs'], item['data_samples'].gt_frames])


@pytest.mark.parametrize('frame_axis', [0, 1])
@pytest.mark.parametrize('shape', [(20, 3, 16, 18), (20, 3, 16, 18, 3)])
def test_frame_axis_of_a_sequence_file_is_the_one_with_the_number_of_frames(shape, frame_axis, tmp_path, rng):
    sequences = rng.integers(0, 256, shape, dtype=np.uint8)
    np.save(tmp_path / 'mnist_test_seq.npy', sequences if frame_axis == 0 else sequences.swapaxes(0, 1))
    dataset = SequenceFile(tmp_path)
    assert len(dataset) == 3 and dataset.metainfo == dict(mean=0.0, std=1.0)
    for index in range(3):
        frames = frames_of(dataset[index])
        expected = sequences[:, index].reshape(20, 16, 18, -1).transpose(0, 3, 1, 2) / np.float32(255)
        np.testing.assert_allclose(frames, expected, atol=1e-7)
        assert dataset[index]['inputs'].shape[0] == 10 and dataset[index]['data_samples'].sample_idx == index


def test_shorter_sequences_are_taken_from_the_start(tmp_path, rng):
    np.save(tmp_path / 'mnist_test_seq.npy', rng.integers(0, 256, (20, 1, 8, 8), dtype=np.uint8))
    item = SequenceFile(tmp_path, num_inputs=4, num_targets=1, frame_axis=0)[0]
    np.testing.assert_array_equal(frames_of(item), frames_of(SequenceFile(tmp_path)[0])[:5])
    assert len(item['inputs']) == 4


def test_frame_axis_decides_where_both_axes_have_the_number_of_frames(tmp_path, rng):
    sequences = rng.integers(0, 256, (20, 20, 8, 8), dtype=np.uint8)
    np.save(tmp_path / 'mnist_test_seq.npy', sequences)
    for axis in (0, 1):
        frames = frames_of(SequenceFile(tmp_path, frame_axis=axis)[7])[:, 0]
        np.testing.assert_allclose(frames, sequences.take(7, 1 - axis) / np.float32(255), atol=1e-7)


def test_noise_on_fixed_sequences_is_the_same_on_every_access(tmp_path):
    np.save(tmp_path / 'mnist_test_seq.npy', np.full((20, 30, 64, 64), 200, np.uint8))
    missing, square = (SequenceFile(tmp_path, noise=noise) for noise in ('missing', 'perceptual'))
    for dataset in (missing, square):
        np.testing.assert_array_equal(dataset[3]['inputs'], dataset[3]['inputs'])
        assert (dataset[3]['data_samples'].gt_frames == 200 / 255).all()
    black = torch.stack([missing[i]['inputs'].amax((1, 2, 3)) == 0 for i in range(30)])
    assert 0.1 < black.float().mean() < 0.3
    assert ((square[0]['inputs'] == 0).sum((1, 2, 3)) == 24 * 24).all()


def test_black_squares_lie_where_the_published_loader_draws_them(rng):
    # The published loader draws row and column with randint(0, 64 - 24), whose upper bound is exclusive.
    noisy = add_frame_noise(np.ones((3000, 64, 64, 1), np.uint8), 'perceptual', rng)[..., 0]
    assert (noisy.sum((1, 2)) == 64 * 64 - 24 * 24).all()
    for axis in (1, 2):
        starts = (noisy.min(3 - axis) == 0).argmax(1)
        assert set(starts) == set(range(40))


def test_sequence_starts_match_examples_worked_by_hand():
    assert starts_from_end(10, 4, 4, lambda first, last: True) == [6, 2]
    assert starts_from_end(10, 4, 1, lambda first, last: last != 8) == [6, 4, 3, 2, 1, 0]
    assert starts_from_end(3, 4, 4, lambda first, last: True) == []


def invalid_files(folder):
    """Map the name of each error to a function that reads an invalid file and the expected message."""
    good = np.zeros((20, 2, 8, 8), np.uint8)
    np.save(folder / 'float.npy', good.astype(float))
    np.save(folder / 'short.npy', good[:15])
    np.save(folder / 'flat.npy', good[0])
    np.save(folder / 'square.npy', np.zeros((20, 20, 8, 8), np.uint8))
    np.save(folder / 'objects.npy', np.array([{}], object), allow_pickle=True)
    np.save(folder / 'whole.npy', good)
    np.save(folder / 'empty.npy', good[:, :0])
    (folder / 'cut.npy').write_bytes((folder / 'whole.npy').read_bytes()[:1000])
    (folder / 'page.npy').write_text('<html>')
    return {
        'missing': (lambda: SequenceFile(folder, 'none.npy'), r'none\.npy not found: see docs/video_prediction\.md'),
        'no sequence': (
            lambda: SequenceFile(folder, 'empty.npy'),
            r'empty\.npy has no sequences or frames \(shape \(20, 0, 8, 8\)\)',
        ),
        'cut': (lambda: SequenceFile(folder, 'cut.npy'), r'cut\.npy is truncated or not a \.npy file'),
        'page': (lambda: SequenceFile(folder, 'page.npy'), r'page\.npy is truncated or not a \.npy file'),
        'pickled': (lambda: SequenceFile(folder, 'objects.npy'), r'objects\.npy is truncated or not a \.npy file'),
        'type': (lambda: SequenceFile(folder, 'float.npy'), r'float\.npy contains float64 .*not uint8'),
        'axes': (lambda: SequenceFile(folder, 'flat.npy'), r'flat\.npy contains uint8 of shape \(2, 8, 8\)'),
        'frames': (
            lambda: SequenceFile(folder, 'short.npy'),
            r'short\.npy .* \(15, 2, 8, 8\), but num_inputs \+ num_targets is 20, and neither .*: set frame_axis',
        ),
        'few frames': (
            lambda: SequenceFile(folder, 'short.npy', frame_axis=0),
            r'short\.npy has 15 frames per sequence, but num_inputs \+ num_targets is 20',
        ),
        'longer': (lambda: SequenceFile(folder, 'whole.npy', num_targets=5), r'\+ num_targets is 15, and neither'),
        'square': (lambda: SequenceFile(folder, 'square.npy'), r'is 20, and both of its first two axes'),
        'axis': (lambda: SequenceFile(folder, 'whole.npy', frame_axis=2), 'frame_axis is 2: use 0, 1, or None'),
        'noise': (lambda: SequenceFile(folder, noise='dynamic'), "noise 'dynamic' is unknown for fixed sequences"),
    }


def test_corrupt_and_missing_files_are_reported_in_one_line(tmp_path):
    for name, (read, message) in invalid_files(tmp_path).items():
        with pytest.raises(UserError, match=message) as raised:
            read()
        assert '\n' not in str(raised.value), name


@pytest.mark.parametrize('content', [
    b'PK\x03\x04' + bytes(50),  # the start of an archive
    "(True, 3)", f"({'9' * 30},)", '(1000000000000000000, 1000000000000000000)', '(-5, 3)',
])  # fmt: skip
def test_damaged_headers_of_arrays_are_reported_in_one_line(content, tmp_path):
    path = tmp_path / 'a.npy'
    if isinstance(content, str):
        header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {content}, }}\n".encode()
        content = b'\x93NUMPY\x01\x00' + len(header).to_bytes(2, 'little') + header + bytes(50)
    path.write_bytes(content)
    for read, message in (
        (load_array, r'a\.npy is truncated or not a \.npy file'),
        (open_image, 'write it with numpy.save'),
    ):
        with pytest.raises(UserError, match=message):
            read(path)


@pytest.mark.parametrize('array, message', [
    (np.array([['a']]), 'contains <U1 of shape .* not whole numbers'), (np.zeros(3, complex), 'contains complex128'),
    (np.zeros(3), 'contains float64 of shape .* not whole numbers'),
])  # fmt: skip
def test_values_of_another_kind_are_reported(array, message, tmp_path):
    np.save(tmp_path / 'a.npy', array)
    with pytest.raises(UserError, match=message):
        load_array(tmp_path / 'a.npy', kinds='iu')
