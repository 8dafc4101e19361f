"""Arrow data in memory, and whatever can give the same rows again and again."""

from __future__ import annotations

import pickle
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from numpy.typing import NDArray

from spec_store.connector import Partition, find_field
from spec_store.errors import InputError, UnsupportedError
from spec_store.stores.blocks import RowBlocks

from .numbered import NumberedSource, project, root_columns, without_views

__all__ = ["DatasetSource", "HuggingFaceSource", "StreamSource", "TableSource"]


class _Held(NumberedSource):
    """Data of this process. Copies of a source, in other processes too, have its fingerprint."""

    def __init__(self, uri: str, schema: pa.Schema) -> None:
        super().__init__(uri, schema)
        self._identity = uuid.uuid4().hex

    @property
    def fingerprint(self) -> str:
        return f"memory|{self._identity}"


class TableSource(_Held):
    """A table in memory, or in a temporary file, with random access; pickled by value.

    Parameters
    ----------
    rows
        Without views, see `spec_store_arrow.numbered.without_views`.
    uri
        How messages name it.
    notes
        What a person should know of how it was made.
    """

    def __init__(self, rows: RowBlocks, uri: str, notes: tuple[str, ...] = ()) -> None:
        super().__init__(uri, rows.schema)
        self._blocks = rows
        self._notes = notes

    @classmethod
    def of(cls, table: pa.Table) -> TableSource:
        """A table as it stands; views are replaced by copies."""
        schema = without_views(table.schema)
        rows = RowBlocks(schema, table.cast(schema).to_batches())
        return cls(rows, f"a table of {len(table):,} rows in memory")

    @property
    def notes(self) -> tuple[str, ...]:
        return self._notes

    def count(self, where: str | None = None) -> int:
        """Rows of the table."""
        self._refuse_filter(where)
        return len(self._blocks)

    def take(self, keys: pa.Array, columns: Sequence[str]) -> pa.Table:
        """Rows by number."""
        wanted = _positions(self, keys, len(self._blocks))
        roots = root_columns(self.schema, columns)
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


class _Foreign(_Held):
    """Data that another library holds, and pickles."""

    def __init__(self, data: Any, uri: str, schema: pa.Schema) -> None:
        super().__init__(uri, schema)
        self._data = data

    def __getstate__(self) -> dict[str, Any]:
        try:
            content = pickle.dumps(self._data)
        except Exception as error:  # whatever its library raises
            raise UnsupportedError(
                f"{self.uri} can't be sent to another process: {error}. Give an Arrow table, or a file."
            ) from error
        return {**self.__dict__, "_data": content}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _data=pickle.loads(state["_data"]))


class StreamSource(_Foreign):
    """Data that exports an Arrow stream whenever it is asked for one; read once per pass."""

    def __init__(self, data: Any) -> None:
        self._n_rows: int | None = None
        super().__init__(data, f"a {type(data).__name__} in memory", _reader(data).schema)

    def count(self, where: str | None = None) -> int:
        """Rows of the stream; the first call reads it once."""
        self._refuse_filter(where)
        if self._n_rows is None:
            self._n_rows = sum(batch.num_rows for batch in _reader(self._data))
        return self._n_rows

    def _columns(
        self, columns: Sequence[str], partition: Partition | None, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        batches = (project(batch, columns) for batch in _reader(self._data))
        return _unchanged(self, batches)


class DatasetSource(_Foreign):
    """A data set of pyarrow's: files or tables that it scans anew for each pass."""

    def __init__(self, data: ds.Dataset) -> None:
        super().__init__(data, f"a pyarrow {type(data).__name__}", data.schema)
        self._n_rows: int = data.count_rows()

    def count(self, where: str | None = None) -> int:
        """Rows that the data set's own filters leave, as they were when the source was made."""
        self._refuse_filter(where)
        return self._n_rows

    def _columns(
        self, columns: Sequence[str], partition: Partition | None, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        names = self._data.schema.names
        batches = self._data.to_batches(
            columns={c: ds.field(c) if c in names else ds.field(*c.split(".")) for c in columns},
            batch_size=batch_rows,
            batch_readahead=1,
            fragment_readahead=1,
        )
        return _unchanged(self, batches)


class HuggingFaceSource(_Foreign):
    """A Hugging Face `Dataset`, in memory or mapped, its selected and shuffled rows as it gives them."""

    def __init__(self, data: Any) -> None:
        super().__init__(data.with_format("arrow"), "a Hugging Face Dataset", data.features.arrow_schema)

    def count(self, where: str | None = None) -> int:
        """Rows of the data set."""
        self._refuse_filter(where)
        return len(self._data)

    def take(self, keys: pa.Array, columns: Sequence[str]) -> pa.Table:
        """Rows by number."""
        wanted = _positions(self, keys, len(self._data))
        if not columns or not len(wanted):
            fields = [pa.field(c, find_field(self, c).type) for c in columns]
            empty = [pa.array([], f.type) for f in fields]
            return pa.table([pa.array(wanted), *empty], names=[self.key, *columns])
        found = self._selected(columns)[wanted.tolist()].combine_chunks().to_batches()[0]
        return pa.Table.from_arrays(
            [pa.array(wanted), *project(found, columns).columns], names=[self.key, *columns]
        )

    def _columns(
        self, columns: Sequence[str], partition: Partition | None, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        if not len(self._data):
            return
        for table in self._selected(columns).iter(batch_size=batch_rows):
            for batch in table.to_batches():
                yield project(batch, columns)

    def _selected(self, columns: Sequence[str]) -> Any:
        roots = root_columns(self.schema, columns)
        return self._data.select_columns(roots or self.schema.names[:1])


def _reader(data: Any) -> pa.RecordBatchReader:
    return pa.RecordBatchReader.from_stream(data)


def _unchanged(source: NumberedSource, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The batches. Raises InputError at their end where they are not as many rows as were counted."""
    seen = 0
    for batch in batches:
        seen += batch.num_rows
        yield batch
    if seen != source.count():
        raise InputError(
            f"{source.uri} gave {source.count():,} rows at first and {seen:,} now: it can be read only once,"
            " or changes. Give a table that stays as it is."
        )


def _positions(source: NumberedSource, keys: pa.Array, n: int) -> NDArray[np.int64]:
    """Row numbers. Raises InputError for those that are not there."""
    wanted: NDArray[np.int64] = keys.cast(pa.int64()).to_numpy(zero_copy_only=False)
    outside = wanted[(wanted < 0) | (wanted >= n)]
    if len(outside):
        raise InputError(
            f"{len(outside):,} of {len(keys):,} rows are not in {source.uri}, the first {outside[0]}."
        )
    return wanted
