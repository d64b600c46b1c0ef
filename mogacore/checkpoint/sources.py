"""Weight files by path, URL, ``mogacore://`` or ``hf-hub:`` name, and the loaders that mmengine calls for them."""

from __future__ import annotations

import re
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mmengine.dist import barrier, is_main_process
from mmengine.runner import checkpoint as mmengine_checkpoint

from mogacore.errors import UserError
from mogacore.files import sha256
from mogacore.published import results

from .download import fetch
from .hub import HUB_SCHEME, hub_weights, parse_hub_name
from .names import to_current, to_layout, weight_sets
from .safe_load import check_file, read_file

SCHEME = 'mogacore://'
NO_WEIGHTS = f'{SCHEME}no-weights/'
OTHER_SCHEMES = re.compile(r'[\w.:-]+://')


def official_address(name: str) -> str:
    """URL of a published weight file by its name, see :func:`mogacore.published.official_weights`.

    Raises:
        UserError: If the name is unknown.
    """
    if name.startswith(NO_WEIGHTS):
        raise UserError(
            f'no weights are published for {name.removeprefix(NO_WEIGHTS)}: give a file as weights (in mmpretrain, as '
            'pretrained)'
        )
    addresses = results.official_weights()
    name = name.removeprefix(SCHEME)
    if name not in addresses:
        near = get_close_matches(name, addresses, n=4, cutoff=0.4) or list(addresses)[:6]
        raise UserError(
            f'{SCHEME}{name} is not a published weight file: did you mean {", ".join(near)}? '
            'tools/weights.py lists all names'
        )
    return addresses[name]


def weights_of(model: str | None, checkpoint: Any) -> Any:
    """The weights that a user chose for a model of :func:`mogacore.create_model`.

    Args:
        model: Name of the model; None if it has no published size.
        checkpoint: Path, address, container or None; or 'official' for the published weights of the model.

    Returns:
        ``mogacore://MODEL`` for 'official', otherwise ``checkpoint``.

    Raises:
        UserError: For 'official' without a model.
    """
    if checkpoint != 'official':
        return checkpoint
    if model is None:
        raise UserError("checkpoint 'official' requires a published size: set arch to the name of a size")
    return SCHEME + model


def without_weights(name: str) -> str:
    """Source of the weights of a model that has none: reading it raises a :class:`UserError` that says so."""
    return NO_WEIGHTS + name


def local_file(source: str | Path) -> Path:
    """Local path of a weight file; one given by a name or URL is downloaded unless it exists.

    Args:
        source: Path, URL, ``mogacore://`` name, or name of :func:`mogacore.checkpoint.hub.parse_hub_name`.

    Raises:
        UserError: If the name is unknown or the download fails.
    """
    if isinstance(source, str) and source.startswith(SCHEME):
        source = official_address(source)
    if isinstance(source, str) and source.startswith(('http://', 'https://')):
        return _fetch_once(source)
    if isinstance(source, str) and source.startswith(HUB_SCHEME):
        return _main_process_first(lambda: hub_weights(source))
    return Path(source).expanduser()


def content_hash(source: str | Path) -> str | None:
    """The sha256 of a weight file, by path, address or ``mogacore://`` name; None for an entry of another table."""
    is_found = str(source).startswith((SCHEME, 'http://', 'https://')) or Path(source).expanduser().is_file()
    return sha256(local_file(source)) if is_found else None


def check_source(source: str | Path) -> None:
    """Check that a weight file exists, or that its ``mogacore://`` name does; downloads nothing.

    Lets a tool report a misspelt path before it builds a model or loads data.

    Raises:
        UserError: If it does not exist or is not a regular file.
    """
    if str(source).startswith(SCHEME):
        official_address(str(source))
    elif str(source).startswith(HUB_SCHEME):
        parse_hub_name(str(source))
    elif not OTHER_SCHEMES.match(str(source)):
        check_file(Path(source).expanduser())


def read_any(source: str | Path, map_location='cpu') -> dict:
    """Read a weight file by any source that a config may name; the readers are those of :func:`register_safe_loader`.

    Unlike :func:`read`, this also finds files of OpenMMLab's tables, such as ``torchvision://resnet50``.
    """
    register_safe_loader()
    return mmengine_checkpoint.CheckpointLoader.load_checkpoint(str(source), map_location, logger='silent')


def _fetch_once(url: str, folder: str | None = None) -> Path:
    return _main_process_first(lambda: fetch(url, folder))


def _main_process_first(download: Callable[[], Path]) -> Path:
    """Download in the main process first; the others then find the file."""
    if not is_main_process():
        barrier()
    path = download()
    if is_main_process():
        barrier()
    return path


def read(source: str | Path, map_location='cpu', mmap: bool = False) -> dict:
    """Read the whole container of a weight file; never runs code from it.

    Args:
        source: A file written by torch.save, in the old or new format, or a ``.safetensors`` file; a URL or a name such
            as ``mogacore://moganet_tiny`` is downloaded first.
        map_location: As in :func:`torch.load`.
        mmap: Leave the tensors on the disk until they are used; no effect on torch.save's old format.

    Returns:
        The saved dict; for a ``.safetensors`` file, a dict with ``state_dict`` and ``meta``.

    Raises:
        UserError: If the file is missing, truncated or damaged, is not a weight file, or contains pickled code; if the
            name is unknown or the download fails.
    """
    return read_file(local_file(source), map_location, mmap)


def load_from_local(filename: str, map_location=None) -> dict:
    """:func:`read` with the signature of mmengine's loaders."""
    return read(filename, map_location or 'cpu')


def load_from_http(filename: str, map_location=None, model_dir: str | None = None) -> dict:
    """Download to torch's cache, the main process first, then :func:`read`.

    The libraries' own loaders map no names. For a published classification file, this therefore returns the set of
    weights behind its published accuracy under OpenMMLab's names; for any other, the content with current names.
    """
    path = _fetch_once(filename, model_dir)
    container = read(path, map_location or 'cpu')
    published = results.result_of_weights(path.name)  # by name, so that a mirror's file counts as well
    if published and published[0].task == 'classification':
        sets = weight_sets(container).choose_published(published[0].weight_set)
        sets.report(filename)
        return {'meta': {}, 'state_dict': to_layout(sets.state_dict, 'backbone-prefixed')}
    if published and isinstance(container.get('state_dict'), dict):
        return {**container, 'state_dict': to_current(container['state_dict'])}
    return container


def load_from_openmmlab(filename: str, map_location=None) -> dict:
    """Read an entry of OpenMMLab's table of weights, which is a URL or a file in mmengine's folder.

    Raises:
        UserError: If the table has no such entry, or the file cannot be read safely.
    """
    name = filename.partition('://')[2]
    name = mmengine_checkpoint.get_deprecated_model_names().get(name, name)
    target = mmengine_checkpoint.get_external_models().get(name)
    if target is None:
        raise UserError(f"{filename} is not in OpenMMLab's table of weights: give a path or URL")
    if target.startswith(('http://', 'https://')):
        return load_from_http(target, map_location)
    return read(Path(mmengine_checkpoint._get_mmengine_home()) / target, map_location or 'cpu')


def load_by_name(filename: str, map_location=None) -> dict:
    """Read a file by name, such as ``mogacore://moganet_tiny`` or ``hf-hub:user/name``."""
    return read(filename, map_location or 'cpu')


def refuse_cloud_store(filename: str, map_location=None) -> dict:
    """Raise UserError for cloud stores, since mmengine's own readers for them unpickle anything."""
    raise UserError(f'{filename} cannot be read safely: download the file and give its path')


def register_safe_loader() -> None:
    """Make mmengine read all weight files with :func:`read`: load_from, resume and Pretrained in every task library."""
    register = mmengine_checkpoint.CheckpointLoader.register_scheme
    register('', load_from_local, force=True)
    register(['http://', 'https://'], load_from_http, force=True)
    register(['open-mmlab://', 'openmmlab://'], load_from_openmmlab, force=True)
    register(['mogacore://', HUB_SCHEME], load_by_name, force=True)
    register(['pavi://', r'(\S+\:)?s3://', r'(\S+\:)?petrel://'], refuse_cloud_store, force=True)
    # The loaders of torchvision://, modelzoo:// and mmcls:// look up a URL and call this module attribute.
    mmengine_checkpoint.load_from_http = load_from_http
