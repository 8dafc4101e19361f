"""Tables that several processes may want to create at once, which LanceDB lets overwrite each other."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from spec_store.errors import RetryError, TableNotFoundError

from .database import connect, folder_of, open_table
from .lease import lease_seconds, take
from .objects import Objects, objects_at

__all__ = ["CREATING", "opened_or_created"]

CREATING = "create-"
"""With this begins the name of the object of one who creates a table in an object store."""

_PAUSE = 0.1


def opened_or_created(uri: str, table: str, schema: pa.Schema, options: Mapping[str, str] | None) -> Any:
    """A handle on a table, which is created without rows where there is none.

    LanceDB's own creation, two at once, may replace a table that has got rows since: one process at a time
    creates.
    """
    db = connect(uri, options)
    try:
        return open_table(db, table)
    except TableNotFoundError:
        pass
    folder = folder_of(uri)
    with _locked(folder) if folder is not None else _claimed(objects_at(uri, options), table):
        try:
            return open_table(db, table)  # somebody else has created it meanwhile
        except TableNotFoundError:
            return db.create_table(table, schema=schema)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """A block in which no other process is in such a block of the same folder."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


@contextmanager
def _claimed(objects: Objects | None, table: str) -> Iterator[None]:
    """The same of a database in an object store; not of one that can't keep two processes apart."""
    if objects is None or objects.unconditional:
        yield
        return
    end = time.monotonic() + 2 * lease_seconds()
    while (lease := take(objects, f"{CREATING}{table}", create=True)) is None:
        if time.monotonic() > end:
            raise RetryError(f"Table {table!r} is being created by another process. Try again.")
        time.sleep(_PAUSE)
    try:
        yield
    finally:
        lease.release(remove=True)
