import json
import runpy
import sys
from copy import deepcopy

import pytest
import torch
from conftest import ROOT, TINY_ARCH
from torch import nn

from mogacore import create_model
from mogacore.analysis import throughput
from mogacore.analysis.throughput import build, measure, saved_bytes
from mogacore.cli.benchmark import main
from mogacore.errors import UserError
from mogacore.models import MogaNet, MogaNetClassifier


def test_saved_bytes_by_hand():
    """ReLU keeps its output and the linear layer its input, here the same memory; parameters do not count."""
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    images = torch.randn(5, 4)
    # Saved: the images, the output of ReLU, and the input of the square in the loss.
    assert saved_bytes(net, images) == 4 * (5 * 4 + 5 * 6 + 5 * 2)


def test_accelerated_network_keeps_less_for_the_backward_pass_than_the_plain_one():
    model = MogaNet(TINY_ARCH).train()
    images = torch.randn(1, 3, 64, 64)
    assert saved_bytes(model, images) < 0.8 * saved_bytes(throughput.Plain(model), images)


@pytest.mark.parametrize('name', ['moganet_xtiny', 'moganet_tiny'])
def test_plain_network_is_the_same_function(name):
    model = create_model(name, drop_path_rate=0.0).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(throughput.Plain(model)(images), model(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('mode', ['infer', 'train'])
def test_networks_are_timed_in_turn(mode, monkeypatch):
    monkeypatch.setattr(throughput, 'build', lambda name: MogaNet(TINY_ARCH))
    order = []
    timed = throughput.timed
    monkeypatch.setattr(throughput, 'timed', lambda run, device: order.append(run) or timed(run, device))
    first, second = measure([('a', 'eager'), ('b', 'eager')], (3, 32, 32), 2, mode, rounds=3)
    assert order[0] is order[2] is order[4] and order[1] is order[3] is order[5] and order[0] is not order[1]
    assert first.ratios == [1.0] * 3
    assert second.ratios == [a / b for a, b in zip(first.seconds, second.seconds, strict=True)]
    assert (first.saved_bytes is None) == (mode == 'infer')
    row = second.summary(batch_size=2)
    assert row['images_per_s'] == pytest.approx(2e3 / row['ms'])
    assert row['ratio_quartiles'][0] <= row['ratio'] <= row['ratio_quartiles'][1]


def test_fused_network_is_reported_with_its_error(monkeypatch):
    monkeypatch.setattr(throughput, 'build', lambda name: MogaNet(TINY_ARCH))
    (found,) = measure([('a', 'fused')], (3, 32, 32), 1, rounds=1)
    assert 0 <= found.error < 1e-4


def test_configs_and_models_of_other_libraries_are_networks():
    pytest.importorskip('mmseg')
    backbone = build(str(ROOT / 'configs' / 'segmentation' / 'upernet_moganet-xtiny_digits.py'))
    assert type(backbone) is MogaNet
    assert sum(p.numel() for p in build('torchvision:resnet18').parameters()) == 11_689_512


@pytest.mark.parametrize(
    'networks, settings, message',
    [
        ([('resnet', 'eager')], {}, "network 'resnet' is unknown: choose from moganet_"),
        ([('torchvision:none', 'eager')], {}, "torchvision has no model 'none'"),
        ([('moganet_xtiny', 'fast')], {}, "backend 'fast' is unknown: choose from eager"),
        ([('moganet_xtiny', 'fused')], dict(mode='train'), "backend 'fused' cannot train"),
        ([('plain:moganet_xtiny', 'fused')], {}, 'a plain network has no fused form'),
        ([('moganet_xtiny', 'eager')], dict(mode='sleep'), "mode 'sleep' is unknown"),
        ([('moganet_xtiny', 'eager')], dict(rounds=0), '0 rounds'),
    ],
)
def test_invalid_settings_are_reported(networks, settings, message):
    with pytest.raises(UserError, match=message):
        measure(networks, (3, 32, 32), 1, **settings)


@pytest.mark.parametrize('shape', [(4, 32, 32), (3, 0, 32), (3, -1, 32), (32, 32)])
def test_a_shape_that_does_not_fit_is_one_line(shape, monkeypatch):
    monkeypatch.setattr(
        throughput, 'build', lambda name: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(3600, 2))
    )
    text = ' x '.join(map(str, shape))
    with pytest.raises(UserError, match=f'net does not accept inputs of {text}|shape {text} is invalid') as caught:
        measure([('net', 'eager')], shape, batch_size=1, rounds=1)
    assert '\n' not in str(caught.value)


def test_tool_writes_json_and_a_plot(tmp_path, monkeypatch, capsys):
    args = [
        'benchmark.py',
        'moganet_xtiny',
        '--backends',
        'eager',
        'fused',
        '--shape',
        '3',
        '32',
        '32',
        '--rounds',
        '2',
    ]
    args += [
        '--batch-size',
        '1',
        '--device',
        'cpu',
        '--json',
        str(tmp_path / 'b.json'),
        '--plot',
        str(tmp_path / 'b.png'),
    ]
    monkeypatch.setattr(sys, 'argv', args)
    with pytest.raises(SystemExit) as leave:
        runpy.run_path(str(ROOT / 'tools' / 'benchmark.py'), run_name='__main__')
    assert not leave.value.code
    report = json.loads((tmp_path / 'b.json').read_text())
    assert [row['backend'] for row in report['measurements']] == ['eager', 'fused']
    assert report['measurements'][0]['params'] == 2_956_066
    assert report['measurements'][0]['macs'] / 1e9 == pytest.approx(0.79 / 49, rel=0.05)
    assert 'fused' in capsys.readouterr().out
    assert (tmp_path / 'b.png').stat().st_size > 5000


@pytest.mark.parametrize('flags, calls', [([], 0), (['--keep-freed-memory'], 1)])
def test_freed_memory_is_kept_on_request(flags, calls, monkeypatch, capsys):
    called = []
    monkeypatch.setattr('mogacore.process.keep_freed_memory', lambda: not called.append(1))
    small = ['--shape', '3', '32', '32', '--batch-size', '1', '--rounds', '1', '--device', 'cpu']
    main(['moganet_xtiny', *small, *flags])
    assert len(called) == calls and 'moganet_xtiny' in capsys.readouterr().out
    monkeypatch.setattr('mogacore.process.keep_freed_memory', lambda: False)
    with pytest.raises(UserError, match='needs the GNU C library'):
        main(['moganet_xtiny', '--keep-freed-memory'])


@pytest.mark.parametrize('args, message', [
    (['moganet_xtiny@fused', '--backends', 'eager'], '--backends eager has no effect on networks that all name'),
    (['moganet_xtiny', '--image', 'x.png'], '--image x.png has no effect without --checkpoint'),
    (['moganet_xtiny', '--sizes', '32', '--shape', '3', '64', '64'], '--shape 3 64 64 has no effect with --sizes'),
    (['moganet_xtiny', '--batch-sizes', '1', '--batch-size', '2'], '--batch-size 2 has no effect with --batch-sizes'),
    (['moganet_xtiny', '--batch-sizes', '1', '--shape', '3', '64', '32'], '--shape 3 64 32 is not that of a square'),
    (['moganet_xtiny', '--batch-sizes', '1', '--shape', '1', '64', '64'], '--shape 1 64 64 is not that of a square'),
    (['moganet_xtiny', 'moganet_tiny', '--sizes', '32'], 'give one instead of 2'),
    (['moganet_xtiny', '--backends', 'eager', 'fused', '--sizes', '32'], 'give one instead of 2'),
])  # fmt: skip
def test_an_option_without_effect_is_refused(args, message):
    with pytest.raises(UserError, match=message):
        main(args)


@pytest.mark.parametrize('backend', ['onnx', 'openvino'])
def test_a_runtime_is_not_timed_in_a_type_that_it_does_not_use(backend):
    settings = dict(batch_size=1, rounds=1, dtype=torch.bfloat16)
    with pytest.raises(UserError, match=f'backend {backend} computes in fp32: omit --dtype'):
        measure([('moganet_xtiny', backend)], (3, 32, 32), **settings)


def test_training_follows_the_plain_network():
    """Fifty steps on seeded images: the losses agree to a thousandth."""
    fast = MogaNetClassifier(num_classes=5, arch=TINY_ARCH, layer_scale_init=0.1)
    plain = throughput.Plain(deepcopy(fast))
    curves = []
    for network in (fast, plain):
        torch.manual_seed(1)
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
        losses = []
        for _ in range(50):
            images, labels = torch.randn(8, 3, 32, 32), torch.randint(5, (8,))
            images += labels.view(-1, 1, 1, 1)
            loss = nn.functional.cross_entropy(network(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        curves.append(torch.tensor(losses))
    assert curves[1][-5:].mean() < 0.8 * curves[1][:5].mean()
    torch.testing.assert_close(*curves, rtol=0, atol=1e-3)
