"""Makes broken weight files: a working training state with one entry of a wrong type, and files of other kinds.

Each file names the command that reads the broken part.
"""

import copy
import os
import pickle
import socket
from collections import Counter, OrderedDict
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

KEY = 'head.fc.weight'
SPARSE = torch.eye(3).to_sparse()
MALFORMED_TENSORS = {
    'sparse': SPARSE,
    'csr': torch.eye(3).to_sparse_csr(),
    'meta': torch.empty(10, 32, device='meta'),
    'quantized': torch.quantize_per_tensor(torch.ones(10, 32), 0.1, 0, torch.qint8),
    'expanded': torch.zeros(1).expand(2**40),
    'nested': torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
}
MISFITS = {
    'scalar': torch.tensor(1.0),
    'longer': torch.zeros(10, 33),
    'empty': torch.zeros(0),
    'integers': torch.ones(10, 32, dtype=torch.int64),
    'booleans': torch.ones(10, 32, dtype=torch.bool),
    'complex': torch.ones(10, 32, dtype=torch.complex64),
}
NO_DICTS = {'none': None, 'number': 5, 'text': 'text', 'list': [1], 'flag': True, 'tensor': torch.zeros(2)}
NO_COUNTS = {'none': None, 'text': 'x', 'negative': -1, 'fraction': 1.5, 'flag': True, 'list': [1], 'huge': 2**70}
KEYS = {'number': 5, 'none': None, 'tuple': ('a',), 'bytes': b'a', 'lines': 'a\nb', 'long': 'a' * 2000}
WEIGHT_COMMANDS = ('convert', 'infer')


@dataclass(frozen=True)
class Broken:
    """A broken file.

    Args:
        name: What is broken.
        path: The file.
        command: What reads it: convert, infer, test, load_from or resume.
    """

    name: str
    path: Path
    command: str


def replaced(content, path, value):
    """A deep copy of nested dicts and lists with the entry at a path replaced, or removed if ``value`` is ``...``."""
    content = copy.deepcopy(content)
    *parents, last = path
    place = content
    for key in parents:
        place = place[key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return content


def attributed(table, **attributes):
    """An OrderedDict with attributes, which pickle restores."""
    table = OrderedDict(table)
    vars(table).update(attributes)
    return table


def weight_contents(state):
    """Names and contents that no command accepts as weights."""
    weights = state['state_dict']
    small = {'meta': state['meta'], 'state_dict': weights}
    for kind, value in NO_DICTS.items():
        yield f'content is {kind}', value
        yield f'state_dict is {kind}', replaced(small, ['state_dict'], value)
        yield f'meta is {kind}', replaced(small, ['meta'], value)
        if value is not None:
            yield f'dataset_meta is {kind}', replaced(small, ['meta', 'dataset_meta'], value)
            yield f'state_dict_ema is {kind}', {**small, 'state_dict_ema': value}
            yield f'ema_state_dict is {kind}', {**small, 'ema_state_dict': value}
            yield f'_metadata is {kind}', {**small, 'state_dict': attributed(weights, _metadata=value)}
    for kind, key in KEYS.items():
        yield f'key {kind} of state_dict', {**small, 'state_dict': {**weights, key: torch.ones(1)}}
        yield f'key {kind} of a bare state dict', {**weights, key: torch.ones(1)}
        yield f'key {kind} of meta', {**small, 'meta': {**state['meta'], key: 1}}
        yield f'key {kind} of state_dict_ema', {**small, 'state_dict_ema': {**weights, key: torch.ones(1)}}
        yield f'key {kind} of the checkpoint', {**small, key: 1}
    for kind, value in MALFORMED_TENSORS.items():
        yield f'{kind} tensor', replaced(small, ['state_dict', KEY], value)
        yield f'{kind} tensor in a bare state dict', {**weights, KEY: value}
        yield f'{kind} tensor in state_dict_ema', {**small, 'state_dict_ema': {**weights, KEY: value}}
        yield f'{kind} tensor in ema', {'model': weights, 'ema': {'module': {**weights, KEY: value}}}
    yield 'state_dict is empty', {**small, 'state_dict': {}}
    yield 'state_dict has no tensor', {**small, 'state_dict': {'a': 1}}
    yield 'state_dict has another level', {**small, 'state_dict': {'model': weights, 'a': torch.ones(1)}}
    yield 'state_dict is a Counter', {**small, 'state_dict': Counter({'a': 1})}
    yield 'state_dict has a replaced method', {**small, 'state_dict': attributed(weights, get=5)}
    yield 'the checkpoint is empty', {}
    yield 'two wrapped names for one', {**weights, f'_orig_mod.{KEY}': weights[KEY]}
    yield '_metadata of a module is a number', {**small, 'state_dict': attributed(weights, _metadata={'': 5})}
    version = {'': {'version': 'new'}}
    yield '_metadata has a version of text', {**small, 'state_dict': attributed(weights, _metadata=version)}
    for key, values in {
        'classes': ('abc', 5, [1, 2], {'a': 1}, [['a']]),
        'palette': (5, [1, 2], [[1, 2]]),
        'keypoint_id2name': (['a'], {'a': 'b'}),
        'skeleton_links': ([1], [[1, 2, 3]]),
    }.items():
        for value in values:
            yield f'{key} is {value}', {**small, 'meta': {**state['meta'], 'dataset_meta': {key: value}}}


def misfits(state):
    """Names and contents that only a command with a model can refuse."""
    for kind, value in MISFITS.items():
        yield f'{kind} of another shape or type', replaced(state, ['state_dict', KEY], value)
    for kind, value in (('number', 3), ('text', 'a'), ('list', [1]), ('dict', {'a': 1})):
        yield f'stray {kind}', {**state['state_dict'], 'epoch': value}
    yield 'unknown name', {**state['state_dict'], 'other.weight': torch.ones(1)}
    yield 'missing name', replaced(state['state_dict'], [KEY], ...)


def resume_contents(state):
    """Names and contents that a resumed run refuses."""
    group = ['optimizer', 'param_groups', 0]
    number = next(iter(state['optimizer']['state']))
    slots = ['optimizer', 'state', number]
    for key in ('epoch', 'iter'):
        yield f'meta.{key} is missing', replaced(state, ['meta', key], ...)
        for kind, value in NO_COUNTS.items():
            yield f'meta.{key} is {kind}', replaced(state, ['meta', key], value)
    for key in ('batch_in_epoch', 'batch_size', 'world_size'):
        yield f'position.{key} is missing', replaced(state, ['meta', 'position', key], ...)
        for kind, value in NO_COUNTS.items():
            yield f'position.{key} is {kind}', replaced(state, ['meta', 'position', key], value)
    for kind, value in {'text': 'x', 'negative': -1, 'fraction': 1.5, 'huge': 2**32}.items():
        yield f'seed is {kind}', replaced(state, ['meta', 'seed'], value)
    for kind, value in NO_DICTS.items():
        for path in (
            ['meta', 'position'],
            ['message_hub'],
            ['message_hub', 'log_scalars'],
            ['message_hub', 'runtime_info'],
            ['message_hub', 'resumed_keys'],
            ['optimizer'],
            ['optimizer', 'state'],
            ['optimizer', 'param_groups'],
            group,
            slots,
            ['param_schedulers'],
            ['param_schedulers', 0],
            ['gradients'],
            ['ema_state_dict'],
            ['message_hub', 'resumed_keys', 'epoch'],
            ['param_schedulers', 0, 'param_name'],
        ):
            if (path[-1], kind) not in {('epoch', 'flag'), ('param_name', 'text')}:
                yield f'{".".join(map(str, path))} is {kind}', replaced(state, path, value)
    for path in (
        ['message_hub', 'log_scalars'],
        ['optimizer', 'state'],
        [*group, 'params'],
        [*group, 'weight_decay'],
        [*slots, 'exp_avg'],
    ):
        yield f'{".".join(map(str, path))} is missing', replaced(state, path, ...)
    for path, value in (
        (['message_hub', 'runtime_info', 'best_score'], 'high'),
        (['message_hub', 'runtime_info', 'keep_ckpt_ids'], 5),
        (['message_hub', 'runtime_info', 'last_ckpt'], 5),
        ([*group, 'lr'], 'x'),
        ([*group, 'lr'], None),
        ([*group, 'lr'], SPARSE),
        ([*group, 'betas'], [0.9]),
        ([*group, 'params'], ['a']),
        ([*slots, 'exp_avg'], SPARSE),
        ([*slots, 'exp_avg'], None),
        ([*slots, 'exp_avg'], 'x'),
        ([*slots, 'exp_avg'], torch.zeros(7)),
        ([*slots, 'step'], 'x'),
        (['optimizer', 'state', 'a'], {}),
        (['optimizer', 'state', 10**6], {}),
        ([*group, 'params'], [0]),
        (['optimizer', 'param_groups'], 2 * state['optimizer']['param_groups']),
        (['optimizer', 'base_param_settings'], {'lr': 'x'}),
        (['param_schedulers', 0, 'last_step'], 'x'),
        (['param_schedulers', 0, 'base_values'], 5),
        (['param_schedulers', 0, 'optimizer'], 5),
        (['param_schedulers', 0, 'step'], 5),
        (['gradients'], {'other': torch.ones(1)}),
        (['gradients'], {KEY: torch.ones(1)}),
        (['gradients'], {KEY: 1}),
        (['ema_state_dict'], {'module.other': torch.ones(1), 'steps': torch.tensor(1)}),
        (['ema_state_dict'], {f'module.{KEY}': torch.ones(1), 'steps': torch.tensor(1)}),
        (['ema_state_dict'], {'steps': 'x'}),
    ):
        yield f'{".".join(map(str, path))} is {str(value)[:40]}', replaced(state, path, value)


def write_files(folder):
    """Paths of things that are no weight files at all."""
    texts = {
        'empty.pth': b'', 'text.pth': b'some text', 'page.pth': b'<!DOCTYPE html>', 'image.pth': b'\x89PNG\r\n\x1a\n',
        'zip.pth': b'PK\x03\x04', 'pickle.pth': pickle.dumps([1]), 'garbage.pth': b'\x80\x02' + bytes(50),
        'empty.safetensors': b'', 'text.safetensors': b'some text that is longer', 'length.safetensors': b'\xff' * 20,
        'type.safetensors': _safetensors('F99', [0, 4]), 'offsets.safetensors': _safetensors('F32', [0, 400]),
    }  # fmt: skip
    for name, data in texts.items():
        (folder / name).write_bytes(data)
    os.mkfifo(folder / 'pipe.pth')
    os.mkfifo(folder / 'pipe.safetensors')
    (folder / 'folder.pth').mkdir()
    (folder / 'device.pth').symlink_to('/dev/zero')
    (folder / 'dangling.pth').symlink_to('nowhere')
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / 's.pth'))
    torch.jit.save(torch.jit.script(nn.Identity()), str(folder / 'script.pth'))
    torch.save(nn.Identity(), folder / 'module.pth')
    return [*sorted(folder.iterdir()), folder / 'missing.pth']


def _safetensors(dtype, offsets):
    header = f'{{"a":{{"dtype":"{dtype}","shape":[1],"data_offsets":{offsets}}}}}'.encode()
    return len(header).to_bytes(8, 'little') + header + bytes(4)


def make(folder, state):
    """Write broken variants of a training state below a folder, and return them with their commands."""
    cases = []

    def add(name, content, command):
        path = folder / f'{len(cases)}.pth'
        torch.save(content, path)
        cases.append(Broken(name, path, command))

    for number, (name, content) in enumerate(weight_contents(state)):
        add(name, content, WEIGHT_COMMANDS[number % 2])
    for name, content in misfits(state):
        add(name, content, 'infer')
    for name, content in resume_contents(state):
        add(name, content, 'resume')
    chosen = [(name, content) for name, content in weight_contents(state) if 'state_dict is' in name][:4]
    for name, content in chosen:
        add(name, content, 'test')
        add(name, content, 'load_from')
    others = folder / 'others'
    others.mkdir()
    for path in write_files(others):
        cases += [Broken(path.name, path, command) for command in ('convert', 'infer', 'resume')]
    cases += [Broken(path.name, path, 'test') for path in sorted(others.glob('*.pth')) if not path.is_file()]
    return cases
