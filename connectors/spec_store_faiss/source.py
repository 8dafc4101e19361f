"""A FAISS index as a source: one vector column, keyed by the index's ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from spec_store.connector import Partition, Source, find_field
from spec_store.errors import InputError, UnsupportedError

from .file import OpenIndex, check_file, open_index
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
    opened
        The files that it was read from, watched for changes.
    """

    table = None
    version = None
    key = "id"
    portable_key = True

    def __init__(self, uri: str, index: Any, opened: OpenIndex | None = None) -> None:
        self.uri = uri
        self._index = index  # the rows are views of its memory
        self._files = opened.files if opened else ()
        self._pages = opened.pages if opened else None
        self._stamp = self._stamped()
        self._rows: Rows = rows_of(index)
        self.schema = pa.schema([(_COLUMN, pa.list_(pa.float32(), self._rows.d))])
        self._ids = self._rows.ids()
        if self._ids is not None:
            _refuse_duplicates(self._ids, self.describe())

    @classmethod
    def open(cls, uri: str) -> FaissSource:
        """Open an index file; see `spec_store_faiss.file.open_index` for what is refused."""
        path = Path(uri).absolute()
        check_file(path)
        probe(path)
        return cls._opened(uri, path)

    @classmethod
    def _opened(cls, uri: str, path: Path) -> FaissSource:
        opened = open_index(path)
        return cls(uri, opened.index, opened)

    @classmethod
    def from_index(cls, index: Any, name: str = "a FAISS index in memory") -> FaissSource:
        """An index in memory. Raises UnsupportedError for a kind that can't be read back."""
        return cls(name, index)

    def __reduce__(self) -> tuple[Any, ...]:
        """By path and state of its files; an index in memory by value."""
        if self._files:
            return _reopen, (self.uri, self._files[0], self._stamp)
        return _deserialize, (self.uri, faiss.serialize_index(self._index))

    @property
    def notes(self) -> tuple[str, ...]:
        """That the index keeps its vectors only approximately, and how."""
        if not self._rows.losses:
            return ()
        lost = ", ".join(self._rows.losses)
        return (
            f"{self.describe()} keeps its vectors only approximately ({lost}): what is compared is what it"
            " kept.",
        )

    @property
    def fingerprint(self) -> str:
        return f"{self.uri}|{self._stamp}" if self._files else f"{self.uri}|{id(self._index)}"

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

    def _stamped(self) -> list[_Stamp | None]:
        """The state of each file, None for one that was removed."""
        return [_stamp(file) for file in self._files]

    def _check_unchanged(self) -> None:
        """Before memory is touched that a shorter file no longer backs."""
        for file, before, now in zip(self._files, self._stamp, self._stamped(), strict=True):
            # Another file of that name, renamed into its place, leaves the mapped one as it was.
            if now != before and now is not None and before is not None and now[0] == before[0]:
                raise InputError(
                    f"{file} was written to while it was read. Replace index files by renaming a finished one"
                    " into their place, and run again."
                )

    def describe(self) -> str:
        """How messages name it."""
        return f"FAISS index {self.uri}" if self._files else self.uri


_Stamp = tuple[int, int, int]


def _stamp(file: Path) -> _Stamp | None:
    try:
        status = file.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _reopen(uri: str, path: Path, stamp: list[_Stamp | None]) -> FaissSource:
    """What was pickled. Raises InputError where a file is another one now."""
    check_file(path)
    source = FaissSource._opened(uri, path)
    if source._stamp != stamp:
        raise InputError(f"{source.describe()} was changed or replaced since it was opened. Run again.")
    return source


def _deserialize(uri: str, content: NDArray[np.uint8]) -> FaissSource:
    return FaissSource(uri, faiss.deserialize_index(content))


def _refuse_duplicates(ids: NDArray[np.int64], owner: str) -> None:
    ordered = np.sort(ids)
    again = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(again):
        raise InputError(
            f"{len(again):,} of {len(ids):,} ids in {owner} are duplicates, such as {again[0]}: they don't"
            " identify rows. Build the index with unique ids."
        )
