"""Tables that several processes may want to create at once, which LanceDB lets overwrite each other."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from spec_store.errors import RetryError, TableNotFoundError

from .database import connect, folder_of, open_table
from .lease import Lease, lease_seconds, take
from .objects import Objects, objects_at

__all__ = ["opened_or_created"]

_PAUSE = 0.1


def opened_or_created(uri: str, table: str, schema: pa.Schema, options: Mapping[str, str] | None) -> Any:
    """A handle on a table, which is created without rows where there is none.

    LanceDB's own creation, two at once, may replace a table that has got rows since. In a folder the new
    table is renamed into its place; in an object store one process at a time creates.
    """
    folder = folder_of(uri)
    db = connect(uri, options)
    try:
        return open_table(db, table)
    except TableNotFoundError:
        pass
    if folder is not None:
        _rename_into(folder, table, schema)
        return open_table(db, table)
    lease = _claimed(objects_at(uri, options), table)
    try:
        return open_table(db, table)  # somebody else has created it meanwhile
    except TableNotFoundError:
        return db.create_table(table, schema=schema)
    finally:
        if lease is not None:
            lease.release(remove=True)


def _rename_into(folder: Path, table: str, schema: pa.Schema) -> None:
    """Create a table beside its place, and move it there unless one has come to be there."""
    place = folder / f"{table}.lance"
    with tempfile.TemporaryDirectory(prefix=".spec-store-", dir=folder) as beside:
        connect(beside, None).create_table(table, schema=schema)
        try:
            (Path(beside) / place.name).rename(place)
        except OSError:
            if not place.is_dir():
                raise


def _claimed(objects: Objects | None, table: str) -> Lease | None:
    """The right to create a table; None in a store that can't keep two processes apart."""
    if objects is None or objects.unconditional:
        return None
    end = time.monotonic() + 2 * lease_seconds()
    while time.monotonic() < end:
        if lease := take(objects, f"create-{table}.claim", create=True):
            return lease
        time.sleep(_PAUSE)
    raise RetryError(f"Table {table!r} is being created by another process. Try again.")
