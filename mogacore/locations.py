"""Where configs, tools and data are: in a checkout, or in an installed package.

Standard library only: the shell scripts ask here, and must not wait for torch.
"""

from __future__ import annotations

import sys
from difflib import get_close_matches
from pathlib import Path

from .errors import UserError, run

PACKAGE = Path(__file__).resolve().parent
MIM = '.mim'  # folder of OpenMMLab's packages for what is no Python module
BASES = '_base_'


def checkout() -> Path | None:
    """Root of the checkout that this package is imported from; None where it is installed."""
    root = PACKAGE.parent
    return root if (root / 'model-index.yml').is_file() and (root / 'configs').is_dir() else None


def project() -> Path:
    """Folder that holds ``configs/``, ``tools/`` and ``model-index.yml``: the checkout, or that of the wheel."""
    return checkout() or PACKAGE / MIM


def data_folder(name: str) -> Path:
    """Where the data set ``name`` is written by default: below the checkout, or below the current folder."""
    return (checkout() or Path()) / 'data' / name


def config_folders() -> list[Path]:
    """Folders that short names are looked for in: ``configs/`` here, then that of mogacore."""
    folders = [Path('configs'), project() / 'configs']
    return [folder for folder in folders if folder.is_dir()]


def config_names() -> list[str]:
    """Short names of all configs, sorted: paths below a folder of configs, without ``.py``."""
    return sorted({
        path.relative_to(folder).with_suffix('').as_posix()
        for folder in config_folders()
        for path in folder.rglob('*.py')
        if BASES not in path.parts
    })  # fmt: skip


def is_config_name(name: str) -> bool:
    """Whether a name that may also be that of a network means a config: a path with ``.py``, or a short name."""
    return name.endswith('.py') or ('/' in name and ':' not in name)


def find_config(name: str | Path) -> Path:
    """The file of a config.

    Args:
        name: Path of a file, or a short name such as ``detection/mask-rcnn_moganet-xtiny_fpn_digits``, with or without
            ``configs/`` before it and ``.py`` behind it. A path that exists wins.

    Raises:
        UserError: If there is none, with the nearest names.
    """
    for path in (Path(name), Path(f'{name}.py')):
        if path.is_file():
            return path
    short = Path(name).as_posix().removeprefix('configs/').removesuffix('.py')
    if not Path(name).is_absolute():
        for folder in config_folders():
            if (folder / f'{short}.py').is_file():
                return folder / f'{short}.py'
    advice = 'give the path of a file, or a short name such as classification/moganet-xtiny_digits'
    if near := _nearest(short):
        advice = f'did you mean {" or ".join(near)}?'
    raise UserError(f'config {name} is not there: {advice}')


def _nearest(short: str) -> list[str]:
    """Up to three names close to a wrong one; first those whose file name is, where it names no folder."""
    names = config_names()
    by_stem = {name.rpartition('/')[2]: name for name in names}
    stems = [by_stem[near] for near in get_close_matches(short.rpartition('/')[2], by_stem, cutoff=0.8)]
    whole = get_close_matches(short, names)
    return list(dict.fromkeys(whole + stems if '/' in short else stems + whole))[:3]


if __name__ == '__main__':  # python -m mogacore.locations CONFIG...: exit code 2 where one is not there
    run(lambda: print(*map(find_config, sys.argv[1:]), sep='\n'))
