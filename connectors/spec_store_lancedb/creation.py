"""Tables that several processes may want to create at once, which LanceDB lets overwrite each other."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa

from spec_store.errors import RetryError, TableNotFoundError

from .database import connect, folder_of, open_table
from .lease import lease_seconds, take
from .objects import Objects, objects_at

__all__ = ["CREATING", "opened_or_created", "opened_or_created_locally"]

CREATING = "create-"
"""With this begins the name of the object of one who creates a table in an object store."""

_PAUSE = 0.1
# Of tables that are made without LanceDB: one that all versions of it read and write.
_FILE_VERSION = "2.1"


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


def opened_or_created_locally(place: Path, schema: pa.Schema) -> lance.LanceDataset:
    """The same of a table in a folder that exists, without LanceDB."""
    if not _has_version(place):
        with _locked(place.parent):
            if not _has_version(place):
                lance.write_dataset(schema.empty_table(), place, data_storage_version=_FILE_VERSION)
    return lance.dataset(str(place))


def _has_version(place: Path) -> bool:
    """Whether a table is there; what a killed process left of one is none."""
    versions = place / "_versions"
    return versions.is_dir() and any(path.suffix == ".manifest" for path in versions.iterdir())
