"""Opening, creating and appending to tables of a LanceDB database."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import lancedb
import pyarrow as pa

from spec_store.connector import Capability, Connector
from spec_store.errors import InputError, TableNotFoundError, UnsupportedError, did_you_mean

from .source import LanceSource

__all__ = ["LanceDBConnector"]


class LanceDBConnector(Connector):
    """Tables of a LanceDB database: a local folder, or an object-store URI.

    Options given to `open` are passed to LanceDB as storage options.
    """

    name: ClassVar[str] = "lancedb"
    capabilities: ClassVar[frozenset[Capability]] = frozenset(Capability)

    def open(
        self,
        uri: str,
        *,
        table: str | None = None,
        version: int | None = None,
        options: Mapping[str, str] | None = None,
    ) -> LanceSource:
        """Open a table and pin its latest version, or the one given."""
        db = _connect(uri, options)
        names = _table_names(db)
        if table is None:
            raise InputError(f"No table is named for database {uri}. {did_you_mean('', names)}")
        if table not in names:
            raise TableNotFoundError(f"No table {table!r} in database {uri}. {did_you_mean(table, names)}")
        handle = db.open_table(table)
        if not hasattr(handle, "to_lance"):
            raise UnsupportedError(f"Table {table!r} is remote and has no local files: {_CLOUD}")
        if version is not None:
            known = {v["version"] for v in handle.list_versions()}
            if version not in known:
                raise InputError(
                    f"Table {table!r} has no version {version}; it holds {min(known)} to {max(known)}."
                )
            handle.checkout(version)
        return LanceSource(uri, table, handle, lambda: self.open(uri, table=table, options=options))

    def create(self, uri: str, table: str, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> None:
        """Create a table from a stream; if the stream fails, nothing is left behind."""
        self._parent_must_exist(uri)
        db = lancedb.connect(uri)
        if table in _table_names(db):
            raise InputError(
                f"Table {table!r} exists in database {uri}. Choose another name, or drop the table first."
            )
        reader = pa.RecordBatchReader.from_batches(schema, batches)
        try:
            db.create_table(table, reader)
        except BaseException:
            if table in _table_names(db):  # a folder that is listed, but that can't be opened
                db.drop_table(table)
            raise

    def append(self, uri: str, table: str, rows: pa.Table) -> None:
        """Append rows in one commit; the table is created if there is none."""
        db = _connect(uri, None)
        handle = db.create_table(table, schema=rows.schema, exist_ok=True)
        if len(rows):
            handle.add(rows)

    @staticmethod
    def _parent_must_exist(uri: str) -> None:
        if "://" in uri:
            return
        parent = Path(uri).absolute().parent
        if not parent.is_dir():
            raise TableNotFoundError(f"No folder {parent} to create database {Path(uri).name!r} in.")
        if not os.access(Path(uri) if Path(uri).exists() else parent, os.W_OK):
            raise InputError(f"Database {uri} can't be written: the folder is read-only.")


_CLOUD = (
    "LanceDB Cloud serves rows, not data files, so columns can't be streamed or written in place. Copy the"
    " table to a local or object-store database first."
)


def _connect(uri: str, options: Mapping[str, str] | None) -> Any:
    if uri.startswith("db://"):
        raise UnsupportedError(f"{uri} is a cloud database: {_CLOUD}")
    if "://" not in uri and not Path(uri).is_dir():  # connecting would create the folder
        raise TableNotFoundError(
            f"No LanceDB database at {uri}: expected a folder of .lance tables. Give --db or $SPEC_STORE_DB."
        )
    return lancedb.connect(uri, storage_options=dict(options) if options else None)


def _table_names(db: Any) -> list[str]:
    names: list[str] = []
    page = db.list_tables()
    while True:
        names += page.tables
        if not page.page_token:
            return names
        page = db.list_tables(page_token=page.page_token)
