"""What is found in a folder of user data: images with their labels, in the same form for every format."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import track

from mogacore.datasets.checks.report import Faults, Problems

TASKS = ('detection', 'instance', 'segmentation', 'classification', 'pose')
SPLITS = ('train', 'val', 'test')
T = TypeVar('T')


@dataclass
class LabelledImage:
    """An image and its labels.

    Args:
        name: Path below the folder of the data, with ``/``.
        split: 'train', 'val' or 'test'; None if the data do not say.
        source: File of its labels, for messages; '' if there is none.
        recorded: Width and height that ``source`` states.
        objects: COCO annotations, with the name of the class as ``category`` instead of ids.
        label: Class of the whole image.
        label_map: Path of its class map below the folder.
        size: Width and height as it is shown, after its EXIF orientation; (0, 0) until it is read.
    """

    name: str
    split: str | None = None
    source: str = ''
    recorded: tuple[int, int] | None = None
    objects: list[dict] = field(default_factory=list)
    label: str | None = None
    label_map: str | None = None
    size: tuple[int, int] = (0, 0)


@dataclass
class Found:
    """The content of a folder.

    Args:
        format: What it is, for messages.
        folder: The folder.
        images: All images, sorted by name.
        classes: Names of the classes in the order of their labels.
        keypoints: Names of the keypoints.
        swaps: For each keypoint, the name of its partner in a mirror image, or ''; empty if unknown.
        ready: Files that training can read as they are: split to annotation file and folder of its images, both below
            the folder of the data.
        palette: Color of each class in color maps, as in the color table.
        is_binary: Maps have 255 where they mean class 1.
        rewrites_maps: Maps cannot be read as they are.
        notes: What differs from what one might expect, and what is done about it.
        problems: What must be corrected first.
    """

    format: str
    folder: Path
    images: list[LabelledImage] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    keypoints: list[str] = field(default_factory=list)
    swaps: list[str] = field(default_factory=list)
    ready: dict[str, tuple[str, str]] = field(default_factory=dict)
    palette: list[tuple[int, int, int]] = field(default_factory=list)
    is_binary: bool = False
    rewrites_maps: bool = False
    notes: Problems = field(default_factory=Problems)
    problems: Problems = field(default_factory=Problems)
    _noted: Faults = field(default_factory=Faults)

    def note(self, kind: str, line: str) -> None:
        """Add a note; those of one kind become one line with the first and the number of the others."""
        self._noted.add(kind, len(self._noted.counts), line)

    def close(self) -> None:
        """Write the collected notes to ``notes``."""
        self._noted.report(self.notes)
        self._noted = Faults()

    def of(self, split: str) -> list[LabelledImage]:
        """The images of a split."""
        return [image for image in self.images if image.split == split]

    def count(self) -> dict[str, int]:
        """Number of objects, images or, for class maps, images of each class; in the order of the classes."""
        counts = dict.fromkeys(self.classes, 0)
        for image in self.images:
            for name in [image.label] if image.label is not None else [entry['category'] for entry in image.objects]:
                counts[name] = counts.get(name, 0) + 1
        return counts


def flip_partners(found: Found) -> list[str] | None:
    """For each keypoint its partner in a mirror image, or ''; None if neither the data nor the names say.

    Names pair where they differ in "left" and "right" only.
    """
    if found.swaps:
        return found.swaps
    if all(re.fullmatch(r'keypoint_\d+', name) for name in found.keypoints):
        return None
    partners = []
    for name in found.keypoints:
        other = re.sub('left|right', lambda m: 'right' if m[0].lower() == 'left' else 'left', name, flags=re.I)
        known = {candidate.lower(): candidate for candidate in found.keypoints}
        partners.append(known.get(other.lower(), '') if other != name else '')
    return partners


def progress(items: Sequence[T], description: str) -> Iterable[T]:
    """The items, with a bar on a terminal."""
    if not sys.stderr.isatty():
        return items
    return track(items, description, transient=True, console=Console(stderr=True))
