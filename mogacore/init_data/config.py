"""The text of a config for user data, as a person would write it: what differs from the recipe, and why."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from mogacore.engine.config import leaves
from mogacore.text import type_name

from .found import Found, flip_partners
from .labels import Labels
from .plan import DIVISOR, MAX_EPOCHS, MIN_SCALE, TEST_CROP, Plan, round_up
from .recipes import DEFAULTS, replaced_hooks

WIDTH = 116  # of a line of names
LR_MULT = {'classification': 0.1}  # of a pretrained backbone; 0.5 for the other tasks
# Settings of a recipe's data set that one of another type takes, too, or that the config sets.
OWN_KEYS = {
    'type', 'data_root', 'data_prefix', 'ann_file', 'metainfo', 'pipeline', 'test_mode', 'img_suffix', 'seg_map_suffix',
    'reduce_zero_label',
}  # fmt: skip
LOGS = 10  # iterations between log lines


def write_config(found: Found, task: str, plan: Plan, data_root: str, command: str) -> str:
    """Text of the config.

    Args:
        found: The data.
        task: The task.
        plan: The settings.
        data_root: Folder of the data as the config names it.
        command: Command that was called, for the first line.
    """
    counts = ', '.join(f'{number} {name}' for name, number in plan.num_images.items())
    head = [
        f'# Written by "{command}": {counts} images.',
        f'_base_ = {plan.recipe.name!r}',
        f'data_root = {data_root!r}',
    ]
    parts = [head, *TASKS[task](found, plan), _hooks(plan), _optimizer(task, plan), _schedule(task, plan)]
    return '\n'.join('\n'.join(part) + '\n' for part in parts if part)


def _names(name: str, values: Sequence[str]) -> list[str]:
    """An assignment of a tuple of names, broken into lines where it is long."""
    line = f'{name} = ({", ".join(map(repr, values))}{"," if len(values) == 1 else ""})'
    if len(line) <= WIDTH:
        return [line]
    lines = ['   ']
    for value in values:
        item = f' {value!r},'
        if len(lines[-1]) + len(item) > WIDTH:
            lines.append('   ')
        lines[-1] += item
    return [f'{name} = (', *lines, ')  # fmt: skip']


def _backbone(plan: Plan) -> str:
    """Setting of the weights where the recipe has others; '' otherwise."""
    given = (plan.recipe.base.model.backbone.get('init_cfg') or {}).get('checkpoint')
    if plan.weights == given:
        return ''
    if plan.weights is None:
        return 'backbone=dict(init_cfg=None)'
    return f"backbone=dict(init_cfg=dict(type='Pretrained', checkpoint={plan.weights!r}))"


def _model(plan: Plan, *extra: str) -> list[str]:
    """Settings of the model: the number of classes of each head."""
    tree: dict = {}
    lists: dict[str, int] = {}
    for path in plan.recipe.heads:
        keys = path.split('.')[1:]
        if keys[-1].isdigit():  # a list replaces that of the base
            lists['.'.join(keys[:-1])] = 0
            keys.pop()
        at = tree
        for key in keys[:-1]:
            at = at.setdefault(key, {})
        at[keys[-1]] = {}
    settings = [_backbone(plan), *(f'{key}={_head(plan, key, value, lists)}' for key, value in tree.items()), *extra]
    settings = [setting for setting in settings if setting]
    line = f'model = dict({", ".join(settings)})'
    return [line] if len(line) <= WIDTH else ['model = dict(', *(f'    {setting},' for setting in settings), ')']


def _head(plan: Plan, path: str, below: dict, lists: Iterable[str]) -> str:
    if path in lists:
        return f'[dict(head, num_classes=num_classes) for head in _base_.model.{path}]'
    if not below:
        return f'dict(num_classes=num_classes{_class_weights(plan, path)})'
    parts = [f'{key}={_head(plan, f"{path}.{key}", value, lists)}' for key, value in below.items()]
    return f'dict({", ".join(parts)})'


def _class_weights(plan: Plan, path: str) -> str:
    """Replace the weights of the recipe's classes in the losses of a head: all classes count the same."""
    head = plan.recipe.base.model
    for key in path.split('.'):
        head = head[key]
    parts = []
    for name, loss in head.items():
        weights = loss.get('class_weight') if isinstance(loss, dict) else None
        if isinstance(weights, list | tuple):
            more = f' + [{weights[-1]}]' if len(weights) == head.num_classes + 1 else ''  # of the background
            parts.append(f', {name}=dict(class_weight=[1.0] * num_classes{more})')
    return ''.join(parts)


def _loader(stage: str, plan: Plan, shared: Sequence[str], settings: Sequence[str], batch: int | None) -> list[str]:
    """A data loader of one data set."""
    base = plan.recipe.base[f'{stage}_dataloader']
    first, *others = leaves(base)
    is_wrapped = others or base.dataset is not first
    lines = [f'{stage}_dataloader = dict(']
    lines += [f'    batch_size={batch},'] if batch else []
    lines += ['    num_workers=2,']
    if stage == 'train' and base.get('drop_last'):
        lines += ['    drop_last=False,  # the recipe drops the last batch if it is smaller']
    lines += ['    dataset=dict(', '        **own_data,']
    replaces_type = any(line.startswith('type=') for line in shared)
    if is_wrapped or (replaces_type and not OWN_KEYS.issuperset(first)):  # by one that repeats or joins; CIFAR100
        kept = {key: first[key] for key in ('test_mode', 'data_mode') if key in first}
        kept |= {} if replaces_type else {'type': first.type}
        settings = ['_delete_=True,', *(f'{key}={value!r},' for key, value in kept.items()), *settings]
    lines += [f'        {line}' for line in settings]
    return [*lines, f'        pipeline={"train" if stage == "train" else "test"}_pipeline,', '    ),', ')']


def _loaders(
    plan: Plan,
    shared: Sequence[str],
    settings: Callable[[Labels], list[str]],
    train: Sequence[str] = (),
    val: Sequence[str] = (),
    batch: int | None = None,
) -> list[str]:
    """The three data loaders.

    Args:
        plan: The settings.
        shared: Settings of all data sets.
        settings: Settings of the data set of a split, from its labels.
        train: Further settings of the training set.
        val: Further settings of the others.
        batch: Batch size of validation and test; None for the recipe's.
    """
    lines = ['own_data = dict(', *(f'    {line}' for line in shared), ')']
    stages = [('train', 'train', train, plan.batch_size), ('val', 'val', val, batch)]
    stages += [('test', 'test', val, batch)] if 'test' in plan.labels else []
    for stage, split, others, size in stages:
        lines += _loader(stage, plan, shared, [*settings(plan.labels[split]), *others], size)
    return lines if 'test' in plan.labels else [*lines, 'test_dataloader = val_dataloader']


def _metainfo(plan: Plan, settings: str) -> str:
    """Setting of a data set; it replaces that of the recipe if there is one."""
    has_own = any(leaf.get('metainfo') for leaf in leaves(plan.recipe.base.train_dataloader))
    return f'metainfo=dict({"_delete_=True, " if has_own else ""}{settings}),'


def _size_comment(plan: Plan) -> list[str]:
    objects = f', their objects {plan.median_object} px' if plan.median_object else ''
    return [f'# Largest width and height, in any order. The median image has {_times(plan.median_size)} px{objects}.']


def _times(size: Iterable[int]) -> str:
    return ' x '.join(map(str, size))


def _detection(found: Found, plan: Plan, has_masks: bool = False) -> list[list[str]]:
    width, height = plan.size
    load = f"dict(type='LoadAnnotations', with_bbox=True{', with_mask=True' if has_masks else ''})"
    preprocessor = plan.recipe.base.model.get('data_preprocessor') or {}
    # Necks that join maps of two strides need sides that are multiples; some recipes cut images to such a size.
    padding = ['data_preprocessor=dict(pad_size_divisor=32)'] if preprocessor.get('pad_size_divisor', 1) == 1 else []
    names = [*_names('classes', found.classes), 'num_classes = len(classes)', *_model(plan, *padding)]
    pipelines = [
        *_size_comment(plan),
        f'scale = {plan.size}',
        f'input_shape = (3, {round_up(height)}, {round_up(width)})',
        'train_pipeline = [',
        "    dict(type='LoadImageFromFile'),",
        f'    {load},',
        f"    dict(type='RandomResize', scale=scale, ratio_range=({MIN_SCALE}, 1.25), keep_ratio=True),",
        "    dict(type='RandomFlip', prob=0.5),  # remove it if left and right differ, as for text",
        "    dict(type='PackDetInputs'),",
        ']',
        'test_pipeline = [',
        "    dict(type='LoadImageFromFile'),",
        "    dict(type='Resize', scale=scale, keep_ratio=True),",
        f'    {load},',
        "    dict(type='PackDetInputs'),",
        ']',
    ]

    shared = ['data_root=data_root,', _metainfo(plan, 'classes=classes')]
    keep = 'filter_cfg=dict(filter_empty_gt=False, min_size=1),  # images without objects are background'
    metric = "['bbox', 'segm']" if has_masks else "'bbox'"
    evaluator = [
        f'val_evaluator = dict(metric={metric}, classwise=True{_own_file(plan)})',
        'test_evaluator = val_evaluator',
    ]
    return [names, pipelines, [*_loaders(plan, shared, _coco_files, [keep]), *evaluator]]


def _coco_files(labels: Labels) -> list[str]:
    return [f'ann_file={labels.ann_file!r},', f'data_prefix=dict(img={labels.images!r}),']


def _own_file(plan: Plan) -> str:
    """Make an evaluator use the annotation file of its data set where the recipe names another."""
    return ', ann_file=None' if plan.recipe.base.val_evaluator.get('ann_file') else ''


def _instance(found: Found, plan: Plan) -> list[list[str]]:
    return _detection(found, plan, has_masks=True)


def _segmentation(found: Found, plan: Plan) -> list[list[str]]:
    width, height = plan.size
    side = min(height, 512)
    palette = [f'palette = {[list(color) for color in found.palette]}'] if found.palette else []
    names = [
        *_names('classes', found.classes),
        *palette,
        'num_classes = len(classes)',
        f'crop = ({side}, {side})  # height and width of training crops; smaller images are padded',
        *_model(plan, 'data_preprocessor=dict(size=crop)'),
    ]
    pipelines = [
        *_size_comment(plan),
        f'scale = {plan.size}',
        f'input_shape = (3, {round_up(height)}, {round_up(width)})',
        'train_pipeline = [',
        "    dict(type='LoadImageFromFile'),",
        "    dict(type='LoadAnnotations'),",
        "    dict(type='RandomResize', scale=scale, ratio_range=(0.5, 2.0), keep_ratio=True),",
        "    dict(type='RandomCrop', crop_size=crop, cat_max_ratio=0.75),",
        "    dict(type='RandomFlip', prob=0.5),",
        "    dict(type='PhotoMetricDistortion'),",
        "    dict(type='PackSegInputs'),",
        ']',
        'test_pipeline = [',
        "    dict(type='LoadImageFromFile'),",
        "    dict(type='Resize', scale=scale, keep_ratio=True),",
        "    dict(type='ResizeToMultiple', size_divisor=32),",
        "    dict(type='LoadAnnotations'),",
        "    dict(type='PackSegInputs'),",
        ']',
        "tta_views = [[dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)]]",
    ]

    shared = [
        "type='BaseSegDataset',",
        'data_root=data_root,',
        _metainfo(plan, f'classes=classes{", palette=palette" if found.palette else ""}'),
        'reduce_zero_label=False,  # True if 0 means no class',
    ]

    def settings(labels):
        return [
            f'ann_file={labels.ann_file!r},',
            f'data_prefix=dict(img_path={labels.images!r}, seg_map_path={labels.maps!r}),',
            f'img_suffix={labels.suffix!r},{"" if labels.suffix else "  # the list has whole names of images"}',
        ]

    return [names, pipelines, _loaders(plan, shared, settings)]


def _classification(found: Found, plan: Plan) -> list[list[str]]:
    side = plan.size[0]
    edge = round(side / TEST_CROP)
    is_listed = bool(plan.labels['train'].ann_file)
    resize = "backend='pillow', interpolation='bicubic'"
    loss = "loss=dict(_delete_=True, type='CrossEntropyLoss')"
    model = [
        'model = dict(',
        *([f'    {_backbone(plan)},'] if _backbone(plan) else []),
        f'    head=dict(num_classes=num_classes, topk=(1,), {loss}),',
        '    train_cfg=None,  # no Mixup and CutMix',
        ')',
        'data_preprocessor = dict(num_classes=num_classes)',
    ]
    names = [*_names('classes', found.classes), 'num_classes = len(classes)', *model]
    pipelines = [
        f'# Tests crop {side} px from images whose short side is {edge} px. The median image has '
        f'{_times(plan.median_size)} px.',
        f'input_shape = (3, {side}, {side})',
        'train_pipeline = [',
        "    dict(type='LoadImageFromFile'),",
        f"    dict(type='RandomResizedCrop', scale={side}, crop_ratio_range=(0.5, 1.0), {resize}),",
        "    dict(type='RandomFlip', prob=0.5, direction='horizontal'),  # remove it if left and right differ",
        "    dict(type='PackInputs'),",
        ']',
        'test_pipeline = [',
        "    dict(type='LoadImageFromFile'),",
        f"    dict(type='ResizeEdge', scale={edge}, edge='short', {resize}),",
        f"    dict(type='CenterCrop', crop_size={side}),",
        "    dict(type='PackInputs'),",
        ']',
    ]

    shared = ["type='CustomDataset',", 'data_root=data_root,', _metainfo(plan, 'classes=classes')]
    shared += ["data_prefix='',"] if is_listed else []

    def settings(labels):
        return [f'ann_file={labels.ann_file!r},' if is_listed else f'data_prefix={labels.images!r},']

    evaluator = ["val_evaluator = dict(type='Accuracy', topk=(1,))", 'test_evaluator = val_evaluator']
    return [names, pipelines, [*_loaders(plan, shared, settings, batch=plan.batch_size), *evaluator]]


def _pose(found: Found, plan: Plan) -> list[list[str]]:
    flips = flip_partners(found)
    names = _names('names', found.keypoints)
    if any(flips or ()):
        names += ['# Which keypoints change places in a mirror image.', *_names('swaps', flips or ())]
        pairs = 'swap=swap) for i, (name, swap) in enumerate(zip(names, swaps))'
    else:
        pairs = "swap='') for i, name in enumerate(names)"
    info = f'keypoint_info={{i: dict(name=name, id=i, {pairs}}},'
    names += ['metainfo = dict(', f'    dataset_name={found.folder.resolve().name!r},', f'    {info}', ')']
    width, height = plan.size
    codec, head = f'input_size={plan.size}', 'out_channels=len(names), decoder=codec'
    if 'heatmap_size' in plan.recipe.base.codec:
        codec += f', heatmap_size={(width // 4, height // 4)}'
    else:  # SimCC: as wide as in RTMPose's configs, (4.9, 5.66) for 192 x 256
        codec += f', sigma={tuple(round(math.sqrt(side / 8), 2) for side in plan.size)}'
        head += f', input_size={plan.size}, in_featuremap_size={(width // DIVISOR, height // DIVISOR)}'
    settings_of_model = [_backbone(plan), f'head=dict({head})'] + (
        [] if flips is not None else ['test_cfg=dict(flip_test=False)']
    )
    size = [
        f'# Objects are cut out and resized to this width and height. The median object has {plan.median_object} px.',
        f'codec = dict(_base_.codec, {codec})',
        f'input_shape = (3, {height}, {width})',
        f'model = dict({", ".join(setting for setting in settings_of_model if setting)})',
    ]
    flip = ["    dict(type='RandomFlip', prob=0.5, direction='horizontal'),"]
    if flips is None:
        flip = ['    # No RandomFlip: the data do not say which keypoints change places in a mirror image.']
    pipelines = [
        'train_pipeline = [',
        "    dict(type='LoadImage'),",
        "    dict(type='GetBBoxCenterScale', padding=1.25),",
        *flip,
        "    dict(type='RandomBBoxTransform', scale_factor=(0.75, 1.25), rotate_factor=40.0),",
        "    dict(type='TopdownAffine', input_size=codec['input_size']),",
        "    dict(type='GenerateTarget', encoder=codec),",
        "    dict(type='PackPoseInputs'),",
        ']',
        'test_pipeline = [',
        "    dict(type='LoadImage'),",
        "    dict(type='GetBBoxCenterScale', padding=1.25),",
        "    dict(type='TopdownAffine', input_size=codec['input_size']),",
        "    dict(type='PackPoseInputs'),",
        ']',
    ]

    own = _metainfo(plan, '**metainfo')
    shared = ['data_root=data_root,', own if '_delete_' in own else 'metainfo=metainfo,']
    boxes = ['bbox_file=None,  # test on the boxes of ann_file'] if _has_box_file(plan) else []
    evaluator = [f'val_evaluator = dict({_own_file(plan)[2:]})', 'test_evaluator = val_evaluator']
    evaluator = evaluator if _own_file(plan) else []
    return [
        names,
        size,
        pipelines,
        [*_loaders(plan, shared, _coco_files, val=boxes, batch=plan.batch_size), *evaluator],
    ]


def _has_box_file(plan: Plan) -> bool:
    return any(leaf.get('bbox_file') for leaf in leaves(plan.recipe.base.val_dataloader))


TASKS: dict[str, Callable[[Found, Plan], list[list[str]]]] = {
    'detection': _detection,
    'instance': _instance,
    'segmentation': _segmentation,
    'classification': _classification,
    'pose': _pose,
}


def _hooks(plan: Plan) -> list[str]:
    """Hooks of the recipe that do not suit the training are left out."""
    given = plan.recipe.base.get('custom_hooks') or []
    kept = replaced_hooks(plan.recipe.base)
    if len(kept) == len(given):
        return []
    types = ', '.join(type_name(hook['type']) for hook in given if hook not in kept)
    indices = [index for index, hook in enumerate(given) if hook in kept]
    items = ', '.join(f'_base_.custom_hooks[{index}]' for index in indices)
    return [f'custom_hooks = [{items}]  # without {types}, which is made for the length of the recipe']


def _optimizer(task: str, plan: Plan) -> list[str]:
    lines = [
        f"# The recipe's {plan.base_rate:g} for {plan.base_batch_size} images, times the root of "
        f'{plan.batch_size} / {plan.base_batch_size}, a rule for Adam.',
        'optim_wrapper = dict(',
        f'    optimizer=dict(lr={plan.rate:g}),',
        '    clip_grad=dict(max_norm=5.0),',
    ]
    layered = 'layer_decay_rate' in (plan.recipe.base.optim_wrapper.get('paramwise_cfg') or {})
    if plan.weights and not layered:
        value = LR_MULT.get(task, 0.5)
        lines += [f'    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult={value}))),  # the pretrained part']
    return [*lines, ')', f'auto_scale_lr = dict(base_batch_size={plan.batch_size})']


def _schedule(task: str, plan: Plan) -> list[str]:
    end = plan.epochs or plan.iterations
    by_epoch = plan.epochs is not None
    unit = dict(by_epoch=by_epoch, begin=0, end=end) | (dict(convert_to_iter_based=True) if by_epoch else {})
    cosine = ', '.join(f'{key}={value!r}' for key, value in unit.items())
    length = f'max_epochs={end}' if by_epoch else f'max_iters={end}'
    logs = min(LOGS, plan.per_epoch) if by_epoch else LOGS
    least = DEFAULTS[task]
    return [
        f'# {plan.iterations} iterations, {plan.per_epoch} per epoch. The bounds are {least.iterations} iterations, '
        f'{least.epochs} and {MAX_EPOCHS} epochs.',
        '# The warm-up is a tenth of the iterations, at most 500.',
        f'train_cfg = dict({length}, val_interval={plan.val_interval})',
        'param_scheduler = [',
        f"    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end={plan.warm_up}),",
        f"    dict(type='CosineAnnealingLR', eta_min=0, {cosine}),",
        ']',
        f'default_hooks = dict(logger=dict(interval={logs}), checkpoint=dict(interval={plan.val_interval}))',
    ]
