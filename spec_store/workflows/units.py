"""The units of a pass: runs of partitions that are summed on their own, so that the sum has one order.

Floating-point sums depend on their order. A pass adds batches of equal size within a unit, and units in the
order of the store: its state is the same to the last bit however many threads, processes or machines take
part, and wherever it was interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import pyarrow as pa
from threadpoolctl import threadpool_limits

from ..connector import Partition, Source
from ..spectral.covariance import BatchSums, CovarianceAccumulator, RowColumns
from ..spectral.features import FeatureMap
from ..stores.streaming import even_batches, ordered_map

__all__ = [
    "Progressed",
    "Unit",
    "UnitSums",
    "one_blas_thread",
    "product_threads",
    "sum_units",
    "unit_batches",
    "units_of",
]

Unit = tuple[Partition, ...]

# A unit costs the sending and adding of a state, and is what a worker loses: seconds of work.
_LEAST_ROWS = 65_536
_MOST_UNITS = 1000
# A batch's own products are held in memory up to this many columns, one set per thread.
_LARGEST_THREADED = 4096


@dataclass(frozen=True)
class Progressed:
    """A pass on its way: the sum of its first units.

    Attributes
    ----------
    state
        Their rows; added to as the pass goes on.
    n_units
        How many they are.
    """

    state: CovarianceAccumulator
    n_units: int

    @property
    def n_rows(self) -> int:
        """Rows read, those that were skipped among them."""
        return self.state.n_rows + self.state.invalid.n_rows


def units_of(source: Source) -> list[Unit]:
    """The partitions of a source in runs of at least 65,536 rows, the last of what is left.

    A function of the partitions alone. Of more than 65 million rows there are a thousand units.
    """
    parts = source.partitions()
    least = max(_LEAST_ROWS, -(-sum(part.n_rows for part in parts) // _MOST_UNITS))
    units: list[Unit] = []
    pending: list[Partition] = []
    n_rows = 0
    for part in parts:
        pending.append(part)
        n_rows += part.n_rows
        if n_rows >= least:
            units.append(tuple(pending))
            pending, n_rows = [], 0
    return [*units, tuple(pending)] if pending else units


def one_blas_thread() -> threadpool_limits:
    """A block in which every product takes one thread: for those that compute batches in several threads.

    The limit is the whole process's: it belongs to a block that ends, never to a generator, which may be left
    suspended.
    """
    return threadpool_limits(1, user_api="blas")


def product_threads(maps: Sequence[FeatureMap], threads: int) -> threadpool_limits:
    """The block in which `sum_units` is to be consumed: one thread per product, all for very large ones."""
    return threadpool_limits(threads, user_api="blas") if _is_large(maps) else one_blas_thread()


def sum_units(
    source: Source,
    units: Sequence[Unit],
    maps: Sequence[FeatureMap],
    *,
    where: str | None,
    batch_rows: int,
    threads: int,
    progress: Callable[[int], None],
) -> Generator[BatchSums, None, None]:
    """The sums of each unit, in order; while one is handed over the next ones are read and computed.

    To be consumed within `product_threads`.

    Parameters
    ----------
    progress
        Called with the rows of each batch.

    Notes
    -----
    Memory: one state, a batch per thread and one more, and per thread a batch's products.
    """
    columns = [m.column for m in maps]
    batches = (
        (number, batch)
        for number, unit in enumerate(units)
        for batch in even_batches(unit_batches(source, unit, columns, where, batch_rows), batch_rows)
    )
    state = CovarianceAccumulator(maps)
    large = _is_large(maps)

    def computed(item: tuple[int, pa.RecordBatch]) -> tuple[int, RowColumns | BatchSums]:
        number, batch = item
        rows = state.columns(batch)
        return number, rows if large else state.batch_sums(rows)

    n_done = 0
    for number, rows in ordered_map(computed, batches, workers=1 if large else threads):
        while n_done < number:
            yield state.total
            state = CovarianceAccumulator(maps)
            n_done += 1
        if isinstance(rows, BatchSums):
            state.add(rows)
        else:
            state.accumulate(rows)
        progress(rows.n_rows + rows.invalid.n_rows)
    for _ in units[n_done:]:
        yield state.total
        state = CovarianceAccumulator(maps)


@dataclass(frozen=True)
class UnitSums:
    """The sums of a unit, wherever that is called: what workers are sent.

    Attributes
    ----------
    source, maps, where, batch_rows, threads
        As of `sum_units`.
    """

    source: Source
    maps: Sequence[FeatureMap]
    where: str | None
    batch_rows: int
    threads: int

    def __call__(self, unit: Unit) -> BatchSums:
        """Of one unit."""
        with product_threads(self.maps, self.threads):
            (sums,) = sum_units(
                self.source,
                [unit],
                self.maps,
                where=self.where,
                batch_rows=self.batch_rows,
                threads=self.threads,
                progress=lambda rows: None,
            )
        return sums


def _is_large(maps: Sequence[FeatureMap]) -> bool:
    return sum(m.n_columns for m in maps) > _LARGEST_THREADED


def unit_batches(
    source: Source, unit: Unit, columns: Sequence[str], where: str | None, batch_rows: int
) -> Iterator[pa.RecordBatch]:
    """A unit's partitions, one after the other."""
    parts = (source.batches(columns, where=where, partition=part, batch_rows=batch_rows) for part in unit)
    return chain.from_iterable(parts)
