"""Vectors in a SQLite table, as blobs of float32, compared and annotated in place."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa

from spec_store.connector import Capability, Connector, Location, Published, Source, find_field
from spec_store.errors import ColumnClashError, FilterError, TableNotFoundError
from spec_store.stores.filters import parenthesized

# SQLite keeps no metadata: the declared type of our columns marks them, and tells their Arrow type.
PLAIN = [pa.bool_(), pa.int32(), pa.int64(), pa.float32(), pa.float64(), pa.string(), pa.large_binary()]
LISTS = [pa.list_(kind) for kind in (pa.int32(), pa.float32(), pa.float64(), pa.string())]
OURS = {f"SPEC BLOB {kind}": kind for kind in (*PLAIN, *LISTS, pa.timestamp("us", "UTC"))}
TYPES = {"INTEGER": pa.int64(), "REAL": pa.float64(), "TEXT": pa.string(), **OURS}


class SQLiteSource(Source):
    """A table with an integer primary key. It has no versions: its rows may change under the reader."""

    version, key = None, "rowid"

    def __init__(self, uri, table):
        self.uri, self.table = uri, table
        self.location = Location(uri, "sqlite")
        with closing(self._connect()) as db:
            self._kinds = {name: kind for _, name, kind, *_ in db.execute(f'PRAGMA table_info("{table}")')}
            types = {name: TYPES.get(kind, pa.string()) for name, kind in self._kinds.items()}
            for name in (n for n, kind in self._kinds.items() if kind == "BLOB"):
                query = f'SELECT length("{name}") / 4 FROM "{table}" WHERE "{name}" IS NOT NULL LIMIT 1'
                types[name] = pa.list_(pa.float32(), *(db.execute(query).fetchone() or [1]))
        if not types:
            raise TableNotFoundError(f"No table {table!r} in {uri}.")
        self.schema = pa.schema(types)

    def _connect(self):
        return sqlite3.connect(f"{Path(self.uri).absolute().as_uri()}?mode=rw", uri=True)

    def count(self, where=None):
        query = f'SELECT count(*) FROM "{self.table}" WHERE {parenthesized(where or "1")}'
        try:
            with closing(self._connect()) as db:
                return db.execute(query).fetchone()[0]
        except sqlite3.Error as error:
            raise FilterError(f"The filter {where!r} can't be used: {error}") from error

    def batches(self, columns, *, where=None, partition=None, batch_rows=8192):
        for column in columns:
            find_field(self, column)
        self.count(where)  # a bad filter is refused now, not at the first batch
        return self._stream(columns, where, batch_rows)

    def _stream(self, columns, where, batch_rows):
        names = ", ".join(["rowid", *(f'"{c}"' for c in columns)])
        kinds = [pa.int64(), *(self.schema.field(c).type for c in columns)]
        query = f'SELECT {names} FROM "{self.table}" WHERE {parenthesized(where or "1")} ORDER BY rowid'
        with closing(self._connect()) as db:
            cursor = db.execute(query)
            while rows := cursor.fetchmany(batch_rows):
                columns_of_rows = zip(kinds, zip(*rows, strict=True), strict=True)
                arrays = [_array(cells, kind) for kind, cells in columns_of_rows]
                yield pa.RecordBatch.from_arrays(arrays, names=[self.key, *columns])

    def latest(self):
        return SQLiteSource(self.uri, self.table)

    def check_annotation(self, schema):
        if foreign := [n for n in schema.names if n in self._kinds and self._kinds[n] not in OURS]:
            raise ColumnClashError(f"{self.describe()} has {foreign}, which spec-store did not write.")

    def annotate(self, annotation):
        self.check_annotation(annotation.schema)
        names = annotation.schema.names
        with closing(self._connect()) as db, db:
            db.execute(f"CREATE TEMP TABLE staged (row INTEGER PRIMARY KEY, {', '.join(names)})")
            for batch in self._stream(annotation.reads, annotation.where, annotation.batch_rows):
                results = [_cells(column) for column in annotation.compute(batch).columns]
                rows = zip(batch[0].to_pylist(), *results, strict=True)
                db.executemany(f"INSERT INTO staged VALUES (?{', ?' * len(names)})", rows)
                annotation.progress(len(batch))
            db.commit()  # only the temporary table was written so far: nobody was locked out
            db.execute("BEGIN IMMEDIATE")  # from here on one transaction: all of it, or nothing
            self._drop(db, [n for n in names if n in self._kinds])
            for f in annotation.schema:
                db.execute(f'ALTER TABLE "{self.table}" ADD COLUMN {_declared(f)}')
            pairs = ", ".join(f'"{n}" = staged."{n}"' for n in names)
            db.execute(f'UPDATE "{self.table}" SET {pairs} FROM staged WHERE row = "{self.table}".rowid')
        return Published(None, tuple(names), self.count(annotation.where), attempts=1)

    def undo(self, columns):
        self.check_annotation(pa.schema([(name, pa.null()) for name in columns]))
        with closing(self._connect()) as db, db:
            self._drop(db, columns)

    def _drop(self, db, columns):
        for name in columns:
            db.execute(f'ALTER TABLE "{self.table}" DROP COLUMN "{name}"')


def _declared(field):
    return f'"{field.name}" "SPEC BLOB {field.type}"'


def _array(cells, kind):
    if pa.types.is_timestamp(kind):
        return pa.array(cells, pa.string()).cast(kind)
    read = np.frombuffer if pa.types.is_fixed_size_list(kind) else lambda text, _: json.loads(text)
    convert = bool if pa.types.is_boolean(kind) else lambda cell: cell
    nested = pa.types.is_nested(kind)
    return pa.array([c if c is None else read(c, np.float32) if nested else convert(c) for c in cells], kind)


def _cells(column):
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.string())
    return [json.dumps(v) if isinstance(v, list) else v for v in column.to_pylist()]


class SQLiteConnector(Connector):
    name = "sqlite"
    capabilities = frozenset({Capability.TABLES, Capability.WHERE, Capability.ANNOTATE, Capability.APPEND})

    def open(self, uri, *, table=None, version=None, options=None):
        if not Path(uri).is_file():
            raise TableNotFoundError(f"No SQLite database {uri}.")
        return SQLiteSource(uri, table)

    def append(self, uri, table, rows, *, key=None, options=None):
        names = ", ".join(f'"{name}"' for name in rows.column_names)
        with closing(sqlite3.connect(uri)) as db, db:
            db.execute(f'CREATE TABLE IF NOT EXISTS "{table}" ({", ".join(map(_declared, rows.schema))})')
            held = [name for _, name, *_ in db.execute(f'PRAGMA table_info("{table}")')]
            for f in (f for f in rows.schema if f.name not in held):
                db.execute(f'ALTER TABLE "{table}" ADD COLUMN {_declared(f)}')
            if key is not None:
                replaced = [(k,) for k in rows[key].to_pylist()]
                db.executemany(f'DELETE FROM "{table}" WHERE "{key}" = ?', replaced)
            cells = zip(*(_cells(column) for column in rows.columns), strict=True)
            marks = ", ".join("?" * rows.num_columns)
            db.executemany(f'INSERT INTO "{table}" ({names}) VALUES ({marks})', cells)
