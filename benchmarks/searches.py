"""What a map from an old embedding to a new one is worth, on rows that it was not fitted on.

After a switch queries come from the new model; the rows are old ones that were mapped. Unit rows and cosine
throughout, k = 10, each query without its own row:

- search overlap: of the 10 nearest rows under the new model, the share among the 10 nearest mapped ones;
- nDCG: the same with places: the new model's nearest row has relevance 10, its tenth 1, all others 0;
- twin recall: the share of queries whose nearest mapped row is the query's own;
- SPEC-diff: the largest absolute eigenvalue of the difference of the two cosine kernel matrices, over n;
- mismatch: of the clusters that the new model has and the old one has not, how much is still missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

import spec_store
from spec_store.alignment.metrics import difference_eigenvalues, ranks, recall, search_overlap
from spec_store.spectral.choose import mismatch_mass
from spec_store.spectral.judge import judge_halves
from spec_store.spectral.similarity import by_gaussian

__all__ = ["Clusters", "Search", "as_table", "ndcg"]

Matrix = NDArray[np.float32]

K = 10
# A cluster with fewer test rows is not evaluated, as none with fewer sampled members is listed.
LEAST_TESTED = 20
# Of the test rows, each half described by the other; gaps are means over these.
HALVINGS = 4


@dataclass(frozen=True)
class Search:
    """Test rows as they are searched: queries (n, d) and gallery (n, d), unit rows; row i is query i's own.

    `new` holds the same rows under the new model, shape (n, d_new): queries and gallery of the right search.
    """

    queries: Matrix
    gallery: Matrix
    new: Matrix

    @property
    def overlap(self) -> float:
        return float(search_overlap((self.new, self.new), (self.queries, self.gallery), K).mean())

    @property
    def ndcg(self) -> float:
        return float(ndcg(ranked(self.new, self.new), ranked(self.queries, self.gallery)).mean())

    @property
    def twin_recall(self) -> float:
        return recall(ranks(self.queries, self.gallery), 1)

    @property
    def spec_diff(self) -> float:
        return float(np.abs(difference_eigenvalues(self.gallery, self.new)).max())


def ranked(queries: Matrix, gallery: Matrix) -> NDArray[np.intp]:
    """The ten nearest rows of the gallery without the query's own, the nearest first, shape (n, 10)."""
    similarity = queries @ gallery.T
    np.fill_diagonal(similarity, -np.inf)
    return np.argsort(-similarity, axis=1, kind="stable")[:, :K]


def ndcg(wanted: NDArray[np.intp], found: NDArray[np.intp]) -> NDArray[np.float64]:
    """Normalised discounted cumulative gain of each query, shape (n,), of two ranked lists, shape (n, k).

    The first wanted row has relevance k, the last one 1; place p is discounted by log2(p + 1).
    """
    k = wanted.shape[1]
    relevance = np.arange(k, 0, -1)
    discount = 1 / np.log2(np.arange(2, k + 2))
    gains = ((found[:, :, None] == wanted[:, None, :]) * relevance).sum(axis=2)
    return np.asarray(gains @ discount / (relevance @ discount))


def as_table(old: Matrix, new: Matrix) -> pa.Table:
    """Rows as the columns `row`, `old` and `new`."""
    vectors = {
        name: pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(x).ravel()), x.shape[1])
        for name, x in (("old", old), ("new", new))
    }
    return pa.table({"row": np.arange(len(old)), **vectors})


@dataclass(frozen=True)
class Clusters:
    """What the new model groups and the old one does not: found on training rows, tested on others.

    Attributes
    ----------
    members
        Which test rows are in which cluster, shape (n, m).
    sigmas
        Bandwidths of the old and the new model's kernel.
    """

    members: NDArray[np.bool_]
    sigmas: tuple[float, float]

    @classmethod
    def found(cls, train: tuple[Matrix, Matrix], test: tuple[Matrix, Matrix], seed: int) -> Clusters:
        """By a comparison of the training rows with default options."""
        run = spec_store.compare(
            as_table(*train), ["old", "new"], key="row", describe=False, threads=1, seed=seed
        )
        of_new = [i for i, cluster in enumerate(run.clusters_found) if cluster.end == 1]
        (batch,) = as_table(*test).combine_chunks().to_batches()
        members = run.scorer.membership(batch)[0].member[:, of_new]
        assert run.bandwidths is not None
        old, new = run.bandwidths.values
        return cls(members[:, members.sum(axis=0) >= LEAST_TESTED], (old, new))

    @classmethod
    def kept(cls, file: Path) -> Clusters:
        """As `keep` wrote them."""
        with np.load(file) as stored:
            old, new = stored["sigmas"].tolist()
            return cls(stored["members"], (old, new))

    def keep(self, file: Path) -> None:
        """Write them to an .npz file."""
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(file, members=self.members, sigmas=np.array(self.sigmas))

    def mismatch(self, new: Matrix, rows: Matrix, *, mapped: bool) -> float:
        """Mismatch mass of the test rows: Σ share of rows times the new model's capture less that of `rows`.

        `rows` are the old model's, or mapped ones, which lie in the new model's space and have its bandwidth.
        See spec_store.spectral.judge.
        """
        kernels = by_gaussian(new, self.sigmas[1]), by_gaussian(rows, self.sigmas[int(mapped)])
        gaps = [
            judge_halves(self.members, kernels, np.arange(len(rows)), np.random.default_rng(seed)).gap
            for seed in range(HALVINGS)
        ]
        return mismatch_mass(self.members, np.mean(gaps, axis=0))[0]
