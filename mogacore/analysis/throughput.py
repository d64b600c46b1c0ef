"""Speed and memory of networks, measured side by side.

Timings are noisy, so networks run interleaved in one process, round by round, and are reported as ratios with quartiles
in addition to times.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from mogacore.analysis.complexity import count_macs
from mogacore.deploy import fuse
from mogacore.engine.devices import choose_device
from mogacore.errors import UserError, accepting
from mogacore.files import write_figure
from mogacore.locations import is_config_name
from mogacore.models import accelerated
from mogacore.models.factory import create_model, list_models

BACKENDS = ('eager', 'compiled', 'fused', 'fused+compiled', 'onnx', 'openvino')
RUNTIMES = ('onnx', 'openvino')
MODES = ('infer', 'train')
DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}


@dataclass
class Measurement:
    """Results of one network in one backend.

    Args:
        name: Name of the network, as given.
        backend: One of ``BACKENDS``.
        params: Number of parameters.
        macs: Multiply-adds per image, see :func:`mogacore.analysis.complexity.count_macs`.
        seconds: Time of each round.
        ratios: Time of the first network over the time of this one, per round; above 1 is faster than the first.
        saved_bytes: Memory kept for the backward pass, per image; None for inference.
        peak_bytes: Peak GPU memory; None on a CPU.
        error: Largest absolute difference from the same network in eager mode; None for eager mode and training.
    """

    name: str
    backend: str
    params: int
    macs: int
    seconds: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    saved_bytes: int | None = None
    peak_bytes: int | None = None
    error: float | None = None

    def summary(self, batch_size: int) -> dict:
        """Medians and quartiles, serializable as JSON."""
        quartiles = statistics.quantiles(self.ratios, n=4) if len(self.ratios) > 1 else [self.ratios[0]] * 3
        median = statistics.median(self.seconds)
        return {
            'name': self.name,
            'backend': self.backend,
            'params': self.params,
            'macs': self.macs,
            'ms': 1e3 * median,
            'images_per_s': batch_size / median,
            'ratio': statistics.median(self.ratios),
            'ratio_quartiles': [quartiles[0], quartiles[2]],
            'saved_bytes_per_image': self.saved_bytes,
            'peak_bytes': self.peak_bytes,
            'error': self.error,
        }


class Plain(nn.Module):
    """A network with acceleration off: the blocks run as layers.py defines them, in the memory layout of the input.

    Args:
        network: A MogaNet, classifier or SimVP; its parameters are shared, not copied.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Output of ``network`` for ``x``."""
        with accelerated.disabled():
            return self.network(x)


def build(name: str) -> nn.Module:
    """Build a network by name.

    Args:
        name: A name of ``create_model``; ``timm:NAME`` or ``torchvision:NAME``; a config, for its backbone or its whole
            SimVP; ``plain:NAME`` or ``plain:CONFIG``, for a network of mogacore without acceleration.

    Raises:
        UserError: If the name is unknown, or its library is not installed.
    """
    source, _, rest = name.rpartition(':')
    if source == 'plain':
        return Plain(build(rest))
    if source in ('timm', 'torchvision'):
        return build_peer(source, rest)
    if name in list_models():
        return create_model(name)
    if is_config_name(name):
        from mogacore.engine.config import build_model, load_config

        cfg = load_config(name)
        part = cfg.model.get('backbone', cfg.model)
        part.init_cfg = None  # speed needs no trained weights
        model = build_model(cfg)
        return getattr(model, 'backbone', model)
    raise UserError(
        f'network {name!r} is unknown: choose from {", ".join(list_models())}, plain:NAME, timm:NAME, '
        'torchvision:NAME, or a config'
    )


def build_peer(library: str, name: str, **settings) -> nn.Module:
    """Build a network of timm or torchvision.

    Args:
        library: 'timm' or 'torchvision'.
        name: Name of the model in that library.
        **settings: Keyword arguments of that library's factory function.

    Raises:
        UserError: If the library is not installed, does not know the model or a setting, or the download
            of weights fails.
    """
    try:
        module = __import__('torchvision.models' if library == 'torchvision' else library, fromlist=['_'])
    except ImportError:
        raise UserError(
            f'{library}:{name} needs {library}, which is not installed: run pip install {library}'
        ) from None
    try:
        return (module.get_model if library == 'torchvision' else module.create_model)(name, **settings)
    except OSError as error:
        raise UserError(f'the weights of {library}:{name} cannot be downloaded: {error}') from None
    except (RuntimeError, TypeError, ValueError) as error:
        given = f' with {settings}' if settings else ''
        raise UserError(f'{library} has no model {name!r}{given}: {error}') from None


def measure(
    networks: list[tuple[str, str]],
    shape: tuple[int, ...] = (3, 224, 224),
    batch_size: int = 8,
    mode: str = 'infer',
    rounds: int = 11,
    device: str = 'cpu',
    dtype: torch.dtype = torch.float32,
    progress: Callable[[str], None] = lambda text: None,
) -> list[Measurement]:
    """Time networks in turn, round by round. In each round every network runs twice, and the second run is timed.

    Args:
        networks: (name, backend) pairs; ratios are relative to the first.
        shape: (C, H, W) of an image, or (T, C, H, W) of the input frames of a SimVP.
        batch_size: Images or sequences per batch.
        mode: 'infer', or 'train' for forward, backward and an SGD step.
        rounds: Number of timed rounds.
        device: torch device.
        dtype: torch.float32, or a type for autocast.
        progress: Called with a description of each step.

    Raises:
        UserError: If a name or setting is unknown or invalid.
    """
    if mode not in MODES:
        raise UserError(f'mode {mode!r} is unknown: choose from {", ".join(MODES)}')
    if rounds < 1 or batch_size < 1:
        raise UserError(f'{rounds} rounds and batch size {batch_size} are invalid: give numbers of at least 1')
    device = choose_device(device)
    with accepting(networks[0][0], shape):
        images = torch.randn(batch_size, *shape, generator=torch.Generator().manual_seed(0)).to(device)
    models: dict[str, nn.Module] = {}
    runs: list[Callable[[], object]] = []
    found = []
    run: Callable[[], object]
    for name, backend in networks:
        progress(f'{name} ({backend})')
        if name not in models:
            torch.manual_seed(0)
            models[name] = build(name).to(device)
        params = sum(p.numel() for p in models[name].parameters())
        with accepting(name, shape):
            macs = count_macs(models[name].eval(), images[:1])
        result = Measurement(name, backend, params, macs)
        if mode == 'infer':
            run, result.error = _inference(models[name].eval(), backend, images, dtype)
        else:
            run, result.saved_bytes = _training(models[name].train(), backend, images, dtype)
        if images.is_cuda:
            torch.cuda.reset_peak_memory_stats()
        run()
        if images.is_cuda:
            result.peak_bytes = torch.cuda.max_memory_allocated()
        runs.append(run)
        found.append(result)
    for number in range(rounds):
        progress(f'round {number + 1} of {rounds}')
        for run, result in zip(runs, found, strict=True):
            run()  # warms up allocator and caches, which the previous network left in another state
            result.seconds.append(timed(run, images.device))
        for result in found:
            result.ratios.append(found[0].seconds[-1] / result.seconds[-1])
    return found


def timed(run: Callable[[], object], device: torch.device) -> float:
    """Seconds that ``run`` takes, including the work it queues on the device."""
    gc.collect()
    if device.type == 'cuda':
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if device.type == 'cuda':
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _first(out: Tensor | tuple) -> Tensor:
    return out if isinstance(out, Tensor) else out[-1]


def _autocast(images: Tensor, dtype: torch.dtype):
    return torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32)


def _inference(
    model: nn.Module, backend: str, images: Tensor, dtype: torch.dtype
) -> tuple[Callable[[], Tensor], float | None]:
    if backend in RUNTIMES and dtype != torch.float32:
        raise UserError(f'backend {backend} computes in fp32: omit --dtype, or choose another backend')
    network = prepare(model, backend, images)

    def run() -> Tensor:
        with torch.inference_mode(), _autocast(images, dtype):
            return _first(network(images))

    if backend == 'eager':
        return run, None
    with torch.inference_mode():
        return run, (run() - _first(model(images))).abs().max().item()


def prepare(model: nn.Module, backend: str, images: Tensor) -> Callable[[Tensor], Tensor | tuple[Tensor, ...]]:
    """Prepare a network in eval mode for a backend.

    Returns:
        A function of a batch of images.

    Raises:
        UserError: If the backend is unknown, not installed, or not available for the network.
    """
    if backend not in BACKENDS:
        raise UserError(f'backend {backend!r} is unknown: choose from {", ".join(BACKENDS)}')
    if isinstance(model, Plain) and backend not in ('eager', 'compiled'):
        raise UserError(f'a plain network has no {backend} form: write plain:NAME@eager or plain:NAME@compiled')
    if backend in RUNTIMES:
        if images.device.type != 'cpu':
            raise UserError(f'backend {backend} is timed on a CPU: add --device cpu, or choose another backend')
        from mogacore.deploy.export import load_runtime

        return load_runtime(model, backend, images)
    network = fuse(model) if 'fused' in backend else model
    return torch.compile(network, options={'freezing': True}) if 'compiled' in backend else network


def _training(model: nn.Module, backend: str, images: Tensor, dtype: torch.dtype) -> tuple[Callable[[], None], int]:
    if backend not in ('eager', 'compiled'):
        raise UserError(f'backend {backend!r} cannot train: choose eager or compiled')
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    network = torch.compile(model) if backend == 'compiled' else model

    def run() -> None:
        with _autocast(images, dtype):
            loss = _first(network(images)).float().square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return run, saved_bytes(model, images) // len(images)


def saved_bytes(model: nn.Module, images: Tensor) -> int:
    """Bytes that a forward pass keeps for the backward pass, without parameters; shared storage counts once."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    storages = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = _first(model(images)).float().square().mean()
    total = sum(storage.nbytes() for storage in storages.values())
    del loss
    return total


def draw_ratios(report: dict, path: str | Path) -> None:
    """Draw the speedup of each network over the first one as bars with quartiles.

    Args:
        report: ``measurements``, a list of :meth:`Measurement.summary`, ``mode`` and ``machine``.
        path: PNG file to write.
    """
    from matplotlib.figure import Figure

    rows = report['measurements'][::-1]
    ratios = [row['ratio'] for row in rows]
    spreads = [
        [max(row['ratio'] - row['ratio_quartiles'][0], 0) for row in rows],
        [max(row['ratio_quartiles'][1] - row['ratio'], 0) for row in rows],
    ]
    figure = Figure(figsize=(8, 1 + 0.4 * len(rows)), layout='constrained')
    axis = figure.subplots()
    axis.barh(range(len(rows)), ratios, xerr=spreads, color='#4477aa', capsize=3)
    axis.set_yticks(range(len(rows)), [f'{row["name"]} ({row["backend"]})' for row in rows])
    axis.axvline(1, color='gray', linewidth=0.8)
    first = report['measurements'][0]
    axis.set_xlabel(f'{report["mode"]}: times faster than {first["name"]} ({first["backend"]})')
    axis.set_title(report['machine'], fontsize=9)
    write_figure(path, figure, dpi=120)
