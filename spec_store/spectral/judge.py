"""The judge: what a cluster claims, measured on rows that did not describe it.

A cluster S of embedding A claims that its rows are near each other in A and apart from the rest, and are
not in B: a search in A brings them together, a search in B does not. Per embedding, with φ̄_S the mean
feature of members among the *described* rows and the *tested* rows ranked by φ·φ̄_S:

- capture: of the |S| nearest, the share that are members (R-precision);
- contrast: the members' mean φ·φ̄_S over that of the |S| nearest rows that are not members.

References
----------
.. [1] Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927.
.. [2] Newcombe, "Interval estimation for the difference between independent proportions", Stat. Med. 1998.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .similarity import Similarity

__all__ = [
    "HOLDS",
    "LEAST_UNITY",
    "LISTED",
    "SEVERAL",
    "Criteria",
    "Figures",
    "failures",
    "joined",
    "judge",
    "judge_halves",
    "pooled",
    "unity",
    "wilson",
]

_LEAST_TESTED = 2
_POWER_STEPS = 10
# The core of a group that both embeddings see is captured by one of them alone, by the cut that made it a
# core. So what the other embedding ranks nearest must be other rows, not members and near misses in this
# share.
_NEAR = 1.5
_MOST_NEAR = 0.92
_SMALLEST_PART = 3
_TINY = 1e-30


@dataclass(frozen=True)
class Criteria:
    """What a cluster has to reach: capture, gap and contrast where it is grouped, and the other's contrast
    at most `ratio` of it."""

    capture: float
    gap: float
    contrast: float
    ratio: float


LISTED = Criteria(capture=0.5, gap=0.15, contrast=1.1, ratio=0.85)
"""On the rows that confirm it."""

HOLDS = Criteria(capture=0.45, gap=0.12, contrast=1.05, ratio=0.9)
"""What is called a cluster at all; bounds of intervals are held against these."""

REASONS = (
    "too few rows",
    "over a quarter of the rows",
    "not grouped",
    "without an edge",
    "grouped by both",
    "several groups at once",
)
"""Why a candidate fails, in the order in which it is asked."""


SEVERAL = len(REASONS) - 1

LEAST_UNITY = 0.6
"""Of a cluster; see `unity`."""


@dataclass(frozen=True)
class Figures:
    """Of m candidates; first where they are grouped, second in the other embedding.

    Attributes
    ----------
    n
        Tested members, shape (m,).
    share
        Of the tested rows, the share that are members.
    capture, contrast
        Shape (2, m).
    spread
        Shape (2, m): the relative standard error of a contrast.
    near
        Shape (m,): of the |S| nearest rows in the other embedding, the share that are among the 1.5 |S|
        nearest where they are grouped, and so members or near misses.
    """

    n: NDArray[np.intp]
    share: NDArray[np.float64]
    capture: NDArray[np.float64]
    contrast: NDArray[np.float64]
    spread: NDArray[np.float64]
    near: NDArray[np.float64]

    @property
    def gap(self) -> NDArray[np.float64]:
        """Capture where they are grouped less that in the other, shape (m,)."""
        return np.asarray(self.capture[0] - self.capture[1])

    @property
    def ratio(self) -> NDArray[np.float64]:
        """Contrast in the other embedding over that where they are grouped, shape (m,)."""
        return np.asarray(self.contrast[1] / np.maximum(self.contrast[0], _TINY))

    def chosen(self, which: Any) -> Figures:
        """Of some of them."""
        return Figures(
            self.n[which],
            self.share[which],
            self.capture[:, which],
            self.contrast[:, which],
            self.spread[:, which],
            self.near[which],
        )

    def gap_interval(self, z: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Newcombe's interval of the gap [2]_."""
        low, high = wilson(self.capture, self.n, z)
        down = np.hypot(self.capture[0] - low[0], high[1] - self.capture[1])
        up = np.hypot(high[0] - self.capture[0], self.capture[1] - low[1])
        return self.gap - down, self.gap + up


def judge(
    members: NDArray[np.bool_],
    similarities: Sequence[Similarity],
    described: NDArray[np.intp],
    tested: NDArray[np.intp],
) -> Figures:
    """The figures of candidates, described on some rows and tested on others.

    Parameters
    ----------
    members
        Shape (n, m).
    similarities
        Of the embedding that groups them, and of the other.
    described, tested
        Positions of rows; no row in both.

    Notes
    -----
    Cost: that of the similarities, and four partial sorts of the tested rows for each candidate.
    """
    groups = members[described]
    is_member = members[tested].T.copy()
    n = is_member.sum(axis=1)
    capture, contrast, spread = np.zeros((3, 2, len(n)))
    near = np.zeros(len(n))
    scores = [np.ascontiguousarray(similarity(tested, described, groups).T) for similarity in similarities]
    for j in np.flatnonzero((n >= _LEAST_TESTED) & (2 * n <= len(tested))):
        for e in (0, 1):
            capture[e, j], contrast[e, j], spread[e, j] = _ranked(scores[e][j], is_member[j], int(n[j]))
        around = _is_nearest(scores[0][j], int(_NEAR * n[j]))
        near[j] = around[_is_nearest(scores[1][j], int(n[j]))].mean()
    return Figures(n, n / max(len(tested), 1), capture, contrast, spread, near)


def _is_nearest(scores: NDArray[np.float32], n: int) -> NDArray[np.bool_]:
    """Which rows are the `n` nearest, and those as near as the last of them."""
    return np.asarray(scores >= np.partition(scores, len(scores) - n)[len(scores) - n])


def _ranked(scores: NDArray[np.float32], member: NDArray[np.bool_], n: int) -> tuple[float, float, float]:
    inside, outside = scores[member], scores[~member]
    nearest = np.partition(outside, -n)[-n:]
    bar = np.partition(np.concatenate([inside, nearest]), n)[n:].min()
    above = np.count_nonzero(inside >= bar)
    of_all = above + np.count_nonzero(outside >= bar)
    # Rows of equal score rank in no order: each of them has the same chance of being among the n nearest.
    sure = np.count_nonzero(inside > bar), np.count_nonzero(nearest > bar)
    n_sure = int(sure[0] + sure[1])
    capture = (sure[0] + (above - sure[0]) * (n - n_sure) / max(int(of_all) - n_sure, 1)) / n
    mean, others = float(inside.mean()), max(float(nearest.mean()), _TINY)
    relative = float(inside.std()) / max(mean, _TINY), float(nearest.std()) / others
    error = np.hypot(*relative) / np.sqrt(n)
    return float(capture), mean / others, float(error)


def judge_halves(
    members: NDArray[np.bool_],
    similarities: Sequence[Similarity],
    rows: NDArray[np.intp],
    rng: np.random.Generator,
) -> Figures:
    """The figures of candidates on `rows`, each half described by the other: every member is tested once."""
    shuffled = rng.permutation(rows)
    one, two = np.sort(shuffled[: len(rows) // 2]), np.sort(shuffled[len(rows) // 2 :])
    first, second = judge(members, similarities, one, two), judge(members, similarities, two, one)
    n = first.n + second.n
    weight = first.n / np.maximum(n, 1)

    def mean(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(weight * x + (1 - weight) * y)

    spread = np.sqrt(mean(first.spread**2, second.spread**2) / 2)
    valid = (first.n >= _LEAST_TESTED) & (second.n >= _LEAST_TESTED)
    return Figures(
        np.where(valid, n, 0),
        n / max(len(rows), 1),
        mean(first.capture, second.capture),
        mean(first.contrast, second.contrast),
        spread,
        mean(first.near, second.near),
    )


def unity(kernel: NDArray[np.float32], members: NDArray[np.bool_]) -> float:
    """How far a candidate is one group and not a union of several: 1 where it falls into no parts.

    Any union of groups is captured too, with the contrast of its parts, since each part is nearer to the
    mean of all than other rows are. So the members are split in two by the sign of their first principal
    component; unity is the mean kernel between the two parts over the geometric mean of those within. A
    planted group has 0.98, a union of planted groups 0.15, those of real data up to 0.9.

    Parameters
    ----------
    kernel
        Shape (n, q): products are the kernel of the embedding that groups it.
    members
        Shape (n,).
    """
    inside = kernel[members]
    centred = inside - inside.mean(axis=0)
    side = np.linspace(-1, 1, len(inside), dtype=np.float32)
    for _ in range(_POWER_STEPS):
        side = centred @ (side @ centred)
        side /= max(float(np.linalg.norm(side)), _TINY)
    parts = inside[side > 0], inside[side <= 0]
    if min(map(len, parts)) < _SMALLEST_PART:
        return 1.0
    one, two = (part.sum(axis=0, dtype=np.float64) for part in parts)
    within = [
        max(
            (total @ total - float(np.sum(part.astype(np.float64) ** 2))) / (len(part) * (len(part) - 1)),
            _TINY,
        )
        for total, part in zip((one, two), parts, strict=True)
    ]
    return float(one @ two / (len(parts[0]) * len(parts[1])) / np.sqrt(within[0] * within[1]))


def joined(figures: Sequence[Figures]) -> Figures:
    """Figures of several sets of candidates, one after the other."""

    def column(name: str, axis: int) -> NDArray[Any]:
        return np.concatenate([getattr(f, name) for f in figures], axis=axis)

    return Figures(
        n=column("n", 0),
        share=column("share", 0),
        capture=column("capture", 1),
        contrast=column("contrast", 1),
        spread=column("spread", 1),
        near=column("near", 0),
    )


def pooled(figures: Figures, weights: NDArray[np.float64]) -> Figures:
    """Figures in which evidence is added up: `weights`, shape (m, m), say of which candidates for each."""
    n = weights @ figures.n
    share = weights * figures.n / np.maximum(n, 1)[:, None]
    return Figures(
        n.astype(np.intp),
        (weights @ figures.share) / weights.sum(axis=1),
        figures.capture @ share.T,
        figures.contrast @ share.T,
        np.sqrt(figures.spread**2 @ (share**2).T),
        share @ figures.near,
    )


def failures(
    figures: Figures, criteria: Criteria, *, largest: float, z: float = 0.0, least: int = _LEAST_TESTED
) -> NDArray[np.intp]:
    """Where each candidate fails first, as an index of `REASONS`; -1 where it does not.

    Parameters
    ----------
    largest
        Share of the rows that a cluster may have at most.
    z
        Where positive, bounds at so many standard errors must reach what `HOLDS` asks too.
    least
        Tested members that it must have.
    """
    f = figures
    checks = [
        f.n >= least,
        f.share <= largest,
        f.capture[0] >= criteria.capture,
        f.contrast[0] >= criteria.contrast,
        (f.gap >= criteria.gap) & (f.ratio <= criteria.ratio) & (f.near <= _MOST_NEAR),
    ]
    if z > 0:
        checks[2] &= wilson(f.capture, f.n, z)[0][0] >= HOLDS.capture
        checks[3] &= f.contrast[0] * (1 - z * f.spread[0]) >= HOLDS.contrast
        checks[4] &= f.gap_interval(z)[0] >= HOLDS.gap
        checks[4] &= f.ratio * (1 + z * np.hypot(f.spread[0], f.spread[1])) <= HOLDS.ratio
    passed = np.stack(checks)
    return np.where(passed.all(axis=0), -1, np.argmin(passed, axis=0))


def wilson(
    share: NDArray[np.float64], n: NDArray[np.intp], z: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Wilson's interval of shares of n trials [1]_, at z standard errors."""
    n = np.maximum(n, 1)
    centre = share + z * z / (2 * n)
    half = z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)
