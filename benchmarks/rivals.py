"""What a user could list instead of our clusters: candidates of three other ways, as masks over the rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from evaluation import Claim, Evaluator
from numpy.typing import NDArray
from sklearn.cluster import HDBSCAN, KMeans
from sklearn.decomposition import PCA

__all__ = ["hdbscan_clusters", "kmeans_claims", "leading_rows"]

Matrix = NDArray[np.float32]
Mask = NDArray[np.bool_]


def kmeans_claims(x: Matrix, evaluator: Evaluator, grouped_by: int, seed: int) -> list[Claim]:
    """K-means of one embedding's own vectors (k = 20, 40, 80), with every doubt decided in its favour.

    Of the cells that hold, the best by (new rows x gap) is chosen again and again while at least half of its
    rows are new: chosen on the very rows on which it is evaluated.
    """
    cells = []
    for k in (20, 40, 80):
        labels = KMeans(k, n_init=2, random_state=seed).fit_predict(x)
        cells += [labels == label for label in range(k)]
    cells = [cell for cell in cells if 8 <= cell.sum() <= len(x) / 4]
    left = [claim for claim in evaluator.claims(cells, grouped_by) if claim.holds]
    chosen: list[Claim] = []
    covered = np.zeros(len(x), bool)
    while True:
        new = [int((claim.members & ~covered).sum()) for claim in left]
        left = [c for c, n in zip(left, new, strict=True) if 2 * n >= c.members.sum()]
        if not left:
            return chosen
        best = max(left, key=lambda c: float((c.members & ~covered).sum()) * c.gap)
        left = [c for c in left if c is not best]
        chosen.append(best)
        covered |= best.members


def hdbscan_clusters(x: Matrix, seed: int) -> list[Mask]:
    """HDBSCAN of one embedding's own vectors, reduced to 50 dimensions for speed."""
    reduced = PCA(min(50, *x.shape), random_state=seed).fit_transform(x)
    labels = HDBSCAN(min_cluster_size=20, copy=True).fit_predict(reduced)
    return [labels == label for label in range(labels.max() + 1)]


def leading_rows(
    run: Any, end: int, embeddings: Sequence[Matrix], *, rows: int = 20, modes: int = 10
) -> list[Mask]:
    """The paper's own way: the rows of highest score of each leading eigenvector, not rotated.

    An eigenvector's sign is arbitrary; the sign of the higher scores is taken.
    """
    features = [m.features(x) for m, x in zip(run.scorer.maps, embeddings, strict=True)]
    scores = run.spectrum.scores(end, np.concatenate(features, axis=1))[:, :modes]
    found = []
    for score in scores.T:
        highest = [np.argsort(-sign * score)[:rows] for sign in (1, -1)]
        mask = np.zeros(len(score), bool)
        mask[max(highest, key=lambda top: abs(score[top].sum()))] = True
        found.append(mask)
    return found
