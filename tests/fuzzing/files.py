"""Targets that read files of bytes: weight files, IDX and numpy files.

The first byte of an input chooses what its rest is, see each target.
"""

from __future__ import annotations

import argparse
import gzip
import io
import tempfile
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
import torch
from fuzzing.harness import Target, check_message, damaged
from mmengine.logging import HistoryBuffer, MMLogger
from torch import nn

from mogacore import checkpoint as ckpt
from mogacore.checkpoint.names import to_layout
from mogacore.datasets.arrays import LoadArray
from mogacore.datasets.idx import FashionMNISTFiles
from mogacore.datasets.sequences import SequenceFile
from mogacore.datasets.taxibj import TaxiBJ
from mogacore.errors import UserError


@cache
def folder() -> Path:
    """A folder for the files, which is removed at the end of the process."""
    made = tempfile.TemporaryDirectory(prefix='fuzz')
    folder.keep = made
    return Path(made.name)


def small_model() -> nn.Module:
    """A model whose weights take few bytes."""
    return nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))


def training_state() -> dict:
    """What a training of the small model saves."""
    torch.manual_seed(0)
    model = small_model()
    weights = list(model.parameters())
    slots = {
        number: {'step': torch.tensor(1.0), 'exp_avg': weight.detach().clone(), 'exp_avg_sq': weight.detach().clone()}
        for number, weight in enumerate(weights)
    }
    group = {'params': list(range(len(weights))), 'lr': 0.1, 'betas': (0.9, 0.999), 'foreach': None}
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    return {
        'meta': {
            'epoch': 1, 'iter': 2, 'seed': 3, 'dataset_meta': {'classes': ('a', 'b'), 'palette': [[1, 2, 3]] * 2},
            'position': {'batch_in_epoch': 0, 'batch_size': 2, 'world_size': 1},
        },
        'state_dict': model.state_dict(),
        'optimizer': {'state': slots, 'param_groups': [group]},
        'param_schedulers': [{'last_step': 2, 'base_values': [0.1], '_last_value': [0.1], 'param_name': 'lr'}],
        'message_hub': {
            'log_scalars': {'train/loss': history}, 'runtime_info': {'best_score': np.float64(1), 'keep_ckpt_ids': [1]},
            'resumed_keys': {'epoch': True},
        },
        'ema_state_dict': {f'module.{k}': v for k, v in model.state_dict().items()} | {'steps': torch.tensor(1)},
    }  # fmt: skip


def saved(content: object, **settings) -> bytes:
    """Bytes of torch.save."""
    buffer = io.BytesIO()
    torch.save(content, buffer, **settings)
    return buffer.getvalue()


def members(data: bytes) -> dict[str, bytes]:
    """The files of a zip archive by name."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@cache
def packed() -> dict[str, bytes]:
    """The files in a training state of torch.save."""
    return members(saved(training_state()))


def with_pickle(data: bytes) -> bytes:
    """A file of torch.save with another pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w') as archive:
        for name, content in packed().items():
            archive.writestr(name, data if name.endswith('data.pkl') else content)
    return buffer.getvalue()


def pickle_of(content: object) -> bytes:
    """The pickle in a file of torch.save; its tensors must not have more storages than the training state."""
    return next(value for name, value in members(saved(content)).items() if name.endswith('data.pkl'))


# First byte of an input: a file as it is; the same, mapped into memory; the pickle in a file; a .safetensors file.
PLAIN, MAPPED, PICKLE, SAFETENSORS = range(4)


def read_checkpoint(data: bytes) -> str:
    """Read a weight file as `mogacore convert`, `mogacore test` and a resumed run do."""
    kind = data[0] % 4 if data else PLAIN
    path = folder() / ('weights.safetensors' if kind == SAFETENSORS else 'weights.pth')
    path.write_bytes(with_pickle(data[1:]) if kind == PICKLE else data[1:])
    container = ckpt.read(path, mmap=kind == MAPPED)
    outcomes = [
        _reads(lambda: ckpt.load_into(small_model(), container)),
        _reads(lambda: ckpt.check_resume_parts(container, path)),
        _reads(lambda: to_layout(ckpt.load(container), 'published')),
    ]
    if outcomes[0] == 'accepted':
        ckpt.convert(path, folder() / 'converted.pth', overwrite=True)
    return 'accepted' if 'accepted' in outcomes else 'refused'


def _reads(function) -> str:
    try:
        function()
    except UserError as error:
        check_message(str(error))
        return 'refused'
    return 'accepted'


def checkpoint_target() -> Target:
    """Weight files."""
    import safetensors.torch

    MMLogger.get_instance('fuzz', log_level='ERROR')
    state = training_state()
    weights = state['state_dict']
    timm = {'state_dict': weights, 'state_dict_ema': dict(weights), 'args': argparse.Namespace(lr=0.1), 'epoch': 3}
    shared = weights['0.weight']
    odd = {'module.' + key: value for key, value in weights.items()} | {'module.1.tied': shared}
    pickles = [
        pickle_of(state), pickle_of(weights), pickle_of(timm), pickle_of({'model': odd}),
        pickle_of({'a': np.arange(4), 'b': np.float32(1), 'c': [(1, 'text', b'bytes', None, True, 2**70)]}),
    ]  # fmt: skip
    valid = [
        bytes([PLAIN]) + saved(state),
        bytes([MAPPED]) + saved(weights),
        bytes([PLAIN]) + saved(timm, _use_new_zipfile_serialization=False),
        *(bytes([PICKLE]) + data for data in pickles),
        bytes([SAFETENSORS]) + safetensors.torch.save(weights, {'format': 'pt'}),
    ]
    return Target(damaged(valid), read_checkpoint, valid, is_bytes=True)


# First byte of an input: images; labels; both with 2 added, gzipped.
IMAGES, LABELS = range(2)


def idx(array: np.ndarray) -> bytes:
    """Bytes of an IDX file."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, '>u4').tobytes() + array.astype(np.uint8).tobytes()


def read_idx_files(data: bytes) -> str:
    """Read a test set of Fashion-MNIST, of which one file is the input."""
    kind = data[0] % 4 if data else 0
    images, labels = idx(np.arange(2 * 28 * 28).reshape(2, 28, 28) % 256), idx(np.arange(2))
    if kind % 2 == IMAGES:
        images = data[1:]
    else:
        labels = data[1:]
    root = folder() / f'idx{kind // 2}'
    root.mkdir(exist_ok=True)
    suffix = '.gz' if kind >= 2 else ''
    (root / f't10k-images-idx3-ubyte{suffix}').write_bytes(images)
    (root / f't10k-labels-idx1-ubyte{suffix}').write_bytes(labels)
    dataset = FashionMNISTFiles(str(root), 'test')
    for index in range(len(dataset)):
        item = dataset[index]
        assert item['img'].shape == (28, 28) and item['img'].dtype == np.uint8 and 0 <= item['gt_label'] < 10, item
    return 'accepted'


def idx_target() -> Target:
    """IDX files, plain and gzipped."""
    images, labels = idx(np.zeros((2, 28, 28))), idx(np.array([3, 9]))
    valid = [
        bytes([IMAGES]) + images, bytes([LABELS]) + labels,
        bytes([IMAGES + 2]) + gzip.compress(images), bytes([LABELS + 2]) + gzip.compress(labels),
        bytes([LABELS + 2]) + labels,
    ]  # fmt: skip
    return Target(damaged(valid), read_idx_files, valid, is_bytes=True)


# First byte of an input: an image; a set of sequences; the archive of TaxiBJ.
IMAGE, SEQUENCES, ARCHIVE = range(3)


def npy(array: np.ndarray, version=(1, 0)) -> bytes:
    """Bytes of an .npy file."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version)
    return buffer.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    """Bytes of an .npz file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def read_arrays(data: bytes) -> str:
    """Read an array as an image, as sequences, or as the archive of TaxiBJ."""
    kind = data[0] % 3 if data else IMAGE
    if kind == IMAGE:
        path = folder() / 'image.npy'
        path.write_bytes(data[1:])
        image = LoadArray()({'img_path': str(path)})['img']
        assert image.ndim == 3 and image.size and image.dtype in (np.uint8, np.float32), image.shape
    elif kind == SEQUENCES:
        (folder() / 'mnist_test_seq.npy').write_bytes(data[1:])
        _read_items(SequenceFile(str(folder()), num_inputs=2, num_targets=1))
    else:
        (folder() / 'taxi').mkdir(exist_ok=True)
        (folder() / 'taxi' / 'dataset.npz').write_bytes(data[1:])
        _read_items(TaxiBJ(str(folder() / 'taxi'), 'train', 1, 1))
    return 'accepted'


def _read_items(dataset) -> None:
    for index in range(min(len(dataset), 4)):
        dataset[index]


def npy_target() -> Target:
    """Numpy files."""
    frames = np.zeros((2, 1, 2, 4, 4), np.float32)
    valid = [
        bytes([IMAGE]) + npy(np.zeros((4, 5, 3), np.uint8)), bytes([IMAGE]) + npy(np.ones((4, 5), '>f8'), (2, 0)),
        bytes([IMAGE]) + npy(np.ones((4, 5), bool).T, (3, 0)),
        bytes([SEQUENCES]) + npy(np.zeros((3, 2, 4, 4), np.uint8)),
        bytes([ARCHIVE]) + npz(X_train=frames, Y_train=frames),
    ]  # fmt: skip
    return Target(damaged(valid), read_arrays, valid, is_bytes=True)
