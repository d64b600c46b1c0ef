"""Weight files: safe reading, key mapping, strict loading, downloading and conversion."""

from .convert import convert, write
from .download import cached_path, fetch, recorded, sha256
from .load import CheckpointError, LoadReport, load, load_into, load_official
from .names import LAYOUTS, WeightSets, map_keys, to_layout, weight_sets
from .sources import SCHEME, load_from_http, local_file, official_address, read, register_safe_loader

__all__ = [
    'LAYOUTS',
    'SCHEME',
    'CheckpointError',
    'LoadReport',
    'WeightSets',
    'cached_path',
    'convert',
    'fetch',
    'load',
    'load_from_http',
    'load_into',
    'load_official',
    'local_file',
    'map_keys',
    'official_address',
    'read',
    'recorded',
    'register_safe_loader',
    'sha256',
    'to_layout',
    'weight_sets',
    'write',
]
