"""Checks of training: losses in every precision, loss scaling, and memory."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F

from mogacore.analysis.throughput import Plain, saved_bytes
from mogacore.models.classifier import MogaNetClassifier

from .results import FAILED, Result, at_most
from .subjects import FORMS, Plan, Subject, computing, tf32

STEPS = 10
# The bar of the test that trains 50 steps on a CPU.
LOSS_BAR = 1e-3
# With the initial loss scale, gradients overflow in fp16; after one reduction they do not.
OVERFLOWING_SCALE, BACKOFF = 2.0**24, 2.0**-8


def losses(plan: Plan) -> Iterator[Result]:
    """Ten steps on one batch: the loss is finite and falls; in fp32 it is that of the plain block."""
    subject = plan.subjects()[0]
    curves = {}
    for precision in ['fp32', *plan.precisions()]:
        for form in FORMS if precision == 'fp32' else FORMS[:1]:
            curve, scale = _train(subject, plan.device, precision, form)
            curves[precision, form] = curve
            figure = curve[-1] / curve[0] if all(map(math.isfinite, curve)) else math.inf
            note = f'loss {curve[0]:.3f} to {curve[-1]:.3f}'
            note += f', loss scale {scale:g}' if precision == 'fp16' else ''
            yield at_most(f'{precision}, {subject.label}, {form}: last loss over first', figure, 0.9, note)
            if precision == 'fp16':
                used = OVERFLOWING_SCALE * BACKOFF
                skipped = at_most(f'fp16, {subject.label}: loss scale after an overflow', scale, used)
                yield skipped if scale >= 1 else Result(skipped.name, FAILED, scale, used, 'the loss scale collapsed')
    pairs = zip(curves['fp32', 'accelerated'], curves['fp32', 'plain'], strict=True)
    yield at_most(f'fp32, {subject.label}: loss relative to plain', max(abs(a - b) for a, b in pairs), LOSS_BAR)


def _train(subject: Subject, device: str, precision: str, form: str) -> tuple[list[float], float]:
    """Losses of the steps that changed the weights, and the final loss scale."""
    torch.manual_seed(0)
    model = MogaNetClassifier(10, arch=subject.arch, drop_path_rate=0.0, layer_scale_init=0.1).to(device)
    images, labels = subject.batch(0, device)
    labels = labels % 10
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scaler = torch.amp.GradScaler(
        torch.device(device).type, OVERFLOWING_SCALE, backoff_factor=BACKOFF, enabled=precision == 'fp16'
    )
    curve = []
    for _ in range(STEPS + (precision == 'fp16')):
        with tf32(precision == 'tf32'):
            with computing(device, precision, form):
                logits = model(images)
            loss = F.cross_entropy(logits.float(), labels)
            optimizer.zero_grad()
            scaler.scale(loss).backward()
        scale = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        if scaler.get_scale() >= scale:  # otherwise the step was skipped
            curve.append(loss.item())
    return curve or [math.nan], scaler.get_scale()


def memory(plan: Plan) -> Iterator[Result]:
    """Memory of a training step and of inference, relative to the plain block; the accelerated block needs less."""
    arch, size, number = (plan.subjects()[0].arch, 64, 2) if plan.quick else ('small', 224, 16)
    label = plan.subjects()[0].label if plan.quick else 'S'
    model = MogaNetClassifier(arch=arch, drop_path_rate=0.0).to(plan.device)
    images = torch.randn(number, 3, size, size).to(plan.device)
    if not plan.is_cuda:
        with tf32(False):
            ours, plain = saved_bytes(model, images), saved_bytes(Plain(model), images)
        yield _memory_ratio(f'{label}: memory kept for the backward pass', ours, plain, number)
        return
    for precision in ('fp32', *(set(plan.precisions()) & {'bf16'})):
        for mode in ('training', 'inference'):
            ours, plain = (_peak_bytes(model, images, precision, form, mode == 'training') for form in FORMS)
            yield _memory_ratio(f'{precision}, {label}: peak memory in {mode}', ours, plain, number)


def _memory_ratio(name: str, ours: int, plain: int, number: int) -> Result:
    note = f'{ours / 2**20 / number:.1f} and {plain / 2**20 / number:.1f} MiB per image'
    return at_most(f'{name}, relative to plain', ours / plain, 1.0, note)


def _peak_bytes(model: MogaNetClassifier, images: torch.Tensor, precision: str, form: str, is_training: bool) -> int:
    """Peak GPU memory of the second of two passes, without what is allocated before it."""
    model.train(is_training)
    for _ in range(2):
        model.zero_grad(set_to_none=True)
        torch.cuda.synchronize(images.device)
        torch.cuda.reset_peak_memory_stats(images.device)
        before = torch.cuda.memory_allocated(images.device)
        with torch.set_grad_enabled(is_training):
            with computing(str(images.device), precision, form):
                loss = model(images).float().square().mean()
            if is_training:
                loss.backward()
        del loss
        torch.cuda.synchronize(images.device)
    return torch.cuda.max_memory_allocated(images.device) - before
