"""Batches of inputs of the same size."""

from __future__ import annotations

import numpy as np

from .backends import Backend
from .decode import Crop, Decoder
from .tasks import Result

BATCH_SIZE = 8


def run_batches(backend: Backend, decoder: Decoder, metadata: dict, crops: list[Crop], batch_size: int) -> list[Result]:
    """Outputs for each crop, in their order, without the batch axis.

    Crops of the same size are computed together. A file with a fixed batch gets repetitions of the last crop.
    """
    fixed = backend.inputs[metadata['input']['name']][0]
    size = 1 if not decoder.is_batched else fixed or batch_size
    groups: dict[tuple, list[int]] = {}
    for index, crop in enumerate(crops):
        extras = tuple((key, value.tobytes()) for key, value in crop.extras.items())
        groups.setdefault((crop.pixels.shape, extras), []).append(index)
    results: list[Result] = [{} for _ in crops]
    for indices in groups.values():
        for start in range(0, len(indices), size):
            chosen = indices[start : start + size]
            repeated = chosen + chosen[-1:] * ((fixed or 0) - len(chosen))
            outputs = backend.run(feed(metadata, [crops[index] for index in repeated]))
            for row, index in enumerate(chosen):
                results[index] = (
                    {key: values[row] for key, values in outputs.items()} if decoder.is_batched else outputs
                )
    return results


def feed(metadata: dict, crops: list[Crop]) -> dict[str, np.ndarray]:
    """The inputs of a file, by name, for crops of the same size."""
    stacked = np.stack([crop.pixels for crop in crops]).transpose(0, 3, 1, 2)
    name, dtype = metadata['input']['name'], np.dtype(metadata['input']['dtype'])
    return {name: np.ascontiguousarray(stacked, dtype), **crops[0].extras}
