"""Does it find what was planted, and how near are the feature maps to the exact n x n answer?

python benchmarks/quality.py planted     # 50,000 rows, 20 groups, 8 of them merged pairwise by b
python benchmarks/quality.py rare        # 300,000 rows, five groups of 0.3% that only a holds together
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
from spec_store.spectral.scoring import Membership

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from planted import planted_mixture, vectors

Matrix = NDArray[np.floating[Any]]


def stored(folder: str, a: Matrix, b: Matrix) -> None:
    table = pa.table({"a": vectors(a), "b": vectors(b)})
    lance.write_dataset(table, f"{folder}/rows.lance", mode="overwrite")


def planted_scores(unequal: bool, seed: int) -> tuple[float, int, int, bool]:
    """AMI of a's labels, clusters listed at either end, whether a's are its groups, merged with partners."""
    a, b, groups = planted_mixture(50_000, unequal=unequal, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        stored(folder, a, b)
        run = compare("rows", ["a", "b"], db=folder)
        found = [run.scorer.membership(batch)[0].relative for batch in run.source.batches(["a", "b"])]
    clusters = run.to_json()["clusters"]
    own = [i for i, c in enumerate(clusters) if c["side"] == "a"]
    order, n = Membership(np.concatenate(found)[:, own]).ranked()
    labels = np.where(n > 0, order[:, 0], -1) if own else np.full(len(groups), -1)
    ami = adjusted_mutual_info_score(groups[groups < 8], labels[groups < 8])
    group_of = {
        clusters[i]["cluster"]: int(np.bincount(groups[labels == j], minlength=20).argmax())
        for j, i in enumerate(own)
    }
    right = sorted(group_of.values()) == list(range(8))
    for i in own:
        partners = clusters[i]["seen_by_other"]["clusters"]
        right &= bool(partners) and group_of[partners[0]["cluster"]] == group_of[clusters[i]["cluster"]] ^ 1
    return ami, len(own), len(clusters) - len(own), right


def planted() -> None:
    for unequal in (False, True):
        sizes = "1 : 6" if unequal else "equal"
        for seed in range(5):
            ami, n_a, n_b, right = planted_scores(unequal, seed)
            print(
                f"sizes {sizes}, seed {seed}: AMI {ami:.3f}, {n_a} clusters of a and {n_b} of b,"
                f" each one group merged with its partner: {right}"
            )


def rare(n: int = 300_000, share: float = 0.003, n_rare: int = 5) -> None:
    """Rare groups that only the first embedding holds together, and a column of tags that name them."""
    a, b, _ = planted_mixture(n, merged=0, seed=0)
    rng = np.random.default_rng(1)
    rows = rng.permutation(n)[: n_rare * round(n * share)].reshape(n_rare, -1)
    tags = np.char.add("tag ", rng.integers(0, 50, n).astype(str)).astype(object)
    for i, members in enumerate(rows):
        centre = rng.standard_normal(a.shape[1])
        a[members] = centre + 0.5 * rng.standard_normal((len(members), a.shape[1]))
        tags[members] = f"planted {i}"
    with tempfile.TemporaryDirectory() as folder:
        table = pa.table({"id": np.arange(n), "tag": pa.array(tags), "a": vectors(a), "b": vectors(b)})
        lance.write_dataset(table, f"{folder}/rows.lance")
        run = compare("rows", ["a", "b"], db=folder, key="id", write=True)
        column = lance.dataset(f"{folder}/rows.lance").to_table(columns=["spec_a_b_clusters"])
    lists = column["spec_a_b_clusters"].to_pylist()
    for c in run.to_json()["clusters"]:
        members = np.array([i for i, numbers in enumerate(lists) if numbers and c["cluster"] in numbers])
        both = [len(np.intersect1d(members, r)) for r in rows]
        i = int(np.argmax(both))
        first = (c["over_represented"] or [{"column": None, "value": None}])[0]
        recall, precision = both[i] / len(rows[i]), both[i] / max(len(members), 1)
        print(
            f"cluster {c['cluster']} ({c['side']}), {len(members):,} rows: planted group {i},"
            f" precision {precision:.0%}, recall {recall:.0%}; first {first['column']} = {first['value']}"
        )


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
    {"planted": planted, "rare": rare, "maps": maps}[sys.argv[1]]()
