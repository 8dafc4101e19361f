"""Scans in bounded memory, the latest version, where a table lies, and commits retried on conflicts."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import lance
import pyarrow as pa
from lance.commit import CommitConflictError

from spec_store.errors import RetryError
from spec_store.stores.filters import parenthesized
from spec_store.stores.streaming import ordered_map

__all__ = [
    "MAX_ATTEMPTS",
    "FragmentRange",
    "held_version",
    "is_conflict",
    "latest",
    "local_folder",
    "pause",
    "read_ahead",
    "retried",
    "scan",
]

MAX_ATTEMPTS = 20
_IO_BUFFER = 32 << 20
_CONFLICTS = ("commit conflict", "incompatible transaction", "too many concurrent writers")
# Of rows that are read in one request, while those before are computed with: Lance holds pages, which may be
# of any size, several times over.
_AHEAD_BYTES = 48 << 20
# Of a row's vector whose width the schema does not tell.
_ASSUMED_BYTES = 4096
T = TypeVar("T")


def latest(dataset: lance.LanceDataset) -> lance.LanceDataset:
    """The newest version, with the same access to its storage."""
    return dataset.checkout_version(dataset.latest_version)


def held_version(dataset: lance.LanceDataset, version: int) -> lance.LanceDataset | None:
    """An earlier version; None for one that was cleaned up."""
    if all(v["version"] != version for v in dataset.versions()):
        return None
    return dataset.checkout_version(version)


def local_folder(dataset: lance.LanceDataset) -> Path | None:
    """The table's folder; None for a table in an object store."""
    return None if "://" in dataset.uri else Path(dataset.uri)


def is_conflict(error: BaseException) -> bool:
    """Whether a commit failed because another writer's came first."""
    if isinstance(error, CommitConflictError):
        return True
    said = str(error).lower()
    kinds = (OSError, RuntimeError)  # of Lance, and of LanceDB
    return isinstance(error, kinds) and any(words in said for words in _CONFLICTS)


def pause(attempt: int) -> None:
    """Exponential backoff with jitter, so that two writers do not keep meeting."""
    time.sleep(min(2.0, 0.02 * 2**attempt) * (0.5 + random.random()))


def retried(commit: Callable[[], T], what: str) -> T:
    """Run a commit again while it conflicts with other writers'. Raises RetryError after 20 attempts."""
    for attempt in range(MAX_ATTEMPTS):
        try:
            return commit()
        except (OSError, RuntimeError) as error:
            if not is_conflict(error):
                raise
            last: Exception = error
        pause(attempt)
    raise RetryError(
        f"Gave up {what}: commit conflicts with other writers exceeded the retry limit of {MAX_ATTEMPTS}."
        " Try again."
    ) from last


@dataclass(frozen=True)
class FragmentRange:
    """Some of a fragment's rows, counted from 0 without those that were deleted."""

    fragment: lance.LanceFragment
    start: int
    stop: int

    @property
    def is_whole(self) -> bool:
        """Whether these are all of the fragment's rows."""
        return self.start == 0 and self.stop >= self.fragment.count_rows()

    def condition(self, dataset: lance.LanceDataset) -> str:
        """SQL that selects these rows of the fragment."""
        conditions = [f"_rowaddr >= {self._address(dataset, self.start)}"]
        if self.stop < self.fragment.count_rows():
            conditions.append(f"_rowaddr < {self._address(dataset, self.stop)}")
        return " AND ".join(conditions)

    def _address(self, dataset: lance.LanceDataset, row: int) -> int:
        """Where a row is; reads metadata alone."""
        found = dataset.scanner(
            columns=[], fragments=[self.fragment], with_row_address=True, offset=row, limit=1
        )
        return int(found.to_table()["_rowaddr"][0].as_py())


def scan(
    dataset: lance.LanceDataset,
    columns: Sequence[str],
    where: str | None,
    batch_rows: int,
    fragments: Sequence[lance.LanceFragment] | None = None,
    *,
    part: FragmentRange | None = None,
    with_row_address: bool = False,
) -> lance.LanceScanner:
    """A scanner in file order, in bounded memory: over a data set, some fragments, or a part of one."""
    chosen: dict[str, Any] = {"fragments": fragments if part is None else [part.fragment]}
    condition = None if where is None else parenthesized(where)
    # Reading the columns row by row after the filter is many times slower unless few rows match.
    late = False if where is not None and columns else None
    if part is not None and not part.is_whole:
        if condition is None:
            chosen |= {"offset": part.start, "limit": part.stop - part.start}
        else:  # an offset counts rows that match; and only late are the other rows of the fragment not read
            condition, late = f"{condition} AND {part.condition(dataset)}", True if columns else None
    return dataset.scanner(
        columns=list(columns),
        filter=condition,
        with_row_id=True,
        with_row_address=with_row_address,
        batch_size=batch_rows,
        batch_readahead=1,
        fragment_readahead=1,
        io_buffer_size=_IO_BUFFER,
        late_materialization=late,
        **chosen,
    )


def read_ahead(
    dataset: lance.LanceDataset,
    columns: Sequence[str],
    batch_rows: int,
    part: FragmentRange,
    *,
    with_row_address: bool = False,
) -> Iterator[pa.RecordBatch]:
    """All rows of a part in order, some 48 MB at a time: the next are read while these are computed with.

    A scan of the whole part would take memory by the pages in which the file was written.
    """

    def read(start: int) -> list[pa.RecordBatch]:
        piece = FragmentRange(part.fragment, start, min(start + step, part.stop))
        scanner = scan(dataset, columns, None, batch_rows, part=piece, with_row_address=with_row_address)
        return list(scanner.to_batches())

    per_batch = max(batch_rows * _row_bytes(dataset.schema, columns), 1)
    step = batch_rows * max(_AHEAD_BYTES // per_batch, 1)
    for batches in ordered_map(read, range(part.start, part.stop, step), workers=1):
        while batches:
            yield batches.pop(0)


def _row_bytes(schema: pa.Schema, columns: Sequence[str]) -> int:
    """Bytes of some columns' values in a row, about."""
    known = {f.name: f.type for f in schema}
    return sum(_value_bytes(known.get(column)) for column in columns)


def _value_bytes(kind: pa.DataType | None) -> int:
    if kind is not None and pa.types.is_fixed_size_list(kind):
        return int(kind.list_size) * _value_bytes(kind.value_type)
    try:
        return _ASSUMED_BYTES if kind is None else max(kind.bit_width // 8, 1)
    except ValueError:  # of no fixed width
        return _ASSUMED_BYTES
