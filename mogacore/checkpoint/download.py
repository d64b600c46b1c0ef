"""Downloads of weight files: with progress, resumable, verified.

A file gets its name only when it is complete; until then it is a ``.partial`` file in the same folder. The sha256 of a
file is recorded on first use, in the format of sha256sum, and checked on every later use.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException, IncompleteRead
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlparse

import torch

from mogacore.errors import UserError
from mogacore.files import PARTIAL_SUFFIX, sha256, write_text
from mogacore.published import results

ATTEMPTS = 3
CHUNK = 2**20
TIMEOUT_S = 30  # without a byte
HASH = re.compile(r'-([0-9a-f]{8,64})\.')


def cache_folder() -> Path:
    """Default folder for downloads: the cache of torch.hub, below ``TORCH_HOME``."""
    return Path(torch.hub.get_dir()) / 'checkpoints'


def cached_path(url: str, folder: str | Path | None = None) -> Path:
    """Path that :func:`fetch` downloads a URL to; the file need not exist.

    Many addresses end in the same name, such as ``pytorch_model.bin``. Every address therefore has its own subfolder,
    named by its sha256, except the published addresses, whose last names are unique. A file of that name in ``folder``
    itself, where other tools download to, is used if its name contains its hash, as in ``name-1234abcd.pth``.
    """
    folder = Path(folder or cache_folder())
    name = re.sub(r'[^\w.+=@-]', '_', unquote(PurePosixPath(urlparse(url).path).name)).strip('.')[-200:] or 'weights'
    shared = folder / name
    if url in results.official_weights().values() or _contains_its_hash(shared):
        return shared
    return folder / hashlib.sha256(url.encode()).hexdigest()[:16] / name


def _contains_its_hash(path: Path) -> bool:
    """Whether the hexadecimal digits at the end of a file's name, torch.hub's convention, begin its sha256."""
    digits = HASH.search(path.name)
    return digits is not None and path.is_file() and sha256(path).startswith(digits[1])


def fetch(url: str, folder: str | Path | None = None) -> Path:
    """Download the file of a URL unless it exists.

    Args:
        url: http or https URL.
        folder: Folder of the file; None means :func:`cache_folder`.

    Returns:
        Path of the file, checked against its recorded sha256.

    Raises:
        UserError: If the download fails; the message gives the URL and the path for a manual download. Also if the file
            has changed since its first use.
    """
    path = cached_path(url, folder)
    if not path.exists():
        manual = f'download it manually to {path}'
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _download(url, path)
        except urllib.error.HTTPError as error:
            raise UserError(f'{url} cannot be downloaded (HTTP {error.code} {error.reason}): {manual}') from None
        except (OSError, HTTPException) as error:
            reason = getattr(error, 'reason', None) or error
            raise UserError(f'{url} cannot be downloaded ({reason}): check the network, or {manual}') from None
    check(path)
    return path


def check(path: Path) -> str:
    """Compute the sha256 of a file; record it on the first call, compare it with the record on later ones.

    Raises:
        UserError: If the file has changed.
    """
    found, known = sha256(path), recorded(path)
    if known is None:
        try:
            write_text(_record(path), f'{found}  {path.name}\n')
        except OSError:
            return found  # a read-only folder
    elif known != found:
        raise UserError(
            f'{path} has changed since its first use (sha256 {found[:12]}..., was {known[:12]}...): delete it to '
            f'download it again, or delete {_record(path).name} if you replaced it on purpose'
        )
    return found


def recorded(path: Path) -> str | None:
    """The recorded sha256 of a file; None before its first use."""
    record = _record(path)
    return record.read_text().split()[0] if record.exists() else None


def _record(path: Path) -> Path:
    return path.with_name(f'{path.name}.sha256')


def _download(url: str, path: Path) -> None:
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    with partial.open('ab') as file:
        # If another process is downloading, the file exists once that process releases the lock.
        fcntl.flock(file, fcntl.LOCK_EX)
        if path.exists():
            return
        with _progress(path.name) as advance:
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    _append(url, file, partial, advance)
                    break
                except (IncompleteRead, ConnectionError, TimeoutError):
                    if attempt == ATTEMPTS:
                        raise
        file.flush()
        os.fsync(file.fileno())
        os.replace(partial, path)
    _validator(partial).unlink(missing_ok=True)


def _append(url: str, file, partial: Path, advance: Callable[[int, int | None], None]) -> None:
    """Download the missing end of ``file``, or all of it if the file on the server has changed."""
    start, validator = file.tell(), _validator(partial)
    request = urllib.request.Request(url, headers={'User-Agent': 'mogacore'})
    if start and validator.exists():
        request.add_header('Range', f'bytes={start}-')
        request.add_header('If-Range', validator.read_text())
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # the requested range is past the end of the file
            raise
        if error.headers.get('Content-Range', '').rpartition('/')[2] == str(start):
            return
        file.truncate(0)
        raise ConnectionError('the partial file was longer than the complete one') from None
    with response:
        if response.status != 206:
            start = 0
            file.seek(0)
            file.truncate()
        known = response.headers.get('ETag') or response.headers.get('Last-Modified')
        if known and not known.startswith('W/'):
            write_text(validator, known)
        length = response.headers.get('Content-Length')
        total = start + int(length) if length else None
        advance(start, total)
        while chunk := response.read(CHUNK):
            file.write(chunk)
            advance(file.tell(), total)
    if total is not None and file.tell() < total:
        raise IncompleteRead(b'', total - file.tell())


def _validator(partial: Path) -> Path:
    return partial.with_name(f'{partial.name}.etag')


@contextmanager
def _progress(name: str) -> Iterator[Callable[[int, int | None], None]]:
    """A progress bar if stderr is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn('{task.description}'),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(file=sys.stderr), disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(name, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
