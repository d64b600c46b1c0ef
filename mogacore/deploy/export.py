"""Export to ONNX and OpenVINO; every file is checked against eager PyTorch."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from mogacore.checkpoint import load_into
from mogacore.engine.config import build_model, load_config
from mogacore.errors import UserError
from mogacore.locations import is_config_name
from mogacore.models.factory import create_model

from .fuse import fuse

PACKAGES = {'onnx': ('onnx', 'onnxscript', 'onnxruntime'), 'openvino': ('openvino',)}
SUFFIXES = {'.onnx': 'onnx', '.xml': 'openvino'}


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
        return tuple(tree_leaves(self.model(images, mode='tensor')))


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
        UserError: If the suffix is unknown, a package is missing, or the outputs differ; then no file is written.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise UserError(f'{path} has an unknown suffix: use {" or ".join(SUFFIXES)}')
    kind = SUFFIXES[path.suffix]
    _require(kind)
    model = model.eval()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        draft = Path(folder) / path.name
        WRITERS[kind](fuse(model), draft, images)
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
        WRITERS[kind](fuse(model), path, images)
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


def _write_onnx(model: nn.Module, path: Path, images: Tensor) -> None:
    # torch.export treats a dimension of size 1 as constant.
    example = images if len(images) > 1 else torch.cat([images, images])
    torch.onnx.export(
        model,
        (example,),
        str(path),
        input_names=['images'],
        dynamic_shapes=({0: torch.export.Dim('batch')},),
        dynamo=True,
        external_data=False,
        verbose=False,
    )


def _write_openvino(model: nn.Module, path: Path, images: Tensor) -> None:
    import openvino

    shape = openvino.PartialShape([-1, *images.shape[1:]])
    network = openvino.convert_model(model, example_input=images, input=[shape])
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
