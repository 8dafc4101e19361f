"""What is over-represented in a cluster: exact tail probabilities, corrected for the number of tests.

References
----------
.. [1] Rivals, Personnaz, Taing, Potier, "Enrichment or depletion of a GO category within a class of genes:
   which test?", Bioinformatics 2007: the hypergeometric test.
.. [2] Holm, "A simple sequentially rejective multiple test procedure", Scandinavian J. of Statistics 1979.
.. [3] Tarone, "A modified Bonferroni method for discrete data", Biometrics 1990.
.. [4] Dunning, "Accurate methods for the statistics of surprise and coincidence", Comput. Linguistics 1993.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy  # its submodules are imported when they are first used
from numpy.typing import NDArray

__all__ = ["Enriched", "enriched", "log_upper_tail", "pairs_to_test"]

_LARGEST_P = 0.01
_SMALLEST_LIFT = 1.2
_SMALLEST_SHARE = 0.05


@dataclass(frozen=True)
class Pairs:
    """Pairs of a feature and a cluster with the counts to test, shape (n,) each.

    Attributes
    ----------
    features, clusters
        Positions.
    counts, totals
        Rows that have the feature: members, and all.
    drawn, populations
        Members, and all rows.
    bases
        Share of the rows that have the feature.
    n_tests
        Pairs that might have been here by their totals and members alone.
    """

    features: NDArray[np.intp]
    clusters: NDArray[np.intp]
    counts: NDArray[np.int64]
    totals: NDArray[np.int64]
    drawn: NDArray[np.int64]
    populations: NDArray[np.int64]
    bases: NDArray[np.float64]
    n_tests: int


def pairs_to_test(
    counts: NDArray[np.int64],
    totals: NDArray[np.int64],
    drawn: NDArray[np.int64],
    populations: NDArray[np.int64],
    bases: NDArray[np.float64] | None = None,
) -> Pairs:
    """The pairs whose feature has a lift of 1.2 or more and is found in 5% of the members or more.

    Parameters
    ----------
    counts
        Shape (V, K): members of each cluster that have each feature.
    totals
        Shape (V, K) or (V, 1): all rows that have it.
    drawn
        Shape (K,): members.
    populations
        Shape (K,): all rows.
    bases
        Shape of `totals`: share of all rows that have it, where `totals` are not of a uniform sample.
    """
    if bases is None:
        bases = totals / np.maximum(populations, 1)
    possible = (totals >= _SMALLEST_SHARE * drawn) & (totals < populations) & (drawn > 0)
    bar = np.maximum(_SMALLEST_SHARE, _SMALLEST_LIFT * bases) * drawn
    features, clusters = np.nonzero(possible & (counts > 0) & (counts >= bar))
    column = clusters if totals.shape[1] > 1 else np.zeros_like(clusters)
    return Pairs(
        features,
        clusters,
        counts[features, clusters],
        totals[features, column],
        drawn[clusters],
        populations[clusters],
        bases[features, column],
        int(possible.sum()),
    )


@dataclass(frozen=True)
class Enriched:
    """Pairs that pass the test, by cluster and then the most significant first, shape (n,) each.

    Attributes
    ----------
    families, features, clusters
        Positions of the `Pairs`, and as in them.
    counts, shares, lifts
        Members that have the feature, their share of the members, and that over the share of all rows.
    log_p
        Natural logarithm of the corrected p.
    """

    families: NDArray[np.intp]
    features: NDArray[np.intp]
    clusters: NDArray[np.intp]
    counts: NDArray[np.int64]
    shares: NDArray[np.float64]
    lifts: NDArray[np.float64]
    log_p: NDArray[np.float64]


def enriched(families: list[Pairs]) -> Enriched:
    """The pairs whose corrected p is under 0.01.

    Notes
    -----
    p is the hypergeometric upper tail [1]_, corrected over all pairs of all families by Holm's step-down
    procedure [2]_. Pairs that were not to be tested take part with p = 1, except those that could not have
    been whatever the counts: these are told from totals and members alone, and are no tests [3]_.

    -log p of a cluster is its size times the divergence of the share from that in the table (nearly [4]_), so
    that its order is a reader's: what 95% of the members and 1% of the rows have comes before what 30% and
    0.1% have, and both before what all members and half of the rows have. Of equals the first comes first.

    Cost: O(1) for each pair, in about 200 steps over all of them.
    """
    family = np.repeat(np.arange(len(families)), [len(f.features) for f in families])
    features, clusters, counts, totals, drawn, populations, bases = (
        np.concatenate([getattr(f, name) for f in families])
        for name in ("features", "clusters", "counts", "totals", "drawn", "populations", "bases")
    )
    log_p = log_upper_tail(counts, totals, drawn, populations)
    corrected = _holm(log_p, sum(f.n_tests for f in families))
    order = np.lexsort((log_p, clusters))
    order = order[corrected[order] < np.log(_LARGEST_P)]
    shares = (counts / drawn)[order]
    return Enriched(
        family[order], features[order], clusters[order], counts[order],
        shares, shares / bases[order], corrected[order],
    )  # fmt: skip


def log_upper_tail(
    counts: NDArray[np.int64],
    totals: NDArray[np.int64],
    drawn: NDArray[np.int64],
    populations: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Natural logarithm of P(X ≥ count), shape (n,): X of `drawn` rows have what `totals` of all rows have.

    Parameters
    ----------
    counts, totals, drawn, populations
        Shape (n,) each; counts above their expectation, where the terms of the tail fall at once.

    Notes
    -----
    `scipy.stats.hypergeom.logsf` sums ``drawn`` terms in a Python loop over the tests; here all tests go a
    term further together, until none adds a digit.
    """
    k, total, n, population = (np.asarray(x, np.float64) for x in (counts, totals, drawn, populations))
    first = _log_choose(total, k) + _log_choose(population - total, n - k) - _log_choose(population, n)
    term, tail, step = np.ones_like(k), np.ones_like(k), k.copy()
    while (term > 1e-17 * tail).any():
        term *= (total - step) * (n - step) / ((step + 1) * (population - total - n + step + 1))
        tail += term
        step += 1
    return np.minimum(first + np.log(tail), 0.0)


def _log_choose(n: NDArray[np.float64], k: NDArray[np.float64]) -> NDArray[np.float64]:
    gammaln = scipy.special.gammaln
    return np.asarray(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))


def _holm(log_p: NDArray[np.float64], n_tests: int) -> NDArray[np.float64]:
    """Logarithms of the p corrected for `n_tests`, of which these are the smallest, shape (n,)."""
    order = np.argsort(log_p, kind="stable")
    steps = log_p[order] + np.log(np.maximum(n_tests - np.arange(len(order)), 1))
    corrected = np.empty_like(log_p)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 0.0)
    return corrected
