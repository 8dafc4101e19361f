"""The two streams over a source: into the covariance, and through the scorer into a tally of clusters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from ..connector import Source
from ..spectral.covariance import CovarianceAccumulator
from ..spectral.features import FeatureMap
from ..spectral.scoring import Scorer
from ..stores.memory import release_memory
from ..stores.streaming import even_batches, ordered_map, usable_cores

__all__ = ["ClusterTally", "accumulate", "one_blas_thread", "scored", "tally_columns"]

# A batch's own products are held in memory up to this many columns, one set per thread.
_LARGEST_THREADED = 2048
_TOP_ROWS = 10


def one_blas_thread() -> threadpool_limits:
    """A block in which every product takes one thread: for those that compute batches in several threads.

    The limit is the whole process's: it belongs to a block that ends, never to a generator, which may be left
    suspended.
    """
    return threadpool_limits(1, user_api="blas")


def accumulate(
    source: Source,
    maps: Sequence[FeatureMap],
    *,
    where: str | None,
    batch_rows: int,
    threads: int | None,
    progress: Callable[[int], None],
) -> CovarianceAccumulator:
    """Pass 1: all rows into one accumulator; reading runs ahead, and `threads` compute (None: all usable).

    The sums are taken in the store's order and over batches of equal size, so the state depends neither
    on the number of threads nor on how the store cuts its batches.
    """
    acc = CovarianceAccumulator(maps)
    release_memory()
    batches = even_batches(
        source.batches([m.column for m in maps], where=where, batch_rows=batch_rows), batch_rows
    )
    threads = threads or usable_cores()
    if acc.n_columns > _LARGEST_THREADED:
        with threadpool_limits(threads, user_api="blas"):
            for rows in ordered_map(acc.columns, batches, workers=1):
                acc.accumulate(rows)
                progress(len(rows.blocks[0]) + rows.invalid.n_rows)
    else:
        with one_blas_thread():
            for sums in ordered_map(lambda b: acc.batch_sums(acc.columns(b)), batches, workers=threads):
                acc.add(sums)
                progress(sums.n_rows + sums.invalid.n_rows)
    release_memory()
    return acc


@dataclass
class ClusterTally:
    """Sizes and typical rows of clusters, from result columns.

    Attributes
    ----------
    sizes
        Shape (K,): members per cluster.
    n_annotated
        Rows that were compared; the others are null in every result column.
    """

    n_clusters: int
    sizes: NDArray[np.int64] = field(init=False)
    n_rows: int = 0
    n_annotated: int = 0
    _top: list[list[tuple[float, int, object]]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.sizes = np.zeros(self.n_clusters, np.int64)
        self._top = [[] for _ in range(self.n_clusters)]

    def update(self, keys: pa.Array, clusters: pa.Array, scores: pa.Array) -> None:
        """Count one batch: row keys, and the ``_clusters`` and ``_scores`` columns."""
        members = clusters.flatten().to_numpy(zero_copy_only=False)
        self.sizes += np.bincount(members, minlength=self.n_clusters)[: self.n_clusters]
        annotated = np.flatnonzero(scores.is_valid().to_numpy(zero_copy_only=False))
        if len(annotated) and self.n_clusters:
            flat = scores.flatten().to_numpy(zero_copy_only=False)
            relative = flat.reshape(len(annotated), self.n_clusters)
            for j in range(self.n_clusters):
                self._rank(j, relative[:, j], annotated, keys)
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


def scored(
    source: Source,
    scorer: Scorer,
    tally: ClusterTally,
    *,
    where: str | None,
    batch_rows: int,
    threads: int | None,
    progress: Callable[[int], None],
) -> Iterator[pa.RecordBatch]:
    """Pass 2 as a stream: each row's key and result columns, in the store's order; the tally counts along.

    To be consumed within `one_blas_thread`.
    """

    def score(batch: pa.RecordBatch) -> tuple[pa.Array, pa.RecordBatch]:
        return batch.column(0), scorer.compute(batch)

    batches = source.batches([m.column for m in scorer.maps], where=where, batch_rows=batch_rows)
    for keys, result in ordered_map(score, batches, workers=threads or usable_cores()):
        tally.update(keys, result.column(1), result.column(4))
        progress(len(keys))
        yield pa.RecordBatch.from_arrays([keys, *result.columns], names=[source.key, *result.schema.names])


def tally_columns(source: Source, prefix: str, n_clusters: int, *, where: str | None) -> ClusterTally:
    """Read written result columns back and count them."""
    tally = ClusterTally(n_clusters)
    for batch in source.batches([f"{prefix}_clusters", f"{prefix}_scores"], where=where, batch_rows=65536):
        tally.update(batch.column(0), batch.column(1), batch.column(2))
    return tally
