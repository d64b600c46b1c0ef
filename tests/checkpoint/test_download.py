"""Downloads from a local server: complete, partial, resumed, verified."""

import hashlib
import io
import re
import sys

import pytest
import torch
from conftest import TINY_ARCH, fill_by_name
from weight_server import CONTENT, serve

from mogacore import checkpoint as ckpt
from mogacore import create_model
from mogacore.checkpoint import download
from mogacore.errors import UserError
from mogacore.models import MogaNet, factory
from mogacore.published import load_results, official_weights, results


@pytest.fixture
def server():
    with serve() as server:
        yield server


def test_a_file_is_downloaded_once_and_its_checksum_recorded(server, tmp_path):
    path = download.fetch(server.url(), tmp_path)
    assert path == download.cached_path(server.url(), tmp_path) and path.read_bytes() == CONTENT
    assert path.name == 'w.pth' and path.is_relative_to(tmp_path)
    assert download.recorded(path) == hashlib.sha256(CONTENT).hexdigest()
    assert sorted(p.name for p in path.parent.iterdir()) == ['w.pth', 'w.pth.sha256']
    assert (path.parent / 'w.pth.sha256').read_text() == f'{hashlib.sha256(CONTENT).hexdigest()}  w.pth\n'
    download.fetch(server.url(), tmp_path)
    assert len(server.ranges) == 1


@pytest.mark.parametrize(
    'names', [('a/w.bin', 'b/w.bin'), ('w.bin?id=1', 'w.bin?id=2'), ('a/', 'b/'), ('a%2Fw.bin', 'b%2Fw.bin')]
)
def test_two_addresses_with_the_same_last_name_give_their_own_files(server, tmp_path, names):
    found = []
    for number, name in enumerate(names):
        server.content = bytes([number]) * 100
        found.append(download.fetch(server.url(name), tmp_path))
    assert [path.read_bytes()[0] for path in found] == [0, 1]
    assert all(path.parent.parent == tmp_path for path in found)  # an address cannot name a path outside the cache


def test_a_file_in_the_cache_of_other_tools_is_used_if_its_name_contains_its_hash(server, tmp_path):
    digest = hashlib.sha256(CONTENT).hexdigest()
    for name in (f'net-{digest[:8]}.pth', 'net-00000000.pth', 'net.pth'):
        (tmp_path / name).write_bytes(CONTENT)
    assert download.fetch(server.url(f'x/net-{digest[:8]}.pth'), tmp_path).parent == tmp_path
    assert not server.ranges
    for name in ('net-00000000.pth', 'net.pth'):
        assert download.fetch(server.url(f'x/{name}'), tmp_path).parent != tmp_path
    assert len(server.ranges) == 2


def test_published_files_keep_their_plain_names_in_the_cache(tmp_path):
    addresses = set(official_weights().values())
    paths = {download.cached_path(address, tmp_path) for address in addresses}
    assert len(paths) == len(addresses) and {path.parent for path in paths} == {tmp_path}
    name = next(iter(sorted(addresses))).rpartition('/')[2]
    assert download.cached_path(f'https://elsewhere/{name}', tmp_path).parent != tmp_path


def test_a_changed_file_is_detected_by_its_checksum(server, tmp_path):
    path = download.fetch(server.url(), tmp_path)
    path.write_bytes(CONTENT[:-1] + b'x')
    with pytest.raises(UserError, match='has changed since its first use'):
        download.fetch(server.url(), tmp_path)


def test_an_interrupted_download_resumes_where_it_stopped(server, tmp_path):
    server.cut, server.cuts = 700_000, 2
    assert download.fetch(server.url(), tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, 'bytes=700000-', 'bytes=1400000-']


def test_a_failed_download_is_resumed_by_the_next_call(server, tmp_path):
    server.cut, server.cuts = 300_000, 3
    with pytest.raises(UserError, match='cannot be downloaded'):
        download.fetch(server.url(), tmp_path)
    path = download.cached_path(server.url(), tmp_path)
    assert path.with_name('w.pth.partial').stat().st_size == 900_000 and not path.exists()
    assert download.fetch(server.url(), tmp_path).read_bytes() == CONTENT
    assert server.ranges[-1] == 'bytes=900000-'
    assert not list(tmp_path.rglob('*.partial*'))


def test_a_file_that_changed_on_the_server_is_downloaded_from_the_start(server, tmp_path):
    server.cut, server.cuts = 300_000, 3
    with pytest.raises(UserError):
        download.fetch(server.url(), tmp_path)
    server.content, server.etag = CONTENT[::-1], '"two"'
    assert download.fetch(server.url(), tmp_path).read_bytes() == CONTENT[::-1]


def test_a_complete_partial_file_is_accepted(server, tmp_path):
    path = download.cached_path(server.url(), tmp_path)
    path.parent.mkdir()
    path.with_name('w.pth.partial').write_bytes(CONTENT)
    path.with_name('w.pth.partial.etag').write_text('"one"')
    assert download.fetch(server.url(), tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize('name', ['gone.pth', None])
def test_a_failed_download_explains_the_manual_download_in_one_line(server, tmp_path, name):
    url = server.url(name) if name else 'http://127.0.0.1:9/w.pth'  # no server listens on the discard port
    with pytest.raises(UserError) as caught:
        download.fetch(url, tmp_path)
    text = str(caught.value)
    assert url in text and f'download it manually to {tmp_path}' in text and '\n' not in text
    assert '(HTTP 404 Not Found)' in text if name else re.search(r'\(\[Errno \d+\] [\w ]+\)', text)


def test_a_terminal_shows_the_progress_and_a_new_cache_folder_is_created(server, tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv('TERM', 'xterm')
    monkeypatch.setattr(sys, 'stderr', Terminal())
    assert download.fetch(server.url(), tmp_path / 'new' / 'cache').read_bytes() == CONTENT
    assert 'w.pth' in sys.stderr.getvalue() and '2.1/2.1 MB' in sys.stderr.getvalue()


def test_a_manually_downloaded_file_is_used_without_network(tmp_path):
    path = download.cached_path('http://127.0.0.1:9/w.pth', tmp_path)
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    assert download.fetch('http://127.0.0.1:9/w.pth', tmp_path) == path
    assert download.recorded(path)


def test_every_published_name_has_its_url():
    addresses = official_weights()
    assert addresses['moganet_large'].endswith('/moganet_large_sz224_8xbs64_ep300.pth.tar')
    assert addresses['retinanet_moganet_tiny_fpn_1x_coco'].startswith(
        'https://github.com/Westlake-AI/MogaNet/releases/'
    )
    published = {result.weights for result in load_results() if result.weights}
    assert set(addresses.values()) == published and len(addresses) == len(published) + 6
    with pytest.raises(UserError, match='did you mean moganet_tiny'):
        ckpt.official_address('mogacore://moganet_tny')


@pytest.fixture
def zoo(server, tmp_path, monkeypatch):
    """A release of a small network on our server, under an official name, with raw and averaged weights."""
    model = fill_by_name(factory.MogaNetClassifier(10, arch=TINY_ARCH))
    raw = model.state_dict()
    averaged = {name: value + 1 if value.is_floating_point() else value for name, value in raw.items()}
    torch.save({'author': 'MogaNet', 'state_dict': raw, 'state_dict_ema': averaged}, tmp_path / 'release')
    server.content = (tmp_path / 'release').read_bytes()
    name = 'moganet_small_sz224_8xbs128_ep300.pth.tar'
    addresses = {'moganet_small': server.url(name)}
    monkeypatch.setattr('mogacore.published.results.official_weights', lambda: addresses)
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    monkeypatch.setattr('mogacore.published.archs.ARCHS', {'small': dict(TINY_ARCH, drop_path_rate=0.0)})
    monkeypatch.setattr('mogacore.models.factory.ARCHS', {'small': None})
    return raw, averaged


def test_official_weights_are_the_set_behind_the_published_accuracy(zoo):
    _, averaged = zoo
    for checkpoint in ('official', 'mogacore://moganet_small'):
        model = create_model('moganet_small', num_classes=10, checkpoint=checkpoint)
        assert torch.equal(model.state_dict()['head.weight'], averaged['head.weight'])
    with pytest.raises(UserError, match='was trained with attn_force_fp32=False'):
        create_model('moganet_small', num_classes=10, checkpoint='official', attn_force_fp32=True)


@pytest.mark.parametrize('name', ['official', 'mogacore://moganet_small'])
def test_init_cfg_accepts_the_same_names_and_uses_the_plain_set(zoo, name, monkeypatch):
    raw, _ = zoo
    monkeypatch.setattr(ckpt.sources.mmengine_checkpoint.CheckpointLoader, '_schemes', {})
    monkeypatch.setattr(ckpt.sources.mmengine_checkpoint, 'load_from_http', None)
    ckpt.register_safe_loader()
    model = MogaNet('small', init_cfg=dict(type='Pretrained', checkpoint=name))
    model.init_weights()
    key = 'blocks1.0.attn.proj_1.weight'
    assert torch.equal(model.state_dict()[key], raw[key])


def test_official_needs_a_published_size():
    model = MogaNet(TINY_ARCH, init_cfg=dict(type='Pretrained', checkpoint='official'))
    with pytest.raises(UserError, match='set arch to the name of a size'):
        model.init_weights()


def test_a_url_gives_the_names_that_the_libraries_expect(zoo, server, monkeypatch):
    """mmpretrain's get_model(pretrained=True) maps no names and skips unknown ones."""
    _, averaged = zoo
    address = server.url('moganet_small_sz224_8xbs128_ep300.pth.tar')
    lines = []
    monkeypatch.setattr(sys.modules['mogacore.checkpoint.names'], 'print_log', lambda text, logger: lines.append(text))
    state_dict = ckpt.load_from_http(address)['state_dict']
    assert lines == [f'{address} contains raw and EMA weights: using the EMA ones']
    assert torch.equal(state_dict['head.fc.weight'], averaged['head.weight'])
    assert all(name.startswith(('backbone.', 'head.fc.')) for name in state_dict)
    assert results.result_of_weights('moganet_small_sz224_8xbs128_ep300.pth.tar')[0].weight_set == 'ema'
