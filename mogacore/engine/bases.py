"""Lets a config outside the project name its bases by their short names."""

from __future__ import annotations

from functools import wraps
from pathlib import Path

from mmengine.config import Config

from mogacore.locations import find_base


def register_short_bases() -> None:
    """Make mmengine look up a base by :func:`mogacore.locations.find_base`, for every config that is read from now on.

    Bases of other packages, such as ``mmdet::retinanet/...``, are left to mmengine.
    """
    original = Config._get_cfg_path
    if hasattr(original, '__wrapped__'):
        return

    @wraps(original)
    def get_cfg_path(cfg_path: str, filename: str) -> tuple[str, str | None]:
        if '::' in cfg_path:
            return original(cfg_path, filename)
        return str(find_base(cfg_path, Path(filename).parent)), None

    Config._get_cfg_path = staticmethod(get_cfg_path)
