"""Columns of two stores as one source: rows matched by an id, streamed, never loaded whole.

Only the ids are held, 24 bytes per row of each store (8 more if they are text): vectors are read along
in step where both stores have the rows in one order, else by random access, a batch at a time.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from .blocks import RowBlocks, spool
from .connector import (
    Annotation,
    Partition,
    Published,
    Source,
    find_field,
    hash_keys,
    smallest_hashes,
    take_sample,
)
from .errors import ColumnNotFoundError, InputError

__all__ = ["Joined", "KeyIndex", "OnMissing", "View", "keyed"]

OnMissing = Literal["error", "drop"]

_KEY_ROWS = 1 << 16
# Reading along in step reads rows that nobody needs, too: worth it up to this many per row needed.
_MOST_PASSED_OVER = 4


class KeyIndex:
    """Where each id is. Raises InputError where an id occurs twice.

    Parameters
    ----------
    keys
        Integers, strings or binary, without nulls. Text is matched by a 64-bit hash; rows that are read
        for it are compared in full.
    owner
        How messages name whose ids they are.
    """

    def __init__(self, keys: pa.ChunkedArray, owner: str) -> None:
        self.kind = keys.type
        self.owner = owner
        values = _comparable(keys.chunks)
        self._order = np.argsort(values, kind="stable")
        self._sorted = values[self._order]
        again = np.flatnonzero(self._sorted[1:] == self._sorted[:-1])
        if len(again):
            first = keys[int(self._order[again[0]])]
            raise InputError(
                f"{len(again):,} rows of {owner} repeat an id ({self.kind}), such as {first}: rows can't be"
                " matched one to one. Remove the duplicates, or name another --key."
            )

    def __len__(self) -> int:
        return len(self._sorted)

    def find(self, keys: pa.Array, owner: str) -> NDArray[np.int64]:
        """The position of each id, -1 where it is not there, shape (len(keys),)."""
        if _family(keys.type) != _family(self.kind):
            raise InputError(
                f"The ids of {owner} are {keys.type} and those of {self.owner} are {self.kind}: they never"
                " match. Cast one to the other's type."
            )
        values = _comparable([keys])
        if not len(self):
            return np.full(len(values), -1, np.int64)
        at = np.minimum(np.searchsorted(self._sorted, values), len(self) - 1)
        return np.where(self._sorted[at] == values, self._order[at], -1)


def _family(kind: pa.DataType) -> str:
    if pa.types.is_integer(kind):
        return "integer"
    return "text" if pa.types.is_string(kind) or pa.types.is_large_string(kind) else str(kind)


def _comparable(chunks: Sequence[pa.Array]) -> NDArray[Any]:
    """Integers as they are, anything else by hash."""
    parts: list[NDArray[Any]] = []
    for chunk in chunks:
        if pa.types.is_integer(chunk.type) and not chunk.null_count:
            parts.append(chunk.cast(pa.int64(), safe=False).to_numpy(zero_copy_only=False))
        else:
            parts.append(hash_keys(chunk))
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


class View(Source):
    """A source whose rows are named by another key, or whose columns have other names.

    Parameters
    ----------
    key
        A column that takes the row key's place; None keeps the source's own. A source with a portable
        key and no such column lends it this name.
    names
        From the names given here to the source's columns; those not mentioned keep theirs.
    """

    def __init__(
        self, source: Source, *, key: str | None = None, names: Mapping[str, str] | None = None
    ) -> None:
        self.source = source
        self.uri, self.table, self.version = source.uri, source.table, source.version
        self.connector = source.connector
        self.key = key or source.key
        self.names = dict(names or {})
        self._key_column = None
        if self.key != source.key:
            try:
                find_field(source, self.key)
                self._key_column = self.key
            except ColumnNotFoundError:
                if not source.portable_key:
                    raise
        renamed = [find_field(source, c).with_name(alias) for alias, c in self.names.items()]
        self.schema = pa.schema([*renamed, *(f for f in source.schema if f.name not in self.names)])

    @property
    def notes(self) -> tuple[str, ...]:
        return self.source.notes

    @property
    def fingerprint(self) -> str:
        return self.source.fingerprint

    @property
    def random_access(self) -> bool:
        return self.source.random_access

    def count(self, where: str | None = None) -> int:
        """As the source's."""
        return self.source.count(where)

    def partitions(self) -> list[Partition]:
        """As the source's."""
        return self.source.partitions()

    def batches(
        self,
        columns: Sequence[str],
        *,
        where: str | None = None,
        partition: Partition | None = None,
        batch_rows: int = 8192,
    ) -> Iterator[pa.RecordBatch]:
        """The source's batches, under these names."""
        inner = self._inner(columns)
        batches = self.source.batches(inner, where=where, partition=partition, batch_rows=batch_rows)
        return (self._renamed(batch, inner, columns) for batch in batches)

    def _inner(self, columns: Sequence[str]) -> list[str]:
        """The source's columns that are to be read, each once."""
        wanted = [self.names.get(c, c) for c in columns]
        return list(dict.fromkeys([*([self._key_column] if self._key_column else []), *wanted]))

    def _renamed(self, batch: Any, inner: Sequence[str], columns: Sequence[str]) -> Any:
        """From the row key and `inner` columns to the key and `columns`; a batch or a table."""
        at = {name: i + 1 for i, name in enumerate(inner)}
        picked = [at[self._key_column] if self._key_column else 0]
        picked += [at[self.names.get(c, c)] for c in columns]
        arrays = [batch.column(i) for i in picked]
        return type(batch).from_arrays(arrays, names=[self.key, *columns])

    def latest(self) -> Source:
        """The same view of the source as it stands now."""
        return View(self.source.latest(), key=self.key, names=self.names)

    @property
    def index(self) -> KeyIndex:
        """The position of every key in the stream: reads the keys once, holds 16 bytes per row."""
        return self._ids[0]

    @cached_property
    def _ids(self) -> tuple[KeyIndex, pa.ChunkedArray]:
        """The index of the keys, and the source's own row keys where they are others."""
        inner = self._inner([])
        batches = list(self.source.batches(inner, batch_rows=_KEY_ROWS))
        if self._key_column is None:
            return KeyIndex(_chunked([b.column(0) for b in batches], pa.int64()), self.describe()), None
        kind = find_field(self.source, self._key_column).type
        index = KeyIndex(_chunked([b.column(1) for b in batches], kind), self.describe())
        return index, _chunked([b.column(0) for b in batches], pa.int64())

    def take(self, keys: pa.Array, columns: Sequence[str]) -> pa.Table:
        """Rows by key; reads all keys once before the first."""
        inner = self._inner(columns)
        if self._key_column is None:
            return self._renamed(self.source.take(keys, inner), inner, columns)
        at = self.index.find(keys, "the keys given")
        if (at < 0).any():
            missing = keys[int(np.flatnonzero(at < 0)[0])]
            raise InputError(
                f"{int((at < 0).sum()):,} of {len(keys):,} keys are not in {self.describe()}, the first"
                f" {missing}."
            )
        rows = self._ids[1].take(pa.array(at)).combine_chunks()
        table = self._renamed(self.source.take(rows, inner), inner, columns)
        if not pa.types.is_integer(table.column(0).type):  # found by hash
            same = pc.equal(table.column(0).cast(pa.large_binary()), keys.cast(pa.large_binary()))
            if not pc.all(same).as_py():
                raise InputError(f"Two ids of {self.describe()} share a hash: match rows by integer ids.")
        return table

    def sample(self, n: int, *, seed: int, columns: Sequence[str], where: str | None = None) -> pa.Table:
        """As every source's, by hashes of this view's keys; needs no index of them."""
        inner = self._inner([])
        batches = self.source.batches(inner, where=where, batch_rows=_KEY_ROWS)
        keys = ((b.column(0), b.column(1 if inner else 0)) for b in batches)
        chosen, positions = smallest_hashes(keys, n, seed)
        inner = self._inner(columns)
        return self._renamed(take_sample(self.source, chosen, positions, inner, where), inner, columns)

    def check_annotation(self, schema: pa.Schema) -> None:
        """As the source's."""
        self.source.check_annotation(schema)

    def annotate(self, annotation: Annotation) -> Published:
        """Annotate the source; `compute` gets batches of this view."""
        inner = self._inner(annotation.reads)

        def compute(batch: pa.RecordBatch) -> pa.RecordBatch:
            return annotation.compute(self._renamed(batch, inner, annotation.reads))

        return self.source.annotate(dataclasses.replace(annotation, reads=tuple(inner), compute=compute))

    def undo(self, columns: Sequence[str]) -> None:
        """As the source's."""
        self.source.undo(columns)

    def create_index(self, column: str) -> None:
        """As the source's."""
        self.source.create_index(column)

    def create_vector_index(self, column: str, queries: NDArray[np.float32], *, k: int = 10) -> float:
        """As the source's."""
        return self.source.create_vector_index(column, queries, k=k)

    def describe(self) -> str:
        """As the source's."""
        return self.source.describe()


def keyed(source: Source, key: str | None) -> Source:
    """The source with its rows named by `key`; itself where they are already."""
    return source if key is None or key == source.key else View(source, key=key)


def _chunked(chunks: list[pa.Array], kind: pa.DataType) -> pa.ChunkedArray:
    return pa.chunked_array(chunks) if chunks else pa.chunked_array([], kind)


class Joined(Source):
    """The rows that two sources have in common, with the columns of both; the first one leads.

    Order, filters, versions and write-back are the first source's.

    Parameters
    ----------
    left, right
        Views under one key. Duplicate ids in either are refused. The columns of `right` are those that its
        view names.
    on_missing
        What to do with ids that only one source holds: "error" refuses with their count, "drop"
        compares the others and says so in `notes`.
    """

    def __init__(self, left: View, right: View, *, on_missing: OnMissing = "error") -> None:
        if on_missing not in ("error", "drop"):
            raise InputError(f"on_missing is {on_missing!r}; expected error or drop.")
        if left.key != right.key:
            raise InputError(f"Rows can't be matched: one key is {left.key!r}, the other {right.key!r}.")
        self.left, self.right = left, right
        self.on_missing = on_missing
        self.uri, self.table, self.version = left.uri, left.table, left.version
        self.key, self.connector = left.key, left.connector
        mine = [f for f in left.schema if f.name not in right.names]
        self.schema = pa.schema([*mine, *(right.schema.field(name) for name in right.names)])
        self._planned: dict[str | None, NDArray[np.int64]] = {}
        self._copied_bytes = 0
        left.index  # noqa: B018  # duplicates are refused before any work

    @property
    def notes(self) -> tuple[str, ...]:
        told = [*self.left.notes, *self.right.notes]
        for where, positions in self._planned.items():
            matched = int((positions >= 0).sum())
            if matched < len(positions):
                told.append(
                    f"{len(positions) - matched:,} of {len(positions):,} rows of {self.left.describe()} were"
                    f" left out: {self.right.describe()} does not hold their {self.key}."
                )
            if where is None and matched < len(self.right.index):
                told.append(
                    f"{len(self.right.index) - matched:,} of {len(self.right.index):,} rows of"
                    f" {self.right.describe()} were left out: {self.left.describe()} does not hold their"
                    f" {self.key}."
                )
        if self._copied_bytes:
            told.append(
                f"{self.right.describe()} has no random access: {self._copied_bytes / 1e9:,.2f} GB of it were"
                " copied to a temporary file."
            )
        return tuple(told)

    @property
    def fingerprint(self) -> str:
        return f"{self.left.fingerprint}|{self.right.fingerprint}"

    @property
    def random_access(self) -> bool:
        return self.left.random_access and self.right.random_access

    def _positions(self, where: str | None) -> NDArray[np.int64]:
        """Where in the second source each row of the first is, -1 for nowhere; reads the ids once."""
        if where in self._planned:
            return self._planned[where]
        index, owner = self.right.index, self.left.describe()
        batches = self.left.batches([], where=where, batch_rows=_KEY_ROWS)
        parts = [index.find(batch.column(0), owner) for batch in batches]
        positions = np.concatenate(parts) if parts else np.empty(0, np.int64)
        self._planned = {where: positions}  # one filter at a time: the memory is the ids'
        matched = int((positions >= 0).sum())
        if not matched and len(positions):
            raise InputError(
                f"No {self.key} of {self.left.describe()} is in {self.right.describe()}: are they ids of the"
                " same rows?"
            )
        if self.on_missing == "error" and (
            matched < len(positions) or (where is None and matched < len(index))
        ):
            raise InputError(
                f"{' '.join(self.notes)} Use --on-missing drop (on_missing='drop') to compare the"
                f" {matched:,} rows that both hold.".replace("were left out", "can't be matched")
            )
        return positions

    def count(self, where: str | None = None) -> int:
        """Rows that both hold. Raises InputError for rows that only one holds, unless they are dropped."""
        return int((self._positions(where) >= 0).sum())

    def batches(
        self,
        columns: Sequence[str],
        *,
        where: str | None = None,
        partition: Partition | None = None,
        batch_rows: int = 8192,
    ) -> Iterator[pa.RecordBatch]:
        """The first source's batches, without rows that the second has not."""
        for column in columns:
            find_field(self, column)
        positions = self._positions(where)
        mine = [c for c in columns if not self._is_right(c)]
        theirs = [c for c in columns if self._is_right(c)]
        fetch = self._reader(theirs, positions) if theirs else None
        return self._matched(
            self.left.batches(mine, where=where, batch_rows=batch_rows), positions, fetch, columns
        )

    def _matched(
        self,
        batches: Iterator[pa.RecordBatch],
        positions: NDArray[np.int64],
        fetch: Any,
        columns: Sequence[str],
    ) -> Iterator[pa.RecordBatch]:
        start = 0
        for batch in batches:
            at = positions[start : start + len(batch)]
            start += len(batch)
            if (at < 0).any():
                batch = batch.filter(pa.array(at >= 0))
                at = at[at >= 0]
            if len(batch):
                other = fetch(batch.column(0), at) if fetch else None
                yield self._paired(batch, other, columns)

    def _is_right(self, column: str) -> bool:
        return column in self.right.names

    def _paired(self, batch: pa.RecordBatch, other: Any, columns: Sequence[str]) -> pa.RecordBatch:
        arrays = [batch.column(0)]
        for c in columns:
            array = other.column(c) if self._is_right(c) else batch.column(c)
            arrays.append(array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array)
        return pa.RecordBatch.from_arrays(arrays, names=[self.key, *columns])

    def _reader(self, columns: list[str], positions: NDArray[np.int64]) -> Any:
        """In step where the rows come in one order and most are needed, else by random access."""
        needed = positions[positions >= 0]
        in_order = bool((np.diff(needed) > 0).all())
        dense = len(self.right.index) <= _MOST_PASSED_OVER * max(len(needed), 1)
        if in_order and (dense or not self.right.random_access):
            return _InStep(self.right, columns).rows
        source = self._looked_up
        return lambda keys, at: source.take(keys, columns)

    @cached_property
    def _looked_up(self) -> Source | _Copy:
        """The second source, by random access: its own, or that of a copy on disk."""
        if self.right.random_access:
            return self.right
        copied = _Copy(self.right, list(self.right.names))
        self._copied_bytes = copied.n_bytes
        return copied

    def take(self, keys: pa.Array, columns: Sequence[str]) -> pa.Table:
        """Rows by key, from both."""
        mine = self.left.take(keys, [c for c in columns if not self._is_right(c)])
        theirs = self._looked_up.take(keys, [c for c in columns if self._is_right(c)])
        arrays = [(theirs if self._is_right(c) else mine).column(c) for c in columns]
        return pa.Table.from_arrays([mine.column(0), *arrays], names=[self.key, *columns])

    def latest(self) -> Source:
        """The first source as it stands now: it holds what was written back."""
        return self.left.latest()

    def check_annotation(self, schema: pa.Schema) -> None:
        """As the first source's."""
        self.left.check_annotation(schema)

    def annotate(self, annotation: Annotation) -> Published:
        """Annotate the first source.

        Where columns of the second are read, rows that it has not are null in every result column.
        """
        mine = tuple(c for c in annotation.reads if not self._is_right(c))
        theirs = [c for c in annotation.reads if self._is_right(c)]
        if not theirs:
            return self.left.annotate(annotation)
        lookup, index, owner = self._looked_up, self.right.index, self.left.describe()

        def compute(batch: pa.RecordBatch) -> pa.RecordBatch:
            found = index.find(batch.column(0), owner) >= 0
            matched = batch.filter(pa.array(found))
            other = lookup.take(matched.column(0), theirs)
            result = annotation.compute(self._paired(matched, other, annotation.reads))
            back = np.cumsum(found) - 1
            return result.take(pa.array(back, mask=~found))

        token = hashlib.blake2b(f"{annotation.token}|{self.right.fingerprint}".encode(), digest_size=12)
        return self.left.annotate(
            dataclasses.replace(annotation, reads=mine, compute=compute, token=token.hexdigest())
        )

    def undo(self, columns: Sequence[str]) -> None:
        """As the first source's."""
        self.left.undo(columns)

    def describe(self) -> str:
        """Both, by name."""
        return f"{self.left.describe()} joined with {self.right.describe()}"


class _InStep:
    """Rows of a stream at increasing positions, picked as it goes by."""

    def __init__(self, source: Source, columns: list[str]) -> None:
        self._batches = source.batches(columns)
        self._current: pa.RecordBatch | None = None
        self._start = 0

    def rows(self, keys: pa.Array, at: NDArray[np.int64]) -> pa.Table:
        picked = []
        while len(at):
            while self._current is None or self._start + len(self._current) <= at[0]:
                self._start += 0 if self._current is None else len(self._current)
                self._current = next(self._batches)
            here = int(np.searchsorted(at, self._start + len(self._current)))
            inside = at[:here] - self._start
            whole = inside[-1] - inside[0] == here - 1
            picked.append(
                self._current.slice(int(inside[0]), here) if whole else self._current.take(pa.array(inside))
            )
            at = at[here:]
        found = pa.Table.from_batches(picked)
        if found.column(0).type == keys.type and not pc.all(pc.equal(found.column(0), keys)).as_py():
            raise InputError("The ids of a source changed while it was read. Run again.")
        return found


class _Copy:
    """Some columns of a source without random access, copied to disk and found by key."""

    def __init__(self, view: View, columns: Sequence[str]) -> None:
        batches = view.batches(columns, batch_rows=4096)
        first = next(batches)  # an empty source matches nothing, which is refused before this
        self._blocks: RowBlocks = spool(first.schema, itertools.chain([first], batches))
        self._view = view
        self.n_bytes = sum(b.nbytes for b in self._blocks.batches)

    def take(self, keys: pa.Array, columns: Sequence[str]) -> pa.Table:
        at = self._view.index.find(keys, "the keys given")
        return self._blocks.take(at, [self._view.key, *columns])
