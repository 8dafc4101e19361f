"""Clusters: candidates that were chosen on one part of the sampled rows and confirmed on another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from .candidates import LARGEST_SHARE, SMALLEST, Rules, SampledRows, propose, refined
from .choose import SAME, choose, jaccard, match_numbers, mean_kernels, mismatch_mass, worth
from .judge import (
    HOLDS,
    LEAST_UNITY,
    LISTED,
    REASONS,
    SEVERAL,
    Figures,
    failures,
    joined,
    judge,
    judge_halves,
    pooled,
    unity,
    wilson,
)
from .similarity import Similarity, by_features

__all__ = ["Cluster", "End", "Found", "Recorded", "Rejected", "Rule", "find_clusters"]

_T = TypeVar("_T")

OVERLAPPING = "overlapping stronger ones"
UNCONFIRMED = "not confirmed"

# Sampled rows are split into so many parts, from this number of rows: each in turn confirms what the
# others chose.
_PARTS = ((0, 8), (2000, 4), (4000, 2))
# Bounds of intervals at so many standard errors are asked of what the parts confirm, and of what is listed.
_CONFIRMED_AT = 0.5
_LISTED_AT = 0.5
# Sampled members that a listed cluster has at least.
_LEAST_MEMBERS = 20
# A recorded cluster that still holds is worth this much more than one that is new.
_RECORDED = 1.25
_Z95 = 1.96
_RESAMPLES = 400
_CHUNK_ROWS = 1024


@dataclass(frozen=True)
class Recorded:
    """A cluster of an earlier run, as a candidate: its number, its end, and its members among the sampled
    rows."""

    number: int
    end: int
    members: NDArray[np.bool_]


@dataclass(frozen=True)
class Rule:
    """What decides whether a row is a member of a cluster.

    Attributes
    ----------
    number
        From 1; kept over re-runs.
    end
        0 where the first embedding groups it, 1 where the second does.
    centre
        Shape (p_E,), in the whitened features of the embedding that groups it.
    threshold, typical
        A row is a member where φ·centre ≥ threshold; the median member has `typical`.
    """

    number: int
    end: int
    centre: NDArray[np.float64]
    threshold: float
    typical: float


@dataclass(frozen=True)
class Cluster(Rule):
    """Rows that one embedding groups and the other does not.

    Attributes
    ----------
    members
        Which of the sampled rows are, shape (n,).
    share, capture, contrast, gap
        See `judge`; capture and contrast are of the first and of the second embedding.
    capture_interval, contrast_interval, gap_interval
        95% intervals, (low, high); of capture and contrast one for each embedding.
    stability
        Share of resamples of the evaluated rows in which it is a cluster still.
    cohesion, energy
        Of each embedding: the mean kernel of two members, and the Rayleigh quotient of the members' centred
        indicator under K/n.
    """

    members: NDArray[np.bool_]
    share: float
    capture: tuple[float, float]
    contrast: tuple[float, float]
    gap: float
    capture_interval: tuple[tuple[float, float], tuple[float, float]]
    contrast_interval: tuple[tuple[float, float], tuple[float, float]]
    gap_interval: tuple[float, float]
    stability: float
    cohesion: tuple[float, float]
    energy: tuple[float, float]


@dataclass(frozen=True)
class Rejected:
    """A candidate that was chosen and not confirmed; figures as of `Cluster`, on the rows that were to
    confirm it."""

    end: int
    share: float
    capture: tuple[float, float]
    contrast: tuple[float, float]
    gap: float
    reason: str


@dataclass(frozen=True)
class End:
    """What became of the candidates of one end.

    Attributes
    ----------
    clusters
        By size times gap, the largest first.
    rejected
        Chosen and not confirmed, none of them part of a listed cluster.
    n_candidates
        How many were judged.
    rejections
        Of those that are not listed the number by reason.
    mass, covered
        The mismatch mass of the clusters, and the share of rows in any.
    """

    clusters: tuple[Cluster, ...]
    rejected: tuple[Rejected, ...]
    n_candidates: int
    rejections: Mapping[str, int]
    mass: float
    covered: float


@dataclass(frozen=True)
class Found:
    """The clusters of both ends.

    Attributes
    ----------
    ends
        What became of the candidates of each.
    average_pair
        Of each embedding, the mean kernel of any two rows.
    """

    ends: tuple[End, End]
    average_pair: tuple[float, float]

    @property
    def clusters(self) -> tuple[Cluster, ...]:
        """Of both ends, by size times gap, the largest first."""
        both = [c for end in self.ends for c in end.clusters]
        return tuple(sorted(both, key=lambda c: (-c.share * c.gap, c.end, c.number)))


def find_clusters(
    rows: SampledRows,
    *,
    seed: int,
    recorded: Sequence[Recorded] = (),
    first_number: int = 1,
    threads: int = 1,
) -> Found:
    """The clusters of both ends, chosen among many candidates and confirmed on rows that took no part.

    Parameters
    ----------
    recorded
        Clusters of an earlier run, which are candidates too: those that are found again keep their number.
    first_number
        The least number that a new cluster may get.
    threads
        With two or more both ends are searched at once; the result is the same.

    Notes
    -----
    The rows are cut into parts. For each part, what the others propose is turned into rules, judged by
    halves of the others, and chosen greedily; the part then judges what was chosen, described by the
    others. What any part confirms is judged once more on all rows by halves, and chosen from. Cost: O(n p
    m) for m candidates, of which there are some 450 an end and part.
    """
    of_end = [[r for r in recorded if r.end == end] for end in (0, 1)]
    # Many small products: their own threads would wait for each other.
    with (
        threadpool_limits(1, user_api="blas"),
        ThreadPoolExecutor(min(threads, 2), "spec-store-clusters") as pool,
    ):
        ends = list(pool.map(lambda end: _find(rows, end, seed, of_end[end]), (0, 1)))
    numbered = _numbered([end.clusters for end in ends], recorded, first_number)
    means = [k.mean(axis=0, dtype=np.float64) for k in rows.kernels]
    done = [
        End(clusters, end.rejected, end.n_candidates, end.rejections, end.mass, end.covered)
        for end, clusters in zip(ends, numbered, strict=True)
    ]
    return Found((done[0], done[1]), (float(means[0] @ means[0]), float(means[1] @ means[1])))


def _find(rows: SampledRows, end: int, seed: int, recorded: Sequence[Recorded]) -> End:
    rng = np.random.default_rng([seed, 17])
    n_parts = next(parts for least, parts in reversed(_PARTS) if len(rows) >= least)
    parts = np.array_split(rng.permutation(len(rows)), n_parts)
    tally: Counter[str] = Counter()
    chosen: list[_Chosen] = []
    n_candidates = 0
    for part in range(n_parts):
        tested = np.sort(parts[part])
        others = np.sort(np.concatenate([p for i, p in enumerate(parts) if i != part]))
        rules, old = _candidates(rows, end, others, seed + part, recorded)
        n_candidates += len(rules)
        rules, old, why = _chosen(rows, end, others, rules, old, rng)
        tally.update(why)
        if not len(rules):
            continue
        members = rules.members(rows.features[end])
        chosen.append(_Chosen(rules, old, members, judge(members, _by_features(rows, end), others, tested)))
    if not chosen:
        return End((), (), n_candidates, dict(tally), 0.0, 0.0)
    pool, figures = _confirming(chosen)
    failed = failures(figures, LISTED, largest=LARGEST_SHARE, z=_CONFIRMED_AT)
    tally[UNCONFIRMED] += int((failed >= 0).sum())
    rejected = [
        (pool.members[:, j], _rejected(end, figures, int(j), REASONS[failed[j]]))
        for j in np.flatnonzero(failed >= 0)
    ]
    clusters, masks, why = _listed(rows, end, pool.of(failed < 0), rng)
    tally.update(why)
    mass, covered = mismatch_mass(masks, np.array([c.gap for c in clusters]))
    used = masks.any(axis=1) if masks.size else np.zeros(len(rows), bool)
    apart = [r for mask, r in rejected if 2 * np.count_nonzero(mask & used) < np.count_nonzero(mask)]
    return End(clusters, tuple(_distinct(apart)), n_candidates, dict(tally), mass, covered)


@dataclass(frozen=True)
class _Chosen:
    """Rules that were chosen on some parts; their members among all rows, and figures of the part left
    out."""

    rules: Rules
    old: NDArray[np.bool_]
    members: NDArray[np.bool_]
    figures: Figures

    def of(self, which: NDArray[np.bool_]) -> _Chosen:
        return _Chosen(
            self.rules.chosen(which), self.old[which], self.members[:, which], self.figures.chosen(which)
        )


def _confirming(chosen: Sequence[_Chosen]) -> tuple[_Chosen, Figures]:
    """All that was chosen, and the evidence for each: of its own part, and of every other part on which
    its like, the chosen one that shares most of its members, if at least half, was tested."""
    pool = _Chosen(
        Rules(
            np.concatenate([c.rules.centres for c in chosen], axis=1),
            np.concatenate([c.rules.thresholds for c in chosen]),
        ),
        np.concatenate([c.old for c in chosen]),
        np.concatenate([c.members for c in chosen], axis=1),
        joined([c.figures for c in chosen]),
    )
    alike = jaccard(pool.members, pool.members)
    weights = np.zeros_like(alike)
    start = 0
    for c in chosen:
        block = alike[:, start : start + len(c.rules)]
        best = np.argmax(block, axis=1)
        weights[np.arange(len(alike)), start + best] = block[np.arange(len(alike)), best] >= SAME
        start += len(c.rules)
    return pool, pooled(pool.figures, weights)


def _candidates(
    rows: SampledRows, end: int, others: NDArray[np.intp], seed: int, recorded: Sequence[Recorded]
) -> tuple[Rules, NDArray[np.bool_]]:
    """Rules fitted on a part of the rows; and which of them are recorded clusters."""
    part = rows.proposing(others)
    masks = propose(part, end, seed=seed)
    known = [r.members[others] for r in recorded if r.members[others].sum() >= SMALLEST]
    masks = np.concatenate([masks, np.stack(known, axis=1)], axis=1) if known else masks
    old = np.arange(masks.shape[1]) >= masks.shape[1] - len(known)
    return refined(masks, part.features[end]), old


def _chosen(
    rows: SampledRows,
    end: int,
    others: NDArray[np.intp],
    rules: Rules,
    old: NDArray[np.bool_],
    rng: np.random.Generator,
) -> tuple[Rules, NDArray[np.bool_], Counter[str]]:
    members = np.zeros((len(rows), len(rules)), bool)
    members[others] = rules.members(rows.features[end][others])
    figures = judge_halves(members, _by_features(rows, end), others, rng)
    failed = failures(figures, LISTED, largest=LARGEST_SHARE)
    failed = _one_group(failed, rows.kernels[end][others], members[others])
    cohesion = mean_kernels(rows.kernels[end][others], members[others])
    value = np.where(failed < 0, worth(figures, cohesion) * np.where(old, _RECORDED, 1.0), 0.0)
    picked = choose(members[others], value)
    why = Counter({reason: int((failed == i).sum()) for i, reason in enumerate(REASONS)})
    why[OVERLAPPING] = int((failed < 0).sum()) - len(picked)
    return rules.chosen(picked), old[picked], why


def _listed(
    rows: SampledRows, end: int, confirmed: _Chosen, rng: np.random.Generator
) -> tuple[tuple[Cluster, ...], NDArray[np.bool_], Counter[str]]:
    """Of what the parts confirmed that which holds on all rows, each cluster once; and their members."""
    rules, old, members = confirmed.rules, confirmed.old, confirmed.members
    scores = rows.features[end] @ rules.centres
    exact = rows.exact[end], rows.exact[1 - end]
    figures = judge_halves(members, exact, np.arange(len(rows)), rng)
    failed = failures(figures, LISTED, largest=LARGEST_SHARE, z=_LISTED_AT, least=_LEAST_MEMBERS)
    failed = _one_group(failed, rows.kernels[end], members)
    cohesion = mean_kernels(rows.kernels[end], members)
    value = np.where(failed < 0, worth(figures, cohesion) * np.where(old, _RECORDED, 1.0), 0.0)
    picked = choose(members, value)
    picked = sorted(picked, key=lambda j: (-figures.share[j] * figures.gap[j], j))
    stability = _stability(figures, rng)
    clusters = tuple(
        _cluster(rows, end, rules.chosen(j), scores[:, j], members[:, j], figures.chosen([j]), stability[j])
        for j in picked
    )
    why = Counter({UNCONFIRMED: int((failed >= 0).sum())})
    why[OVERLAPPING] = int((failed < 0).sum()) - len(picked)
    return clusters, members[:, picked], why


def _cluster(
    rows: SampledRows,
    end: int,
    rule: Rules,
    scores: NDArray[np.float32],
    members: NDArray[np.bool_],
    figures: Figures,
    stability: float,
) -> Cluster:
    low, high = (bound[:, 0] for bound in wilson(figures.capture, figures.n, _Z95))
    gap_low, gap_high = (float(bound[0]) for bound in figures.gap_interval(_Z95))
    contrast = figures.contrast[:, 0]
    down, up = contrast * (1 - _Z95 * figures.spread[:, 0]), contrast * (1 + _Z95 * figures.spread[:, 0])
    return Cluster(
        number=0,
        end=end,
        centre=rule.centres.astype(np.float64),
        threshold=float(rule.thresholds),
        typical=float(np.median(scores[members])),
        members=members,
        share=float(figures.share[0]),
        capture=_by_embedding(figures.capture[:, 0].tolist(), end),
        contrast=_by_embedding(contrast.tolist(), end),
        gap=float(figures.gap[0]),
        capture_interval=_by_embedding([(float(a), float(b)) for a, b in zip(low, high, strict=True)], end),
        contrast_interval=_by_embedding([(float(a), float(b)) for a, b in zip(down, up, strict=True)], end),
        gap_interval=(gap_low, gap_high),
        stability=float(stability),
        cohesion=_both(_cohesion(k, members) for k in rows.kernels),
        energy=_both(_energy(k, members) for k in rows.kernels),
    )


def _rejected(end: int, figures: Figures, j: int, reason: str) -> Rejected:
    return Rejected(
        end=end,
        share=float(figures.share[j]),
        capture=_by_embedding(figures.capture[:, j].tolist(), end),
        contrast=_by_embedding(figures.contrast[:, j].tolist(), end),
        gap=float(figures.gap[j]),
        reason=reason,
    )


def _distinct(rejected: Sequence[Rejected]) -> list[Rejected]:
    """By size times gap, the largest first, each set of figures once."""
    return sorted(dict.fromkeys(rejected), key=lambda r: -r.share * r.gap)


def _one_group(
    failed: NDArray[np.intp], kernel: NDArray[np.float32], members: NDArray[np.bool_]
) -> NDArray[np.intp]:
    """Where each candidate fails first, those that have passed so far asked whether they are one group."""
    found = failed.copy()
    for j in np.flatnonzero(failed < 0):
        if unity(kernel, members[:, j]) < LEAST_UNITY:
            found[j] = SEVERAL
    return found


def _by_features(rows: SampledRows, end: int) -> tuple[Similarity, Similarity]:
    """In the embedding that groups, and in the other."""
    return by_features(rows.kernels[end]), by_features(rows.kernels[1 - end])


def _stability(figures: Figures, rng: np.random.Generator) -> NDArray[np.float64]:
    """Share of resamples in which each holds: shares redrawn as binomial, contrasts as normal."""
    n = np.maximum(figures.n, 1)
    shape = (_RESAMPLES, *figures.capture.shape)
    capture = rng.binomial(n, np.clip(figures.capture, 0, 1), shape) / n
    contrast = figures.contrast * (1 + figures.spread * rng.standard_normal(shape))
    holds = (capture[:, 0] >= HOLDS.capture) & (capture[:, 0] - capture[:, 1] >= HOLDS.gap)
    holds &= (contrast[:, 0] >= HOLDS.contrast) & (contrast[:, 1] <= HOLDS.ratio * contrast[:, 0])
    return np.asarray(holds.mean(axis=0))


def _cohesion(kernel: NDArray[np.float32], members: NDArray[np.bool_]) -> float:
    inside = kernel[members].astype(np.float64)
    n = len(inside)
    total = inside.sum(axis=0)
    return float((total @ total - np.sum(inside**2)) / max(n * (n - 1), 1))


def _energy(kernel: NDArray[np.float32], members: NDArray[np.bool_]) -> float:
    share = float(members.mean())
    indicator = (members - share) / np.sqrt(max(share * (1 - share), 1e-12))
    as_kernel = indicator.astype(kernel.dtype)
    projected = np.zeros(kernel.shape[1])
    for start in range(0, len(kernel), _CHUNK_ROWS):  # a copy of all rows in float64 would take longer
        chunk = slice(start, start + _CHUNK_ROWS)
        projected += as_kernel[chunk] @ kernel[chunk]
    projected /= len(kernel)
    return float(projected @ projected)


def _by_embedding(first_grouping: Sequence[_T], end: int) -> tuple[_T, _T]:
    """Of the first and the second embedding, given what groups first."""
    return first_grouping[end], first_grouping[1 - end]


def _both(values: Iterable[float]) -> tuple[float, float]:
    first, second = values
    return first, second


def _numbered(
    ends: Sequence[Sequence[Cluster]], recorded: Sequence[Recorded], first_number: int
) -> list[tuple[Cluster, ...]]:
    """The clusters with numbers: those found again keep theirs, the others get new ones, strongest first."""
    numbers: dict[tuple[int, int], int] = {}
    for end, clusters in enumerate(ends):
        held = [r for r in recorded if r.end == end]
        if clusters and held:
            found = np.stack([c.members for c in clusters], axis=1)
            same = match_numbers(found, np.stack([r.members for r in held], axis=1))
            numbers |= {(end, i): held[j].number for i, j in same.items()}
    new = [(-c.share * c.gap, end, i) for end, cs in enumerate(ends) for i, c in enumerate(cs)]
    number = first_number
    for _, end, i in sorted(new):
        if (end, i) not in numbers:
            numbers[end, i] = number
            number += 1
    return [
        tuple(replace(c, number=numbers[end, i]) for i, c in enumerate(clusters))
        for end, clusters in enumerate(ends)
    ]
