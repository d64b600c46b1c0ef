"""Weight files: every container, no code run, every misfit told."""

import argparse
import errno
import importlib.util
import os
import pickle
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import CheckpointLoader, Runner, load_checkpoint
from mmengine.runner import checkpoint as mmengine_checkpoint
from torch import nn

from mogacore import checkpoint as ckpt
from mogacore.checkpoint import CheckpointError, load, load_into, map_keys, read
from mogacore.errors import UserError

ROOT = Path(__file__).parents[2]
NAMES = (
    'patch_embed1.projection.0.weight',
    'patch_embed2.projection.weight',
    'patch_embed2.norm.weight',
    'blocks1.0.attn.sigma.scale',
    'norm4.running_mean',
    'head.weight',
    'head.bias',
)


def weights(fill, names=NAMES):
    return OrderedDict((name, torch.full((2, 3), float(fill))) for name in names)


def value(state_dict):
    """The one number that fills all of a state dict."""
    numbers = {number for tensor in state_dict.values() for number in tensor.flatten().tolist()}
    assert len(numbers) == 1
    return numbers.pop()


def prefixed(state_dict, prefix):
    return OrderedDict((prefix + name, tensor) for name, tensor in state_dict.items())


def golden_shapes(name):
    """Published names and shapes of a size, from the file of golden outputs."""
    (path,) = (ROOT / 'tests' / 'data').glob(f'moganet_{name}_*.npz')
    entries = (str(entry).split(' ', 1) for entry in np.load(path)['keys'])
    return {key: tuple(int(n) for n in shape.strip('()').split(',') if n.strip()) for key, shape in entries}


class Node(nn.Module):
    """A model with any names and shapes: what it computes is of no interest here."""

    def __init__(self, shapes):
        super().__init__()
        for name, shape in shapes.items():
            *parents, leaf = name.split('.')
            node = self
            for parent in parents:
                if parent not in node._modules:
                    node.add_module(parent, Node({}))
                node = node._modules[parent]
            node.register_buffer(leaf, torch.zeros(shape))


def model_of(names=NAMES, **shapes):
    return Node({name: (2, 3) for name in names} | shapes)


class Payload:
    """Unpickling this runs a command."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch {self.path}',)


class TestContainers:
    @pytest.mark.parametrize('legacy', [False, True], ids=['zip', 'legacy'])
    @pytest.mark.parametrize(
        'wrap',
        [
            lambda sd: sd,
            lambda sd: {'state_dict': sd, 'author': 'MogaNet', 'arch': 'moganet_small', 'metric': 83.4},
            lambda sd: {'model': sd, 'epoch': 1},
            lambda sd: {'meta': {'mmcv_version': '1.7.0', 'CLASSES': ('a',)}, 'state_dict': sd, 'optimizer': {}},
            lambda sd: prefixed(sd, 'module.'),
            lambda sd: {'state_dict': prefixed(sd, 'model.')},
            lambda sd: {'state_dict': sd, 'epoch': 3, 'args': argparse.Namespace(lr=0.1, model='m', opts=[1])},
        ],
        ids=['bare', 'release', 'model', 'mmcv', 'ddp', 'lightning', 'timm'],
    )
    def test_each_container_gives_its_state_dict(self, tmp_path, wrap, legacy):
        path = tmp_path / 'w.pth.tar'
        torch.save(wrap(weights(1)), path, _use_new_zipfile_serialization=not legacy)
        state_dict = load(path)
        assert tuple(state_dict) == NAMES
        assert value(state_dict) == 1

    def test_safetensors(self, tmp_path):
        path = tmp_path / 'w.safetensors'
        ckpt.write(weights(1), path, {'set': 'raw'})
        assert read(path)['meta'] == {'set': 'raw'}
        assert value(load(path)) == 1

    def test_namespace_and_numpy_come_back_as_they_were(self, tmp_path):
        arrays = [
            np.arange(6.0).reshape(2, 3).T,
            np.array(['a', 'bc']),
            np.array([True, False]),
            np.zeros((0, 2), '>i2'),
        ]
        content = {
            'state_dict': weights(1),
            'args': argparse.Namespace(lr=0.1, nested=argparse.Namespace(sizes=(np.int64(3), [np.float32(0.5)]))),
            'arrays': arrays,
        }
        content['same'] = content['arrays']
        torch.save(content, tmp_path / 'w.pth')
        found = read(tmp_path / 'w.pth')
        assert found['args'] == content['args'] and type(found['args'].nested.sizes[0]) is np.int64
        assert found['same'] is found['arrays']
        for ours, theirs in zip(found['arrays'], arrays, strict=True):
            assert type(ours) is np.ndarray and ours.dtype == theirs.dtype and ours.flags.writeable
            np.testing.assert_array_equal(ours, theirs)

    def test_numpy_2_names_are_known(self, tmp_path):
        torch.save(
            {'state_dict': weights(1), 'x': np.float64(2)}, tmp_path / 'a.pth', _use_new_zipfile_serialization=False
        )
        data = (tmp_path / 'a.pth').read_bytes()
        assert b'cnumpy.core.multiarray\n' in data or b'cnumpy._core.multiarray\n' in data
        for module in (b'cnumpy.core.multiarray\n', b'cnumpy._core.multiarray\n'):
            path = tmp_path / 'b.pth'
            path.write_bytes(data.replace(b'cnumpy._core', b'cnumpy.core').replace(b'cnumpy.core.multiarray\n', module))
            assert read(path)['x'] == 2


class TestEma:
    @pytest.mark.parametrize('key', ['state_dict_ema', 'model_ema'])
    def test_timm_plain_is_raw(self, tmp_path, key):
        torch.save({'state_dict': weights(1), key: prefixed(weights(2), 'module.')}, tmp_path / 'w.pth')
        assert [value(load(tmp_path / 'w.pth', ema)) for ema in (None, False, True)] == [1, 1, 2]

    def test_openmixup_plain_is_ema(self, tmp_path):
        plain = prefixed(weights(2), 'backbone.')
        raw = {'ema_' + name.replace('.', '_'): tensor - 1 for name, tensor in plain.items()}
        torch.save({'meta': {'mmcv_version': '1.5.0'}, 'state_dict': OrderedDict(plain | raw)}, tmp_path / 'w.pth')
        for ema, number in ((None, 2), (True, 2), (False, 1)):
            state_dict = load(tmp_path / 'w.pth', ema)
            assert value(state_dict) == number
            assert list(state_dict) == list(plain)

    def test_mmengine_plain_is_ema(self, tmp_path):
        raw = prefixed(weights(1), 'module.') | {'steps': torch.tensor(5)}
        torch.save({'state_dict': weights(2), 'ema_state_dict': raw}, tmp_path / 'w.pth')
        assert [value(load(tmp_path / 'w.pth', ema)) for ema in (None, False, True)] == [2, 1, 2]

    def test_a_file_with_one_set_has_no_ema(self, tmp_path):
        torch.save(weights(1), tmp_path / 'w.pth')
        assert value(load(tmp_path / 'w.pth', ema=False)) == 1
        with pytest.raises(UserError, match='no EMA weights'):
            load(tmp_path / 'w.pth', ema=True)

    def test_the_log_says_which_set_was_taken(self, tmp_path, monkeypatch):
        said = []
        monkeypatch.setattr(
            sys.modules['mogacore.checkpoint.load'], 'print_log', lambda text, logger: said.append(text)
        )
        torch.save({'state_dict': weights(1), 'state_dict_ema': weights(2)}, tmp_path / 'w.pth')
        load(tmp_path / 'w.pth')
        load(tmp_path / 'w.pth', ema=True)
        assert 'took the raw' in said[0] and 'took the EMA' in said[1]


class TestRefusal:
    @pytest.mark.parametrize('legacy', [False, True], ids=['zip', 'legacy'])
    def test_pickled_code_is_refused_by_name_and_not_run(self, tmp_path, legacy):
        mark, path = tmp_path / 'mark', tmp_path / 'w.pth'
        torch.save({'state_dict': weights(1), 'x': Payload(mark)}, path, _use_new_zipfile_serialization=not legacy)
        with pytest.raises(UserError, match=r'system\), which was refused: nothing of it was run'):
            read(path)
        assert not mark.exists()

    @pytest.mark.parametrize('protocol', [2, 4])
    def test_a_plain_pickle_is_not_run(self, tmp_path, protocol):
        mark, path = tmp_path / 'mark', tmp_path / 'w.pth'
        path.write_bytes(pickle.dumps(Payload(mark), protocol=protocol))
        with pytest.raises(UserError):
            read(path)
        assert not mark.exists()

    def test_what_other_libraries_allow_is_not_allowed_here(self, tmp_path):
        torch.save({'state_dict': weights(1), 'x': Payload(tmp_path / 'mark')}, tmp_path / 'w.pth')
        torch.save({'state_dict': weights(1), 'x': slice(3)}, tmp_path / 's.pth')
        before = torch.serialization.get_safe_globals()
        torch.serialization.add_safe_globals([slice])
        try:
            with pytest.raises(UserError, match=r'slice\), which was refused'):
                read(tmp_path / 's.pth')
            assert slice in torch.serialization.get_safe_globals()
        finally:
            torch.serialization.clear_safe_globals()
            torch.serialization.add_safe_globals(before)

    def test_getattr_is_never_called(self, tmp_path):
        torch.save({'state_dict': weights(1), 'x': nn.Linear.forward}, tmp_path / 'f.pth')

        class Getattr:
            def __reduce__(self):
                return getattr, ('text', 'upper')

        torch.save({'state_dict': weights(1), 'x': Getattr()}, tmp_path / 'w.pth')
        for path in tmp_path.iterdir():
            with pytest.raises(UserError, match='refused'):
                read(path)

    def test_forged_numpy_types_are_refused(self, tmp_path):
        class Forged:
            def __init__(self, code, state):
                self.code, self.state = code, state

            def __reduce__(self):
                return np.dtype, (self.code, False, True), self.state

        class Scalar:
            def __init__(self, dtype):
                self.dtype = dtype

            def __reduce__(self):
                return np.float64(0).__reduce__()[0], (self.dtype, b'\x41' * 8)

        pointers = (3, '<', None, None, None, -1, -1, 9)
        torch.save({'state_dict': weights(1), 'x': Scalar(Forged('f8', pointers))}, tmp_path / 'w.pth')
        number = read(tmp_path / 'w.pth')['x']
        assert type(number) is np.float64 and not number.dtype.hasobject
        torch.save({'state_dict': weights(1), 'x': Scalar(Forged('O8', pointers))}, tmp_path / 'w.pth')
        with pytest.raises(UserError, match='numpy array of type O8'):
            read(tmp_path / 'w.pth')


class TestDamage:
    @pytest.mark.parametrize('kind', ['zip', 'legacy', 'safetensors'])
    def test_a_file_cut_anywhere_is_a_users_error(self, tmp_path, kind):
        path = tmp_path / ('w.safetensors' if kind == 'safetensors' else 'w.pth')
        if kind == 'safetensors':
            ckpt.write(weights(1), path)
        else:
            torch.save({'state_dict': weights(1)}, path, _use_new_zipfile_serialization=kind == 'zip')
        data = path.read_bytes()
        for length in {0, 1, 3, 8, 40, 100, 200, *range(0, len(data), len(data) // 15), len(data) - 1}:
            path.write_bytes(data[:length])
            # An old file cut within the name of a class names another one.
            with pytest.raises(UserError, match=r'truncated|not a checkpoint|was refused') as caught:
                read(path)
            assert '\n' not in str(caught.value)

    @pytest.mark.parametrize(
        'data', [b'', b'some text', b'<!DOCTYPE html><html>404</html>', b'\x89PNG\r\n\x1a\n' + bytes(50)]
    )
    def test_another_kind_of_file_is_told(self, tmp_path, data):
        (tmp_path / 'w.pth').write_bytes(data)
        with pytest.raises(UserError, match='not a checkpoint'):
            read(tmp_path / 'w.pth')

    @pytest.mark.parametrize('name', ['nowhere.pth', '.'])
    def test_no_file(self, tmp_path, name):
        with pytest.raises(UserError, match='cannot be read'):
            read(tmp_path / name)

    @pytest.mark.parametrize('content', [[1, 2], torch.zeros(2), {'epoch': 3}, {'state_dict': {'a': 1}}, {}])
    def test_no_state_dict(self, tmp_path, content):
        torch.save(content, tmp_path / 'w.pth')
        with pytest.raises(UserError, match=r'not a dict|no state dict'):
            load(tmp_path / 'w.pth')


class TestMapKeys:
    @pytest.mark.parametrize(
        ('name', 'wanted'),
        [
            ('norm1.weight', 'norm1.weight'),
            ('norm1.weight', 'backbone.norm1.weight'),
            ('backbone.blocks1.0.norm1.weight', 'blocks1.0.norm1.weight'),
            ('head.weight', 'head.fc.weight'),
            ('head.fc.bias', 'head.bias'),
            ('keypoint_head.final_layer.weight', 'head.final_layer.weight'),
            ('hid.enc.0.block.attn.sigma', 'hid.enc.0.block.attn.sigma.scale'),
            ('hid.enc.0.block.mlp.sigma.scale', 'hid.enc.0.block.mlp.sigma'),
            ('patch_embed2.projection.0.bias', 'backbone.patch_embed2.projection.bias'),
            ('backbone.patch_embed4.projection.1.running_var', 'patch_embed4.norm.running_var'),
        ],
    )
    def test_a_name_becomes_what_the_model_expects(self, name, wanted):
        assert list(map_keys({name: torch.zeros(1)}, [wanted, 'other'])) == [wanted]

    def test_a_name_nobody_expects_stays(self):
        assert list(map_keys(weights(1, ['neck.weight', 'patch_embed1.projection.0.weight']), ['x'])) == [
            'neck.weight',
            'patch_embed1.projection.0.weight',
        ]

    def test_two_names_for_one_do_not_overwrite_each_other(self):
        state_dict = {'backbone.norm1.weight': torch.zeros(1), 'norm1.weight': torch.ones(1)}
        assert map_keys(state_dict, ['norm1.weight']) == state_dict

    @pytest.mark.parametrize('size', ['xtiny', 'base'])
    def test_the_published_names_there_and_back(self, size):
        shapes = golden_shapes(size)
        published = {name: torch.zeros(()) for name in shapes}
        there = ckpt.to_layout(published, 'backbone-prefixed')
        assert 'head.fc.weight' in there and 'backbone.norm4.weight' in there and len(there) == len(published)
        assert set(map_keys(published, there)) == set(there)
        assert set(map_keys(there, published)) == set(published) == set(ckpt.to_layout(there, 'published'))


class TestLoadInto:
    def test_what_fits_is_loaded_whole(self, tmp_path):
        torch.save({'state_dict': prefixed(weights(1), 'module.')}, tmp_path / 'w.pth')
        model = model_of()
        report = load_into(model, tmp_path / 'w.pth')
        assert value(model.state_dict()) == 1
        assert report == ckpt.LoadReport(NAMES, (), (), (), ())

    def test_a_container_or_state_dict_in_memory(self):
        for source in (weights(1), {'state_dict': weights(1)}):
            model = model_of()
            load_into(model, source)
            assert value(model.state_dict()) == 1

    def test_every_misfit_is_told_and_nothing_loaded(self):
        state_dict = weights(1)
        del state_dict['head.bias']
        state_dict['neck.weight'] = torch.zeros(4)
        state_dict['head.weight'] = torch.zeros(5, 3)
        model = model_of()
        with pytest.raises(CheckpointError) as caught:
            load_into(model, state_dict)
        text = str(caught.value)
        assert '1 missing: head.bias (2, 3)' in text
        assert '1 unexpected: neck.weight (4,)' in text
        assert '1 of another shape (file against model): head.weight (5, 3) against (2, 3)' in text
        assert '\n' not in text
        assert value(model.state_dict()) == 0

    def test_named_misfits_are_allowed_and_reported(self):
        state_dict = weights(1)
        del state_dict['head.bias']
        state_dict['neck.weight'] = torch.zeros(4)
        state_dict['head.weight'] = torch.zeros(5, 3)
        model = model_of()
        report = load_into(model, state_dict, allow_missing=['head.*'], allow_unexpected='neck.*')
        assert report.missing == ('head.bias',) and report.unexpected == ('neck.weight',)
        assert report.misshapen == (('head.weight', (5, 3), (2, 3)),)
        assert 'head.weight' not in report.loaded and 'norm4.running_mean' in report.loaded
        assert value({'w': model.state_dict()['head.weight']}) == 0
        assert value({'w': model.state_dict()['norm4.running_mean']}) == 1

    @pytest.mark.parametrize('patterns', [dict(allow_missing=['neck.*']), dict(allow_unexpected=['head.*'])])
    def test_a_pattern_allows_its_own_kind_and_names_alone(self, patterns):
        state_dict = weights(1)
        del state_dict['head.bias']
        with pytest.raises(CheckpointError, match=r'1 missing: head\.bias'):
            load_into(model_of(), state_dict, **patterns)

    def test_long_lists_are_cut(self):
        names = [f'extra{i}' for i in range(100)]
        with pytest.raises(CheckpointError, match=r'100 unexpected: extra0 .* and 95 more') as caught:
            load_into(model_of(), weights(1) | weights(1, names))
        assert len(str(caught.value)) < 400

    def test_batch_counters_may_be_missing(self):
        load_into(model_of((*NAMES, 'norm4.num_batches_tracked')), weights(1))

    @pytest.mark.parametrize('prefix', ['', 'backbone.'])
    def test_a_bare_trunk_takes_a_classification_file(self, prefix):
        trunk = [name for name in NAMES if not name.startswith('head')]
        file = weights(1, [prefix + name for name in trunk] + ['head.weight', 'head.bias'])
        model = model_of(trunk)
        report = load_into(model, file)
        assert value(model.state_dict()) == 1
        assert report.dropped == ('head.weight', 'head.bias')

    def test_a_detector_takes_the_trunk_of_a_classification_file(self):
        trunk = [f'backbone.{name}' for name in NAMES if not name.startswith('head')]
        model = model_of([*trunk, 'neck.weight'])
        report = load_into(model, weights(1), allow_missing=['neck.*'], allow_unexpected=['head.*'])
        assert set(report.loaded) == set(trunk) and report.missing == ('neck.weight',)
        with pytest.raises(CheckpointError, match=r'unexpected: head\.weight'):
            load_into(model, weights(1), allow_missing=['neck.*'])

    def test_another_size_is_named(self):
        file = {name: torch.zeros(()).expand(shape) for name, shape in golden_shapes('small').items()}
        with pytest.raises(CheckpointError, match='looks like moganet_small, the model is moganet_tiny'):
            load_into(Node(golden_shapes('tiny')), file)


class TestWrite:
    @pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
    def test_shared_and_strided_tensors(self, tmp_path, suffix):
        whole = torch.arange(12.0).reshape(3, 4)
        ckpt.write({'a': whole, 'b': whole[1], 'c': whole.T}, tmp_path / f'w{suffix}')
        found = load(tmp_path / f'w{suffix}')
        assert torch.equal(found['a'], whole) and torch.equal(found['b'], whole[1]) and torch.equal(found['c'], whole.T)

    def test_a_failed_write_leaves_the_old_file_alone(self, tmp_path, monkeypatch):
        path = tmp_path / 'w.pth'
        ckpt.write(weights(1), path)

        def full_disk(file_number):
            raise OSError(errno.ENOSPC, 'No space left on device')

        monkeypatch.setattr(os, 'fsync', full_disk)
        with pytest.raises(UserError, match='No space left'):
            ckpt.write(weights(2), path)
        assert value(load(path)) == 1
        assert list(tmp_path.iterdir()) == [path]

    def test_no_such_folder(self, tmp_path):
        with pytest.raises(UserError, match='cannot be written'):
            ckpt.write(weights(1), tmp_path / 'nowhere' / 'w.pth')

    def test_another_suffix(self, tmp_path):
        with pytest.raises(UserError, match=r'choose the suffix \.safetensors'):
            ckpt.write(weights(1), tmp_path / 'w.onnx')


@pytest.fixture
def safe_loader(monkeypatch):
    """mmengine with our loader, and as it was after."""
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
    def test_a_training_file_is_read_whole_and_resumed(self, tmp_path, safe_loader):
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
        # What was read is saved again without a trace of how it was read.
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

    def test_no_scheme_is_left_to_mmengines_own_reader(self, safe_loader):
        urls_only = {'load_from_torchvision', 'load_from_mmcls'}
        theirs = {
            loader.__name__
            for loader in CheckpointLoader._schemes.values()
            if loader.__module__ != ckpt.sources.__name__
        }
        assert theirs == urls_only


class TestConvertTool:
    @pytest.fixture
    def main(self):
        spec = importlib.util.spec_from_file_location('convert_checkpoint', ROOT / 'tools' / 'convert_checkpoint.py')
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return lambda *args: module.main([str(arg) for arg in args])

    @pytest.mark.parametrize('flag, number', [(None, None), ('--ema', 2), ('--raw', 1)])
    @pytest.mark.parametrize('plain', ['raw', 'ema'])
    @pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
    def test_takes_the_set_asked_for_and_keeps_the_other(self, tmp_path, capsys, main, flag, number, plain, suffix):
        content = {
            'raw': {'state_dict': weights(1), 'state_dict_ema': weights(2)},
            'ema': {'state_dict': weights(2), 'ema_state_dict': prefixed(weights(1), 'module.')},
        }[plain]
        number = number or {'raw': 1, 'ema': 2}[plain]
        source, target = tmp_path / 'a.pth', tmp_path / f'b{suffix}'
        torch.save(content, source)
        main(source, target, *([flag] if flag else []))
        assert value(load(target)) == number
        taken, other = ('ema', 'raw') if number == 2 else ('raw', 'ema')
        said = capsys.readouterr().out
        assert f'7 tensors, took the {taken} set' in said
        if suffix == '.pth':
            assert f'kept: {other}' in said
            assert [value(load(target, ema)) for ema in (False, True)] == [1, 2]
        else:
            assert 'kept: none' in said
            assert read(target)['meta']['set'] == taken

    def test_names_there_and_back(self, tmp_path, main):
        torch.save(weights(1), tmp_path / 'a.pth')
        main(tmp_path / 'a.pth', tmp_path / 'b.safetensors', '--to', 'backbone-prefixed')
        assert {'backbone.norm4.running_mean', 'head.fc.weight'} <= set(load(tmp_path / 'b.safetensors'))
        main(tmp_path / 'b.safetensors', tmp_path / 'c.pth', '--to', 'published')
        assert set(load(tmp_path / 'c.pth')) == set(NAMES)

    def test_a_detector_has_no_classification_layout(self, tmp_path, main):
        torch.save(weights(1, ['backbone.norm1.weight', 'neck.weight']), tmp_path / 'a.pth')
        with pytest.raises(UserError, match=r'neck\.weight'):
            main(tmp_path / 'a.pth', tmp_path / 'b.pth', '--to', 'published')
        assert not (tmp_path / 'b.pth').exists()

    def test_class_names_stay(self, tmp_path, main):
        meta = {'mmengine_version': '0.10.7', 'dataset_meta': {'classes': ('a', 'b')}}
        torch.save({'meta': meta, 'state_dict': weights(1)}, tmp_path / 'a.pth')
        main(tmp_path / 'a.pth', tmp_path / 'b.pth')
        assert read(tmp_path / 'b.pth')['meta']['dataset_meta'] == {'classes': ('a', 'b')}

    def test_replaces_only_by_force(self, tmp_path, main):
        torch.save(weights(1), tmp_path / 'a.pth')
        torch.save(weights(5), tmp_path / 'b.pth')
        with pytest.raises(UserError, match='--force'):
            main(tmp_path / 'a.pth', tmp_path / 'b.pth')
        assert value(load(tmp_path / 'b.pth')) == 5
        main(tmp_path / 'a.pth', tmp_path / 'b.pth', '--force')
        assert value(load(tmp_path / 'b.pth')) == 1
