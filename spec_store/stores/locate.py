"""Where things are: the default database, tables by name, and columns of other stores."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from ..connector import Connector, Location, Source
from ..errors import ColumnNotFoundError, InputError, UnsupportedError, did_you_mean
from ..plugins import connector_for, get_connector
from .join import Joined, OnMissing
from .references import ColumnRef
from .tables import Database, TableLike
from .vectors import is_vector
from .view import View

__all__ = [
    "DATA_CONNECTOR",
    "DEFAULT_CONNECTOR",
    "Columns",
    "Database",
    "Destination",
    "location_of",
    "open_columns",
    "open_data",
    "open_table",
]

DEFAULT_CONNECTOR = "lancedb"
DATA_CONNECTOR = "arrow"
# A table's name that ends so is a path of the data connector's.
_FILES = (".parquet", ".pq", ".arrow", ".arrows", ".feather", ".ipc")


def location_of(db: Database) -> Location:
    """Where a database is. Raises InputError for an empty path, and for what is no path."""
    if isinstance(db, Location):
        found = db
    elif db is None:
        found = Location(os.environ.get("SPEC_STORE_DB", "./lancedb"), DEFAULT_CONNECTOR)
    elif isinstance(db, (str, os.PathLike)):
        found = Location(os.fspath(db), DEFAULT_CONNECTOR)
    elif (connector := connector_for(db)) is not None:
        found = connector.location_of(db)
    else:
        raise InputError(
            f"The database is a {type(db).__name__}; expected a path, a URI, a spec_store.Location or an open"
            " connection, such as lancedb's."
        )
    if not found.uri.strip():
        raise InputError("The database's path is empty: give a folder or a URI (--db, $SPEC_STORE_DB).")
    return found


def open_location(location: Location, table: str | None, *, version: int | None = None) -> Source:
    """Open and pin what is at a location. Raises TableNotFoundError, ConnectorError."""
    connector = get_connector(location.connector)
    options = dict(location.storage_options) or None
    return connector.open(location.uri, table=table, version=version, options=options)


def open_table(table: str, db: Database = None, *, version: int | None = None) -> Source:
    """Open and pin a table of a database, or a file. Raises TableNotFoundError, ConnectorError."""
    if table.lower().endswith(_FILES):
        return open_location(Location(table, DATA_CONNECTOR), None, version=version)
    return open_location(location_of(db), table, version=version)


def open_data(data: TableLike) -> Source:
    """A source over Arrow data, a mapping of arrays, or an open table of a store; a source as it is."""
    if isinstance(data, Source):
        return data
    return (connector_for(data) or get_connector(DATA_CONNECTOR)).wrap(data)


@dataclass(frozen=True)
class Destination:
    """A new table or file for results, keyed by row."""

    location: Location
    table: str | None

    @classmethod
    def of(cls, results: str | None, out: str | os.PathLike[str] | None, db: Database) -> Destination | None:
        """The table `results` of `db`, or the file `out`; None where neither is given."""
        if results is not None and out is not None:
            raise InputError(f"Results go to one place: table {results!r} or file {out}, not both.")
        if out is not None:
            return cls(Location(os.fspath(out), DATA_CONNECTOR), None)
        return None if results is None else cls(location_of(db), results)

    @property
    def _connector(self) -> Connector:
        return get_connector(self.location.connector)

    @property
    def _options(self) -> dict[str, str] | None:
        return dict(self.location.storage_options) or None

    def check(self, schema: pa.Schema) -> None:
        """Refuse, before any work, what `create` would refuse."""
        self._connector.check_create(self.location.uri, self.table, schema, options=self._options)

    def create(self, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> None:
        """Write it atomically."""
        self._connector.create(self.location.uri, self.table, schema, batches, options=self._options)

    def open(self) -> Source:
        """What was written."""
        return open_location(self.location, self.table)

    def describe(self) -> str:
        """How messages name it."""
        return f"table {self.table!r} in {self.location}" if self.table else str(self.location)


@dataclass(frozen=True)
class Columns:
    """Columns of one store or of several, opened.

    Attributes
    ----------
    source
        The store, or the join of them.
    names
        The columns' names in it.
    of_table
        Whether the table that was named takes part.
    """

    source: Source
    names: tuple[str, ...]
    of_table: bool


def open_columns(
    columns: Sequence[str],
    *,
    table: str | None,
    db: Database = None,
    version: int | None = None,
    key: str | None = None,
    on_missing: OnMissing = "error",
) -> Columns:
    """Open the stores of columns, joined by `key` where they are different ones.

    Columns without a store of their own are the table's, which then leads; else the first column's store
    does. A column of another store that is not named there is the one of the same name, else its only
    vector column.
    """
    refs = [ColumnRef.parse(c) for c in columns]
    own = (None, None)
    stores = sorted(dict.fromkeys(ref.store for ref in refs), key=lambda store: store != own)  # stable
    views = [_view([r for r in refs if r.store == store], table, db, version, key) for store in stores]
    names = tuple(ref.name for ref in refs)
    of_table = own in stores
    if len(views) == 1:
        only = views[0]
        source = only if key or any(alias != c for alias, c in only.names.items()) else only.source
        return Columns(source, names, of_table)
    left, *others = _under_one_key(views, key)
    for other in others:
        joined = Joined(left, other, on_missing=on_missing)
        left = View(joined, key=joined.key)
    return Columns(joined, names, of_table)


def _view(
    refs: Sequence[ColumnRef], table: str | None, db: Database, version: int | None, key: str | None
) -> View:
    first = refs[0]
    if first.location is None:
        if table is None:
            raise InputError(f"No table is named for column {first.name!r}.")
        source = open_table(table, db, version=version)
        return View(source, key=key, names={r.name: r.name for r in refs})
    source = open_location(first.location, first.table)
    return View(source, key=key, names={r.name: r.column or _only_vector(source, r.name) for r in refs})


def _only_vector(source: Source, name: str) -> str:
    """The column `name`, else the source's only vector column."""
    vectors: list[str] = [f.name for f in source.schema if is_vector(f.type)]
    if name in source.schema.names:
        return name
    if len(vectors) != 1:
        raise ColumnNotFoundError(
            f"No column {name!r} in {source.describe()}. {did_you_mean(name, vectors)} Name it after #."
        )
    return vectors[0]


def _under_one_key(views: Sequence[View], key: str | None) -> list[View]:
    """The leading view and the other ones, their rows named alike."""
    left, *others = views
    if key is not None:
        return [left, *others]
    for view in views:
        if not view.source.portable_key:
            raise UnsupportedError(
                f"Rows of {left.describe()} and {others[0].describe()} are matched by an id: name the column"
                f" that holds it with --key (key=); {view.describe()} has"
                f" {', '.join(f.name for f in view.schema if not is_vector(f.type)) or 'none'}."
            )
    return [left, *(View(other.source, key=left.key, names=other.names) for other in others)]
