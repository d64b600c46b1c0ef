"""Atomic writing of every image, JSON and text file of mogacore.

A reader sees either the old content or the new one, never a part. The functions per format create missing folders.
An import of this module needs the standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import hashlib
import io
import json
import os
import re
import shutil
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from mogacore.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

PARTIAL_SUFFIX = '.partial'
NOT_A_FILE = 'not an ordinary file'  # of a FIFO, socket or device
MAX_NAME = 255  # bytes of the name of a file, of Linux file systems
# Of matplotlib that need no other program.
FIGURE_FORMATS = ('eps', 'jpeg', 'jpg', 'pdf', 'png', 'ps', 'raw', 'rgba', 'svg', 'svgz', 'tif', 'tiff', 'webp')


def write_atomic(path: str | Path, data: bytes | memoryview, sync: bool = True) -> None:
    """Write a file atomically, see :func:`open_atomic`.

    Args:
        path: File in an existing folder.
        data: The complete content.
        sync: As in :func:`open_atomic`.

    Raises:
        OSError: If the file cannot be written.
    """
    with open_atomic(path, sync) as file:
        file.write(data)


@contextlib.contextmanager
def open_atomic(path: str | Path, sync: bool = True) -> Iterator[IO[bytes]]:
    """Open a file to be written atomically, a part at a time.

    The content goes to a temporary file in the same folder, which is renamed at the end. A failed write, for example on
    a full disk, leaves the old file and no temporary one. Several processes may write the same file; the last one wins.

    Args:
        path: File in an existing folder.
        sync: Wait until the content is on the disk, so that a power failure cannot leave an empty file. False is faster
            for many files that can be recreated.

    Raises:
        OSError: If the file cannot be written.
    """
    path = Path(path)
    partial = path.with_name(_partial_name(path.name))
    try:
        with partial.open('wb') as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    if sync:
        _sync_folder(path.parent)


def copy_atomic(targets: Mapping[Path, Path]) -> None:
    """Copy files that belong together: none gets its name before all are copied.

    Args:
        targets: File to its copy, in an existing folder; the last one gets its name first.

    Raises:
        OSError: If a file cannot be written.
    """
    with contextlib.ExitStack() as stack:
        for source, target in targets.items():
            output = stack.enter_context(open_atomic(target))
            with open(source, 'rb') as content:
                shutil.copyfileobj(content, output)
            output.flush()
            os.fsync(output.fileno())


def copy_contents(folders: Mapping[Path, Path]) -> None:
    """Copy the files of folders that belong together, see :func:`copy_atomic`; names are given in alphabetical order.

    So the weights of a network (``.bin``) are there before the file that refers to them (``.xml``).

    Args:
        folders: Folder without folders in it to the existing one for its files.

    Raises:
        OSError: If a file cannot be written.
    """
    files = ((file, target) for folder, target in folders.items() for file in sorted(folder.iterdir(), reverse=True))
    copy_atomic({file: target / file.name for file, target in files})


def _partial_name(name: str) -> str:
    """Name of a temporary file, which differs between processes, and between names that are too long to be kept."""
    ending = f'.{socket.gethostname()}-{os.getpid()}{PARTIAL_SUFFIX}'
    return f'{short_name(name, ending)}{ending[-MAX_NAME + 32 :]}'


def short_name(name: str, ending: str) -> str:
    """A name to which an ending can be appended: the name itself, or 32 digits of its hash where both are too long."""
    encoded = os.fsencode(name)
    return name if len(encoded) + len(ending) <= MAX_NAME else hashlib.sha256(encoded).hexdigest()[:32]


def _sync_folder(folder: Path) -> None:
    """Flush a new file name to the disk; some network file systems refuse, since they flush it themselves."""
    descriptor = os.open(folder, os.O_RDONLY)
    with contextlib.suppress(OSError):
        os.fsync(descriptor)
    os.close(descriptor)


def read_file(path: str | Path) -> bytes:
    """The content of a file.

    Raises:
        OSError: If it cannot be read or is not an ordinary file: a FIFO, for example, would be waited for.
    """
    with open_file(path) as file:
        return file.read()


@contextlib.contextmanager
def open_file(path: str | Path) -> Iterator[IO[bytes]]:
    """Open a file to be read.

    Raises:
        OSError: As :func:`read_file`.
    """
    # Without O_NONBLOCK, opening a FIFO waits for a process that writes to it.
    with open(path, 'rb', opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, NOT_A_FILE, str(path))
        yield file


def walk(folder: str | Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """As :func:`os.walk`, with links to folders followed, unless such a folder contains the link: it would never end.

    Args:
        folder: Where to start.

    Yields:
        A folder, and the sorted names of the folders and of all else in it. The body may remove folders that are not to
        be searched.

    Raises:
        UserError: If a folder cannot be read.
    """
    yield from _walk(os.fspath(folder), (os.path.realpath(folder),))


def _walk(at: str, chain: tuple[str, ...]) -> Iterator[tuple[str, list[str], list[str]]]:
    """Walk ``at``, whose real path is the last of ``chain``, behind those of the folders above it."""
    places: dict[str, str] = {}
    names: list[str] = []
    try:
        with os.scandir(at) as entries:
            for entry in entries:
                if os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():
                    place = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(chain[-1], entry.name)
                    if not any(_contains(place, known) for known in chain):
                        places[entry.name] = place
                else:
                    names.append(entry.name)
    except OSError as error:
        raise UserError(f'folder {at} cannot be read ({error.strerror}): allow it, or remove it') from error
    folders = sorted(places)
    yield at, folders, sorted(names)
    for name in folders:
        yield from _walk(os.path.join(at, name), (*chain, places[name]))


def expand(pattern: str) -> list[str]:
    """As :func:`glob.glob` with ``recursive``, sorted, and searching as :func:`walk` does."""
    path = Path(pattern)
    start = path.anchor
    return sorted(set(_expand(start, [*path.parts[1:]] if start else [*path.parts])))


def _expand(base: str, parts: list[str]) -> Iterator[str]:
    """Expand the parts of a pattern below a folder, '' for the current one."""
    if not parts:
        yield base
        return
    first, *rest = parts
    if first == '**':
        for at, folders, names in walk(base or '.'):
            folders[:] = [name for name in folders if name[0] != '.']
            here = os.path.relpath(at, base or '.')
            place = os.path.join(base, '' if here == '.' else here)
            yield from _expand(place, rest) if rest else (os.path.join(place, name) for name in names)
    elif re.search(r'[*?[]', first):
        with contextlib.suppress(OSError):
            for name in fnmatch.filter(os.listdir(base or '.'), first):
                if name[0] != '.' or first[0] == '.':
                    yield from _expand(os.path.join(base, name), rest)
    elif os.path.lexists(os.path.join(base, first)):
        yield from _expand(os.path.join(base, first), rest)


def _contains(folder: str, path: str) -> bool:
    """Whether a real path is that of a folder or of something in it."""
    return path == folder or path.startswith(folder.rstrip('/') + '/')


def sha256(path: str | Path) -> str:
    """The sha256 of a file as hexadecimal digits."""
    digest = hashlib.sha256()
    with Path(path).open('rb') as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def make_folder(path: str | Path) -> Path:
    """Create a folder if it does not exist, and return its path.

    Raises:
        UserError: If it cannot be created.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'folder {path} cannot be created ({error.strerror}): choose another one') from None
    return path


def writable_folder(path: str | Path) -> Path:
    """Create a folder if it does not exist, check that files can be written to it, and return its path.

    Raises:
        UserError: If it cannot be created or written.
    """
    path = make_folder(path)
    try:
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UserError(f'folder {path} cannot be written ({error.strerror}): choose another one') from None
    return path


def check_outputs(*paths: str | Path | None, figure: str | Path | None = None) -> None:
    """Check before long work that its files can be written; creates their folders.

    Args:
        *paths: Files; None for none.
        figure: File of :func:`write_figure`.

    Raises:
        UserError: If one cannot be written, or the format of the figure is unknown.
    """
    for path in [*paths, figure and _figure_path(figure)]:
        if path and Path(path).is_dir():
            raise UserError(f'{path} cannot be written, it is a folder: choose another file')
        if path:
            writable_folder(Path(path).parent)


@contextlib.contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """Create a folder with all of its files, or nothing.

    The body writes the files to a temporary folder beside ``path``, which is renamed at the end; if the body raises,
    it is removed.

    Args:
        path: Folder to create; an empty one may exist.

    Raises:
        UserError: If it exists and is not an empty folder, or cannot be created.
    """
    path = Path(path)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise UserError(f'{path} already exists: remove it, or choose another folder')
    parent = writable_folder(path.absolute().parent)
    with tempfile.TemporaryDirectory(suffix=PARTIAL_SUFFIX, prefix=f'{path.name[:32]}.', dir=parent) as partial:
        content = Path(partial) / 'content'  # the outer folder is private, the inner one has the usual permissions
        content.mkdir()
        yield content
        try:
            os.replace(content, path)
        except OSError as error:
            raise UserError(f'folder {path} cannot be created ({error.strerror}): choose another one') from None
    _sync_folder(parent)


def readable(path: str | Path) -> str:
    """A path as text for the screen and for figures; bytes that are not UTF-8 become question marks."""
    return os.fsencode(path).decode('utf-8', 'replace')


def plain(value: Any) -> Any:
    """JSON value for an array, a tensor or a number of numpy or torch; the text of any other object."""
    return value.tolist() if hasattr(value, 'tolist') else str(value)


def write_text(path: str | Path, text: str, sync: bool = True) -> None:
    """Write a text file in UTF-8, file names in their own bytes; ``sync`` as in :func:`write_atomic`."""
    _write(path, text.encode(errors='surrogateescape'), sync)


def write_json(
    path: str | Path,
    content: Any,
    indent: int | None = 2,
    default: Callable[[Any], Any] | None = None,
    sync: bool = True,
) -> None:
    """Write a JSON file.

    Args:
        path: File to write.
        content: Any JSON value.
        indent: Spaces per level; None writes one line without spaces.
        default: Converts other objects to JSON values, see :func:`json.dumps`.
        sync: As in :func:`write_atomic`.
    """
    separators = (',', ':') if indent is None else None
    write_text(path, json.dumps(content, indent=indent, separators=separators, default=default) + '\n', sync)


def write_npz(path: str | Path, arrays: dict[str, np.ndarray]) -> None:
    """Write a compressed numpy archive; the same arrays give the same bytes."""
    import numpy as np  # imported late, as other packages below

    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # numpy's stub checks arrays against allow_pickle
    _write(path, buffer.getvalue())


def write_png(path: str | Path, image: np.ndarray, compression: int | None = None) -> None:
    """Write a gray (H, W) or RGB (H, W, 3) image of uint8 or uint16.

    Args:
        path: File to write.
        image: The image.
        compression: zlib level, 0 to 9; None means OpenCV's default.
    """
    import cv2  # imported late: reading weights needs no OpenCV

    flags = [] if compression is None else [cv2.IMWRITE_PNG_COMPRESSION, compression]
    _write_image(path, image, '.png', flags)


def write_jpeg(path: str | Path, image: np.ndarray, quality: int) -> None:
    """Write a gray (H, W) or RGB (H, W, 3) uint8 image; ``quality`` is 0 to 100."""
    import cv2

    _write_image(path, image, '.jpg', [cv2.IMWRITE_JPEG_QUALITY, quality])


def _write_image(path: str | Path, image: np.ndarray, suffix: str, flags: list[int]) -> None:
    import cv2

    if image.ndim == 3:
        image = image[..., ::-1]  # OpenCV expects BGR
    _write(path, cv2.imencode(suffix, image, flags)[1].tobytes(), sync=False)


def write_gif(path: str | Path, frames: list[np.ndarray], frame_ms: int) -> None:
    """Write RGB frames, (H, W, 3) uint8, as a looping animation, each shown for ``frame_ms`` milliseconds."""
    from PIL import Image

    first, *others = map(Image.fromarray, frames)
    buffer = io.BytesIO()
    first.save(buffer, 'GIF', save_all=True, append_images=others, duration=frame_ms, loop=0)
    _write(path, buffer.getvalue(), sync=False)


def write_figure(path: str | Path, figure: Figure, dpi: int) -> None:
    """Write a matplotlib figure in the format given by the path's suffix; without one, as PNG.

    Raises:
        UserError: If the format is not one of ``FIGURE_FORMATS``, or the file cannot be written.
    """
    path = _figure_path(path)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix[1:], dpi=dpi)
    _write(path, buffer.getvalue(), sync=False)


def _figure_path(path: str | Path) -> Path:
    path = Path(path)
    if not path.suffix:
        return path.with_name(f'{path.name}.png')
    if path.suffix[1:].lower() not in FIGURE_FORMATS:
        raise UserError(f'{path} has an unknown format: give a name that ends in .{", .".join(FIGURE_FORMATS)}')
    return path


def _write(path: str | Path, data: bytes, sync: bool = True) -> None:
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data, sync)
    except OSError as error:
        is_known = isinstance(error, FileExistsError | IsADirectoryError | NotADirectoryError | PermissionError)
        if not is_known and error.errno != errno.ENAMETOOLONG:
            raise
        raise UserError(f'{path} cannot be written ({error.strerror}): choose another file') from None
