"""Maps in closed form, from first and second moments of unit rows: where the fit begins, and baselines."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Linear",
    "PairMoments",
    "RidgePath",
    "procrustes_start",
    "rotation",
]

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


class RidgePath:
    """Affine least squares of b on a, with a penalty on what departs from a prior, for any strength.

    Parameters
    ----------
    moments
        Of the inputs a, which may be features of rows, and the outputs b.

    Attributes
    ----------
    covariance, values, basis
        Of a, shape (d_a, d_a), and its eigenvalues, shape (q,), and eigenvectors, shape (d_a, q), without
        those of no variance.

    Notes
    -----
    Cost: one eigendecomposition of a's covariance, O(d_a³); then O(d_a² d_b) for each strength.
    """

    def __init__(self, moments: PairMoments) -> None:
        m = self.moments = moments
        self.covariance = m.aa - np.outer(m.mean_a, m.mean_a)
        values, directions = np.linalg.eigh(self.covariance)
        held = values > _ROUNDING
        self.values, self.basis = values[held], directions[:, held]
        self._cross = self.basis.T @ (m.ab - np.outer(m.mean_a, m.mean_b))
        self._prior = np.zeros_like(self._cross)
        self._mean_variance = float(np.trace(self.covariance)) / len(self.covariance)

    def around(self, prior: NDArray[np.float64]) -> RidgePath:
        """The path that ends, for a penalty without bound, at these weights, shape (d_a, d_b).

        Of two models of one family most is a rotation, which a penalty towards zero would shrink.
        """
        path = copy.copy(self)
        path._prior = self.basis.T @ prior
        path._cross = self._cross - self.values[:, None] * path._prior
        return path

    def weights(self, strength: float) -> NDArray[np.float64]:
        """In the basis of `basis`, for a penalty of `strength` times the mean variance of a."""
        penalized = (self.values + strength * self._mean_variance)[:, None]
        return np.asarray(self._prior + self._cross / penalized)

    def at(self, strength: float) -> Linear:
        """The regression of this strength."""
        return self.linear(self.basis @ self.weights(strength))

    def restored(self, strength: float, share: float = 1.0) -> Linear:
        """The regression with a share of the variance restored that the penalty and the misfit took.

        The predictions are moved by the optimal transport between the two Gaussians, which gives them b's
        covariance and turns them as little as can be; a shrunken column would be nearly all mean once its
        rows are scaled to unit length.
        """
        weights = self.weights(strength)
        moved = self.basis @ (
            weights @ ((1 - share) * np.eye(weights.shape[1]) + share * self.transport(weights))
        )
        return self.linear(moved)

    def transport(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """The matrix (d_b, d_b) that gives predictions the covariance of b, for weights in the basis."""
        m = self.moments
        predicted = weights.T @ (self.values[:, None] * weights)
        root, inverse_root = _power(predicted, 0.5), _power(predicted, -0.5)
        return inverse_root @ _power(root @ (m.bb - np.outer(m.mean_b, m.mean_b)) @ root, 0.5) @ inverse_root

    def linear(self, weights: NDArray[np.float64]) -> Linear:
        """With the bias that lets the mean of a become the mean of b."""
        return Linear(weights, self.moments.mean_b - self.moments.mean_a @ weights)


def rotation(moments: PairMoments) -> NDArray[np.float64]:
    """The scaled orthogonal map (or partial isometry) nearest in least squares once means are taken away.

    Shape (d_a, d_b).
    """
    m = moments
    u, s, vt = np.linalg.svd(m.ab - np.outer(m.mean_a, m.mean_b), full_matrices=False)
    kept = u.T @ (m.aa - np.outer(m.mean_a, m.mean_a)) @ u  # of a's variance, where widths differ
    return np.asarray((u @ vt) * (s.sum() / max(float(np.trace(kept)), _ROUNDING)))


def procrustes_start(moments: PairMoments) -> Linear:
    """The orthogonal map (or partial isometry, where widths differ) nearest in least squares."""
    u, _, vt = np.linalg.svd(moments.ab, full_matrices=False)
    return Linear(u @ vt, np.zeros(len(moments.mean_b)))


def _power(matrix: NDArray[np.float64], exponent: float) -> NDArray[np.float64]:
    """A power of a positive semidefinite matrix, on the directions that hold any variance."""
    values, vectors = np.linalg.eigh(matrix)
    keep = values > max(values[-1] * 1e-6, np.finfo(np.float64).tiny)
    return np.asarray((vectors[:, keep] * values[keep] ** exponent) @ vectors[:, keep].T)
