"""Batches of one size, and computing on them in several threads, in order and in bounded memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TypeVar

import pyarrow as pa

__all__ = ["even_batches", "ordered_map", "usable_cores"]

T = TypeVar("T")
R = TypeVar("R")


def ordered_map(
    function: Callable[[T], R], items: Iterable[T], *, workers: int = 2, ahead: int = 1
) -> Iterator[R]:
    """Yield ``function(item)`` for each item, in the order of `items`, computed in threads.

    At most ``workers + ahead`` items are held at once. The results come in order whatever the
    threads do, so sums taken over them are the same in every run. The first error, of `items` or of
    `function`, ends the iteration; work that has not begun is dropped.
    """
    pending: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="spec-store")
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            del item  # the thread alone holds it now: it is freed as soon as it is computed
            if len(pending) >= workers + ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def even_batches(batches: Iterator[pa.RecordBatch], n: int) -> Iterator[pa.RecordBatch]:
    """Batches of `n` rows, the last one of what is left; copies only where batches are cut otherwise."""
    pending: list[pa.RecordBatch] = []
    missing = n
    for batch in batches:
        while len(batch) >= missing:
            pending.append(batch.slice(0, missing))
            batch = batch.slice(missing)
            yield pending[0] if len(pending) == 1 else _joined(pending)
            pending, missing = [], n
        if len(batch):
            pending.append(batch)
            missing -= len(batch)
    if pending:
        yield _joined(pending)


def _joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    """One batch; `pyarrow.concat_batches` is of pyarrow 19 only."""
    columns = [pa.concat_arrays(arrays) for arrays in zip(*(b.columns for b in batches), strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=batches[0].schema)


def usable_cores(root: Path = Path("/")) -> int:
    """How many cores this process may use: of those it may run on, what its CPU quota pays for; 1 at least.

    Parameters
    ----------
    root
        Where ``/proc`` and ``/sys`` are found.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min([cores, *(int(quota) for quota in _quotas(root))]))


def _quotas(root: Path) -> Iterator[float]:
    """The CPU quotas, in cores, of this process's control group and of those above it, versions 1 and 2."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # no Linux, or no /proc: no quotas that could be read
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        place = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        names = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if controllers else ("cpu.max",)
        path = PurePosixPath(group.lstrip("/"))
        for folder in (path, *path.parents):  # in a container the group's own path may lead nowhere
            try:
                quota, period = " ".join((place / folder / name).read_text() for name in names).split()
            except (OSError, ValueError):
                continue
            if quota != "max" and int(quota) > 0:
                yield int(quota) / int(period)
