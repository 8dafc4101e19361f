"""What a map is fitted on in closed form: a row and its Nystroem features, x -> [x, k(x, Z) K_ZZ^(-1/2)].

One pass gives the moments of these features and the target; a regression on them, see
`spec_store.alignment.start`, is a map of vectors again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..spectral.features import NystroemMap, kmeans_landmarks
from ..stores.vectors import Vectors
from .maps import AlignmentMap
from .start import Linear, PairMoments

__all__ = ["Features", "fit_features"]

# Of the median distance of two rows: at 1 and at 2 the features are nearly linear, at a quarter they are
# spikes.
_BANDWIDTH = 0.6
_DISTANCE_ROWS = 1000


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
