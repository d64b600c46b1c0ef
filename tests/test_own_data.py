"""The configs of docs/own_data.md load, train and test on small data in their formats, from outside the project."""

import ast
import json
import re

import pytest
import torch
from conftest import ROOT, TINY_ARCH
from own_data import WRITERS

from mogacore.engine.config import load_config
from mogacore.engine.runner import dry_run, train
from mogacore.engine.runner import test as run_test
from mogacore.models import MogaNet

PAGE = (ROOT / 'docs' / 'own_data.md').read_text()
LIBRARIES = dict(flowers='mmpretrain', cells='mmdet', fields='mmseg', birds='mmpose', clips='mmengine')
METRICS = dict(flowers='accuracy/top1', cells='coco/bbox_mAP', fields='mIoU', birds='coco/AP', clips='video/mse')
# Sizes in pixels that are reduced for the test.
SIZES = {'=224': '=64', '=248': '=72', '(512, 512)': '(64, 64)', '(256, 256)': '(64, 64)', '(128, 128)': '(64, 64)',
         '(32, 32)': '(16, 16)'}  # fmt: skip
WIDTHS = [*TINY_ARCH['embed_dims']]


def statements(code):
    """Source of each top-level assignment by its name."""
    return {node.targets[0].id: ast.get_source_segment(code, node) for node in ast.parse(code).body}


def configs():
    """Code of each config of the page; a block "NAME.py with" replaces settings of that config."""
    found = {}
    for name, variant, code in re.findall(r'```python\n# (\w+)\.py( with)?\n(.*?)```', PAGE, re.DOTALL):
        if not variant:
            found[name] = code
        else:
            changed = statements(found[name]) | statements(code)
            number = sum(key.startswith(f'{name}-') for key in found) + 1
            found[f'{name}-{number}'] = '\n'.join(changed.values())
    return found


CONFIGS = configs()
TRAINED = [name for name in CONFIGS if '-' not in name or name.startswith('cells')]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Data sets, pretrained weights, and all configs with small images."""
    root = tmp_path_factory.mktemp('own data')
    for name, write in WRITERS.items():
        write(root / 'data' / name)
    for name, code in CONFIGS.items():
        for size, small in SIZES.items():
            code = code.replace(size, small)
        (root / f'{name}.py').write_text(code)
    torch.save(dict(state_dict=MogaNet(arch=TINY_ARCH).state_dict()), root / 'tiny.pth')
    return root


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def options(name, folder):
    """A tiny network and two iterations."""
    code, kind = CONFIGS[name], name.partition('-')[0]
    found = {f'{stage}_dataloader.num_workers': 0 for stage in ('train', 'val', 'test')}
    if kind == 'clips':
        return found | {'model.spatial_dims': 8, 'model.temporal_dims': 16, 'model.temporal_depth': 2,
                        'train_cfg.max_epochs': 5}  # fmt: skip
    in_channels = 'in_channels=1' in code
    found |= {'model.backbone.arch': dict(_delete_=True, **TINY_ARCH)}
    found |= {'model.backbone.init_cfg': None} if in_channels else {
        'model.backbone.init_cfg.checkpoint': str(folder / 'tiny.pth')}  # fmt: skip
    if kind in ('flowers', 'birds'):
        found['model.head.in_channels'] = WIDTHS[-1]
    elif 'upernet' in code:
        found |= {'model.decode_head.in_channels': WIDTHS, 'model.auxiliary_head.in_channels': WIDTHS[2]}
    else:
        found['model.neck.in_channels'] = WIDTHS
    if kind == 'cells':
        found |= small_detector(load_config(folder / f'{name}.py').model)
    if kind == 'fields':
        return found | {'train_cfg.max_iters': 2, 'train_cfg.val_interval': 2, 'param_scheduler.0.end': 1}
    return found | {'train_cfg.max_epochs': 1 if kind == 'cells' else 2}


def small_detector(model):
    """Options for heads of 16 channels and few proposals."""
    widths = {'in_channels', 'feat_channels', 'out_channels', 'conv_out_channels', 'fc_out_channels'}
    few = {'num': 16, 'nms_pre': 32, 'max_per_img': 16, 'score_thr': 0.0, 'num_groups': 4}
    found = {}

    def walk(value, path):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(item, (dict, list)):
                walk(item, f'{path}.{key}')
            elif key in widths | few.keys():
                found[f'{path}.{key}'] = few.get(key, 16)

    for part in ('neck', 'rpn_head', 'bbox_head', 'roi_head', 'train_cfg', 'test_cfg'):
        walk(model.get(part) or {}, f'model.{part}')
    return {key: value for key, value in found.items() if not key.startswith('model.neck.in_channels')}


@pytest.mark.parametrize('name', TRAINED)
def test_config_trains_and_tests(name, folder, elsewhere):
    kind = name.partition('-')[0]
    pytest.importorskip(LIBRARIES[kind])
    config, settings, work_dir = str(folder / f'{name}.py'), options(name, folder), str(elsewhere / 'run')
    train(config, work_dir=work_dir, cfg_options=settings)
    (best,) = (elsewhere / 'run').glob('best_*.pth')
    metrics = run_test(config, str(best), work_dir=str(elsewhere / 'test'), out='metrics.json', cfg_options=settings)
    assert METRICS[kind] in metrics
    assert json.loads((elsewhere / 'metrics.json').read_text())['metrics'].keys() == metrics.keys()
    if 'ConfusionMatrixPlot' in CONFIGS[name]:
        for run in ('run', 'test'):
            assert len(list((elsewhere / run).glob('*/vis_data/vis_image/confusion_*.png'))) >= 1


@pytest.mark.parametrize('name', [name for name in CONFIGS if name not in TRAINED])
def test_variant_of_a_config_fits_its_data(name, folder, elsewhere):
    pytest.importorskip(LIBRARIES[name.partition('-')[0]])
    assert 'the data exists' in dry_run(str(folder / f'{name}.py'), cfg_options=options(name, folder))


def test_page_shows_one_config_per_kind_of_data():
    assert [name for name in CONFIGS if '-' not in name] == list(WRITERS)
    assert set(re.findall(r'`(\w+)\.py`', PAGE)) == set(WRITERS)


@pytest.mark.parametrize('name', [name for name in CONFIGS if name != 'clips'])
def test_early_stopping_watches_the_score_of_the_best_checkpoint(name, folder):
    """Its default ``min_delta`` would end every training whose score is in 0..1."""
    cfg = load_config(folder / f'{name}.py')
    hook = next(hook for hook in cfg.custom_hooks if hook.type == 'EarlyStoppingHook')
    saved = cfg.default_hooks.checkpoint.save_best
    assert hook.monitor == METRICS[name.partition('-')[0]]
    assert saved in ('auto', hook.monitor)
    assert hook.min_delta == (0.001 if hook.monitor.startswith('coco') else 0.1)
