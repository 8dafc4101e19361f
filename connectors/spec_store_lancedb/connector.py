"""Opening, creating and appending to tables of a LanceDB database."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import lance
import pyarrow as pa

from spec_store.connector import Capability, Connector, Location, is_own_result
from spec_store.errors import InputError, TableNotFoundError

from .creation import opened_or_created, opened_or_created_locally
from .database import connect, folder_of, local_table, open_dataset, table_names
from .dataset import retried
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
        """Open a table and pin its latest version, or the one given.

        What a run that was killed had begun to publish in the latest version is finished or undone first.
        A table in a child namespace goes by the name that LanceDB shows for it: ``namespace$table``.
        """
        dataset = open_dataset(uri, table, options)
        source = LanceSource.of(dataset, table, Location(uri, self.name, dict(options or {})))
        return source.repaired() if version is None else source.at(version)

    def recognizes(self, data: Any) -> bool:
        """Tables and data sets of lancedb and lance, and connections to databases."""
        from . import handles

        return handles.recognizes(data)

    def wrap(self, data: Any) -> LanceSource:
        """A source over an open table or data set, at the version at which it is open."""
        from . import handles

        return handles.wrap(data)

    def location_of(self, connection: Any) -> Location:
        """Where an open connection leads, with its storage options."""
        from . import handles

        return handles.location_of(connection)

    def check_create(
        self,
        uri: str,
        table: str | None,
        schema: pa.Schema,
        *,
        options: Mapping[str, str] | None = None,
    ) -> None:
        """Refuse a database that can't be written, and a table that holds anything but our results."""
        if not table or not re.fullmatch(r"[\w.-]+", table, re.ASCII):
            raise InputError(
                f"The new table's name is {table!r}; expected letters, digits, underscores, dots and hyphens."
            )
        self._parent_must_exist(uri)
        folder = folder_of(uri)
        if folder is not None and not folder.is_dir():
            return
        db = connect(uri, options)
        if table in table_names(db) and not is_own_result(db.open_table(table).schema):
            raise InputError(
                f"Table {table!r} exists in database {uri}, and holds more than spec-store's results. Choose"
                " another name, or drop the table first."
            )

    def create(
        self,
        uri: str,
        table: str | None,
        schema: pa.Schema,
        batches: Iterator[pa.RecordBatch],
        *,
        options: Mapping[str, str] | None = None,
    ) -> None:
        """Create a table from a stream, or replace one of our own; a stream that fails changes nothing.

        A local table is written beside its place and renamed into it; an earlier one is overwritten by
        one commit, which leaves its old versions readable.
        """
        self.check_create(uri, table, schema, options=options)
        assert table is not None
        with _own_errors(batches) as stream:
            self._write(uri, table, pa.RecordBatchReader.from_batches(schema, stream), options)

    @staticmethod
    def _write(uri: str, table: str, reader: pa.RecordBatchReader, options: Mapping[str, str] | None) -> None:
        db = connect(uri, options)
        if table in table_names(db):
            existing = db.open_table(table).to_lance()
            lance.write_dataset(reader, existing, mode="overwrite")
        elif (folder := folder_of(uri)) is None:
            _create_remotely(db, table, reader)
        else:
            with tempfile.TemporaryDirectory(prefix=".spec-store-", dir=folder) as beside:
                # An empty table first: its file format is one that LanceDB itself can read.
                staged = connect(beside, None).create_table(table, schema=reader.schema).to_lance()
                lance.write_dataset(reader, staged, mode="append")
                _rename_new(Path(beside) / f"{table}.lance", folder / f"{table}.lance")

    def append(
        self,
        uri: str,
        table: str,
        rows: pa.Table,
        *,
        key: str | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        """Append rows, or replace those of the same key, in one commit; creates the table where none is."""
        place = local_table(uri, table)

        def commit() -> None:
            if place is None:
                held = opened_or_created(uri, table, rows.schema, options).to_lance()
            else:  # without LanceDB, whose import takes longer than that
                held = opened_or_created_locally(place, rows.schema)
            _append(held, rows, key)

        retried(commit, f"recording rows in table {table!r}")

    @staticmethod
    def _parent_must_exist(uri: str) -> None:
        folder = folder_of(uri)
        if folder is None:
            return
        parent = folder.absolute().parent
        if not parent.is_dir():
            raise TableNotFoundError(f"No folder {parent} to create database {folder.name!r} in.")
        if not os.access(folder if folder.exists() else parent, os.W_OK):
            raise InputError(f"Database {uri} can't be written: the folder is read-only.")


@contextlib.contextmanager
def _own_errors(batches: Iterator[pa.RecordBatch]) -> Iterator[Iterator[pa.RecordBatch]]:
    """Raise what the stream itself raised, instead of what Lance makes of it."""
    raised: list[BaseException] = []

    def stream() -> Iterator[pa.RecordBatch]:
        try:
            yield from batches
        except BaseException as error:
            raised.append(error)
            raise

    try:
        yield stream()
    except Exception:
        if raised:
            raise raised[0] from None
        raise


def _rename_new(staged: Path, place: Path) -> None:
    """Move a folder to where nothing is yet."""
    try:
        staged.rename(place)
    except OSError as error:
        raise InputError(
            f"Table {place.stem!r} came to exist in {place.parent} meanwhile: nothing was written. Choose"
            " another name."
        ) from error


def _append(held: lance.LanceDataset, rows: pa.Table, key: str | None) -> None:
    if missing := [f for f in rows.schema if f.name not in held.schema.names]:
        held.add_columns(pa.schema(missing))
    rows = rows.select([name for name in held.schema.names if name in rows.column_names])
    if key is not None:
        held.merge_insert(key).when_matched_update_all().when_not_matched_insert_all().execute(rows)
    elif len(rows):
        lance.write_dataset(rows, held, mode="append")


def _create_remotely(db: Any, table: str, reader: pa.RecordBatchReader) -> None:
    try:
        db.create_table(table, reader)
    except BaseException:
        if table in table_names(db):  # a folder that is listed, but that can't be opened
            db.drop_table(table)
        raise
