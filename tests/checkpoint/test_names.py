"""Weights in every published container, under every published name."""

import argparse
import sys
from collections import OrderedDict

import pytest
import torch
from weight_files import NAMES, golden_shapes, model_of, prefixed, value, weights

from mogacore import checkpoint as ckpt
from mogacore.checkpoint import CheckpointError, load, load_into, map_keys, read
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
            lambda sd: {'module': sd, 'ds_version': '0.16', 'ds_config': {'a': 1}, 'optimizer': None, 'model': None},
        ],
        ids=['bare', 'release', 'model', 'mmcv', 'ddp', 'lightning', 'timm', 'deepspeed'],
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

    @pytest.mark.parametrize(
        'container, kind',
        [
            (weights(1), 'bare state dict'),
            ({'state_dict': weights(1)}, 'state_dict'),
            ({'model': weights(1), 'meta': None}, 'model'),
            ({'state_dict': weights(1), 'meta': {'epoch': 1}}, 'state_dict'),
            ({'state_dict': weights(1), 'meta': {'mmcv_version': '1.7.0'}}, 'state_dict of mmcv'),
            ({'state_dict': weights(1), 'meta': {'mmengine_version': '0.10.7'}}, 'state_dict of mmengine'),
        ],
    )
    def test_the_kind_of_container_is_named(self, container, kind):
        assert ckpt.weight_sets(container).kind == kind

    @pytest.mark.parametrize(
        'container, names',
        [
            ({}, 'nothing'),
            ({'epoch': 3}, 'epoch'),
            ({'state_dict': {'a': 1}, 'epoch': 3}, 'a'),
            ({'model': {}}, 'nothing'),
        ],
    )
    def test_the_content_without_a_state_dict_is_listed(self, container, names):
        with pytest.raises(UserError, match=f'no state dict of tensors, it contains {names}: use'):
            ckpt.weight_sets(container)


class TestWrappers:
    @pytest.mark.parametrize(
        'prefix',
        ['_orig_mod.', 'module._orig_mod.', '_orig_mod.module.', 'module.module.', 'model._orig_mod.', 'net.',
         '_orig_mod.model.net.', 'module.model._orig_mod.'],
    )  # fmt: skip
    def test_prefixes_in_any_order_are_removed(self, prefix):
        assert tuple(load(prefixed(weights(1), prefix))) == NAMES

    @pytest.mark.parametrize('inserted', ['_orig_mod', '_fsdp_wrapped_module', '_checkpoint_wrapped_module'])
    def test_names_of_torch_inside_are_removed_also_from_some_entries(self, inserted):
        wrapped = {name.replace('blocks1.', f'blocks1.{inserted}.'): tensor for name, tensor in weights(1).items()}
        assert set(wrapped) != set(NAMES)
        assert tuple(load(wrapped)) == NAMES

    def test_real_wrappers_of_torch_are_removed(self):
        net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
        compiled = torch.compile(torch.nn.Sequential(torch.compile(net[0]), net[1]))
        averaged = torch.optim.swa_utils.AveragedModel(net, use_buffers=True)
        for wrapped in (compiled, averaged, torch.compile(averaged), torch.nn.DataParallel(averaged)):
            assert list(wrapped.state_dict()) != list(net.state_dict())
            assert list(load(wrapped.state_dict())) == list(net.state_dict())

    def test_the_counter_of_an_average_is_no_weight_only_beside_wrapped_names(self):
        assert 'n_averaged' in load(weights(1) | {'n_averaged': torch.tensor(3)})

    @pytest.mark.parametrize('prefix', ['model.', 'net.', 'model.net.', 'model._orig_mod.'])
    def test_lightning_entries_beside_the_model_are_reported_as_unexpected(self, prefix):
        file = {'state_dict': prefixed(weights(1), prefix) | {'loss.weight': torch.ones(3)}, 'epoch': 3}
        model = model_of()
        with pytest.raises(CheckpointError, match=r'fit Node: 1 unexpected: loss\.weight \(3,\)\. Use'):
            load_into(model, file)
        report = load_into(model, file, allow_unexpected=['loss.*'])
        assert value(model.state_dict()) == 1 and len(report.loaded) == len(NAMES)

    def test_two_models_in_one_file_are_never_mixed(self):
        file = prefixed(weights(1), 'model.') | prefixed(weights(2, NAMES[:2]), 'net.')
        with pytest.raises(CheckpointError, match=r'2 unexpected: net\.patch_embed1'):
            load_into(model_of(), file)

    def test_a_prefix_that_the_model_has_itself_is_kept(self):
        names = [f'model.{name}' for name in NAMES]
        model = model_of([*names, 'other'])
        load_into(model, prefixed(weights(1), 'model.') | {'other': torch.ones(2, 3)})
        assert value(model.state_dict()) == 1

    @pytest.mark.parametrize('prefix', ['model.', 'net.', 'model.net.'])
    @pytest.mark.parametrize('wrapped', [True, False])
    def test_a_model_inside_a_module_loads_files_with_and_without_its_prefix(self, prefix, wrapped):
        model = model_of([prefix + name for name in NAMES])
        load_into(model, prefixed(weights(1), f'module.{prefix}') if wrapped else weights(1))
        assert value(model.state_dict()) == 1

    def test_two_entries_for_one_name_are_an_error(self):
        with pytest.raises(UserError, match=r'two entries for head\.bias, head\.bias and _orig_mod\.head\.bias'):
            load(weights(1) | {'_orig_mod.head.bias': torch.ones(1)})

    def test_a_stray_entry_that_is_no_tensor_is_named(self, tmp_path):
        torch.save(weights(1) | {'epoch': 3}, tmp_path / 'w.pth')
        assert tuple(load(tmp_path / 'w.pth')) == NAMES
        with pytest.raises(CheckpointError, match=r'w\.pth does not fit Node: 1 unexpected: epoch \(int, not a tensor'):
            load_into(model_of(), tmp_path / 'w.pth')
        assert load_into(model_of(), tmp_path / 'w.pth', allow_unexpected=['epoch']).loaded == NAMES

    @pytest.mark.parametrize('dtype', [torch.int8, torch.bool, torch.complex64])
    def test_entries_that_torch_would_convert_are_reported(self, dtype):
        model = model_of()
        with pytest.raises(CheckpointError, match=rf'1 mistyped .*: head\.bias {dtype} vs\. torch\.float32'):
            load_into(model, weights(1) | {'head.bias': torch.ones(2, 3, dtype=dtype)})
        assert value(model.state_dict()) == 0


class TestEma:
    @pytest.mark.parametrize('nested', [dict, lambda ema: {'module': ema, 'updates': 5}], ids=['flat', 'nested'])
    def test_ema_beside_model_is_the_average(self, tmp_path, nested):
        torch.save({'model': weights(1), 'ema': nested(prefixed(weights(2), 'module.'))}, tmp_path / 'w.pth')
        assert [value(load(tmp_path / 'w.pth', ema)) for ema in (None, False, True)] == [1, 1, 2]

    @pytest.mark.parametrize('ema', [None, 0.999, True, {}, {'decay': 0.9}])
    def test_ema_that_is_a_setting_is_no_set_of_weights(self, ema):
        sets = ckpt.weight_sets({'model': weights(1), 'ema': ema})
        assert value(sets.state_dict) == 1 and sets.other is None

    def test_an_average_without_statistics_takes_those_of_the_raw_weights(self):
        file = {'state_dict': weights(1), 'state_dict_ema': weights(2, [n for n in NAMES if 'running' not in n])}
        found = load(file, ema=True)
        assert set(found) == set(NAMES) and value({'a': found['norm4.running_mean']}) == 1

    def test_an_incomplete_average_is_not_completed_with_raw_weights(self):
        file = {'state_dict': weights(1), 'state_dict_ema': weights(2, NAMES[1:])}
        with pytest.raises(CheckpointError, match='1 missing: patch_embed1'):
            load_into(model_of(), file, ema=True)

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

    @pytest.mark.parametrize(
        'container, values',
        [
            ({'state_dict': weights(1)}, (1, 1, 1)),
            ({'state_dict': weights(1), 'state_dict_ema': weights(2)}, (1, 1, 2)),
            ({'state_dict': weights(2), 'ema_state_dict': prefixed(weights(1), 'module.')}, (2, 1, 2)),
        ],
        ids=['one set', 'raw first', 'average first'],
    )
    def test_the_set_behind_a_published_result_is_chosen(self, container, values):
        sets = ckpt.weight_sets(container)
        assert tuple(value(sets.choose_published(name).state_dict) for name in ('', 'raw', 'ema')) == values

    def test_a_file_with_one_set_has_no_ema(self, tmp_path):
        torch.save(weights(1), tmp_path / 'w.pth')
        assert value(load(tmp_path / 'w.pth', ema=False)) == 1
        with pytest.raises(UserError, match='no EMA weights'):
            load(tmp_path / 'w.pth', ema=True)

    def test_the_chosen_set_is_logged(self, tmp_path, monkeypatch):
        logged = []
        monkeypatch.setattr(
            sys.modules['mogacore.checkpoint.names'], 'print_log', lambda text, logger: logged.append(text)
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
