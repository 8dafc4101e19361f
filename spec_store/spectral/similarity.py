"""Mean similarity of rows to groups of rows: by features for many groups, by the kernel itself for a few."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .features import gaussian_kernel

__all__ = ["Similarity", "by_features", "by_gaussian"]

Similarity = Callable[[NDArray[np.intp], NDArray[np.intp], NDArray[np.bool_]], NDArray[np.float32]]
"""Of tested rows, n of them, to groups among described rows: positions, positions, and who is in which group,
shape (n_described, m), to mean kernels, shape (n, m)."""

# Members that stand for a group where the kernel itself is computed.
_MOST_DESCRIBING = 64
# Rows whose kernel values are in memory at once.
_CHUNK_ROWS = 1024
# The largest error of a kernel's exponent.
_ROUNDING = 1e-4


def by_features(features: NDArray[np.float32]) -> Similarity:
    """The mean of products of features, shape (n, p). Cost: O(n p m)."""

    def similarity(
        tested: NDArray[np.intp], described: NDArray[np.intp], groups: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        sizes = np.maximum(groups.sum(axis=0), 1).astype(np.float32)
        return np.asarray(features[tested] @ (features[described].T @ groups.astype(np.float32) / sizes))

    return similarity


def by_gaussian(rows: NDArray[np.floating[Any]], sigma: float) -> Similarity:
    """The mean Gaussian kernel to 64 members at most: the first in one shuffled order of all rows, so that
    groups of much the same members share them.

    Rows in half precision are computed with in single precision. Cost: O(n d) for each of the different
    members, and O(n) for each of every group's.

    Features blur what is smaller than the distance of their landmarks: a small group that an embedding keeps
    together can look scattered by them.
    """
    dtype = np.promote_types(rows.dtype, np.float32)
    rank = np.random.default_rng(0).permutation(len(rows))

    def similarity(
        tested: NDArray[np.intp], described: NDArray[np.intp], groups: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        found = np.zeros((len(tested), groups.shape[1]), np.float32)
        members = [described[group] for group in groups.T]
        some = [m[np.argsort(rank[m])[:_MOST_DESCRIBING]] for m in members]
        describing, place = np.unique(np.concatenate([*some, described[:0]]), return_inverse=True)
        if not len(describing):
            return found
        shares = np.zeros((len(describing), len(some)), np.float32)
        group = np.repeat(np.arange(len(some)), [len(m) for m in some])
        shares[place, group] = 1 / np.bincount(group, minlength=len(some))[group]
        kernel = _kernel_to(rows[describing].astype(dtype, copy=False), sigma)
        for start in range(0, len(tested), _CHUNK_ROWS):
            chunk = slice(start, start + _CHUNK_ROWS)
            found[chunk] = kernel(rows[tested[chunk]].astype(dtype, copy=False)) @ shares
        return found

    return similarity


def _kernel_to(z: NDArray[Any], sigma: float) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """The Gaussian kernel of rows to `z`, in its precision where that is enough."""
    origin = np.median(z, axis=0)
    centred = (z - origin) / sigma
    half_sq = 0.5 * np.einsum("ij,ij->i", centred, centred)
    # Expanded distances lose the digits of long rows: those of unlike lengths are computed in float64.
    exact = float(half_sq.max()) * np.finfo(z.dtype).eps > _ROUNDING

    def kernel(x: NDArray[Any]) -> NDArray[Any]:
        if exact:
            return np.asarray(gaussian_kernel(x, z, sigma), z.dtype)
        x = (x - origin) / z.dtype.type(sigma)
        k = x @ centred.T
        k -= half_sq
        k -= 0.5 * np.einsum("ij,ij->i", x, x)[:, None]
        np.minimum(k, 0.0, out=k)
        return np.asarray(np.exp(k, out=k))

    return kernel
