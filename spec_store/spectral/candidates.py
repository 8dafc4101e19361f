"""Candidates: groups of sampled rows that may be clusters. Proposed here, each turned into a rule, judged
elsewhere.

A proposer is a function of the rows, the end and a seed which returns masks of rows; what it proposes need
not be true, it need only hold what is. To add a way of proposing, add a function to `PROPOSERS`.

References
----------
.. [1] Rohe, Zeng, "Vintage factor analysis with varimax performs statistical inference", arXiv 2004.05387.
.. [2] Dhillon, Modha, "Concept decompositions for large sparse text data using clustering", Machine
Learning 2001.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from .similarity import Similarity

__all__ = [
    "PROPOSERS",
    "Proposer",
    "ProposingRows",
    "Rules",
    "SampledRows",
    "embedding_cells",
    "mode_signs",
    "propose",
    "refined",
    "spectral_cells",
]

Masks = NDArray[np.bool_]

SMALLEST = 8
"""Sampled rows of the smallest candidate: fewer can't be judged."""

LARGEST_SHARE = 0.22
"""Of the sampled rows, so that no cluster is over a quarter of all: that would be a division of the table."""

# Leading modes of an end that are rotated, and clustered, together.
_MODES = (20, 40)
# An eigenvalue under this share of the one before begins a new run of modes.
_RUN = 0.7
# Cells of an embedding's own features, and the number of their principal coordinates that k-means sees.
_CELLS = (20, 40, 80, 160)
_COORDINATES = 64


@dataclass(frozen=True)
class SampledRows:
    """Sampled rows, n of them, on which clusters are found.

    Attributes
    ----------
    features
        Of each embedding, shape (n, p_E), float32: products approximate the kernel.
    kernels
        Of each embedding, shape (n, q_E), float32: products are the kernel to judge by. The features, or
        for a small sample an exact factor of the kernel matrix.
    exact
        Of each embedding, the similarity by which what is listed in the end is judged once more.
    scores
        Of the modes of each end, shape (n, k), strongest first, mean square about 1.
    eigenvalues
        Of these modes, shape (k,).
    """

    features: tuple[NDArray[np.float32], NDArray[np.float32]]
    kernels: tuple[NDArray[np.float32], NDArray[np.float32]]
    exact: tuple[Similarity, Similarity]
    scores: tuple[NDArray[np.float32], NDArray[np.float32]]
    eigenvalues: tuple[NDArray[np.float64], NDArray[np.float64]]

    def __len__(self) -> int:
        return len(self.features[0])

    def proposing(self, rows: NDArray[np.intp]) -> ProposingRows:
        """What proposers see of some of the rows."""
        f, s = self.features, self.scores
        return ProposingRows((f[0][rows], f[1][rows]), (s[0][rows], s[1][rows]), self.eigenvalues)


@dataclass(frozen=True)
class ProposingRows:
    """Rows as proposers see them: `features`, `scores` and `eigenvalues` of `SampledRows`."""

    features: tuple[NDArray[np.float32], NDArray[np.float32]]
    scores: tuple[NDArray[np.float32], NDArray[np.float32]]
    eigenvalues: tuple[NDArray[np.float64], NDArray[np.float64]]

    def __len__(self) -> int:
        return len(self.features[0])


Proposer = Callable[[ProposingRows, int, int], list[Masks]]


def mode_signs(rows: ProposingRows, end: int, seed: int) -> list[Masks]:
    """Both signs of every mode, rotated within runs of like strength [1]_.

    With t the sign's scores and m = (Σt²)²/Σt⁴ their effective number, a typical member has t = √(Σt²/m):
    rows from half of that are proposed.
    """
    found = []
    for k in _numbers_of_modes(rows, end):
        turned = _rotated(rows.scores[end][:, :k], rows.eigenvalues[end][:k])
        for signed in (turned, -turned):
            t = np.maximum(signed, 0)
            squares = (t**2).sum(axis=0)
            typical = np.sqrt((t**4).sum(axis=0) / np.maximum(squares, np.finfo(np.float32).tiny))
            found += list((t >= 0.5 * typical).T & (squares > 0)[:, None])
    return found


def spectral_cells(rows: ProposingRows, end: int, seed: int) -> list[Masks]:
    """Spherical k-means [2]_ of the coordinates √λ s of the leading modes, rows weighted by squared length.

    Proposed are rows with a cosine of 1/2 to the centre or more, but the shortest 15%, which no mode says
    much of.
    """
    found: list[Masks] = []
    for k in _numbers_of_modes(rows, end):
        coordinates = rows.scores[end][:, :k] * np.sqrt(np.abs(rows.eigenvalues[end][:k])).astype(np.float32)
        lengths = np.linalg.norm(coordinates, axis=1)
        units = coordinates / np.maximum(lengths, np.finfo(np.float32).tiny)[:, None]
        centres = _kmeans(units, k, seed, weights=lengths**2, spherical=True)[0]
        long = lengths > np.quantile(lengths, 0.15)
        found += list((units @ centres.T >= 0.5).T & long)
    return found


def embedding_cells(rows: ProposingRows, end: int, seed: int) -> list[Masks]:
    """k-means cells of the embedding's own features, for several k, in their leading principal
    coordinates."""
    features = rows.features[end]
    centred = features - features.mean(axis=0)
    if centred.shape[1] > _COORDINATES:
        _, directions = np.linalg.eigh(centred.T @ centred)
        centred = centred @ directions[:, -_COORDINATES:]
    found: list[Masks] = []
    for k in _CELLS:
        if k * SMALLEST <= len(rows):
            cells = _kmeans(centred, k, seed)[1]
            found += [cells == c for c in range(k)]
    return found


PROPOSERS: tuple[Proposer, ...] = (mode_signs, spectral_cells, embedding_cells)


def propose(
    rows: ProposingRows, end: int, *, seed: int, proposers: Sequence[Proposer] = PROPOSERS
) -> NDArray[np.bool_]:
    """All candidates of one end, shape (n, m), of no fewer rows than can be judged and no more than a
    cluster may have, twice over: its rule may yet take in fewer."""
    masks = [mask for proposer in proposers for mask in proposer(rows, end, seed)]
    largest = 2 * LARGEST_SHARE * len(rows)
    masks = [mask for mask in masks if SMALLEST <= mask.sum() <= largest]
    return np.stack(masks, axis=1) if masks else np.zeros((len(rows), 0), bool)


@dataclass(frozen=True)
class Rules:
    """Who is a member, m linear rules in the features of one embedding: φ·centre ≥ threshold.

    Attributes
    ----------
    centres
        Shape (p, m).
    thresholds
        Shape (m,).
    """

    centres: NDArray[np.float32]
    thresholds: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.thresholds)

    def members(self, features: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Shape (n, m)."""
        return np.asarray(features @ self.centres >= self.thresholds)

    def chosen(self, which: Any) -> Rules:
        """Some of the rules."""
        return Rules(self.centres[:, which], self.thresholds[which])


def refined(masks: NDArray[np.bool_], features: NDArray[np.float32]) -> Rules:
    """For each candidate the rule that takes in as many rows as it has, those nearest to its mean feature.

    The threshold lies halfway to the next row, where rounding can't move a row across.
    """
    sizes = masks.sum(axis=0)
    centres = features.T @ masks.astype(np.float32) / np.maximum(sizes, 1).astype(np.float32)
    scores = features @ centres
    thresholds = np.empty(len(sizes), np.float32)
    for j, size in enumerate(sizes):
        at = len(scores) - int(size)
        near = np.partition(scores[:, j], (max(at - 1, 0), at))
        thresholds[j] = (near[max(at - 1, 0)] + near[at]) / 2
    return Rules(centres, thresholds)


def _numbers_of_modes(rows: ProposingRows, end: int) -> list[int]:
    held = rows.scores[end].shape[1]
    return sorted({min(k, held) for k in _MODES} - {0})


def _rotated(scores: NDArray[np.float32], eigenvalues: NDArray[np.float64]) -> NDArray[np.float32]:
    """The scores of modes rotated within runs of like strength: only near-equal eigenvalues leave them
    arbitrary."""
    strengths = np.abs(eigenvalues)
    runs = np.split(np.arange(len(strengths)), np.flatnonzero(strengths[1:] < _RUN * strengths[:-1]) + 1)
    return np.concatenate([_skewed(scores[:, run]) for run in runs], axis=1)


def _skewed(scores: NDArray[np.float32], *, iterations: int = 100) -> NDArray[np.float32]:
    """Scores T = S R, R orthogonal, with the largest Σ T³: groups lie on the positive sign of a column each.

    By polar steps from the identity; deterministic. Cost: O(n k²) a step.
    """
    signed = scores * np.where((scores**3).sum(axis=0) < 0, np.float32(-1), np.float32(1))
    rotation = np.eye(signed.shape[1], dtype=np.float32)
    last = 0.0
    for _ in range(iterations):
        turned = signed @ rotation
        u, singular, vt = np.linalg.svd(signed.T @ (turned * turned) / len(signed))
        rotation = u @ vt
        total = float(singular.sum())
        if total <= last * (1 + 1e-5):
            break
        last = total
    return np.asarray(signed @ rotation)


def _kmeans(
    points: NDArray[np.float32],
    k: int,
    seed: int,
    *,
    weights: NDArray[np.float32] | None = None,
    spherical: bool = False,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Centres, shape (k, d), and the cell of each row."""
    import faiss  # a second to import; only proposing needs it

    points = np.ascontiguousarray(points, np.float32)
    kmeans = faiss.Kmeans(
        points.shape[1],
        k,
        niter=12,
        seed=seed,
        spherical=spherical,
        min_points_per_centroid=1,
        max_points_per_centroid=1 << 30,
    )
    with threadpool_limits(1, user_api="openmp"):  # of the calling thread alone
        kmeans.train(points, weights=weights)
        cells = kmeans.index.search(points, 1)[1][:, 0]
    return np.asarray(kmeans.centroids), np.asarray(cells)
