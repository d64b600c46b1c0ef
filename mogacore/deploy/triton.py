"""Model repository for NVIDIA's Triton Inference Server, from an exported ONNX file.

Triton runs the file as it is: its clients resize images and read the outputs as the file's description says, which is
the parameter `mogacore` of the model's configuration. `mogacore serve` takes whole images instead.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mogacore.errors import UserError
from mogacore.files import writable_folder, write_atomic, write_text
from mogacore.runtime.backends import METADATA_KEY

DELAY_US = 5000  # longest time that a request waits for others
LABELED_OUTPUT = 'probabilities'  # the one to which Triton's classification extension applies
VARIABLE = -1


def write_triton_repository(
    model_path: str | Path, folder: str | Path, name: str | None = None, max_batch: int = 8
) -> Path:
    """Write ``folder/NAME`` with ``config.pbtxt``, ``1/model.onnx`` and, for a model with classes, ``labels.txt``.

    An open first axis whose name all inputs and outputs share is the batch: Triton joins requests along it. Without
    one, a request has the shapes of the file.

    Args:
        model_path: File written by ``mogacore export``.
        folder: The model repository; created if missing. Other models in it stay.
        name: Name of the model; None for that of the file.
        max_batch: Largest batch.

    Returns:
        The folder of the model.

    Raises:
        UserError: If the file is missing, is not an exported ONNX file, or the folder cannot be written.
    """
    path = Path(model_path)
    if max_batch < 1:
        raise UserError(f'max_batch is {max_batch}: use 1 or more')
    model = _load(path)
    described = {entry.key: entry.value for entry in model.metadata_props}.get(METADATA_KEY)
    if described is None:
        raise UserError(f'{path} has no description by mogacore: write it with mogacore export')
    classes = json.loads(described).get('classes') or []
    target = Path(folder) / (name or path.stem)
    writable_folder(target / '1')
    if classes:
        write_text(target / 'labels.txt', ''.join(f'{" ".join(label.split())}\n' for label in classes))
    write_text(target / 'config.pbtxt', _config(model, target.name, described, bool(classes), max_batch))
    write_atomic(target / '1' / 'model.onnx', path.read_bytes())
    return target


def check_format(path: str | Path) -> None:
    """Check that a file has the suffix of an ONNX file.

    Raises:
        UserError: If it does not.
    """
    if Path(path).suffix != '.onnx':
        raise UserError(f'{path} is not an ONNX file, as a Triton repository needs: export to a file with suffix .onnx')


def _load(path: Path) -> Any:
    import onnx
    from google.protobuf.message import DecodeError

    check_format(path)
    try:
        model = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise UserError(f'{path} cannot be read ({error.strerror}): give a file of mogacore export') from None
    except DecodeError:
        raise UserError(f'{path} is not an ONNX file: give a file of mogacore export') from None
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
        raise UserError(f'{path} keeps its weights in another file: export it again, with mogacore export')
    return model


def _config(model: Any, name: str, described: str, has_labels: bool, max_batch: int) -> str:
    """The text of ``config.pbtxt``."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    sizes = [value.type.tensor_type.shape.dim for value in [*inputs, *model.graph.output]]
    first = {shape[0].dim_param if shape else '' for shape in sizes}  # name of the first axis where its size is open
    is_batched = len(first) == 1 and first != {''}
    parts = [
        f'name: {_quote(name)}',
        'backend: "onnxruntime"',
        f'max_batch_size: {max_batch if is_batched else 0}',
        *(f'input [ {_tensor(value, is_batched)} ]' for value in inputs),
        *(f'output [ {_tensor(value, is_batched, has_labels)} ]' for value in model.graph.output),
        f'parameters {{ key: {_quote(METADATA_KEY)} value {{ string_value: {_quote(described)} }} }}',
    ]
    if is_batched:
        parts.append(f'dynamic_batching {{ max_queue_delay_microseconds: {DELAY_US} }}')
    return '\n'.join(parts) + '\n'


def _shape(value: Any) -> list[int]:
    """Sizes of an input or output; ``VARIABLE`` for those that the file leaves open."""
    sizes = value.type.tensor_type.shape.dim
    return [size.dim_value if size.HasField('dim_value') else VARIABLE for size in sizes]


def _tensor(value: Any, is_batched: bool, has_labels: bool = False) -> str:
    """An input or output as text."""
    import onnx

    kind = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type)
    kind = {'FLOAT': 'FP32', 'FLOAT16': 'FP16', 'DOUBLE': 'FP64', 'BFLOAT16': 'BF16'}.get(kind, kind)
    sizes = _shape(value)[is_batched:]
    # Triton has no scalars: their only value is given a shape, which it removes again.
    shape = f'dims: [ {", ".join(map(str, sizes))} ]' if sizes else 'dims: [ 1 ] reshape { shape: [ ] }'
    labels = ' label_filename: "labels.txt"' if has_labels and value.name == LABELED_OUTPUT else ''
    return f'{{ name: {_quote(value.name)} data_type: TYPE_{kind} {shape}{labels} }}'


def _quote(text: str) -> str:
    """A text in the text format of protocol buffers."""
    from google.protobuf.text_encoding import CEscape

    return f'"{CEscape(text.encode(), as_utf8=False)}"'
