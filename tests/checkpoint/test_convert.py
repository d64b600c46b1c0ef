"""Writing and converting weight files."""

import errno
import importlib.util
import os

import numpy as np
import pytest
import torch
from conftest import ROOT
from weight_files import NAMES, prefixed, value, weights

from mogacore import checkpoint as ckpt
from mogacore.checkpoint import load, read
from mogacore.errors import UserError


class TestWrite:
    @pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
    def test_shared_and_strided_tensors_are_written(self, tmp_path, suffix):
        whole = torch.arange(12.0).reshape(3, 4)
        ckpt.write({'a': whole, 'b': whole[1], 'c': whole.T}, tmp_path / f'w{suffix}')
        found = load(tmp_path / f'w{suffix}')
        assert torch.equal(found['a'], whole) and torch.equal(found['b'], whole[1]) and torch.equal(found['c'], whole.T)

    def test_a_failed_write_leaves_the_old_file_unchanged(self, tmp_path, monkeypatch):
        path = tmp_path / 'w.pth'
        ckpt.write(weights(1), path)

        def full_disk(file_number):
            raise OSError(errno.ENOSPC, 'No space left on device')

        monkeypatch.setattr(os, 'fsync', full_disk)
        with pytest.raises(UserError, match='No space left'):
            ckpt.write(weights(2), path)
        assert value(load(path)) == 1
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
    def test_class_names_are_kept(self, tmp_path, suffix):
        meta = {'classes': ('a', 'ß'), 'palette': [(1, 2, 3), [4, 5, 6]], 'label_map': None, 'reduce_zero_label': False}
        ckpt.write(weights(1), tmp_path / f'w{suffix}', {'epoch': 3, 'dataset_meta': meta})
        found = read(tmp_path / f'w{suffix}')['meta']['dataset_meta']
        assert list(found) == list(meta) and list(found['classes']) == ['a', 'ß']
        assert [list(color) for color in found['palette']] == [[1, 2, 3], [4, 5, 6]]
        assert found['label_map'] is None and found['reduce_zero_label'] is False

    @pytest.mark.parametrize('meta', [{'sigmas': np.ones(2)}, {'keypoint_id2name': {0: 'top'}}])
    def test_what_json_changes_is_left_out_of_safetensors(self, tmp_path, meta):
        ckpt.write(weights(1), tmp_path / 'w.safetensors', {'epoch': 3, 'dataset_meta': meta})
        assert read(tmp_path / 'w.safetensors')['meta'] == {'epoch': '3'}

    def test_a_missing_folder_is_an_error(self, tmp_path):
        with pytest.raises(UserError, match='cannot be written'):
            ckpt.write(weights(1), tmp_path / 'nowhere' / 'w.pth')

    def test_an_unknown_suffix_is_an_error(self, tmp_path):
        with pytest.raises(UserError, match=r'w\.onnx has an unknown suffix: choose \.safetensors'):
            ckpt.write(weights(1), tmp_path / 'w.onnx')


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
    def test_chosen_set_comes_first_and_the_other_is_kept(self, tmp_path, capsys, main, flag, number, plain, suffix):
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
        output = capsys.readouterr().out
        assert f'7 tensors, took the {taken} set' in output
        if suffix == '.pth':
            assert f'kept: {other}' in output
            assert [value(load(target, ema)) for ema in (False, True)] == [1, 2]
        else:
            assert 'kept: none' in output
            assert read(target)['meta']['set'] == taken

    @pytest.mark.parametrize('content', [{'state_dict': weights(1)}, weights(1)])
    def test_a_file_says_where_it_comes_from(self, tmp_path, main, content):
        torch.save(content, tmp_path / 'a.pth')
        main(tmp_path / 'a.pth', tmp_path / 'b.safetensors')
        meta = read(tmp_path / 'b.safetensors')['meta']
        assert (meta['source'], meta['set'], meta['tensors']) == ('a.pth', 'only', '7')

    def test_names_survive_a_round_trip(self, tmp_path, main):
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

    @pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
    def test_class_names_are_kept(self, tmp_path, main, suffix):
        meta = {'mmengine_version': '0.10.7', 'dataset_meta': {'classes': ('a', 'b')}}
        torch.save({'meta': meta, 'state_dict': weights(1)}, tmp_path / 'a.pth')
        main(tmp_path / 'a.pth', tmp_path / f'b{suffix}')
        assert tuple(read(tmp_path / f'b{suffix}')['meta']['dataset_meta']['classes']) == ('a', 'b')

    def test_an_existing_file_is_replaced_only_with_force(self, tmp_path, main):
        torch.save(weights(1), tmp_path / 'a.pth')
        torch.save(weights(5), tmp_path / 'b.pth')
        with pytest.raises(UserError, match='--force'):
            main(tmp_path / 'a.pth', tmp_path / 'b.pth')
        assert value(load(tmp_path / 'b.pth')) == 5
        main(tmp_path / 'a.pth', tmp_path / 'b.pth', '--force')
        assert value(load(tmp_path / 'b.pth')) == 1
