"""Which rows of a batch are members of which clusters, and counts over both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

__all__ = ["Counts", "Members"]


@dataclass(frozen=True)
class Members:
    """The memberships of one batch's compared rows.

    Attributes
    ----------
    rows, clusters
        Shape (n_memberships,) each, sorted by row: a compared row's position among the compared ones, and the
        position of a cluster that it is a member of.
    n_rows, n_clusters
        Compared rows, clusters.
    compared
        Which rows of the batch are compared; None is all.
    """

    rows: NDArray[np.int64]
    clusters: NDArray[np.int64]
    n_rows: int
    n_clusters: int
    compared: pa.Array | None

    @classmethod
    def of(cls, members: pa.Array, numbers: NDArray[np.int64]) -> Members:
        """From lists of cluster numbers, null where a row was not compared; other numbers are ignored.

        Parameters
        ----------
        numbers
            Shape (K,), different ones.
        """
        compared = None
        if members.null_count:
            compared = members.is_valid()
            members = members.filter(compared)
        lengths = members.value_lengths().to_numpy(zero_copy_only=False)
        rows = np.repeat(np.arange(len(members)), lengths)
        given = members.flatten().to_numpy(zero_copy_only=False)
        if not len(numbers):
            return cls(rows[:0], rows[:0], len(members), 0, compared)
        order = np.argsort(numbers)
        at = np.minimum(np.searchsorted(numbers, given, sorter=order), len(numbers) - 1)
        known = numbers[order[at]] == given
        pairs = np.unique(rows[known] * len(numbers) + order[at][known])
        return cls(pairs // len(numbers), pairs % len(numbers), len(members), len(numbers), compared)

    def choose(self, array: pa.Array) -> pa.Array:
        """The compared rows of an array that belongs to the batch."""
        return array if self.compared is None else array.filter(self.compared)

    def joined(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Each of these rows with each of its clusters: positions in `rows`, and clusters."""
        per_row = np.bincount(self.rows, minlength=self.n_rows)
        first = np.cumsum(per_row) - per_row
        n = per_row[rows]
        within = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n)
        return np.repeat(np.arange(len(rows)), n), self.clusters[np.repeat(first[rows], n) + within]


class Counts:
    """How many rows have each code: in each cluster, and in all.

    Attributes
    ----------
    table
        Shape (n_codes, K + 1), int64: the last column is of all compared rows.
    """

    def __init__(self, n_clusters: int) -> None:
        self.table = np.zeros((0, n_clusters + 1), np.int64)

    def add(
        self,
        codes: NDArray[np.int64],
        members: Members,
        *,
        n_codes: int,
        rows: NDArray[np.int64] | None = None,
    ) -> None:
        """Count one batch.

        Parameters
        ----------
        codes
            Under `n_codes`, which may have grown: one per compared row, or as many as `rows`.
        rows
            The compared row that each code belongs to; no row has a code twice.
        """
        if n_codes > len(self.table):
            self._grow(n_codes)
        width = members.n_clusters + 1
        if rows is None:
            at, clusters = members.rows, members.clusters
        else:
            at, clusters = members.joined(rows)
        cells = np.concatenate([codes * width + members.n_clusters, codes[at] * width + clusters])
        flat = self.table.reshape(-1)
        if len(flat) < 4 * len(cells):
            flat += np.bincount(cells, minlength=len(flat))
        else:
            np.add.at(flat, cells, 1)

    def _grow(self, n_codes: int) -> None:
        grown = np.zeros((n_codes, self.table.shape[1]), np.int64)
        grown[: len(self.table)] = self.table
        self.table = grown
