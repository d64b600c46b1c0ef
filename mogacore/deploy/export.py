"""ONNX and OpenVINO files of a network, each checked against eager PyTorch when it is written."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mogacore.errors import UserError

from .fuse import fuse

PACKAGES = {'onnx': ('onnx', 'onnxscript', 'onnxruntime'), 'openvino': ('openvino',)}
SUFFIXES = {'.onnx': 'onnx', '.xml': 'openvino'}


def export(model: nn.Module, path: str | Path, images: Tensor, tolerance: float = 1e-4) -> float:
    """Write a network in eval mode, folded, and hold what the file gives against the network.

    Args:
        model: A backbone, or a classifier.
        path: ``.onnx``, or ``.xml`` for OpenVINO, whose weights go into a ``.bin`` file beside it.
        images: Example (B, C, H, W); the file takes any batch size of this C, H, W.
        tolerance: Largest difference allowed, of the largest absolute value that the network gives.

    Returns:
        The largest absolute difference.

    Raises:
        UserError: If the suffix is another, a package is missing, or the file gives something else.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise UserError(f'{path} cannot be written: choose the suffix {" or ".join(SUFFIXES)}')
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
            raise UserError(f'{path} was not written: its outputs differ by {error:.2g} from eager PyTorch')
        for file in Path(folder).iterdir():
            file.replace(path.parent / file.name)
    return error


def load_runtime(model: nn.Module, kind: str, images: Tensor) -> Callable[[Tensor], Tensor | tuple[Tensor, ...]]:
    """The network, folded, in ONNX Runtime or OpenVINO: a function of images that gives what the network gives.

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
        raise UserError(f'{kind} needs {", ".join(missing)}: run pip install {" ".join(missing)}')


def _as_tuple(out: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (out,) if isinstance(out, Tensor) else out


def _write_onnx(model: nn.Module, path: Path, images: Tensor) -> None:
    # torch.export takes a dimension of 1 for a constant.
    example = images if len(images) > 1 else images.repeat(2, 1, 1, 1)
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

    shape = [-1, *images.shape[1:]]
    network = openvino.convert_model(model, example_input=images, input=[('x', shape)])
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
