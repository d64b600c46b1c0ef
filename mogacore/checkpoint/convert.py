"""Converts weight files of any container to plain tensors under the names of a chosen layout."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mogacore.errors import UserError
from mogacore.files import write_atomic

from .names import join_names, to_layout, weight_sets
from .safe_load import import_safetensors
from .sources import read


def convert(
    source: str | Path, target: str | Path, ema: bool | None = None, layout: str | None = None, overwrite: bool = False
) -> dict[str, str]:
    """Convert a weight file of any container to one that contains only tensors, under the chosen names.

    If the source contains raw and EMA weights, the chosen set becomes ``state_dict``. A ``.pth`` file also keeps the
    other set, in timm's ``state_dict_ema`` if it is the EMA, or in mmengine's ``ema_state_dict`` if it is the raw one,
    so that :func:`load` finds both; ``.safetensors`` keeps only the chosen set.

    Args:
        source: Any file that :func:`read` reads.
        target: File to write, see :func:`write`.
        ema: Set to choose, see :func:`load`.
        layout: Names to write, see :func:`to_layout`; None keeps those of the source.
        overwrite: Replace ``target`` if it exists.

    Returns:
        Facts that are also written as the file's metadata: ``source``, ``container``, ``set``, ``tensors``, ``kept``,
        and ``left_out``, the entries of the state dict that are not tensors.

    Raises:
        UserError: As in these functions, and if ``target`` exists.
    """
    target = Path(target)
    if target.exists() and not overwrite:
        raise UserError(f'{target} already exists: pass --force to replace it, or choose another name')
    container = read(source)
    sets = weight_sets(container).choose(ema)
    rename = (lambda weights: to_layout(weights, layout)) if layout else dict
    facts = {
        'source': str(source).rpartition('/')[2],
        'container': sets.kind,
        'tensors': str(len(sets.state_dict)),
        'set': 'only' if sets.other is None else 'ema' if sets.is_ema else 'raw',
        'kept': 'none',
        'left_out': join_names(sets.strays) or 'none',
    }
    metadata, extra = facts, {}
    meta = container.get('meta')
    if isinstance(meta, dict) and 'dataset_meta' in meta:  # the class names, which predictions need
        metadata = facts | {'dataset_meta': meta['dataset_meta']}
    if target.suffix != '.safetensors':
        if sets.other is not None and sets.is_ema:
            facts['kept'] = 'raw'
            extra['ema_state_dict'] = {f'module.{name}': value for name, value in rename(sets.other).items()}
        elif sets.other is not None:
            facts['kept'] = 'ema'
            extra['state_dict_ema'] = rename(sets.other)
    write(rename(sets.state_dict), target, metadata, extra)
    return facts


def write(
    state_dict: dict[str, Tensor], path: str | Path, metadata: dict | None = None, extra: dict | None = None
) -> None:
    """Write a weight file atomically.

    Args:
        state_dict: Weights; copied to the CPU.
        path: ``.safetensors``, or ``.pth`` / ``.pt`` for a dict with ``meta`` and ``state_dict``.
        metadata: Facts about the weights; converted to text for ``.safetensors``. There, ``dataset_meta`` is left out
            if JSON cannot express it: mmpose's, which contains arrays.
        extra: Further sets of weights for the dict of a ``.pth`` file.

    Raises:
        UserError: If the suffix is unknown, the file cannot be written, or ``extra`` is given for ``.safetensors``.
    """
    path = Path(path)
    if path.suffix not in ('.safetensors', '.pth', '.pt'):
        raise UserError(f'{path} has an unknown suffix: choose .safetensors, .pth or .pt')
    if path.suffix == '.safetensors':
        if extra:
            raise UserError(f'{path} can contain only one set of weights: choose .pth to keep more')
        texts = {key: text for key, value in (metadata or {}).items() if (text := _as_text(key, value)) is not None}
        data = import_safetensors(path).torch.save(_copied(state_dict), texts)
    else:
        buffer = io.BytesIO()
        extra = {key: _copied(weights) for key, weights in (extra or {}).items()}
        torch.save({'meta': metadata or {}, 'state_dict': _copied(state_dict), **extra}, buffer)
        data = buffer.getbuffer()
    try:
        write_atomic(path, data)
    except OSError as error:
        raise UserError(f'{path} cannot be written ({error.strerror}): choose another path') from None


def _as_text(key: str, value: Any) -> str | None:
    """Text of an entry of the metadata of a ``.safetensors`` file; None if it cannot be kept."""
    if key != 'dataset_meta':
        return str(value)
    try:
        text = json.dumps(value)
    except (TypeError, ValueError):
        return None
    return text if json.loads(text) == _with_lists(value) else None  # JSON turns keys into text


def _with_lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_lists(item) for key, item in value.items()}
    return [_with_lists(item) for item in value] if isinstance(value, (list, tuple)) else value


def _copied(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    # Each tensor is copied: safetensors refuses tensors that share memory or are not contiguous.
    return {k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in state_dict.items()}
