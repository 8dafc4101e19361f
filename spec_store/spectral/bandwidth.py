"""Bandwidths of the Gaussian kernel, chosen on sampled rows, and warnings where one hides all clusters.

Too small a bandwidth turns the kernel matrix into the identity, too large a one makes it constant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray
from scipy.sparse.linalg import eigsh

from ..errors import InputError

__all__ = ["Bandwidth", "Bandwidths", "auto_bandwidths", "examine_bandwidths"]

# The paper's examples amount to this multiple of the median pairwise distance, k(median pair) = 0.07.
_MEDIAN_FACTOR = 0.43
_NEARLY_IDENTITY = 1e-4
_NEARLY_CONSTANT = 0.9


@dataclass(frozen=True)
class Bandwidth:
    """An embedding's bandwidth σ, and what its kernel does on the sampled rows.

    Attributes
    ----------
    sigma
        In units of distance between (normalised) rows.
    largest_eigenvalue
        Of the sampled K/n.
    median_kernel
        The kernel's value for the median pair of distinct rows.
    """

    sigma: float
    largest_eigenvalue: float
    median_kernel: float

    def warning(self, column: str) -> str | None:
        """A message for a person whose kernel is nearly the identity, or nearly constant."""
        if self.median_kernel < _NEARLY_IDENTITY:
            return (
                f"bandwidth {self.sigma:.4g} is small for column {column!r}: the median kernel value is"
                f" {self.median_kernel:.2g}, nearly every row stands alone. Try a larger --bandwidth,"
                " or auto."
            )
        if self.median_kernel > _NEARLY_CONSTANT:
            return (
                f"bandwidth {self.sigma:.4g} is large for column {column!r}: the median kernel value is"
                f" {self.median_kernel:.3f}, nearly all rows look alike. Try a smaller --bandwidth,"
                " or auto."
            )
        return None


@dataclass(frozen=True)
class Bandwidths:
    """The bandwidths of embeddings that are compared with each other, by column, in the order given."""

    by_column: Mapping[str, Bandwidth]

    def __getitem__(self, column: str) -> Bandwidth:
        """The bandwidth of one embedding."""
        return self.by_column[column]

    @property
    def values(self) -> tuple[float, ...]:
        """σ of each embedding."""
        return tuple(b.sigma for b in self.by_column.values())

    def warnings(self) -> list[str]:
        """Messages about kernels that hide all clusters."""
        found = (bandwidth.warning(column) for column, bandwidth in self.by_column.items())
        return [message for message in found if message is not None]


def auto_bandwidths(samples: Mapping[str, NDArray[np.floating]], *, scale: float = 1.0) -> Bandwidths:
    """Bandwidths at which the kernels of all embeddings have one and the same largest eigenvalue.

    Starts from 0.43 times the median distance for each, then moves each until the largest eigenvalue of its
    sampled K/n is the geometric mean over all embeddings: symmetric in them, so that comparing (b, a) is
    comparing (a, b) with the ends swapped, and one bandwidth per embedding, whatever pairs are compared.

    Parameters
    ----------
    samples
        By column, sampled rows, shape (n, d), normalised where the kernel is; n of 2,000 is enough.
    scale
        Multiplies all bandwidths at the end, for sweeps.

    Raises
    ------
    InputError
        More than half of the pairs are at distance zero.

    Notes
    -----
    Cost: O(n²) memory, and about 30 products with an n x n matrix per embedding and step of the search.
    """
    start, reached = [], []
    for column, x in samples.items():
        distances = _sq_distances(x)
        start.append(_MEDIAN_FACTOR * _median_distance(distances, column))
        reached.append(_largest_eigenvalue(distances, start[-1]))
    target = float(np.exp(np.mean(np.log(reached))))
    found = {}
    for (column, x), first in zip(samples.items(), start, strict=True):
        distances = _sq_distances(x)
        found[column] = _examined(distances, _match(distances, first, target) * scale)
    return Bandwidths(found)


def examine_bandwidths(samples: Mapping[str, NDArray[np.floating]], values: Sequence[float]) -> Bandwidths:
    """The figures of `Bandwidths` for bandwidths that a person fixed."""
    given = zip(samples.items(), values, strict=True)
    return Bandwidths({column: _examined(_sq_distances(x), sigma) for (column, x), sigma in given})


def _examined(distances: NDArray[np.float64], sigma: float) -> Bandwidth:
    median = float(np.exp(-np.median(_pairs(distances)) / (2 * sigma * sigma)))
    return Bandwidth(sigma, _largest_eigenvalue(distances, sigma), median)


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
            " bandwidth can be chosen. Give --bandwidth, or exclude duplicates with --where."
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
