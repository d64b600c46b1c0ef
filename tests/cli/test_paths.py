"""A path that contains = or @ is not split as a label or checkpoint if it exists."""

import pytest

from mogacore.analysis import growth
from mogacore.analysis.classifiers import ModelSpec, parse_model
from mogacore.cli import benchmark
from mogacore.cli.plots import split_label


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ('runs/lr=0.1@2/net.py', 'runs/lr=0.1@2/epoch=4-step=100.ckpt', 'net.py', 'a@b/w.pth'):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


@pytest.mark.parametrize(
    'text, label, name, checkpoint',
    [
        ('net.py@a@b/w.pth', 'net', 'net.py', 'a@b/w.pth'),
        ('net.py@runs/lr=0.1@2/epoch=4-step=100.ckpt', 'net', 'net.py', 'runs/lr=0.1@2/epoch=4-step=100.ckpt'),
        ('runs/lr=0.1@2/net.py@a@b/w.pth', 'net', 'runs/lr=0.1@2/net.py', 'a@b/w.pth'),
        ('x=runs/lr=0.1@2/net.py', 'x', 'runs/lr=0.1@2/net.py', None),
        ('lr=0.1=runs/lr=0.1@2/net@a@b/w.pth', 'lr=0.1', 'runs/lr=0.1@2/net', 'a@b/w.pth'),
        ('net.py@missing/epoch=4.ckpt', 'net', 'net.py', 'missing/epoch=4.ckpt'),
        ('x=moganet_tiny@mogacore://moganet_tiny', 'x', 'moganet_tiny', 'mogacore://moganet_tiny'),
        ('moganet_tiny@https://host/w.pth?a=b@c', 'moganet_tiny', 'moganet_tiny', 'https://host/w.pth?a=b@c'),
        ('timm:resnet50@pretrained', 'timm:resnet50', 'timm:resnet50', 'pretrained'),
        ('x=missing.py@w=1.pth', 'x', 'missing.py', 'w=1.pth'),
        ('missing.py@w=1.pth', 'missing', 'missing.py', 'w=1.pth'),
    ],
)
def test_an_existing_model_and_checkpoint_win_over_the_split(text, label, name, checkpoint):
    assert parse_model(text) == ModelSpec(label, name, checkpoint)


@pytest.mark.parametrize(
    'text, expected',
    [
        ('runs/lr=0.1@2', ('', 'runs/lr=0.1@2')),
        ('x=runs/lr=0.1@2', ('x', 'runs/lr=0.1@2')),
        ('lr=1=runs/lr=0.1@2', ('lr=1', 'runs/lr=0.1@2')),
        ('x=missing', ('x', 'missing')),
        ('missing', ('', 'missing')),
    ],
)
def test_an_existing_work_dir_wins_over_its_label(text, expected):
    assert split_label(text) == expected


def test_an_existing_config_wins_over_its_backend(monkeypatch):
    given = []
    monkeypatch.setattr(growth, 'benchmark', lambda networks, *args, **kwargs: given.extend(networks) or {})
    monkeypatch.setattr(benchmark, 'table', str)
    path = 'runs/lr=0.1@2/net.py'
    benchmark.main([path, f'{path}@fused', f'plain:{path}', 'moganet_tiny@compiled', 'moganet_tiny'])
    plain = [(path, 'eager'), (path, 'fused'), (f'plain:{path}', 'eager')]
    assert given == [*plain, ('moganet_tiny', 'compiled'), ('moganet_tiny', 'eager')]
