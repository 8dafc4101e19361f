"""Is a cluster true? Its claim, checked on exact kernels by rows that were not used to describe it.

A cluster claims: in the embedding that groups it, its rows are near each other and apart from the rest; in
the other embedding they are not. The rows are split in two halves at random. The members in the first half
describe the cluster, by the mean of their kernels; every row of the second half is ranked by its similarity
to that mean, once in each embedding. With R members in the second half,

- capture is the share of members among the R nearest (R-precision);
- contrast is the members' mean similarity over that of the R nearest rows that are not members;
- gap is the grouping embedding's capture less the other's.

The claim holds where the grouping embedding's capture is at least 0.45 and its contrast at least 1.05, the
gap is at least 0.12, and the other's contrast is at most 0.9 of the grouping embedding's. Nothing here is
shared with the code that lists clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Claim", "Evaluator", "mismatch_mass", "unit_rows"]

Matrix = NDArray[np.float32]
Mask = NDArray[np.bool_]

_TINY = 1e-30


@dataclass(frozen=True)
class Claim:
    """One cluster: its rows, and its capture and contrast in the grouping embedding and in the other one."""

    members: Mask
    capture: tuple[float, float]
    contrast: tuple[float, float]

    @property
    def gap(self) -> float:
        return self.capture[0] - self.capture[1]

    @property
    def weight(self) -> float:
        """Members times gap."""
        return float(self.members.sum()) * self.gap

    @property
    def holds(self) -> bool:
        grouped = self.capture[0] >= 0.45 and self.contrast[0] >= 1.05
        return grouped and self.gap >= 0.12 and self.contrast[1] <= 0.9 * self.contrast[0]


def mismatch_mass(claims: Sequence[Claim]) -> float:
    """How much of the table one embedding retrieves as groups and the other does not, in [0, 1].

    The sum of (share of rows in no earlier cluster) x gap over the claims that hold, by falling size x gap.
    """
    true = sorted((c for c in claims if c.holds), key=lambda c: -c.weight)
    covered = np.zeros(len(true[0].members) if true else 0, bool)
    total = 0.0
    for claim in true:
        total += float((claim.members & ~covered).mean()) * claim.gap
        covered |= claim.members
    return total


def unit_rows(x: NDArray[np.floating[Any]]) -> Matrix:
    """Rows scaled to length 1, float32."""
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), np.float32)


class Evaluator:
    """Checks clusters of the rows of two embeddings, each given as unit rows and the run's bandwidth.

    A bandwidth of None stands for the cosine kernel, shifted to [0, 1]. Only the block of each kernel between
    the two halves is held: n² bytes per embedding.
    """

    def __init__(self, embeddings: Sequence[Matrix], bandwidths: Sequence[float | None], seed: int) -> None:
        rng = np.random.default_rng(seed)
        first = rng.random(len(embeddings[0])) < 0.5
        self._describing = np.flatnonzero(first)
        # In random order, so that equal similarities are not ranked by the row's place in the table.
        self._tested = rng.permutation(np.flatnonzero(~first))
        self._kernels = [
            _kernel(x[self._tested], x[self._describing], sigma)
            for x, sigma in zip(embeddings, bandwidths, strict=True)
        ]

    def claims(self, clusters: Sequence[Mask], grouped_by: int) -> list[Claim]:
        """Each cluster's claim, with embedding `grouped_by` (0 or 1) as the one that groups it."""
        if not clusters:
            return []
        members = np.stack(clusters, axis=1)
        describing = members[self._describing].astype(np.float32)
        describing /= np.maximum(describing.sum(axis=0), 1)
        tested = members[self._tested]
        similar = [self._kernels[side] @ describing for side in (grouped_by, 1 - grouped_by)]
        found = []
        for j, mask in enumerate(clusters):
            if min(tested[:, j].sum(), np.count_nonzero(describing[:, j])) < 2 or tested[:, j].all():
                found.append(Claim(mask, (0.0, 0.0), (0.0, 0.0)))
                continue
            one, two = (_capture_and_contrast(s[:, j], tested[:, j]) for s in similar)
            found.append(Claim(mask, (one[0], two[0]), (one[1], two[1])))
        return found


def _kernel(x: Matrix, y: Matrix, sigma: float | None) -> Matrix:
    """Of unit rows, where |x - y|² = 2 - 2 x·y."""
    cosines = x @ y.T
    return (1 + cosines) / 2 if sigma is None else np.exp((np.minimum(cosines, 1) - 1) / np.float32(sigma**2))


def _capture_and_contrast(similarity: Matrix, members: Mask) -> tuple[float, float]:
    r = int(members.sum())
    ranked = members[np.argsort(-similarity, kind="stable")]
    nearest_others = np.sort(similarity[~members])[-r:].mean()
    # Kernels of a narrow bandwidth underflow to 0: nothing is then compared with nothing, a contrast of 1.
    contrast = (float(similarity[members].mean()) + _TINY) / (float(nearest_others) + _TINY)
    return float(ranked[:r].mean()), contrast
