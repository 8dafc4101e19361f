"""The map in closed form: ridge regression on a row and its Nystroem features, variance restored, then
polished.

x -> [x, k(x, Z) K_ZZ^(-1/2)] for landmarks Z. Everything up to the polish comes from the moments of these
features and the target, which one pass gives; its strength is chosen by search overlap on validation rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..spectral.features import NystroemMap, kmeans_landmarks
from ..stores.streaming import ordered_map
from ..stores.vectors import Vectors, normalize_rows
from .maps import AlignmentMap
from .metrics import difference_eigenvalues, nearest, neighbour_overlap
from .start import Linear, PairMoments, RidgePath

__all__ = ["STRENGTHS", "Candidate", "Features", "Validation", "best_candidate", "fit_features", "strongest"]

STRENGTHS = (1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 10.0, 100.0)
"""Penalties that are tried, as shares of the mean variance of the inputs."""

_NEIGHBOURS = 10
# Of the median distance of two rows: at 1 and at 2 the features are nearly linear, at a quarter they are
# spikes.
_BANDWIDTH = 0.6
_DISTANCE_ROWS = 1000
# Maps whose search overlap is within this, or two standard errors, of the best are alike to a searcher: the
# lowest SPEC-diff decides.
_ALIKE, _ERRORS = 0.005, 2


@dataclass(frozen=True)
class Features:
    """[u, φ(u)] of unit rows u, φ the Nystroem features of a Gaussian kernel.

    Attributes
    ----------
    nystroem
        The feature map.
    """

    nystroem: NystroemMap

    def of(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Of unit rows (n, d), shape (n, d + q)."""
        columns = self.nystroem.columns(Vectors.from_matrix(rows, directions=True))
        return np.concatenate([rows, columns @ self.nystroem.whitening().astype(np.float32)], axis=1)

    def moments(self, mean: NDArray[np.float64], second: NDArray[np.float64]) -> PairMoments:
        """Of these features and the target, from those of [rows, kernel columns, target], uncentred."""
        d, t = self.nystroem.width, self.nystroem.whitening()
        n_raw = d + len(t)
        whitened = np.concatenate([second[:d], t.T @ second[d:n_raw]])
        inner = np.concatenate([whitened[:, :d], whitened[:, d:n_raw] @ t], axis=1)
        return PairMoments(
            mean_a=np.concatenate([mean[:d], mean[d:n_raw] @ t]),
            mean_b=mean[n_raw:],
            aa=(inner + inner.T) / 2,
            ab=whitened[:, n_raw:],
            bb=second[n_raw:, n_raw:],
        )

    def to_map(self, linear: Linear) -> AlignmentMap:
        """A regression on these features as a map of vectors."""
        d = self.nystroem.width
        weights = np.concatenate([linear.weights[:d], self.nystroem.whitening() @ linear.weights[d:]])
        return AlignmentMap(
            weights.astype(np.float32),
            linear.bias.astype(np.float32),
            np.zeros((d, 0), np.float32),
            landmarks=np.ascontiguousarray(self.nystroem.landmarks.T, np.float32),
            bandwidth=float(self.nystroem.bandwidth),
        )


def fit_features(
    rows: NDArray[np.float32], column: str, n_landmarks: int, *, seed: int, threads: int = 1
) -> Features:
    """Landmarks and bandwidth from sampled unit rows (n, d).

    Cost: 8 iterations of n x `n_landmarks` distances.
    """
    landmarks = kmeans_landmarks(rows, n_landmarks, seed=seed, threads=threads)
    some = rows[np.random.default_rng(seed).permutation(len(rows))[:_DISTANCE_ROWS]].astype(np.float64)
    sq = np.maximum(2 - 2 * (some @ some.T)[np.triu_indices(len(some), 1)], 0)
    distance = float(np.sqrt(np.median(sq[sq > 0]))) if (sq > 0).any() else 1.0
    return Features(
        NystroemMap(
            column=column,
            width=rows.shape[1],
            normalize=True,
            dtype="float32",
            bandwidth=_BANDWIDTH * distance,
            landmarks=landmarks.astype(np.float32).astype(np.float64),  # as the map's file holds them
            origin=np.zeros(rows.shape[1]),
        )
    )


class Validation:
    """Validation rows: what searches and SPEC-diff make of a map's outputs.

    Parameters
    ----------
    queries
        Unit rows (n, d) of the embedding whose own 10 nearest rows a search should find: the target's, or
        the source's in place.
    target
        Unit rows (n, d_b), for SPEC-diff.
    """

    def __init__(self, queries: NDArray[np.float32], target: NDArray[np.float32]) -> None:
        self._queries, self._target = queries, target
        self._wanted = nearest(queries, _NEIGHBOURS)

    def search_overlaps(self, outputs: NDArray[np.floating]) -> NDArray[np.float64]:
        """Of the 10 rows that each query should find, the share among the 10 nearest outputs, shape (n,)."""
        found = nearest(self._queries, _NEIGHBOURS, gallery=normalize_rows(outputs))
        return neighbour_overlap(self._wanted, found)

    def spec_diff(self, outputs: NDArray[np.floating]) -> float:
        """Of the cosine kernels."""
        f = normalize_rows(outputs)
        f[~np.isfinite(f)] = 0
        return float(np.abs(difference_eigenvalues(f, self._target)).max())


def strongest(
    paths: Sequence[RidgePath],
    inputs: NDArray[np.floating],
    validation: Validation,
    strengths: Sequence[float] = STRENGTHS,
    *,
    workers: int = 1,
) -> tuple[RidgePath, float]:
    """The path, of several over the same inputs, and the strength of the highest search overlap.

    Parameters
    ----------
    inputs
        Those of the validation rows, shape (n, d_a).
    """
    mean, basis = paths[0].moments, paths[0].basis
    within = (inputs - mean.mean_a) @ basis
    tried = [(path, s) for path in paths for s in strengths]

    def overlap(one: tuple[RidgePath, float]) -> float:
        path, strength = one
        outputs = within @ path.weights(strength) + mean.mean_b
        return float(validation.search_overlaps(outputs.astype(np.float32)).mean())

    return tried[int(np.argmax(list(ordered_map(overlap, tried, workers=workers))))]


@dataclass(frozen=True)
class Candidate:
    """A map, and what it gives on the validation rows: search overlap by row, and SPEC-diff."""

    name: str
    map: AlignmentMap
    search_overlaps: NDArray[np.float64]
    spec_diff: float


def best_candidate(candidates: Sequence[Candidate]) -> int:
    """The one of lowest SPEC-diff among those that searchers can't tell from the best."""
    best = max(candidates, key=lambda c: float(c.search_overlaps.mean())).search_overlaps

    def is_alike(candidate: Candidate) -> bool:
        less = best - candidate.search_overlaps
        return bool(less.mean() <= max(_ALIKE, _ERRORS * less.std() / np.sqrt(len(less))))

    return min((i for i, c in enumerate(candidates) if is_alike(c)), key=lambda i: candidates[i].spec_diff)
