"""Runs tools/gpu_check.py as if OpenCV and every task library were missing; not a test itself.

Processes that the command starts import this file again, so the packages are missing there, too.
"""

import runpy
import sys
from pathlib import Path

MISSING = ('cv2', 'matplotlib', 'mmcv', 'mmdet', 'mmpose', 'mmpretrain', 'mmseg', 'scipy', 'sklearn', 'timm')


class Finder:
    """Finds what another finder does, without the missing packages."""

    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, fullname, path=None, target=None):
        is_missing = fullname.partition('.')[0] in MISSING
        return None if is_missing else self.finder.find_spec(fullname, path, target)


sys.meta_path[:] = map(Finder, sys.meta_path)

if __name__ == '__main__':
    runpy.run_path(str(Path(__file__).parents[3] / 'tools' / 'gpu_check.py'), run_name='__main__')
