import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from conftest import DATA

from mogacore.analysis import gpu
from mogacore.analysis.gpu.golden import load_golden
from mogacore.analysis.gpu.numerics import SEEDS
from mogacore.analysis.gpu.subjects import TINY, Subject, exact, tf32, train


@pytest.mark.parametrize('arch', ['xtiny', 'small', 'base'])
def test_packaged_logits_are_those_of_the_published_network(arch):
    images, logits = load_golden()[arch]
    stored = np.load(DATA / f'moganet_{arch}_{images.shape[2]}x{images.shape[3]}.npz')['logits']
    assert np.array_equal(logits.numpy(), stored[:, :100])


def test_the_reference_is_computed_by_the_plain_block_in_float64(monkeypatch):
    monkeypatch.setattr('mogacore.models.accelerated.run_block', None)  # a call would fail
    inference, training = exact(Subject('', TINY, 32), 0)
    assert inference.logits.dtype == training.logits.dtype == torch.float64
    assert {value.dtype for value in training.gradients.values()} == {torch.float64}


def test_gradients_equal_finite_differences():
    subject = Subject('', TINY, 32, batch_size=2)
    model = subject.network().double()
    images, labels = subject.batch(0)
    images = images.double()
    gradients = train(model, images, labels).gradients
    for name in ('blocks2.0.layer_scale_1', 'blocks1.0.mlp.sigma.scale', 'patch_embed1.projection.0.weight'):
        parameter = model.get_parameter(name)
        direction = torch.randn_like(parameter)
        losses = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter += sign * 1e-5 * direction
                losses.append(torch.nn.functional.cross_entropy(model(images), labels))
                parameter -= sign * 1e-5 * direction
        slope = ((losses[0] - losses[1]) / 2e-5).item()
        assert (gradients[name] * direction).sum().item() == pytest.approx(slope, rel=1e-6, abs=1e-9)


def test_seeds_give_the_same_weights_and_other_images():
    subject = Subject('', TINY, 32)
    first, again, other = (subject.batch(seed)[0] for seed in (SEEDS[0], SEEDS[0], SEEDS[1]))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert all(map(torch.equal, subject.network().parameters(), subject.network().parameters()))


def test_tf32_is_set_and_restored():
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    for allowed in (True, False):
        with tf32(allowed):
            assert torch.backends.cudnn.allow_tf32 is torch.backends.cuda.matmul.allow_tf32 is allowed
    assert before == (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)


@pytest.mark.parametrize('is_missing', [True, False])
def test_an_empty_module_stands_in_for_a_missing_opencv_only(monkeypatch, is_missing):
    if is_missing:
        monkeypatch.setitem(sys.modules, 'cv2', None)  # an import fails
    gpu.allow_missing_opencv()
    import cv2

    assert hasattr(cv2, 'imread') != is_missing
    assert find_spec('cv2').name == 'cv2'
    gpu.allow_missing_opencv()  # again
    assert sys.modules['cv2'] is cv2
