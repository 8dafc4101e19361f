"""How well one set of vectors stands in for another: retrieval, neighbourhoods, spectra.

All take unit rows and compare row i with row i.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["cosines", "difference_eigenvalues", "nearest", "neighbour_overlap", "ranks", "recall"]

_BLOCK = 1024


def ranks(
    queries: NDArray[Any], gallery: NDArray[Any], own: NDArray[np.intp] | None = None
) -> NDArray[np.float64]:
    """Where its own row of the gallery comes among a query's nearest, 0 for first; shape (n,).

    Parameters
    ----------
    queries, gallery
        Unit rows, shape (n, d) and (m, d).
    own
        Which row of the gallery is each query's own; the row of the same number by default.

    Notes
    -----
    Rows at the same distance as the own one count half: a map that collapses all rows has no recall. A
    similarity that is not finite ranks last. Memory: blocks of 1,024 x m.
    """
    own = np.arange(len(queries)) if own is None else own
    found = np.empty(len(queries))
    for start in range(0, len(queries), _BLOCK):
        rows = slice(start, start + _BLOCK)
        similarity = _similarity(queries[rows], gallery)
        mine = similarity[np.arange(len(similarity)), own[rows]][:, None]
        found[rows] = (similarity > mine).sum(axis=1) + ((similarity == mine).sum(axis=1) - 1) / 2
        found[rows][mine[:, 0] == -np.inf] = len(gallery) - 1
    return found


def _similarity(rows: NDArray[Any], gallery: NDArray[Any]) -> NDArray[Any]:
    """Inner products, shape (n, m); -inf where they are not finite."""
    with np.errstate(invalid="ignore", over="ignore"):
        similarity: NDArray[Any] = rows @ gallery.T
    similarity[~np.isfinite(similarity)] = -np.inf
    return similarity


def recall(rank: NDArray[np.float64], k: int) -> float:
    """The share of queries whose own row is among their `k` nearest; NaN for no queries."""
    return float((rank < k).mean()) if len(rank) else float("nan")


def nearest(
    rows: NDArray[Any],
    k: int,
    *,
    gallery: NDArray[Any] | None = None,
    own: NDArray[np.intp] | None = None,
) -> NDArray[np.intp]:
    """The `k` nearest rows of the gallery, without each row's own; in no order.

    Parameters
    ----------
    rows, gallery
        Unit rows, shape (n, d) and (m, d); the gallery is the rows themselves by default.
    own
        Which row of the gallery is each row's own; the row of the same number by default.

    Returns
    -------
    Shape (n, min(k, m - 1)); -1 in the place of a row whose similarity is not finite.
    """
    gallery = rows if gallery is None else gallery
    own = np.arange(len(rows)) if own is None else own
    k = min(k, len(gallery) - 1)
    found = np.empty((len(rows), k), np.intp)
    for start in range(0, len(rows), _BLOCK):
        block = slice(start, start + _BLOCK)
        similarity = _similarity(rows[block], gallery)
        similarity[np.arange(len(similarity)), own[block]] = -np.inf
        near = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
        found[block] = np.where(np.take_along_axis(similarity, near, axis=1) > -np.inf, near, -1)
    return found


def neighbour_overlap(one: NDArray[np.intp], two: NDArray[np.intp]) -> NDArray[np.float64]:
    """The share of each row's nearest that both lists of `nearest` hold, shape (n,)."""
    k = one.shape[1]
    common = (one[:, :, None] == two[:, None, :]).any(axis=2) & (one >= 0)
    return np.asarray(common.sum(axis=1) / max(k, 1))


def cosines(one: NDArray[Any], two: NDArray[Any]) -> NDArray[np.float64]:
    """Cosine of row i with row i, shape (n,)."""
    return np.einsum("ij,ij->i", one, two).astype(np.float64)  # type: ignore[no-any-return]  # einsum is untyped


def difference_eigenvalues(f: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """The eigenvalues of (F Fᵀ - B Bᵀ)/n that are not zero, ascending: the cosine kernel, exactly.

    Cost: O(n d²); no n x n matrix is made.
    """
    stacked = np.concatenate([f, b], axis=1).astype(np.float64)
    r: NDArray[np.float64] = np.asarray(np.linalg.qr(stacked, mode="r"))
    left, right = r[:, : f.shape[1]], r[:, f.shape[1] :]
    return np.asarray(np.linalg.eigvalsh((left @ left.T - right @ right.T) / len(f)))
