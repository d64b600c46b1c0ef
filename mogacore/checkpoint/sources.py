"""Weight files by path, address or ``mogacore://`` name, and the loaders that mmengine calls for each of them."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from mmengine.dist import barrier, is_main_process
from mmengine.runner import checkpoint as mmengine_checkpoint

from mogacore.errors import UserError
from mogacore.published import results

from .download import fetch
from .names import to_layout, weight_sets
from .safe_load import read_file

SCHEME = 'mogacore://'


def official_address(name: str) -> str:
    """Address of a published weight file by its name, see :func:`mogacore.published.official_weights`.

    Raises:
        UserError: If the name is unknown.
    """
    addresses = results.official_weights()
    name = name.removeprefix(SCHEME)
    if name not in addresses:
        near = get_close_matches(name, addresses, n=4, cutoff=0.4) or list(addresses)[:6]
        raise UserError(
            f'{SCHEME}{name} is not among the published weights: did you mean {", ".join(near)}? '
            'tools/weights.py lists all names'
        )
    return addresses[name]


def local_file(source: str | Path) -> Path:
    """The path of a weight file; one that is named by ``mogacore://`` or an address is fetched if it is not there.

    Raises:
        UserError: If the name is unknown or the file cannot be fetched.
    """
    if isinstance(source, str) and source.startswith(SCHEME):
        source = official_address(source)
    if isinstance(source, str) and source.startswith(('http://', 'https://')):
        return _fetch_once(source)
    return Path(source).expanduser()


def _fetch_once(url: str, folder: str | None = None) -> Path:
    """:func:`mogacore.checkpoint.download.fetch` by the main process, and then by the others, who find the file."""
    if not is_main_process():
        barrier()
    path = fetch(url, folder)
    if is_main_process():
        barrier()
    return path


def read(source: str | Path, map_location='cpu', mmap: bool = False) -> dict:
    """The whole container in a weight file; never runs code from it.

    Args:
        source: A file of torch.save, old format or new, or a ``.safetensors`` file; a name such as
            ``mogacore://moganet_tiny`` or an address is fetched first.
        map_location: As of :func:`torch.load`.
        mmap: Leave the tensors on the disk until they are used; without effect on torch.save's old format.

    Returns:
        What was saved; of a ``.safetensors`` file a dict with ``state_dict`` and ``meta``.

    Raises:
        UserError: If the file is missing, truncated or damaged, is not a weight file, or holds pickled code; if the
            name is unknown or the file cannot be fetched.
    """
    return read_file(local_file(source), map_location, mmap)


def load_from_local(filename: str, map_location=None) -> dict:
    """:func:`read`, as mmengine calls a loader."""
    return read(filename, map_location or 'cpu')


def load_from_http(filename: str, map_location=None, model_dir: str | None = None) -> dict:
    """Download into torch's own cache, the main process first, then :func:`read`.

    A published classification file comes as the libraries' own loaders want it, which map no names: under the names of
    OpenMMLab, the set of weights that its figure belongs to.
    """
    path = _fetch_once(filename, model_dir)
    container = read(path, map_location or 'cpu')
    published = results.result_of_weights(path.name)
    if published and published[0].task == 'classification':
        sets = weight_sets(container).choose_published(published[0].weight_set)
        return {'meta': {}, 'state_dict': to_layout(sets.state_dict, 'backbone-prefixed')}
    return container


def load_from_openmmlab(filename: str, map_location=None) -> dict:
    """A name of OpenMMLab's table of weights, which may be a URL or a file in mmengine's folder."""
    name = filename.partition('://')[2]
    name = mmengine_checkpoint.get_deprecated_model_names().get(name, name)
    target = mmengine_checkpoint.get_external_models().get(name)
    if target is None:
        raise UserError(f'{filename} is not in the table of OpenMMLab weights: give a path or URL')
    if target.startswith(('http://', 'https://')):
        return load_from_http(target, map_location)
    return read(Path(mmengine_checkpoint._get_mmengine_home()) / target, map_location or 'cpu')


def load_from_mogacore(filename: str, map_location=None) -> dict:
    """A name of :func:`mogacore.published.official_weights`, as in ``mogacore://moganet_tiny``."""
    return read(filename, map_location or 'cpu')


def load_from_refused(filename: str, map_location=None) -> dict:
    """Cloud stores, of which mmengine's own readers unpickle what they find."""
    raise UserError(f'{filename} cannot be read safely: fetch the file and give its path')


def register_safe_loader() -> None:
    """Make mmengine read every weight file by :func:`read`: load_from, resume and Pretrained of all task libraries."""
    register = mmengine_checkpoint.CheckpointLoader.register_scheme
    register('', load_from_local, force=True)
    register(['http://', 'https://'], load_from_http, force=True)
    register(['open-mmlab://', 'openmmlab://'], load_from_openmmlab, force=True)
    register('mogacore://', load_from_mogacore, force=True)
    register(['pavi://', r'(\S+\:)?s3://', r'(\S+\:)?petrel://'], load_from_refused, force=True)
    # torchvision://, modelzoo:// and mmcls:// find a URL and call this by its name in the module.
    mmengine_checkpoint.load_from_http = load_from_http
