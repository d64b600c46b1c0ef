"""Writes the samples of a split as the network gets them: files, and one contact sheet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from mmengine.config import Config

from mogacore.engine.dataset_meta import dataset_facts
from mogacore.engine.explain import user_errors
from mogacore.engine.numbers import check_batch
from mogacore.engine.split import Split
from mogacore.errors import UserError
from mogacore.files import readable, writable_folder, write_json, write_png
from mogacore.runtime.drawing.filmstrips import draw_strip, sequence_rows, stack_images
from mogacore.runtime.drawing.overview import MAX_COLUMNS, draw_grid
from mogacore.runtime.tasks import HandPose, Result, Task

from .batches import Reader, View, Viewer
from .steps import Step, changes

SHEET = 'sheet.png'
NUM_VERSIONS = 4
MAX_ROWS = 12  # of the contact sheet, more samples are only in their own files
Title = tuple[str, str]


def browse(
    config: str,
    out_dir: str | Path,
    split: str = 'train',
    num: int = 6,
    versions: int | None = None,
    seed: int = 0,
    steps: bool = False,
    cfg_options: dict | None = None,
) -> list[dict]:
    """Write random samples as the network gets them, with their annotations.

    Files of sample N, whose number has five digits: ``N_source.png``, the image as it is loaded; ``N_1.png``,
    ``N_2.png`` ..., its versions after all augmentations and the data preprocessor, which may mix images; and with
    ``steps``, ``N_steps.png``, the sample after each transform that changed it. For video prediction: ``N.png``, the
    input and target frames. ``sheet.png`` shows all, one row per sample; ``browse.json`` lists the files.

    Args:
        config: Path or short name of the config.
        out_dir: Output folder; created if missing.
        split: 'train', 'val' or 'test'.
        num: Number of samples.
        versions: Number of versions of each. None means 4 of training samples, or 1 if nothing changes them at random,
            and 1 of others.
        seed: Seed of the choice of samples and of all augmentations. A version of a sample only depends on the seed,
            unless the data preprocessor mixes images.
        steps: Whether to write the steps, those of the first version.
        cfg_options: Settings that override the config.

    Returns:
        One record per sample, as in ``browse.json``.

    Raises:
        UserError: If an argument is invalid, or the data has problems.
    """
    for name, value in (('--num', num), ('--versions', versions)):
        if value is not None and value < 1:
            raise UserError(f'{name} is {value}: use 1 or more')
    if seed < 0:
        raise UserError(f'--seed is {seed}: use 0 or a positive number')
    data = Split(config, split, cfg_options=cfg_options)
    data.problems.refuse()
    with user_errors():
        if data.cfg.model.type == 'SimVP':
            if steps:
                raise UserError('--steps needs a pipeline, which frames do not have: omit it')
            records, sheet = _browse_sequences(Reader(data, seed), out_dir, num)
        else:
            records, sheet = _browse_images(Viewer(data, seed), out_dir, num, versions, steps, data.cfg)
    write_png(Path(out_dir) / SHEET, sheet)
    header = dict(config=str(config), split=split, seed=seed)
    write_json(Path(out_dir) / 'browse.json', header | dict(samples=records))
    return records


def _browse_images(
    viewer: Viewer, out_dir: str | Path, num: int, versions: int | None, steps: bool, cfg: Config
) -> tuple[list[dict], np.ndarray]:
    task = viewer.samples.task(dataset_facts(viewer.samples.meta), 0.5)
    indices = viewer.choose(num)
    walks = [viewer.steps(index, 1) for index in indices]
    columns = _columns(viewer, indices, versions)
    out_dir = writable_folder(out_dir)
    records, cells, titles = [], [], []
    for row, (index, walked) in enumerate(zip(indices, walks, strict=True)):
        views = [column[row] for column in columns]
        kept = changes(walked)
        name = f'{index:05}'
        images = {f'{name}_source.png': _draw(task, kept[0].image, kept[0].truth)}
        images |= {f'{name}_{number}.png': _draw(task, view.image, view.truth) for number, view in enumerate(views, 1)}
        path = readable(views[0].meta.get('img_path') or '')
        title = f'{index}: {Path(path).name}' if path else f'{index}'
        captions = [f'{title}\n{caption(task, kept[0].truth)}']
        captions += [f'version {number}\n{caption(task, view.truth)}' for number, view in enumerate(views, 1)]
        if row < MAX_ROWS:
            cells += list(images.values())
            titles += [(text, 'black') for text in captions]
        if steps:
            images[f'{name}_steps.png'] = _draw_steps(task, kept, views[0])
        for file, image in images.items():
            write_png(out_dir / file, image)
        records.append(dict(index=index, image=path, files=list(images), versions=[describe(task, v) for v in views]))
    return records, draw_grid(cells, titles, task.cell_width, len(columns) + 1)


def _columns(viewer: Viewer, indices: list[int], versions: int | None) -> list[list[View]]:
    """The versions of all samples, by version."""
    number = versions or (NUM_VERSIONS if viewer.is_training else 1)
    columns = [viewer.views(indices, version) for version in range(1, min(number, 2) + 1)]
    if versions is None and number > 1 and all(map(_are_equal, *columns)):
        return columns[:1]
    return columns + [viewer.views(indices, version) for version in range(3, number + 1)]


def _are_equal(first: View, second: View) -> bool:
    return Step('', first.image, first.truth).equals(Step('', second.image, second.truth))


def _draw(task: Task, image: np.ndarray, truth: Result) -> np.ndarray:
    """Drawing of a sample; classes and absent annotations are in its title only."""
    return task.draw(image, truth) if task.draws_images and truth else image


def _draw_steps(task: Task, steps: list[Step], view: View) -> np.ndarray:
    """One image per step, and the network input if the data preprocessor changes the last."""
    last = Step('data_preprocessor', view.image, view.truth)
    steps = steps if last.equals(steps[-1]) else [*steps, last]
    images = [_draw(task, step.image, step.truth) for step in steps]
    titles: list[Title] = [
        (f'{step.name or "loaded"}\n{_size(step.image)}, {caption(task, step.truth)}', 'black') for step in steps
    ]
    return draw_grid(images, titles, max(task.cell_width, 240), MAX_COLUMNS)


def _size(image: np.ndarray) -> str:
    return f'{image.shape[1]} x {image.shape[0]}'


def caption(task: Task, truth: Result) -> str:
    """The annotations of an image in a few words: classes with their weights if mixed, or the number of objects."""
    if 'probabilities' in truth:
        weights = _weights(task, truth)
        is_mixed = any(weight != 1 for weight in weights.values())
        return ', '.join(f'{name} {weight:.2f}' if is_mixed else name for name, weight in weights.items()) or 'no label'
    if 'class_map' in truth:
        number = len(np.unique(truth['class_map'][~truth['ignored']]))
        return f'{number} class{"es" if number != 1 else ""}'
    number, ignored = _count(truth), len(truth.get('ignored_boxes', ()))
    text = f'{number} {"hand" if isinstance(task, HandPose) else "object"}{"s" if number != 1 else ""}'
    return f'{text}, {ignored} ignored' if ignored else text


def _weights(task: Task, truth: Result) -> dict[str, float]:
    """Weight of each class of an image, the largest first."""
    weights = truth['probabilities']
    order = np.argsort(-weights, kind='stable')
    return {task.class_name(label): float(weights[label]) for label in order.tolist() if weights[label] > 0}


def _count(truth: Result) -> int:
    if 'hands' in truth:
        return int(truth['hands'].sum())
    return len(truth.get('keypoints', truth.get('labels', ())))


def describe(task: Task, view: View) -> dict:
    """The size of the network input, its range of values, and its annotations in short, as JSON values."""
    record: dict = dict(
        shape=list(view.tensor.shape), range=[round(float(f()), 4) for f in (view.tensor.min, view.tensor.max)]
    )
    if 'probabilities' in view.truth:
        return record | dict(classes={name: round(weight, 4) for name, weight in _weights(task, view.truth).items()})
    if 'class_map' in view.truth:
        labels, counts = np.unique(view.truth['class_map'][~view.truth['ignored']], return_counts=True)
        size = view.truth['class_map'].size
        shares = zip(labels.tolist(), counts.tolist(), strict=True)
        return record | dict(shares={task.class_name(label): round(count / size, 4) for label, count in shares})
    if 'labels' in view.truth:
        record['classes'] = [task.class_name(label) for label in view.truth['labels'].tolist()]
    return record | dict(objects=_count(view.truth))


def _browse_sequences(reader: Reader, out_dir: str | Path, num: int) -> tuple[list[dict], np.ndarray]:
    out_dir = writable_folder(out_dir)
    records, strips = [], []
    for index in reader.choose(num):
        item = reader.item(index)
        check_batch({'inputs': [item['inputs']], 'data_samples': [item['data_samples']]}, reader.dataset)
        inputs, targets = item['inputs'], item['data_samples'].gt_frames
        rows = sequence_rows(inputs, targets, targets, reader.dataset.metainfo)
        strip = draw_strip({'input': rows['input'], 'target': rows['truth']})
        file = f'{index:05}.png'
        write_png(out_dir / file, strip)
        strips.append(strip)
        records.append(
            dict(index=index, name=item['data_samples'].get('name', ''), files=[file], inputs=list(inputs.shape),
                 targets=list(targets.shape))
        )  # fmt: skip
    return records, stack_images(strips[:MAX_ROWS])
