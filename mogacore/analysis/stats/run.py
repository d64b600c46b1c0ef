"""Statistics of the splits of a config: a report as JSON values, and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mogacore.datasets.checks import Sample
from mogacore.engine.config import leaves
from mogacore.engine.data import SECONDS
from mogacore.engine.explain import user_errors
from mogacore.engine.loaders import describe_dataset
from mogacore.engine.split import SPLITS, Split
from mogacore.errors import UserError
from mogacore.files import writable_folder, write_json

from .collect import Arrays, collect
from .duplicates import find_duplicates
from .notes import notes_of
from .pictures import draw
from .records import Images, find_images, read_records


def statistics(
    config: str,
    splits: Sequence[str] | None = None,
    out_dir: str | Path | None = None,
    check: str = 'sample',
    cfg_options: dict | None = None,
) -> dict:
    """Statistics of the data of a config, as training reads it.

    Objects and images that the data set ignores or filters are not counted, but reported. Sizes of boxes are in pixels
    of the original image, their area is width times height.

    Args:
        config: Path or short name of the config.
        splits: Any of 'train', 'val' and 'test'; None for all that the config has. Splits with the same data are
            reported once.
        out_dir: Folder for ``stats.json`` and pictures; None to write nothing.
        check: 'sample' reads files for about 20 seconds per split, 'full' all.
        cfg_options: Settings that override the config.

    Returns:
        ``splits``: a report for each, with ``problems``, for which training would refuse the data, and ``notes``, what
        may be wrong; ``duplicates``, see :func:`mogacore.analysis.stats.duplicates.find_duplicates`.

    Raises:
        UserError: If the config has no such split, or the data is missing.
    """
    opened = _open(config, splits, check, cfg_options)
    if out_dir is not None:
        out_dir = writable_folder(out_dir)
    reports: dict[str, dict] = {}
    images: dict[str, Images] = {}
    arrays: dict[str, Arrays] = {}
    for name, split in opened.items():
        reports[name], images[name], arrays[name] = _examine(split, Sample(SECONDS[check]))
    duplicates = find_duplicates(images, Sample(SECONDS[check]))
    for name, report in reports.items():
        report['notes'] = notes_of(name, report, duplicates, opened[name].stage == 'train')
    result = dict(config=str(config), splits=reports, duplicates=duplicates)
    if out_dir is not None:
        write_json(Path(out_dir) / 'stats.json', result)
        for name, report in reports.items():
            draw(Path(out_dir), name, report, arrays[name])
    return result


def _open(config: str, splits: Sequence[str] | None, check: str, cfg_options: dict | None) -> dict[str, Split]:
    """The splits by name; those with the same data have one name, such as 'val, test'."""
    if splits is None:
        cfg = Split.read(config, cfg_options)
        splits = [name for name in SPLITS if cfg.get(f'{name}_dataloader')]
        if not splits:
            raise UserError(
                f'config {config} has no data loader: add train_dataloader, val_dataloader or test_dataloader'
            )
    opened: dict[str, Split] = {}
    for name in dict.fromkeys(splits):
        split = Split(config, name, check, cfg_options)
        same = next((other for other in opened if _data(opened[other]) == _data(split)), None)
        if same is None:
            opened[name] = split
        else:
            opened[f'{same}, {name}'] = opened.pop(same)
    return opened


def _data(split: Split) -> list[dict]:
    """What determines the records of a split."""
    return [{key: value for key, value in dataset.items() if key != 'pipeline'} for dataset in leaves(split.settings)]


def _examine(split: Split, sample: Sample) -> tuple[dict, Images, Arrays]:
    """Report, images and arrays of a split; only the problems if the data cannot be read."""
    report: dict = dict(data=[describe_dataset(dataset) for dataset in leaves(split.settings)])
    problems = list(split.problems)
    images = Images()
    arrays: Arrays = {}
    try:
        with user_errors():
            split.activate()
            records = read_records(split)
            images = find_images(records)
            found, arrays = collect(records, images, sample)
            report |= found
    except Exception as error:  # broken annotations make the task libraries raise anything
        if isinstance(error, UserError):
            problems += [] if str(error) in problems else [str(error)]
        elif not problems:
            raise
    return report | dict(problems=problems), images, arrays
