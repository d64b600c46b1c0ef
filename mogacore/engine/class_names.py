"""Compares the names of classes and keypoints in a weight file with those of the data."""

from __future__ import annotations

from mmengine.runner import BaseLoop

from mogacore.errors import UserError


def check_class_names(runner, container: dict, filename: str) -> None:
    """Warn in training, and refuse in a test, if a weight file has as many names as the data, but not the same.

    A model with as many outputs loads and runs; its outputs mean the names that the file lists. Nothing is compared if
    one of the two lists no names, or with ``load_allow_other_classes=True`` in the config.

    Args:
        runner: Runner whose loop is built, about to load the file.
        container: Content of the file.
        filename: Its name, for the message.

    Raises:
        UserError: If the names, or ``reduce_zero_label`` of class maps, differ in a test.
    """
    loops = [runner._train_loop, runner._test_loop, runner._val_loop]
    loop = next((loop for loop in loops if isinstance(loop, BaseLoop)), None)
    meta = container.get('meta')
    if loop is None or not isinstance(meta, dict) or runner.cfg.get('load_allow_other_classes'):
        return
    metas = meta.get('dataset_meta'), getattr(loop.dataloader.dataset, 'metainfo', None)
    if loop is not runner._train_loop:
        _check_zero_label(*metas, filename)
    saved, own = map(_names, metas)
    differing = [number for number, (was, now) in enumerate(zip(saved, own, strict=False)) if was != now]
    if len(saved) != len(own) or not differing:
        return
    first = differing[0]
    problem = (
        f'{filename} was trained with other names of classes or keypoints than the data has ({len(differing)} of '
        f'{len(own)} differ): number {first} is {saved[first]!r} in the file and {own[first]!r} in the data'
    )
    if loop is not runner._train_loop:
        raise UserError(
            f'{problem}: test with the names of the file in metainfo, in its order, or pass --cfg-options '
            'load_allow_other_classes=True if they mean the same'
        )
    runner.logger.warning(f'{problem}; load_allow_other_classes=True silences this warning')


def _check_zero_label(saved: object, own: object, filename: str) -> None:
    """Compare how the class maps of training and test count: from 1, with 0 ignored, or from 0."""
    was, now = (meta.get('reduce_zero_label') if isinstance(meta, dict) else None for meta in (saved, own))
    if None not in (was, now) and was != now:
        raise UserError(
            f'{filename} was trained with reduce_zero_label={was}, but the data set has reduce_zero_label={now}, which '
            'shifts every class by one: set it as in training, or pass --cfg-options load_allow_other_classes=True if '
            'the maps differ in the same way'
        )


def _names(meta: object) -> list[str]:
    """Names in a data set's metainfo by their index: of classes, or for poses of keypoints; empty if it has none."""
    if not isinstance(meta, dict):
        return []
    if keypoints := meta.get('keypoint_id2name'):  # pose data also has the name of the object as its only class
        return [keypoints[number] for number in sorted(keypoints)]
    return list(meta.get('classes') or ())
