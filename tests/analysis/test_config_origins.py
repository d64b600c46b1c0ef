"""Files and lines of the values of a config."""

import ast
import json
from functools import cache
from itertools import count

import numpy as np
import pytest
from mmengine.config import Config

from mogacore.analysis.configs.entries import list_entries, write_config
from mogacore.cli.config import main
from mogacore.engine.config import load_config
from mogacore.errors import UserError
from mogacore.locations import config_names

NAMES = [
    *[name for name in config_names() if name.endswith('_digits')][:8],
    'classification/moganet-small_no-ema_8xb128_in1k-224',
    'classification/moganet-tiny_timm-recipe_8xb128_in1k-224',
    'detection/mask-rcnn_moganet-small_fpn_ms-3x_coco',
    'detection/cascade-mask-rcnn_moganet-small_fpn_4conv1fc-giou_ms-3x_coco',
    'segmentation/upernet_moganet-tiny_160k_ade20k-512x512',
    'pose/td-hm_moganet-tiny_210e_coco-256x192',
]


@cache
def nodes(path):
    return [node for node in ast.walk(ast.parse(path.read_text())) if hasattr(node, 'lineno')]


@pytest.mark.parametrize('name', NAMES)
def test_the_line_of_every_value_contains_it_or_computes_it(name):
    """A line of a plain value contains it; other lines contain an expression that has to be run."""
    entries = list_entries(load_config(name))
    assert len(entries) > 50
    for entry in entries:
        here = [node for node in nodes(entry.origin.file) if node.lineno == entry.origin.line]
        assert here, entry
        is_plain = not isinstance(entry.value, (list, tuple, dict))
        if not is_plain or any(isinstance(node, ast.Constant) and node.value == entry.value for node in here):
            continue
        computed = (ast.BinOp, ast.UnaryOp, ast.ListComp, ast.JoinedStr)
        assert any(isinstance(part, computed) for node in here for part in ast.walk(node)), entry


def write_random(folder, rng, number=3):
    """A chain of configs with nested dicts and lists whose values are distinct integers, each on a line of its own."""
    values = count(1000)
    kinds = {}  # of a path in all files, since mmengine refuses a dict over another value

    def text(path, indent, in_list=False):
        kind = rng.choice(['value', 'dict', 'list'], p=[0.3, 0.5, 0.2]) if len(path) < 4 else 'value'
        kind = kinds.setdefault(path, kind) if not in_list else kind
        if kind == 'value':
            return str(next(values))
        pad = '    ' * (indent + 1)
        if kind == 'list':
            items = ''.join(f'{pad}{text((*path, i), indent + 1, True)},\n' for i in range(rng.integers(1, 4)))
            return f'[\n{items}{"    " * indent}]'
        delete = f'{pad}_delete_=True,\n' if not in_list and rng.random() < 0.3 else ''
        chosen = rng.choice(list('abc'), rng.integers(1, 4), replace=False)
        items = ''.join(f'{pad}{key}={text((*path, key), indent + 1, in_list)},\n' for key in chosen)
        return f'dict(\n{delete}{items}{"    " * indent})'

    for i in range(number):
        base = f"_base_ = './c{i - 1}.py'\n" if i else ''
        body = ''.join(f'{key} = {text((key,), 0)}\n' for key in ('x', 'y', 'z'))
        (folder / f'c{i}.py').write_text(base + body)
    return folder / f'c{number - 1}.py'


def numbers(value):
    if isinstance(value, dict):
        return [item for child in value.values() for item in numbers(child)]
    return [item for child in value for item in numbers(child)] if isinstance(value, (list, tuple)) else [value]


def test_random_chains_agree_with_a_search_for_the_value(tmp_path):
    found = 0
    for seed in range(60):
        folder = tmp_path / str(seed)
        folder.mkdir()
        path = write_random(folder, np.random.default_rng(seed))
        for entry in list_entries(Config.fromfile(path)):
            for value in numbers(entry.value):
                if value is True:  # a _delete_ that deletes nothing stays
                    continue
                line = entry.origin.file.read_text().splitlines()[entry.origin.line - 1]
                is_list = isinstance(entry.value, list)
                text = entry.origin.file.read_text() if is_list else line
                assert str(value) in text, (seed, entry)
                found += 1
    assert found > 500


BASE = """
numbers = dict(one=1, two=2)
steps = [dict(name='first', size=10), dict(name='second', size=20), dict(name='third', size=30)]
loader = dict(steps=steps, workers=4)
other = loader
codec = dict(size=[7, 8])
"""
LEAF = """
_base_ = './base.py'
numbers = dict(two=22, three=_base_.codec.size)
steps = _base_.steps
steps[1]['size'] = 21
more = [*_base_.steps[:1], dict(name='new')] + steps[-1:]
loader = dict(_delete_=True, steps=steps)
copied = _base_.numbers.copy()
copied.update(one=11)
quoted = '{{_base_.codec}}'
bare = {{_base_.codec.size}}
joined = {**copied, 'four': 4}
united = dict(a=1) | dict(b=2)
named = '{{ fileBasename }}'
home = '{{$UNSET:nowhere}}'
computed = [i * i for i in range(3)]
looped = dict(a=1)
for key in ('b', 'c'):
    looped[key] = 5
del joined['four']
"""
EXPECTED = {
    'numbers.one': 'base.py:2', 'numbers.two': 'leaf.py:3', 'numbers.three': 'base.py:6',
    'steps.0.size': 'base.py:3', 'steps.1.size': 'leaf.py:5', 'steps.2.name': 'base.py:3',
    'more.0.name': 'base.py:3', 'more.1.name': 'leaf.py:6', 'more.2.size': 'base.py:3',
    'loader.steps.1.size': 'leaf.py:5', 'loader.steps.1.name': 'base.py:3',
    # mmengine copies each variable of a base, so that the steps in its loaders do not change.
    'other.steps.1.size': 'base.py:3', 'other.workers': 'base.py:4',
    'copied.one': 'leaf.py:9', 'copied.two': 'base.py:2', 'quoted': 'base.py:6', 'bare': 'base.py:6',
    'joined.one': 'leaf.py:9', 'united.a': 'leaf.py:13', 'united.b': 'leaf.py:13', 'named': 'leaf.py:14',
    'home': 'leaf.py:15', 'computed': 'leaf.py:16', 'looped.a': 'leaf.py:18', 'looped.b': 'leaf.py:18',
}  # fmt: skip


@pytest.fixture
def leaf(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'base.py').write_text(BASE)
    (tmp_path / 'leaf.py').write_text(LEAF)
    return tmp_path / 'leaf.py'


def test_each_kind_of_expression_has_its_line(leaf):
    cfg = load_config(leaf)
    found = {entry.key: entry for entry in list_entries(cfg)}
    assert {key: str(found[key].origin) for key in EXPECTED} == EXPECTED
    assert cfg.other.steps[1].size == 20 and cfg.steps[1].size == 21 and cfg.loader.keys() == {'steps'}
    assert 'joined.four' not in found


def test_options_override_files_also_within_a_list(leaf):
    options = {'numbers.one': 9, 'steps.0.size': 99, 'fresh.a': [1, 2]}
    entries = {entry.key: entry for entry in list_entries(load_config(leaf, options), options)}
    for key in ('numbers.one', 'steps.0.size', 'fresh.a'):
        assert str(entries[key].origin) == '--cfg-options', key
    assert [str(entries[key].origin) for key in ('bare', 'steps.0.name')] == ['base.py:6', 'base.py:3']


def test_a_base_by_short_name_and_a_json_base_are_followed(tmp_path):
    (tmp_path / 'extra.json').write_text('{"extra": {"a": 1}}')
    (tmp_path / 'own.py').write_text("_base_ = ['classification/moganet-xtiny_digits', './extra.json']\n")
    found = {entry.key: entry.origin for entry in list_entries(load_config(tmp_path / 'own.py'))}
    assert str(found['model.backbone.arch']).endswith('configs/classification/moganet-xtiny_digits.py:9')
    assert str(found['extra.a']) == str(tmp_path / 'extra.json')


def test_what_is_merged_into_a_computed_dict_keeps_the_line_of_the_other_entries(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'base.py').write_text("\nscale = {name: 1 for name in 'ab'}\n")
    (tmp_path / 'leaf.py').write_text("_base_ = './base.py'\nscale = dict(b=2)\n")
    options = {'scale.c': 3}
    deleted = {'scale._delete_': True, 'scale.d': 1}
    (entry,) = list_entries(load_config('leaf.py', deleted), deleted)
    assert (entry.key, str(entry.origin)) == ('scale.d', '--cfg-options')
    found = {entry.key: str(entry.origin) for entry in list_entries(load_config('leaf.py', options), options)}
    assert found == {'scale.a': 'base.py:2', 'scale.b': 'leaf.py:2', 'scale.c': '--cfg-options'}


def test_of_a_config_with_imports_the_file_is_known(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'base.py').write_text('settings = dict(a=1, b=2)\n')
    (tmp_path / 'leaf.py').write_text(
        'from mmengine.config import read_base\nwith read_base():\n    from .base import *\nother = dict(c=3)\n'
    )
    options = {'settings.a': 5}
    found = {entry.key: str(entry.origin) for entry in list_entries(load_config('leaf.py', options), options)}
    assert found == {'settings.a': '--cfg-options', 'settings.b': 'leaf.py', 'other.c': 'leaf.py'}


@pytest.mark.parametrize('key, message', [
    ('numbers.onee', "numbers of the config has no 'onee' for the key 'numbers.onee': did you mean numbers.one?"),
    ('workers', "the config has no 'workers' for the key 'workers': did you mean loader.workers or other.workers?"),
    ('numbers.one.x', "numbers.one of the config has no 'x' for the key 'numbers.one.x': numbers.one is 1, which has "
     'no entries'),
    ('steps.7', "steps of the config has no '7' for the key 'steps.7': choose from 0, 1, 2"),
])  # fmt: skip
def test_an_unknown_key_suggests_similar_ones(key, message, tmp_path):
    (tmp_path / 'base.py').write_text(BASE.replace('other = loader', 'other = dict(workers=1)'))
    with pytest.raises(UserError) as error:
        list_entries(load_config(tmp_path / 'base.py'), keys=[key])
    assert str(error.value) == message


def test_the_command_prints_the_values_of_its_keys(leaf, capsys):
    main([str(leaf), 'numbers', 'steps.1', '--cfg-options', 'numbers.one=5'])
    assert capsys.readouterr().out.splitlines() == [
        'numbers.one = 5          # --cfg-options',
        'numbers.two = 22         # leaf.py:3',
        'numbers.three = [7, 8]   # base.py:6',
        "steps.1.name = 'second'  # base.py:3",
        'steps.1.size = 21        # leaf.py:5',
    ]
    main([str(leaf), 'numbers.two', '--json'])
    assert json.loads(capsys.readouterr().out)['values'] == [
        {'key': 'numbers.two', 'value': 22, 'file': str(leaf), 'line': 3}
    ]


def test_the_written_config_reads_back_equal(leaf, tmp_path):
    cfg = load_config('classification/moganet-xtiny_digits', {'optim_wrapper.optimizer.lr': 0.5})
    write_config(cfg, tmp_path / 'out' / 'resolved.py')
    again = load_config(tmp_path / 'out' / 'resolved.py')
    assert again.to_dict() == cfg.to_dict() and again.optim_wrapper.optimizer.lr == 0.5
    for path in (tmp_path / 'resolved.json', cfg.filename):
        with pytest.raises(UserError, match='--out'):
            write_config(cfg, path)
