"""mmengine's loaders read safely from files, URLs and names."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import CheckpointLoader, Runner, load_checkpoint
from mmengine.runner import checkpoint as mmengine_checkpoint
from torch import nn
from weight_files import Payload

from mogacore import checkpoint as ckpt
from mogacore.checkpoint import load, read
from mogacore.checkpoint.sources import official_address, weights_of
from mogacore.errors import UserError
from mogacore.published.results import official_weights


@pytest.fixture
def safe_loader(monkeypatch):
    """Register our loader in mmengine; restored afterwards."""
    monkeypatch.setattr(CheckpointLoader, '_schemes', CheckpointLoader._schemes.copy())
    monkeypatch.setattr(mmengine_checkpoint, 'load_from_http', mmengine_checkpoint.load_from_http)
    ckpt.register_safe_loader()


class Toy(BaseModel):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1)
        self.bn = nn.BatchNorm2d(2)

    def forward(self, inputs, mode='tensor'):
        return {'loss': self.bn(self.conv(torch.stack(inputs))).square().mean()}


class Noise(torch.utils.data.Dataset):
    def __init__(self):
        self.metainfo = dict(classes=('a', 'b'), sigmas=np.array([0.1, 0.2], np.float32))

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return {'inputs': torch.randn(1, 2, 2)}


def toy_runner(work_dir, max_epochs, **kwargs):
    return Runner(
        Toy(),
        work_dir=str(work_dir),
        train_dataloader=dict(dataset=Noise(), batch_size=2, sampler=dict(type='DefaultSampler', shuffle=True)),
        train_cfg=dict(by_epoch=True, max_epochs=max_epochs),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.1)),
        param_scheduler=[dict(type='LinearLR', start_factor=0.5, end=2), dict(type='CosineAnnealingLR', T_max=2)],
        custom_hooks=[dict(type='EMAHook')],
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1)),
        log_level='ERROR',
        experiment_name=f'{Path(work_dir).name}_{max_epochs}',
        **kwargs,
    )


class TestMMEngine:
    def test_a_training_file_is_read_completely_and_resumed(self, tmp_path, safe_loader):
        runner = toy_runner(tmp_path, max_epochs=1)
        runner.message_hub.update_info('best_score', np.float64(0.5))
        runner.train()
        path = tmp_path / 'epoch_1.pth'
        found, trusted = read(path), torch.load(path, weights_only=False)

        assert found.keys() == trusted.keys()
        assert {'optimizer', 'param_schedulers', 'ema_state_dict'} <= found.keys()
        assert found['message_hub']['runtime_info']['best_score'] == 0.5
        assert found['meta']['dataset_meta']['classes'] == ('a', 'b')
        np.testing.assert_array_equal(found['meta']['dataset_meta']['sigmas'], Noise().metainfo['sigmas'])
        for name, history in trusted['message_hub']['log_scalars'].items():
            ours = found['message_hub']['log_scalars'][name]
            assert type(ours) is type(history)
            np.testing.assert_array_equal(ours.data[0], history.data[0])
            assert ours.mean() == history.mean()

        raw, averaged = runner.model.state_dict(), runner._hooks
        averaged = next(hook for hook in averaged if type(hook).__name__ == 'EMAHook').ema_model.module.state_dict()
        assert not torch.equal(raw['conv.weight'], averaged['conv.weight'])
        for ema, expected in ((None, averaged), (True, averaged), (False, raw)):
            state_dict = load(path, ema)
            assert state_dict.keys() == expected.keys()
            assert all(torch.equal(state_dict[name], expected[name]) for name in expected)

        resumed = toy_runner(tmp_path, max_epochs=2, load_from=str(path), resume=True)
        resumed.train()
        # Saved again, it contains ordinary objects, no placeholders.
        again = torch.load(tmp_path / 'epoch_2.pth', weights_only=False)
        assert again['meta']['epoch'] == 2
        assert len(again['message_hub']['log_scalars']['train/loss'].data[0]) == 4

    @pytest.mark.parametrize('prefix', ['', 'file://'])
    def test_load_from_runs_no_code(self, tmp_path, safe_loader, prefix):
        mark, path = tmp_path / 'mark', tmp_path / 'w.pth'
        torch.save({'state_dict': Toy().state_dict(), 'x': Payload(mark)}, path)
        with pytest.raises(UserError):
            load_checkpoint(Toy(), f'{prefix}{path}')
        runner = toy_runner(tmp_path / 'run', max_epochs=1, load_from=str(path))
        with pytest.raises(UserError, match='refused'):
            runner.load_or_resume()
        toy = Toy()
        toy.init_cfg = dict(type='Pretrained', checkpoint=str(path))
        with pytest.raises(UserError, match='refused'):
            toy.init_weights()
        assert not mark.exists()

    @pytest.mark.parametrize('name', ['https://host/w.pth', 'torchvision://toy', 'openmmlab://toy', 'mmcls://toy'])
    def test_a_download_runs_no_code(self, tmp_path, safe_loader, monkeypatch, name):
        mark = tmp_path / 'mark'
        fetched = []

        def fetch(url, path):
            fetched.append(url)
            torch.save({'state_dict': Toy().state_dict(), 'x': Payload(mark)}, path)

        for table in ('get_torchvision_models', 'get_external_models', 'get_mmcls_models'):
            monkeypatch.setattr(mmengine_checkpoint, table, lambda: {'toy': 'https://host/w.pth'})
        monkeypatch.setattr('mogacore.checkpoint.download._download', fetch)
        monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
        with pytest.raises(UserError, match='refused'):
            CheckpointLoader.load_checkpoint(name)
        assert fetched == ['https://host/w.pth'] and not mark.exists()

    @pytest.mark.parametrize('name', ['pavi://w.pth', 's3://b/w.pth', 'x:s3://b/w.pth', 'petrel://b/w.pth'])
    def test_cloud_stores_are_refused(self, safe_loader, name):
        with pytest.raises(UserError, match='cannot be read safely'):
            CheckpointLoader.load_checkpoint(name)

    def test_mmengines_own_readers_are_replaced_for_every_scheme(self, safe_loader):
        urls_only = {'load_from_torchvision', 'load_from_mmcls'}
        theirs = {
            loader.__name__
            for loader in CheckpointLoader._schemes.values()
            if loader.__module__ != ckpt.sources.__name__
        }
        assert theirs == urls_only
        ours = {
            '': 'local',
            'http://': 'http',
            'https://': 'http',
            'open-mmlab://': 'openmmlab',
            'openmmlab://': 'openmmlab',
        }
        for scheme, name in ours.items():
            assert CheckpointLoader._schemes[scheme].__name__ == f'load_from_{name}'
        for scheme in ('mogacore://', 'hf-hub:'):
            assert CheckpointLoader._schemes[scheme] is ckpt.sources.load_by_name

    def test_a_file_of_the_table_of_openmmlab_in_the_folder_of_mmengine(self, tmp_path, safe_loader, monkeypatch):
        torch.save({'state_dict': Toy().state_dict()}, tmp_path / 'toy.pth')
        monkeypatch.setattr(mmengine_checkpoint, '_get_mmengine_home', lambda: str(tmp_path))
        monkeypatch.setattr(mmengine_checkpoint, 'get_external_models', lambda: {'toy': 'toy.pth'})
        monkeypatch.setattr(mmengine_checkpoint, 'get_deprecated_model_names', lambda: {'old': 'toy'})
        for name in ('openmmlab://toy', 'open-mmlab://old'):
            assert 'conv.weight' in CheckpointLoader.load_checkpoint(name)['state_dict']
        with pytest.raises(UserError, match="openmmlab://other is not in OpenMMLab's table of weights"):
            CheckpointLoader.load_checkpoint('openmmlab://other')
        devices: list = []
        monkeypatch.setattr(ckpt.sources, 'read', lambda path, device: devices.append(device) or {'state_dict': {}})
        CheckpointLoader.load_checkpoint('openmmlab://toy', 'cuda:1')
        assert devices == ['cuda:1']


@pytest.mark.parametrize('is_main', [True, False])
def test_the_main_process_downloads_first(is_main, monkeypatch):
    events = []
    monkeypatch.setattr(ckpt.sources, 'is_main_process', lambda: is_main)
    monkeypatch.setattr(ckpt.sources, 'barrier', lambda: events.append('barrier'))
    monkeypatch.setattr(ckpt.sources, 'fetch', lambda url, folder: events.append('download') or Path('w.pth'))
    assert ckpt.local_file('https://host/w.pth') == Path('w.pth')
    assert events == (['download', 'barrier'] if is_main else ['barrier', 'download'])


def test_the_hash_is_of_the_content_and_none_for_names_of_other_tables(tmp_path):
    (tmp_path / 'w.pth').write_bytes(b'some weights')
    expected = hashlib.sha256(b'some weights').hexdigest()
    assert ckpt.content_hash(tmp_path / 'w.pth') == ckpt.content_hash(str(tmp_path / 'w.pth')) == expected
    assert ckpt.content_hash('torchvision://resnet50') is None
    assert ckpt.content_hash(tmp_path / 'missing.pth') is None


def test_official_weights_are_named_by_the_model():
    assert weights_of('moganet_tiny', 'official') == 'mogacore://moganet_tiny'
    assert weights_of(None, 'own.pth') == 'own.pth' and weights_of('moganet_tiny', None) is None
    with pytest.raises(UserError, match="'official' requires a published size"):
        weights_of(None, 'official')


def test_a_published_name_has_an_address():
    name, address = next(iter(official_weights().items()))
    assert official_address(f'mogacore://{name}') == official_address(name) == address
