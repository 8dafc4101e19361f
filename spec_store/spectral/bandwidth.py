"""Bandwidths of the Gaussian kernel, chosen on sampled rows, and warnings where one hides all clusters.

Too small a bandwidth turns the kernel matrix into the identity, too large a one makes it constant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy  # its submodules are imported when they are first used
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from ..errors import InputError

__all__ = ["Bandwidth", "Bandwidths", "SampledKernel", "auto_bandwidths", "examine_bandwidths"]

# The paper's examples amount to this multiple of the median pairwise distance, k(median pair) = 0.07.
_MEDIAN_FACTOR = 0.43
_NEARLY_IDENTITY = 1e-4
_NEARLY_CONSTANT = 0.9
# The search for a bandwidth ends this near to the target's logarithm, within this factor of the start.
_PRECISION = 1e-6
_FARTHEST = 2.0
_MOST_STEPS = 50
# Longer distances, in units of the median, are as good as this one.
_LARGEST_RATIO = 1e30
# Longer rows, in squares and in units of the median distance, lose digits in float32.
_LARGEST_SPREAD = 4.0
# Smaller matrices are decomposed.
_SMALLEST_ITERATED = 32


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


def auto_bandwidths(
    samples: Mapping[str, NDArray[np.floating] | SampledKernel], *, scale: float = 1.0
) -> Bandwidths:
    """Bandwidths at which the kernels of all embeddings have one and the same largest eigenvalue.

    Starts from 0.43 times the median distance for each, then moves each until the largest eigenvalue of its
    sampled K/n is the geometric mean over all embeddings: symmetric in them, so that comparing (b, a) is
    comparing (a, b) with the ends swapped, and one bandwidth per embedding, whatever pairs are compared.
    None moves by more than a factor of two: where many rows are duplicates, they alone hold the largest
    eigenvalue up, and no bandwidth but one that tells all other rows apart would lower it.

    Parameters
    ----------
    samples
        By column, sampled rows, shape (n, d), normalised where the kernel is, or the kernel on them; n of
        2,000 is enough.
    scale
        Multiplies all bandwidths at the end, for sweeps.

    Raises
    ------
    InputError
        More than half of the pairs are at distance zero.

    Notes
    -----
    Cost: n² numbers of the rows' float type per embedding, and about 5 steps of a search, each n²
    exponentials and some 10 products with an n x n matrix: the largest eigenvalues agree to 1e-6.
    """
    with threadpool_limits(1, user_api="blas"):  # threads wait for each other after every small product
        kernels = _kernels(samples)
        start = {c: _MEDIAN_FACTOR * k.median_distance(c) for c, k in kernels.items()}
        reached = [k.largest_eigenvalue(start[c]) for c, k in kernels.items()]
        target = float(np.exp(np.mean(np.log(reached))))
        return Bandwidths({c: k.examined(_match(k, start[c], target) * scale) for c, k in kernels.items()})


def examine_bandwidths(
    samples: Mapping[str, NDArray[np.floating] | SampledKernel], values: Sequence[float]
) -> Bandwidths:
    """The figures of `Bandwidths` for bandwidths that a person fixed."""
    with threadpool_limits(1, user_api="blas"):
        given = zip(_kernels(samples).items(), values, strict=True)
        return Bandwidths({column: kernel.examined(sigma) for (column, kernel), sigma in given})


def _kernels(samples: Mapping[str, NDArray[np.floating] | SampledKernel]) -> dict[str, SampledKernel]:
    return {c: x if isinstance(x, SampledKernel) else SampledKernel(x) for c, x in samples.items()}


class SampledKernel:
    """The Gaussian kernel matrix of one embedding's sampled rows, shape (n, n), at any bandwidth.

    Squared distances are kept in the rows' float type, as multiples of their median: in float32 rounding
    moves an eigenvalue by 1e-7 of itself. They are taken in float64 where expanded squares would lose digits.
    """

    def __init__(self, x: NDArray[np.floating]) -> None:
        distances, median = _sq_distances(x)
        self._is_constant = median <= 1e-12 * float(distances.max())
        self._median = median
        self._unit = median or float(distances.max()) or 1.0
        distances /= self._unit
        self._distances = np.minimum(distances, _LARGEST_RATIO, out=distances).astype(x.dtype, copy=False)
        self._vector = np.ones(len(x), x.dtype)
        self._found: dict[float, float] = {}

    def median_distance(self, column: str) -> float:
        """Of the pairs of distinct rows. Raises InputError where it is zero."""
        if self._is_constant:
            raise InputError(
                f"Column {column!r}: more than half of the sampled pairs of rows are the same vector, so no"
                " bandwidth can be chosen. Give --bandwidth, or exclude duplicates with --where."
            )
        return float(np.sqrt(self._median))

    def examined(self, sigma: float) -> Bandwidth:
        """The figures of a bandwidth."""
        median = float(np.exp(-self._median / (2 * sigma * sigma)))
        return Bandwidth(sigma, self.largest_eigenvalue(sigma), median)

    def largest_eigenvalue(self, sigma: float) -> float:
        """Of K/n; the iteration starts from the eigenvector found last."""
        if sigma not in self._found:
            self._found[sigma] = self._iterated(sigma)
        return self._found[sigma]

    def matrix(self, sigma: float) -> NDArray[np.floating]:
        """K, a new array of the rows' float type."""
        with np.errstate(over="ignore"):  # exp(-∞) is right for rows that far away
            kernel = self._distances * self._distances.dtype.type(-0.5 * self._unit / sigma**2)
        return np.asarray(np.exp(kernel, out=kernel))

    def _iterated(self, sigma: float) -> float:
        kernel = self.matrix(sigma)
        n = len(kernel)
        if n <= _SMALLEST_ITERATED:
            return float(np.linalg.eigvalsh(kernel.astype(np.float64))[-1] / n)
        _, vectors = scipy.sparse.linalg.eigsh(kernel, k=1, which="LA", v0=self._vector, ncv=6, tol=1e-5)
        self._vector = vectors[:, 0]
        v = self._vector.astype(np.float64)
        return float(v @ (kernel @ self._vector) / (v @ v) / n)


class _Distances(NamedTuple):
    """Squared distances of all pairs of rows, shape (n, n), and their median over pairs of distinct rows."""

    squared: NDArray[np.floating]
    median: float


def _sq_distances(x: NDArray[np.floating]) -> _Distances:
    """In the rows' float type, or in float64 where some lie far out: expanded squares would lose digits."""
    x = x - np.median(x, axis=0)  # a mean would follow a few rows that lie far out, at the others' expense
    sq = np.einsum("ij,ij->i", x, x)
    d = x @ x.T
    d *= -2
    d += sq
    d += sq[:, None]
    np.fill_diagonal(d, 0.0)
    np.maximum(d, 0.0, out=d)
    median = float(np.median(np.concatenate([row[i:] for i, row in enumerate(d, 1)])))
    if x.dtype != np.float64 and not sq.max() <= _LARGEST_SPREAD * median:
        return _sq_distances(x.astype(np.float64))
    return _Distances(d, median)


def _match(kernel: SampledKernel, start: float, target: float) -> float:
    """The bandwidth whose largest eigenvalue is `target`; it grows with the bandwidth, from 1/n to 1.

    By false position in logarithms, in which the two are nearly linear in each other.
    """

    def excess(log_bandwidth: float) -> float:
        return float(np.log(kernel.largest_eigenvalue(float(np.exp(log_bandwidth))) / target))

    near = far = float(np.log(start))
    at_near = at_far = excess(far)
    if abs(at_far) <= _PRECISION:
        return start
    step = -2 * at_far  # beyond the target where the slope is over 1/2
    limit = far + float(np.copysign(np.log(_FARTHEST), step))
    while at_near * at_far > 0:
        if far == limit:
            return float(np.exp(limit))
        near, at_near = far, at_far
        far = min(far + step, limit) if step > 0 else max(far + step, limit)
        at_far = excess(far)
        step *= 2
    for _ in range(_MOST_STEPS):
        if abs(at_far) <= _PRECISION:
            break
        between = far - at_far * (far - near) / (at_far - at_near)
        found = excess(between)
        if found * at_far < 0:
            near, at_near = far, at_far
        else:
            at_near /= 2  # or this end would never move
        far, at_far = between, found
    return float(np.exp(far))
