"""Speed and memory of networks, measured side by side.

Machines are noisy: what is compared runs interleaved in one process, round by round, and is told as a ratio with its
spread besides the time.
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

from mogacore.analysis.plain import PlainMogaNet, PlainSimVP, plain
from mogacore.deploy import fuse
from mogacore.errors import UserError
from mogacore.models.factory import create_model, list_models

BACKENDS = ('eager', 'compiled', 'fused', 'fused+compiled', 'onnx', 'openvino')
MODES = ('infer', 'train')


@dataclass
class Measurement:
    """What one network in one backend needed.

    Args:
        name: The network, as asked for.
        backend: One of ``BACKENDS``.
        params: Number of parameters.
        seconds: Time of each round.
        ratios: The first network's time over this one's, round by round: above 1 is faster than the first.
        saved_bytes: Kept for the backward pass, an image; None when not training.
        peak_bytes: Peak of the GPU's memory; None on a CPU.
        error: Largest absolute difference from the same network in eager mode; None for eager mode itself.
    """

    name: str
    backend: str
    params: int
    seconds: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    saved_bytes: int | None = None
    peak_bytes: int | None = None
    error: float | None = None

    def summary(self, batch_size: int) -> dict:
        """Medians and quartiles, as JSON can hold them."""
        quartiles = statistics.quantiles(self.ratios, n=4) if len(self.ratios) > 1 else [self.ratios[0]] * 3
        median = statistics.median(self.seconds)
        return {
            'name': self.name,
            'backend': self.backend,
            'params': self.params,
            'ms': 1e3 * median,
            'images_per_s': batch_size / median,
            'ratio': statistics.median(self.ratios),
            'ratio_quartiles': [quartiles[0], quartiles[2]],
            'saved_bytes_per_image': self.saved_bytes,
            'peak_bytes': self.peak_bytes,
            'error': self.error,
        }


def build(name: str) -> nn.Module:
    """A network by name.

    Args:
        name: A name of ``create_model``; ``timm:`` or ``torchvision:`` and a name of that library; a config file, of
            which the backbone is taken, or the whole of a SimVP; or ``plain:`` and a name or config of ours, for the
            written-out network of the paper.

    Raises:
        UserError: If there is none of that name, or its library is not installed.
    """
    source, _, rest = name.rpartition(':')
    if source == 'plain':
        return plain(build(rest))
    if source in ('timm', 'torchvision'):
        return _build_peer(source, rest)
    if name in list_models():
        return create_model(name)
    if Path(name).suffix == '.py':
        from mmengine.registry import MODELS, init_default_scope

        from mogacore.engine.config import load_config
        from mogacore.registry import import_quietly

        cfg = load_config(name)
        import_quietly(cfg.default_scope)
        init_default_scope(cfg.default_scope)
        return MODELS.build(dict(cfg.model.get('backbone') or cfg.model, init_cfg=None))
    raise UserError(
        f'network {name!r} is unknown: choose from {", ".join(list_models())}, plain:NAME, timm:NAME, '
        'torchvision:NAME, or give a config file'
    )


def _build_peer(library: str, name: str) -> nn.Module:
    try:
        module = __import__('torchvision.models' if library == 'torchvision' else library, fromlist=['_'])
    except ImportError:
        raise UserError(
            f'{library}:{name} needs {library}, which is not installed: run pip install {library}'
        ) from None
    try:
        return module.get_model(name) if library == 'torchvision' else module.create_model(name)
    except (RuntimeError, ValueError) as error:
        raise UserError(f'{library} has no model {name!r}: {error}') from None


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
    """Time networks in turn, round by round, after a round of warming up.

    Args:
        networks: (name, backend) pairs; the ratios are against the first.
        shape: (C, H, W) of an image, or (T, C, H, W) of the frames that a SimVP takes.
        batch_size: Images or sequences a batch.
        mode: 'infer', or 'train' for forward, backward and an SGD step.
        rounds: Timed rounds.
        device: torch device.
        dtype: torch.float32, or a type to autocast to.
        progress: Told what is going on.

    Raises:
        UserError: If a setting or a name does not fit.
    """
    if mode not in MODES:
        raise UserError(f'mode {mode!r} is unknown: choose from {", ".join(MODES)}')
    if rounds < 1 or batch_size < 1:
        raise UserError(f'rounds {rounds} and batch size {batch_size} do not fit: give 1 or more')
    images = torch.randn(batch_size, *shape, generator=torch.Generator().manual_seed(0)).to(device)
    models: dict[str, nn.Module] = {}
    runs, found = [], []
    for name, backend in networks:
        progress(f'{name} ({backend})')
        if name not in models:
            torch.manual_seed(0)
            models[name] = build(name).to(device)
        params = sum(p.numel() for p in models[name].parameters())
        result = Measurement(name, backend, params)
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
            result.seconds.append(_timed(run, images.device))
        for result in found:
            result.ratios.append(found[0].seconds[-1] / result.seconds[-1])
    return found


def _timed(run: Callable[[], object], device: torch.device) -> float:
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
    network = prepare(model, backend, images)

    def run() -> Tensor:
        with torch.inference_mode(), _autocast(images, dtype):
            return _first(network(images))

    if backend == 'eager':
        return run, None
    with torch.inference_mode():
        return run, (run() - _first(model(images))).abs().max().item()


def prepare(model: nn.Module, backend: str, images: Tensor) -> Callable[[Tensor], Tensor]:
    """The network in eval mode as a backend runs it.

    Raises:
        UserError: If the backend is unknown or not installed.
    """
    if backend not in BACKENDS:
        raise UserError(f'backend {backend!r} is unknown: choose from {", ".join(BACKENDS)}')
    if isinstance(model, (PlainMogaNet, PlainSimVP)) and backend not in ('eager', 'compiled'):
        raise UserError(f'a plain network has no {backend} form: write plain:NAME@eager')
    if backend in ('onnx', 'openvino'):
        from mogacore.deploy.export import load_runtime

        return load_runtime(model, backend, images)
    if 'fused' in backend:
        model = fuse(model)
    if 'compiled' in backend:
        import torch._inductor.config as inductor

        inductor.freezing = True
        model = torch.compile(model)
    return model


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
    """Memory that a forward pass keeps for the backward pass, without the parameters; storage is counted once."""
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


def describe_machine(device: str) -> str:
    """Processor or GPU, threads and versions, in a line."""
    if torch.device(device).type == 'cuda':
        name = torch.cuda.get_device_name(device)
    else:
        lines = Path('/proc/cpuinfo').read_text().splitlines() if Path('/proc/cpuinfo').exists() else []
        name = next((line.partition(':')[2].strip() for line in lines if line.startswith('model name')), 'CPU')
        name += f', {torch.get_num_threads()} threads'
    return f'{name}, torch {torch.__version__}'


def draw_ratios(report: dict, path: str | Path) -> None:
    """Bars of how many times faster than the first each network is, with quartiles.

    Args:
        report: ``measurements`` as of :meth:`Measurement.summary`, and ``mode``, ``machine``.
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
    axis.axvline(1, color='grey', linewidth=0.8)
    first = report['measurements'][0]
    axis.set_xlabel(f'{report["mode"]}: times faster than {first["name"]} ({first["backend"]})')
    axis.set_title(report['machine'], fontsize=9)
    figure.savefig(path, dpi=120)
