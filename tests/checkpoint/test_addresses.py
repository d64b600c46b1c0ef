"""Every command that takes a weight file takes a path with any characters, a URL and a mogacore:// name."""

import shutil
import sys

import pytest
import torch
from tiny_project import inside_project
from weight_server import serve

from mogacore.analysis.classifiers import ModelSpec, build_classifier, open_classifiers, parse_model
from mogacore.checkpoint import read
from mogacore.cli import main as command
from mogacore.deploy.source import load_source
from mogacore.errors import UserError

pytest.importorskip('mmpretrain')
IMAGE = 'data/val/3/a.png'
ODD_NAME = 'runs/lr=0.1@2/epoch=4-step=100.ckpt'


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    with inside_project(tmp_path_factory.mktemp('project')) as folder:
        (folder / ODD_NAME).parent.mkdir(parents=True)
        shutil.copy('trained/epoch_1.pth', ODD_NAME)
        shutil.copy('tiny.py', 'runs/lr=0.1@2/tiny.py')
        yield folder


@pytest.fixture
def sources(project, tmp_path, monkeypatch):
    """The same weights by URL, by name and by a path with special characters; the cache is empty."""
    with serve() as server:
        server.content = (project / 'trained' / 'epoch_1.pth').read_bytes()
        monkeypatch.setattr('mogacore.published.results.official_weights', lambda: {'tiny': server.url('tiny.pth')})
        monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
        yield {'url': server.url('a/model.pth?download=true'), 'name': 'mogacore://tiny', 'path': ODD_NAME}


def call(*args):
    with pytest.raises(SystemExit) as leave:
        command.main(list(args))
    return leave.value.code or 0


KINDS = pytest.mark.parametrize('kind', ['url', 'name', 'path'])


@KINDS
def test_infer(sources, kind):
    assert call('infer', 'tiny.py', sources[kind], IMAGE, '--out-dir', 'out', '--device', 'cpu') == 0


@KINDS
def test_test(sources, kind):
    assert call('test', 'tiny.py', sources[kind], '--work-dir', 'tested', '--cfg-options', 'log_level=ERROR') == 0


@KINDS
def test_convert(sources, kind, tmp_path, project):
    assert call('convert', sources[kind], str(tmp_path / 'out.pth')) == 0
    ours, trained = read(tmp_path / 'out.pth')['state_dict'], read(project / 'trained' / 'epoch_1.pth')['state_dict']
    assert all(torch.equal(ours[name], trained[name]) for name in trained)


@KINDS
def test_cam(sources, kind, capsys):
    for config in ('tiny.py', 'runs/lr=0.1@2/tiny.py'):
        assert call('cam', IMAGE, f'{config}@{sources[kind]}', '--out-dir', 'out', '--device', 'cpu') == 0
        assert '\ntiny: ' in capsys.readouterr().out


@KINDS
def test_interactions(sources, kind):
    (classifier,) = open_classifiers([parse_model(f'ours=tiny.py@{sources[kind]}')], device='cpu')
    assert classifier.spec.label == 'ours'


@KINDS
def test_export(sources, kind):
    assert load_source('tiny.py', sources[kind]).shape == (1, 32, 32)


@KINDS
def test_resume(sources, kind, tmp_path):
    args = ['--resume', sources[kind], '--cfg-options', 'log_level=ERROR', 'train_cfg.max_epochs=2']
    assert call('train', 'tiny.py', '--work-dir', str(tmp_path), *args) == 0
    assert read(tmp_path / 'epoch_2.pth')['meta']['epoch'] == 2


@KINDS
def test_load_from(sources, kind, tmp_path):
    args = ['--cfg-options', f'load_from={sources[kind]}', 'log_level=ERROR', 'train_cfg.max_epochs=1']
    assert call('train', 'tiny.py', '--work-dir', str(tmp_path), *args) == 0


@KINDS
def test_networks_by_name(sources, kind, monkeypatch):
    """The weights are of another network, so the error shows that they were read."""
    monkeypatch.setattr('mogacore.analysis.classifiers.create_model', lambda *args, **kwargs: torch.nn.Linear(1, 1))
    with pytest.raises(UserError, match=r'not fit Linear'):
        build_classifier(ModelSpec('a', 'moganet_tiny', sources[kind]), 10, 1)


@pytest.mark.parametrize('name', ['mogacore://tinny', 'missing.pth', 'runs'])
@pytest.mark.parametrize('kind', ['infer', 'test', 'convert', 'cam', 'resume'])
def test_a_wrong_name_is_one_line(sources, kind, name, capsys):
    args = {
        'infer': ['infer', 'tiny.py', name, IMAGE, '--out-dir', 'out'],
        'test': ['test', 'tiny.py', name],
        'convert': ['convert', name, 'new.pth'],
        'cam': ['cam', IMAGE, f'tiny.py@{name}', '--out-dir', 'out'],
        'resume': ['train', 'tiny.py', '--work-dir', 'new', '--resume', name],
    }[kind]
    assert call(*args) == 2
    (line,) = capsys.readouterr().err.splitlines()
    reason = {'mogacore://tinny': 'did you mean tiny', 'missing.pth': 'does not exist', 'runs': 'it is a folder'}[name]
    assert name in line and reason in line


def test_the_chosen_set_of_weights_is_reported(project, tmp_path, monkeypatch):
    state = read(project / 'trained' / 'epoch_1.pth')
    torch.save({'model': state['state_dict'], 'ema': state['state_dict']}, tmp_path / 'two.pth')
    lines = []
    module = sys.modules['mogacore.checkpoint.names']
    monkeypatch.setattr(module, 'print_log', lambda text, logger: lines.append(text))
    assert call('infer', 'tiny.py', str(tmp_path / 'two.pth'), IMAGE, '--out-dir', 'out', '--device', 'cpu') == 0
    args = ['--work-dir', 'tested', '--cfg-options', 'log_level=ERROR', 'load_ema=True']
    assert call('test', 'tiny.py', str(tmp_path / 'two.pth'), *args) == 0
    assert [line.rpartition(': ')[2] for line in lines] == ['using the raw ones', 'using the EMA ones']
