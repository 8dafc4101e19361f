"""Maps in closed form, from first and second moments of unit rows: where the fit begins, and baselines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Linear", "PairMoments", "affine_start", "procrustes_start", "ridge_start"]

# Unit rows have a variance of 1 at most in all; rounding errors of float32 lie below this.
_ROUNDING = 1e-8


class Linear(NamedTuple):
    """x W + c: weights W, shape (d_a, d_b), and bias c, shape (d_b,)."""

    weights: NDArray[np.float64]
    bias: NDArray[np.float64]


@dataclass(frozen=True)
class PairMoments:
    """Moments of pairs of unit rows a, b.

    Attributes
    ----------
    mean_a, mean_b
        Shape (d_a,), (d_b,).
    aa, ab, bb
        E[a aᵀ] (d_a, d_a), E[a bᵀ] (d_a, d_b), E[b bᵀ] (d_b, d_b); not centred.
    """

    mean_a: NDArray[np.float64]
    mean_b: NDArray[np.float64]
    aa: NDArray[np.float64]
    ab: NDArray[np.float64]
    bb: NDArray[np.float64]


def ridge_start(moments: PairMoments, ridge: float) -> Linear:
    """Affine least squares with a penalty of `ridge` times the mean variance of a."""
    m = moments
    c_aa = m.aa - np.outer(m.mean_a, m.mean_a)
    c_ab = m.ab - np.outer(m.mean_a, m.mean_b)
    values, directions = np.linalg.eigh(c_aa)
    held = values > _ROUNDING
    basis = directions[:, held]
    penalized = values[held] + ridge * np.trace(c_aa) / len(c_aa)
    weights = basis @ ((basis.T @ c_ab) / penalized[:, None])
    return Linear(weights, m.mean_b - m.mean_a @ weights)


def affine_start(moments: PairMoments, ridge: float) -> Linear:
    """`ridge_start` with the variance restored that the penalty and the misfit took.

    The predictions are moved by the optimal transport between the two Gaussians, which gives them b's
    covariance and turns them as little as can be; a shrunken column would be nearly all mean once its rows
    are scaled to unit length.
    """
    weights = ridge_start(moments, ridge).weights
    m = moments
    c_yy = weights.T @ (m.aa - np.outer(m.mean_a, m.mean_a)) @ weights
    c_bb = m.bb - np.outer(m.mean_b, m.mean_b)
    root, inverse_root = _power(c_yy, 0.5), _power(c_yy, -0.5)
    restored = weights @ inverse_root @ _power(root @ c_bb @ root, 0.5) @ inverse_root
    return Linear(restored, m.mean_b - m.mean_a @ restored)


def procrustes_start(moments: PairMoments) -> Linear:
    """The orthogonal map (or partial isometry, where widths differ) nearest in least squares."""
    u, _, vt = np.linalg.svd(moments.ab, full_matrices=False)
    return Linear(u @ vt, np.zeros(len(moments.mean_b)))


def _power(matrix: NDArray[np.float64], exponent: float) -> NDArray[np.float64]:
    """A power of a positive semidefinite matrix, on the directions that hold any variance."""
    values, vectors = np.linalg.eigh(matrix)
    keep = values > max(values[-1] * 1e-6, np.finfo(np.float64).tiny)
    return np.asarray((vectors[:, keep] * values[keep] ** exponent) @ vectors[:, keep].T)
