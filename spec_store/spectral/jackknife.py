"""How far figures of a sampled state may be from those of all rows: the delete-a-group jackknife."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from .covariance import CovarianceAccumulator

__all__ = ["standard_errors"]


def standard_errors(
    groups: Sequence[CovarianceAccumulator],
    figures: Callable[[CovarianceAccumulator], NDArray[np.float64]],
    *,
    share: float,
) -> NDArray[np.float64]:
    """Standard errors of figures of the state of all groups [1]_.

    Parameters
    ----------
    groups
        States of random groups of the drawn rows, of like sizes; two at least.
    figures
        Of a state, shape (k,).
    share
        The part of all rows that was drawn; where it is all of them there is no error.

    Returns
    -------
    Shape (k,): √(1 - share) times the jackknife's. With eight groups each is known to a quarter of itself.

    References
    ----------
    .. [1] Wolter, "Introduction to variance estimation", 2nd ed., 2007, chapter 4.
    """
    n = len(groups)
    without = np.stack([figures(_without(groups, i)) for i in range(n)])
    spread = ((without - without.mean(axis=0)) ** 2).sum(axis=0)
    return np.asarray(np.sqrt((1 - share) * (n - 1) / n * spread))


def _without(groups: Sequence[CovarianceAccumulator], left_out: int) -> CovarianceAccumulator:
    rest = CovarianceAccumulator(groups[0].maps)
    for i, group in enumerate(groups):
        if i != left_out:
            rest.merge(group)
    return rest
