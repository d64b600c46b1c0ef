"""Files of the Hugging Face hub, with a stand-in for its download function."""

import json
import sys

import pytest
import torch
from conftest import fill_by_name

import mogacore
from mogacore.checkpoint import check_source, load, read_any
from mogacore.checkpoint.hub import hub_config, parse_hub_name
from mogacore.errors import UserError

huggingface_hub = pytest.importorskip('huggingface_hub')

from huggingface_hub.utils import EntryNotFoundError, LocalEntryNotFoundError  # noqa: E402


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Folder of the repository me/net on the hub; calls are recorded in ``hub.calls``."""

    def download(repo, file, revision=None):
        calls.append((repo, file, revision))
        if repo != 'me/net':
            raise huggingface_hub.errors.HFValidationError(f'404 for {repo}\nsecond line')
        if not (tmp_path / file).exists():
            raise EntryNotFoundError(f'no {file}')
        return str(tmp_path / file)

    calls = []
    monkeypatch.setattr(huggingface_hub, 'hf_hub_download', download)
    return tmp_path, calls


@pytest.fixture(scope='module')
def trained():
    return fill_by_name(mogacore.create_model('moganet_xtiny', num_classes=4, in_chans=1)).eval()


def write_config(folder, **changes):
    content = {
        'architecture': 'moganet_xtiny',
        'num_classes': 4,
        'pretrained_cfg': {'input_size': [1, 96, 96], 'crop_pct': 1.0, 'mean': [0.5], 'std': [0.25], 'tag': 'x'},
        'model_args': {'in_chans': 1, 'num_classes': 4, 'global_pool': 'avg'},
    }
    (folder / 'config.json').write_text(json.dumps(content | changes))


def test_names_are_parsed():
    assert parse_hub_name('hf-hub:me/net') == ('me/net', None, None)
    assert parse_hub_name('hf-hub:me/net@v1.0') == ('me/net', 'v1.0', None)
    assert parse_hub_name('hf-hub:me/net@v1/a/b.pth') == ('me/net', 'v1', 'a/b.pth')
    assert parse_hub_name('hf-hub:me/net/b.pth') == ('me/net', None, 'b.pth')
    for bad in ('hf-hub:', 'hf-hub:me', 'hf-hub:me/net/../../b', 'hf-hub:me/net@', 'hf-hub:/me/net'):
        with pytest.raises(UserError, match=r'no name of the Hugging Face hub: write hf-hub:USER/NAME'):
            check_source(bad)


def test_model_of_the_hub_has_its_settings_and_weights(hub, trained):
    folder, calls = hub
    write_config(folder)
    torch.save(trained.state_dict(), folder / 'pytorch_model.bin')
    model = mogacore.create_model('hf-hub:me/net@v1').eval()
    x = torch.randn(1, 1, 64, 64)
    assert torch.equal(model(x), trained(x))
    assert calls == [('me/net', name, 'v1') for name in ('config.json', 'model.safetensors', 'pytorch_model.bin')]
    cfg = model.pretrained_cfg
    assert (cfg['input_size'], cfg['mean'], cfg['crop_pct']) == ((1, 96, 96), (0.5,), 1.0)
    assert cfg['hf_hub_id'] == 'me/net@v1' and cfg['source'] == 'hf-hub' and cfg['url'] is None
    maps = mogacore.create_model('hf-hub:me/net', features_only=True, out_indices=[0]).eval()(x)
    assert torch.equal(maps[0], trained.forward_intermediates(x)[1][0])


def test_arguments_override_those_of_the_hub(hub, trained):
    folder, _ = hub
    write_config(folder)
    torch.save(trained.state_dict(), folder / 'pytorch_model.bin')
    model = mogacore.create_model('hf-hub:me/net', num_classes=2, in_chans=3, new_head=True, global_pool='max').eval()
    assert (model.num_classes, model.in_chans, model.global_pool) == (2, 3, 'max')
    gray = torch.randn(1, 1, 64, 64)
    # Repeated and divided by three, the weights of one channel see a repeated gray image as before.
    expected = trained.forward_features(gray)
    assert torch.allclose(model.forward_features(gray.repeat(1, 3, 1, 1)), expected, rtol=1e-3, atol=1e-3)
    with pytest.raises(UserError, match='pass new_head=True'):
        mogacore.create_model('hf-hub:me/net', num_classes=2)
    with pytest.raises(UserError, match=r'hf-hub:me/net has its own weights: omit checkpoint'):
        mogacore.create_model('hf-hub:me/net', checkpoint='weights.pth')


def test_old_config_with_one_level(hub, trained):
    folder, _ = hub
    (folder / 'config.json').write_text(json.dumps({'architecture': 'moganet_xtiny', 'num_classes': 4, 'crop_pct': 1}))
    torch.save(
        mogacore.create_model('moganet_xtiny', num_classes=4, checkpoint=trained.state_dict()).state_dict(),
        folder / 'pytorch_model.bin',
    )
    model = mogacore.create_model('hf-hub:me/net')
    assert model.num_classes == 4 and model.pretrained_cfg['crop_pct'] == 1


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'architecture': 'resnet50'}, "the architecture 'resnet50': choose a model of moganet_xtiny"),
        ({'model_args': {'in_chans': 1, 'init_cfg': {}}}, 'unknown model_args init_cfg'),
        ({'model_args': []}, 'pretrained_cfg and model_args must be objects'),
        ({'pretrained_cfg': 'x'}, 'pretrained_cfg and model_args must be objects'),
    ],
)
def test_unusable_configs_are_refused(changes, message, hub):
    write_config(hub[0], **changes)
    with pytest.raises(UserError, match=message):
        mogacore.create_model('hf-hub:me/net')


@pytest.mark.parametrize('text', ['{', '[1]', '\xff'])
def test_damaged_config_is_one_line(text, hub):
    (hub[0] / 'config.json').write_bytes(text.encode('latin-1'))
    with pytest.raises(UserError, match=r'config.json of hf-hub:me/net is no JSON') as error:
        hub_config('hf-hub:me/net')
    assert '\n' not in str(error.value)


def test_any_loader_reads_the_hub_without_running_code(hub, trained):
    folder, _ = hub
    torch.save(trained.state_dict(), folder / 'a.pth')
    assert load('hf-hub:me/net/a.pth').keys() == trained.state_dict().keys()
    assert read_any('hf-hub:me/net/a.pth').keys() == trained.state_dict().keys()
    torch.save({'state_dict': {}, 'hook': print}, folder / 'b.pth')
    with pytest.raises(UserError, match=r'pickled code \(builtins.print\)|pickled code'):
        load('hf-hub:me/net/b.pth')


def test_safetensors_come_first(hub, trained):
    safetensors = pytest.importorskip('safetensors.torch')
    folder, _ = hub
    safetensors.save_file({k: v.contiguous() for k, v in trained.state_dict().items()}, folder / 'model.safetensors')
    (folder / 'pytorch_model.bin').write_text('not read')
    model = mogacore.create_model('moganet_xtiny', num_classes=4, in_chans=1, checkpoint='hf-hub:me/net')
    assert torch.equal(model.head.weight, trained.head.weight)


def test_errors_are_one_line(hub, monkeypatch):
    with pytest.raises(UserError, match=r'has no model.safetensors or pytorch_model.bin'):
        load('hf-hub:me/net')
    with pytest.raises(UserError, match=r'hf-hub:me/net/c.pth has no c.pth'):
        load('hf-hub:me/net/c.pth')
    with pytest.raises(UserError, match=r"has no config.json: pass a model's name"):
        mogacore.create_model('hf-hub:me/net')
    with pytest.raises(UserError, match=r'cannot be downloaded \(404 for me/other\): check the name') as error:
        mogacore.create_model('hf-hub:me/other')
    assert '\n' not in str(error.value)

    def offline(*args, **kwargs):
        raise LocalEntryNotFoundError('no connection')

    monkeypatch.setattr(huggingface_hub, 'hf_hub_download', offline)
    with pytest.raises(UserError, match=r'cannot be downloaded \(no connection\): check the name and the network'):
        load('hf-hub:me/net')


def test_a_cut_network_is_one_line(monkeypatch):
    """Its errors are those of the HTTP client, and of a client that is closed after the first try."""
    connect_error = type('ConnectError', (Exception,), {})  # no OSError, as in httpx
    for error in (connect_error('unreachable'), RuntimeError('the client has been closed')):

        def fail(*args, error=error, **kwargs):
            raise error

        monkeypatch.setattr(huggingface_hub, 'hf_hub_download', fail)
        with pytest.raises(UserError, match=r'cannot be downloaded \((unreachable|the client .*)\): check') as raised:
            mogacore.create_model('hf-hub:me/net')
        assert '\n' not in str(raised.value)


def test_missing_package_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
    for run in (mogacore.create_model, load, check_source):
        with pytest.raises(UserError, match=r'hf-hub:me/net needs huggingface_hub: pip install huggingface_hub'):
            run('hf-hub:me/net')
