"""Files of the predictions of a test, in which nothing is rounded: JSON lines, one per sample of the test set.

The first line describes the file; the others are in the order of the test set::

    {"format": "mogacore predictions 1", "task": "detection", "num_samples": 2, "classes": [...], "metrics": {...}, ...}
    {"image": "val/1.png", "image_id": 1, "boxes": [[...]], "scores": [...], "labels": [...], "masks": [...]}

A sample has the arrays of its task, see :mod:`mogacore.runtime.tasks`, in pixels of the image:

- classification and multi-label: ``probabilities``, one per class;
- detection: ``boxes`` (x1, y1, x2, y2), ``scores``, ``labels``, and ``masks`` in COCO's compressed run-length encoding;
- segmentation: ``class_map``, a PNG file in base64;
- pose: ``boxes``, ``keypoints``, ``scores`` of the keypoints, one object per line.

``image`` is null for data sets without files. Detection and pose also have ``image_id``, pose ``id``, as in COCO's
annotations. A file whose name ends in ``.gz`` is compressed.
"""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mogacore import coco_eval
from mogacore.errors import UserError
from mogacore.files import plain, write_atomic
from mogacore.runtime.tasks import Result

FORMAT = 'mogacore predictions 1'
# Task -> its arrays with their number of dimensions; masks are optional.
ARRAYS: dict[str, dict[str, int]] = {
    'classification': {'probabilities': 1},
    'multi-label': {'probabilities': 1},
    'detection': {'boxes': 2, 'scores': 1, 'labels': 1},
    'segmentation': {'class_map': 2},
    'pose': {'boxes': 2, 'keypoints': 3, 'scores': 2},
}


def encode(names: Mapping[str, Any], result: Result) -> str:
    """The line of a sample.

    Args:
        names: ``image`` and the ids of the sample.
        result: Its arrays.
    """
    record: dict[str, Any] = {
        name: plain(value) if hasattr(value, 'tolist') else value for name, value in names.items()
    }
    for name, array in result.items():
        if name == 'masks':
            record[name] = [_encode_mask(mask) for mask in array]
        elif name == 'class_map':
            record[name] = base64.b64encode(_encode_png(array)).decode()
        elif array.dtype == np.float32:  # the shortest text that gives the same number
            record[name] = array.astype(str).astype(float).tolist()
        else:
            record[name] = array.tolist()
    return json.dumps(record, separators=(',', ':'))


def _encode_png(class_map: np.ndarray) -> bytes:
    dtype: type = np.uint8 if class_map.max(initial=0) < 256 else np.uint16
    return cv2.imencode('.png', class_map.astype(dtype))[1].tobytes()


def coco_masks() -> Any:
    """The module ``pycocotools.mask``, or mogacore's replacement of it.

    Raises:
        UserError: If neither pycocotools nor faster-coco-eval is installed.
    """
    coco_eval.register()
    try:
        return import_module('pycocotools.mask')
    except ModuleNotFoundError:
        raise UserError('masks need a package that encodes them: run "pip install faster-coco-eval"') from None


def _encode_mask(mask: np.ndarray) -> dict:
    encoded = coco_masks().encode(np.asfortranarray(mask, np.uint8))
    return {'size': list(encoded['size']), 'counts': encoded['counts'].decode()}


def write_prediction_file(path: str | Path, header: Mapping[str, Any], lines: list[str]) -> None:
    """Write a file atomically.

    Args:
        path: File to write.
        header: Further fields of the first line.
        lines: Of :func:`encode`.
    """
    first = json.dumps({'format': FORMAT, **header, 'num_samples': len(lines)}, default=plain)
    content = '\n'.join([first, *lines, '']).encode()
    write_atomic(path, gzip.compress(content, 6, mtime=0) if str(path).endswith('.gz') else content)


class PredictionFile:
    """The predictions of a test.

    Args:
        path: File written by ``mogacore test --save-predictions``.

    Attributes:
        header: Fields of the first line.
        task: Name of the task.
        lines: Text of each sample, checked for completeness only.

    Raises:
        UserError: If the file cannot be read, is not such a file, is cut off, or has no predictions.
    """

    def __init__(self, path: str | Path):
        self.path = path
        try:
            content = Path(path).read_bytes()
            text = (gzip.decompress(content) if content[:2] == b'\x1f\x8b' else content).decode()
        except (EOFError, zlib.error, gzip.BadGzipFile):
            raise UserError(f'predictions {path} are cut off or damaged: {ADVICE}') from None
        except OSError as error:
            raise UserError(f'predictions {path} cannot be read ({error.strerror}): {ADVICE}') from None
        except UnicodeDecodeError:
            raise self._unknown() from None
        first, *self.lines = text.split('\n')
        try:
            self.header: dict = json.loads(first)
            is_known = self.header['format'] == FORMAT and self.header['task'] in ARRAYS
            number = int(self.header['num_samples'])
        except (KeyError, OverflowError, RecursionError, TypeError, ValueError):
            raise self._unknown() from None
        if not is_known:
            raise self._unknown()
        self.task: str = self.header['task']
        if len(self.lines) != number + 1 or self.lines.pop():
            raise UserError(f'predictions {path} are cut off, {number} samples are expected: {ADVICE}')
        if not number:
            raise UserError(f'predictions {path} hold no sample: {ADVICE}')

    def _unknown(self) -> UserError:
        return UserError(f'{self.path} is not a file of predictions of this version: {ADVICE}')

    def __len__(self) -> int:
        return len(self.lines)

    def __iter__(self) -> Iterator[tuple[dict, Result]]:
        """The names and the arrays of each sample; floating-point arrays are float32, as models return them.

        Raises:
            UserError: If a line is malformed, or a value is not finite.
        """
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, index: int) -> tuple[dict, Result]:
        """The names and the arrays of a sample, see :meth:`__iter__`."""
        try:
            return self._decode(json.loads(self.lines[index]))
        except UserError:
            raise
        except (AttributeError, KeyError, OverflowError, RuntimeError, TypeError, ValueError, cv2.error) as error:
            reason = f'{type(error).__name__}: {" ".join(str(error).split())}'
            raise UserError(f'line {index + 2} of predictions {self.path} is malformed ({reason}): {ADVICE}') from None

    def _decode(self, record: dict) -> tuple[dict, Result]:
        result: Result = {}
        for name, ndim in ARRAYS[self.task].items():
            value = record.pop(name)
            if name == 'class_map':
                array = cv2.imdecode(np.frombuffer(base64.b64decode(value), np.uint8), cv2.IMREAD_UNCHANGED)
            elif name == 'labels':
                array = np.array(value, np.int64)
            else:
                array = np.array(value, np.float32)
            if array is None or (array.ndim != ndim and array.size):
                raise ValueError(f'{name} has another shape')
            if not np.isfinite(array).all():
                raise ValueError(f'{name} is not finite')
            result[name] = array if array.size else array.reshape([0] + [4] * (ndim - 1))
        if 'masks' in record:
            decode = coco_masks().decode
            masks = [decode(dict(mask, counts=mask['counts'].encode())) for mask in record.pop('masks')]
            result['masks'] = np.array(masks, bool) if masks else np.zeros((0, 1, 1), bool)
        _check_shapes(self.task, result)
        return record, result


def _check_shapes(task: str, result: Result) -> None:
    lengths = {len(result[name]) for name in ('boxes', 'scores', 'labels', 'keypoints', 'masks') if name in result}
    if len(lengths) > 1:
        raise ValueError('the arrays have different lengths')
    if 'boxes' in result and result['boxes'].shape[1] != 4:
        raise ValueError('boxes have no four coordinates')
    if task == 'pose' and len(result['boxes']) and result['scores'].shape != result['keypoints'].shape[:2]:
        raise ValueError('scores and keypoints have different lengths')


ADVICE = 'run the test again with --save-predictions'
