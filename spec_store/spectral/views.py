"""How the other embedding sees a cluster: merged with other rows, split into parts, or scattered.

It does not bring the cluster together, and something else is ranked nearest to it instead: rows of one
other group, or rows from everywhere; or its members keep together in several places.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from ..stores.streaming import ordered_map
from .candidates import SampledRows
from .clusters import Cluster

__all__ = ["OtherView", "SeenKind", "families", "views_of_others"]

SeenKind = Literal["merged", "split", "scattered"]

# A cluster is merged with another where this share of the rows ranked instead of members are that one's.
_MERGED = 0.5
# And with other rows, in no listed cluster, where those are grouped this well in the cluster's own embedding.
_GROUPED = 0.5
# Both only where a member and such a row are this near to each other, beside two such rows: some group is the
# nearest to the mean of rows from everywhere too.
_NEAR = 0.5
# It is split where this share of a member's nearest neighbours are members all the same.
_PURE = 0.5
_NEIGHBOURS = 10
_QUERIES = 200


@dataclass(frozen=True)
class OtherView:
    """How the embedding that does not group a cluster sees it.

    Attributes
    ----------
    kind
        "merged", "split" or "scattered".
    merged_with
        (number, share) of clusters among the rows ranked instead of members, where the share is a tenth or
        more; the largest first.
    others
        Of as many nearest rows as the cluster has members, the share that are not members.
    purity
        Of the ten nearest neighbours of a member the share that are members.
    family
        The least number among the clusters with which it is merged, mutually or by a chain of mergers.
    """

    kind: SeenKind
    merged_with: tuple[tuple[int, float], ...]
    others: float
    purity: float
    family: int = field(default=0)


def views_of_others(
    rows: SampledRows, clusters: Sequence[Cluster], *, seed: int, threads: int = 1
) -> dict[int, OtherView]:
    """By number, how the other embedding sees each cluster; see `OtherView`.

    Cost: for each cluster 200 x n kernel values of the other embedding.
    """
    with threadpool_limits(1, user_api="blas"):
        views = list(ordered_map(lambda c: _view(rows, c, clusters, seed), clusters, workers=threads))
    found = {c.number: view for c, view in zip(clusters, views, strict=True)}
    family = families(clusters, found)
    return {
        number: OtherView(v.kind, v.merged_with, v.others, v.purity, family[number])
        for number, v in found.items()
    }


def families(clusters: Sequence[Cluster], views: dict[int, OtherView]) -> dict[int, int]:
    """By number, the least number of its family: clusters of one end, joined by mergers."""
    family = {c.number: c.number for c in clusters}
    joined = [
        (c.number, views[c.number].merged_with[0][0])
        for c in clusters
        if views[c.number].kind == "merged" and views[c.number].merged_with
    ]
    for _ in family:  # each round carries the least number one merger on
        for one, other in joined:
            family[one] = family[other] = min(family[one], family[other])
    return family


def _view(rows: SampledRows, cluster: Cluster, clusters: Sequence[Cluster], seed: int) -> OtherView:
    kernel = rows.kernels[1 - cluster.end]
    members = cluster.members
    size = int(members.sum())
    nearest = _nearest(kernel @ kernel[members].mean(axis=0), size)
    instead = nearest[~members[nearest]]
    shares = [
        (c.number, float(c.members[instead].mean()))
        for c in clusters
        if c.end == cluster.end and c.number != cluster.number and len(instead)
    ]
    merged = tuple(sorted((s for s in shares if s[1] >= 0.1), key=lambda s: (-s[1], s[0])))
    purity = _purity(kernel, members, seed)
    near = _nearness(kernel, members, instead) >= _NEAR
    if near and merged and merged[0][1] >= _MERGED:
        kind: SeenKind = "merged"
    elif purity >= _PURE:
        kind = "split"
    elif near and _grouped(rows.kernels[cluster.end], instead, members) >= _GROUPED:
        kind = "merged"
        merged = ()
    else:
        kind = "scattered"
    return OtherView(kind, merged, len(instead) / max(size, 1), purity)


def _nearest(scores: NDArray[np.float32], n: int) -> NDArray[np.intp]:
    return np.argpartition(-scores, min(n, len(scores)) - 1)[:n]


def _nearness(kernel: NDArray[np.float32], members: NDArray[np.bool_], rows: NDArray[np.intp]) -> float:
    """The mean kernel of a member and one of other rows, over that of two of these."""
    n = len(rows)
    if n < 2:
        return 0.0
    inside = kernel[rows].astype(np.float64)
    total = inside.sum(axis=0)
    between = float(kernel[members].mean(axis=0, dtype=np.float64) @ total) / n
    within = float(total @ total - np.sum(inside**2)) / (n * (n - 1))
    return between / max(within, 1e-30)


def _purity(kernel: NDArray[np.float32], members: NDArray[np.bool_], seed: int) -> float:
    chosen = np.random.default_rng(seed).permutation(np.flatnonzero(members))[:_QUERIES]
    scores = kernel[chosen] @ kernel.T
    scores[np.arange(len(chosen)), chosen] = -np.inf
    k = min(_NEIGHBOURS, int(members.sum()) - 1)
    bar = np.partition(scores, len(members) - k, axis=1)[:, len(members) - k, None]
    near = np.argwhere(scores >= bar)[:, 1]
    return float(members[near].mean())


def _grouped(kernel: NDArray[np.float32], rows: NDArray[np.intp], members: NDArray[np.bool_]) -> float:
    """The capture of other rows in the cluster's own embedding, its members left out."""
    if len(rows) < 2 * _NEIGHBOURS:
        return 0.0
    inside = np.zeros(len(members), bool)
    inside[rows] = True
    scores = kernel @ kernel[rows].mean(axis=0)
    scores[members] = -np.inf
    return float(inside[_nearest(scores, len(rows))].mean())
