"""The files below a folder of user data, and how names of folders and files show a split."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from mogacore.datasets.checks.coco_files import read_json
from mogacore.datasets.checks.common import IMAGE_SUFFIXES
from mogacore.datasets.class_folders import EXTENSIONS
from mogacore.errors import UserError
from mogacore.files import read_file
from mogacore.packs import list_files

OUTPUT = 'mogacore'  # folder that init-data writes below that of the data
SPLIT_NAMES = {'train': 'train', 'training': 'train', 'val': 'val', 'valid': 'val', 'validation': 'val', 'dev': 'val',
               'test': 'test', 'testing': 'test'}  # fmt: skip


class Listing:
    """All files below a folder, without hidden ones and the output of an earlier call.

    Args:
        folder: The folder.
        excluded: Another folder whose files are left out.

    Raises:
        UserError: If it does not exist or holds no image.
    """

    def __init__(self, folder: Path, excluded: Path | None = None):
        if not folder.is_dir():
            raise UserError(f'folder {folder} does not exist: give the folder of the images and labels')
        self.folder = folder
        left_out = {(folder / OUTPUT).resolve()} | ({excluded.resolve()} if excluded else set())
        root = folder.resolve()
        self.files = [name for name in list_files(folder) if left_out.isdisjoint((root / name).parents)]
        self.images = [name for name in self.files if name.lower().endswith(EXTENSIONS)]
        self.other_images = [name for name in self.files if is_other_image(name)]
        if not self.images:
            what = f'only {len(self.other_images)} such as {self.other_images[0]}' if self.other_images else 'none'
            raise UserError(f'folder {folder} has no images with {", ".join(EXTENSIONS)}, {what}: give another folder')

    @cached_property
    def known_images(self) -> frozenset[str]:
        """The images, for look-ups."""
        return frozenset(self.images)

    def with_suffix(self, *suffixes: str) -> list[str]:
        """Files with one of these suffixes."""
        return [name for name in self.files if name.lower().endswith(suffixes)]

    @cached_property
    def by_file_name(self) -> dict[str, list[str]]:
        """The images with each file name."""
        found = defaultdict(list)
        for name in self.images:
            found[name.rpartition('/')[2]].append(name)
        return found

    @cached_property
    def by_stem(self) -> dict[str, list[str]]:
        """The images with each path without suffix."""
        found = defaultdict(list)
        for name in self.images:
            found[stem(name)].append(name)
        return found

    def find_image(self, name: str, split: str | None = None) -> str | None:
        """The image that a label file names; None if there is none, or no single one.

        Args:
            name: Path as the label file has it. The end of the path counts, so that it may be relative to any folder,
                or absolute on another computer.
            split: Split of the label file, which decides between images of the same name.
        """
        path = PurePosixPath(name.replace('\\', '/'))
        found = self.by_file_name.get(path.name, [])
        for number in range(len(path.parts), 0, -1):
            end = '/'.join(path.parts[-number:])
            matching = [image for image in found if image == end or image.endswith(f'/{end}')]
            if len(matching) > 1:
                same = [image for image in matching if split and split_of(image) == split]
                return (same or matching)[0] if len(same or matching) == 1 else None
            if matching:
                return matching[0]
        return None

    @cached_property
    def contents(self) -> dict[str, Any]:
        """Content of each JSON file; a UserError where it cannot be read. Images inside LabelMe files are left out."""
        found: dict[str, Any] = {}
        for name in self.with_suffix('.json'):
            try:
                found[name] = read_json(self.folder / name)
            except UserError as error:
                found[name] = error
            if isinstance(found[name], dict):
                found[name].pop('imageData', None)
        return found


def read_start(path: Path, number: int) -> bytes:
    """The first bytes of a file; none if it cannot be read, which whoever reads all of it reports."""
    try:
        return read_file(path)[:number]
    except OSError:
        return b''


def is_other_image(name: str) -> bool:
    """Whether a file is an image that cannot be read."""
    name = name.lower()
    return name.endswith(IMAGE_SUFFIXES) and not name.endswith((*EXTENSIONS, '.npy'))


def stem(name: str) -> str:
    """A path without the suffix of its file."""
    folder, _, file = name.rpartition('/')
    file = file[: file.rindex('.')] if '.' in file[1:] else file
    return f'{folder}/{file}' if folder else file


def split_of(name: str) -> str | None:
    """The split that a folder in a path names, such as ``images/train2017/1.jpg``; None if none does."""
    return _only(re.sub(r'[\W\d_]+$', '', part.lower()) for part in name.split('/')[:-1])


def split_of_file(name: str) -> str | None:
    """The split that the name of a label file contains as a word, or else a folder, see :func:`split_of`."""
    return _only(re.findall(r'[a-z]+', stem(name).rpartition('/')[2].lower())) or split_of(name)


def _only(words: Iterable[str]) -> str | None:
    found = {SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES}
    return found.pop() if len(found) == 1 else None
