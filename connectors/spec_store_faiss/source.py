"""A FAISS index as a source: one vector column, keyed by the index's ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from spec_store.connector import Partition, Source, find_field
from spec_store.errors import InputError, UnsupportedError

from .file import check_file, open_index
from .pages import MappedPages
from .probe import probe
from .rows import Rows, rows_of

__all__ = ["FaissSource"]

_COLUMN = "vector"
_PAGE = 4096


class FaissSource(Source):
    """The vectors of an index, streamed in the order in which it stores them.

    Parameters
    ----------
    uri
        The index file, or a name for an index in memory.
    index
        A `faiss.Index`; must not change while it is used.
    file
        Its file, watched for changes.
    """

    table = None
    version = None
    key = "id"
    portable_key = True

    def __init__(self, uri: str, index: Any, file: Path | None = None) -> None:
        self.uri = uri
        self._file = file
        self._stamp = self._stamped()
        self._index = index  # the rows are views of its memory
        self._rows: Rows = rows_of(index)
        self._pages = MappedPages(file) if file else None
        self.schema = pa.schema([(_COLUMN, pa.list_(pa.float32(), self._rows.d))])
        self._ids = self._rows.ids()
        if self._ids is not None:
            _refuse_duplicates(self._ids, self.describe())

    @classmethod
    def open(cls, uri: str) -> FaissSource:
        """Open an index file; see `spec_store_faiss.file.open_index` for what is refused."""
        path = Path(uri)
        check_file(path)
        probe(path)
        return cls(uri, open_index(path), path)

    @classmethod
    def from_index(cls, index: Any, name: str = "a FAISS index in memory") -> FaissSource:
        """An index in memory. Raises UnsupportedError for a kind that can't be read back."""
        return cls(name, index)

    @property
    def notes(self) -> tuple[str, ...]:
        """That the index keeps its vectors only approximately, and how."""
        if not self._rows.losses:
            return ()
        lost = ", ".join(self._rows.losses)
        return (
            f"{self.describe()} does not keep its vectors whole ({lost}): what is compared is what it kept.",
        )

    @property
    def fingerprint(self) -> str:
        return f"{self.uri}|{self._stamp}" if self._file else f"{self.uri}|{id(self._index)}"

    def count(self, where: str | None = None) -> int:
        """Vectors in the index."""
        self._refuse_filter(where)
        return self._rows.n

    def batches(
        self,
        columns: Sequence[str],
        *,
        where: str | None = None,
        partition: Partition | None = None,
        batch_rows: int = 8192,
    ) -> Iterator[pa.RecordBatch]:
        """Ids and vectors; an IVF index list by list."""
        self._refuse_filter(where)
        for column in columns:
            find_field(self, column)
        return self._stream(list(columns), batch_rows)

    def _stream(self, columns: list[str], batch_rows: int) -> Iterator[pa.RecordBatch]:
        for start in range(0, self._rows.n, batch_rows):
            stop = min(start + batch_rows, self._rows.n)
            self._check_unchanged()
            ids = np.arange(start, stop) if self._ids is None else self._ids[start:stop]
            vectors = self._read(self._rows.read(start, stop), 0) if columns else None
            yield pa.RecordBatch.from_arrays(
                [pa.array(ids, pa.int64()), *(vectors for _ in columns)], names=[self.key, *columns]
            )

    def take(self, keys: pa.Array, columns: Sequence[str]) -> pa.Table:
        """Vectors by id, in the order of `keys`."""
        for column in columns:
            find_field(self, column)
        self._check_unchanged()
        wanted = keys.cast(pa.int64()).to_numpy(zero_copy_only=False)
        positions = self._positions(wanted)
        if (missing := wanted[positions < 0]).size:
            raise InputError(
                f"{len(missing):,} of {len(keys):,} ids are not in {self.describe()}, the first {missing[0]}."
            )
        vectors = self._read(self._rows.gather(positions), _PAGE) if columns else None
        arrays = [pa.array(wanted, pa.int64()), *(vectors for _ in columns)]
        return pa.Table.from_arrays(arrays, names=[self.key, *columns])

    def _read(self, vectors: NDArray[np.float32], at_least: int) -> pa.Array:
        """Vectors as Arrow; each took at least so many bytes of the file to read."""
        if self._pages:
            self._pages.touched(len(vectors) * max(at_least, 4 * self._rows.d))
        flat = np.ascontiguousarray(vectors, np.float32).reshape(-1)
        return pa.FixedSizeListArray.from_arrays(pa.array(flat), self._rows.d)

    def _positions(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where each id is, -1 for nowhere."""
        if self._ids is None:
            return np.where((ids >= 0) & (ids < self._rows.n), ids, -1)
        if not len(self._ids):
            return np.full(len(ids), -1)
        at = np.minimum(np.searchsorted(self._ids, ids, sorter=self._order), len(self._ids) - 1)
        found = self._order[at]
        return np.where(self._ids[found] == ids, found, -1)

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        return np.argsort(self._ids, kind="stable")  # type: ignore[arg-type]  # only where there are ids

    def _refuse_filter(self, where: str | None) -> None:
        if where is not None:
            raise UnsupportedError(
                f"{self.describe()} holds ids and vectors only, so {where!r} can't select rows of it. Join it"
                " to a table, and filter that."
            )

    def _stamped(self) -> tuple[int, int, int] | None:
        if self._file is None:
            return None
        status = self._file.stat()
        return status.st_ino, status.st_size, status.st_mtime_ns

    def _check_unchanged(self) -> None:
        """Before memory is touched that a shorter file no longer backs."""
        try:
            now = self._stamped()
        except FileNotFoundError:
            return  # removed: the mapping still holds it
        # Another file of that name, renamed into its place, leaves the mapped one as it was.
        if now != self._stamp and now is not None and self._stamp is not None and now[0] == self._stamp[0]:
            raise InputError(
                f"{self.describe()} was written to while it was read. Replace index files by renaming a"
                " finished one into their place, and run again."
            )

    def describe(self) -> str:
        """How messages name it."""
        return f"FAISS index {self.uri}" if self._file else self.uri


def _refuse_duplicates(ids: NDArray[np.int64], owner: str) -> None:
    ordered = np.sort(ids)
    again = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(again):
        raise InputError(
            f"{len(again):,} of {len(ids):,} ids in {owner} are duplicates, such as {again[0]}: rows can't be"
            " told apart by them. Build the index with unique ids."
        )
