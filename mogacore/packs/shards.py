"""Reading single files from uncompressed tar archives by their position."""

from __future__ import annotations

import os
import zlib
from collections import OrderedDict
from typing import NoReturn

from mogacore.errors import UserError

from .index import Index, index_command

SHARD_SUFFIX = '.tar'
BLOCK = 512  # bytes of a header in a tar file
MAX_OPEN = 256  # shards per process; the usual limit of a process is 1,024 files


class ShardReader:
    """Reads files from the shards of a folder.

    Shards are opened when they are needed, in each process by itself.

    Args:
        folder: Folder of the shards.
        index: Its index.

    Raises:
        UserError: If a shard is missing, or its size differs from that in the index.
    """

    def __init__(self, folder: str, index: Index):
        self.folder, self.index = folder, index
        self.open: OrderedDict[int, int] = OrderedDict()  # descriptors by shard, the last used at the end
        self.process = os.getpid()
        for name, expected in zip(index.shards, index.shard_sizes.tolist(), strict=True):
            path = os.path.join(folder, name)
            try:
                size = os.stat(path).st_size
            except OSError as error:
                raise UserError(
                    f'shard {path} cannot be read ({error.strerror}): restore it, or pack the data again'
                ) from None
            if size < expected:
                raise UserError(f'shard {path} is truncated, {size} of {expected} bytes: copy it again')
            if size > expected:
                self._refuse_change(path)

    def read(self, row: int) -> bytes:
        """Content of the file in a row of the index.

        Raises:
            UserError: If the shard cannot be read, or has changed since the index was written.
        """
        shard, offset, size = (int(values[row]) for values in (self.index.shard, self.index.offsets, self.index.sizes))
        path = os.path.join(self.folder, self.index.shards[shard])
        try:
            content = self._read(shard, path, offset - BLOCK, BLOCK + size)
        except OSError as error:
            raise UserError(f'shard {path} cannot be read ({error.strerror}): check the disk, or restore it') from None
        if zlib.crc32(content[:BLOCK]) != self.index.headers[row]:
            self._refuse_change(path)
        if len(content) < BLOCK + size:
            raise UserError(f'shard {path} is truncated, it ends before byte {offset + size}: copy it again')
        return content[BLOCK:]

    def _read(self, shard: int, path: str, offset: int, size: int) -> bytes:
        if self.process != os.getpid():  # after a fork, which shares the descriptors of the parent
            self.process, self.open = os.getpid(), OrderedDict()
        if shard in self.open:
            self.open.move_to_end(shard)
        else:
            if len(self.open) >= MAX_OPEN:
                os.close(self.open.popitem(last=False)[1])
            self.open[shard] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        parts = []
        while size:
            part = os.pread(self.open[shard], size, offset)
            if not part:
                break
            parts.append(part)
            offset, size = offset + len(part), size - len(part)
        return parts[0] if len(parts) == 1 else b''.join(parts)

    def _refuse_change(self, path: str) -> NoReturn:
        raise UserError(
            f'shard {path} has changed since its index was written: run "{index_command(self.folder)}", or restore it'
        )
