"""Live objects of lancedb and lance: tables and data sets as sources, connections as locations."""

from __future__ import annotations

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import lance
from lancedb.db import AsyncConnection, DBConnection
from lancedb.table import AsyncTable, LanceTable, Table

from spec_store.connector import Location
from spec_store.errors import InputError, UnsupportedError

from .database import CLOUD
from .source import LanceSource

__all__ = ["location_of", "recognizes", "wrap"]

_BRANCH = re.compile(r"\.lance/tree/(.+)")


def recognizes(data: Any) -> bool:
    """Whether `wrap` or `location_of` is for objects of this type."""
    return isinstance(data, (lance.LanceDataset, Table, AsyncTable, DBConnection, AsyncConnection))


def wrap(data: Any) -> LanceSource:
    """A source over an open table or data set, pinned at the version at which it is open.

    Raises
    ------
    UnsupportedError
        A table of LanceDB Cloud, or one that is checked out on a branch.
    InputError
        A connection.
    """
    if isinstance(data, (DBConnection, AsyncConnection)):
        raise InputError(
            f"A {type(data).__name__} is a database, not a table: give the table's name, and the connection"
            " as db=."
        )
    if isinstance(data, AsyncTable):
        # Its futures run on any loop, and the caller's may be running: one of our own, in a thread.
        with ThreadPoolExecutor(1) as thread:
            dataset = thread.submit(asyncio.run, _opened(data)).result()
        name = data.name
    elif isinstance(data, LanceTable):
        dataset, name = data.to_lance(), data.id
    elif isinstance(data, lance.LanceDataset):
        dataset, name = data, None
    else:
        raise UnsupportedError(f"A {type(data).__name__} can't be compared: {CLOUD}")
    if branch := _BRANCH.search(dataset.uri):
        raise UnsupportedError(
            f"The {type(data).__name__} is checked out on branch {branch[1]!r}; results are written to the"
            " main branch only: check that out."
        )
    return LanceSource.of(dataset, name if name and "$" in name else None)


async def _opened(table: AsyncTable) -> lance.LanceDataset:
    version, options = await table.version(), await table.latest_storage_options()
    return lance.dataset(await table.uri(), version=version, storage_options=options)


def location_of(connection: Any) -> Location:
    """Where an open connection leads, and its storage options. Raises InputError for anything else."""
    if not isinstance(connection, (DBConnection, AsyncConnection)):
        raise InputError(
            f"A {type(connection).__name__} is not a database: expected a path, a URI or a connection."
        )
    if connection.uri.startswith("namespace"):
        raise UnsupportedError(
            f"A {type(connection).__name__} reaches tables through a catalog: open a table, and give that."
        )
    return Location(connection.uri, "lancedb", dict(getattr(connection, "storage_options", None) or {}))
