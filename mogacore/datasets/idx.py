"""Image data sets in MNIST's IDX format, such as Fashion-MNIST, read from four local files."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import ClassVar

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS

from mogacore.errors import UserError

FASHION_MNIST_CLASSES = (
    'T-shirt/top',
    'Trouser',
    'Pullover',
    'Dress',
    'Coat',
    'Sandal',
    'Shirt',
    'Sneaker',
    'Bag',
    'Ankle boot',
)
IMAGE_SHAPE = (28, 28)
MAX_BYTES = 4 << 30  # of the values of a file
MAX_DIMS = 8  # above all IDX files; numpy has a limit, too


def read_idx(path: str | Path) -> np.ndarray:
    """Read an IDX file of unsigned bytes, plain or gzipped.

    Args:
        path: The file; if it does not exist, the same name with ``.gz`` is tried.

    Returns:
        uint8 array with the shape given in the header: (N, H, W) for images, (N,) for labels.

    Raises:
        UserError: If neither file exists, or the file is not a complete IDX file of unsigned bytes.

    Source: the format description on the MNIST page: two zero bytes, type 0x08, number of dimensions, each size as
        a big-endian 32-bit integer, then the values in C order.
    """
    path = Path(path)
    if not path.is_file():
        path = path.with_name(path.name + '.gz')
    if not path.is_file():
        raise UserError(f'IDX file {path.with_suffix("")} (or the same with .gz) not found: see docs/data.md')
    with path.open('rb') as file:
        is_zipped = file.read(2) == b'\x1f\x8b'
    with gzip.open(path) if is_zipped else path.open('rb') as file:
        try:
            start = file.read(4)
            if len(start) < 4 or start[:3] != b'\x00\x00\x08':
                raise UserError(f'{path} is not an IDX file of unsigned bytes: use one of the four original files')
            if start[3] > MAX_DIMS:
                raise UserError(f'{path} has {start[3]} dimensions, more than {MAX_DIMS}: use an original file')
            header = file.read(4 * start[3])
            shape = tuple(np.frombuffer(header[: len(header) // 4 * 4], '>u4').tolist())
            length = math.prod(shape)
            if math.prod(size or 1 for size in shape) > MAX_BYTES:  # numpy multiplies the sizes without zeros, too
                raise UserError(
                    f'{path} is truncated or too long for the shape {shape} in its header, which is larger than '
                    f'{MAX_BYTES:,} bytes: copy it again'
                )
            content = file.read(length + 1)  # not all of it, since a small gzip file may expand to any size
        except (EOFError, OSError, zlib.error):
            raise UserError(f'{path} is a corrupt or truncated gzip file: copy it again') from None
    if len(shape) != start[3] or len(content) != length:
        raise UserError(f'{path} is truncated or too long for the shape {shape} in its header: copy it again')
    return np.frombuffer(content, np.uint8).reshape(shape)


@DATASETS.register_module()
class FashionMNISTFiles(BaseDataset):
    """Fashion-MNIST (Xiao et al., arXiv 1708.07747) from its four IDX files, gzipped or not.

    Each item has ``img``, (28, 28) uint8, and ``gt_label``, 0..9, before the pipeline runs.

    Args:
        data_root: Folder with ``{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]``.
        split: 'train' (60,000 images) or 'test' (10,000 images).
        **kwargs: Passed to mmengine's BaseDataset, e.g. ``pipeline`` or ``indices``.

    Raises:
        UserError: If a file is missing or corrupt, or shapes, numbers or labels are not those of Fashion-MNIST.
    """

    METAINFO: ClassVar = dict(classes=FASHION_MNIST_CLASSES)
    FILE_PREFIX: ClassVar = dict(train='train', test='t10k')

    def __init__(self, data_root: str, split: str = 'train', **kwargs):
        if split not in self.FILE_PREFIX:
            raise UserError(f'split {split!r} is unknown: choose from {", ".join(self.FILE_PREFIX)}')
        self.split = split
        super().__init__(data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        prefix = Path(self.data_root) / self.FILE_PREFIX[self.split]
        images, labels = read_idx(f'{prefix}-images-idx3-ubyte'), read_idx(f'{prefix}-labels-idx1-ubyte')
        if images.shape[1:] != IMAGE_SHAPE or labels.ndim != 1:
            raise UserError(
                f'{self.data_root} has {self.split} images of shape {images.shape} and labels of {labels.shape}, not '
                f'(N, {IMAGE_SHAPE[0]}, {IMAGE_SHAPE[1]}) and (N,): use the original files'
            )
        if not len(images):
            raise UserError(f'{self.data_root} has no {self.split} images: copy the files again')
        if len(images) != len(labels):
            raise UserError(
                f'{self.data_root} has {len(images)} {self.split} images but {len(labels)} labels: copy the files again'
            )
        if labels.max(initial=0) >= len(FASHION_MNIST_CLASSES):
            raise UserError(
                f'{self.data_root} has the label {labels.max()}, but Fashion-MNIST has the classes 0 to '
                f'{len(FASHION_MNIST_CLASSES) - 1}: use the original files'
            )
        return [dict(img=image, gt_label=int(label)) for image, label in zip(images, labels, strict=True)]
