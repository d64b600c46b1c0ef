"""Heads that the paper does not use: their configs next to the libraries' own, and every command on the digits."""

import json
import numbers
import re
from collections import Counter
from fnmatch import fnmatch
from itertools import zip_longest

import numpy as np
import pytest
import torch
from conftest import ROOT, TINY_ARCH
from mmengine.config import Config
from modern_heads import DIGITS, FULL_SIZE, HEADS, head_of, public_config
from test_recipes import flatten

from mogacore.analysis.complexity import complexity
from mogacore.analysis.errors.run import analyze
from mogacore.datasets.digits import write_digits
from mogacore.deploy.export import export
from mogacore.deploy.graphs import create_graph
from mogacore.deploy.source import load_source
from mogacore.engine.config import build_on_meta, load_config
from mogacore.engine.runner import test as run_test
from mogacore.engine.runner import train
from mogacore.errors import UserError
from mogacore.inference.predictor import infer
from mogacore.published import load_results
from mogacore.published.archs import ARCHS


def named(path):
    return path.stem


# Values that may differ from those of the public config, by their paths in `values_of`. The first are the backbone's
# widths, the parameter groups, and how our data sets and tools express the same setting.
EVERYWHERE = (
    '*.in_channels', '*.c1_in_channels', 'optim_wrapper.constructor', 'optim_wrapper.optimizer.betas',
    'optim_wrapper.optimizer.eps', 'optim_wrapper.paramwise_cfg.no_decay_*', 'auto_scale_lr.*', 'test.pipeline*',
    'train.batch_size', 'model.test_cfg.crop_size', 'model.test_cfg.stride', 'param_scheduler.PolyLR.end',
    'param_scheduler.LinearLR.end', '*.LoadAnnotations.reduce_zero_label', 'train_cfg.by_epoch', 'train_cfg.type',
)  # fmt: skip
ADAMW = ('optim_wrapper.optimizer.*', 'optim_wrapper.paramwise_cfg.bias_*')
VECTORS = tuple(f'optim_wrapper.paramwise_cfg.{key}' for key in ('bias_decay_mult', 'norm_decay_mult', 'bypass_*'))
DIFFERENCES = {
    'faster-rcnn': (*ADAMW, '*.bbox_coder.target_means'),  # its default
    # The schedule of our RetinaNet; normalization of the ImageNet weights.
    'fcos': (*ADAMW, 'model.data_preprocessor.*', 'param_scheduler.LinearLR.start_factor'),
    # Widths of RTMDet-tiny and m, and the norms of those configs.
    'rtmdet': (*VECTORS, '*.norm_cfg.*', '*.feat_channels', '*.out_channels', '*.num_csp_blocks', '*.exp_on_reg'),
    # (short, long) is (long, short) elsewhere; the crops' long side 4200 is never reached.
    'dino-4scale': ('train.pipeline.RandomChoice.transforms.*.scales.*',),
    # The same multipliers under other names; the poly counts from iteration 0.
    'segformer': ('optim_wrapper.paramwise_cfg.custom_keys.*', 'param_scheduler.PolyLR.begin'),
    # The schedule of our UperNet; dilations for stride 32.
    'deeplabv3plus': (*ADAMW, 'param_scheduler*', 'model.decode_head.dilations'),
    # The same sizes by RandomResize.
    'mask2former': ('optim_wrapper.paramwise_cfg.custom_keys.*', '*.im2col_step', 'train.pipeline', '*Random*Resize*'),
    # Half the learning rate; no albumentations; defaults written out.
    'rtmpose': (
        *VECTORS, 'optim_wrapper.optimizer.lr', '*.eta_min', '*pipeline', '*.Albumentation.*',
        '*YOLOXHSVRandomAug.type', '*.backend', '*.padding', '*.RandomFlip.prob', '*.RandomHalfBody.*',
    ),
    'multi-label': (
        *ADAMW, 'optim_wrapper.paramwise_cfg.*', 'param_scheduler*', 'model.head.*', 'model.neck.*',
    ),
}  # fmt: skip


def values_of(path):
    """Every number and text of a config that decides about the head and its training."""
    cfg = Config.fromfile(path, import_custom_modules=False).to_dict()
    parts = ('model', 'optim_wrapper', 'param_scheduler', 'train_cfg', 'custom_hooks', 'auto_scale_lr')
    kept = {name: cfg[name] for name in parts if name in cfg}
    loader = cfg['train_dataloader']
    kept['train'] = dict(batch_size=loader['batch_size'], pipeline=loader['dataset']['pipeline'])
    kept['test'] = dict(pipeline=cfg['test_dataloader']['dataset']['pipeline'])
    values = dict(flatten(kept, numbers.Number)) | dict(flatten(kept, str))
    return {key: value for key, value in values.items() if not key.startswith(('model.backbone.', 'model.pretrained'))}


@pytest.mark.parametrize('path', FULL_SIZE, ids=named)
def test_values_are_those_of_the_library_apart_from_the_stated_ones(path):
    head = head_of(path)
    ours, theirs = values_of(path), values_of(public_config(head))
    patterns = (*EVERYWHERE, *DIFFERENCES[head])
    differing = {key: (ours.get(key), theirs.get(key)) for key in {*ours, *theirs} if ours.get(key) != theirs.get(key)}
    assert not {key: pair for key, pair in differing.items() if not any(fnmatch(key, p) for p in patterns)}
    unused = [p for p in DIFFERENCES[head] if p not in ADAMW and not any(fnmatch(key, p) for key in differing)]
    assert not unused or 'tiny' not in path.stem


def test_every_head_has_full_size_and_digits_configs_and_no_published_result():
    size = re.compile(r'moganet-(\w+?)_')
    assert Counter(head_of(path) for path in DIGITS) == dict.fromkeys(HEADS, 1)
    for head in HEADS:
        assert {size.search(path.stem)[1] for path in FULL_SIZE if head_of(path) == head} == {'tiny', 'small'}
    ours = {path.relative_to(ROOT / 'configs').as_posix() for path in (*FULL_SIZE, *DIGITS)}
    assert not ours & {result.config for result in load_results()}
    first = [path for path in FULL_SIZE if 'tiny' in path.stem]
    assert all('This recipe is ours and has no published result' in path.read_text() for path in first)


# Complexity


def linear(count, *widths):
    return sum(count * a * b for a, b in zip_longest(widths, widths[1:]) if b)


def test_a_layer_of_the_encoder_of_dino_costs_what_its_matrices_do():
    pytest.importorskip('mmdet')
    (path,) = (path for path in DIGITS if head_of(path) == 'dino-4scale')
    macs = []
    for num_layers in (1, 2):
        parts = complexity(load_config(path, {'model.encoder.num_layers': num_layers}))
        assert [part.name for part in parts] == ['backbone', 'neck', 'transformer']
        macs.append(parts[-1].macs)
    tokens = 16 * 16 + 8 * 8 + 4 * 4 + 2 * 2
    points = 8 * 4 * 4  # heads, levels, points
    attention = 2 * linear(tokens, 256, 256) + linear(tokens, 256, 2 * points) + linear(tokens, 256, points)
    assert macs[1] - macs[0] == attention + linear(tokens, 256, 512, 256)


@pytest.mark.parametrize('path', [path for path in FULL_SIZE if 'small' in path.stem], ids=named)
def test_model_builds(path):
    pytest.importorskip(HEADS[head_of(path)][0])
    assert sum(p.numel() for p in build_on_meta(load_config(path)).parameters()) > 2.4e7  # the backbone has 24.8 M


# Every command on the digit scenes, with a tiny backbone; tests/deploy compares exported files with PyTorch.

SMALL = {
    'faster-rcnn': 'neck=dict(in_channels=[8, 16, 24, 32])',
    'fcos': 'neck=dict(in_channels=[8, 16, 24, 32])',
    'rtmdet': 'neck=dict(in_channels=[16, 24, 32])',
    'dino-4scale': 'neck=dict(in_channels=[16, 24, 32])',
    'segformer': 'decode_head=dict(in_channels=[8, 16, 24, 32])',
    'deeplabv3plus': 'decode_head=dict(in_channels=32, c1_in_channels=8), auxiliary_head=dict(in_channels=24)',
    'mask2former': 'decode_head=dict(in_channels=[8, 16, 24, 32], train_cfg=dict(num_points=100))',
    'rtmpose': 'head=dict(in_channels=32)',
    'multi-label': 'head=dict(in_channels=32)',
}
METRICS = {'mmdet': 'coco/bbox_mAP', 'mmseg': 'mIoU', 'mmpose': 'coco/AP', 'mmpretrain': 'multi-label/mAP'}
EXPORTED = ('faster-rcnn', 'segformer', 'deeplabv3plus')


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    """A folder with a few digit scenes in data/, and a small config of each head."""
    folder = tmp_path_factory.mktemp('project')
    write_digits(folder / 'data' / 'digits', parts=('scenes',), num_train_scenes=4, num_val_scenes=2)
    for path in DIGITS:
        by_iteration = HEADS[head_of(path)][0] == 'mmseg'
        loop = 'max_iters=2, val_interval=2' if by_iteration else 'max_epochs=1, val_interval=1'
        loader = 'batch_size=2, num_workers=0, persistent_workers=False'
        (folder / f'{head_of(path)}.py').write_text(f"""
_base_ = '{path}'
model = dict(backbone=dict(arch=dict(_delete_=True, **{TINY_ARCH})), {SMALL[head_of(path)]})
train_dataloader = dict({loader})
val_dataloader = dict({loader})
test_dataloader = val_dataloader
train_cfg = dict({loop})
param_scheduler = []
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval={2 if by_iteration else 1}))
""")
    return folder


@pytest.fixture(params=HEADS)
def head(request, project, monkeypatch):
    pytest.importorskip(HEADS[request.param][0])
    monkeypatch.chdir(project)
    return request.param


def test_train_test_infer_and_export(head, project):
    train(f'{head}.py', work_dir=head)
    checkpoint = next((project / head).glob('iter_2.pth' if HEADS[head][0] == 'mmseg' else 'epoch_1.pth'))
    scalars = [json.loads(line) for line in next((project / head).glob('*/vis_data/scalars.json')).open()]
    losses = [line['loss'] for line in scalars if 'loss' in line]
    assert losses and np.isfinite(losses).all()
    metrics = run_test(f'{head}.py', str(checkpoint), work_dir=f'{head}/test', show_dir=f'{head}/shown')
    views = run_test(f'{head}.py', str(checkpoint), work_dir=f'{head}/tta', tta=True)
    assert views.keys() == metrics.keys()
    assert all(-1 <= found[METRICS[HEADS[head][0]]] <= 100 for found in (metrics, views))
    assert len([path for path in (project / head / 'shown').rglob('*') if path.suffix in ('.png', '.jpg')]) >= 2
    source = project / 'data' / 'digits' / 'scenes' / 'val'
    threshold = None if HEADS[head][0] == 'mmseg' else 0.0
    records = infer(f'{head}.py', str(checkpoint), source, f'{head}/inferred', score_thr=threshold)
    assert len(records) == 2 and (project / head / 'inferred' / 'predictions.png').is_file()
    if head == 'multi-label':
        scores = records[0]['pred_scores']
        assert len(scores) == 10 and scores == sorted(scores, reverse=True)
        predictions = f'{head}/predictions.jsonl'
        run_test(f'{head}.py', str(checkpoint), work_dir=f'{head}/test', predictions=predictions)
        with pytest.raises(UserError, match=r'predicts several classes per image, which is not analyzed'):
            analyze(f'{head}.py', predictions, f'{head}/report')
    trained = load_source(f'{head}.py', str(checkpoint))
    if head in EXPORTED:
        graph = create_graph(trained.model, trained.cfg, trained.meta)
        with torch.no_grad():
            outputs = graph(*graph.example((1, 3, 128, 128), torch.float32))
        assert len(outputs) == len(graph.output_names)
        return
    with pytest.raises(UserError, match=r'cannot be exported|cannot be decoded|no class probabilities') as caught:
        export(trained, [project / head / 'net.onnx'])
    assert '\n' not in str(caught.value) and not (project / head / 'net.onnx').exists()
    if '--raw' in str(caught.value):
        graph = create_graph(trained.model, trained.cfg, trained.meta, raw=True)
        with torch.no_grad():
            assert all(
                torch.isfinite(output).all() for output in graph(*graph.example((1, *trained.shape), torch.float32))
            )
    else:
        assert head in ('dino-4scale', 'mask2former')
        with pytest.raises(UserError, match=r'predicts from queries, cannot be exported'):
            create_graph(trained.model, trained.cfg, trained.meta, raw=True)


def test_the_example_of_the_docs_trains(project, monkeypatch):
    pytest.importorskip('mmdet')
    monkeypatch.chdir(project)
    (code,) = re.findall(r'```python\n# atss.py\n(.*?)```', (ROOT / 'docs' / 'heads.md').read_text(), re.DOTALL)
    (project / 'atss.py').write_text(code)
    runner = train('atss.py', cfg_options={
        'train_cfg.max_epochs': 1, 'train_dataloader.num_workers': 0, 'train_dataloader.persistent_workers': False,
        'val_dataloader.num_workers': 0, 'val_dataloader.persistent_workers': False,
    })  # fmt: skip
    assert runner.iter == 1 and runner.model.backbone.embed_dims == (32, 64, 96, 192)


def test_the_table_of_channels_in_the_docs_is_that_of_the_sizes():
    page = (ROOT / 'docs' / 'heads.md').read_text()
    rows = dict(re.findall(r'^\| `(\w+)` \| ([\d |]+) \|$', page, re.MULTILINE))
    assert rows.pop('out_indices') == '0 | 1 | 2 | 3'
    assert rows == {size: ' | '.join(map(str, arch['embed_dims'])) for size, arch in ARCHS.items()}


def test_records_of_multi_label_images_hold_the_classes_above_the_threshold():
    from mogacore.runtime.tasks import MultiLabel

    task = MultiLabel({'classes': ['cat', 'dog', 'bird']}, score_thr=0.3)
    result = {'probabilities': np.array([0.4, 0.1, 0.9])}
    record = task.describe(result)
    assert record['pred_classes'] == ['bird', 'cat'] and record['pred_scores'] == [0.9, 0.4]
    assert [entry['class'] for entry in record['top']] == ['bird', 'cat', 'dog']
    assert task.describe({'probabilities': np.zeros(3)})['pred_classes'] == []
    assert task.titles([record | {'image': 'a.png'}], []) == [('bird, cat', 'black')]
    assert task.draw(np.zeros((64, 64, 3), np.uint8), result).any()
