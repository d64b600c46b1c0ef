"""Weight files: safe reading, key mapping, strict loading, downloading and conversion."""

from .convert import convert, write
from .download import cached_path, fetch, recorded
from .hub import HUB_SCHEME, hub_config
from .load import CheckpointError, LoadReport, check_gate, load, load_into, load_official, not_finite, report_choice
from .names import LAYOUTS, WeightSets, map_keys, to_layout, weight_sets
from .schema import MalformedError, check_optimizer_state, check_resume_parts
from .sources import (
    SCHEME,
    check_source,
    content_hash,
    load_from_http,
    local_file,
    official_address,
    read,
    read_any,
    register_safe_loader,
    weights_of,
)

__all__ = [
    'HUB_SCHEME',
    'LAYOUTS',
    'SCHEME',
    'CheckpointError',
    'LoadReport',
    'MalformedError',
    'WeightSets',
    'cached_path',
    'check_gate',
    'check_optimizer_state',
    'check_resume_parts',
    'check_source',
    'content_hash',
    'convert',
    'fetch',
    'hub_config',
    'load',
    'load_from_http',
    'load_into',
    'load_official',
    'local_file',
    'map_keys',
    'not_finite',
    'official_address',
    'read',
    'read_any',
    'recorded',
    'register_safe_loader',
    'report_choice',
    'to_layout',
    'weight_sets',
    'weights_of',
    'write',
]
