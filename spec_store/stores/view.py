"""A source under other names: rows by an id of the user's, columns by names of the comparison's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..connector import (
    Annotation,
    Difference,
    Freshness,
    Partition,
    Published,
    Source,
    find_field,
    take_sample,
)
from ..errors import ColumnNotFoundError, InputError
from ..keys import canonical_keys, hash_keys, key_family, repeated_keys, same_keys, smallest_hashes
from .delegating import DelegatingSource

__all__ = ["KEY_ROWS", "KeyIndex", "View", "keyed"]

KEY_ROWS = 1 << 16
"""Rows per batch where only keys are read."""


class KeyIndex:
    """Where each id is. Raises InputError where an id occurs twice.

    Parameters
    ----------
    keys
        Integers, text, binary or UUIDs, without nulls. All but integers are matched by a 64-bit hash; rows
        that are read for it are compared in full.
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
            first = keys[int(self._order[again[0]])].as_py()
            raise InputError(
                f"{len(again):,} rows of {owner} repeat an id ({self.kind}), such as {first}: rows can't be"
                " matched one to one. Remove the duplicates, or name another --key."
            )

    def __len__(self) -> int:
        return len(self._sorted)

    def find(self, keys: pa.Array, owner: str) -> NDArray[np.int64]:
        """The position of each id, -1 where it is not there, shape (len(keys),)."""
        if key_family(keys.type) != key_family(self.kind):
            raise InputError(
                f"The ids of {owner} are {keys.type} and those of {self.owner} are {self.kind}: they never"
                " match. Cast one to the other's type."
            )
        values = _comparable([keys])
        if not len(self):
            return np.full(len(values), -1, np.int64)
        at = np.minimum(np.searchsorted(self._sorted, values), len(self) - 1)
        found = np.where(self._sorted[at] == values, self._order[at], -1)
        if _is_uint64(keys.type) != _is_uint64(self.kind):
            found[values < 0] = -1  # the same bits are a negative number here, and one above 2^63 there
        return found


def _is_uint64(kind: pa.DataType) -> bool:
    return bool(pa.types.is_uint64(kind.value_type if pa.types.is_dictionary(kind) else kind))


def _comparable(chunks: Sequence[pa.Array]) -> NDArray[Any]:
    """Integers as they are, anything else by hash."""
    parts: list[NDArray[Any]] = []
    for chunk in chunks:
        if key_family(chunk.type) == "integer":
            parts.append(canonical_keys(chunk).to_numpy(zero_copy_only=False))
        else:
            parts.append(hash_keys(chunk))
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


class View(DelegatingSource):
    """A source whose rows are named by another key, or whose columns have other names.

    Parameters
    ----------
    key
        A column that takes the row key's place; None keeps the source's own. A source with a portable
        key and no such column lends it this name.
    names
        From the names given here to the source's columns; those not mentioned keep theirs.
    """

    derived = frozenset({"_ids"})

    def __init__(
        self, source: Source, *, key: str | None = None, names: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(source)
        self.key = key or source.key
        self.names = dict(names or {})
        self._key_column: str | None = None
        if self.key != source.key:
            try:
                kind = find_field(source, self.key).type
                self._key_column = self.key
            except ColumnNotFoundError:
                if not source.portable_key:
                    raise
            else:
                _check_key(self.key, kind, source)
        self.portable_key = source.portable_key or self._key_column is not None
        renamed = [find_field(source, c).with_name(alias) for alias, c in self.names.items()]
        self.schema = pa.schema([*renamed, *(f for f in source.schema if f.name not in self.names)])

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

    def difference(self, version: int, columns: Sequence[str], where: str | None) -> Difference | None:
        """The source's, as such views."""
        found = self.source.difference(version, self._inner(columns), where)
        if found is None:
            return None
        removed, added = (View(s, key=self.key, names=self.names) for s in (found.removed, found.added))
        return Difference(removed, added)

    def freshness(
        self, results: Sequence[str], reads: Sequence[str], where: str | None, *, since: int | None
    ) -> Freshness | None:
        """The source's."""
        return self.source.freshness(results, self._inner(reads), where, since=since)

    def latest(self) -> Source:
        """The same view of the source as it stands now."""
        return View(self.source.latest(), key=self.key, names=self.names)

    def at(self, version: int) -> View:
        """The same view of the source at another version."""
        return View(self.source.at(version), key=self.key, names=self.names)

    @property
    def index(self) -> KeyIndex:
        """The position of every key in the stream: reads the keys once, holds 16 bytes per row."""
        return self._ids[0]

    @cached_property
    def _ids(self) -> tuple[KeyIndex, pa.ChunkedArray]:
        """The index of the keys, and the source's own row keys where they are others."""
        inner = self._inner([])
        batches = list(self.source.batches(inner, batch_rows=KEY_ROWS))
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
        if not same_keys(table.column(0), keys):  # but for integers, they were found by hash
            raise InputError(f"Two ids of {self.describe()} share a hash: match rows by integer ids.")
        return table

    def sample(self, n: int, *, seed: int, columns: Sequence[str], where: str | None = None) -> pa.Table:
        """As every source's, by hashes of this view's keys; needs no index of them."""
        inner = self._inner([])
        batches = self.source.batches(inner, where=where, batch_rows=KEY_ROWS)
        keys = ((b.column(0), b.column(1 if inner else 0)) for b in batches)
        chosen, positions = smallest_hashes(keys, n, seed)
        inner = self._inner(columns)
        return self._renamed(take_sample(self.source, chosen, positions, inner, where), inner, columns)

    def repeated_keys(self, where: str | None = None) -> int:
        """How many rows repeat the key of another; reads a column of keys once, 16 bytes per row.

        0 where the key is the source's own: that is unique.
        """
        if self._key_column is None:
            return 0
        batches = self.source.batches([self._key_column], where=where, batch_rows=KEY_ROWS)
        return repeated_keys(batch.column(1) for batch in batches)

    def by_own_key(self) -> View:
        """The same columns, rows named by the source's own key."""
        return View(self.source, names=self.names)

    def search_index(self, column: str, queries: NDArray[np.float32], *, k: int) -> list[pa.Array] | None:
        """The source's answer, under this view's keys."""
        found = self.source.search_index(self.names.get(column, column), queries, k=k)
        if found is None or self._key_column is None:
            return found
        return [self.source.take(keys, [self._key_column]).column(1).combine_chunks() for keys in found]

    def annotate(self, annotation: Annotation) -> Published:
        """Annotate the source; `compute` gets batches of this view."""
        return self.source.annotate(self._inner_annotation(annotation))

    def stage(self, annotation: Annotation, part: int, n_parts: int) -> int:
        """As `annotate`."""
        return self.source.stage(self._inner_annotation(annotation), part, n_parts)

    def _inner_annotation(self, annotation: Annotation) -> Annotation:
        inner = tuple(self._inner(annotation.reads))
        compute = _Renamed(self, inner, annotation.reads, annotation.compute)
        return dataclasses.replace(annotation, reads=inner, compute=compute)


@dataclass(frozen=True)
class _Renamed:
    """A function of batches of a view, of batches of its source."""

    view: View
    inner: tuple[str, ...]
    reads: tuple[str, ...]
    compute: Callable[[pa.RecordBatch], pa.RecordBatch]

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return self.compute(self.view._renamed(batch, self.inner, self.reads))


def _check_key(column: str, kind: pa.DataType, source: Source) -> None:
    try:
        key_family(kind)
    except InputError as error:
        raise InputError(f"Column {column!r} of {source.describe()} can't identify rows. {error}") from error


def keyed(source: Source, key: str | None) -> Source:
    """The source with its rows named by `key`; itself where they are already."""
    return source if key is None or key == source.key else View(source, key=key)


def _chunked(chunks: list[pa.Array], kind: pa.DataType) -> pa.ChunkedArray:
    return pa.chunked_array(chunks) if chunks else pa.chunked_array([], kind)
