"""Two-dimensional pictures of vectors: PCA, or t-SNE after PCA.

References
----------
.. [1] van der Maaten, "Accelerating t-SNE using tree-based algorithms", JMLR 2014.
.. [2] Kobak, Berens, "The art of using t-SNE for single-cell transcriptomics", Nature Communications 2019:
   a start from PCA keeps the large distances of the map meaningful.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from ..options import check_choice

__all__ = ["Method", "project"]

Method = Literal["tsne", "pca"]

_PCA_WIDTH = 50
_PERPLEXITY = 30.0
# A third of the time of scikit-learn's defaults; trustworthiness on the digits is 0.988 instead of 0.989.
_ITERATIONS = 500
_ANGLE = 0.8
# Fewer rows have no neighbourhoods to keep.
_FEWEST_ROWS = 10


def project(vectors: NDArray[np.float32], method: Method, seed: int) -> NDArray[np.float32]:
    """Places of rows in the plane: near each other there, as far as a plane can hold it, if alike here.

    Parameters
    ----------
    vectors
        Shape (n, d).
    method
        "pca", or "tsne" of the 50 leading principal components, from the first two [1]_ [2]_.
    seed
        Of the draws of either.

    Returns
    -------
    Shape (n, 2), the larger extent in [-1, 1]. The same on each call: one thread computes it.

    Notes
    -----
    Cost of t-SNE: O(n log n) per iteration, some seconds for 2,000 rows.
    """
    check_choice("projection", method, get_args(Method))
    n, d = vectors.shape
    if n < 3 or np.ptp(vectors, axis=0).max(initial=0) == 0:
        return np.zeros((n, 2), np.float32)
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    with threadpool_limits(1):
        reduced = PCA(min(_PCA_WIDTH, n, d), random_state=seed).fit_transform(vectors.astype(np.float64))
        if reduced.shape[1] < 2:
            reduced = np.pad(reduced, ((0, 0), (0, 1)))
        points = reduced[:, :2]
        if method == "tsne" and n >= _FEWEST_ROWS:
            start = points / (points[:, 0].std() or 1.0) * 1e-4
            perplexity = min(_PERPLEXITY, (n - 1) / 3)
            map_of = TSNE(
                2,
                init=start,
                perplexity=perplexity,
                max_iter=_ITERATIONS,
                angle=_ANGLE,
                random_state=seed,
            )
            points = map_of.fit_transform(reduced)
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    extent = float(np.ptp(points, axis=0).max()) / 2
    return np.asarray((points - middle) / (extent or 1.0), np.float32)
