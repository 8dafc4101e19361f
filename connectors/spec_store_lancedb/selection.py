"""Some rows of a version of a table, as a source that is read and not written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from spec_store.connector import Partition, Source

from .changes import Selection

__all__ = ["SelectedRows"]

_PART_ROWS = 1 << 16


class SelectedRows(Source):
    """The rows of a selection, whole fragments streamed and single rows taken by their ids.

    Parameters
    ----------
    source
        The version that holds them.
    selection
        By fragment.
    where
        What rows of whole fragments must match; others were chosen by it.
    """

    def __init__(self, source: Source, selection: Selection, where: str | None) -> None:
        self.source = source
        self._where = where
        for attribute in Source.__annotations__:
            setattr(self, attribute, getattr(source, attribute))
        whole = {i for i, ids in selection.rows.items() if ids is None}
        self._whole = [p for p in source.partitions() if int(p.id.partition(":")[0]) in whole]
        chosen = [ids for ids in selection.rows.values() if ids is not None]
        self._ids = np.concatenate([*chosen, np.empty(0, np.uint64)])

    def count(self, where: str | None = None) -> int:
        """Rows of the selection; `where` must be None."""
        whole = sum(p.n_rows for p in self._whole)
        if self._where is not None:
            batches = (self.source.batches([], where=self._where, partition=p) for p in self._whole)
            whole = sum(len(batch) for stream in batches for batch in stream)
        return whole + len(self._ids)

    def partitions(self) -> list[Partition]:
        """Those of whole fragments, which a filter may leave with fewer rows, then single rows."""
        starts = range(0, len(self._ids), _PART_ROWS)
        taken = [Partition(f"rows:{i}", min(_PART_ROWS, len(self._ids) - i)) for i in starts]
        return [*self._whole, *taken]

    def batches(
        self,
        columns: Sequence[str],
        *,
        where: str | None = None,
        partition: Partition | None = None,
        batch_rows: int = 8192,
    ) -> Iterator[pa.RecordBatch]:
        """The key and `columns`; `where` must be None."""
        for part in self.partitions() if partition is None else [partition]:
            kind, _, start = part.id.partition(":")
            if kind != "rows":
                yield from self.source.batches(
                    columns, where=self._where, partition=part, batch_rows=batch_rows
                )
                continue
            end = int(start) + part.n_rows
            for at in range(int(start), end, batch_rows):
                keys = pa.array(self._ids[at : min(at + batch_rows, end)])
                yield from self.source.take(keys, columns).combine_chunks().to_batches()
