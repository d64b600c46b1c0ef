"""Speed and peak memory of inference and training steps, beside networks of torchvision."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mogacore.analysis.throughput import build_peer, timed
from mogacore.errors import UserError
from mogacore.models.factory import create_model

from .numerics import missing_compiler
from .results import Skip
from .subjects import Plan, computing

# Steps before the timed ones: allocation, choice of algorithms, clocks.
WARM_UP, ROUNDS = 3, 10
PEERS = ('convnext_tiny', 'convnext_small', 'swin_t')


@dataclass(frozen=True)
class Case:
    """One measurement.

    Args:
        network: Name of ``create_model`` or of torchvision.
        mode: 'test' for inference, 'train' for forward pass, backward pass and AdamW.
        precision: 'fp32' (TF32 off), 'tf32', 'bf16' or 'fp16'.
        channels_last: Weights and images in channels_last.
        compiled: Run with torch.compile.
    """

    network: str
    mode: str
    precision: str = 'bf16'
    channels_last: bool = True
    compiled: bool = False

    @property
    def estimate_s(self) -> float:
        """Seconds that the case takes at most on a recent GPU, mostly for compiling."""
        if not self.compiled:
            return 10
        return 150 if self.mode == 'train' else 75

    @property
    def label(self) -> str:
        """The case as text."""
        layout = 'channels_last' if self.channels_last else 'contiguous'
        return f'{self.network}, {self.mode}, {self.precision}, {layout}{", compiled" * self.compiled}'


def cases(plan: Plan) -> list[Case]:
    """All measurements, the most important ones first."""
    if plan.quick:
        return [Case('moganet_xtiny', 'test'), Case('moganet_xtiny', 'train'), Case(PEERS[0], 'test')]
    amp = next((precision for precision in ('bf16', 'fp16') if precision in plan.precisions()), 'fp32')
    ours, modes = ('moganet_small', 'moganet_base'), ('test', 'train')
    networks = (*ours, *PEERS, 'moganet_xtiny')
    found = [Case(name, mode, amp) for name in networks for mode in modes]
    found += [Case(name, mode, amp, channels_last=False) for name in (ours[0], *PEERS) for mode in modes]
    fast = 'tf32' if 'tf32' in plan.precisions() else 'fp32'
    found += [Case(name, mode, fast) for name in (ours[0], PEERS[0]) for mode in modes]
    for mode in modes:
        found += [Case(name, mode, amp, compiled=True) for name in (ours[0], PEERS[0], PEERS[2], ours[1])]
    return found


def measure(case: Case, plan: Plan) -> dict:
    """Measure one case; without enough memory, at half the batch size, repeatedly.

    Returns:
        A row of the report: the fields of the case, ``batch_size``, ``ms``, ``images_per_s``, ``peak_bytes`` (None on a
        CPU), ``parameters``, ``note``.

    Raises:
        Skip: If the case cannot run here.
    """
    if case.compiled and (reason := missing_compiler(plan)):
        raise Skip(reason)
    batch_size, size = (4, 64) if plan.quick else (plan.batch_size, 224)
    note = ''
    while True:
        try:
            row = _measure(case, plan, batch_size, size)
        except torch.cuda.OutOfMemoryError:
            row = None  # outside this handler, whose traceback keeps the tensors, memory can be freed
        if row is not None:
            return {**row, 'note': note}
        release(plan)
        if batch_size == 1:
            raise Skip('out of memory with one image')
        batch_size //= 2
        note = f'out of memory at {2 * batch_size} images'


def _measure(case: Case, plan: Plan, batch_size: int, size: int) -> dict:
    torch.manual_seed(0)
    layout = torch.channels_last if case.channels_last else torch.contiguous_format
    model = _build(case.network).to(plan.device).train(case.mode == 'train')
    model = model.to(memory_format=layout)  # type: ignore[call-overload]  # missing in torch's stub
    images = torch.randn(batch_size, 3, size, size).to(plan.device, memory_format=layout)
    labels = torch.randint(1000, (batch_size,)).to(plan.device)
    run = _step(model, images, labels, case)
    rounds = (1, 2) if plan.quick else (WARM_UP, ROUNDS)
    for _ in range(rounds[0]):
        run()
    if plan.is_cuda:
        torch.cuda.synchronize(plan.device)
        torch.cuda.reset_peak_memory_stats(plan.device)
    ms = 1e3 * statistics.median(timed(run, images.device) for _ in range(rounds[1]))
    return {
        **vars(case),
        'batch_size': batch_size,
        'image_size': size,
        'ms': ms,
        'images_per_s': 1e3 * batch_size / ms,
        'peak_bytes': torch.cuda.max_memory_allocated(plan.device) if plan.is_cuda else None,
        'parameters': sum(p.numel() for p in model.parameters()),
    }


def _build(name: str) -> nn.Module:
    if name.startswith('moganet'):
        return create_model(name)
    try:
        return build_peer('torchvision', name)
    except UserError as error:
        raise Skip(str(error)) from None


def _step(model: nn.Module, images: Tensor, labels: Tensor, case: Case) -> Callable[[], None]:
    network = torch.compile(model) if case.compiled else model

    def test() -> None:
        with torch.inference_mode(), computing(str(images.device), case.precision):
            network(images)

    if case.mode == 'test':
        return test
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    scaler = torch.amp.GradScaler(images.device.type, enabled=case.precision == 'fp16')

    def train() -> None:
        with computing(str(images.device), case.precision):
            loss = F.cross_entropy(network(images), labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)

    return train


def release(plan: Plan) -> None:
    """Free cached GPU memory and compiled code."""
    if 'torch._dynamo' in sys.modules:  # its import takes seconds
        torch._dynamo.reset()
    if plan.is_cuda:
        torch.cuda.empty_cache()
