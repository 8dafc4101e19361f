"""Where things are: the default database, tables by name, and columns of other stores."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ..connector import Capability, Source
from ..errors import ColumnNotFoundError, InputError, UnsupportedError, did_you_mean
from ..plugins import get_connector
from .join import Joined, OnMissing
from .vectors import is_vector
from .view import View

__all__ = [
    "DATA_CONNECTOR",
    "DEFAULT_CONNECTOR",
    "ColumnRef",
    "Destination",
    "default_db",
    "open_columns",
    "open_data",
    "open_table",
]

DEFAULT_CONNECTOR = "lancedb"
DATA_CONNECTOR = "arrow"

_REF = re.compile(
    r"(?P<name>[^=]+)=(?P<connector>[a-z][a-z0-9_-]*):(?P<uri>[^#]+)(#(?P<where>.+))?", re.DOTALL
)


def default_db() -> str:
    """``$SPEC_STORE_DB``, else ``./lancedb``."""
    return os.environ.get("SPEC_STORE_DB", "./lancedb")


def open_table(
    table: str, *, db: str | None = None, connector: str = DEFAULT_CONNECTOR, version: int | None = None
) -> Source:
    """Open and pin a table. Raises TableNotFoundError, ConnectorError."""
    uri = default_db() if db is None else db
    return get_connector(connector).open(uri, table=table, version=version)


def open_data(data: Any) -> Source:
    """A source over data in memory: anything that exports an Arrow stream, or a mapping of arrays."""
    return get_connector(DATA_CONNECTOR).wrap(data)


@dataclass(frozen=True)
class Destination:
    """A new table or file for results, keyed by row."""

    connector: str
    uri: str
    table: str | None

    @classmethod
    def of(
        cls, results: str | None, out: str | os.PathLike[str] | None, db: str | None
    ) -> Destination | None:
        """The table `results` of `db`, or the file `out`; None where neither is given."""
        if results is not None and out is not None:
            raise InputError(f"Results go to one place: table {results!r} or file {out}, not both.")
        if out is not None:
            return cls(DATA_CONNECTOR, os.fspath(out), None)
        return (
            None if results is None else cls(DEFAULT_CONNECTOR, default_db() if db is None else db, results)
        )

    def check(self, schema: pa.Schema) -> None:
        """Refuse, before any work, what `create` would refuse."""
        get_connector(self.connector).check_create(self.uri, self.table, schema)

    def create(self, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> None:
        """Write all of it, or nothing."""
        get_connector(self.connector).create(self.uri, self.table, schema, batches)

    def open(self) -> Source:
        """What was written."""
        return get_connector(self.connector).open(self.uri, table=self.table)

    def describe(self) -> str:
        """How messages name it."""
        return f"table {self.table!r} in {self.uri}" if self.table else self.uri


@dataclass(frozen=True)
class ColumnRef:
    """A column named on the command line: ``clip``, or ``dino=faiss:dino.index`` in another store.

    Attributes
    ----------
    name
        What the column is called in the comparison.
    connector, uri, table
        The other store; None for a column of the table at hand.
    column
        Its name there; None where the store tells by itself, see `open_columns`.
    """

    name: str
    connector: str | None = None
    uri: str | None = None
    table: str | None = None
    column: str | None = None

    @classmethod
    def parse(cls, text: str) -> ColumnRef:
        """Read ``name`` or ``name=connector:uri``, with ``#column`` or ``#table/column`` at the end.

        Raises InputError for any other form, ConnectorError for an unknown connector.
        """
        if "=" not in text and text.strip():
            return cls(text)
        match = _REF.fullmatch(text.strip())
        if match is None:
            raise InputError(
                f"Column {text!r} can't be read: expected a column's name, or name=connector:uri such as"
                " dino=faiss:dino.index, dino=arrow:dino.parquet#vector, or dino=lancedb:./db#images/dino."
            )
        name, connector, uri, where = match.group("name", "connector", "uri", "where")
        if Capability.TABLES not in get_connector(connector).capabilities:
            return cls(name.strip(), connector, uri, None, where)
        table, _, column = (where or "").partition("/")
        if not table:
            raise InputError(
                f"Column {text!r} names no table: expected {name}={connector}:{uri}#table/column."
            )
        return cls(name.strip(), connector, uri, table, column or None)

    @property
    def store(self) -> tuple[str | None, str | None, str | None]:
        """Equal for columns of one store."""
        return self.connector, self.uri, self.table


def open_columns(
    columns: Sequence[str],
    *,
    table: str | None,
    db: str | None = None,
    connector: str = DEFAULT_CONNECTOR,
    version: int | None = None,
    key: str | None = None,
    on_missing: OnMissing = "error",
) -> tuple[Source, tuple[str, ...], bool]:
    """Open the stores of two columns, joined by `key` where they are different ones.

    Columns without a store of their own are the table's, which then leads; else the first column's store
    does. A column of another store that is not named there is the one of the same name, else its only
    vector column.

    Returns
    -------
    source, names of the columns in it, and whether the table takes part.
    """
    refs = [ColumnRef.parse(c) for c in columns]
    own = (None, None, None)
    stores = sorted(dict.fromkeys(ref.store for ref in refs), key=lambda store: store != own)  # stable
    views = [
        _view([r for r in refs if r.store == store], table, db, connector, version, key) for store in stores
    ]
    names = tuple(ref.name for ref in refs)
    takes_part = own in stores
    if len(views) == 1:
        only = views[0]
        source = only if key or any(alias != c for alias, c in only.names.items()) else only.source
        return source, names, takes_part
    left, right = _under_one_key(views, key)
    return Joined(left, right, on_missing=on_missing), names, takes_part


def _view(
    refs: Sequence[ColumnRef],
    table: str | None,
    db: str | None,
    connector: str,
    version: int | None,
    key: str | None,
) -> View:
    first = refs[0]
    if first.connector is None:
        if table is None:
            raise InputError(f"No table is named for column {first.name!r}.")
        source = open_table(table, db=db, connector=connector, version=version)
        return View(source, key=key, names={r.name: r.name for r in refs})
    assert first.uri is not None
    source = get_connector(first.connector).open(first.uri, table=first.table)
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


def _under_one_key(views: Sequence[View], key: str | None) -> tuple[View, View]:
    """The leading view and the other one, their rows named alike."""
    left, right = views
    if key is not None:
        return left, right
    for view in views:
        if not view.source.portable_key:
            raise UnsupportedError(
                f"Rows of {left.describe()} and {right.describe()} are matched by an id: name the column that"
                f" holds it with --key (key=); {view.describe()} has"
                f" {', '.join(f.name for f in view.schema if not is_vector(f.type)) or 'none'}."
            )
    return left, View(right.source, key=left.key, names=right.names)
