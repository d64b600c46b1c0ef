"""Networks and images of the checks, and how a network is run: form, precision, gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mogacore.models import accelerated
from mogacore.models.classifier import MogaNetClassifier
from mogacore.published.archs import ARCHS

from .golden import fill_by_name

FORMS = ('accelerated', 'plain')
AUTOCAST = {'bf16': torch.bfloat16, 'fp16': torch.float16}
LOSS_SCALE = 2.0**10  # in fp16, where small gradients would become 0
NUM_CLASSES = 100
TINY = dict(embed_dims=(8, 16, 24, 32), depths=(1, 1, 2, 1), ffn_ratios=(2, 2, 2, 2))


@dataclass(frozen=True)
class Plan:
    """What to check.

    Args:
        device: torch device.
        quick: Tiny networks and images, to test the check itself on a CPU.
        batch_size: Images per batch in the measurements of speed.
    """

    device: str
    quick: bool = False
    batch_size: int = 128

    @property
    def is_cuda(self) -> bool:
        """Whether the device is a GPU."""
        return torch.device(self.device).type == 'cuda'

    def subjects(self) -> list[Subject]:
        """Networks whose values are compared with float64."""
        if self.quick:
            return [Subject('tiny', TINY, 64)]
        return [Subject('XT', 'xtiny', 96), Subject('S', 'small', 96)]

    def shallow(self) -> Subject:
        """A network that compiles fast: the widths of S with one block per stage."""
        if self.quick:
            return Subject('tiny', {**TINY, 'depths': (1, 1, 1, 1)}, 32)
        return Subject('S with 4 blocks', {**_settings('small'), 'depths': (1, 1, 1, 1)}, 96)

    def precisions(self) -> list[str]:
        """Reduced precisions that the device has; on a CPU, fp16 is too slow for more than a tiny network."""
        if not self.is_cuda:
            return ['bf16', 'fp16'] if self.quick else ['bf16']
        is_ampere = torch.cuda.get_device_capability(self.device) >= (8, 0)  # earlier ones emulate bf16
        return ['tf32', 'bf16', 'fp16'] if is_ampere else ['fp16']


def _settings(arch: str) -> dict:
    return {key: ARCHS[arch][key] for key in ('embed_dims', 'depths', 'ffn_ratios')}


@dataclass
class Values:
    """Result of one run.

    Args:
        logits: (B, NUM_CLASSES).
        gradients: By parameter name; empty for inference.
    """

    logits: Tensor
    gradients: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Subject:
    """A network with weights filled by name, and random images of a seed.

    Args:
        label: Name in the report.
        arch: As in :class:`mogacore.models.MogaNet`.
        size: Height and width of the images.
        batch_size: Number of images.
    """

    label: str
    arch: str | dict
    size: int
    batch_size: int = 4

    def network(self, device: str = 'cpu', **settings) -> MogaNetClassifier:
        """The network, in training mode, without drop path."""
        model = MogaNetClassifier(NUM_CLASSES, arch=self.arch, drop_path_rate=0.0, **settings)
        return fill_by_name(model).to(device)

    def batch(self, seed: int = 0, device: str = 'cpu') -> tuple[Tensor, Tensor]:
        """Images (B, 3, size, size) in channels_last, in which the network computes, and labels (B,)."""
        generator = torch.Generator().manual_seed(seed)
        images = torch.randn(self.batch_size, 3, self.size, self.size, generator=generator)
        labels = torch.randint(NUM_CLASSES, (self.batch_size,), generator=generator)
        return images.to(device, memory_format=torch.channels_last), labels.to(device)


@contextmanager
def tf32(is_allowed: bool) -> Iterator[None]:
    """Context in which a GPU may, or may not, compute products of fp32 in TF32."""
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    try:
        for backend in backends:
            backend.allow_tf32 = is_allowed
        yield
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.allow_tf32 = value


@contextmanager
def computing(device: str, precision: str = 'fp32', form: str = 'accelerated') -> Iterator[None]:
    """Context for the forward pass in a precision (fp32, tf32, bf16, fp16) and a form, one of ``FORMS``."""
    dtype = AUTOCAST.get(precision)
    autocast = torch.autocast(torch.device(device).type, dtype) if dtype else nullcontext()
    with tf32(precision == 'tf32'), autocast, nullcontext() if form == 'accelerated' else accelerated.disabled():
        yield


def infer(
    network: Callable[[Tensor], Tensor], images: Tensor, precision: str = 'fp32', form: str = 'accelerated'
) -> Values:
    """Logits of a network in its current mode, without gradients."""
    with torch.no_grad(), computing(str(images.device), precision, form):
        return Values(network(images).clone())


def train(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    precision: str = 'fp32',
    form: str = 'accelerated',
    run: Callable[[Tensor], Tensor] | None = None,
) -> Values:
    """Logits and gradients of the cross-entropy of a copy of a model, in its current mode.

    Args:
        model: The model; unless ``run`` is given, it is not modified.
        images, labels: The batch.
        precision, form: See :func:`computing`.
        run: A function that computes with the parameters of ``model`` itself, such as its compiled form.
    """
    model = deepcopy(model) if run is None else model
    model.zero_grad()
    scale = LOSS_SCALE if precision == 'fp16' else 1.0
    with tf32(precision == 'tf32'):  # the backward pass, too
        with computing(str(images.device), precision, form):
            logits = (model if run is None else run)(images)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        (scale * F.cross_entropy(logits, labels)).backward()
    gradients = {name: p.grad / scale for name, p in model.named_parameters() if p.grad is not None}
    return Values(logits.detach(), gradients)


def exact(subject: Subject, seed: int) -> tuple[Values, Values]:
    """Inference and training of the plain network in float64 on the CPU, the reference of all comparisons."""
    model = subject.network().double()
    images, labels = subject.batch(seed)
    return infer(model.eval(), images.double(), form='plain'), train(
        model.train(), images.double(), labels, form='plain'
    )
