"""Both passes against the machine's limit, in one run: pass 1 against bare BLAS, pass 2 against a bare read.

python benchmarks/throughput.py --rows 200000 --db bench-db
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import lance
import numpy as np
from synthetic import table_at
from threadpoolctl import threadpool_limits

from spec_store.connector import Annotation
from spec_store.stores.streaming import ordered_map, usable_cores
from spec_store.workflows.compare import compare
from spec_store.workflows.passes import accumulate

WIDTHS = {"clip": 512, "dino": 768}
BATCH = 4096


def timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def bare_blas(n_rows: int, widths: tuple[int, int]) -> Callable[[], None]:
    """The products of pass 1 on resident batches; the faster of two threads and threaded BLAS."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((BATCH, p), dtype=np.float32) for p in widths)

    def products(_: int) -> None:
        np.matmul(a.T, a), np.matmul(a.T, b), np.matmul(b.T, b)

    def in_threads(n: int) -> None:
        with threadpool_limits(1, user_api="blas"):
            for _ in ordered_map(products, range(n), workers=usable_cores()):
                pass

    def in_blas(n: int) -> None:
        for i in range(n):
            products(i)

    n = -(-n_rows // BATCH)
    probe = max(n // 5, 8)
    in_threads(2), in_blas(2)
    chosen = in_threads if timed(lambda: in_threads(probe)) < timed(lambda: in_blas(probe)) else in_blas
    return lambda: chosen(n)


def bare_read(uri: str) -> None:
    for _ in (
        lance.dataset(uri)
        .scanner(
            columns=list(WIDTHS),
            batch_size=BATCH,
            batch_readahead=2,
            fragment_readahead=1,
            io_buffer_size=64 << 20,
        )
        .to_batches()
    ):
        pass


def measure(kernel: str, widths: tuple[int, int], table: str, args: argparse.Namespace) -> None:
    run = compare(table, list(WIDTHS), db=str(args.db), kernel=kernel)
    blas = bare_blas(args.rows, widths)
    annotation = Annotation(
        run.scorer.schema,
        run.columns,
        run.scorer.compute,
        run.scorer.token,
        {"spec_store.run": "bench"},
        batch_rows=BATCH,
    )

    def pass_1() -> None:
        accumulate(
            run.source,
            run.scorer.maps,
            where=None,
            batch_rows=BATCH,
            threads=None,
            progress=lambda rows: None,
        )

    def pass_2() -> None:
        with threadpool_limits(1, user_api="blas"):
            run.source.annotate(annotation)

    times: dict[str, list[float]] = {"pass 1": [], "BLAS": [], "pass 2": [], "read": []}
    for _ in range(args.repeat):
        times["BLAS"].append(timed(blas))
        times["pass 1"].append(timed(pass_1))
        times["read"].append(timed(lambda: bare_read(f"{args.db}/{table}.lance")))
        times["pass 2"].append(timed(pass_2))
        run.source.undo(run.scorer.schema.names)
    m = {name: statistics.median(t) for name, t in times.items()}
    print(kernel, ", ".join(f"{name} {t:.2f} s" for name, t in m.items()))
    ratios = m["pass 1"] / m["BLAS"], m["pass 2"] / m["read"]
    print(f"  pass 1 / bare BLAS {ratios[0]:.2f}, pass 2 / bare read {ratios[1]:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--db", type=Path, required=True)
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    args.db.mkdir(exist_ok=True)
    table = table_at(args.db, args.rows, WIDTHS)
    measure("cosine", (512, 768), table, args)
    measure("gaussian", (500, 500), table, args)


if __name__ == "__main__":
    main()
