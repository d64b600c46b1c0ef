"""The libraries that run an exported file: ONNX Runtime and OpenVINO, behind one interface."""

from __future__ import annotations

import functools
import json
import os
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from mogacore.errors import UserError

METADATA_KEY = 'mogacore'
FORMAT = 1
INPUT_KEYS = ('name', 'dtype', 'channels', 'size', 'dynamic')
SUFFIXES = {'.onnx': ('onnxruntime', 'openvino'), '.xml': ('openvino',)}  # in the order of preference
# Device -> ONNX Runtime's provider. Operators that a provider lacks run on the CPU.
PROVIDERS = {
    'cpu': 'CPUExecutionProvider',
    'cuda': 'CUDAExecutionProvider',
    'tensorrt': 'TensorrtExecutionProvider',
    'coreml': 'CoreMLExecutionProvider',
}
HINTS = {'fp32': 'f32', 'bf16': 'bf16'}  # precision -> OpenVINO's hint


class Backend:
    """A loaded file.

    Attributes:
        metadata: The file's description by the export.
        inputs: Shape of each input by name; None for a dynamic size.
        outputs: Shape of each output by name, likewise.
    """

    metadata: dict[str, Any]
    inputs: dict[str, tuple[int | None, ...]]
    outputs: dict[str, tuple[int | None, ...]]

    def run(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name for inputs by name. Several threads may call this at the same time."""
        raise NotImplementedError


class OnnxRuntime(Backend):
    """A file in ONNX Runtime."""

    def __init__(self, path: Path, device: str, threads: int | None, precision: str):
        import onnxruntime

        if precision != 'fp32':
            raise UserError(f'precision {precision!r} is not available in onnxruntime: use backend openvino, or fp32')

        available = onnxruntime.get_available_providers()
        if device not in PROVIDERS or PROVIDERS[device] not in available:
            usable = [name for name, provider in PROVIDERS.items() if provider in available]
            raise UserError(
                f'device {device!r} is not available: use {" or ".join(usable)}, or install an onnxruntime for it'
            )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors only
        if threads:
            options.intra_op_num_threads = threads
        names = list(dict.fromkeys([PROVIDERS[device], PROVIDERS['cpu']]))
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=names)
        except Exception as error:  # its exceptions have no common base class
            raise _unreadable(path, error) from error
        if (
            PROVIDERS[device] not in self._session.get_providers()
        ):  # it only warns if a library of the device is missing
            raise UserError(f'device {device!r} cannot be used by onnxruntime: install its libraries, or use cpu')
        self.metadata = _parse(self._session.get_modelmeta().custom_metadata_map.get(METADATA_KEY), path)
        self.inputs, self.outputs = (
            {item.name: tuple(size if isinstance(size, int) else None for size in item.shape) for item in items}
            for items in (self._session.get_inputs(), self._session.get_outputs())
        )

    def run(self, arrays):
        return dict(zip(self.outputs, self._session.run(list(self.outputs), arrays), strict=True))


@functools.cache
def openvino_core():
    """OpenVINO's runtime, one per process.

    Each ``openvino.Core`` installs a signal stack of its own for the thread and restores the former one when it is
    deleted. When the older of two goes first, the thread keeps a signal stack whose memory is freed, and the next
    signal that Python handles ends the process.
    """
    import openvino

    return openvino.Core()


@functools.cache
def _onnx_frontend():
    from openvino.frontend import FrontEndManager

    manager = FrontEndManager()
    return manager, manager.load_by_framework('onnx')


def _read_openvino(path: Path) -> Any:
    """Read a model by the parser of its format.

    ``Core.read_model`` tries all parsers, of which some print lines about a file that they do not understand.
    """
    if path.suffix.lower() == '.xml':
        _check_ir(path)
        return openvino_core().read_model(path)
    _, parser = _onnx_frontend()
    return parser.convert(parser.load(str(path)))


class OpenVino(Backend):
    """A file in OpenVINO, on a CPU."""

    def __init__(self, path: Path, device: str, threads: int | None, precision: str):
        if device != 'cpu':
            raise UserError(f'device {device!r} is not available in openvino: use cpu, or backend onnxruntime')
        core = openvino_core()
        settings: dict[str, Any] = {'INFERENCE_PRECISION_HINT': HINTS[precision]}
        if threads:
            settings['INFERENCE_NUM_THREADS'] = threads
        try:
            network = _read_openvino(path)
            self._network = core.compile_model(network, 'CPU', settings)
            self._local = threading.local()  # a request serves one thread
        except UserError:
            raise
        except Exception as error:  # its exceptions have no common base class
            raise _unreadable(path, error) from error
        self.metadata = _parse(self._read_metadata(network), path)
        self.inputs, self.outputs = (
            {
                item.get_any_name(): tuple(
                    None if size.is_dynamic else size.get_length() for size in item.partial_shape
                )
                for item in items
            }
            for items in (network.inputs, network.outputs)
        )

    @staticmethod
    def _read_metadata(network) -> str | None:
        for place in ([METADATA_KEY], ['framework', METADATA_KEY]):  # of an .xml file, of an .onnx file
            if network.has_rt_info(place):
                return network.get_rt_info(place).astype(str)
        return None

    def run(self, arrays):
        if not hasattr(self._local, 'request'):
            self._local.request = self._network.create_infer_request()
        found = self._local.request.infer(arrays)
        return {name: np.array(found[name]) for name in self.outputs}  # copies: the next call reuses the memory


BACKENDS: dict[str, type[Backend]] = {'onnxruntime': OnnxRuntime, 'openvino': OpenVino}


def open_backend(
    path: str | Path,
    backend: str = 'auto',
    device: str = 'cpu',
    threads: int | None = None,
    precision: str = 'fp32',
) -> Backend:
    """Load an exported file.

    Args:
        path: ``.onnx``, or ``.xml`` with its ``.bin`` file in the same folder.
        backend: 'onnxruntime' or 'openvino'; 'auto' takes the first that is installed and reads the file.
        device: 'cpu', or with onnxruntime 'cuda', 'tensorrt' or 'coreml'.
        threads: Number of CPU threads; None for the default of the backend.
        precision: Of the arithmetic in floats: 'fp32'; or 'bf16' in OpenVINO, which is faster on CPUs that have it and
            the same as fp32 on others.

    Raises:
        UserError: If the file is missing, malformed or was not written by ``mogacore export``, or the backend or device
            is not available.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise UserError(f'the model is of type {type(path).__name__}: give the path of a file of mogacore export')
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f'model {path} has an unknown suffix: give a file {" or ".join(SUFFIXES)} of mogacore export')
    if not path.is_file():
        raise UserError(f'model {path} does not exist: write it with mogacore export')
    if threads is not None and threads < 1:
        raise UserError(f'threads is {threads}: use 1 or more')
    if precision not in HINTS:
        raise UserError(f'precision {precision!r} is unknown: use {" or ".join(HINTS)}; int8 is set by mogacore export')
    usable = SUFFIXES[path.suffix.lower()]
    if backend == 'auto':
        installed = [name for name in usable if find_spec(name)]
        if not installed:
            raise UserError(f'{path} needs {" or ".join(usable)}: pip install {usable[0]}')
        backend = installed[0]
    if backend not in usable:
        raise UserError(f'backend {backend!r} does not read {path}: use auto, {" or ".join(usable)}')
    if find_spec(backend) is None:
        raise UserError(f'backend {backend} is not installed: pip install {backend}')
    loaded = BACKENDS[backend](path, device, threads, precision)  # type: ignore[call-arg]
    if loaded.metadata['input']['name'] not in loaded.inputs:
        raise UserError(f'the description in {path} does not name an input of the model: export the model again')
    return loaded


def _check_ir(path: Path) -> None:
    """Check that an .xml file is a model of OpenVINO, with its weights.

    Raises:
        UserError: If the file is damaged or not a model, or the file with its weights is missing.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise UserError(f'model {path} is not XML, or truncated ({error}): export it again') from None
    if root.tag != 'net' or root.find('layers') is None:
        raise UserError(f'model {path} is not a model of OpenVINO: give a file of mogacore export')
    weights = path.with_suffix('.bin')
    if not weights.is_file():
        raise UserError(f'model {path} lacks its weights: copy {weights.name} to the same folder')


def _unreadable(path: Path, error: Exception) -> UserError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return UserError(f'model {path} cannot be loaded ({lines[-1] if lines else type(error).__name__}): export it again')


def _parse(text: str | None, path: Path) -> dict:
    if text is None:
        raise UserError(f'model {path} has no description of mogacore: write it with mogacore export')
    try:
        metadata = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f'the description in {path} is no JSON ({error}): export the model again') from None
    found = metadata.get('format') if isinstance(metadata, dict) else None
    if found != FORMAT:
        raise UserError(f'model {path} has format {found}, but this version reads {FORMAT}: export it again')
    missing = [] if isinstance(metadata.get('task'), str) else ['task']
    described = metadata.get('input')
    missing += [f'input.{key}' for key in INPUT_KEYS if not isinstance(described, dict) or key not in described]
    if missing:
        raise UserError(f'the description in {path} lacks {", ".join(missing)}: export the model again')
    return metadata
