"""The choice among maps, on validation rows: first by what searches find, then by SPEC-diff."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..stores.streaming import ordered_map
from ..stores.vectors import normalize_rows
from .maps import AlignmentMap
from .metrics import difference_eigenvalues, nearest, neighbour_overlap
from .start import RidgePath

__all__ = ["STRENGTHS", "Candidate", "Validation", "best_candidate", "strongest"]

STRENGTHS = (1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 10.0, 100.0)
"""Penalties that are tried, as shares of the mean variance of the inputs."""

_NEIGHBOURS = 10
# Maps whose search overlap is within this, or two standard errors, of the best are alike to a searcher: the
# lowest SPEC-diff decides.
_ALIKE, _ERRORS = 0.005, 2


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
