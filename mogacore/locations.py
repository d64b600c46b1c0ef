"""Locations of configs, tools and data, in a checkout or an installed package.

Standard library only, so that the shell scripts that run this module need not wait for torch.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path

from .errors import UserError, run

PACKAGE = Path(__file__).resolve().parent
MIM = '.mim'  # where OpenMMLab packages keep configs and tools
BASES = '_base_'
# Folder of data, and its copy on the local disk of each node, which tools/slurm_run.sh sets if it made one.
STAGED_FROM, STAGED_TO = 'MOGACORE_STAGED_FROM', 'MOGACORE_STAGED_TO'


def checkout() -> Path | None:
    """Root of the checkout that this package is imported from; None if it is installed."""
    root = PACKAGE.parent
    return root if (root / 'model-index.yml').is_file() and (root / 'configs').is_dir() else None


def project() -> Path:
    """Folder with ``configs/``, ``tools/`` and ``model-index.yml``: the checkout, or ``.mim`` of the package."""
    return checkout() or PACKAGE / MIM


def data_folder(name: str) -> Path:
    """Default output folder of the data set ``name``: in the checkout, otherwise in the current folder."""
    return (checkout() or Path()) / 'data' / name


def staged(path: Path) -> Path:
    """The copy of a file or folder of data on the local disk, if one was made, see :mod:`mogacore.stage`.

    Args:
        path: A file or folder that exists.

    Returns:
        The copy if ``path`` is in the folder of the environment variable MOGACORE_STAGED_FROM; otherwise ``path``.

    Raises:
        UserError: If the copy should exist, but does not.
    """
    source, copy = os.environ.get(STAGED_FROM), os.environ.get(STAGED_TO)
    if not source or not copy or not path.resolve().is_relative_to(Path(source).resolve()):
        return path
    found = Path(os.path.expandvars(copy)) / path.resolve().relative_to(Path(source).resolve())
    if not found.exists():
        raise UserError(f'{found}, the copy of {path} on this node, is missing: start the job again, or omit STAGE')
    return found


def check_staged(roots: Iterable[str]) -> None:
    """Check that a copy on the local disk is read by a run.

    Args:
        roots: Data roots of the run, see :func:`staged`.

    Raises:
        UserError: If there is a copy, and none of them is in it.
    """
    source, copy = os.environ.get(STAGED_FROM), os.environ.get(STAGED_TO)
    found = [Path(root).resolve() for root in roots]
    if not source or not copy or any(root.is_relative_to(Path(os.path.expandvars(copy)).resolve()) for root in found):
        return
    where = ', '.join(dict.fromkeys(map(str, found))) or 'no data root'
    raise UserError(
        f'STAGE copied {source}, but the config reads {where}: set STAGE_DATA to this data root, or data_root to '
        f'{source}'
    )


def config_folders() -> list[Path]:
    """Folders to search for short names: ``configs/`` in the current folder, then mogacore's."""
    folders = [Path('configs'), project() / 'configs']
    return [folder for folder in folders if folder.is_dir()]


def config_names() -> list[str]:
    """Short names of all configs, sorted: paths relative to a config folder, without ``.py``."""
    return sorted({
        path.relative_to(folder).with_suffix('').as_posix()
        for folder in config_folders()
        for path in folder.rglob('*.py')
        if BASES not in path.parts
    })  # fmt: skip


def is_config_name(name: str) -> bool:
    """Whether a name that could also be a network's names a config: a path ending in ``.py``, or a short name."""
    return name.endswith('.py') or ('/' in name and ':' not in name)


def labels(text: str) -> Iterator[tuple[str, str]]:
    """Each way to read ``[LABEL=]REST``, without a label first: a path may contain ``=`` as well."""
    yield '', text
    parts = text.split('=')
    for number in range(1, len(parts)):
        yield '='.join(parts[:number]), '='.join(parts[number:])


def config_file(name: str | Path) -> Path | None:
    """File of a config by path or short name, see :func:`find_config`; None if it does not exist."""
    for path in (Path(name), Path(f'{name}.py')):
        if path.is_file():
            return path
    short = _short(name)
    folders = [] if Path(name).is_absolute() else config_folders()
    return next((path for folder in folders if (path := folder / f'{short}.py').is_file()), None)


def _short(name: str | Path) -> str:
    return Path(name).as_posix().removeprefix('configs/').removesuffix('.py')


def find_config(name: str | Path) -> Path:
    """Find the file of a config.

    Args:
        name: Path of a file, or a short name such as ``detection/mask-rcnn_moganet-xtiny_fpn_digits``, optionally with
            the prefix ``configs/`` and the suffix ``.py``. An existing path takes precedence.

    Raises:
        UserError: If it does not exist; the message suggests the nearest names.
    """
    if path := config_file(name):
        return path
    advice = 'give the path of a file, or a short name such as classification/moganet-xtiny_digits'
    if near := _nearest(_short(name)):
        advice = f'did you mean {" or ".join(near)}?'
    raise UserError(f'config {name} not found: {advice}')


def find_base(name: str, folder: Path) -> Path:
    """Find the file of a config that another one names in ``_base_``.

    Args:
        name: Path relative to the folder of that config, absolute path, or short name. An existing path takes
            precedence.
        folder: Folder of that config.

    Raises:
        UserError: If it does not exist; the message suggests the nearest names.
    """
    path = folder / Path(name).expanduser()
    if path.is_file():
        return path
    short = _short(name)
    if not name.startswith(('.', '/')):
        for configs in config_folders():
            if (found := configs / f'{short}.py').is_file():
                return found
    near = _nearest(short)
    raise UserError(
        f'_base_ {name!r} not found in {folder}: '
        + (f'did you mean {" or ".join(near)}?' if near else 'give a path, or a short name as for the tools')
    )


def _nearest(short: str) -> list[str]:
    """Up to three similar names; without a folder in ``short``, those with a similar file name come first."""
    names = config_names()
    by_stem = {name.rpartition('/')[2]: name for name in names}
    stems = [by_stem[near] for near in get_close_matches(short.rpartition('/')[2], by_stem, cutoff=0.8)]
    full = get_close_matches(short, names)
    return list(dict.fromkeys(full + stems if '/' in short else stems + full))[:3]


if __name__ == '__main__':  # python -m mogacore.locations CONFIG...: exit code 2 if one is not found
    run(lambda: print(*map(find_config, sys.argv[1:]), sep='\n'))
