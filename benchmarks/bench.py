"""What spec-store costs on this machine, beside the machine's own limits and beside other means.

python benchmarks/bench.py --db bench-db --json bench.json --plot docs/performance.svg

Prints a table per question and writes all figures as JSON. Limits are measured in the same run, in turn with
the stages: BLAS products of resident batches, kernel columns among them; a scan of the table; a column file.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
from chart import speed_at_accuracy
from lance.file import LanceFileWriter
from peers import methods, shown, source_of
from synthetic import table_at
from threadpoolctl import threadpool_limits

import spec_store
from spec_store.connector import Annotation
from spec_store.stores.streaming import ordered_map, usable_cores
from spec_store.stores.vectors import decode
from spec_store.workflows.compare import compare
from spec_store.workflows.comparison import Comparison
from spec_store.workflows.passes import accumulate

WIDTHS = {"clip": 512, "dino": 768}
BATCH = 4096
# The peak of a process counts that of the one it was started by: so a small one starts it.
_SMALL = """
import json, resource, subprocess, sys
ran = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([ran.returncode, ran.stdout, used.ru_utime + used.ru_stime, used.ru_maxrss]))
"""
KERNELS = ("gaussian", "cosine")


def timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def on_all_cores(work: Callable[[int], object], n: int) -> None:
    with threadpool_limits(1, user_api="blas"):
        for _ in ordered_map(work, range(n), workers=usable_cores()):
            pass


class Limits:
    """The work of one batch without anything around it: resident rows, nothing kept."""

    def __init__(self, run: Comparison, n_rows: int) -> None:
        self._n = -(-n_rows // BATCH)
        self._run = run
        self._batch = next(run.source.batches(list(WIDTHS), batch_rows=BATCH))
        self._maps = run.state.maps
        self._columns = [self._of(m) for m in self._maps]
        self._weights = [w for w, _ in run.scorer._weights]

    def _of(self, m: Any) -> Any:
        vectors = decode(m.column, self._batch.column(m.column), m.width, directions=True)
        return m.columns(vectors)

    def products(self) -> None:
        a, b = self._columns

        def work(_: int) -> None:
            a.T @ a, a.T @ b, b.T @ b

        on_all_cores(work, self._n)

    def pass_1(self) -> None:
        """Kernel columns and products; of the cosine kernel the products alone."""
        a, b = self._columns
        gaussian = self._maps[0].sigma is not None

        def work(_: int) -> None:
            if gaussian:
                for m in self._maps:
                    self._of(m)
            a.T @ a, a.T @ b, b.T @ b

        on_all_cores(work, self._n)

    def pass_2(self) -> None:
        """Kernel columns and their products with the clusters' rules."""

        def work(_: int) -> None:
            for m, w in zip(self._maps, self._weights, strict=True):
                self._of(m) @ w

        on_all_cores(work, self._n)

    def write(self) -> None:
        result = self._run.scorer.compute(self._batch)
        with (
            tempfile.TemporaryDirectory() as folder,
            LanceFileWriter(f"{folder}/x.lance", result.schema) as to,
        ):
            for _ in range(self._n):
                to.write_batch(result)


def stages(table: str, kernel: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Each stage beside its limit, medians of rounds in which both take turns."""
    run = compare(table, list(WIDTHS), db=str(args.db), kernel=kernel, progress=None)
    uri = f"{args.db}/{table}.lance"
    limits = Limits(run, args.rows)
    annotation = Annotation(
        run.scorer.schema,
        run.columns,
        run.scorer.compute,
        run.scorer.token,
        {"spec_store.run": "bench"},
        batch_rows=BATCH,
        workers=usable_cores(),
    )

    def pass_1() -> None:
        accumulate(
            run.source, run.scorer.maps, where=None, batch_rows=BATCH, threads=None, progress=lambda _: None
        )

    def read() -> None:
        for part in run.source.partitions():
            for _ in run.source.batches(list(WIDTHS), partition=part, batch_rows=BATCH):
                pass

    def bare_read() -> None:
        for _ in lance.dataset(uri).scanner(columns=list(WIDTHS), batch_size=BATCH).to_batches():
            pass

    def pass_2() -> None:
        with threadpool_limits(1, user_api="blas"):
            run.source.annotate(annotation)
        run.source.undo(run.scorer.schema.names)

    measured = {
        "pass 1": (pass_1, "products and kernel columns", limits.pass_1),
        "pass 2, column files and commit": (pass_2, "kernel columns and rules", limits.pass_2),
        "read": (read, "scan", bare_read),
    }
    found = []
    for stage, (work, limit, bare) in measured.items():
        seconds, bare_seconds = zip(*((timed(work), timed(bare)) for _ in range(args.repeat)), strict=True)
        s, b = statistics.median(seconds), statistics.median(bare_seconds)
        row = {"kernel": kernel, "stage": stage, "rows_per_second": args.rows / s, "limit": limit}
        found.append({**row, "limit_rows_per_second": args.rows / b, "share_of_limit": b / s})
    for name, bare in (("products alone", limits.products), ("column file", limits.write)):
        s = statistics.median(timed(bare) for _ in range(args.repeat))
        row = {"kernel": kernel, "stage": f"(limit: {name})", "rows_per_second": args.rows / s, "limit": ""}
        found.append({**row, "limit_rows_per_second": args.rows / s, "share_of_limit": 1.0})
    return found


def whole_run(table: str, kernel: str, args: argparse.Namespace, *more: str) -> dict[str, Any]:
    """One command in a process of its own: wall and CPU seconds, peak memory, seconds by stage."""
    command = [sys.executable, "-m", "spec_store", "compare", "--db", str(args.db), "--table", table]
    command += ["--cols", ",".join(WIDTHS), "--kernel", kernel, "--json", *more]
    start = time.perf_counter()
    ran = subprocess.run([sys.executable, "-c", _SMALL, *command], capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - start
    status, output, cpu_seconds, peak_kb = json.loads(ran.stdout)
    if status:
        raise SystemExit(f"{' '.join(command)} failed.")
    told = json.loads(output)
    return {
        "kernel": kernel,
        "rows": told["n_rows"],
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "peak_mb": peak_kb / 1024,
        "clusters": len(told["clusters"]),
        "stages": told["seconds"],
    }


def slope(sizes: list[int], seconds: list[float]) -> float:
    """Of log seconds over log size, by least squares: 1 is proportional."""
    x, y = np.log(sizes), np.log(seconds)
    return float(np.polyfit(x, y, 1)[0])


def pass_1_seconds(table: str, columns: list[str], args: argparse.Namespace, **options: Any) -> float:
    """The least of three: what is fixed in a pass counts less so."""
    runs = (
        compare(table, columns, db=str(args.db), progress=None, describe=False, sample_rows=4000, **options)
        for _ in range(3)
    )
    return min(run.record.seconds["covariance"] for run in runs)


def slopes(args: argparse.Namespace, runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """How seconds grow with rows, dimension, map size, models, and fall with workers."""
    found = []

    def add(over: str, sizes: list[int], seconds: list[float]) -> None:
        found.append({"over": over, "sizes": sizes, "seconds": seconds, "slope": slope(sizes, seconds)})

    for kernel in KERNELS:
        of = [r for r in runs if r["kernel"] == kernel]
        passes = [r["stages"]["covariance"] + r["stages"]["write"] for r in of]
        add(f"rows, both passes, {kernel}", [r["rows"] for r in of], passes)
    n = args.rows // 4
    small = partial(table_at, args.db, n)
    widths = [128, 256, 512, 1024]
    tables = [small({"a": d, "b": d}) for d in widths]
    add("dimension, pass 1, gaussian", widths, [pass_1_seconds(t, ["a", "b"], args) for t in tables])
    add(
        "dimension, pass 1, cosine",
        widths,
        [pass_1_seconds(t, ["a", "b"], args, kernel="cosine") for t in tables],
    )
    dims = [125, 250, 500, 1000]
    main = small(WIDTHS)
    add("landmarks, pass 1", dims, [pass_1_seconds(main, list(WIDTHS), args, dim=d) for d in dims])
    names = ["a", "b", "c", "d", "e"]
    many = small(dict.fromkeys(names, 256))
    matrix = partial(spec_store.compare_models, many, db=str(args.db), progress=None, sample_rows=4000)
    seconds = [matrix(names[:k]).record.seconds["covariance"] for k in (2, 3, 5)]
    add("models, pass 1", [2, 3, 5], seconds)
    table = table_at(args.db, args.rows, WIDTHS)
    help_text = subprocess.run(
        [sys.executable, "-m", "spec_store", "compare", "--help"], capture_output=True, text=True, check=True
    ).stdout
    if "--workers" in help_text:
        counts = [1, 2] if usable_cores() < 4 else [1, 2, 4]
        by_workers = [whole_run(table, "gaussian", args, "--workers", str(w))["stages"] for w in counts]
        add("workers, both passes", counts, [s["covariance"] + s["write"] for s in by_workers])
    return found


def machine() -> dict[str, Any]:
    a, b = np.random.default_rng(0).standard_normal((2, 4096, 512), dtype=np.float32)
    with threadpool_limits(1, user_api="blas"):
        s = min(timed(lambda: a.T @ b) for _ in range(20))
    cpu = Path("/proc/cpuinfo")
    names = [line for line in cpu.read_text().splitlines() if "model name" in line] if cpu.exists() else []
    return {
        "cpu": names[0].split(": ")[1] if names else platform.processor(),
        "cores": usable_cores(),
        "gflops_per_core": 2 * a.size * b.shape[1] / s / 1e9,
        "python": platform.python_version(),
        "versions": {m.__name__: m.__version__ for m in (np, pa, lance)},
    }


def print_stages(found: dict[str, Any]) -> None:
    m = found["machine"]
    print(f"{m['cpu']}, {m['cores']} cores, {m['gflops_per_core']:.0f} GFLOP/s a core in float32\n")
    print(f"{'kernel':9} {'stage':33} {'rows/s':>10} {'limit':>10} {'share':>6}")
    for r in found["stages"]:
        print(
            f"{r['kernel']:9} {r['stage']:33} {r['rows_per_second']:10,.0f}"
            f" {r['limit_rows_per_second']:10,.0f} {r['share_of_limit']:6.0%}  {r['limit']}",
            flush=True,
        )


def print_runs(runs: list[dict[str, Any]]) -> None:
    print(f"\n{'whole run':9} {'rows':>10} {'seconds':>8} {'CPU s':>7} {'peak MB':>8} clusters")
    for r in runs:
        by_stage = ", ".join(f"{k} {v:.1f}" for k, v in r["stages"].items())
        print(
            f"{r['kernel']:9} {r['rows']:10,} {r['seconds']:8.1f} {r['cpu_seconds']:7.1f}"
            f" {r['peak_mb']:8,.0f} {r['clusters']:3}  {by_stage}",
            flush=True,
        )


def print_slopes(found: list[dict[str, Any]]) -> None:
    print("\nslopes of log seconds over log size")
    for r in found:
        pairs = ", ".join(f"{x:,}: {s:.2f} s" for x, s in zip(r["sizes"], r["seconds"], strict=True))
        print(f"{r['over']:30} {r['slope']:6.2f}  {pairs}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--peer-rows", type=int, default=8_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--db", type=Path, required=True)
    parser.add_argument("--json", type=Path, default=Path("bench.json"))
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    args.db.mkdir(exist_ok=True)
    sizes = [args.rows // 4, args.rows // 2, args.rows]
    tables = {n: table_at(args.db, n, WIDTHS) for n in sizes}
    found: dict[str, Any] = {"machine": machine(), "widths": WIDTHS, "rows": args.rows}
    found["stages"] = [row for k in KERNELS for row in stages(tables[args.rows], k, args)]
    print_stages(found)
    found["runs"] = [whole_run(tables[n], k, args) for k in KERNELS for n in sizes]
    print_runs(found["runs"])
    found["slopes"] = slopes(args, found["runs"])
    print_slopes(found["slopes"])
    peers = methods(source_of(args.db, table_at(args.db, args.peer_rows, WIDTHS)), quick=False)
    print(f"\n{args.peer_rows:,} rows, against the exact answer\n{shown(peers)}")
    found["peers"] = {"rows": args.peer_rows, "methods": [asdict(row) for row in peers]}
    args.json.write_text(json.dumps(found, indent=1))
    if args.plot:
        args.plot.write_text(speed_at_accuracy(peers, args.peer_rows))


if __name__ == "__main__":
    main()
