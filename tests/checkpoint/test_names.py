"""Weights in every published container, under every published name."""

import argparse
import sys
from collections import OrderedDict

import numpy as np
import pytest
import torch
from weight_files import NAMES, golden_shapes, prefixed, value, weights

from mogacore import checkpoint as ckpt
from mogacore.checkpoint import load, map_keys, read
from mogacore.errors import UserError


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

    def test_namespace_and_numpy_objects_are_restored(self, tmp_path):
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

    def test_module_names_of_numpy_1_and_2_are_supported(self, tmp_path):
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

    def test_the_chosen_set_is_logged(self, tmp_path, monkeypatch):
        logged = []
        monkeypatch.setattr(
            sys.modules['mogacore.checkpoint.load'], 'print_log', lambda text, logger: logged.append(text)
        )
        torch.save({'state_dict': weights(1), 'state_dict_ema': weights(2)}, tmp_path / 'w.pth')
        load(tmp_path / 'w.pth')
        load(tmp_path / 'w.pth', ema=True)
        assert 'using the raw' in logged[0] and 'using the EMA' in logged[1]


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
    def test_names_are_translated_to_those_of_the_model(self, name, wanted):
        assert list(map_keys({name: torch.zeros(1)}, [wanted, 'other'])) == [wanted]

    def test_an_unknown_name_is_kept(self):
        assert list(map_keys(weights(1, ['neck.weight', 'patch_embed1.projection.0.weight']), ['x'])) == [
            'neck.weight',
            'patch_embed1.projection.0.weight',
        ]

    def test_two_names_for_one_do_not_overwrite_each_other(self):
        state_dict = {'backbone.norm1.weight': torch.zeros(1), 'norm1.weight': torch.ones(1)}
        assert map_keys(state_dict, ['norm1.weight']) == state_dict

    @pytest.mark.parametrize('size', ['xtiny', 'base'])
    def test_published_names_survive_a_round_trip(self, size):
        shapes = golden_shapes(size)
        published = {name: torch.zeros(()) for name in shapes}
        there = ckpt.to_layout(published, 'backbone-prefixed')
        assert 'head.fc.weight' in there and 'backbone.norm4.weight' in there and len(there) == len(published)
        assert set(map_keys(published, there)) == set(there)
        assert set(map_keys(there, published)) == set(published) == set(ckpt.to_layout(there, 'published'))
