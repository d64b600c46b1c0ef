from importlib import import_module

import pytest
import torch
from conftest import fill_by_name
from mmcv.cnn import ConvModule, DepthwiseSeparableConvModule
from mmengine.model.utils import revert_sync_batchnorm
from torch import nn
from torch.nn.utils import prune

from mogacore.deploy import fuse, unfused
from mogacore.deploy.batch_norms import is_norm

IMAGES, VIDEO, SIGNAL, VECTOR = (2, 4, 9, 11), (2, 4, 5, 6, 7), (2, 4, 13), (5, 4)


def module(conv, norm, **settings):
    return ConvModule(4, 8, 3, padding=1, conv_cfg=dict(type=conv), norm_cfg=dict(type=norm), **settings)


class Block(nn.Module):
    """Convolutions and norms in lists, called by index, as heads do; with a flag and a residual sum."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(4, 4, 3, padding=1) for _ in range(2)])
        self.norms = nn.ModuleList([nn.SyncBatchNorm(4) for _ in range(2)])

    def forward(self, x, add=True):
        out = self.norms[1](self.convs[1](self.norms[0](self.convs[0](x)).relu()))
        return out + x if add else out


class Twice(nn.Module):
    """One branch for two inputs."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        return self.norm(self.conv(x)) - self.norm(self.conv(x.flip(3)))


def tower():
    """ConvModules of one class with each other, one of which is registered twice."""
    shared = module('Conv2d', 'BN')
    return nn.ModuleDict(
        dict(first=shared, second=nn.Sequential(shared, ConvModule(8, 8, 1, norm_cfg=dict(type='BN'))))
    )


def resnet(depth):
    from mmpretrain.models import ResNet

    return ResNet(depth, in_channels=4, stem_channels=8, base_channels=8, norm_cfg=dict(type='SyncBN'))


CASES = {
    'Conv1d': (lambda: module('Conv1d', 'BN1d'), SIGNAL),
    'Conv2d': (lambda: module('Conv2d', 'BN'), IMAGES),
    'Conv3d': (lambda: module('Conv3d', 'BN3d'), VIDEO),
    'SyncBN': (lambda: module('Conv2d', 'SyncBN', bias=True), IMAGES),
    'not affine': (lambda: module('Conv2d', 'BN', act_cfg=None, inplace=False), IMAGES),
    'padded by a layer': (lambda: module('Conv2d', 'BN', padding_mode='reflect'), IMAGES),
    'padded by the convolution': (lambda: module('Conv2dAdaptivePadding', 'BN', stride=2), IMAGES),
    'efficient': (lambda: module('Conv2d', 'BN', efficient_conv_bn_eval=True), IMAGES),
    'transposed': (lambda: module('deconv', 'BN', stride=2), IMAGES),
    'transposed in groups': (lambda: module('deconv', 'BN', groups=2), IMAGES),
    'transposed 3d': (lambda: module('deconv3d', 'BN3d', stride=2), VIDEO),
    'depthwise transposed': (
        lambda: nn.Sequential(nn.ConvTranspose2d(4, 4, 3, groups=4, bias=False), nn.BatchNorm2d(4)),
        IMAGES,
    ),
    'depthwise separable': (lambda: DepthwiseSeparableConvModule(4, 8, 3, norm_cfg=dict(type='SyncBN')), IMAGES),
    'linear': (lambda: nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.BatchNorm1d(8), nn.ReLU()), VECTOR),
    'nested': (
        lambda: nn.Sequential(nn.Sequential(nn.Conv2d(4, 8, 1)), nn.Identity(), nn.Sequential(nn.SyncBatchNorm(8))),
        IMAGES,
    ),
    'two norms': (lambda: nn.Sequential(nn.Conv2d(4, 8, 1), nn.BatchNorm2d(8), nn.SyncBatchNorm(8)), IMAGES),
    'lists': (Block, IMAGES),
    'called twice': (Twice, IMAGES),
    'ResNet-18': (lambda: resnet(18), (1, 4, 32, 32)),
    'ResNet-50': (lambda: resnet(50), (1, 4, 32, 32)),
}


def filled(model):
    with torch.no_grad():
        fill_by_name(model).double().eval()
    return model


@pytest.mark.parametrize('is_reverted', [False, True], ids=['', 'reverted'])
@pytest.mark.parametrize('case', CASES)
def test_every_norm_is_folded_and_the_output_is_equal_in_double_precision(case, is_reverted):
    build, shape = CASES[case]
    model = build()
    model = filled(revert_sync_batchnorm(model) if is_reverted else model)
    fused, x = fuse(model), torch.randn(shape, dtype=torch.double)
    assert sum(map(is_norm, model.modules())) > 0
    assert not any(map(is_norm, fused.modules())) and unfused(model) == {}
    with torch.no_grad():
        outputs, expected = fused(x), model(x)
    outputs, expected = (out if isinstance(out, torch.Tensor) else out[-1] for out in (outputs, expected))
    torch.testing.assert_close(outputs, expected, rtol=0, atol=1e-10)


class Branches(nn.Module):
    """A convolution that feeds what ``uses`` says."""

    def __init__(self, uses):
        super().__init__()
        self.conv, self.first, self.second = nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.uses = uses

    def forward(self, x):
        return self.uses(self, x)


def sharing_convolution():
    conv = nn.Conv2d(4, 4, 3, padding=1)
    return nn.Sequential(nn.Sequential(conv, nn.BatchNorm2d(4)), nn.Sequential(conv, nn.BatchNorm2d(4)))


def sharing_weight():
    model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3))
    model[2].weight = model[0].weight
    return model


def sharing_norm():
    norm = nn.BatchNorm2d(4)
    return nn.Sequential(nn.Conv2d(4, 4, 3), norm, nn.Conv2d(4, 4, 3), norm)


def sharing_activation():
    act = nn.Tanh()
    return nn.Sequential(act, nn.Conv2d(4, 4, 3), act, nn.BatchNorm2d(4))


def pruned():
    model = nn.Sequential(prune.l1_unstructured(nn.Conv2d(4, 4, 3), 'weight', 0.5), nn.BatchNorm2d(4))
    with torch.no_grad():
        model(torch.zeros(1, 4, 9, 9))  # torch cannot copy a pruned weight with a gradient
    return model


class Inside(nn.Module):
    """Uses a part of its own sequence."""

    def __init__(self):
        super().__init__()
        self.seq = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))

    def forward(self, x):
        return self.seq(x) + self.seq[0](x)


LEFT = {
    'before': (lambda: nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3)), {'0': 'no convolution'}),
    'shared convolution': (sharing_convolution, {'0.1': 'more than one place', '1.1': 'more than one place'}),
    'shared weight': (sharing_weight, {'1': 'shares its weights'}),
    'shared norm': (sharing_norm, {'1': 'more than one place'}),
    'shared activation': (sharing_activation, {'3': 'no convolution'}),
    'pruned': (pruned, {'1': 'modified Conv2d'}),
    'used twice': (lambda: Branches(lambda m, x: m.first(m.conv(x)) + m.conv(x)), {'first': 'more than one place'}),
    'two norms': (
        lambda: Branches(lambda m, x: m.first(m.conv(x)) + m.second(m.conv(x))),
        {'first': 'more than one place', 'second': 'more than one place'},
    ),
    'its weight read': (
        lambda: Branches(lambda m, x: m.first(m.conv(x)) * m.conv.weight.sum()),
        {'first': 'more than one place'},
    ),
    'residual': (lambda: Branches(lambda m, x: (y := m.conv(x)) + m.first(y)), {'first': 'also feeds other parts'}),
    'data dependent': (
        lambda: Branches(lambda m, x: m.first(m.conv(x)) if x.sum() > 0 else m.conv(x)),
        {'first': 'cannot be followed'},
    ),
    'part of a sequence': (Inside, {'seq.1': 'more than one place'}),
    'channels last': (
        lambda: nn.Sequential(nn.Linear(11, 9), nn.BatchNorm2d(4)),
        {'1': 'another axis'},
    ),
    'no statistics': (
        lambda: nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)),
        {'1': 'BatchNorm2d with a hook'},
    ),
}


@pytest.mark.parametrize('case', LEFT)
def test_a_norm_that_cannot_be_folded_is_left_and_named(case, monkeypatch):
    build, expected = LEFT[case]
    lines = []
    monkeypatch.setattr(import_module('mogacore.deploy.folding'), 'print_log', lambda line, *_: lines.append(line))
    model = filled(build())
    left = {name: reason for name, reason in unfused(model).items() if name in expected}
    assert left.keys() == expected.keys()
    assert all(expected[name] in reason for name, reason in left.items())
    fused, x = fuse(model), torch.randn(IMAGES, dtype=torch.double)
    with torch.no_grad():
        torch.testing.assert_close(fused(x), model(x), rtol=0, atol=1e-10)
    assert all(any(name in line and reason in line for line in lines) for name, reason in expected.items())


def test_a_module_registered_twice_is_folded_once():
    model, x = filled(tower()), torch.randn(IMAGES, dtype=torch.double)
    fused = fuse(model)
    assert fused['first'] is fused['second'][0] and unfused(model) == {}
    with torch.no_grad():
        torch.testing.assert_close(fused['second'](x), model['second'](x), rtol=0, atol=1e-10)
