"""How far a subspace of modes has turned: principal angles under the rows' second moment.

References
----------
.. [1] Björck, Golub, "Numerical methods for computing angles between linear subspaces", Mathematics of
   Computation 1973.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .spectrum import SecondMoment

__all__ = ["largest_angle"]

# Directions that rows hardly take, relative to the one that they take most.
_CUT = 1e-10


def largest_angle(
    modes: NDArray[np.float64], others: NDArray[np.float64], moment: SecondMoment, *, center: bool
) -> float:
    """The largest principal angle [1]_ between the scores of modes and the span of others', in degrees.

    Parameters
    ----------
    modes, others
        Weights, shapes (p, k) and (p, m), m ≥ k: scores are φ·w. With more of the others than modes, order
        and near ties among modes do not count as turning.
    moment
        Of the rows on which scores are compared.
    center
        Whether scores are taken less their means.

    Returns
    -------
    0 where the others span all modes, 90 where a combination of modes is uncorrelated with all of them.
    """
    if not modes.shape[1]:
        return 0.0
    if not others.shape[1]:
        return 90.0
    c = moment.matrix - np.outer(moment.mean, moment.mean) if center else moment.matrix
    a, b = (_orthonormal(w, c) for w in (modes, others))
    cosines = np.linalg.svd(a.T @ c @ b, compute_uv=False)
    smallest = float(cosines[-1]) if len(cosines) == a.shape[1] else 0.0
    return float(np.degrees(np.arccos(np.clip(smallest, 0.0, 1.0))))


def _orthonormal(weights: NDArray[np.float64], c: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights that span the same scores, uncorrelated and of mean square 1."""
    values, vectors = np.linalg.eigh(weights.T @ c @ weights)
    keep = values > _CUT * values[-1]
    return np.asarray(weights @ (vectors[:, keep] / np.sqrt(values[keep])))
