"""Export to ONNX and OpenVINO; every file is checked against eager PyTorch."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from mogacore.checkpoint import load_into
from mogacore.engine.config import build_model, load_config
from mogacore.errors import UserError, accepting
from mogacore.locations import is_config_name
from mogacore.models import MogaNetClassifier, SimVP
from mogacore.models.factory import create_model

from .folding import fuse

PACKAGES = {'onnx': ('onnx', 'onnxscript', 'onnxruntime'), 'openvino': ('openvino',)}
SUFFIXES = {'.onnx': 'onnx', '.xml': 'openvino'}
# Outputs of heads, by class or base class. mmdet's and mmseg's heads name theirs in the signature of loss_by_feat.
HEAD_OUTPUTS = {
    'ClsHead': ('logits',),
    'HeatmapHead': ('heatmaps',),
    'InternetHead': ('heatmaps', 'root_depth', 'hand_type'),
}


class TensorOutputs(nn.Module):
    """Wraps a model of an OpenMMLab toolbox as a function from tensors to tensors.

    Args:
        model: Model that supports ``mode='tensor'``.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Outputs for normalized images (B, C, H, W) in mode 'tensor', with nested lists flattened."""
        return tuple(tree_leaves(self.model(images, None, mode='tensor')))


def output_names(model: nn.Module, images: Tensor) -> list[str]:
    """A name for each output of a network, after what it is; a number follows where there is one per pyramid level.

    Args:
        model: Network in eval mode, or :class:`TensorOutputs`.
        images: Example (B, C, H, W).

    Raises:
        UserError: If the network does not accept images of this shape.
    """
    network = model.model if isinstance(model, TensorOutputs) else model
    with accepting(type(network).__name__, images.shape[1:]), torch.no_grad():
        outputs = network(images, None, mode='tensor') if isinstance(model, TensorOutputs) else network(images)
    indices = getattr(network, 'out_indices', ())  # of a backbone
    if not isinstance(outputs, Tensor) and len(indices) == len(outputs):
        return [f'features_{index}' for index in indices]
    return _name_leaves(outputs, _kinds(network, 1 if isinstance(outputs, Tensor) else len(outputs)))


def _kinds(network: nn.Module, count: int) -> list[str]:
    """What the outputs of a network are, in order; ['output'] if unknown."""
    if isinstance(network, SimVP):
        return ['frames']
    if isinstance(network, MogaNetClassifier):
        return ['logits']
    heads = (getattr(network, name, None) for name in ('bbox_head', 'decode_head', 'head'))
    head: Any = next((head for head in heads if isinstance(head, nn.Module)), None)
    if head is None:
        return ['features'] if hasattr(network, 'backbone') else ['output']
    if hasattr(head, 'loss_by_feat'):
        parameters = list(inspect.signature(head.loss_by_feat).parameters.values())[:count]
        return [parameter.name for parameter in parameters]
    return next(
        (list(HEAD_OUTPUTS[cls.__name__]) for cls in type(head).__mro__ if cls.__name__ in HEAD_OUTPUTS), ['output']
    )


def _name_leaves(outputs: Tensor | Sequence | dict, kinds: list[str]) -> list[str]:
    """One name per tensor, in the order of ``tree_leaves``."""
    if isinstance(outputs, Tensor):
        return kinds[:1]
    if isinstance(outputs, dict):
        return [name for key, value in outputs.items() for name in _name_leaves(value, [str(key)])]
    if len(kinds) != len(outputs):
        kinds = [f'{kinds[0]}_{number}' for number in range(len(outputs))] if len(outputs) > 1 else kinds[:1]
    return [name for kind, value in zip(kinds, outputs, strict=True) for name in _name_leaves(value, [kind])]


def load_network(source: str, checkpoint: str) -> tuple[nn.Module, tuple[int, int, int]]:
    """Load a trained network in eval mode; also returns the shape (C, H, W) of its images.

    Args:
        source: Config file, or a model name for :func:`mogacore.create_model`.
        checkpoint: Weight file; it must match the network exactly.

    Raises:
        UserError: If the network is unknown or cannot be exported, or the weights do not match.
    """
    if not is_config_name(source):
        return create_model(source, checkpoint=checkpoint).eval(), (3, 224, 224)
    cfg = load_config(source)
    model = build_model(cfg)
    if hasattr(model, 'rpn_head'):
        raise UserError(f'{source} is a two-stage detector, which cannot be exported: use a single-stage detector')
    load_into(model, checkpoint, advice='')
    return TensorOutputs(model).eval(), tuple(cfg.get('input_shape', (3, 224, 224)))


def export(model: nn.Module, path: str | Path, images: Tensor, tolerance: float = 1e-4) -> float:
    """Fuse and write a network in eval mode, and compare the outputs of the file with those of the network.

    Args:
        model: Network with tensor outputs.
        path: ``.onnx``, or ``.xml`` for OpenVINO, with the weights in a ``.bin`` file in the same folder.
        images: Example (B, C, H, W); the file accepts any batch size with this C, H, W.
        tolerance: Maximum difference, relative to the largest absolute output of the network.

    Returns:
        The largest absolute difference.

    Raises:
        UserError: If the suffix is unknown, a package is missing, the network does not accept the shape, or the outputs
            differ; then no file is written.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise UserError(f'{path} has an unknown suffix: use {" or ".join(SUFFIXES)}')
    kind = SUFFIXES[path.suffix]
    _require(kind)
    model = model.eval()
    names = output_names(model, images)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        draft = Path(folder) / path.name
        WRITERS[kind](fuse(model), draft, images, names)
        outputs = READERS[kind](draft)(images)
        with torch.inference_mode():
            expected = _as_tuple(model(images))
        error = max((ours - theirs).abs().max().item() for ours, theirs in zip(outputs, expected, strict=True))
        largest = max(theirs.abs().max().item() for theirs in expected)
        if not error <= tolerance * largest:
            raise UserError(
                f'{path} was not written, since its outputs differ from eager PyTorch by {error:.2g}, more than '
                f'{tolerance * largest:.2g}: try the other format, {" or ".join(set(SUFFIXES) - {path.suffix})}'
            )
        for file in Path(folder).iterdir():
            file.replace(path.parent / file.name)
    return error


def load_runtime(model: nn.Module, kind: str, images: Tensor) -> Callable[[Tensor], Tensor | tuple[Tensor, ...]]:
    """Load a fused copy of a network into ONNX Runtime or OpenVINO.

    Args:
        model: Network with tensor outputs.
        kind: 'onnx' or 'openvino'.
        images: Example (B, C, H, W).

    Returns:
        Function from images to the outputs of the network.

    Raises:
        UserError: If a package is missing.
    """
    _require(kind)
    suffix = next(suffix for suffix, name in SUFFIXES.items() if name == kind)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f'model{suffix}'
        WRITERS[kind](fuse(model), path, images, output_names(model, images))
        run = READERS[kind](path)

    def runtime(images: Tensor) -> Tensor | tuple[Tensor, ...]:
        outputs = run(images)
        return outputs[0] if len(outputs) == 1 else outputs

    return runtime


def _require(kind: str) -> None:
    missing = [package for package in PACKAGES[kind] if find_spec(package) is None]
    if missing:
        raise UserError(f'{kind} requires {", ".join(missing)}: run pip install {" ".join(missing)}')


def _as_tuple(out: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (out,) if isinstance(out, Tensor) else out


def _write_onnx(model: nn.Module, path: Path, images: Tensor, names: list[str]) -> None:
    # torch.export treats a dimension of size 1 as constant.
    example = images if len(images) > 1 else torch.cat([images, images])
    torch.onnx.export(
        model,
        (example,),
        str(path),
        input_names=['images'],
        output_names=names,
        dynamic_shapes=({0: torch.export.Dim('batch')},),
        dynamo=True,
        external_data=False,
        verbose=False,
    )


def _write_openvino(model: nn.Module, path: Path, images: Tensor, names: list[str]) -> None:
    import openvino

    shape = openvino.PartialShape([-1, *images.shape[1:]])
    network = openvino.convert_model(model, example_input=images, input=[shape])
    for output, name in zip(network.outputs, names, strict=True):
        output.get_tensor().set_names({name})
    openvino.save_model(network, path, compress_to_fp16=False)


def _read_onnx(path: Path) -> Callable[[Tensor], tuple[Tensor, ...]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=['CPUExecutionProvider'])
    return lambda images: _tensors(session.run(None, {'images': images.numpy()}))


def _read_openvino(path: Path) -> Callable[[Tensor], tuple[Tensor, ...]]:
    import openvino

    core = openvino.Core()
    settings = {'INFERENCE_PRECISION_HINT': 'f32', 'INFERENCE_NUM_THREADS': torch.get_num_threads()}
    network = core.compile_model(core.read_model(path), 'CPU', settings)
    return lambda images: _tensors(network(images.numpy()).values())


def _tensors(arrays) -> tuple[Tensor, ...]:
    return tuple(torch.from_numpy(np.array(array)) for array in arrays)


WRITERS = {'onnx': _write_onnx, 'openvino': _write_openvino}
READERS = {'onnx': _read_onnx, 'openvino': _read_openvino}
