"""State dicts, models and payloads shared by the tests of weight files."""

import os
from collections import OrderedDict

import numpy as np
import torch
from conftest import ROOT
from torch import nn

NAMES = (
    'patch_embed1.projection.0.weight',
    'patch_embed2.projection.weight',
    'patch_embed2.norm.weight',
    'blocks1.0.attn.sigma.scale',
    'norm4.running_mean',
    'head.weight',
    'head.bias',
)


def weights(fill, names=NAMES):
    return OrderedDict((name, torch.full((2, 3), float(fill))) for name in names)


def value(state_dict):
    """The single number that fills a state dict."""
    numbers = {number for tensor in state_dict.values() for number in tensor.flatten().tolist()}
    assert len(numbers) == 1
    return numbers.pop()


def prefixed(state_dict, prefix):
    return OrderedDict((prefix + name, tensor) for name, tensor in state_dict.items())


def golden_shapes(name):
    """Published names and shapes of a model size, from the golden file."""
    (path,) = (ROOT / 'tests' / 'data').glob(f'moganet_{name}_*.npz')
    entries = (str(entry).split(' ', 1) for entry in np.load(path)['keys'])
    return {key: tuple(int(n) for n in shape.strip('()').split(',') if n.strip()) for key, shape in entries}


class Node(nn.Module):
    """A model with arbitrary names and shapes; it computes nothing."""

    def __init__(self, shapes):
        super().__init__()
        for name, shape in shapes.items():
            *parents, leaf = name.split('.')
            node = self
            for parent in parents:
                if parent not in node._modules:
                    node.add_module(parent, Node({}))
                node = node._modules[parent]
            node.register_buffer(leaf, torch.zeros(shape))


def model_of(names=NAMES, **shapes):
    return Node({name: (2, 3) for name in names} | shapes)


class Payload:
    """Unpickling this runs a command."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch {self.path}',)
