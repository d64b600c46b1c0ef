"""Every number of every full-size config equals the one in the table of published recipes (tests/recipes)."""

import numbers
import re
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from mmengine.config import Config
from modern_heads import head_of

from mogacore.published.archs import ARCHS

TABLES = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((ROOT / 'tests' / 'recipes').glob('*.yml'))}
# Parts that change neither the trained weights nor the test result, or that repeat another part.
UNRELATED = {
    'default_hooks', 'env_cfg', 'input_shape', 'log_processor', 'randomness', 'test_pipeline', 'train_pipeline',
    'tta_model', 'tta_pipeline', 'val_dataloader', 'val_evaluator', 'vis_backends', 'visualizer',
}  # fmt: skip
UNRELATED_KEYS = {'num_workers', 'persistent_workers', 'pin_memory', 'val_interval'}
# Lists of steps, and the names of such lists, need a row, as numbers do.
STEPS = re.compile(r'\.(pipeline|policies|transforms(\.\d+)?)$')
# tests/evaluation/test_robustness.py compares the configs that only test with those of the recipes.
WITHOUT_RECIPE = re.compile('digits|fashion-mnist|moving-fashion|synthetic|_imagenet-')


def full_size_leaves(task):
    """The configs of the paper; those of other heads are compared with the libraries in tests/test_modern_heads.py."""
    paths = [path for path in (ROOT / 'configs' / task).glob('**/*.py') if not head_of(path)]
    return {path.stem: path for path in paths if '_base_' not in path.parts and not WITHOUT_RECIPE.search(path.stem)}


def flatten(value, kind, path=''):
    """Pairs of path and value for every value of a kind in a config, and every list of such values.

    For texts also the types of every list of dicts, such as the steps of a pipeline.
    """
    if isinstance(value, kind):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            if key not in UNRELATED_KEYS:
                yield from flatten(item, kind, f'{path}.{key}' if path else key)
    elif isinstance(value, (list, tuple)) and value:
        if all(isinstance(item, kind) for item in value):
            yield path, list(value)
            return
        if kind is str and all(isinstance(item, dict) and 'type' in item for item in value):
            yield path, [item['type'] for item in value]
        seen = {}
        for index, item in enumerate(value):
            name = item.get('type', index) if isinstance(item, dict) else index
            seen[name] = seen.get(name, 0) + 1
            yield from flatten(item, kind, f'{path}.{name}' + (f'#{seen[name]}' if seen[name] > 1 else ''))


def values_of_config(path, named=()):
    """Every number, switch and list of steps of a config, and those of its texts whose paths are in ``named``."""
    cfg = Config.fromfile(path, import_custom_modules=False).to_dict()
    cfg = {key: value for key, value in cfg.items() if key not in UNRELATED}
    values = dict(flatten(cfg, numbers.Number))
    values.update((key, text) for key, text in flatten(cfg, str) if key in named or STEPS.search(key))
    arch = cfg['model'].get('backbone', {}).get('arch')
    if arch in ARCHS:  # the size decides where the config is silent
        values.setdefault('model.backbone.drop_path_rate', ARCHS[arch]['drop_path_rate'])
    return values


def values_of_table(table, name):
    leaf = table['leaves'][name]
    parts = [table['blocks'][block] for block in leaf.get('blocks', [])] + [leaf]
    values = {}
    for part in parts:
        for key, value in part.get('values', {}).items():
            if value is None:  # also replaces what is below it
                values = {other: known for other, known in values.items() if not other.startswith(f'{key}.')}
            values[key] = value
    return values


@pytest.mark.parametrize('task', TABLES)
def test_every_full_size_config_has_a_row(task):
    assert set(TABLES[task]['leaves']) == set(full_size_leaves(task))


@pytest.mark.parametrize('task', TABLES)
def test_every_value_names_a_published_file_or_is_ours(task):
    table = TABLES[task]
    used = {block for leaf in table['leaves'].values() for block in leaf.get('blocks', [])}
    assert used == set(table['blocks'])
    for name, part in {**table['blocks'], **table['leaves']}.items():
        if part.get('values') and part['source'] != 'ours':
            repository, _, file = part['source'].partition(' ')
            assert repository in table['sources'] and Path(file).suffix, (name, part['source'])


@pytest.mark.parametrize('task, name', [(task, name) for task in TABLES for name in full_size_leaves(task)])
def test_config_holds_the_published_numbers(task, name):
    expected = values_of_table(TABLES[task], name)
    absent = {key for key, value in expected.items() if value is None}
    values = values_of_config(full_size_leaves(task)[name], named=expected)
    assert not [key for key in values if any(key == name or key.startswith(f'{name}.') for name in absent)]
    assert values == {key: value for key, value in expected.items() if key not in absent}


def test_every_task_has_a_table():
    assert set(TABLES) == {'classification', 'detection', 'segmentation', 'pose', 'video_prediction'}
