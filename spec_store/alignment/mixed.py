"""Searches of an index of which some rows are mapped and others are re-embedded."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .metrics import similarities

__all__ = ["MixedSearch"]

_BLOCK = 256
# Rounding of an inner product of unit rows in float32: rows this near to the last right one are right too.
_ROUNDING = 2e-6


class _Block(NamedTuple):
    """Queries, and for each the rows that are among its k nearest in some mix; shapes (q, c)."""

    rows: NDArray[np.int32]
    target: NDArray[np.float32]
    mapped: NDArray[np.float32]
    right: NDArray[np.bool_]


class MixedSearch:
    """The search overlap of any mix of mapped and re-embedded rows, without searching the index again.

    A row's similarity to a query is one of two numbers, whatever the mix. So the k-th largest of the smaller
    of the two is a lower bound of what it takes to be found, and only rows whose larger one reaches it count.

    Parameters
    ----------
    queries
        Unit rows in the reference's space, shape (n, d).
    target, mapped
        The reference's and the index's vectors of the same rows, shape (m, d), unit length; rows of NaN can't
        be found.
    own
        Which row is each query's own, which is left out; -1 for none.
    k
        How many rows a search gives.

    Notes
    -----
    Cost: O(n m d). Memory: 13 bytes per query and row that is kept, some hundreds each for a map of any use.
    """

    def __init__(
        self,
        queries: NDArray[np.float32],
        target: NDArray[np.float32],
        mapped: NDArray[np.float32],
        own: NDArray[np.intp],
        k: int,
    ) -> None:
        self.k = min(k, len(target) - 1)
        self._queries, self._target, self._own = queries, target, own
        self._least = np.empty(len(queries), np.float32)
        self._blocks = [
            self._block(slice(start, start + _BLOCK), mapped) for start in range(0, len(queries), _BLOCK)
        ]

    def _block(self, at: slice, mapped: NDArray[np.float32]) -> _Block:
        by_target, by_map = (
            similarities(self._queries[at], x, self._own[at]) for x in (self._target, mapped)
        )
        last = by_target.shape[1] - self.k
        self._least[at] = np.partition(by_target, last, axis=1)[:, last] - _ROUNDING
        bound = np.partition(np.minimum(by_target, by_map), last, axis=1)[:, last]
        kept = np.maximum(by_target, by_map) >= bound[:, None]
        query, row = np.nonzero(kept)
        counts = kept.sum(axis=1)
        place = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
        rows = np.zeros((len(kept), int(counts.max())), np.int32)
        values = [np.full(rows.shape, -np.inf, np.float32) for _ in range(2)]
        rows[query, place] = row
        for held, similarity in zip(values, (by_target, by_map), strict=True):
            held[query, place] = similarity[query, row]
        right = (values[0] >= self._least[at][:, None]) & (values[0] > -np.inf)
        return _Block(rows, values[0], values[1], right)

    def overlap(self, embedded: NDArray[np.bool_], n_queries: int | None = None) -> NDArray[np.float64]:
        """Of the k rows that are right, the share found with these rows re-embedded.

        Parameters
        ----------
        embedded
            Rows of the index that hold the target's vectors, shape (m,).
        n_queries
            Only the first so many queries.

        Returns
        -------
        Shape (n_queries,).
        """
        n = len(self._queries) if n_queries is None else n_queries
        found = [self._shares(block, embedded) for block in self._blocks[: -(-n // _BLOCK)]]
        return np.concatenate([*found, np.empty(0)])[:n]

    def _shares(self, block: _Block, embedded: NDArray[np.bool_]) -> NDArray[np.float64]:
        similarity = np.where(embedded[block.rows], block.target, block.mapped)
        if similarity.shape[1] > self.k:
            near = np.argpartition(-similarity, self.k - 1, axis=1)[:, : self.k]
            similarity = np.take_along_axis(similarity, near, axis=1)
            right = np.take_along_axis(block.right, near, axis=1)
        else:
            right = block.right
        return np.asarray((right & (similarity > -np.inf)).sum(axis=1) / self.k)

    def overlap_of(self, found: NDArray[np.intp]) -> NDArray[np.float64]:
        """Of the rows that another search finds, shape (n, k), -1 for none, the share that is right.

        Rows for the first n queries; shape (n,).
        """
        shares = np.empty(len(found))
        for start in range(0, len(found), _BLOCK):
            at = slice(start, min(start + _BLOCK, len(found)))
            similarity = np.einsum("qd,qkd->qk", self._queries[at], self._target[found[at]])
            right = (similarity >= self._least[at][:, None]) & (found[at] >= 0)
            shares[at] = right.sum(axis=1) / self.k
        return shares
