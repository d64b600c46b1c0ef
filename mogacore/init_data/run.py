"""From a folder of user data to a config that trains."""

from __future__ import annotations

import math
import re
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from types import ModuleType

from mogacore.checkpoint import check_source
from mogacore.engine.config import project_root
from mogacore.engine.runner import dry_run
from mogacore.errors import UserError
from mogacore.files import writable_folder, write_json, write_text
from mogacore.text import shorten

from . import coco, folders, labelme, labels, masks, split, voc, yolo
from .clean import clean
from .config import write_config
from .found import SPLITS, Found, flip_partners
from .listing import OUTPUT, Listing
from .plan import Plan, make_plan
from .recipes import Recipe, find_recipe

READERS: dict[str, ModuleType] = dict(coco=coco, yolo=yolo, voc=voc, labelme=labelme, folders=folders, masks=masks)
MARK = 'init-data.json'  # in the output folder, which alone may be replaced
MAX_SHOWN = 20  # problems, and classes


@dataclass(frozen=True)
class Options:
    """What to do.

    Args:
        folder: Folder of the data.
        task: One of ``TASKS``.
        config: Recipe, by path or short name; None for that of the task.
        out: Config to write; None for the name of the folder, in the current folder.
        data_out: Folder for converted labels; None for ``mogacore`` in the folder of the data.
        format: One of ``READERS``; None to recognize it.
        classes: Names of the classes; None for all.
        val_fraction: Fraction of the images for validation, if the data have no split.
        seed: Random seed of the split.
        batch_size: Images per batch; None for that of the task.
        weights: Pretrained weights of the backbone, 'none' for random ones; None for those of the recipe.
        force: Replace files of an earlier call.
    """

    folder: Path
    task: str
    config: str | None = None
    out: Path | None = None
    data_out: Path | None = None
    format: str | None = None
    classes: Sequence[str] | None = None
    val_fraction: float = 0.2
    seed: int = 0
    batch_size: int | None = None
    weights: str | None = None
    force: bool = False


def init_data(options: Options) -> list[str]:
    """Read the data, print what they are, and write labels and the config.

    Returns:
        Lines about what was written.

    Raises:
        UserError: If the data have problems, which are printed before, or files exist. Nothing is written then.
    """
    folder = options.folder
    out = options.out or Path(re.sub(r'[^\w-]+', '_', folder.resolve().name) + '.py')
    data_out = options.data_out or folder / OUTPUT
    _check_options(options, out, data_out)
    recipe = find_recipe(options.task, options.config)
    listing = Listing(folder, data_out)
    found = _choose_reader(listing, options).read(listing, options.task)
    clean(found, options.task, options.classes)
    if listing.other_images:
        count = f'images that cannot be read: {len(listing.other_images)}'
        found.notes.add(
            f'{count}, the first is {listing.other_images[0]}; they are left out, convert them to PNG or JPEG'
        )
    found.close()
    how = _divide(found, options) if not found.problems else ''
    if options.task == 'segmentation' and found.format != masks.NAME:
        found.classes = [labels.BACKGROUND, *(name for name in found.classes if name != labels.BACKGROUND)]
        if len(found.classes) > masks.MAX_NAMES:
            found.problems.add(
                f'folder {folder} has {len(found.classes)} classes with the background, but class maps hold at most '
                f'{masks.MAX_NAMES}: choose some with --classes'
            )
    for line in describe(found, options.task, how):
        print(line)
    _refuse(found)
    return _write(found, options, recipe, out, data_out)


def _check_options(options: Options, out: Path, data_out: Path) -> None:
    if not 0 < options.val_fraction < 1:
        raise UserError(f'--val-fraction {options.val_fraction} is not between 0 and 1: give a fraction such as 0.2')
    if options.batch_size is not None and options.batch_size < 1:
        raise UserError(f'--batch-size {options.batch_size} is not positive: give 1 or more')
    if options.classes is not None and len(set(options.classes)) < len(options.classes):
        raise UserError(f'--classes {" ".join(options.classes)} has a name twice: give each once')
    if options.weights is not None and options.weights != 'none':
        check_source(options.weights)
    if out.suffix != '.py':
        raise UserError(f'--out {out} is not a Python config: give a name that ends in .py')
    if out.exists() and not options.force:
        raise UserError(f'{out} already exists: pass --force to replace it, or choose another name with --out')
    if data_out.exists():
        if not (data_out / MARK).is_file() and (not data_out.is_dir() or any(data_out.iterdir())):
            raise UserError(f'{data_out} exists and was not written by init-data: choose another folder, --data-out')
        if not options.force:
            raise UserError(f'{data_out} already exists: pass --force to replace it, or give another --data-out')


def _choose_reader(listing: Listing, options: Options) -> ModuleType:
    """The reader of the format.

    Raises:
        UserError: If no format or several are recognized.
    """
    if options.format:
        only = {'folders': 'classification', 'masks': 'segmentation'}.get(options.format)
        if only not in (None, options.task) or (options.task == 'classification' and only is None):
            raise UserError(f'--format {options.format} has no labels for --task {options.task}: choose another one')
        return READERS[options.format]
    if options.task == 'classification':
        return folders
    found = [key for key, reader in READERS.items() if reader.recognizes(listing, options.task)]
    if 'masks' in found and 'voc' in found:  # which has boxes only
        found.remove('voc')
    if not found:
        broken = [str(content) for content in listing.contents.values() if isinstance(content, UserError)]
        if broken:
            raise UserError(broken[0])
        wanted = masks.LAYOUT if options.task == 'segmentation' else 'see docs/init_data.md'
        raise UserError(
            f'folder {listing.folder} has {len(listing.images)} images, but no labels for --task {options.task} in a '
            f'known format (COCO, YOLO, Pascal VOC, LabelMe): {wanted}'
        )
    if len(found) > 1:
        raise UserError(
            f'folder {listing.folder} has labels in several formats ({", ".join(found)}): choose one with --format'
        )
    return READERS[found[0]]


def _divide(found: Found, options: Options) -> str:
    """Give every image a split where the data have none; returns how."""
    splits = {image.split for image in found.images}
    if 'train' in splits and None in splits:
        left_out = [image.name for image in found.images if image.split is None]
        found.notes.add(f'images in no split: {len(left_out)}, the first is {left_out[0]}; they are left out')
        found.images = [image for image in found.images if image.split]
    drawn_from = [image for image in found.images if image.split in (None, 'train')]
    if 'val' in splits and 'train' in splits:
        return 'as in the data'
    if None in splits and splits & {'val', 'test'} and 'train' not in splits:
        for image in drawn_from:
            image.split = 'train'
        if 'val' in splits:
            return 'as in the data'
    if len(drawn_from) < 2:
        found.problems.add(f'folder {found.folder} has {len(drawn_from)} images to train on: at least 2 are needed')
        return ''
    counts = found.count()
    keys = {}
    for image in drawn_from:
        names = {entry['category'] for entry in image.objects}
        keys[image.name] = image.label or min(names, key=lambda name: (counts[name], name), default=None)
    chosen = split.draw(keys, options.val_fraction, options.seed)
    for image in drawn_from:
        image.split = 'val' if image.name in chosen else 'train'
    found.ready = {}
    return f'drawn: --val-fraction {options.val_fraction:g} --seed {options.seed}'


def describe(found: Found, task: str, how: str) -> list[str]:
    """Lines about the data: counts, classes, sizes, splits and notes."""
    counts = found.count()
    num_objects = sum(len(image.objects) for image in found.images)
    objects = f', {num_objects} objects' if num_objects else ''
    lines = [f'{found.folder}: {found.format}, {len(found.images)} images{objects}']
    shown = [f'{name} {counts[name]}' if counts.get(name) else name for name in found.classes]
    lines.append(f'  classes    {shorten(shown, MAX_SHOWN)}')
    if found.keypoints:
        lines.append(f'  keypoints  {shorten(found.keypoints, MAX_SHOWN)}')
        pairs = [f'{name} - {other}' for name, other in zip(found.keypoints, flip_partners(found) or (), strict=False)
                 if other and name < other]  # fmt: skip
        lines.append(f'  mirrored   {shorten(pairs, MAX_SHOWN) if flip_partners(found) else "unknown, no flips"}')
    if sizes := [image.size for image in found.images if image.size != (0, 0)]:
        smallest, largest = min(sizes, key=math.prod), max(sizes, key=math.prod)
        span = f'{_times(smallest)}' + (f' to {_times(largest)}' if smallest != largest else '')
        lines.append(f'  sizes      {span} px (width x height)')
    if how:
        per_split = [f'{len(found.of(name))} {name}' for name in SPLITS if found.of(name)]
        lines.append(f'  splits     {", ".join(per_split)} ({how})')
    return lines + [f'note: {line}' for line in found.notes]


def _times(size: tuple[int, int]) -> str:
    return f'{size[0]} x {size[1]}'


def _refuse(found: Found) -> None:
    """Print the problems, and raise UserError if there are any."""
    if not found.problems:
        return
    for line in found.problems[:MAX_SHOWN]:
        print(f'problem: {line}')
    number = len(found.problems)
    more = f', of which {MAX_SHOWN} are listed' if number > MAX_SHOWN else ''
    raise UserError(
        f'{found.folder} has {number} problem{"s" * (number > 1)}{more}: correct the lines above; nothing was written'
    )


def _write(found: Found, options: Options, recipe: Recipe, out: Path, data_out: Path) -> list[str]:
    """Write labels and config to a temporary place, try them, and move them to theirs."""
    parent = None if labels.is_ready(found) else writable_folder(data_out.parent)
    with tempfile.TemporaryDirectory(prefix='.init-data-', dir=parent) as temporary:
        new = Path(temporary, 'labels')
        written = labels.write(found, options.task, new.resolve())
        plan = make_plan(found, options.task, written, recipe, options.batch_size, options.weights)
        command = f'mogacore init-data {quote(str(options.folder))} --task {options.task}'
        trial = Path(temporary, 'trial.py')
        write_text(trial, write_config(found, options.task, plan, str(found.folder.resolve()), command))
        _try(trial, new.resolve())
        writable_folder(out.parent)
        place = _place(data_out, found.folder)
        written = {name: item.moved(f'{new.resolve()}/', f'{place}/') for name, item in written.items()}
        plan = make_plan(found, options.task, written, recipe, options.batch_size, options.weights)
        text = write_config(found, options.task, plan, _data_root(found.folder, out), command)
        lines = []
        if new.is_dir():
            counts = {name: len(found.of(name)) for name in written}
            write_json(new / MARK, dict(format=found.format, task=options.task, images=counts, seed=options.seed))
            _replace(data_out, new, Path(temporary, 'old'))
            names = sorted(path.name for path in data_out.iterdir() if path.name != MARK)
            lines.append(f'wrote {data_out}: {", ".join(names)}')
        write_text(out, text)
    return [*lines, f'wrote {out}: {_summary(plan)}', f'next: mogacore train {quote(str(out))}']


def _summary(plan: Plan) -> str:
    length = f'{plan.epochs} epochs of {plan.per_epoch}' if plan.epochs else f'{plan.iterations}'
    return f'{plan.recipe.name}, batch size {plan.batch_size}, rate {plan.rate:g}, {length} iterations'


def _try(trial: Path, labels_folder: Path) -> None:
    """Check the config and the data as ``mogacore train --dry-run`` does.

    Raises:
        UserError: For what it finds.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # training shows them
            line = dry_run(str(trial), work_dir=str(trial.parent / 'run'))
    except UserError as error:
        raise UserError(str(error).replace(f'{labels_folder}/', 'converted ')) from None
    if 'not ready: ' in line:
        raise UserError(line.partition('not ready: ')[2])


def _place(data_out: Path, folder: Path) -> str:
    """The output folder as a config names it: below the folder of the data, or absolute."""
    path, root = data_out.resolve(), folder.resolve()
    return path.relative_to(root).as_posix() if root in path.parents else str(path)


def _data_root(folder: Path, out: Path) -> str:
    """The folder of the data as a config names it: relative to where it is looked up, or absolute."""
    path, root = folder.resolve(), project_root(out)
    return path.relative_to(root).as_posix() if root in path.parents else str(path)


def _replace(target: Path, new: Path, old: Path) -> None:
    """Put a folder in the place of another."""
    if target.exists():
        target.rename(old)
    try:
        new.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
