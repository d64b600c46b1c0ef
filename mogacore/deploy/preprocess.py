"""The test pipeline of a config as steps that a runtime without the task libraries applies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mogacore.engine.config import leaves
from mogacore.errors import UserError
from mogacore.text import type_name

BACKENDS = ('cv2', 'pillow')


def pipeline_of(cfg: Mapping[str, Any]) -> list[dict]:
    """Steps of the test pipeline of a config; none if it has no test data."""
    dataset = next(leaves(cfg.get('test_dataloader')), None)
    return list((dataset or {}).get('pipeline') or ())


def steps_of(pipeline: list[dict]) -> list[dict]:
    """Translate a test pipeline to the steps of the metadata.

    Args:
        pipeline: Configs of transforms of mmcv, mmpretrain, mmdet, mmseg or mmpose.

    Returns:
        Dicts with ``step`` and its settings; sizes are (h, w).

    Raises:
        UserError: If a transform has no equivalent.
    """
    return list(_translate(pipeline))


def _translate(pipeline: list[dict]) -> Iterator[dict]:
    padding = 1.25
    for transform in pipeline:
        kind = type_name(transform['type'])
        if kind.startswith(('Load', 'Pack')) or kind.endswith('LoadAnnotations'):
            continue
        if kind == 'GetBBoxCenterScale':
            padding = float(transform.get('padding', 1.25))
        elif kind == 'TopdownAffine':
            size, udp = _height_width(transform['input_size']), bool(transform.get('use_udp', False))
            yield {'step': 'warp', 'size': size, 'padding': padding, 'udp': udp}
        elif kind in TRANSLATIONS:
            yield TRANSLATIONS[kind](transform)
        else:
            raise _unknown(kind, 'has no equivalent')


def _resize(transform: dict) -> dict:
    scale = transform.get('scale')
    if scale is None or transform.get('scale_factor'):
        raise _unknown('Resize', 'has no fixed scale')
    return _resizing(transform, 'fit' if transform.get('keep_ratio', False) else 'exact', _height_width(scale))


def _resize_edge(transform: dict) -> dict:
    if transform.get('edge', 'short') != 'short':
        raise _unknown(f'ResizeEdge of the {transform["edge"]} edge', 'has no equivalent')
    return _resizing(transform, 'short_edge', int(transform['scale']))


def _resize_to_multiple(transform: dict) -> dict:
    return _resizing(transform, 'multiple', int(transform.get('size_divisor', 32)))


def _resizing(transform: dict, mode: str, size: int | list[int]) -> dict:
    backend = transform.get('backend', 'cv2')
    if backend not in BACKENDS:
        raise _unknown(f'{transform["type"]} with backend {backend!r}', 'has no equivalent')
    interpolation = transform.get('interpolation') or 'bilinear'
    return {'step': 'resize', 'mode': mode, 'size': size, 'interpolation': interpolation, 'backend': backend}


def _center_crop(transform: dict) -> dict:
    if transform.get('auto_pad', False):
        raise _unknown('CenterCrop with auto_pad', 'has no equivalent')
    return {'step': 'center_crop', 'size': _height_width(transform['crop_size'])}


def _pad(transform: dict) -> dict:
    if transform.get('size') is None:
        raise _unknown('Pad without a size', 'has no equivalent')
    if transform.get('padding_mode', 'constant') != 'constant':
        raise _unknown(f'Pad with padding_mode {transform["padding_mode"]!r}', 'has no equivalent')
    value = transform.get('pad_val', 0)
    value = value.get('img', 0) if isinstance(value, Mapping) else value
    values = [value] * 3 if isinstance(value, (int, float)) else list(value)[::-1]  # of BGR images
    return {'step': 'pad', 'size': _height_width(transform['size']), 'value': values}


def _height_width(size: int | list[int] | tuple[int, int]) -> list[int]:
    """(h, w) of a size that the libraries give as one number or (w, h)."""
    return [size, size] if isinstance(size, int) else [int(size[1]), int(size[0])]


def _unknown(what: str, problem: str) -> UserError:
    return UserError(
        f'{what} in the test pipeline {problem} outside the task library, so the file could not say how to prepare '
        f'images: use {", ".join([*TRANSLATIONS, "TopdownAffine"])} in test_dataloader.dataset.pipeline'
    )


TRANSLATIONS = {
    'Resize': _resize,
    'ResizeEdge': _resize_edge,
    'ResizeToMultiple': _resize_to_multiple,
    'CenterCrop': _center_crop,
    'Pad': _pad,
}
