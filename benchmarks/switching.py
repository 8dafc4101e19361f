"""Is what `gate` says of a switch what a searcher finds?

python benchmarks/switching.py plan [rows]   # predicted against searched, the plan's rows being re-embedded
python benchmarks/switching.py queries FOLDER TABLE SOURCE TARGET MAP   # 1,000 real queries: time, memory
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

import spec_store
from spec_store.keys import hash_keys

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from planted import hidden_clusters, rotated_clipped_noisy, unit, vectors

Matrix = NDArray[np.floating[Any]]
K = 10


def overlap(queries: Matrix, own: NDArray[np.intp], target: Matrix, index: Matrix) -> float:
    """Of the 10 right rows, the share found, by sorting all similarities."""
    shares = []
    for start in range(0, len(queries), 200):
        near = []
        for x in (target, index):
            similarity = queries[start : start + 200] @ x.T
            similarity[np.arange(len(similarity)), own[start : start + 200]] = -9
            near.append(np.argpartition(-similarity, K, axis=1)[:, :K])
        shares += [len(set(p) & set(q)) / K for p, q in zip(*near, strict=True)]
    return float(np.mean(shares))


def plan(n: int = 50_000) -> None:
    """Four clusters that the source can't know, and two thirds of the rows in other clusters and slices."""
    a, b = rotated_clipped_noisy(n, seed=0)
    b, truth = hidden_clusters(b, n_rows=n * 3 // 100, seed=0)
    table = pa.table({"id": np.arange(n), "a": vectors(a), "b": vectors(b), "part": np.arange(n) % 7})
    with tempfile.TemporaryDirectory() as folder:
        lance.write_dataset(table, f"{folder}/rows.lance")
        spec_store.compare("rows", ["a", "b"], db=folder, key="id", write=True)
        run = spec_store.align("rows", "a", "b", db=folder, key="id", write=True)
        print(run)
        held = hash_keys(pa.array(np.arange(n)), 271_828)
        rows = np.flatnonzero(held / 2.0**64 < run.options.held_out)
        fresh = rows[np.argsort(held[rows])][2000:4000]  # test rows that no gate has asked
        mapped = unit(run.map.transform(a))
        slices = [f"part = {i}" for i in range(7)]
        for budget in ("5%", "10%", "20%"):
            start = time.perf_counter()
            found = spec_store.gate(
                "rows", "a", "b", db=folder, slices=slices, budget=budget, whole_table=True
            )
            seconds = time.perf_counter() - start
            chosen = np.zeros(n, bool)
            chosen[rows_of(folder, found.plan.where)] = True
            index = np.where(chosen[:, None], b, mapped)
            part = np.random.default_rng(1).permutation(n)[: found.n_searched]
            part = np.concatenate([np.setdiff1d(part, fresh), fresh])
            at = np.arange(len(part) - len(fresh), len(part))
            print(
                f"budget {budget}: {found.plan.n_rows:,} rows ({seconds:.0f} s)\n"
                f"  among {found.n_searched:,} rows: now {found.overall.search_overlap.value:.3f}, predicted"
                f" {found.plan.search_overlap.value:.3f}, searched by other queries among other rows"
                f" {overlap(b[fresh], at, b[part], index[part]):.3f}\n"
                f"  among all {n:,} rows: now {found.headline.value:.3f}, predicted"
                f" {found.queries.mixed.search_overlap.value:.3f}, searched by other queries"
                f" {overlap(b[fresh], fresh, b, index):.3f}",
                flush=True,
            )
            for i, step in enumerate(found.plan.steps):
                print(f"    {i + 1} {step.name}: {step.n_rows:,} rows, {step.search_overlap}")
            told = rows_of(folder, " OR ".join(f"({s.where})" for s in found.plan.steps[:4]))
            wanted = np.flatnonzero(truth >= 0)
            both = len(np.intersect1d(told, wanted))
            print(
                f"    first four: {len(told):,} rows, {both:,} of the {len(wanted):,} hidden ones", flush=True
            )


def rows_of(folder: str, where: str) -> NDArray[np.intp]:
    return spec_store.query("rows", where, select=["id"], db=folder).read_all()["id"].to_numpy()


def queries(folder: str, table: str, source: str, target: str, map_file: str) -> None:
    rows = lance.dataset(f"{folder}/{table}.lance")
    rng = np.random.default_rng(0)
    picked = rows.take(sorted(rng.choice(rows.count_rows(), 1000, replace=False)), columns=[source, target])
    near = {}
    for c in (source, target):
        x = np.stack(picked[c].to_numpy())
        near[f"q_{c}"] = vectors(x + 0.3 * x.std() * rng.standard_normal(x.shape))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    start = time.perf_counter()
    found = spec_store.gate(
        table, source, target, db=folder, map=map_file, queries=pa.table(near), fail_under=0,
        query_source=f"q_{source}", query_target=f"q_{target}", judged_rows=2000, query_rows=100,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{found!r}: {seconds:.0f} s, {peak:.2f} GB at most, {before:.2f} GB before")


if __name__ == "__main__":
    if sys.argv[1] == "plan":
        plan(*(int(n) for n in sys.argv[2:3]))
    else:
        queries(*sys.argv[2:7])
