"""mmseg's loading of class maps with checks; imported by mmseg's registry, see `mogacore.libraries`."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from mmengine import fileio
from PIL import Image

from mogacore.datasets.checks.common import unreadable
from mogacore.errors import UserError

Base: Any = import_module('mmseg.datasets.transforms').LoadAnnotations
WIDE_MODES = ('I', 'F')  # of PIL: more than 8 bits per pixel


@import_module('mmseg.registry').TRANSFORMS.register_module(force=True)
class LoadAnnotations(Base):
    """As mmseg's, but every map must be a single channel of the size of its image, with values up to 255.

    mmseg reduces larger values modulo 256, and crops a map of another size to that of the image.

    Raises:
        UserError: If a map does not fit or cannot be read; the line names the file.
    """

    def _load_seg_map(self, results: dict) -> None:
        path, size = results['seg_map_path'], results.get('ori_shape')
        try:
            super()._load_seg_map(results)
        except UserError as error:  # of a map with too many pixels
            raise UserError(f'map {path}: {error}') from error
        except Exception as error:  # PIL raises errors of many types for corrupt files, which it does not name
            if isinstance(error, OSError) and error.errno is not None:  # a missing file, a failing disk
                raise
            raise UserError(unreadable(path)) from error
        found = results['gt_seg_map'].shape
        if len(found) != 2 or (size is not None and found != tuple(size)):
            shape, wanted = (' x '.join(map(str, lengths)) for lengths in (found, size or found[:2]))
            raise UserError(
                f'map {path} has {shape} values for an image of {wanted} (height x width): make each map a '
                'single-channel image of the size of its image'
            )
        with fileio.get_local_path(path, backend_args=self.backend_args) as file:
            bad = _find_bad_value(file)
        if bad is not None:
            raise UserError(
                f'map {path} has the value {bad:g}, but 0 to 255 are allowed: store the class index of each pixel'
            )


def _find_bad_value(file: str | Path) -> float | None:
    """A value that does not fit into 8 bits, of an image with more bits per pixel."""
    with Image.open(file) as image:  # reads the header only
        if image.mode.split(';')[0] not in WIDE_MODES:
            return None
        values = np.asarray(image)
    bad = values[~((values >= 0) & (values <= 255) & (np.floor(values) == values))]  # NaN, too
    return bad[0].item() if len(bad) else None
