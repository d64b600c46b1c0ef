"""Packing folders of images into tar shards or LMDB, which :mod:`mogacore.packs` reads.

Tar shards have webdataset's layout: ``NAME-000000.tar``, ``NAME-000001.tar``, ... with the members ``KEY.jpg`` and, for
images in class folders, ``KEY.cls``, the number of the class.
"""

from .index import write_index
from .write import FORMATS, pack

__all__ = ['FORMATS', 'pack', 'write_index']
