"""What can stand for a table or a database: types for those who call, checked by those who open."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias, Union

from numpy.typing import ArrayLike

from ..connector import Location, Source

__all__ = ["ArrowStream", "Connection", "Database", "LazyTable", "OpenTable", "TableLike"]


class ArrowStream(Protocol):
    """Data that export an Arrow stream: pyarrow, pandas and polars tables, DuckDB relations and others."""

    def __arrow_c_stream__(self, requested_schema: object | None = None, /) -> object:
        """A capsule of the Arrow C stream interface."""


class OpenTable(Protocol):
    """An open table or data set: LanceDB's, synchronous or not, Lance's and pyarrow's."""

    @property
    def schema(self) -> object:
        """Its Arrow schema, or what gives it."""

    def count_rows(self) -> object:
        """How many rows it has, or what awaits their number."""


class LazyTable(Protocol):
    """A query that gives a table when it is run: polars' `LazyFrame`."""

    def collect(self) -> object:
        """Run it."""

    def collect_schema(self) -> object:
        """Its columns, before it is run."""


class Connection(Protocol):
    """An open database: LanceDB's connections, synchronous or not."""

    def open_table(self, name: str, /) -> object:
        """One of its tables, or what awaits it."""


TableLike: TypeAlias = Union[
    str,
    "os.PathLike[str]",
    ArrowStream,
    OpenTable,
    LazyTable,
    Mapping[str, "ArrayLike | Sequence[object]"],
    Sequence[Mapping[str, object]],
    Source,
]
"""A table's name, an open table, or data in memory.

A name is of a table in the database, or of a Parquet or Arrow file; a path, of files or of a folder of them.
A mapping is from columns to arrays, vectors as shape (n, d); a list holds a dict per row. What has none of
these types is wrapped by its connector: ``get_connector(name).wrap(data)`` is a `Source`.
"""

Database: TypeAlias = Union[str, "os.PathLike[str]", Location, Connection, None]
"""A LanceDB path, URI or connection, or a `Location` of any store; None is $SPEC_STORE_DB, else ./lancedb."""
