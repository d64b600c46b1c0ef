"""Reading files from an LMDB database, whose keys are their names."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from mogacore.errors import UserError

from .index import Index, index_command

LMDB_FILE = 'data.mdb'


def import_lmdb() -> Any:
    """The package lmdb.

    Raises:
        UserError: If it is not installed.
    """
    try:
        return import_module('lmdb')
    except ModuleNotFoundError:
        raise UserError('LMDB needs the package lmdb: pip install lmdb, or use tar shards') from None


def open_lmdb(folder: str) -> Any:
    """Open the database of a folder for reading.

    It is opened without a lock: nothing may write to it meanwhile, and the folder may be read-only.

    Raises:
        UserError: If it is absent, locked or damaged, or the package lmdb is missing.
    """
    lmdb = import_lmdb()
    path = os.path.join(folder, LMDB_FILE)
    if not os.path.isfile(path):
        raise UserError(f'LMDB file {path} is missing: restore it, or pack the data again')
    try:
        # Unfinished transactions that are kept for later use would not survive a fork.
        return lmdb.open(folder, readonly=True, lock=False, readahead=False, create=False, max_spare_txns=0)
    except (lmdb.Error, OSError) as error:
        reason = str(error).removeprefix(f'{folder}: ')
        raise UserError(
            f'LMDB {folder} cannot be opened ({reason}): end what writes to it, check its permissions, or pack the '
            'data again'
        ) from None


def lmdb_state(environment: Any) -> list[int]:
    """Number of entries, number of the last transaction, which every change increases, and size of the file."""
    size = os.path.getsize(os.path.join(environment.path(), LMDB_FILE))
    return [environment.stat()['entries'], environment.info()['last_txnid'], size]


class LmdbReader:
    """Reads files from the LMDB database of a folder, which each process opens by itself.

    Args:
        folder: Folder of the database.
        index: Its index.

    Raises:
        UserError: As in :func:`open_lmdb`, or if the database has changed since the index was written.
    """

    def __init__(self, folder: str, index: Index):
        self.folder, self.index = folder, index
        self._open()

    def _open(self) -> None:
        self.process = os.getpid()
        self.environment = open_lmdb(self.folder)
        state, expected = lmdb_state(self.environment), self.index.state.tolist()
        if state[:2] != expected[:2] or state[2] < expected[2]:
            self.environment.close()
        if state[:2] == expected[:2] and state[2] < expected[2]:  # reading beyond the end would kill the process
            raise UserError(f'LMDB {self.folder} is truncated, {state[2]} of {expected[2]} bytes: copy it again')
        if state[:2] != expected[:2]:
            raise UserError(
                f'LMDB {self.folder} has changed since its index was written: run "{index_command(self.folder)}"'
            )

    def read(self, row: int) -> bytes:
        """Content of the file in a row of the index.

        Raises:
            UserError: If it cannot be read.
        """
        if self.process != os.getpid():
            self.environment.close()  # of the parent process, which keeps it open; it must not be used here
            self._open()
        lmdb, name = import_lmdb(), self.index.raw(row)
        try:
            with self.environment.begin() as transaction:
                content = transaction.get(name)
        except lmdb.Error as error:
            raise UserError(f'LMDB {self.folder} cannot be read ({error}): pack the data again') from None
        if content is None:
            raise UserError(
                f'{os.fsdecode(name)} is not in LMDB {self.folder}, but in its index: run '
                f'"{index_command(self.folder)}"'
            )
        return content
