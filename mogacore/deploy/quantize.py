"""Smaller and faster files: weights in fp16, or arithmetic in int8, made from an exported file in fp32.

* fp16 stores the weights of convolutions and linear layers in half precision. A runtime converts them when it loads
  the file and computes in fp32, so a detector decides as with the fp32 file.
* int8 quantizes the same layers with the quantizer of the backend, except the last ones: those whose outputs are
  logits, box deltas or heatmaps. Everything else stays in fp32.
"""

from __future__ import annotations

import json
import logging
import platform
import tempfile
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from mogacore.errors import UserError
from mogacore.files import copy_atomic, copy_contents
from mogacore.runtime.backends import openvino_core

from .metadata import KEY

PRECISIONS = ('fp32', 'fp16', 'int8')
SUFFIXES = {'.onnx': ('onnx', 'onnxruntime'), '.xml': ('openvino', 'nncf')}  # and the packages that int8 needs
# Types of operators in ONNX and in OpenVINO.
LAYERS = (
    *('Conv', 'ConvTranspose', 'Gemm', 'MatMul'),
    *('Convolution', 'GroupConvolution', 'ConvolutionBackpropData', 'GroupConvolutionBackpropData'),
)
QUANTIZED = ('Conv', 'Gemm', 'MatMul')  # in ONNX
# Operators that decide, with the inputs they decide from; None for all.
DECISIONS = {'TopK': (0,), 'NonZero': None, 'NonMaxSuppression': None, 'RoiAlign': (1,), 'ROIAlign': (1,)}
LARGEST_HALF = 65504.0
VNNI = ('avx512_vnni', 'avx_vnni', 'asimddp')  # flags of x86 and Arm CPUs with 8-bit dot products


def check_precision(path: str | Path, precision: str) -> None:
    """Refuse a precision that a file cannot have.

    Raises:
        UserError: With what to do instead.
    """
    if precision == 'bf16':
        raise UserError(
            'bf16 is not stored in a file: export fp32 or fp16, and use Predictor(PATH, backend="openvino", '
            'precision="bf16"); ONNX Runtime does not compute in bf16 on a CPU'
        )
    if precision not in PRECISIONS:
        raise UserError(f'precision {precision!r} is unknown: choose from {", ".join(PRECISIONS)}')
    suffix = Path(path).suffix
    if precision != 'fp32' and suffix not in SUFFIXES:
        raise UserError(f'{path} cannot be written in {precision}: use {" or ".join(SUFFIXES)}, or fp32')
    missing = [name for name in SUFFIXES.get(suffix, ()) if precision == 'int8' and find_spec(name) is None]
    if missing:
        raise UserError(f'int8 for {suffix} requires {", ".join(missing)}: run pip install {" ".join(missing)}')


def has_int8_instructions(cpuinfo: str | Path = '/proc/cpuinfo') -> bool:
    """Whether this CPU has instructions for 8-bit dot products; without them, int8 is slow, and 8-bit weights saturate.

    Args:
        cpuinfo: Linux's description of the CPU; other systems are judged by their architecture.
    """
    try:
        words = set(Path(cpuinfo).read_text(errors='replace').split())
    except OSError:
        return platform.machine().lower() in ('arm64', 'aarch64')
    return not words.isdisjoint(VNNI)


def convert(
    source: str | Path,
    path: str | Path,
    precision: str,
    feeds: Iterable[Mapping[str, np.ndarray]] = (),
    reduce_range: bool | None = None,
) -> None:
    """Write a file of another precision.

    Args:
        source: Exported file in fp32, ``.onnx`` or ``.xml``.
        path: File to write, with the same suffix.
        precision: 'fp16' or 'int8'.
        feeds: For int8: examples of the inputs, to find the range of each map.
        reduce_range: For int8 in ONNX: weights of 7 bits, which CPUs without 8-bit dot products need. None to decide by
            this machine.

    Raises:
        UserError: See :func:`check_precision`; or if there are no examples.
    """
    source, path = Path(source), Path(path)
    check_precision(path, precision)
    examples = [dict(feed) for feed in feeds]
    if precision == 'int8' and not examples:
        raise UserError('int8 needs images to find the range of each map: give a folder of at least one')
    facts: dict[str, Any] = {'precision': precision}
    if path.suffix == '.onnx':
        if precision == 'int8':
            facts['reduce_range'] = not has_int8_instructions() if reduce_range is None else reduce_range
        _convert_onnx(source, path, examples, facts)
    else:
        _convert_openvino(source, path, examples, facts)


def _convert_onnx(source: Path, path: Path, examples: list[dict], facts: dict) -> None:
    import onnx

    with tempfile.TemporaryDirectory(prefix='mogacore-quantize-') as folder:
        folded = Path(folder) / 'folded.onnx'
        _fold_constants(source, folded)
        if facts['precision'] == 'int8':
            model = _quantize(folded, Path(folder) / 'int8.onnx', examples, facts['reduce_range'])
        else:
            model = onnx.load(folded)
            _halve(model)
        original = onnx.load(source, load_external_data=False)
        properties = {item.key: item.value for item in original.metadata_props}
        if KEY in properties:
            properties[KEY] = _updated(properties[KEY], facts)
        onnx.helper.set_model_props(model, properties)
        del model.opset_import[:]  # ONNX Runtime lists its own operators, too, which are not used
        model.opset_import.extend(original.opset_import)
        onnx.checker.check_model(model)
        onnx.save(model, Path(folder) / path.name)
        copy_atomic({Path(folder) / path.name: path})


def _updated(text: str, facts: dict) -> str:
    return json.dumps({**json.loads(text), **facts})


def _fold_constants(source: Path, path: Path) -> None:
    """Compute what depends on constants only, such as scaled weights; the operators stay standard ones."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(source), options, providers=['CPUExecutionProvider'])


def _halve(model: Any) -> None:
    """Store the weights of the layers in fp16, each followed by a conversion to fp32."""
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    weights = {node.input[1] for node in graph.node if node.op_type in LAYERS and len(node.input) > 1}
    casts = []
    for tensor in graph.initializer:
        if tensor.name not in weights or tensor.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        if np.abs(values).max(initial=0) > LARGEST_HALF:
            continue
        name, half = tensor.name, f'{tensor.name}_fp16'
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), half))
        casts.append(helper.make_node('Cast', [half], [name], f'{name}_to_fp32', to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def _quantize(source: Path, path: Path, examples: list[dict], reduce_range: bool) -> Any:
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.feeds = iter(examples)

        def get_next(self):
            return next(self.feeds, None)

    level = logging.root.level
    logging.root.setLevel(logging.ERROR)  # its advice to prepare the model, which was done
    try:
        quantize_static(
            str(source),
            str(path),
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTIZED),
            per_channel=True,
            reduce_range=reduce_range,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=last_layers(*_onnx_graph(onnx.load(source))),
        )
    finally:
        logging.root.setLevel(level)
    return onnx.load(path)


def last_layers(types: Mapping[str, str], sources: Mapping[str, list[str]], outputs: Iterable[str]) -> list[str]:
    """Layers whose output reaches an output of the graph, or a decision inside it, without another layer between.

    Args:
        types: Operator type of each node by its name.
        sources: Nodes that compute the inputs of each node, in order; '' for constants and inputs of the graph.
        outputs: Nodes that compute the outputs of the graph.
    """
    ends = list(outputs)
    for name, kind in types.items():
        if kind in DECISIONS:
            numbers = DECISIONS[kind]
            ends += [one for number, one in enumerate(sources[name]) if numbers is None or number in numbers]
    found, seen = [], set()
    while ends:
        name = ends.pop()
        if not name or name in seen:
            continue
        seen.add(name)
        if types[name] in LAYERS:
            found.append(name)
        else:
            ends += sources[name]
    return found


def _onnx_graph(model: Any) -> tuple[dict[str, str], dict[str, list[str]], list[str]]:
    nodes = model.graph.node
    maker = {output: node.name for node in nodes for output in node.output}
    return (
        {node.name: node.op_type for node in nodes},
        {node.name: [maker.get(value, '') for value in node.input] for node in nodes},
        [maker.get(output.name, '') for output in model.graph.output],
    )


def _convert_openvino(source: Path, path: Path, examples: list[dict], facts: dict) -> None:
    import openvino

    model = openvino_core().read_model(source)
    text = model.get_rt_info([KEY]).astype(str) if model.has_rt_info([KEY]) else None
    if facts['precision'] == 'int8':
        import nncf

        nncf.set_log_level(logging.ERROR)
        types, sources, outputs = _openvino_graph(model)
        model = nncf.quantize(
            model,
            nncf.Dataset(examples),
            subset_size=len(examples),
            ignored_scope=nncf.IgnoredScope(names=last_layers(types, sources, outputs), validate=False),
        )
    else:
        _halve_openvino(model)
    if text is not None:
        model.set_rt_info(_updated(text, facts), [KEY])
    with tempfile.TemporaryDirectory(prefix='mogacore-quantize-') as folder:
        openvino.save_model(model, Path(folder) / path.name, compress_to_fp16=False)
        copy_contents({Path(folder): path.parent})


def _halve_openvino(model: Any) -> None:
    """Store the weights of the layers in fp16, each followed by a conversion to fp32.

    OpenVINO's own compression also rounds the constants from which a detector decides, such as its anchors.
    """
    from openvino import opset13

    converted: dict[str, Any] = {}
    for node in model.get_ops():
        if node.get_type_name() not in LAYERS:
            continue
        for value in node.inputs():
            weight = value.get_source_output().get_node()
            name = weight.get_friendly_name()
            if weight.get_type_name() != 'Constant' or weight.get_element_type().get_type_name() != 'f32':
                continue
            if np.abs(weight.data).max(initial=0) > LARGEST_HALF:
                continue
            if name not in converted:
                converted[name] = opset13.convert(opset13.constant(weight.data.astype(np.float16)), 'f32')
            value.replace_source_output(converted[name].output(0))


def _openvino_graph(model: Any) -> tuple[dict[str, str], dict[str, list[str]], list[str]]:
    nodes = model.get_ops()
    makers = {
        node.get_friendly_name(): [value.get_source_output().get_node() for value in node.inputs()] for node in nodes
    }
    types = {node.get_friendly_name(): node.get_type_name() for node in nodes}
    sources = {
        name: [
            '' if types[one.get_friendly_name()] in ('Constant', 'Parameter') else one.get_friendly_name()
            for one in values
        ]
        for name, values in makers.items()
    }
    return types, sources, [name for name, kind in types.items() if kind == 'Result']
