"""Nearest rows of a stream that is never held: the running k best per query, and how good a ranking is."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["RunningTopK", "hits", "ndcg"]


class RunningTopK:
    """The `k` rows of a stream with the largest similarity to each of `n` queries.

    Attributes
    ----------
    ids
        Shape (n, k), int64, nearest first; arbitrary where `similarity` is -inf.
    similarity
        Shape (n, k), float32, descending; -inf where fewer than k rows were seen.

    Notes
    -----
    Exact. Of rows with equal similarity the one that came first is kept. Memory: 12 n k bytes.
    """

    def __init__(self, n_queries: int, k: int) -> None:
        self.ids = np.zeros((n_queries, k), np.int64)
        self.similarity = np.full((n_queries, k), -np.inf, np.float32)

    def update(self, start: int, similarity: NDArray[Any], ids: NDArray[np.int64]) -> None:
        """Take in a batch of rows for the queries from `start` on.

        Parameters
        ----------
        similarity
            Shape (q, m): of these queries to the rows of the batch; -inf for rows that can't be found.
        ids
            Of the rows, shape (m,).
        """
        rows = slice(start, start + len(similarity))
        held, held_ids = self.similarity[rows], self.ids[rows]
        k, m = held.shape[1], similarity.shape[1]
        better = similarity > held[:, -1:]
        if m > k and np.isneginf(held[:, -1]).any():
            better &= similarity >= np.partition(similarity, m - k, axis=1)[:, m - k, None]
        query, column = np.nonzero(better)
        if not len(query):
            return
        changed, owner = np.unique(query, return_inverse=True)
        values = np.concatenate([held[changed].ravel(), similarity[query, column]])
        candidates = np.concatenate([held_ids[changed].ravel(), ids[column]])
        owners = np.concatenate([np.repeat(np.arange(len(changed)), k), owner])
        order = np.lexsort((-values, owners))  # stable: of equal values the one that came first
        first = np.searchsorted(owners[order], np.arange(len(changed)))
        best = order[first[:, None] + np.arange(k)]
        held[changed], held_ids[changed] = values[best], candidates[best]


def hits(found: RunningTopK, wanted: RunningTopK) -> NDArray[np.bool_]:
    """Which of the found rows are wanted, shape (n, k), nearest first."""
    right = np.zeros(found.ids.shape, bool)
    for i, (ids, others) in enumerate(zip(found.ids, wanted.ids, strict=True)):
        right[i] = np.isin(ids, others[wanted.similarity[i] > -np.inf])
    return np.asarray(right & (found.similarity > -np.inf))


def ndcg(right: NDArray[np.bool_], n_wanted: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """Normalised discounted cumulative gain of rankings whose rows are right or wrong, shape (n,).

    Parameters
    ----------
    right
        Which of the k rows found are right, shape (n, k), nearest first.
    n_wanted
        How many rows would be right, shape (n,); the best ranking has as many of them in front as fit in k.
        NaN for a query for which none would be.

    References
    ----------
    Järvelin, Kekäläinen, "Cumulated gain-based evaluation of IR techniques", 2002; gain 1, discount log2.
    """
    k = right.shape[1]
    discount = 1 / np.log2(np.arange(k) + 2)
    best = np.concatenate([[np.nan], np.cumsum(discount)])[np.minimum(n_wanted, k)]
    return np.asarray((right @ discount) / best)
