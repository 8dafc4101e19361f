"""Bandwidths of the Gaussian kernel, chosen on sampled rows, and warnings where one hides all clusters.

Too small a bandwidth turns the kernel matrix into the identity, too large a one makes it constant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray
from scipy.sparse.linalg import eigsh

from ..errors import InputError

__all__ = ["Bandwidths", "auto_bandwidths", "examine_bandwidths"]

# The paper's examples amount to this multiple of the median pairwise distance, k(median pair) = 0.07.
_MEDIAN_FACTOR = 0.43
_NEARLY_IDENTITY = 1e-4
_NEARLY_CONSTANT = 0.9


@dataclass(frozen=True)
class Bandwidths:
    """Bandwidths σ of both embeddings, and what the kernel does at them on the sampled rows.

    Attributes
    ----------
    values
        σ_A and σ_B, in units of distance between (normalised) rows.
    largest_eigenvalues
        Of the sampled K_A/n and K_B/n.
    median_kernels
        The kernel's value for the median pair of distinct rows.
    """

    values: tuple[float, float]
    largest_eigenvalues: tuple[float, float]
    median_kernels: tuple[float, float]

    def warnings(self, columns: Sequence[str]) -> list[str]:
        """What to tell a person whose kernel is nearly the identity, or nearly constant."""
        told = []
        for column, sigma, median in zip(columns, self.values, self.median_kernels, strict=True):
            if median < _NEARLY_IDENTITY:
                told.append(
                    f"bandwidth {sigma:.4g} is small for column {column!r}: the median kernel value is"
                    f" {median:.2g}, nearly every row stands alone. Try a larger --bandwidth, or auto."
                )
            elif median > _NEARLY_CONSTANT:
                told.append(
                    f"bandwidth {sigma:.4g} is large for column {column!r}: the median kernel value is"
                    f" {median:.3f}, nearly all rows look alike. Try a smaller --bandwidth, or auto."
                )
        return told


def auto_bandwidths(
    a: NDArray[np.floating], b: NDArray[np.floating], columns: Sequence[str], *, scale: float = 1.0
) -> Bandwidths:
    """Bandwidths at which the two kernels hold together equally.

    Starts from 0.43 times the median distance for each, then moves both until the largest eigenvalue of
    each sampled K/n is the geometric mean of the two: symmetric in the embeddings, so that comparing
    (b, a) is comparing (a, b) with the ends swapped.

    Parameters
    ----------
    a, b
        Sampled rows, shapes (n, d_A) and (n, d_B), normalised where the kernel is; n of 2,000 is enough.
    scale
        Multiplies both bandwidths at the end, for sweeps.

    Raises
    ------
    InputError
        More than half of the pairs are at distance zero.
    """
    distances = [_sq_distances(x) for x in (a, b)]
    start = [_MEDIAN_FACTOR * _median_distance(d, c) for d, c in zip(distances, columns, strict=True)]
    reached = [_largest_eigenvalue(d, s) for d, s in zip(distances, start, strict=True)]
    target = float(np.sqrt(reached[0] * reached[1]))
    values = [_match(d, s, target) * scale for d, s in zip(distances, start, strict=True)]
    return _examined(distances, values)


def examine_bandwidths(
    a: NDArray[np.floating], b: NDArray[np.floating], values: tuple[float, float]
) -> Bandwidths:
    """The figures of `Bandwidths` for bandwidths that a person fixed."""
    return _examined([_sq_distances(x) for x in (a, b)], values)


def _examined(distances: Sequence[NDArray[np.float64]], values: Sequence[float]) -> Bandwidths:
    largest = [_largest_eigenvalue(d, s) for d, s in zip(distances, values, strict=True)]
    kernels = [
        float(np.exp(-np.median(_pairs(d)) / (2 * s * s))) for d, s in zip(distances, values, strict=True)
    ]
    return Bandwidths((values[0], values[1]), (largest[0], largest[1]), (kernels[0], kernels[1]))


def _sq_distances(x: NDArray[np.floating]) -> NDArray[np.float64]:
    x = np.asarray(x, np.float64)
    x = x - np.median(x, axis=0)  # a mean would follow a few rows that lie far out, at the others' expense
    sq = np.einsum("ij,ij->i", x, x)
    d = sq[:, None] + sq - 2 * (x @ x.T)
    np.fill_diagonal(d, 0.0)
    return np.asarray(np.maximum(d, 0.0, out=d))


def _pairs(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    return distances[np.triu_indices(len(distances), 1)]


def _median_distance(distances: NDArray[np.float64], column: str) -> float:
    median = float(np.sqrt(np.median(_pairs(distances))))
    if median <= 1e-6 * float(np.sqrt(distances.max())) or median == 0.0:
        raise InputError(
            f"Column {column!r}: more than half of the sampled pairs of rows are the same vector, so no"
            " bandwidth can be chosen. Give --bandwidth, or leave out duplicates with --where."
        )
    return median


def _largest_eigenvalue(distances: NDArray[np.float64], bandwidth: float) -> float:
    kernel = np.exp(distances * (-0.5 / bandwidth**2))
    n = len(kernel)
    if n <= 3:
        return float(np.linalg.eigvalsh(kernel)[-1] / n)
    values = eigsh(kernel, k=1, which="LA", v0=np.ones(n), tol=1e-9, return_eigenvectors=False)
    return float(values[0] / n)


def _match(distances: NDArray[np.float64], start: float, target: float) -> float:
    """The bandwidth whose largest eigenvalue is `target`; it grows with the bandwidth, from 1/n to 1."""

    def excess(log_bandwidth: float) -> float:
        return _largest_eigenvalue(distances, float(np.exp(log_bandwidth))) - target

    low = high = float(np.log(start))
    while excess(low) > 0 and low > np.log(start) - 7:
        low -= 0.5
    while excess(high) < 0 and high < np.log(start) + 7:
        high += 0.5
    if excess(low) >= 0 or excess(high) <= 0:
        return start
    return float(np.exp(scipy.optimize.brentq(excess, low, high, xtol=1e-7)))
