"""Smaller and faster files: weights in fp16, or int8 arithmetic, from an exported fp32 file.

* fp16 stores the weights of convolutions and linear layers in half precision. The runtime converts them back when it
  loads the file, so all arithmetic, the decisions of a detector included, stays in fp32.
* int8 quantizes the same layers by the quantizer of the backend, except those after which decisions are made: class
  logits, box deltas, heatmaps. Their inputs, and everything else, stay in fp32.
"""

from __future__ import annotations

import itertools
import logging
import platform
import tempfile
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from mogacore.errors import UserError
from mogacore.files import atomic_path

LAYERS = ('Conv', 'ConvTranspose', 'Gemm', 'MatMul')
QUANTIZED = ('Conv', 'Gemm', 'MatMul')
# Operators that decide from the values of an input, with the numbers of these inputs.
DECISIONS = {'TopK': (0,), 'NonMaxSuppression': (0, 1), 'RoiAlign': (1,), 'ArgMax': (0,), 'NonZero': (0,)}
LARGEST_HALF = 65504.0
NEEDED = {'onnx': ('onnx', 'onnxruntime'), 'openvino': ('nncf', 'openvino')}
