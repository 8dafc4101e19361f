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


def by_features(features: NDArray[np.float32]) -> Similarity:
    """The mean of products of features, shape (n, p). Cost: O(n p m)."""

    def similarity(
        tested: NDArray[np.intp], described: NDArray[np.intp], groups: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        sizes = np.maximum(groups.sum(axis=0), 1).astype(np.float32)
        return np.asarray(features[tested] @ (features[described].T @ groups.astype(np.float32) / sizes))

    return similarity


def by_gaussian(rows: NDArray[np.floating[Any]], sigma: float) -> Similarity:
    """The mean Gaussian kernel to 64 members at most, evenly spaced ones. Cost: O(n d) for each of them.

    Rows in half precision are computed with in single precision.

    Features blur what is smaller than the distance of their landmarks: a small group that an embedding keeps
    together can look scattered by them.
    """

    dtype = np.promote_types(rows.dtype, np.float32)

    def similarity(
        tested: NDArray[np.intp], described: NDArray[np.intp], groups: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        found = np.zeros((len(tested), groups.shape[1]), np.float32)
        ranked = rows[tested].astype(dtype, copy=False)
        for j in range(groups.shape[1]):
            members = described[groups[:, j]]
            if len(members):
                some = members[:: -(-len(members) // _MOST_DESCRIBING)]
                found[:, j] = gaussian_kernel(ranked, rows[some], sigma, dtype=dtype.name).mean(axis=1)
        return found

    return similarity
