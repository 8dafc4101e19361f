"""The streams over a source: into the covariance, and through the scorer, into a tally or to a reader."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain, islice

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..connector import Source
from ..describe import Describer
from ..executor import IN_PROCESS, Executor
from ..spectral.covariance import CovarianceAccumulator
from ..spectral.features import FeatureMap
from ..spectral.scoring import Scorer
from ..stores.memory import release_memory
from ..stores.streaming import ordered_map, usable_cores
from .units import (
    Progressed,
    Unit,
    UnitSums,
    one_blas_thread,
    product_threads,
    sum_units,
    unit_batches,
    units_of,
)

__all__ = ["ClusterTally", "accumulate", "scored", "scored_on_demand", "tally_columns"]

_TOP_ROWS = 10


def accumulate(
    source: Source,
    maps: Sequence[FeatureMap],
    *,
    where: str | None,
    batch_rows: int,
    threads: int | None,
    progress: Callable[[int], None],
    start: Progressed | None = None,
    merged: Callable[[Progressed], None] = lambda done: None,
    executor: Executor = IN_PROCESS,
    units: Sequence[Unit] | None = None,
) -> CovarianceAccumulator:
    """Pass 1: all rows into one accumulator; reading runs ahead, and `threads` compute (None: all usable).

    The sums are taken in the store's order, over batches of equal size within units, see `units_of`: the
    state depends neither on the number of threads or workers nor on how the store cuts its batches.

    Parameters
    ----------
    start
        What an interrupted pass over the same units has summed; it is gone on with, in place.
    merged
        Called after each unit.
    executor
        Sums the units, each where it is sent; `threads` are for this process.
    units
        Only these; None is all of the source.
    """
    done = start or Progressed(CovarianceAccumulator(maps), 0)
    threads = threads or usable_cores()
    units = (units_of(source) if units is None else units)[done.n_units :]
    release_memory()
    with product_threads(maps, threads):
        if executor.remote:
            task = UnitSums(source, maps, where, batch_rows, executor.threads_each(len(units)))
            summed = executor.map(task, units)
        else:
            summed = sum_units(
                source, units, maps, where=where, batch_rows=batch_rows, threads=threads, progress=progress
            )
        with closing(summed):
            for sums in summed:
                done.state.add(sums)
                done = Progressed(done.state, done.n_units + 1)
                if executor.remote:
                    progress(sums.n_rows + sums.invalid.n_rows)
                merged(done)
    release_memory()
    return done.state


@dataclass
class ClusterTally:
    """Sizes and typical rows of clusters, and what they consist of, from result columns.

    Attributes
    ----------
    numbers
        The K clusters'.
    describer
        What counts the values of other columns along; None for no description.
    sizes
        Shape (K,): members per cluster.
    n_annotated
        Rows that were compared; the others are null in every result column.
    """

    numbers: Sequence[int]
    describer: Describer | None = None
    sizes: NDArray[np.int64] = field(init=False)
    n_rows: int = 0
    n_annotated: int = 0
    _top: list[list[tuple[float, int, object]]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.sizes = np.zeros(len(self.numbers), np.int64)
        self._top = [[] for _ in self.numbers]

    def update(self, batch: pa.RecordBatch, clusters: pa.Array, scores: pa.Array) -> None:
        """Count one batch: row keys and what is described, and the ``_clusters`` and ``_scores`` columns.

        The score of cluster k is the k-th; before version 0.2 numbers began with 0, and it was the one after.
        """
        keys = batch.column(0)
        numbers = np.asarray(self.numbers, np.int64)
        members = clusters.flatten().to_numpy(zero_copy_only=False)
        least = int(numbers.max(initial=0)) + 1
        self.sizes += np.bincount(members, minlength=least)[numbers]
        annotated = np.flatnonzero(scores.is_valid().to_numpy(zero_copy_only=False))
        if len(annotated) and len(numbers):
            flat = scores.flatten().to_numpy(zero_copy_only=False)
            relative = flat.reshape(len(annotated), -1)
            first = 0 if numbers.min() == 0 else 1
            for j, number in enumerate(numbers):
                self._rank(j, relative[:, number - first], annotated, keys)
        if self.describer is not None:
            self.describer.update(batch, clusters)
        self.n_rows += len(keys)
        self.n_annotated += len(annotated)

    def _rank(self, j: int, relative: NDArray[np.float32], rows: NDArray[np.intp], keys: pa.Array) -> None:
        top = self._top[j]
        bar = top[-1][0] if len(top) == _TOP_ROWS else 0.0
        better = np.flatnonzero(relative > bar)
        if len(better) > _TOP_ROWS:
            better = better[np.argpartition(-relative[better], _TOP_ROWS)[:_TOP_ROWS]]
        top += [(float(relative[i]), self.n_rows + int(rows[i]), keys[int(rows[i])].as_py()) for i in better]
        top.sort(key=lambda entry: (-entry[0], entry[1]))
        del top[_TOP_ROWS:]

    def top_rows(self, cluster: int) -> list[object]:
        """Keys of the rows with the highest relative membership, highest first; at most 10."""
        return [key for _, _, key in self._top[cluster]]


@dataclass(frozen=True)
class Scoring:
    """Pass 2 over units of a source, wherever it is called; pickles as its parts do.

    Attributes
    ----------
    described
        Columns beside the embeddings that are wanted of the rows.
    """

    source: Source
    scorer: Scorer
    described: tuple[str, ...]
    where: str | None
    batch_rows: int
    threads: int

    def __call__(self, unit: Unit) -> list[tuple[pa.RecordBatch, pa.RecordBatch]]:
        """All of what `stream` gives of a unit."""
        return list(self.stream([unit]))

    def stream(self, units: Sequence[Unit]) -> Generator[tuple[pa.RecordBatch, pa.RecordBatch], None, None]:
        """Row keys and described columns, and result columns, in the store's order."""
        columns = list(dict.fromkeys([*(m.column for m in self.scorer.maps), *self.described]))
        batches = chain.from_iterable(
            unit_batches(self.source, unit, columns, self.where, self.batch_rows) for unit in units
        )
        yield from ordered_map(self._scored, batches, workers=self.threads)

    def _scored(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, pa.RecordBatch]:
        return batch.select([self.source.key, *self.described]), self.scorer.compute(batch)


def scored(
    source: Source,
    scorer: Scorer,
    tally: ClusterTally,
    *,
    where: str | None,
    batch_rows: int,
    threads: int | None,
    progress: Callable[[int], None],
    executor: Executor = IN_PROCESS,
) -> Iterator[pa.RecordBatch]:
    """Pass 2 as a stream: each row's key and result columns, in the store's order; the tally counts along.

    To be consumed within `one_blas_thread`.
    """
    units = units_of(source)
    described = tuple(tally.describer.columns) if tally.describer else ()
    n_threads = executor.threads_each(len(units)) if executor.remote else threads or usable_cores()
    scoring = Scoring(source, scorer, described, where, batch_rows, n_threads)
    pieces = executor.map(scoring, units) if executor.remote else scoring.stream(units)
    with closing(pieces):
        for piece in pieces:
            for batch, result in piece if isinstance(piece, list) else [piece]:
                tally.update(batch, result.column(1), result.column(4))
                progress(len(batch))
                yield _with_key(source, batch, result)


def scored_on_demand(
    source: Source, scorer: Scorer, *, where: str | None, batch_rows: int, threads: int | None
) -> Iterator[pa.RecordBatch]:
    """Each row's key and result columns, in the store's order, for a reader that may stop at any batch.

    As many batches as threads are read and computed together, and handed over when all of them are done: so
    nothing computes, and no limit on products holds, while the reader has one of them.
    """
    workers = threads or usable_cores()
    batches = source.batches([m.column for m in scorer.maps], where=where, batch_rows=batch_rows)

    def score(batch: pa.RecordBatch) -> pa.RecordBatch:
        return _with_key(source, batch, scorer.compute(batch))

    while held := list(islice(batches, workers)):
        with one_blas_thread(), ThreadPoolExecutor(workers, thread_name_prefix="spec-store") as pool:
            held = list(pool.map(score, held))
        yield from held


def _with_key(source: Source, batch: pa.RecordBatch, result: pa.RecordBatch) -> pa.RecordBatch:
    """The key of a batch beside its result columns."""
    return pa.RecordBatch.from_arrays(
        [batch.column(0), *result.columns], names=[source.key, *result.schema.names]
    )


def tally_columns(source: Source, prefix: str, tally: ClusterTally, *, where: str | None) -> ClusterTally:
    """Read written result columns back, and what is to be described, and count them."""
    results = [f"{prefix}_clusters", f"{prefix}_scores"]
    described = tally.describer.columns if tally.describer else ()
    for batch in source.batches([*results, *described], where=where, batch_rows=65536):
        tally.update(batch, batch.column(1), batch.column(2))
    return tally
