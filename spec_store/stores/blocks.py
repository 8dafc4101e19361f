"""Random access by position to rows held in record batches: in memory, or mapped from an Arrow IPC file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

__all__ = ["RowBlocks", "map_file", "spool"]


class RowBlocks:
    """Rows in the order of their batches.

    Parameters
    ----------
    schema
        Of every batch.
    batches
        Zero-copy views stay views: a memory-mapped file's rows are read when they are taken.
    """

    def __init__(self, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
        self.schema = schema
        self.batches: Sequence[pa.RecordBatch] = [b for b in batches if len(b)]
        self._ends = np.cumsum([len(b) for b in self.batches], dtype=np.int64)

    def __reduce__(self) -> tuple[Any, ...]:
        """By value: only the rows, where batches are slices of larger ones."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.schema) as writer:
            for batch in self.batches:
                writer.write_batch(batch)
        return _from_stream, (sink.getvalue(),)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def take(self, positions: NDArray[np.integer], columns: Sequence[str]) -> pa.Table:
        """Rows in the order of `positions`, each from 0 to `len(self) - 1`.

        Cost: one Arrow take per batch that is touched.
        """
        if len(positions) and not (positions.min() >= 0 and positions.max() < len(self)):
            raise IndexError(f"Positions {positions.min()} to {positions.max()} of {len(self)} rows.")
        order = np.argsort(positions, kind="stable")
        ordered = positions[order]
        within = np.searchsorted(self._ends, ordered, side="right")
        picked = []
        for block in np.unique(within):
            batch = self.batches[block].select(list(columns))
            start = self._ends[block] - len(batch)
            picked.append(batch.take(pa.array(ordered[within == block] - start)))
        schema = pa.schema([self.schema.field(c) for c in columns])
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        return pa.Table.from_batches(picked, schema).combine_chunks().take(pa.array(back))


def _from_stream(content: pa.Buffer) -> RowBlocks:
    reader = pa.ipc.open_stream(content)
    return RowBlocks(reader.schema, reader)


def spool(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> RowBlocks:
    """Copy a stream to a temporary Arrow IPC file, and map it: disk space instead of memory.

    The file has no name where the system allows that, and goes with the last reference to its rows.
    """
    with tempfile.TemporaryDirectory(prefix="spec-store-") as folder:
        path = Path(folder) / "rows.arrow"
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
        return map_file(path)


def map_file(path: str | Path) -> RowBlocks:
    """The rows of an uncompressed Arrow IPC file, memory-mapped."""
    reader = pa.ipc.open_file(pa.memory_map(str(path)))
    return RowBlocks(reader.schema, (reader.get_batch(i) for i in range(reader.num_record_batches)))
