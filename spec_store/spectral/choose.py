"""The choice: of overlapping candidates those that together say most."""

from __future__ import annotations

import numpy as np
import scipy  # its submodules are imported when they are first used
from numpy.typing import NDArray

from .judge import Figures

__all__ = ["SAME", "choose", "jaccard", "match_numbers", "mean_kernels", "mismatch_mass", "worth"]

# Of a candidate's rows this share must be in none that was chosen before it.
_NEW = 0.25

# Clusters that share this much of their members, as Jaccard index, are one cluster found again.
SAME = 0.5


def worth(figures: Figures, cohesion: NDArray[np.float64]) -> NDArray[np.float64]:
    """What each candidate is worth, shape (m,): gap times the logarithm of the ratio of contrasts times
    cohesion.

    The gap alone prefers large and loose candidates. Any union of groups is captured too, with the
    contrast of its parts: each part is nearer to the union's mean than all other rows are. But its members
    are not near to each other: a union of k groups has a k-th of their cohesion.
    """
    ratio = np.clip(figures.contrast, 0.3, None)
    return np.asarray(figures.gap * np.log(np.maximum(ratio[0] / ratio[1], 1 + 1e-9)) * cohesion)


def mean_kernels(kernel: NDArray[np.float32], members: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The cohesion of each candidate, shape (m,): the mean kernel of two of its members, or of one with
    itself."""
    sizes = np.maximum(members.sum(axis=0), 1).astype(np.float32)
    means = kernel.T @ members.astype(np.float32) / sizes
    return np.asarray(np.einsum("pm,pm->m", means, means), np.float64)


def choose(members: NDArray[np.bool_], value: NDArray[np.float64]) -> list[int]:
    """Greedily by value times the root of the number of rows that no chosen one has, which lets pure clusters
    go before large ones; candidates without a positive value are passed over.

    Parameters
    ----------
    members
        Shape (n, m).
    value
        Of a row of each candidate, shape (m,).
    """
    sizes = members.sum(axis=0)
    as_numbers = members.astype(np.float32)
    free = np.ones(len(members), np.float32)
    left = value > 0
    chosen: list[int] = []
    while left.any():
        new = free @ as_numbers
        gain = np.where(left & (new >= _NEW * sizes), np.sqrt(new) * value, 0.0)
        best = int(np.argmax(gain))
        if gain[best] <= 0:
            break
        chosen.append(best)
        left[best] = False
        free[members[:, best]] = 0
    return chosen


def mismatch_mass(members: NDArray[np.bool_], gaps: NDArray[np.float64]) -> tuple[float, float]:
    """Σ (share of rows not in an earlier cluster) x gap, clusters by size x gap, the largest first; and
    the share of rows that are in any.

    How much of the table one embedding retrieves as groups and the other does not.
    """
    order = np.argsort(-members.sum(axis=0) * gaps, kind="stable")
    used = np.zeros(len(members), bool)
    mass = 0.0
    for j in order:
        mass += float(np.mean(members[:, j] & ~used)) * float(gaps[j])
        used |= members[:, j]
    return mass, float(np.mean(used)) if len(used) else 0.0


def match_numbers(found: NDArray[np.bool_], recorded: NDArray[np.bool_]) -> dict[int, int]:
    """Which found cluster is which recorded one: column of `found` to column of `recorded`.

    Matched one to one so that the shared members, as Jaccard index, are most in all, and at least half for
    each.
    """
    alike = jaccard(found, recorded)
    rows, columns = scipy.optimize.linear_sum_assignment(-np.where(alike >= SAME, alike, 0))
    return {int(i): int(j) for i, j in zip(rows, columns, strict=True) if alike[i, j] >= SAME}


def jaccard(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Of each column of `one` with each of `other`: rows in both over rows in either, shape (k, m)."""
    x, y = one.astype(np.float32), other.astype(np.float32)
    shared = (x.T @ y).astype(np.float64)
    either = one.sum(axis=0)[:, None] + other.sum(axis=0) - shared
    return np.asarray(shared / np.maximum(either, 1))
