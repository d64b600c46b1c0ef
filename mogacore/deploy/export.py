"""Export to ONNX, OpenVINO and torch.export's format; every file is checked against eager PyTorch."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from mogacore.engine.dataset_meta import ignores_orientation
from mogacore.errors import UserError, accepting
from mogacore.files import copy_contents, make_folder, writable_folder
from mogacore.kinds import checks_arguments

from .folding import fuse
from .formats import AXES, SUFFIXES, format_of, read, require, set_constants, to_onnx, trace, write
from .graphs import Graph, create_graph
from .graphs.base import Normalize
from .graphs.layers import reason_for_one_size
from .graphs.raw import Features, Raw
from .metadata import FORMAT, OPSET, to_text, versions
from .source import Source, load_source

__all__ = ['Exported', 'export', 'load_runtime', 'load_source']

DTYPES = {'uint8': torch.uint8, 'float32': torch.float32}
LIBRARIES = ('torch', 'torchvision', 'onnx', 'openvino')
# What torch.export raises for models that it cannot trace, or not with these axes.
UNTRACEABLE = (torch._dynamo.exc.UserError, RuntimeError, AssertionError, TypeError, ValueError)


class SizeError(UserError):
    """A model cannot be traced for more than one size, or its file is wrong for another one than its example's.

    Args:
        text: The message.
        reason: What is wrong.
    """

    def __init__(self, text: str, reason: str):
        super().__init__(text)
        self.reason = reason


@dataclass
class Exported:
    """What was written.

    Args:
        path: The file.
        inputs: Name and shape of each input; a varying axis has its name instead of a size.
        outputs: Names of the outputs.
        error: Largest difference from eager PyTorch, relative to its limit times the tolerance.
        fixed: Why height and width are those of the example, if they could vary otherwise.
    """

    path: Path
    inputs: dict[str, tuple[str | int, ...]]
    outputs: tuple[str, ...]
    error: float
    fixed: str = ''


@checks_arguments()
def export(
    source: Source,
    paths: Sequence[str | Path],
    shape: tuple[int, ...] | None = None,
    dtype: str = 'uint8',
    tolerance: float = 1e-4,
    progress: Callable[[str], None] = lambda text: None,
) -> list[Exported]:
    """Fuse a network and write it with its pre- and post-processing.

    The files are compared with eager PyTorch and the network that is not fused: for the example, for other sizes, and
    for other batch sizes where they may vary. If they are right for the example's height and width only, those are
    fixed.

    Args:
        source: From :func:`mogacore.deploy.source.load_source`.
        paths: Files: ``.onnx``; ``.xml`` for OpenVINO, with the weights in a ``.bin`` file in the same folder;
            ``.pt2``.
        shape: C H W of an image or T C H W of a video, which are then fixed; a batch size before them fixes it, too.
            None for the source's shape, of which batch, height and width may vary where the model allows.
        dtype: Type of the first input, 'uint8' or 'float32'; its values are 0..255 in both. Videos are float32 always.
        tolerance: Largest difference of floats, relative to the largest absolute value of the output.
        progress: Called with a description of each step.

    Raises:
        UserError: If a suffix is unknown, a package is missing, the network does not accept the shape or cannot be
            fused, or the outputs differ; then no file is written.
    """
    kinds = {Path(path): format_of(path) for path in paths}
    if not 0 < tolerance < float('inf'):
        raise UserError(f'--tolerance {tolerance} is out of range: use a positive number')
    fused = _create_graph(source, fuse(source.model))
    graph = _create_graph(source, source.model)
    num_axes = len(source.shape)
    dtype = dtype if num_axes == 3 else 'float32'
    example_shape, dynamic = _choose_axes(fused, source.shape, shape)
    with accepting(type(source.model).__name__, shape or source.shape):
        if len(example_shape) != num_axes + 1:
            raise ValueError(f'expected {num_axes} sizes, or {num_axes + 1} with the batch size first')
        for one in (graph, fused):
            one.name_outputs(*one.example((1, *example_shape[1:]), DTYPES[dtype]))
    done: dict[Path, Exported] = {}
    for path in kinds:
        writable_folder(path.parent)
    with tempfile.TemporaryDirectory(prefix='mogacore-export-') as drafts:
        folders = {path: make_folder(Path(drafts) / str(number)) for number, path in enumerate(kinds)}
        # A program for .pt2 does not accept some small sizes, which the other formats do.
        for group in ([path for path in kinds if (kinds[path] == 'pt2') == is_pt2] for is_pt2 in (False, True)):
            if group:
                targets = {path: (kinds[path], folders[path]) for path in group}
                write_files = partial(
                    _write_files, source, graph, fused, targets, example_shape, dtype, tolerance, progress
                )
                done |= _write_for_any_size(write_files, dynamic, reason_for_one_size(source.model))
        copy_contents({folder: path.parent for path, folder in folders.items()})
    return [done[path] for path in kinds]


def _write_for_any_size(
    write_files: Callable[[tuple[str, ...]], dict[Path, Exported]], dynamic: tuple[str, ...], reason: str
) -> dict[Path, Exported]:
    """Write files whose height and width vary, or else, or if there is a reason for it, files with fixed ones."""
    fixed_axes = _without_sides(dynamic)
    if dynamic == fixed_axes:
        return write_files(dynamic)
    if not reason:
        try:
            return write_files(dynamic)
        except SizeError as error:
            reason = error.reason
    return {path: replace(exported, fixed=reason) for path, exported in write_files(fixed_axes).items()}


def _write_files(
    source: Source,
    graph: Graph,
    fused: Graph,
    targets: dict[Path, tuple[str, Path]],
    example_shape: tuple[int, ...],
    dtype: str,
    tolerance: float,
    progress: Callable[[str], None],
    dynamic: tuple[str, ...],
) -> dict[Path, Exported]:
    """Trace the fused graph, write files to their folders and compare them with the graph that is not fused.

    Args:
        source, graph, fused, example_shape, dtype, tolerance, progress, dynamic: What :func:`export` makes of its
            arguments.
        targets: File to its format and the folder where it is written.
    """
    kinds = {kind for kind, _ in targets.values()}
    progress(f'tracing the network for {", ".join(map(str, targets))}')
    program = _trace(fused, example_shape, DTYPES[dtype], dynamic, 'pt2' in kinds)
    text = to_text(_metadata(source, fused, example_shape, dtype, dynamic))
    onnx_model = to_onnx(program, fused, dynamic) if kinds != {'pt2'} else None
    examples = [
        graph.example(case, DTYPES[dtype], seed)
        for seed, case in enumerate(_shapes_to_check(graph, example_shape, DTYPES[dtype], dynamic))
    ]
    checks = []
    for constants in graph.constants_to_check(examples):
        set_constants(graph, program, onnx_model, constants)
        with torch.inference_mode():
            checks.append((constants, [graph(*inputs) for inputs in examples]))
    done = {}
    for path, (kind, folder) in targets.items():
        progress(f'writing and checking {path}')
        error = 0.0
        for constants, expected in checks:
            set_constants(graph, program, onnx_model, constants)
            write(kind, program, onnx_model, folder / path.name, text)
            run = read(kind, folder / path.name, fused)
            error = max(error, _check(path, run, graph, examples, expected, tolerance))
        done[path] = Exported(path, _input_shapes(fused, example_shape, dynamic), fused.output_names, error)
    return done


def _metadata(source: Source, graph: Graph, shape: tuple[int, ...], dtype: str, dynamic: tuple[str, ...]) -> dict:
    return {
        'format': FORMAT,
        'task': graph.task,
        'raw': source.raw,
        **source.facts,
        'input': {
            'name': graph.input_names[0],
            'dtype': dtype,
            'channels': 'gray' if shape[-3] == 1 else 'rgb',
            'size': list(shape[-2:]),
            'ignore_orientation': ignores_orientation(source.cfg),
            'dynamic': list(dynamic),
        },
        'postprocess': graph.postprocess(),
        'opset': OPSET,
        'precision': 'fp32',
        'versions': versions(*LIBRARIES),
    }


def _create_graph(source: Source, model: nn.Module) -> Graph:
    if source.features:
        graph: Graph = Features(model, source.cfg, source.meta)
    else:
        graph = create_graph(model, source.cfg, source.meta, source.raw)
    return graph.eval().requires_grad_(False)


def _choose_axes(
    graph: Graph, own: tuple[int, ...], chosen: tuple[int, ...] | None
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Shape of the example with its batch, and the axes that vary."""
    batch = (2,) if 'batch' in graph.dynamic else (1,)
    if chosen is None:
        return (*batch, *own), graph.dynamic
    text = ' x '.join(map(str, chosen))
    if 'height' not in graph.dynamic and tuple(chosen[-2:]) != tuple(own[-2:]):
        raise UserError(
            f'--shape {text} is not the size of the model, {" x ".join(map(str, own[-2:]))}, which its outputs depend '
            'on: omit --shape'
        )
    if len(chosen) > len(own):
        if batch == (1,) and chosen[0] != 1:
            raise UserError(f'--shape {text} has {chosen[0]} images, but the file takes one at a time: use 1')
        return tuple(chosen), ()
    return (*batch, *chosen), _without_sides(graph.dynamic)


def _without_sides(dynamic: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(axis for axis in dynamic if axis == 'batch')


def _trace(
    graph: Graph, shape: tuple[int, ...], dtype: torch.dtype, dynamic: tuple[str, ...], for_pt2: bool
) -> torch.export.ExportedProgram:
    """Record the operations of a graph for an example that is large enough for the sides that vary."""
    smallest = -(-graph.traced_side // graph.size_step) * graph.size_step
    sides = [
        max(side, smallest) if axis in dynamic else side
        for axis, side in zip(('height', 'width'), shape[-2:], strict=True)
    ]
    is_sized = dynamic != _without_sides(dynamic)
    try:
        program = trace(graph, graph.example((*shape[:-2], *sides), dtype), dynamic)
        if for_pt2 and is_sized:  # it refuses sizes below its smallest, which other formats accept
            program.module()(*graph.example(shape, dtype))
    except UNTRACEABLE as error:
        reason = _first_line(error)
        text = (
            f'{type(graph.model).__name__} cannot be exported, since torch.export does not accept an operation of it: '
            f'{reason}'
        )
        raise (SizeError(text, reason) if is_sized else UserError(text)) from error
    return program


def _first_line(error: Exception) -> str:
    return str(error).strip().partition('\n')[0]


def _check(
    path: Path,
    run: Callable[..., tuple[Tensor, ...]],
    graph: Graph,
    examples: Sequence[tuple[Tensor, ...]],
    expected: Sequence[tuple[Tensor, ...]],
    tolerance: float,
) -> float:
    """Compare a file with the outputs of a graph; the largest difference relative to its limit, times the tolerance."""
    largest = 0.0
    for inputs, outputs in zip(examples, expected, strict=True):
        size = ' x '.join(map(str, inputs[0].shape))
        is_other_size = inputs[0].shape[-2:] != examples[0][0].shape[-2:]
        try:
            found = run(*inputs)
        except Exception as error:  # each runtime has its own types
            reason = f'the file fails for inputs of {size}: {" ".join(str(error).split())[:300]}'
            raise _refusal(path, reason, is_other_size) from error
        for difference in graph.differences(found, outputs, tolerance):
            if not difference.value <= difference.limit:
                reason = f'its outputs for inputs of {size} differ from eager PyTorch, {difference}'
                raise _refusal(path, reason, is_other_size)
            if difference.limit:
                largest = max(largest, difference.value / difference.limit * tolerance)
    return largest


def _refusal(path: Path, reason: str, is_other_size: bool) -> UserError:
    text = f'{path} was not written, since {reason}; fix the size with --shape, or try another format, {_others(path)}'
    return SizeError(text, reason) if is_other_size else UserError(text)


def _shapes_to_check(
    graph: Graph, shape: tuple[int, ...], dtype: torch.dtype, dynamic: tuple[str, ...]
) -> list[tuple[int, ...]]:
    """The example's shape; another batch; other sides, one larger and one smaller; and one image, upright or lying.

    Where the network does not accept the smaller side, it is larger as well.
    """
    shapes, step = [shape], graph.size_step
    height, width = shape[-2:]
    if 'batch' in dynamic:
        shapes.append((shape[0] + 1, *shape[1:]))
    if 'height' in dynamic and 'width' in dynamic:
        larger, smaller = height + step * (height // (3 * step) + 1), max(step, width - step * (width // (5 * step)))
        if not _accepts(graph, (1, *shape[1:-2], larger, smaller), dtype):
            smaller = width + step * (width // (5 * step) + 1)
        height, width = larger, smaller
        shapes.append((1, *shape[1:-2], height, width))
        if 'batch' not in dynamic:
            shapes.append((1, *shape[1:-2], width, height))
    elif 'batch' in dynamic:
        shapes.append((1, *shape[1:]))
    return shapes


def _accepts(graph: Graph, shape: tuple[int, ...], dtype: torch.dtype) -> bool:
    """Whether the network itself takes inputs of a shape."""
    try:
        with torch.inference_mode():
            graph(*graph.example(shape, dtype))
    except RuntimeError:
        return False
    return True


def _input_shapes(graph: Graph, shape: tuple[int, ...], dynamic: tuple[str, ...]) -> dict[str, tuple[str | int, ...]]:
    names = {AXES[axis] % len(shape): axis for axis in dynamic}
    first = tuple(names.get(axis, size) for axis, size in enumerate(shape))
    further = graph.example((1, *shape[1:]), torch.float32)[1:]
    return {graph.input_names[0]: first} | {
        name: tuple(value.shape) for name, value in zip(graph.input_names[1:], further, strict=True)
    }


def _others(path: Path) -> str:
    return ' or '.join(suffix for suffix in SUFFIXES if suffix != path.suffix)


def load_runtime(model: nn.Module, kind: str, images: Tensor) -> Callable[[Tensor], Tensor | tuple[Tensor, ...]]:
    """Load a fused copy of a network into ONNX Runtime or OpenVINO.

    Args:
        model: Network with tensor outputs.
        kind: 'onnx' or 'openvino'.
        images: Example (B, C, H, W), of the network itself, without preprocessing; only the batch may vary.

    Returns:
        Function from images to the outputs of the network.

    Raises:
        UserError: If a package is missing.
    """
    require(kind)
    graph = Raw(fuse(model), {}).eval()
    graph.normalize = Normalize(None)
    graph.name_outputs(images)
    suffix = next(suffix for suffix, name in SUFFIXES.items() if name == kind)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f'model{suffix}'
        # torch.export treats a dimension of size 1 as constant.
        example = images if len(images) > 1 else torch.cat([images, images])
        program = trace(graph, (example,), ('batch',))
        write(kind, program, to_onnx(program, graph, ('batch',)), path, '{}')
        run = read(kind, path, graph)

    def runtime(images: Tensor) -> Tensor | tuple[Tensor, ...]:
        outputs = run(images)
        return outputs[0] if len(outputs) == 1 else outputs

    return runtime
