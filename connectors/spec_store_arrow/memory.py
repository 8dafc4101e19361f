"""Arrow data in memory, and whatever can export it again and again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from spec_store.connector import Partition, Source
from spec_store.errors import InputError
from spec_store.stores.blocks import RowBlocks

from .numbered import NumberedSource, project

__all__ = ["StreamSource", "TableSource", "wrap"]


def wrap(data: Any) -> Source:
    """A source over data in memory.

    Parameters
    ----------
    data
        A table or record batch, a mapping from names to arrays (vectors as shape (n, d)), or anything
        with ``__arrow_c_stream__``: pandas, polars, DuckDB relations, Hugging Face datasets. These
        export a stream for each pass; a reader that is used up by one pass is refused.
    """
    kind = type(data).__name__
    if isinstance(data, pa.RecordBatchReader):
        raise InputError(
            f"A {kind} can be read only once, and a comparison reads its rows several times. Give what it"
            " was made from, or reader.read_all() if that fits in memory."
        )
    if isinstance(data, Mapping):
        data = _table(data)
    if isinstance(data, pa.RecordBatch):
        data = pa.Table.from_batches([data])
    if isinstance(data, pa.Table):
        return TableSource(data)
    if hasattr(data, "__arrow_c_stream__"):
        return StreamSource(data)
    raise InputError(
        f"A {kind} can't be compared: expected a table's name, or data with __arrow_c_stream__ such as a"
        " pandas, polars or DuckDB table, or a mapping from names to arrays."
    )


def _table(arrays: Mapping[str, Any]) -> pa.Table:
    columns = {}
    for name, values in arrays.items():
        if isinstance(values, (pa.Array, pa.ChunkedArray)):
            columns[name] = values
            continue
        array = np.asarray(values)
        if array.ndim > 2:
            raise InputError(
                f"Array {name!r} has shape {array.shape}; expected (rows,) or (rows, dimensions)."
            )
        columns[name] = (
            pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), array.shape[1])
            if array.ndim == 2
            else pa.array(array)
        )
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"The arrays have different numbers of rows: {lengths}.")
    return pa.table(columns)


class TableSource(NumberedSource):
    """A table in memory, with random access."""

    def __init__(self, table: pa.Table) -> None:
        super().__init__(f"a table of {len(table):,} rows in memory", table.schema)
        self._blocks = RowBlocks(self.schema, table.cast(self.schema).to_batches())

    @property
    def fingerprint(self) -> str:
        return f"memory|{id(self._blocks)}"

    def count(self, where: str | None = None) -> int:
        """Rows of the table."""
        self._refuse_filter(where)
        return len(self._blocks)

    def take(self, keys: pa.Array, columns: Sequence[str]) -> pa.Table:
        """Rows by number."""
        wanted = keys.cast(pa.int64()).to_numpy(zero_copy_only=False)
        outside = wanted[(wanted < 0) | (wanted >= len(self._blocks))]
        if len(outside):
            raise InputError(
                f"{len(outside):,} of {len(keys):,} rows are not in {self.uri}, the first {outside[0]}."
            )
        roots = list(dict.fromkeys(c if c in self.schema.names else c.split(".")[0] for c in columns))
        if not roots:
            return pa.table({self.key: pa.array(wanted)})
        rows = self._blocks.take(wanted, roots).combine_chunks().to_batches()
        batch = (
            project(rows[0], columns)
            if rows
            else pa.RecordBatch.from_pylist([], self._blocks.schema).select(roots)
        )
        return pa.Table.from_arrays([pa.array(wanted), *batch.columns], names=[self.key, *columns])

    def _columns(
        self, columns: Sequence[str], partition: Partition | None, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        return (project(batch, columns) for batch in self._blocks.batches)


class StreamSource(NumberedSource):
    """Data that exports an Arrow stream whenever it is asked for one; read once per pass."""

    def __init__(self, data: Any) -> None:
        self._data = data
        self._n_rows: int | None = None
        super().__init__(f"a {type(data).__name__} in memory", self._reader().schema)

    @property
    def fingerprint(self) -> str:
        return f"memory|{id(self._data)}"

    def count(self, where: str | None = None) -> int:
        """Rows of the stream; the first call reads it once."""
        self._refuse_filter(where)
        if self._n_rows is None:
            self._n_rows = sum(batch.num_rows for batch in self._reader())
        return self._n_rows

    def _reader(self) -> pa.RecordBatchReader:
        return pa.RecordBatchReader.from_stream(self._data)

    def _columns(
        self, columns: Sequence[str], partition: Partition | None, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        seen = 0
        for batch in self._reader():
            seen += batch.num_rows
            yield project(batch, columns)
        if seen != self.count():
            raise InputError(
                f"{self.uri} gave {self.count():,} rows at first and {seen:,} now: it can be read only once,"
                " or changes. Give a table that stays as it is."
            )
