"""Checks of values and gradients: published outputs, float64, reduced precisions, layouts, torch.compile.

The reference of a comparison in a reduced precision is float64, and the bar is relative to the error of the plain block
in the same precision and memory layout: the device's own rounding cancels, and no constant has to fit every GPU.
"""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from mogacore.deploy import fuse
from mogacore.models import accelerated
from mogacore.models.classifier import MogaNetClassifier
from mogacore.models.layers import MogaBlock

from .golden import fill_by_name, load_golden
from .results import SKIPPED, Result, Skip, at_most, kind_errors, relative_error, root_mean_square, worst
from .subjects import FORMS, Plan, Subject, Values, exact, infer, train

SEEDS = (0, 1, 2)
# Largest difference from published logits and from float64, in fp32: the bar of the tests on a CPU.
FP32_BAR = 1e-5
# For networks of this size, rounding in float64 leaves 1e-15 to 1e-13.
FLOAT64_BAR = 1e-11
# For one role of parameters in fp32, such as the weights of the last norm of the stem: the terms of its gradient
# cancel, which multiplies the rounding error by 30, in the plain block as well. A wrong formula gives about 1.
ROLE_BAR = 30 * FP32_BAR
# The plain block computes maps after sigma and the layer scales in fp32, since these parameters are fp32; the
# accelerated block keeps them in the reduced precision, which rounds each map at most twice as often.
RATIO_BAR = 2.0
# The error of the role of parameters with the largest error comes from few values, so it varies more. A wrong formula
# gives an error of about 1, while this bar is near 0.2 in bf16.
ROLE_RATIO_BAR = 4.0


def golden(plan: Plan) -> Iterator[Result]:
    """Logits in fp32 against those of the published network."""
    model = MogaNetClassifier(arch='xtiny').to(plan.device)
    blocks = [block for block in model.modules() if isinstance(block, MogaBlock)]
    plain = sum(accelerated.select(block) is block for block in blocks)
    note = 'MOGACORE_ACCELERATED=0 is set' if os.environ.get('MOGACORE_ACCELERATED') == '0' else ''
    yield at_most('blocks that are not accelerated', plain, 0, note)
    for arch, (images, logits) in load_golden().items():
        if plan.quick and arch != 'xtiny':
            continue
        model = fill_by_name(MogaNetClassifier(arch=arch)).to(plan.device).eval()
        for form in FORMS:
            found = infer(model, images.to(plan.device), form=form).logits[:, : logits.shape[1]].cpu()
            yield at_most(f'fp32, {arch}, {form}: published logits', (found - logits).abs().max().item(), FP32_BAR)


def float64(plan: Plan) -> Iterator[Result]:
    """The accelerated block in float64 on the device: the same function, without the noise of rounding."""
    for subject in plan.subjects()[:1]:
        inference, training = exact(subject, 0)
        model = subject.network(plan.device).double()
        images, labels = subject.batch(0, plan.device)
        found = infer(model.eval(), images.double())
        yield at_most(f'float64, {subject.label}: logits', relative_error(found.logits, inference.logits), FLOAT64_BAR)
        found = train(model.train(), images.double(), labels)
        name, error = worst(kind_errors(found.gradients, training.gradients))
        yield at_most(f'float64, {subject.label}: gradients', error, FLOAT64_BAR, f'largest for {name}')


def precisions(plan: Plan) -> Iterator[Result]:
    """Logits and gradients in fp32 and in reduced precisions against float64."""
    for subject in plan.subjects():
        references = [exact(subject, seed) for seed in SEEDS]
        for precision in ['fp32', *plan.precisions()]:
            errors = {form: _errors(subject, plan.device, precision, form, references) for form in FORMS}
            label = f'{precision}, {subject.label}'
            if precision == 'fp32':
                for form in FORMS:
                    for part in ('logits in inference', 'logits in training', 'gradients'):
                        yield at_most(f'{label}, {form}: {part}', errors[form][part], FP32_BAR)
            else:
                for part in ('logits in inference', 'logits in training', 'gradients'):
                    ours, plain = (errors[form][part] for form in FORMS)
                    yield _ratio(f'{label}: {part}', ours, plain, RATIO_BAR)
            roles = [errors[form]['roles'] for form in FORMS]
            (role, ours), (_, plain) = map(worst, roles)
            other, ratio = worst({name: error / roles[1][name] for name, error in roles[0].items()})
            more = f', {role}; largest ratio {ratio:.2g}, {other}'
            yield _ratio(f'{label}: gradients of the worst role', ours, plain, ROLE_RATIO_BAR, more)


def _ratio(name: str, ours: float, plain: float, bar: float, more: str = '') -> Result:
    figure = ours / plain if plain else float(ours > 0)
    return at_most(f'{name}, error relative to plain', figure, bar, f'{ours:.2g} and {plain:.2g}{more}')


def _errors(subject: Subject, device: str, precision: str, form: str, references: list[tuple[Values, Values]]) -> dict:
    """Root mean square over the seeds of the relative errors of one form."""
    model = subject.network(device)
    logits, training, gradients, roles = [], [], [], []
    for seed, (inference, reference) in zip(SEEDS, references, strict=True):
        images, labels = subject.batch(seed, device)
        logits.append(relative_error(infer(model.eval(), images, precision, form).logits, inference.logits))
        found = train(model.train(), images, labels, precision, form)
        training.append(relative_error(found.logits, reference.logits))
        gradients.append(relative_error(_flat(found.gradients), _flat(reference.gradients)))
        roles.append(kind_errors(found.gradients, reference.gradients))
    return {
        'logits in inference': root_mean_square(logits),
        'logits in training': root_mean_square(training),
        'gradients': root_mean_square(gradients),
        'roles': {name: root_mean_square(one[name] for one in roles) for name in roles[0]},
    }


def _flat(gradients: dict[str, Tensor]) -> Tensor:
    return torch.cat([gradients[name].flatten() for name in sorted(gradients)])


def layouts(plan: Plan) -> Iterator[Result]:
    """Memory formats, strides, sizes, activation checkpointing and folded norms, in fp32 against float64."""
    subject = plan.subjects()[-1]
    expected = exact(subject, 0)
    images, labels = subject.batch(0, plan.device)
    images = images.contiguous()
    model = subject.network(plan.device)
    strided = torch.empty(*images.shape[:3], 2 * images.shape[3], device=plan.device)[..., ::2].copy_(images)
    last = torch.channels_last
    variants = {
        'contiguous images': (model, images),
        'images in channels_last': (model, images.contiguous(memory_format=last)),
        'strided images': (model, strided),
        'weights in channels_last': (subject.network(plan.device).to(memory_format=last), images),
        'all in channels_last': (
            subject.network(plan.device).to(memory_format=last), images.contiguous(memory_format=last),
        ),
        'activation checkpointing': (subject.network(plan.device, with_cp=True), images),
    }  # fmt: skip
    for name, (network, batch) in variants.items():
        yield from _compare(f'{subject.label}, {name}', network, batch, labels, expected)
    network = fuse(subject.network(plan.device).eval())
    error = relative_error(infer(network, images).logits, expected[0].logits)
    yield at_most(f'{subject.label}, folded norms: logits', error, FP32_BAR)
    for height, width, number in ((65, 97, 4), (64, 64, 1)):
        batch = torch.randn(number, 3, height, width, generator=torch.Generator().manual_seed(0)).to(plan.device)
        error = relative_error(infer(model.eval(), batch).logits, infer(model.eval(), batch, form='plain').logits)
        yield at_most(f'{subject.label}, {number} of {height} x {width} px: logits', error, FP32_BAR)


def _compare(
    name: str,
    model: MogaNetClassifier,
    images: Tensor,
    labels: Tensor,
    expected: tuple[Values, Values],
) -> Iterator[Result]:
    """Inference and training in fp32 against the exact values."""
    found = infer(model.eval(), images)
    yield at_most(f'{name}: logits', relative_error(found.logits, expected[0].logits), FP32_BAR)
    yield from _compare_gradients(name, train(model.train(), images, labels), expected[1])


def _compare_gradients(name: str, found: Values, expected: Values) -> Iterator[Result]:
    error = relative_error(_flat(found.gradients), _flat(expected.gradients))
    yield at_most(f'{name}: gradients', error, FP32_BAR)
    role, error = worst(kind_errors(found.gradients, expected.gradients))
    yield at_most(f'{name}: gradients of the worst role', error, ROLE_BAR, role)


def compiled(plan: Plan) -> Iterator[Result]:
    """torch.compile against float64: fp32 within a bar, bf16 relative to the error of the plain block."""
    backend = 'aot_eager' if plan.quick else 'inductor'
    if reason := missing_compiler(plan):
        raise Skip(reason)
    subject = plan.shallow()
    images, labels = subject.batch(0, plan.device)
    model = subject.network(plan.device)
    inference, training = exact(subject, 0)
    torch._dynamo.reset()
    error = relative_error(infer(torch.compile(model.eval(), backend=backend), images).logits, inference.logits)
    yield at_most(f'{subject.label}, {backend}: logits', error, FP32_BAR)
    if plan.is_cuda:
        torch._dynamo.reset()
        graphs = torch.compile(model, mode='reduce-overhead')
        infer(graphs, images)  # the first calls record the CUDA graph
        infer(graphs, images)
        error = relative_error(infer(graphs, images).logits, inference.logits)
        yield at_most(f'{subject.label}, {backend} with CUDA graphs: logits', error, FP32_BAR)
    model.train()
    if not plan.quick:  # tracing takes most of the time
        torch._dynamo.reset()
        found = train(model, images, labels, run=torch.compile(model, backend=backend))
        yield from _compare_gradients(f'{subject.label}, {backend}', found, training)
    if 'bf16' not in plan.precisions():
        yield Result(f'{subject.label}, {backend}: bf16', SKIPPED, note='the device has no bf16')
        return
    torch._dynamo.reset()
    found = train(model, images, labels, 'bf16', run=torch.compile(model, backend=backend))
    plain = train(model, images, labels, 'bf16', 'plain')
    for part, pick in (('logits', lambda values: values.logits), ('gradients', lambda values: _flat(values.gradients))):
        ours, theirs = (relative_error(pick(values), pick(training)) for values in (found, plain))
        yield _ratio(f'bf16, {subject.label}, {backend}: {part}', ours, theirs, RATIO_BAR)
    torch._dynamo.reset()


def missing_compiler(plan: Plan) -> str:
    """What torch.compile needs and this machine lacks; '' if nothing."""
    if plan.quick:
        return ''
    if not any(map(shutil.which, filter(None, (os.environ.get('CC'), 'cc', 'gcc', 'clang')))):
        return 'torch.compile needs a C compiler, and there is none'
    if plan.is_cuda and not Path(sysconfig.get_path('include'), 'Python.h').is_file():
        return 'torch.compile needs the headers of Python (Python.h), which are missing'
    return ''
