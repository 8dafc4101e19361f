"""One embedding at two times, through one feature map: groups of rows that there are more of, or fewer.

The rows are others, so there is no kernel matrix of both on the same rows; but with one map both second
moments are operators on the same features, and the eigenvectors of C_new - C_old are functions of a row, φ·v,
which the new rows take more of [1]_: a group that makes up a share s of the new rows and none of the old ones
gives an eigenvalue of about s.

References
----------
.. [1] Zhang, Li, Farnia, "An interpretable evaluation of entropy-based novelty of generative models", ICML
   2024, arXiv 2402.17287.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from .candidates import SMALLEST, ProposingRows, Rules, mode_signs, refined
from .judge import wilson
from .spectrum import SecondMoment

__all__ = ["Change", "Drift", "drift"]

_Z95 = 1.96
_MODES = 20
# A group is listed where its share at the one time is so many times that at the other, by intervals' bounds.
_LEAST_RATIO = 1.5
_LARGEST_SHARE = 0.5
_TINY = 1e-12


@dataclass(frozen=True)
class Change:
    """A group of rows whose share differs between the times: those with φ·centre ≥ threshold.

    Attributes
    ----------
    end
        0 where there are more of them at the new time, 1 where fewer.
    centre, threshold
        The linear rule, in the map's whitened features.
    shares
        Of the old and of the new rows, estimated on sampled rows that took no part in finding it.
    intervals
        95% intervals of these.
    members
        Which sampled rows of the time that has more of them are in it.
    """

    end: int
    centre: NDArray[np.float64]
    threshold: float
    shares: tuple[float, float]
    intervals: tuple[tuple[float, float], tuple[float, float]]
    members: NDArray[np.bool_]


@dataclass(frozen=True)
class Drift:
    """What has changed.

    Attributes
    ----------
    eigenvalues
        The leading ones of C_new - C_old, and of C_old - C_new, strongest first.
    coverage
        Mean |φ(x)|² of the old and of the new rows: where it falls, new rows lie far from every landmark, and
        the map does not see them.
    changes
        Groups, those of the largest difference of shares first.
    """

    eigenvalues: tuple[NDArray[np.float64], NDArray[np.float64]]
    coverage: tuple[float, float]
    changes: tuple[Change, ...]


def drift(
    moments: tuple[SecondMoment, SecondMoment],
    samples: tuple[NDArray[np.float64], NDArray[np.float64]],
    *,
    seed: int,
    modes: int = _MODES,
) -> Drift:
    """Groups that one time has more of than the other.

    Parameters
    ----------
    moments
        Of the one embedding at the old and at the new time, by the same map.
    samples
        Features of uniformly sampled rows of both times, shapes (n, p) and (m, p).
    modes
        Leading eigenvectors of each end that propose groups.

    Notes
    -----
    Eigenvalues and coverage are those of all rows. Groups are proposed by the difference of one half of each
    sample alone, by both signs of its eigenvectors, each as a linear rule; on the other halves the shares
    are counted, and those listed whose intervals lie apart. All rows' eigenvectors would have seen those
    halves, too: of a small table they list noise. Cost: O(p³).
    """
    rng = np.random.default_rng(seed)
    halves = [rng.permutation(len(x)) < len(x) // 2 for x in samples]
    with threadpool_limits(1, user_api="blas"):
        values = np.linalg.eigvalsh(moments[1].matrix - moments[0].matrix)
        old, new = (_second_moment(x[half]) for x, half in zip(samples, halves, strict=True))
        strengths, vectors = np.linalg.eigh(new - old)
        found, leading = [], []
        for end, sign in enumerate((1.0, -1.0)):
            order = np.argsort(-sign * strengths)[:modes]
            order = order[sign * strengths[order] > 0]
            found += _changes(samples, halves, vectors[:, order], sign * strengths[order], end, seed)
            leading.append(np.sort(np.maximum(sign * values, 0))[::-1][:modes])
    coverage = float(np.trace(moments[0].matrix)), float(np.trace(moments[1].matrix))
    found.sort(key=lambda c: -abs(c.shares[1] - c.shares[0]))
    return Drift((leading[0], leading[1]), coverage, tuple(found))


def _second_moment(features: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(features.T @ features / max(len(features), 1))


def _changes(
    samples: tuple[NDArray[np.float64], NDArray[np.float64]],
    halves: Sequence[NDArray[np.bool_]],
    vectors: NDArray[np.float64],
    strengths: NDArray[np.float64],
    end: int,
    seed: int,
) -> list[Change]:
    """Groups that the time of this end has more of: proposed by `halves`, counted on the other rows."""
    own, other = samples[1 - end].astype(np.float32), samples[end].astype(np.float32)
    half, other_half = halves[1 - end], halves[end]
    if not len(strengths) or not half.any():
        return []
    rules = _proposed(own[half], vectors.astype(np.float32), strengths, seed)
    here, there = (rules.members(x).mean(axis=0) for x in (own[~half], other[~other_half]))
    bounds = [
        wilson(share, np.full(len(rules), np.count_nonzero(~held)), _Z95)
        for share, held in ((here, half), (there, other_half))
    ]
    least, most = bounds[0][0], bounds[1][1]
    apart = least > _LEAST_RATIO * most
    worth = np.where(apart, (least - most) * np.log(np.maximum(least, _TINY) / np.maximum(most, _TINY)), 0.0)
    members = rules.members(own)
    used = np.zeros(len(own), bool)
    found = []
    for j in np.argsort(-worth, kind="stable"):  # many rows, and few of them at the other time
        inside = members[:, j]  # half of them, at least, in no group that was listed before
        if not apart[j] or 2 * np.count_nonzero(inside & ~used) < np.count_nonzero(inside):
            continue
        used |= inside
        shares = float(here[j]), float(there[j])
        intervals = [(float(low[j]), float(high[j])) for low, high in bounds]
        if end == 0:
            shares, intervals = (shares[1], shares[0]), intervals[::-1]
        found.append(
            Change(
                end=end,
                centre=rules.centres[:, j].astype(np.float64),
                threshold=float(rules.thresholds[j]),
                shares=shares,
                intervals=(intervals[0], intervals[1]),
                members=inside,
            )
        )
    return found


def _proposed(
    rows: NDArray[np.float32], vectors: NDArray[np.float32], strengths: NDArray[np.float64], seed: int
) -> Rules:
    """Rules of both signs of the eigenvectors, and of the groups that they propose once they are rotated."""
    scores = rows @ vectors
    scale = np.maximum(np.sqrt(np.mean(scores**2, axis=0)), np.finfo(np.float32).tiny)
    signs = np.concatenate([vectors, -vectors], axis=1)
    positive = np.maximum(rows @ signs, 0)
    squares = np.maximum((positive**2).sum(axis=0), np.finfo(np.float32).tiny)
    thresholds = 0.5 * np.sqrt((positive**4).sum(axis=0) / squares)  # as `mode_signs` takes them
    scores = scores / scale
    masks = mode_signs(ProposingRows((rows, rows), (scores, scores), (strengths, strengths)), 0, seed)
    turned = refined(np.stack([m for m in masks if m.any()], axis=1), rows)
    found = Rules(
        np.concatenate([signs, turned.centres], axis=1), np.concatenate([thresholds, turned.thresholds])
    )
    sizes = found.members(rows).sum(axis=0)
    return found.chosen((sizes >= SMALLEST) & (sizes <= _LARGEST_SHARE * len(rows)))
