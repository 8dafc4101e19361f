"""How well do maps carry one embedding's vectors over to another's, on rows that they were not fitted on?

python benchmarks/alignment.py digits      # every map, pixels to HOG and back, five splits
python benchmarks/alignment.py in-place    # the trade-off over the fidelity, pixels towards HOG
python benchmarks/alignment.py synthetic   # a rotated, clipped, noisy function of the source, 50,000 rows
python benchmarks/alignment.py hidden      # with four clusters in the target that the source can't see
python benchmarks/alignment.py queries     # an exported map: milliseconds for 1,000 vectors
python benchmarks/alignment.py large [rows [folder]]   # 512 + 384 dimensions: memory and time by stage
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from synthetic import table_at

import spec_store
from spec_store.demo import create_demo

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from planted import hidden_clusters, rotated_clipped_noisy, vectors

COMMAND = str(Path(sys.executable).parent / "spec-store")
MAPS = ("kernel", "affine", "lowrank", "residual")
Matrix = NDArray[np.floating[Any]]


def shown(run: spec_store.Alignment, title: str) -> None:
    """All maps in one table; how those that were asked for stand to before and to the best closed form."""
    n = run.record.counts
    print(f"\n{title}: {n['n_fitted']:,} rows to fit, {n['n_judged']:,} test rows")
    print(f"{'map':26} search@10  SPEC-diff  twin@1  mean cosine to target")
    for j in run.evaluations:
        print(f"{j.name:26} {j.search_10:9.3f} {j.spec_diff:10.4f} {j.recall_1:7.3f} {j.cosine_target:10.3f}")
    by_name = {j.name: j for j in run.evaluations}
    closed = [by_name[n] for n in ("ridge", "procrustes")]
    best = min(j.spec_diff for j in closed)
    search = max(j.search_10 for j in closed)
    for name in run.options.kinds:
        j, chosen = by_name[name], " (chosen)" if run.after.name == name else ""
        print(
            f"{name}{chosen}: SPEC-diff {j.spec_diff / run.before.spec_diff:.3f} of before,"
            f" {j.spec_diff / best:.2f} of the best linear form; search@10 {j.search_10 - search:+.3f} to its"
        )


def digits() -> None:
    with tempfile.TemporaryDirectory() as folder:
        create_demo(db=folder)
        for pair in (("pixels", "hog"), ("hog", "pixels")):
            for seed in range(5):
                run = spec_store.align(
                    "images", *pair, db=folder, key="id", kind=MAPS, held_out=0.2, seed=seed
                )
                shown(run, f"digits, {pair[0]} to {pair[1]}, split {seed}")


def in_place() -> None:
    with tempfile.TemporaryDirectory() as folder:
        create_demo(db=folder)
        asked = "--table images --source pixels --target hog --key id --in-place --held-out 0.2"
        asked += " --fidelity 0,0.001,0.003,0.01,0.03,0.1,0.3 --dry-run"
        subprocess.run([COMMAND, "align", "--db", folder, *asked.split()], check=True)


def stored(folder: str, a: Matrix, b: Matrix) -> None:
    table = pa.table({"id": np.arange(len(a)), "a": vectors(a), "b": vectors(b)})
    lance.write_dataset(table, f"{folder}/rows.lance", mode="overwrite")


def synthetic() -> None:
    for seed in range(3):
        a, b = rotated_clipped_noisy(50_000, seed=seed)
        with tempfile.TemporaryDirectory() as folder:
            stored(folder, a, b)
            shown(
                spec_store.align("rows", "a", "b", db=folder, key="id", kind=MAPS, seed=seed),
                f"synthetic {seed}",
            )


def hidden() -> None:
    a, b = rotated_clipped_noisy(50_000, seed=0)
    b, truth = hidden_clusters(b, n_rows=1500, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        stored(folder, a, b)
        spec_store.compare("rows", ["a", "b"], db=folder, key="id", write=True)
        run = spec_store.align("rows", "a", "b", db=folder, key="id", write=True)
        found = spec_store.gate("rows", "a", "b", db=folder, fail_under=0.4)
        shown_clusters(run)
        print(f"b's end of the spectrum before: {[round(v, 4) for v in run.before.eigenvalues[1]]}")
        print(f"b's end of the spectrum after:  {[round(v, 4) for v in run.after.eigenvalues[1]]}")
        for s in (found.overall, *found.slices):
            print(f"{s.name:26} {s.n_rows:6,} rows  search overlap@10 {s.search_overlap}  {s.verdict}")
        wanted = np.flatnonzero(truth >= 0)
        told = spec_store.query("rows", found.re_embed, select=["id"], db=folder).read_all()["id"].to_numpy()
        both = len(np.intersect1d(wanted, told))
        print(
            f"to embed anew: {len(told):,} rows; hidden: {len(wanted):,}; in both: {both:,}"
            f" (precision {both / max(len(told), 1):.3f}, recall {both / len(wanted):.3f})"
        )


def shown_clusters(run: spec_store.Alignment) -> None:
    print("cluster  of target  capture in a, in b, in map  recovered  search@10")
    for c in run.after.clusters:
        capture = "  ".join(f"{v:.3f}" for v in c.capture)
        figures = f"{capture}  {c.recovered:9.2f}  {c.search_10:9.3f}"
        print(f"{c.cluster:7}  {c.of_target!s:9}  {figures}  lost: {c.lost}")


def queries() -> None:
    a, b = rotated_clipped_noisy(20_000, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        stored(folder, a, b)
        for kind in MAPS:
            run = spec_store.align("rows", "a", "b", db=folder, key="id", kind=kind, write=True)
            run.export(f"{folder}/map.npz")
            fitted = spec_store.load_map(f"{folder}/map.npz")
            x = a[:1000].astype(np.float32)
            times = []
            for _ in range(20):
                start = time.perf_counter()
                y = fitted.transform(x)
                times.append(time.perf_counter() - start)
            column = lance.dataset(f"{folder}/rows.lance").to_table(columns=["a_as_b"])["a_as_b"]
            kept = np.stack(column.to_numpy()[:1000])
            size = Path(f"{folder}/map.npz").stat().st_size
            print(
                f"{kind}: {1e3 * np.median(times):.2f} ms for 1,000 vectors, {size / 1e3:.0f} kB; at most"
                f" {np.abs(kept - y).max():.1g} from the stored column"
            )
    transform_times(768)


def transform_times(width: int, n_landmarks: int = 1000) -> None:
    """A map of random numbers against its two bare products; and one vector at a time."""
    rng = np.random.default_rng(0)
    shapes = (width + n_landmarks, width), (width, n_landmarks), (1000, width)
    weights, landmarks, x = (rng.standard_normal(s).astype(np.float32) for s in shapes)
    bias, none = np.zeros(width, np.float32), np.zeros((width, 0), np.float32)
    fitted = spec_store.AlignmentMap(weights, bias, none, landmarks=landmarks)
    inputs = rng.standard_normal((1000, width + n_landmarks)).astype(np.float32)
    whole, bare, one = [], [], []
    for _ in range(30):
        start = time.perf_counter()
        fitted.transform(x)
        whole.append(time.perf_counter() - start)
        start = time.perf_counter()
        _ = x @ landmarks, inputs @ weights
        bare.append(time.perf_counter() - start)
        start = time.perf_counter()
        fitted.transform(x[0])
        one.append(time.perf_counter() - start)
    whole_ms, bare_ms, one_ms = (1e3 * np.median(t) for t in (whole, bare, one))
    print(
        f"{width} to {width}, {n_landmarks:,} landmarks: 1,000 vectors in {whole_ms:.1f} ms, its products"
        f" {bare_ms:.1f} ms ({whole_ms / bare_ms:.2f} x); one in {one_ms:.2f} ms"
    )


def large(n_rows: int = 1_000_000, folder: str | None = None) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(folder or temporary)
        name = table_at(place, n_rows, {"clip": 512, "dino": 384})
        command = [COMMAND, "align", "--db", str(place), "--table", name, "--source", "clip"]
        command += ["--target", "dino", "--key", "id", "--force", "--json"]
        start = time.perf_counter()
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
        told = json.loads(done.stdout)
        print(f"{n_rows:,} x (512 + 384): {seconds:.0f} s, {peak:.2f} GB at most; {told['seconds']}")
        before, after = told["maps"][0], told["maps"][1]
        print(
            f"SPEC-diff {before['spec_diff']:.4f} -> {after['spec_diff']:.4f}, recall@1 {after['recall_1']}"
        )


if __name__ == "__main__":
    commands = {"digits": digits, "in-place": in_place, "synthetic": synthetic, "hidden": hidden}
    commands |= {"queries": queries}
    if sys.argv[1] == "large":
        large(*(int(n) for n in sys.argv[2:3]), *sys.argv[3:4])
    else:
        commands[sys.argv[1]]()
