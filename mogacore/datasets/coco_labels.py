"""Images of a COCO file with the set of their categories, for multi-label classification."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS

from mogacore.datasets.checks.coco_files import read_coco
from mogacore.errors import UserError
from mogacore.text import shorten


@DATASETS.register_module()
class CocoLabels(BaseDataset):
    """One sample per image of a COCO file; ``gt_label`` (labels,) int64 has each category of its annotations once.

    A label is the index of the name of the category in ``metainfo.classes``; other categories are ignored. An image
    without annotations has no label, and stays. Boxes and masks are not read.

    Args:
        ann_file: COCO JSON file, below ``data_root``.
        data_root: Folder of ``ann_file`` and ``data_prefix``.
        data_prefix: ``img`` is the folder of the images.
        metainfo: ``classes`` are the names of the categories, in the order of the labels.
        **kwargs: Passed to mmengine's BaseDataset, such as ``pipeline`` or ``indices``.

    Raises:
        UserError: If there are no ``classes``, the file is not a COCO file, or it lacks one of them.
    """

    def __init__(
        self,
        ann_file: str,
        data_root: str = '',
        data_prefix: dict | None = None,
        metainfo: dict | None = None,
        **kwargs,
    ):
        if not (metainfo or {}).get('classes'):
            raise UserError(f'{ann_file}: the classes are unknown: set metainfo=dict(classes=...) of the data set')
        super().__init__(
            ann_file, metainfo=metainfo, data_root=data_root, data_prefix=dict(data_prefix or {'img': ''}), **kwargs
        )

    def load_data_list(self) -> list[dict]:
        content = read_coco(Path(self.ann_file), may_be_empty=True)
        names = {category['id']: category['name'] for category in content['categories']}
        classes = list(self.metainfo['classes'])
        if missing := [name for name in classes if name not in names.values()]:
            raise UserError(
                f'{self.ann_file} lacks the categories {shorten(missing)}, it has {shorten(list(names.values()))}: set '
                'metainfo=dict(classes=...) to the names in the file'
            )
        labels = {number: classes.index(name) for number, name in names.items() if name in classes}
        found: dict = {image['id']: set() for image in content['images']}
        for annotation in content['annotations']:
            if annotation['image_id'] in found and annotation['category_id'] in labels:
                found[annotation['image_id']].add(labels[annotation['category_id']])
        folder = Path(self.data_prefix['img'])
        return [
            dict(img_path=str(folder / image['file_name']), gt_label=np.array(sorted(found[image['id']]), np.int64))
            for image in content['images']
        ]

    def get_cat_ids(self, idx: int) -> list[int]:
        """The labels of an image, as samplers and ClassBalancedDataset need them."""
        return self.get_data_info(idx)['gt_label'].tolist()
