"""Landmarks in a subspace: as near a kernel for a fraction of the products, where the rows allow it.

Most of the variance of an embedding lies in far fewer directions than it has dimensions. Landmarks that are
projected onto them are still landmarks, and their kernel columns are exact, see `NystroemMap.basis`: what
changes is where the landmarks lie. Whether a map with them is as good is measured on rows that fitted none.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import eigsh
from threadpoolctl import threadpool_limits

from .features import NystroemMap, gaussian_kernel

__all__ = ["MapError", "principal_directions", "sampled_error", "subspace_map"]

_DIMENSIONS = (64, 96, 128, 192, 256)
# The products of a row in the subspace are at most this share of those in all dimensions.
_WORTHWHILE = 0.75
# The error on unseen rows, and the coverage, relative to the map in all dimensions.
_LARGEST_ERROR = 1.1
_LEAST_COVERAGE = 0.95
# The directions of so many rows are taken: more change the map's error by a thousandth.
_DIRECTION_ROWS = 5000
_OVERSAMPLED = 32
_POWER_ITERATIONS = 2


class MapError(NamedTuple):
    """How a map fails on some rows.

    Attributes
    ----------
    norm
        The spectral norm of (K - Φ Φᵀ) / n: no eigenvalue of K / n moves by more (Weyl).
    coverage
        The mean of |φ(x)|².
    """

    norm: float
    coverage: float


def sampled_error(m: NystroemMap, rows: NDArray[Any], kernel: NDArray[np.floating[Any]]) -> MapError:
    """The error of a map on rows of which the kernel is given, shapes (n, d) and (n, n)."""
    phi = m.features(rows).astype(kernel.dtype)
    lost = kernel - phi @ phi.T
    start = np.random.default_rng(0).standard_normal(len(rows)).astype(kernel.dtype)
    largest = eigsh(lost, k=1, which="LM", v0=start, tol=1e-3, return_eigenvectors=False)
    coverage = float(np.einsum("ij,ij->", phi, phi)) / len(rows)
    return MapError(abs(float(largest[0])) / len(rows), coverage)


def principal_directions(rows: NDArray[Any], n: int, *, seed: int) -> NDArray[np.float64]:
    """The leading right singular vectors of rows, without centring, strongest first: shape (n, d).

    By a randomised range finder with power iterations, whose cost is O(len(rows) d n) [1]_.

    References
    ----------
    .. [1] Halko, Martinsson, Tropp, "Finding structure with randomness", SIAM Review 2011.
    """
    width = rows.shape[1]
    draws = np.random.default_rng([seed, width, n]).standard_normal((width, min(n + _OVERSAMPLED, width)))
    directions = draws.astype(rows.dtype)
    for _ in range(_POWER_ITERATIONS):
        directions = np.linalg.qr(rows.T @ (rows @ directions))[0]
    inside = rows @ directions
    _, rotation = np.linalg.eigh(inside.T @ inside)
    found = np.asarray(directions @ rotation[:, : -n - 1 : -1], np.float64)
    return np.asarray(np.linalg.qr(found)[0].T)


def subspace_map(full: NystroemMap, fitted: NDArray[Any], unseen: NDArray[Any], *, seed: int) -> NystroemMap:
    """The map with its landmarks in the smallest subspace in which it is as good; or itself.

    Parameters
    ----------
    full
        A map with landmarks in all dimensions.
    fitted
        The rows its landmarks were fitted on, as the map sees them: the leading directions of
        some of them span the subspaces that are tried.
    unseen
        Other rows. On them the error of the map may grow by a tenth, and its coverage fall by a twentieth.

    Notes
    -----
    Cost: a pass of `principal_directions` over the fitted rows, and an eigendecomposition of K_ZZ and a norm
    of an n x n matrix for each subspace that is tried, at most five.
    """
    width, n_landmarks = full.width, full.n_columns
    tried = [r for r in _DIMENSIONS if r * (width + n_landmarks) <= _WORTHWHILE * width * n_landmarks]
    if not tried:
        return full
    with threadpool_limits(1, user_api="blas"):
        spanning = fitted[:_DIRECTION_ROWS] - full.origin.astype(fitted.dtype)
        directions = principal_directions(spanning, tried[-1], seed=seed)
        kernel = gaussian_kernel(unseen, unseen, full.bandwidth, dtype=fitted.dtype.name)
        bar = sampled_error(full, unseen, kernel)
        for r in tried:
            reduced = _projected(full, directions[:r])
            found = sampled_error(reduced, unseen, kernel)
            if found.norm <= _LARGEST_ERROR * bar.norm and found.coverage >= _LEAST_COVERAGE * bar.coverage:
                return reduced
    return full


def _projected(full: NystroemMap, basis: NDArray[np.float64]) -> NystroemMap:
    shifted = full.landmarks - full.origin
    return replace(full, landmarks=full.origin + (shifted @ basis.T) @ basis, basis=basis)
