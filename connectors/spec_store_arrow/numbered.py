"""What files and data in memory share: rows known by their number."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spec_store.connector import Partition, Source, find_field
from spec_store.errors import UnsupportedError

__all__ = ["NumberedSource", "project"]


class NumberedSource(Source):
    """Rows keyed by their number in the order of the data, from 0."""

    table = None
    version = None

    def __init__(self, uri: str, schema: pa.Schema) -> None:
        self.uri = uri
        self.schema = schema
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
                    yield pa.RecordBatch.from_arrays([numbers, *piece.columns], names=[self.key, *columns])
                    start += piece.num_rows

    def _refuse_filter(self, where: str | None) -> None:
        if where is not None:
            raise UnsupportedError(
                f"{self.describe()} can't be filtered with SQL ({where!r}). Filter before, for instance with"
                " DuckDB or polars, and give the result; or import it into a LanceDB table."
            )


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
