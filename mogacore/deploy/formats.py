"""The formats of exported files: ONNX, OpenVINO and torch.export's own."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram

from mogacore.errors import UserError
from mogacore.runtime.backends import openvino_core

from .graphs import Graph
from .metadata import KEY, OPSET, PT2_FILE

PACKAGES = {
    'onnx': ('onnx', 'onnxscript', 'onnxruntime'),
    'openvino': ('openvino', 'onnx', 'onnxscript'),
    'pt2': (),
}
SUFFIXES = {'.onnx': 'onnx', '.xml': 'openvino', '.pt2': 'pt2'}
AXES = {'batch': 0, 'height': -2, 'width': -1}

Run = Callable[..., tuple[Tensor, ...]]


def format_of(path: str | Path) -> str:
    """The format of a file by its suffix.

    Raises:
        UserError: If the suffix is unknown, or a package that the format needs is missing.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise UserError(f'{path} has an unknown suffix: use {", ".join(SUFFIXES)}')
    if path.is_dir():
        raise UserError(f'{path} is a folder: give the name of a file')
    kind = SUFFIXES[path.suffix]
    require(kind)
    return kind


def require(kind: str) -> None:
    """Raise UserError if a package that a format needs is missing."""
    missing = [package for package in PACKAGES[kind] if find_spec(package) is None]
    if missing:
        raise UserError(f'{kind} requires {", ".join(missing)}: run pip install {" ".join(missing)}')


def trace(graph: Graph, inputs: tuple[Tensor, ...], dynamic: tuple[str, ...]) -> ExportedProgram:
    """Record the operations of a graph.

    Args:
        graph: In eval mode.
        inputs: Its example, with at least two images if the batch is dynamic. Where sides are, too small ones would be
            fixed: those of which a stage of the network leaves a single pixel.
        dynamic: Names of the axes of the first input that may vary, see ``AXES``.
    """
    axes: dict[int, Any] = {}
    for name in dynamic:
        axis: Any = torch.export.Dim.DYNAMIC  # any size from the smallest that the operations of the example allow
        if name == 'batch':
            axis = torch.export.Dim('batch', min=1)
        elif graph.size_step > 1:
            axis = graph.size_step * torch.export.Dim(f'{name}_steps', min=2)
        axes[AXES[name] % inputs[0].ndim] = axis
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return torch.export.export(graph, inputs, dynamic_shapes=graph.dynamic_shapes(axes), strict=False)


def to_onnx(program: ExportedProgram, graph: Graph, dynamic: tuple[str, ...]) -> Any:
    """A program as an ONNX model of the standard operators.

    Args:
        program: From :func:`trace`.
        graph: The traced graph, for the names of inputs and outputs.
        dynamic: The axes that vary, which get their names.
    """
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        exported = torch.onnx.export(
            program,
            input_names=list(graph.input_names),
            output_names=list(graph.output_names),
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert exported is not None
    model = exported.model_proto
    for node in model.graph.node:  # they hold stack traces with the paths of this machine
        del node.metadata_props[:]
    _name_axes(model, dynamic)
    return model


def set_constants(graph: Graph, program: ExportedProgram, onnx_model: Any, constants: Mapping[str, float]) -> None:
    """Change buffers of a graph with a single value, in the graph and in what was made of it.

    Args:
        graph: The graph.
        program: From :func:`trace`.
        onnx_model: From :func:`to_onnx`, or None.
        constants: Name of a buffer to value.
    """
    for name, value in constants.items():
        graph.get_buffer(name).fill_(value)
        program.state_dict[name].fill_(value)
        if onnx_model is not None:
            stored = next(tensor for tensor in onnx_model.graph.initializer if tensor.name == name)
            stored.raw_data = np.array(value, '<f4').tobytes()


def write(kind: str, program: ExportedProgram, onnx_model: Any, path: Path, text: str) -> None:
    """Write a file.

    Args:
        kind: A value of ``SUFFIXES``.
        program: From :func:`trace`, for torch.export's format.
        onnx_model: From :func:`to_onnx`, for the others.
        path: The file; OpenVINO's weights go to a ``.bin`` file beside it.
        text: The metadata.
    """
    if kind == 'pt2':
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            torch.export.save(program, path, extra_files={PT2_FILE: text})
    elif kind == 'openvino':
        _save_openvino(onnx_model, path, text)
    else:
        import onnx

        onnx.helper.set_model_props(onnx_model, {KEY: text})
        onnx.checker.check_model(onnx_model, full_check=True)
        onnx.save(onnx_model, path)


def _name_axes(model, dynamic: tuple[str, ...]) -> None:
    """Give the symbolic sizes of the first input the names of their axes, wherever they stand."""
    dims = model.graph.input[0].type.tensor_type.shape.dim
    names = {dims[AXES[name] % len(dims)].dim_param: name for name in dynamic}
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in names:
                dim.dim_param = names[dim.dim_param]
            elif dim.dim_param:
                dim.dim_param = re.sub(r'[A-Za-z_]\w*', lambda match: names.get(match[0], match[0]), dim.dim_param)


def _save_openvino(model, path: Path, text: str) -> None:
    import onnx
    import openvino

    onnx_file = path.with_suffix('.onnx')
    del model.metadata_props[:]  # they would stand twice in the file
    onnx.save(model, onnx_file)
    network = openvino.convert_model(onnx_file)
    network.set_rt_info(text, KEY)
    openvino.save_model(network, path, compress_to_fp16=False)
    onnx_file.unlink()


def read(kind: str, path: Path, graph: Graph) -> Run:
    """Load a file.

    Returns:
        Function from the inputs of the graph to its outputs.
    """
    return READERS[kind](path, graph)


def _read_onnx(path: Path, graph: Graph) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # warnings of its optimizer are of no use to the user
    session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=['CPUExecutionProvider'])
    return lambda *inputs: _tensors(session.run(list(graph.output_names), _feed(graph, inputs)))


def _read_openvino(path: Path, graph: Graph) -> Run:
    core = openvino_core()
    settings = {'INFERENCE_PRECISION_HINT': 'f32', 'INFERENCE_NUM_THREADS': torch.get_num_threads()}
    network = core.compile_model(core.read_model(path), 'CPU', settings)

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        found = network(_feed(graph, inputs))
        return _tensors(found[name] for name in graph.output_names)

    return run


def _read_pt2(path: Path, graph: Graph) -> Run:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        module = torch.export.load(path).module()
    return lambda *inputs: tuple(module(*inputs))


def _feed(graph: Graph, inputs: tuple[Tensor, ...]) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in zip(graph.input_names, inputs, strict=True)}


def _tensors(arrays) -> tuple[Tensor, ...]:
    return tuple(torch.from_numpy(np.array(array)) for array in arrays)


READERS = {'onnx': _read_onnx, 'openvino': _read_openvino, 'pt2': _read_pt2}
