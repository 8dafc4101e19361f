"""Scans in bounded memory, the latest version, where a table lies, and commits retried on conflicts."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import lance
from lance.commit import CommitConflictError

from spec_store.errors import RetryError
from spec_store.stores.filters import parenthesized

__all__ = [
    "MAX_ATTEMPTS",
    "held_version",
    "is_conflict",
    "latest",
    "local_folder",
    "pause",
    "retried",
    "scan",
]

MAX_ATTEMPTS = 20
_IO_BUFFER = 32 << 20
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
    return isinstance(error, OSError) and ("commit conflict" in said or "incompatible transaction" in said)


def pause(attempt: int) -> None:
    """Exponential backoff with jitter, so that two writers do not keep meeting."""
    time.sleep(min(2.0, 0.02 * 2**attempt) * (0.5 + random.random()))


def retried(commit: Callable[[], T], what: str) -> T:
    """Run a commit again while it conflicts with other writers'. Raises RetryError after 20 attempts."""
    for attempt in range(MAX_ATTEMPTS):
        try:
            return commit()
        except OSError as error:
            if not is_conflict(error):
                raise
            last = error
        pause(attempt)
    raise RetryError(
        f"Gave up {what}: commit conflicts with other writers exceeded the retry limit of {MAX_ATTEMPTS}."
        " Try again."
    ) from last


def scan(
    dataset: lance.LanceDataset,
    columns: Sequence[str],
    where: str | None,
    batch_rows: int,
    fragments: Sequence[lance.LanceFragment] | None = None,
    *,
    with_row_address: bool = False,
) -> lance.LanceScanner:
    """A scanner in file order, in bounded memory."""
    return dataset.scanner(
        columns=list(columns),
        filter=None if where is None else parenthesized(where),
        fragments=fragments,
        with_row_id=True,
        with_row_address=with_row_address,
        batch_size=batch_rows,
        batch_readahead=1,
        fragment_readahead=1,
        io_buffer_size=_IO_BUFFER,
        # Reading the columns row by row after the filter is many times slower unless few rows match.
        late_materialization=False if where is not None and columns else None,
    )
