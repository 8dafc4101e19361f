"""Columns of two stores as one source: rows matched by an id, streamed, never loaded in full.

Only the ids are held, 24 bytes per row of each store (8 more if they are text): vectors are read along
in step where both stores have the rows in one order, else by random access, a batch at a time.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..connector import Annotation, Difference, Freshness, Partition, Published, Source, find_field
from ..errors import InputError
from ..keys import same_keys
from .blocks import RowBlocks, spool
from .delegating import DelegatingSource
from .view import KEY_ROWS, View

__all__ = ["Joined", "OnMissing"]

OnMissing = Literal["error", "drop"]

# Reading along in step reads rows that nobody needs, too: worth it up to this many per row needed.
_MOST_PASSED_OVER = 4


class Joined(DelegatingSource):
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

    derived = frozenset({"_planned", "_copy", "_streams"})

    def __init__(self, left: View, right: View, *, on_missing: OnMissing = "error") -> None:
        if on_missing not in ("error", "drop"):
            raise InputError(f"on_missing is {on_missing!r}; expected error or drop.")
        if left.key != right.key:
            raise InputError(f"Rows can't be matched: one key is {left.key!r}, the other {right.key!r}.")
        super().__init__(left)
        self.left, self.right = left, right
        self.on_missing = on_missing
        mine = [f for f in left.schema if f.name not in right.names]
        self.schema = pa.schema([*mine, *(right.schema.field(name) for name in right.names)])
        left.index  # noqa: B018  # duplicates are refused before any work

    @cached_property
    def _planned(self) -> dict[str | None, NDArray[np.int64]]:
        """The positions found for one filter, see `_positions`."""
        return {}

    @property
    def notes(self) -> tuple[str, ...]:
        notes = [*self.left.notes, *self.right.notes]
        for where, positions in self._planned.items():
            notes += self._unmatched(where, positions, "skipped")
        if "_copy" in self.__dict__:
            notes.append(
                f"{self.right.describe()} has no random access: {self._copy.n_bytes / 1e9:,.2f} GB of it were"
                " copied to a temporary file."
            )
        return tuple(notes)

    @property
    def fingerprint(self) -> str:
        return f"{self.left.fingerprint}|{self.right.fingerprint}"

    @property
    def random_access(self) -> bool:
        return self.left.random_access and self.right.random_access

    def _positions(self, where: str | None) -> NDArray[np.int64]:
        """Where in the second source each row of the first is, -1 for nowhere; reads the ids once."""
        planned = self._planned
        if where in planned:
            return planned[where]
        positions = self._found(where, None)
        matched = int((positions >= 0).sum())
        for owner, n in ((self.left, len(positions)), (self.right, len(self.right.index))):
            if not n and where is None:
                raise InputError(f"{owner.describe()} is empty: there are no rows to match.")
        if not matched and len(positions):
            raise InputError(
                f"No {self.key} of {self.left.describe()} is in {self.right.describe()}: are they ids of the"
                " same rows?"
            )
        unmatched = self._unmatched(where, positions, "not matched")
        if self.on_missing == "error" and unmatched:
            raise InputError(
                f"{' '.join(unmatched)} Use --on-missing drop (on_missing='drop') to compare the"
                f" {matched:,} rows that both hold."
            )
        self._planned = {where: positions}  # one filter at a time: the memory is the ids'
        return positions

    def _found(self, where: str | None, partition: Partition | None) -> NDArray[np.int64]:
        """The positions of the rows of a partition of the first source, or of all; nothing is refused."""
        index, name = self.right.index, self.left.describe()
        batches = self.left.batches([], where=where, partition=partition, batch_rows=KEY_ROWS)
        parts = [index.find(batch.column(0), name) for batch in batches]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def _unmatched(self, where: str | None, positions: NDArray[np.int64], what: str) -> list[str]:
        """A sentence per source some of whose rows the other has not."""
        matched = int((positions >= 0).sum())
        counts = [(self.left, self.right, len(positions))]
        if where is None:
            counts.append((self.right, self.left, len(self.right.index)))
        return [
            f"{n - matched:,} of {n:,} rows of {one.describe()} were {what}: {other.describe()} does not hold"
            f" their {self.key}."
            for one, other, n in counts
            if matched < n
        ]

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
        positions = self._positions(where) if partition is None else self._found(where, partition)
        mine = [c for c in columns if not self._is_right(c)]
        batches = self.left.batches(mine, where=where, partition=partition, batch_rows=batch_rows)
        return self._matched(batches, positions, columns)

    def _matched(
        self, batches: Iterator[pa.RecordBatch], positions: NDArray[np.int64], columns: Sequence[str]
    ) -> Iterator[pa.RecordBatch]:
        theirs = tuple(c for c in columns if self._is_right(c))
        needed = positions[positions >= 0]
        stream = self._stream(theirs, needed) if theirs and len(needed) else None
        fetch = stream.rows if stream else lambda keys, at: self._looked_up.take(keys, theirs)
        start = 0
        for batch in batches:
            at = positions[start : start + len(batch)]
            start += len(batch)
            if (at < 0).any():
                batch = batch.filter(pa.array(at >= 0))
                at = at[at >= 0]
            if len(batch):
                yield self._paired(batch, fetch(batch.column(0), at) if theirs else None, columns)
        if stream and stream.has_more:
            self._streams[theirs] = stream

    def _is_right(self, column: str) -> bool:
        return column in self.right.names

    def _paired(self, batch: pa.RecordBatch, other: Any, columns: Sequence[str]) -> pa.RecordBatch:
        arrays = [batch.column(0)]
        for c in columns:
            array = other.column(c) if self._is_right(c) else batch.column(c)
            arrays.append(array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array)
        return pa.RecordBatch.from_arrays(arrays, names=[self.key, *columns])

    @cached_property
    def _streams(self) -> dict[tuple[str, ...], _InStep]:
        """By columns, where the stream of the second source stands that was read along with a partition."""
        return {}

    def _stream(self, columns: tuple[str, ...], needed: NDArray[np.int64]) -> _InStep | None:
        """To be read along in step, where the rows come in one order and most are needed; else None.

        The partitions of a pass are read one after the other: each goes on where the last one ended. A source
        without random access is read along even where few rows are needed: a copy of it would cost more.
        """
        if not bool((np.diff(needed) > 0).all()):
            return None
        stream = self._streams.pop(columns, None)
        if stream is None or stream.position > needed[0]:
            stream = _InStep(self.right, columns, int(needed[0]))
        passed = int(needed[-1]) + 1 - stream.position
        dense = passed <= _MOST_PASSED_OVER * len(needed)
        return stream if dense or not self.right.random_access else None

    @property
    def _looked_up(self) -> Source | _Copy:
        """The second source, by random access: its own, or that of a copy on disk."""
        return self.right if self.right.random_access else self._copy

    @cached_property
    def _copy(self) -> _Copy:
        return _Copy(self.right, list(self.right.names))

    def take(self, keys: pa.Array, columns: Sequence[str]) -> pa.Table:
        """Rows by key, from both."""
        mine = self.left.take(keys, [c for c in columns if not self._is_right(c)])
        theirs = self._looked_up.take(keys, [c for c in columns if self._is_right(c)])
        arrays = [(theirs if self._is_right(c) else mine).column(c) for c in columns]
        return pa.Table.from_arrays([mine.column(0), *arrays], names=[self.key, *columns])

    def latest(self) -> Source:
        """The first source alone, which holds the results."""
        return self.left.latest()

    def difference(self, version: int, columns: Sequence[str], where: str | None) -> Difference | None:
        """None: what changed in the second source is not known."""
        return None

    def freshness(
        self, results: Sequence[str], reads: Sequence[str], where: str | None, *, since: int | None
    ) -> Freshness | None:
        """As far as the first source tells."""
        mine = [c for c in reads if not self._is_right(c)]
        return self.left.freshness(results, mine, where, since=since)

    def partitions(self) -> list[Partition]:
        """Those of the first source; `n_rows` counts the rows that the second has, too."""
        matched = self._positions(None) >= 0
        parts = self.left.partitions()
        ends = np.cumsum([part.n_rows for part in parts])
        return [
            Partition(part.id, int(matched[end - part.n_rows : end].sum()))
            for part, end in zip(parts, ends, strict=True)
        ]

    def sample(self, n: int, *, seed: int, columns: Sequence[str], where: str | None = None) -> pa.Table:
        """As every source's, by hashes of the ids."""
        return Source.sample(self, n, seed=seed, columns=columns, where=where)

    def annotate(self, annotation: Annotation) -> Published:
        """Annotate the first source.

        Where columns of the second are read, rows that it has not are null in every result column.
        """
        return self.left.annotate(self._left_annotation(annotation))

    def stage(self, annotation: Annotation, part: int, n_parts: int) -> int:
        """As `annotate`."""
        return self.left.stage(self._left_annotation(annotation), part, n_parts)

    def _left_annotation(self, annotation: Annotation) -> Annotation:
        mine = tuple(c for c in annotation.reads if not self._is_right(c))
        theirs = [c for c in annotation.reads if self._is_right(c)]
        if not theirs:
            return annotation
        compute = _Paired(self, annotation.reads, theirs, annotation.compute)
        compute.prepare()
        token = hashlib.blake2b(f"{annotation.token}|{self.right.fingerprint}".encode(), digest_size=12)
        return dataclasses.replace(
            annotation, reads=mine, compute=compute, token=token.hexdigest(), since=None
        )  # what changed in the second source is not known

    def at(self, version: int) -> Source:
        """Of the first source another version, joined as it is."""
        return Joined(self.left.at(version), self.right, on_missing=self.on_missing)

    def describe(self) -> str:
        """Both, by name."""
        return f"{self.left.describe()} joined with {self.right.describe()}"


@dataclass(frozen=True)
class _Paired:
    """A function of batches of a join, of batches of its first source; null for rows that the second has not.

    Sent to another process it reads the ids of the second source there, once.
    """

    joined: Joined
    reads: tuple[str, ...]
    theirs: list[str]
    compute: Callable[[pa.RecordBatch], pa.RecordBatch]

    def prepare(self) -> None:
        """Read what is looked up in, before several threads ask for it."""
        self.joined._looked_up  # noqa: B018
        self.joined.right.index  # noqa: B018

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.prepare()

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        right, owner = self.joined.right, self.joined.left.describe()
        found = right.index.find(batch.column(0), owner) >= 0
        matched = batch.filter(pa.array(found))
        other = self.joined._looked_up.take(matched.column(0), self.theirs)
        result = self.compute(self.joined._paired(matched, other, self.reads))
        back = np.cumsum(found) - 1
        return result.take(pa.array(back, mask=~found))


class _InStep:
    """Rows of a stream at increasing positions, picked as it goes by.

    Parameters
    ----------
    first
        No row before this position will be asked for: the stream begins with the partition that holds it.
    """

    def __init__(self, source: Source, columns: Sequence[str], first: int) -> None:
        parts = source.partitions()
        ends = np.cumsum([part.n_rows for part in parts])
        skipped = int(np.searchsorted(ends, first, side="right"))
        self._batches = itertools.chain.from_iterable(
            source.batches(columns, partition=part) for part in parts[skipped:]
        )
        self._current: pa.RecordBatch | None = None
        self.position = int(ends[skipped] - parts[skipped].n_rows)
        """Of the first row that can still be asked for."""
        self._end = int(ends[-1])

    @property
    def has_more(self) -> bool:
        """Whether rows are left to be read."""
        return self.position + (0 if self._current is None else len(self._current)) < self._end

    def rows(self, keys: pa.Array, at: NDArray[np.int64]) -> pa.Table:
        picked = []
        while len(at):
            while self._current is None or self.position + len(self._current) <= at[0]:
                self.position += 0 if self._current is None else len(self._current)
                self._current = next(self._batches)
            here = int(np.searchsorted(at, self.position + len(self._current)))
            inside = at[:here] - self.position
            is_run = inside[-1] - inside[0] == here - 1
            picked.append(
                self._current.slice(int(inside[0]), here) if is_run else self._current.take(pa.array(inside))
            )
            at = at[here:]
        found = pa.Table.from_batches(picked)
        if not same_keys(found.column(0), keys):
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
