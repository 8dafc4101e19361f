"""What files and data in memory share: rows known by their number."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spec_store.connector import Partition, Source, find_field
from spec_store.errors import UnsupportedError

__all__ = ["NumberedSource", "plain_batch", "project", "root_columns", "without_views"]


class NumberedSource(Source):
    """Rows keyed by their number in the order of the data, from 0."""

    table = None
    version = None

    def __init__(self, uri: str, schema: pa.Schema) -> None:
        self.uri = uri
        self.schema = without_views(schema)
        self.key = "row" if "row" not in schema.names else "_row"

    @abstractmethod
    def _columns(
        self, columns: Sequence[str], partition: Partition | None, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        """The columns, without the key."""

    def batches(
        self,
        columns: Sequence[str],
        *,
        where: str | None = None,
        partition: Partition | None = None,
        batch_rows: int = 8192,
    ) -> Iterator[pa.RecordBatch]:
        """Row numbers and columns, in the order of the data."""
        self._refuse_filter(where)
        for column in columns:
            find_field(self, column)
        return self._numbered(columns, partition, batch_rows)

    def _numbered(
        self, columns: Sequence[str], partition: Partition | None, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        start = 0
        for part in self.partitions():
            if partition is not None and part.id != partition.id:
                start += part.n_rows
                continue
            for batch in self._columns(columns, part, batch_rows):
                for first in range(0, batch.num_rows, batch_rows):
                    piece = batch.slice(first, batch_rows)
                    numbers = pa.array(np.arange(start, start + piece.num_rows), pa.int64())
                    arrays = plain_batch(piece).columns
                    yield pa.RecordBatch.from_arrays([numbers, *arrays], names=[self.key, *columns])
                    start += piece.num_rows

    def _refuse_filter(self, where: str | None) -> None:
        if where is not None:
            raise UnsupportedError(
                f"{self.describe()} can't be filtered with SQL ({where!r}). Filter before, for instance with"
                " DuckDB or polars, and give the result; or import it into a LanceDB table."
            )


def root_columns(schema: pa.Schema, columns: Sequence[str]) -> list[str]:
    """The top-level columns that hold these, each once."""
    return list(dict.fromkeys(c if c in schema.names else c.split(".")[0] for c in columns))


def project(batch: pa.RecordBatch, columns: Sequence[str]) -> pa.RecordBatch:
    """Some columns of a batch, nested ones by dotted path."""
    names = batch.schema.names
    arrays = [
        batch.column(c) if c in names else pc.struct_field(batch.column(c.split(".")[0]), c.split(".")[1:])
        for c in columns
    ]
    if not arrays:  # a batch of no columns that still has rows
        return batch.select([])
    return pa.RecordBatch.from_arrays(arrays, names=list(columns))


def without_views(schema: pa.Schema) -> pa.Schema:
    """The schema with views replaced: polars writes text so, and Arrow can neither filter nor take it."""
    return pa.schema([f.with_type(_plain(f.type)) for f in schema], schema.metadata)


def plain_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch under the schema `without_views`; itself where it has none."""
    schema = without_views(batch.schema)
    if schema == batch.schema:
        return batch
    arrays = [array.cast(kind) for array, kind in zip(batch.columns, schema.types, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_string_view(kind):
        return pa.large_string()
    if pa.types.is_binary_view(kind):
        return pa.large_binary()
    if pa.types.is_dictionary(kind):
        return pa.dictionary(kind.index_type, _plain(kind.value_type), kind.ordered)
    if pa.types.is_struct(kind):
        return pa.struct([f.with_type(_plain(f.type)) for f in kind])
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_inner(kind), kind.list_size)
    if pa.types.is_large_list(kind):
        return pa.large_list(_inner(kind))
    return pa.list_(_inner(kind)) if pa.types.is_list(kind) else kind


def _inner(kind: pa.DataType) -> pa.Field:
    return kind.value_field.with_type(_plain(kind.value_type))
