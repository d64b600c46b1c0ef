"""The records of the data sets of a split, as training reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.registry import DATASETS

from mogacore.datasets.checks.common import ignores_orientation
from mogacore.engine.config import leaves
from mogacore.engine.split import Split


@dataclass
class Records:
    """The records of a data set.

    Args:
        settings: Its config.
        dataset: The data set, without a pipeline.
        items: Its records, one per image, or per object for poses.
        num_loaded: Number of records before ``filter_cfg`` and ``indices``.
    """

    settings: Mapping
    dataset: Any
    items: list[dict]
    num_loaded: int

    @property
    def root(self) -> Path:
        return Path(self.settings.get('data_root') or '')


@dataclass
class Images:
    """Distinct images of a split.

    Args:
        files: Path of each file, and whether it is loaded without its EXIF orientation.
        sizes: Width and height of those that are known without reading the file.
        arrays: Decoded images.
    """

    files: dict[str, bool] = field(default_factory=dict)
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    arrays: list[Any] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.files) + len(self.arrays)


def read_records(split: Split) -> list[Records]:
    """Read the records of every data set of a split, each once, also if a wrapper repeats it."""
    return [_read(dict(settings)) for settings in leaves(split.settings)]


def _read(settings: dict) -> Records:
    dataset = DATASETS.build(dict(settings, lazy_init=True, serialize_data=False) | _without_pipeline(settings))
    load, counts = dataset.load_data_list, []

    def counting() -> list[dict]:
        records = load()
        counts.append(len(records))
        return records

    dataset.load_data_list = counting
    dataset.full_init()
    return Records(settings, dataset, [dataset.get_data_info(index) for index in range(len(dataset))], counts[0])


def _without_pipeline(settings: Mapping) -> dict:
    return {'pipeline': []} if 'pipeline' in settings else {}


def find_images(records: list[Records]) -> Images:
    """The distinct images of data sets."""
    images = Images()
    for part in records:
        ignores = ignores_orientation(part.settings)
        for item in part.items:
            path = item.get('img_path')
            if path is None:
                if 'img' in item:
                    images.arrays.append(item['img'])
                continue
            images.files[str(path)] = ignores
            if 'width' in item and 'height' in item:
                images.sizes[str(path)] = item['width'], item['height']
    return images


def walk(records: list[Records]) -> Iterator[dict]:
    """All records."""
    for part in records:
        yield from part.items
