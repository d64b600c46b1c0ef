"""The model card of published weights: README.md with the YAML header of the Hugging Face hub."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import mmengine
import torch
import yaml
from mmengine.config import Config

from mogacore.analysis.complexity import complexity
from mogacore.engine.config import leaves
from mogacore.engine.loaders import describe_dataset
from mogacore.engine.plain_config import foreign_paths
from mogacore.errors import UserError
from mogacore.models import MogaNet
from mogacore.published.archs import ARCHS
from mogacore.text import type_name
from mogacore.version import __version__

if TYPE_CHECKING:
    from .publish import Publication

# default_scope -> tasks on the hub, and how the library loads a model.
LIBRARIES = {
    'mmpretrain': (
        'image-classification',
        "from mmpretrain import get_model\n\nmodel = get_model('{config}', pretrained='{file}')",
    ),
    'mmdet': (
        'object-detection',
        "from mmdet.apis import init_detector\n\nmodel = init_detector('{config}', '{file}', device='cpu')",
    ),
    'mmseg': (
        'image-segmentation',
        "from mmseg.apis import init_model\n\nmodel = init_model('{config}', '{file}', device='cpu')",
    ),
    'mmpose': (
        'keypoint-detection',
        "from mmpose.apis import init_model\n\nmodel = init_model('{config}', '{file}', device='cpu')",
    ),
}
# Settings of the backbone that do not change the function of the trained network.
TRAINING_SETTINGS = (
    'type',
    'arch',
    'out_indices',
    'init_cfg',
    'drop_path_rate',
    'frozen_stages',
    'norm_eval',
    'with_cp',
)


def model_card(item: Publication, license_id: str) -> str:
    """Text of the card: header, scores, sizes, preparation of images, recipe, use, versions."""
    sections = [
        ('', [_introduction(item)]),
        ('Scores', _scores(item)),
        ('Size', [_size(item)]),
        ('Images', [_images(item.cfg)]),
        ('Use', _use(item)),
        ('Training', _training(item)),
        ('Versions', [f'mogacore {__version__}, torch {torch.__version__}, {_libraries(item)}.']),
    ]
    header = yaml.safe_dump(_header(item, license_id), sort_keys=False, allow_unicode=True)
    blocks = [f'---\n{header}---', f'# {item.name}']
    for title, texts in sections:
        blocks += [f'## {title}'] * bool(title) + list(texts)
    return '\n\n'.join(blocks) + '\n'


def _task(cfg: Config) -> str:
    return LIBRARIES.get(cfg.get('default_scope', ''), ('video-prediction', ''))[0]


def _header(item: Publication, license_id: str) -> dict:
    task = _task(item.cfg)
    header: dict[str, Any] = {'license': license_id, 'library_name': 'mogacore'}
    if task != 'video-prediction':  # the hub has no such task
        header['pipeline_tag'] = task
    header |= {'tags': ['moganet', 'openmmlab', task], 'metrics': list(item.scores or item.best)}
    if item.scores:
        result = {
            'task': {'type': task},
            'dataset': {'name': _dataset(item.cfg, 'val'), 'type': _dataset_kind(item.cfg, 'val')},
            'metrics': [{'type': name, 'name': name, 'value': value} for name, value in item.scores.items()],
        }
        header['model-index'] = [{'name': item.name, 'results': [result]}]
    return header


def _introduction(item: Publication) -> str:
    model, backbone = item.cfg.model, item.cfg.model.get('backbone', {})
    arch = backbone.get('arch')
    around = f'{type_name(model.type)} with {type_name(backbone["type"])}' if backbone else type_name(model.type)
    return f'{around}{f" ({arch})" if isinstance(arch, str) else ""} for {_task(item.cfg)}, trained with mogacore.'


def _scores(item: Publication) -> Iterable[str]:
    if not item.validations:
        yield f'The log of the training has no validation. Measure the scores: {_test(item)}'
        return
    rows = [f'| score | {"published" if item.scores else "last"} | best of the run |', '|---|---|---|']
    last = next(reversed(item.validations))
    for name, best in item.best.items():
        value = item.scores.get(name) if item.scores else item.validations[last].get(name)
        shown = '' if value is None else f'{value:.4g}'
        rows.append(f'| {name} | {shown} | {best["value"]:.4g} ({item.counter} {best[item.counter]}) |')
    if item.scores:
        yield f'Of {_dataset(item.cfg, "val")}, after {item.counter} {item.position}, measured during the training:'
    else:
        yield (
            f'The scores of these weights have not been measured. Those of the run on {_dataset(item.cfg, "val")}, '
            f'the last ones after {item.counter} {last}:'
        )
    yield '\n'.join(rows)
    yield f'Measure them again: {_test(item)}'


def _test(item: Publication) -> str:
    return f'`mogacore test {item.name}.py {item.file}`'


def _size(item: Publication) -> str:
    buffers = ('running_mean', 'running_var', 'num_batches_tracked')
    try:
        parts = complexity(item.cfg)
    except UserError:
        params = sum(value.numel() for name, value in item.state_dict.items() if not name.endswith(buffers))
        return f'{params:,} parameters.'
    shape = ' x '.join(map(str, item.cfg.input_shape))
    return (
        f'{sum(part.params for part in parts):,} parameters; {sum(part.macs for part in parts) / 1e9:.3g} G '
        f'multiply-adds for an input of {shape}.'
    )


def _images(cfg: Config) -> str:
    settings = {**(cfg.get('data_preprocessor') or {}), **(cfg.model.get('data_preprocessor') or {})}
    if settings.get('mean') is None:
        return 'The network takes the values of the images as the test pipeline of the config gives them.'
    if len(settings['mean']) == 1:
        order = 'gray'
    else:
        order = 'RGB' if settings.get('to_rgb') or settings.get('bgr_to_rgb') else 'BGR as loaded by OpenCV'
    return (
        f'Values from 0 to 255, {order}, minus the mean {_numbers(settings["mean"])}, divided by the standard '
        f'deviation {_numbers(settings["std"])}; resized as in the test pipeline of the config.'
    )


def _numbers(values: Iterable[float]) -> str:
    return ', '.join(f'{value:g}' for value in values)


def _use(item: Publication) -> Iterable[str]:
    names = dict(config=f'{item.name}.py', file=item.file)
    yield f'    mogacore infer {names["config"]} {item.file} IMAGES --out-dir predictions'
    if call := create_model_call(item):
        yield f'Without a task library:\n\n```python\nimport mogacore\n\nmodel = {call}\n```'
    scope = item.cfg.get('default_scope', '')
    if scope in LIBRARIES:
        yield f'With {scope}:\n\n```python\n{LIBRARIES[scope][1].format(**names)}\n```'
    yield f'To fine-tune on other data: `load_from = {item.file!r}` in a config, see docs/checkpoints.md of mogacore.'


def create_model_call(item: Publication) -> str | None:
    """Call of :func:`mogacore.create_model` that loads the weights; None if the model is not just MogaNet."""
    model = item.cfg.model
    backbone = model.get('backbone', {})
    parts = [type_name((model.get(part) or {}).get('type')) for part in ('backbone', 'neck', 'head')]
    if parts != ['MogaNet', 'GlobalAveragePooling', 'LinearClsHead'] or backbone.get('arch') not in list(ARCHS):
        return None
    defaults = inspect.signature(MogaNet).parameters
    settings = {
        key: value for key, value in backbone.items() if key not in TRAINING_SETTINGS and value != defaults[key].default
    }
    arguments = [f"'moganet_{backbone.arch}'", f'num_classes={model.head.num_classes}', f'checkpoint={item.file!r}']
    return f'mogacore.create_model({", ".join([*arguments, *(f"{key}={value!r}" for key, value in settings.items())])})'


def _dataset_kind(cfg: Config, stage: str) -> str:
    leaf = next(leaves(cfg.get(f'{stage}_dataloader')), None)
    return type_name(leaf['type']) if leaf else 'unknown'


def _dataset(cfg: Config, stage: str) -> str:
    loader = cfg.get(f'{stage}_dataloader')
    return describe_dataset(next(leaves(loader))).removeprefix('the data set ') if loader else 'no data'


def _training(item: Publication) -> Iterable[str]:
    cfg, position = item.cfg, item.meta.get('position') or {}
    world_size = position.get('world_size', 1)
    wrapper = cfg.get('optim_wrapper') or {}
    optimizer = dict(wrapper.get('optimizer') or {})
    batch = cfg.train_dataloader.get('batch_size')
    images = f'{position["num_images"]:,} samples of ' if 'num_images' in position else ''
    length = cfg.train_cfg.get('max_epochs') or cfg.train_cfg.get('max_iters')
    unit = 'epochs' if 'max_epochs' in cfg.train_cfg else 'iterations'
    schedule = ', '.join(type_name(part['type']) for part in _listed(cfg.get('param_scheduler'))) or 'constant rates'
    settings = ', '.join(f'{key} {value}' for key, value in optimizer.items() if key != 'type')
    start = cfg.get('load_from') or (cfg.model.get('backbone', {}).get('init_cfg') or {}).get('checkpoint')
    lines = [
        f'data: {images}{_dataset(cfg, "train")}',
        f'length: {length} {unit}, batches of {batch} on {world_size} process{"es" * (world_size > 1)}'
        + f', gradients of {wrapper.get("accumulative_counts")} steps' * ('accumulative_counts' in wrapper),
        f'optimizer: {type_name(optimizer.get("type"))}, {settings}; {schedule}',
        f'precision: {"mixed" if "Amp" in type_name(wrapper.get("type")) else "fp32"}',
        f'start: {start or "random weights"}',
        f'weights: {_weights(item)}',
    ]
    yield '\n'.join(f'- {line}' for line in lines)
    command = f'mogacore train {item.name}.py'
    if world_size > 1:
        command = f'bash tools/dist_train.sh {item.name}.py {world_size}'
    yield f'    {command}'
    if paths := foreign_paths(cfg.to_dict()):
        yield f'The config names paths of the machine of the training: {", ".join(f"`{path}`" for path in paths)}.'


def _weights(item: Publication) -> str:
    names = ', '.join(path.name for path in item.sources)
    if len(item.sources) > 1:
        return f'the mean of {names}, batch norm statistics recomputed on the training data'
    hooks = [*item.cfg.get('custom_hooks', []), *(item.cfg.get('default_hooks') or {}).values()]
    is_average = any(hook and type_name(hook['type']) == 'EMAHook' for hook in hooks)
    return f'{names}{", an exponential moving average" if is_average and item.cfg.get("load_ema") is not False else ""}'


def _listed(value: Any) -> list:
    return list(value) if isinstance(value, (list, tuple)) else [value] if value else []


def _libraries(item: Publication) -> str:
    trained = item.meta.get('mmengine_version')
    text = f'mmengine {mmengine.__version__}'
    return text if trained in (None, mmengine.__version__) else f'{text} (training: {trained})'
