"""How well one set of vectors stands in for another: retrieval, neighbourhoods, spectra.

All take unit rows and compare row i with row i.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "bootstrap_interval",
    "cosines",
    "difference_eigenvalues",
    "nearest",
    "neighbour_overlap",
    "ranks",
    "recall",
    "search_overlap",
    "similarities",
    "twin_ranks",
]

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
        similarity = similarities(queries[rows], gallery)
        mine = similarity[np.arange(len(similarity)), own[rows]][:, None]
        found[rows] = (similarity > mine).sum(axis=1) + ((similarity == mine).sum(axis=1) - 1) / 2
        found[rows][mine[:, 0] == -np.inf] = len(gallery) - 1
    return found


def twin_ranks(
    rows: NDArray[Any], twins: NDArray[Any], gallery: NDArray[Any], own: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Where each row's twin comes among its nearest of a gallery that may lack it, 0 for first; shape (n,).

    Parameters
    ----------
    rows, twins, gallery
        Unit rows, shapes (n, d), (n, d) and (m, d).
    own
        Which row of the gallery is each row's twin, -1 for none.

    Notes
    -----
    As `ranks`: ties count half, and a similarity that is not finite ranks last. Memory: blocks of 1,024 x m.
    """
    found = np.empty(len(rows))
    for start in range(0, len(rows), _BLOCK):
        block = slice(start, start + _BLOCK)
        similarity = similarities(rows[block], gallery)
        with_own = np.flatnonzero(own[block] >= 0)
        mine = cosines(rows[block], twins[block])[:, None]
        mine[with_own, 0] = similarity[with_own, own[block][with_own]]  # the same sum, rounded alike
        ties = (similarity == mine).sum(axis=1) - (own[block] >= 0)
        found[block] = (similarity > mine).sum(axis=1) + ties / 2
        found[block][~np.isfinite(mine[:, 0])] = len(gallery)
    return found


def similarities(
    rows: NDArray[Any], gallery: NDArray[Any], own: NDArray[np.intp] | None = None
) -> NDArray[Any]:
    """Inner products, shape (n, m); -inf where they are not finite, and for each row's own, -1 for none."""
    with np.errstate(invalid="ignore", over="ignore"):
        found: NDArray[Any] = rows @ gallery.T
    found[~np.isfinite(found)] = -np.inf
    if own is not None:
        with_own = np.flatnonzero(own >= 0)
        found[with_own, own[with_own]] = -np.inf
    return found


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
        Which row of the gallery is each row's own, -1 for none; the row of the same number by default.

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
        similarity = similarities(rows[block], gallery, own[block])
        near = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
        found[block] = np.where(np.take_along_axis(similarity, near, axis=1) > -np.inf, near, -1)
    return found


def neighbour_overlap(one: NDArray[np.intp], two: NDArray[np.intp]) -> NDArray[np.float64]:
    """The share of each row's nearest that both lists of `nearest` hold, shape (n,)."""
    k = one.shape[1]
    common = (one[:, :, None] == two[:, None, :]).any(axis=2) & (one >= 0)
    return np.asarray(common.sum(axis=1) / max(k, 1))


def search_overlap(
    wanted: tuple[NDArray[Any], NDArray[Any]],
    found: tuple[NDArray[Any], NDArray[Any]],
    k: int,
    own: NDArray[np.intp] | None = None,
) -> NDArray[np.float64]:
    """Of the k rows that a search should find, the share that it does find: one number per query, shape (n,).

    Parameters
    ----------
    wanted
        Queries (n, d) and gallery (m, d), unit rows, in which the exact search is right: after a switch of
        models both are the target model's.
    found
        Queries (n, e) and gallery (m, e) of the search that is judged: the target's queries and mapped rows;
        or the source's queries and rows, for no switch at all.
    own
        Which row of the gallery is each query's own, which is left out, -1 for none; the row of the same
        number by default.

    Notes
    -----
    Not the neighbours of mapped rows among mapped rows, which no searcher sees, nor whether a row finds its
    own twin. Cost: O(n m (d + e)); memory: blocks of 1,024 x m.
    """
    near = [nearest(queries, k, gallery=gallery, own=own) for queries, gallery in (wanted, found)]
    return neighbour_overlap(near[0], near[1])


def bootstrap_interval(
    values: NDArray[Any], *, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of `values`, shape (n,); NaN for none."""
    values = np.asarray(values, np.float64)
    if not len(values):
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    distinct, counts = np.unique(values, return_counts=True)  # shares of k: few distinct values
    drawn = rng.multinomial(len(values), counts / len(values), size=resamples)
    low, high = np.quantile(drawn @ distinct / len(values), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


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
