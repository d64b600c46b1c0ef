"""Images in class folders, labelled by the folder names of the training set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS

from mogacore.errors import UserError
from mogacore.images import EXTENSIONS
from mogacore.packs import check_indexed, list_classes, list_files
from mogacore.text import shorten


def order_classes(
    found: Sequence[str], folders: Sequence[str] | None, classes: Sequence[str] | None, where: str | Path
) -> list[str]:
    """Names of the class folders in the order of their labels.

    Args:
        found: Class folders that exist.
        folders: Folders of the training set in the order of the labels, if known.
        classes: Class names; used as the order if they include all the folders, or else as names of the sorted folders.
        where: Folder that contains them, for the error.

    Raises:
        UserError: If a folder has no label.
    """
    if folders is None and classes is None:
        return sorted(found)
    names = list(classes or ()) if folders is None else list(folders)
    unknown = [name for name in found if name not in set(names)]
    if not unknown:
        return names
    if folders is None and len(found) == len(names) == len(unknown):  # names for display
        return sorted(found)
    raise UserError(
        f'folder {where} has the class folder {unknown[0]!r}, but the model is trained with the classes '
        f'{shorten(names)}: remove or rename the folder, or train with this class'
    )


@DATASETS.register_module()
class ClassFolders(BaseDataset):
    """One folder per class, each with images at any depth.

    In contrast to mmpretrain's CustomDataset, a folder keeps its label where another folder is absent.

    Args:
        data_root: Folder of ``data_prefix``.
        data_prefix: Folder with the class folders.
        folders: Names of all class folders in the order of their labels, those of the training set. By default,
            ``metainfo.classes`` if it includes all the folders that exist, or else the sorted ones that exist.
        extensions: Suffixes of the images, in lower case; other files are ignored.
        metainfo: ``classes`` are the class names; by default, those of the folders.
        **kwargs: Passed to mmengine's BaseDataset, such as ``pipeline`` or ``indices``.

    Raises:
        UserError: If a folder is not among ``folders``, or there are no images.
    """

    def __init__(
        self,
        data_root: str = '',
        data_prefix: str | dict = '',
        folders: Sequence[str] | None = None,
        extensions: Iterable[str] = EXTENSIONS,
        metainfo: dict | None = None,
        **kwargs,
    ):
        self.folders = folders
        self.extensions = tuple(suffix.lower() for suffix in extensions)
        prefix = dict(img_path=data_prefix) if isinstance(data_prefix, str) else data_prefix
        super().__init__(data_root=data_root, data_prefix=prefix, metainfo=metainfo, **kwargs)

    def load_data_list(self) -> list[dict]:
        folder = Path(self.data_prefix['img_path'])
        check_indexed(folder)
        found = list_classes(folder)
        names = order_classes(found, self.folders, self._metainfo.get('classes'), folder)
        self._metainfo.setdefault('classes', tuple(names))
        labels = {name: label for label, name in enumerate(names)}
        data = [
            dict(img_path=str(folder / name / path), gt_label=labels[name])
            for name in found
            for path in list_files(folder / name)
            if path.lower().endswith(self.extensions)
        ]
        if not data:
            raise UserError(f'folder {folder} has no images with {", ".join(self.extensions)} in class folders')
        return data

    def get_cat_ids(self, idx: int) -> list[int]:
        """The label of an image in a list, as samplers and ClassBalancedDataset need it."""
        return [int(self.get_data_info(idx)['gt_label'])]
