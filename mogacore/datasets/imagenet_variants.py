"""Test sets for classifiers of ImageNet-1K: ImageNet-V2, -A, -R and -C, in the folders in which they are published."""

from __future__ import annotations

from pathlib import Path

from mmengine.registry import DATASETS

from mogacore.errors import UserError
from mogacore.packs import is_folder, list_classes, list_files
from mogacore.published.corruptions import ALEXNET_ERRORS, SEVERITIES

from .class_folders import ClassFolders


@DATASETS.register_module()
class ImageNetV2(ClassFolders):
    """ImageNet-V2: class folders ``0`` to ``999``, named by the label.

    Args:
        **kwargs: As in :class:`ClassFolders`.

    Raises:
        UserError: If a folder has another name.

    Source: Recht et al., arXiv 1902.10811.
    """

    def load_data_list(self) -> list[dict]:
        folder = Path(self.data_prefix['img_path'])
        found = list_classes(folder)
        if wrong := [name for name in found if not (name.isdecimal() and str(int(name)) == name)]:
            raise UserError(
                f'folder {folder} of ImageNet-V2 has the class folder {wrong[0]!r}: use the folders 0 to 999 of a '
                'published archive, and no others'
            )
        self.folders = [str(label) for label in range(1 + max(map(int, found), default=-1))]
        data = super().load_data_list()
        self._metainfo.pop('classes')  # labels are no names of classes
        return data


@DATASETS.register_module()
class ImageNetSubset(ClassFolders):
    """ImageNet-A or ImageNet-R: class folders of 200 of the 1,000 WordNet ids.

    Args:
        reference_root: Folder with the class folders of all 1,000 WordNet ids, such as that of ImageNet's validation
            images; their sorted names give the labels. The folders may be empty.
        **kwargs: As in :class:`ClassFolders`.

    Raises:
        UserError: If a folder is not among those of ``reference_root``.

    ``metainfo['subset']`` has the labels of the folders, for :class:`mogacore.evaluation.SubsetAccuracy`.

    Source: Hendrycks et al., arXiv 1907.07174 (A) and 2006.16241 (R).
    """

    def __init__(self, reference_root: str, **kwargs):
        super().__init__(folders=list_classes(reference_root), **kwargs)

    def load_data_list(self) -> list[dict]:
        data = super().load_data_list()
        self._metainfo['subset'] = tuple(sorted({item['gt_label'] for item in data}))
        return data


@DATASETS.register_module()
class ImageNetC(ClassFolders):
    """ImageNet-C: ``CORRUPTION/SEVERITY/WORDNET_ID/IMAGE`` for 15 corruptions and the severities 1 to 5.

    The folders of the corruptions may also be one level deeper, as in ``noise/gaussian_noise``. Others, such as the
    additional corruptions, are ignored.

    Args:
        **kwargs: As in :class:`ClassFolders`.

    Raises:
        UserError: If a corruption or severity is missing or has no images, or their class folders differ.

    Source: Hendrycks and Dietterich, arXiv 1903.12261.
    """

    def load_data_list(self) -> list[dict]:
        root = Path(self.data_prefix['img_path'])
        folders = [self._find(root, name) / str(severity) for name in ALEXNET_ERRORS for severity in SEVERITIES]
        for folder in folders:
            if not is_folder(folder):
                raise UserError(f'{folder} is missing: extract the archive with {folder.parent.name} again')
        found = {folder: list_classes(folder) for folder in folders}
        names = found[folders[0]]
        for folder, others in found.items():
            if others != names:
                raise UserError(
                    f'{folder} has {len(others)} class folders, which differ from the {len(names)} of {folders[0]}: '
                    'extract the archives again'
                )
        self._metainfo.setdefault('classes', tuple(names))
        data = []
        for folder in folders:
            images = [
                dict(img_path=str(folder / name / path), gt_label=label)
                for label, name in enumerate(names)
                for path in list_files(folder / name)
                if path.lower().endswith(self.extensions)
            ]
            if not images:
                raise UserError(f'{folder} has no images: extract the archive with {folder.parent.name} again')
            data += images
        return data

    def _find(self, root: Path, name: str) -> Path:
        """The folder of a corruption."""
        for folder in (root / name, *sorted(root.glob(f'*/{name}'))):
            if is_folder(folder):
                return folder
        raise UserError(f'folder {root} of ImageNet-C has no folder {name}: extract the archive with it there')
