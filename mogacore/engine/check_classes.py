"""Compares the settings of a config that depend on the number of classes, before training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mmengine.config import Config

from mogacore.errors import UserError
from mogacore.kinds import fits
from mogacore.text import show, type_name

from .config import EVALUATORS, as_list

# Data sets made of others that do not pass on the classes of a sample.
WITHOUT_CLASSES = ('ConcatDataset', 'RepeatDataset')


def check_classes(cfg: Config) -> None:
    """Check class weights, the class count of the preprocessor, and the data set of a ClassBalancedDataset.

    Raises:
        UserError: If one does not fit.
    """
    scope = cfg.get('default_scope', 'mmengine')
    model = cfg.get('model') or {}
    for path, needed, count in _class_weights(model, 'model', scope):
        if needed != count:
            raise UserError(
                f'{path} has {count} weights, but the loss needs {needed}: give one for each class'
                + (' and one for the background, last' if scope == 'mmdet' else '')
            )
    preprocessor = model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    head = model.get('head')
    counts = [part.get('num_classes') for part in (preprocessor, head) if isinstance(part, dict)]
    mixes = preprocessor.get('batch_augments') or (model.get('train_cfg') or {}).get('augments')
    # Only the vectors of mixed labels are that long.
    has_vectors = scope == 'mmpretrain' and (mixes or preprocessor.get('to_onehot'))
    if has_vectors and len(counts) == 2 and all(counts) and counts[0] != counts[1]:
        raise UserError(
            f'data_preprocessor.num_classes={counts[0]}, but model.head.num_classes={counts[1]}: set both to the '
            'number of classes'
        )
    loader = cfg.get('train_dataloader') or {}
    for outer, inner in _wrapped(loader.get('dataset'), 'train_dataloader.dataset'):
        raise UserError(
            f'{outer} is a ClassBalancedDataset, which cannot read the classes of a {inner}: wrap the {inner} around '
            'a ClassBalancedDataset of each data set instead'
        )


def check_mean(cfg: Config, in_channels: int | None) -> None:
    """Compare the mean and std of the data preprocessor with the channels, of which a single value covers all.

    Raises:
        UserError: If the number of values is another one, or a std is not positive.
    """
    settings = (cfg.model.get('module') or cfg.model).get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    for key in ('mean', 'std'):
        values = settings.get(key)
        if in_channels and isinstance(values, list | tuple) and len(values) not in (1, in_channels):
            raise UserError(
                f'data_preprocessor.{key} has {len(values)} values, but the backbone has in_channels={in_channels}: '
                'give one for each channel, or one for all'
            )
        listed = values if isinstance(values, list | tuple) else [values]
        if key == 'std' and any(fits(std, float) and std <= 0 for std in listed):
            raise UserError(f'data_preprocessor.std is {show(values)}: it must be positive')


def check_topk(cfg: Config, stage: str) -> None:
    """Check that no metric of a stage, 'train' or 'test', takes the best of more classes than the head has.

    Raises:
        UserError: If one does.
    """
    head = (cfg.model.get('module') or cfg.model).get('head')
    num_classes = head.get('num_classes') if isinstance(head, dict) else None
    if not isinstance(num_classes, int):
        return
    parts = [(name, metric) for name in EVALUATORS[stage] for metric in _metrics(cfg.get(name))]
    if head.get('cal_acc') and stage == 'train':
        parts.append(('model.head', head))
    for name, metric in parts:
        topk = metric.get('topk') or ()
        most = max(topk, default=0) if isinstance(topk, list | tuple) else topk
        if most > num_classes:
            raise UserError(
                f'{name}: topk of {type_name(metric.get("type"))} is {most}, but model.head.num_classes='
                f'{num_classes}: set it to at most {num_classes}'
            )


def _metrics(evaluator: Mapping | list | tuple | None) -> Iterator[dict]:
    """The configs of the metrics of an evaluator."""
    for part in as_list(evaluator):
        if isinstance(part, dict):
            yield part
            yield from _metrics(part.get('metrics'))


def _class_weights(value: object, path: str, scope: str, head: dict | None = None) -> Iterator[tuple[str, int, int]]:
    """Path, needed number and given number of each list of class weights; ``head`` is the part with the classes."""
    if isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield from _class_weights(item, f'{path}.{number}', scope, head)
    elif isinstance(value, dict):
        head = value if isinstance(value.get('num_classes'), int) else head
        weights = value.get('class_weight')
        # A single output for two classes needs no weights per class.
        if head is not None and isinstance(weights, (list, tuple)) and head.get('out_channels') != 1:
            library, _, _ = str(value.get('type', '')).rpartition('.')
            needed = head.get('out_channels') or head['num_classes']
            # The softmax of mmdet's losses has the background as its last class.
            if (library or scope) == 'mmdet' and not value.get('use_sigmoid') and not value.get('use_mask'):
                needed = head['num_classes'] + 1
            yield f'{path}.class_weight', needed, len(weights)
        for key, item in value.items():
            yield from _class_weights(item, f'{path}.{key}', scope, head)


def _wrapped(dataset: object, path: str) -> Iterator[tuple[str, str]]:
    """Path of each ClassBalancedDataset around a data set that does not give classes, and that one's type."""
    if isinstance(dataset, (list, tuple)):
        for number, item in enumerate(dataset):
            yield from _wrapped(item, f'{path}.{number}')
    elif isinstance(dataset, dict):
        inner = dataset.get('dataset')
        if _kind(dataset) == 'ClassBalancedDataset' and _kind(inner) in WITHOUT_CLASSES:
            yield path, _kind(inner)
        for key in ('dataset', 'datasets'):
            yield from _wrapped(dataset.get(key), f'{path}.{key}')


def _kind(dataset: object) -> str:
    return type_name(dataset.get('type')) if isinstance(dataset, dict) else ''
