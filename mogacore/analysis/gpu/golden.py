"""Outputs of the authors' published network for weights that are filled by name, without a weight file.

golden.json contains, for some sizes, the first 100 logits of each of two images, taken from the published network;
tests/data/README.md of the repository describes them. Every tensor is filled from its key name by the same rule.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

FILE = Path(__file__).with_name('golden.json')

M = TypeVar('M', bound=nn.Module)


def value_by_name(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Values of a tensor from its key name, float32."""
    z = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    if name.endswith('num_batches_tracked'):
        z = np.zeros(shape)
    elif name.endswith('running_var'):
        z = 0.5 + np.abs(z)
    elif name.endswith(('running_mean', 'bias')):
        z = 0.1 * z
    elif name.endswith(('sigma.scale', 'sigma')):
        z = 0.5 * z
    elif 'layer_scale_' in name:
        z = 0.05 * z
    elif len(shape) == 1:
        z = 1 + 0.1 * z
    else:
        z = z / np.sqrt(np.prod(shape[1:]))
    return np.asarray(z, np.float32)


def fill_by_name(model: M) -> M:
    """Fill every tensor of a model from its own key name, in place, and return the model."""
    for name, tensor in model.state_dict().items():
        tensor.copy_(torch.from_numpy(value_by_name(name, tuple(tensor.shape))))
    return model


def golden_input(height: int, width: int) -> Tensor:
    """The (2, 3, height, width) images of the golden outputs."""
    return torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, height, width)).astype(np.float32))


def load_golden() -> dict[str, tuple[Tensor, Tensor]]:
    """Images (2, 3, H, W) and the first logits (2, 100) of the published network, by the name of its size."""
    content = json.loads(FILE.read_text())
    return {arch: (golden_input(*entry['size']), torch.tensor(entry['logits'])) for arch, entry in content.items()}
