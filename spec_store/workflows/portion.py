"""A seeded share of a source's rows brought into states: pass 1 for tables that need not be read whole.

The share consists of blocks of consecutive rows, drawn by a hash of their position: each block, and so each
row, has the same chance, whatever the order of the table, and what is not drawn is not read where the store
can read ranges. Neighbouring rows are often alike, so blocks tell less than as many rows drawn one by one
would. What that may have cost is therefore measured on the blocks themselves: they are dealt to groups, and
the figures are computed without each group in turn, see `standard_errors`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import pyarrow as pa

from ..connector import Partition, Source
from ..keys import hash_keys
from ..spectral.covariance import BatchSums, CovarianceAccumulator
from ..spectral.features import FeatureMap
from ..stores.memory import release_memory
from ..stores.streaming import even_batches, ordered_map, usable_cores
from .units import one_blas_thread

__all__ = ["Block", "Portion", "drawn_blocks", "sum_blocks"]

# Rows of a block: so many blocks at least are drawn, if that does not make them shorter than this.
_LEAST_BLOCKS = 128
_BLOCK_ROWS = (256, 4096)
# Bytes that the states of all groups may take.
_LARGEST_GROUPS = 512 << 20
_GROUPS = 8


@dataclass(frozen=True)
class Portion:
    """The states of a share of the rows.

    Attributes
    ----------
    groups
        Of the drawn blocks, dealt at random; one where states are too large for several.
    """

    groups: tuple[CovarianceAccumulator, ...]

    @property
    def state(self) -> CovarianceAccumulator:
        """All groups together."""
        total = CovarianceAccumulator(self.groups[0].maps)
        for group in self.groups:
            total.merge(group)
        return total


@dataclass(frozen=True)
class Block:
    """Consecutive rows: those of a partition from the `number`-th multiple of the block's rows."""

    partition: Partition
    number: int
    group: int


def drawn_blocks(
    source: Source, share: float, n_rows: int, *, n_groups: int, seed: int
) -> tuple[int, list[Block]]:
    """How many rows a block has, and the drawn blocks in the order of the source.

    Parameters
    ----------
    share
        Of all blocks, over 0.
    n_rows
        Wanted in all.
    """
    shortest, longest = _BLOCK_ROWS
    length = min(max(n_rows // _LEAST_BLOCKS, shortest), longest)
    parts = [piece for part in source.partitions() for piece in source.split(part, length)]
    every = [(part, i) for part in parts for i in range(-(-part.n_rows // length))]
    order = np.argsort(hash_keys(pa.array(np.arange(len(every))), seed), kind="stable")
    drawn = order[: max(round(share * len(every)), min(n_groups, len(every)))]
    group = {int(position): rank % n_groups for rank, position in enumerate(drawn)}
    return length, [Block(*every[position], group[position]) for position in sorted(group)]


def sum_blocks(
    source: Source,
    maps: Sequence[FeatureMap],
    n_rows: int,
    n_of: int,
    *,
    seed: int,
    where: str | None,
    threads: int | None,
    progress: Callable[[int], None],
) -> Portion:
    """Pass 1 over about `n_rows` of the `n_of` rows that match the filter.

    Notes
    -----
    Cost: that of pass 1 for the drawn rows, and a request to the store for each block; of a store that can't
    read ranges, each partition with a drawn block is read whole. Memory: eight states; fewer of large ones.
    """
    n_columns = sum(m.n_columns for m in maps)
    n_groups = _GROUPS if _GROUPS * 8 * n_columns**2 <= _LARGEST_GROUPS else 1
    groups = tuple(CovarianceAccumulator(maps) for _ in range(n_groups))
    length, blocks = drawn_blocks(source, n_rows / n_of, n_rows, n_groups=n_groups, seed=seed)
    columns = [m.column for m in maps]
    release_memory()

    def summed(item: tuple[int, pa.RecordBatch]) -> tuple[int, BatchSums]:
        group, batch = item
        return group, groups[group].batch_sums(groups[group].columns(batch))

    read = _read(source, blocks, columns, where, length)
    with one_blas_thread():
        for group, sums in ordered_map(summed, read, workers=threads or usable_cores()):
            groups[group].add(sums)
            progress(sums.n_rows + sums.invalid.n_rows)
    release_memory()
    return Portion(tuple(g for g in groups if g.n_rows or g.invalid.n_rows) or groups[:1])


def _read(
    source: Source, blocks: Sequence[Block], columns: Sequence[str], where: str | None, length: int
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Each block's group, and its rows that match the filter."""
    for partition, chosen in groupby(blocks, key=lambda block: block.partition):
        wanted = {block.number: block.group for block in chosen}
        batches = source.batches(columns, where=where, partition=partition, batch_rows=length)
        for number, batch in enumerate(even_batches(batches, length)):
            if number in wanted:
                yield wanted[number], batch
            if number >= max(wanted):
                break
