"""Values that are over-represented among the members of a cluster."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .enrichment import enriched, pairs_to_test

__all__ = ["Claims", "Value", "over_represented"]

_MOST_VALUES = 10


@dataclass(frozen=True)
class Value:
    """A value that is over-represented among the members of a cluster.

    Attributes
    ----------
    column, value
        Its column; the value, or range of values, as text of one line and at most 60 characters.
    count, share
        Members that have it, and their share of the members.
    lift
        That share over the share of all compared rows that have it.
    log_p
        Natural logarithm of the probability that so many members have it by chance, corrected for all tests.
    """

    column: str
    value: str
    count: int
    share: float
    lift: float
    log_p: float

    @property
    def p_value(self) -> float:
        """The corrected probability; 0 where it is too small for a float."""
        return math.exp(self.log_p)


@dataclass(frozen=True)
class Claims:
    """What may be said of rows by one column.

    Attributes
    ----------
    table
        Shape (n_claims, K + 1): of how many members of each cluster, and of how many rows, each is true.
    text
        The words for a claim, by its position.
    exclusive
        Whether at most one is made of a cluster, since they overlap; of equal ones the first.
    """

    column: str
    table: NDArray[np.int64]
    text: Callable[[int], str]
    exclusive: bool


def over_represented(
    claims: Sequence[Claims], sizes: NDArray[np.int64], n_rows: int
) -> list[tuple[Value, ...]]:
    """Of each cluster the claims that are over-represented, most significant first, at most 10.

    Parameters
    ----------
    claims
        Where a column makes claims of two kinds, single values and ranges, a cluster's are of the kind of the
        most significant one.
    sizes
        Shape (K,): members per cluster.
    n_rows
        Compared rows.
    """
    found: list[list[Value]] = [[] for _ in sizes]
    if not claims:
        return [() for _ in sizes]
    populations = np.full(len(sizes), n_rows)
    result = enriched([pairs_to_test(c.table[:, :-1], c.table[:, -1:], sizes, populations) for c in claims])
    kinds: dict[tuple[int, str], Claims] = {}
    for i, j in enumerate(result.clusters.tolist()):
        kind = claims[result.families[i]]
        seen = (j, kind.column) in kinds
        if len(found[j]) == _MOST_VALUES or (seen and (kind.exclusive or kinds[j, kind.column] is not kind)):
            continue
        kinds[j, kind.column] = kind
        found[j].append(
            Value(
                kind.column,
                kind.text(int(result.features[i])),
                int(result.counts[i]),
                float(result.shares[i]),
                float(result.lifts[i]),
                float(result.log_p[i]),
            )
        )
    return [tuple(values) for values in found]
