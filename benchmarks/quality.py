"""Does it find what was planted, and how near are the feature maps to the exact n x n answer?

python benchmarks/quality.py planted     # 50,000 rows, 20 groups, 8 of them merged pairwise by b
python benchmarks/quality.py maps        # 8,000 rows, 30 groups of very different sizes, 256-d and 384-d
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.metrics import adjusted_mutual_info_score

from spec_store import compare
from spec_store.spectral.clusters import Membership

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from planted import planted_mixture, vectors

Matrix = NDArray[np.floating[Any]]


def stored(folder: str, a: Matrix, b: Matrix) -> None:
    table = pa.table({"a": vectors(a), "b": vectors(b)})
    lance.write_dataset(table, f"{folder}/rows.lance", mode="overwrite")


def planted_scores(unequal: bool, seed: int, **options: Any) -> tuple[float, float, bool]:
    """AMI of each end's labels on the planted rows, and whether every pair is found at the right end."""
    a, b, groups = planted_mixture(50_000, unequal=unequal, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        stored(folder, a, b)
        run = compare("rows", ["a", "b"], db=folder, **options)
        found = [run.scorer.membership(batch)[0] for batch in run.source.batches(["a", "b"])]
    relative = np.concatenate([m.relative for m in found])
    contribution = np.concatenate([m.contribution for m in found])
    planted = groups < 8
    scores, all_found = [], True
    for end, truth in enumerate((groups, groups // 2)):
        numbers = [i for i, c in enumerate(run.clusters_found) if c.end == end]
        order, n = Membership(relative[:, numbers], contribution[:, numbers]).ranked()
        labels = np.where(n > 0, order[:, 0], -1) if numbers else np.full(len(n), -1)
        scores.append(adjusted_mutual_info_score(truth[planted], labels[planted]))
        for group in np.unique(truth[planted]):
            inside = labels[planted & (truth == group)]
            commonest = np.bincount(inside[inside >= 0], minlength=1).argmax()
            share = (labels[planted & (truth == group)] == commonest).mean()
            pure = (truth[planted & (labels == commonest)] == group).mean()
            all_found = all_found and share > 0.5 and pure > 0.5
    return scores[0], scores[1], all_found


def planted() -> None:
    raw = {"center": False, "normalize": False}
    for name, options in (("default", {}), ("raw eigenvectors", raw)):
        for unequal in (False, True):
            rows = [planted_scores(unequal, seed, **options) for seed in range(5)]
            a, b = (np.median([r[i] for r in rows]) for i in (0, 1))
            every = sum(r[2] for r in rows)
            sizes = "1 : 6" if unequal else "equal"
            print(f"{name:>16}, sizes {sizes}: AMI {a:.3f} / {b:.3f}, every pair found in {every} of 5 seeds")


def mixture(seed: int, n: int = 8000) -> tuple[Matrix, Matrix]:
    """30 groups, sizes falling as 1/rank, in 256-d and 384-d with noise; b merges eight of them pairwise."""
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, 31)
    groups = rng.choice(30, size=n, p=share / share.sum())
    out = []
    for d, merge in ((256, 0), (384, 4)):
        centres = rng.standard_normal((30, d))
        centres[1 : 2 * merge : 2] = centres[0 : 2 * merge : 2]
        basis = rng.standard_normal((12, d))
        out.append(
            centres[groups] + 0.5 * rng.standard_normal((n, 12)) @ basis + 0.5 * rng.standard_normal((n, d))
        )
    return out[0].astype(np.float32), out[1].astype(np.float32)


def exact(a: Matrix, b: Matrix, sigmas: tuple[float, float], k: int = 10) -> list[tuple[Matrix, Matrix]]:
    """Both ends' leading eigenpairs of the centred n x n kernel difference."""
    import scipy.sparse.linalg

    difference = np.zeros((len(a), len(a)))
    for x, sigma, sign in zip((a, b), sigmas, (1, -1), strict=True):
        unit = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(float)
        difference += sign * np.exp((unit @ unit.T - 1) / sigma**2)
    difference -= difference.mean(axis=0)
    difference -= difference.mean(axis=1, keepdims=True)
    difference /= len(a)
    ends = []
    for which, order in (("LA", slice(None, None, -1)), ("SA", slice(None))):
        values, modes = scipy.sparse.linalg.eigsh(difference, k=k, which=which, tol=1e-9)
        rank = np.argsort(values)[order]
        ends.append((values[rank], modes[:, rank]))
    return ends


def maps() -> None:
    a, b = mixture(0)
    with tempfile.TemporaryDirectory() as folder:
        stored(folder, a, b)
        truth = None
        variants: tuple[dict[str, Any], ...] = (
            {"features": "nystroem"},
            {"features": "nystroem", "landmarks": "uniform"},
            {"features": "orf", "dim": 1000},
            {"features": "rff", "dim": 3000},
        )
        for options in variants:
            run = compare("rows", ["a", "b"], db=folder, **options)
            assert run.bandwidths is not None
            truth = truth or exact(a, b, run.bandwidths.values)
            phi = np.concatenate(
                [m.features(x) for m, x in zip(run.scorer.maps, (a, b), strict=True)], axis=1
            )
            line = []
            for end, (values, modes) in enumerate(truth):
                scores = run.spectrum.scores(end, phi)
                found = run.spectrum.ends[end].eigenvalues
                error = np.abs(found - values[: len(found)]).max() / abs(values[1])
                q = np.linalg.qr(scores)[0]
                energy = ((q.T @ modes) ** 2).sum(axis=0).mean()
                overlap = np.mean([top_overlap(scores[:, j], modes[:, j]) for j in range(scores.shape[1])])
                line.append((error, energy, overlap))
            seconds = sum(run.record.seconds.values())
            shown = "  ".join(f"{x:.4f} / {y:.4f}" for x, y in zip(*line, strict=True))
            print(f"{options}, p = {phi.shape[1]}, {seconds:.0f} s: error, energy, overlap  {shown}")


def top_overlap(x: Matrix, y: Matrix, n: int = 50) -> float:
    """Shared rows among the 50 highest of two modes, whichever sign fits."""
    top = set(np.argsort(-y)[:n])
    return max(len(top & set(np.argsort(-s * x)[:n])) for s in (1, -1)) / n


if __name__ == "__main__":
    {"planted": planted, "maps": maps}[sys.argv[1]]()
