"""Safe reading of weight files: no pickled code runs, and damage gives a one-line error."""

import argparse
import os
import pickle
import sys
import time

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from safetensors.torch import save_file
from torch import nn
from weight_files import Payload, weights

from mogacore import checkpoint as ckpt
from mogacore.checkpoint import load, read
from mogacore.errors import UserError


class TestRefusal:
    @pytest.mark.parametrize('legacy', [False, True], ids=['zip', 'legacy'])
    def test_pickled_code_is_refused_by_name_and_not_run(self, tmp_path, legacy):
        mark, path = tmp_path / 'mark', tmp_path / 'w.pth'
        torch.save({'state_dict': weights(1), 'x': Payload(mark)}, path, _use_new_zipfile_serialization=not legacy)
        with pytest.raises(UserError, match=r'system\), which was refused and not run'):
            read(path)
        assert not mark.exists()

    @pytest.mark.parametrize('protocol', [2, 4])
    def test_a_plain_pickle_is_not_run(self, tmp_path, protocol):
        mark, path = tmp_path / 'mark', tmp_path / 'w.pth'
        path.write_bytes(pickle.dumps(Payload(mark), protocol=protocol))
        with pytest.raises(UserError):
            read(path)
        assert not mark.exists()

    def test_classes_that_other_libraries_allow_are_refused(self, tmp_path):
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


class TestContents:
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
        content = {'state_dict': weights(1), 'x': np.float64(2), 'y': np.arange(3.0)}
        torch.save(content, tmp_path / 'a.pth', _use_new_zipfile_serialization=False)
        data = (tmp_path / 'a.pth').read_bytes()
        assert b'cnumpy.core.multiarray\n' in data or b'cnumpy._core.multiarray\n' in data
        for module in (b'cnumpy.core.multiarray\n', b'cnumpy._core.multiarray\n'):
            path = tmp_path / 'b.pth'
            path.write_bytes(data.replace(b'cnumpy._core', b'cnumpy.core').replace(b'cnumpy.core.multiarray\n', module))
            found = read(path)
            assert found['x'] == 2 and found['y'].tolist() == [0, 1, 2]

    @pytest.mark.parametrize('is_archive', [True, False])
    def test_files_in_both_formats_can_be_asked_to_be_mapped(self, tmp_path, is_archive):
        torch.save(weights(1), tmp_path / 'w.pth', _use_new_zipfile_serialization=is_archive)
        for name, value in weights(1).items():
            assert torch.equal(read(tmp_path / 'w.pth', mmap=True)[name], value)

    def test_histories_of_logged_values_are_restored(self, tmp_path):
        history = HistoryBuffer([0.5, 0.25, 4], [1, 2, 1], 100)
        torch.save({'state_dict': weights(1), 'x': history}, tmp_path / 'w.pth')
        found = read(tmp_path / 'w.pth')['x']
        assert type(found) is HistoryBuffer
        np.testing.assert_array_equal(found.data, history.data)
        assert found.mean() == (0.5 + 4.25) / 4 and found.current() == 4

    def test_histories_that_are_no_lists_of_numbers_are_refused(self, tmp_path):
        for values in ([[1.0, 2.0]], ['a'], [[]]):
            history = HistoryBuffer([1.0], [1], 100)
            history._log_history = np.array(values)
            torch.save({'state_dict': weights(1), 'x': history}, tmp_path / 'w.pth')
            with pytest.raises(UserError, match='history of logged values that are not numbers'):
                read(tmp_path / 'w.pth')


class TestDamage:
    @pytest.mark.parametrize('kind', ['zip', 'legacy', 'safetensors'])
    def test_a_file_truncated_anywhere_is_a_user_error(self, tmp_path, kind):
        path = tmp_path / ('w.safetensors' if kind == 'safetensors' else 'w.pth')
        if kind == 'safetensors':
            ckpt.write(weights(1), path)
        else:
            torch.save({'state_dict': weights(1)}, path, _use_new_zipfile_serialization=kind == 'zip')
        data = path.read_bytes()
        for length in {0, 1, 3, 8, 40, 100, 200, *range(0, len(data), len(data) // 15), len(data) - 1}:
            path.write_bytes(data[:length])
            # In the legacy format, a truncated class name is the name of another class.
            with pytest.raises(UserError, match=r'truncated|not a checkpoint|was refused') as caught:
                read(path)
            assert '\n' not in str(caught.value)

    @pytest.mark.parametrize(
        'data, found',
        [
            (b'', 'it is empty'),
            (b'some text', "it starts with b'some text'"),
            (b'<!DOCTYPE html><html>404</html>', "it starts with b'<!DOCTYPE html><'"),
            (b'\x89PNG\r\n\x1a\n' + bytes(50), "it starts with b'.x89PNG"),
        ],
    )
    def test_another_kind_of_file_is_reported(self, tmp_path, data, found):
        (tmp_path / 'w.pth').write_bytes(data)
        with pytest.raises(UserError, match=f'is not a checkpoint, {found}'):
            read(tmp_path / 'w.pth')

    @pytest.mark.parametrize('save', [torch.jit.save, torch.export.save], ids=['TorchScript', 'export'])
    def test_an_archive_with_a_program_has_its_own_message(self, tmp_path, save):
        linear = nn.Linear(2, 2)
        is_script = save is torch.jit.save
        program = torch.jit.script(linear) if is_script else torch.export.export(linear, (torch.ones(1, 2),))
        save(program, str(tmp_path / 'w.pth'))
        message = 'TorchScript archive' if is_script else 'exported program'
        with pytest.raises(UserError, match=rf'w\.pth is an? {message} .*, which contains a program: .*state_dict'):
            read(tmp_path / 'w.pth')

    @pytest.mark.parametrize('make', [os.mkfifo, os.mkdir, lambda path: os.symlink('/dev/zero', path)])
    def test_what_is_no_regular_file_is_not_opened(self, tmp_path, make):
        for name in ('w.pth', 'w.safetensors'):
            make(tmp_path / name)
            with pytest.raises(UserError, match=r'cannot be read \(it is a (named pipe|folder|device)\)'):
                read(tmp_path / name)

    @pytest.mark.parametrize(
        'name, message', [('nowhere.pth', 'does not exist'), ('.', 'it is a folder'), ('a\0b', 'cannot be read')]
    )
    def test_a_missing_file_is_an_error(self, tmp_path, name, message):
        with pytest.raises(UserError, match=message):
            read(tmp_path / name)

    @pytest.mark.parametrize('content', [[1, 2], torch.zeros(2), {'epoch': 3}, {'state_dict': {'a': 1}}, {}])
    def test_a_missing_state_dict_is_an_error(self, tmp_path, content):
        torch.save(content, tmp_path / 'w.pth')
        with pytest.raises(UserError, match=r'not a dict|no state dict'):
            load(tmp_path / 'w.pth')

    def test_tuples_that_share_their_parts_are_read_once(self, tmp_path):
        """Each level contains the one below twice, so that 60 levels have 2**60 parts."""
        shared = (np.float64(1), 2)
        for _ in range(60):
            shared = (shared, shared)
        torch.save({'state_dict': weights(1), 'shared': shared}, tmp_path / 'w.pth')
        start = time.monotonic()
        found = read(tmp_path / 'w.pth')['shared']
        assert time.monotonic() - start < 5
        while isinstance(found[0], tuple):
            assert found[0] is found[1]
            found = found[0]
        assert found == (1, 2) and type(found[0]) is np.float64

    def test_a_history_of_nested_lists_is_refused(self, tmp_path):
        shared = [1.0]
        for _ in range(30):
            shared = [shared, shared]  # an array of 2**30 numbers
        buffer = HistoryBuffer([1.0], [1])
        buffer._log_history = shared
        torch.save({'state_dict': weights(1), 'log': buffer}, tmp_path / 'w.pth')
        with pytest.raises(UserError, match='history of logged values that are not numbers'):
            read(tmp_path / 'w.pth')

    def test_a_state_dict_that_contains_itself_is_refused(self, tmp_path):
        looped = dict(weights(1))
        looped['loop'] = looped
        torch.save({'state_dict': looped}, tmp_path / 'w.pth')
        with pytest.raises(UserError, match='no state dict'):
            load(tmp_path / 'w.pth')

    def test_the_reason_is_that_of_torch_without_its_advice_to_run_code(self, tmp_path):
        torch.save({'state_dict': weights(1), 'number': 10**5000}, tmp_path / 'w.pth')
        with pytest.raises(UserError, match=r'not a checkpoint \(Unsupported operand 139\): download it again'):
            read(tmp_path / 'w.pth')


def test_a_safetensors_file_without_the_package_is_named(tmp_path, monkeypatch):
    path = tmp_path / 'w.safetensors'
    path.write_bytes(b'\0' * 16)
    monkeypatch.setitem(sys.modules, 'safetensors', None)
    with pytest.raises(UserError, match=r'w\.safetensors needs the package safetensors: run "pip install safetensors"'):
        read(path)


@pytest.mark.parametrize(
    'text, expected', [('{"classes": ["a"]}', {'classes': ['a']}), ('["a"]', '["a"]'), ('a', 'a')], ids=str
)
def test_metadata_of_safetensors_is_a_dict_only_where_the_text_is_one(tmp_path, text, expected):
    path = tmp_path / 'w.safetensors'
    save_file({'weight': torch.ones(2)}, path, {'dataset_meta': text, 'source': 'x'})
    assert read(path)['meta'] == {'dataset_meta': expected, 'source': 'x'}


class Scalar:
    """Pickled as a number of numpy with the given parts."""

    def __init__(self, *parts):
        self.parts = parts

    def __reduce__(self):
        return np.float32(0).__reduce__()[0], self.parts


@pytest.mark.parametrize('parts', [(np.dtype('f4'), None), ('f4', bytes(4)), (np.dtype('f4'), bytes(3))], ids=str)
def test_a_number_of_numpy_with_wrong_parts_is_refused(tmp_path, parts):
    path = tmp_path / 'w.pth'
    torch.save({'state_dict': weights(1), 'meta': {'best_score': Scalar(*parts)}}, path)
    with pytest.raises(UserError, match=r'w\.pth '):
        read(path)
