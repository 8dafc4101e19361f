"""Several models on one state beside two, and questions to the state of a recorded run.

python benchmarks/models.py models --rows 200000 --db bench-db
python benchmarks/models.py again --rows 1000000 --db bench-db
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from synthetic import table_at

import spec_store


def timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def models(args: argparse.Namespace) -> None:
    """The matrix of two, three and five models of 512 dimensions, nothing written; two rounds."""
    names = ["a", "b", "c", "d", "e"]
    table = table_at(args.db, args.rows, dict.fromkeys(names, 512))
    matrix = partial(spec_store.compare_models, table, db=str(args.db))
    for kernel in ("gaussian", "cosine"):
        for _ in range(args.rounds):
            seconds = {n: timed(partial(matrix, names[:n], kernel=kernel)) for n in (2, 3, 5)}
            shown = ", ".join(f"{n} models {s:.1f} s ({s / seconds[2]:.2f})" for n, s in seconds.items())
            print(f"{kernel}: {shown}; peak {peak_mb():,.0f} MB", flush=True)


def again(args: argparse.Namespace) -> None:
    """A comparison of 512 and 768 dimensions, recorded, and what its state then answers."""
    table = table_at(args.db, args.rows, {"clip": 512, "dino": 768})
    db = str(args.db)
    seconds = timed(lambda: spec_store.compare(table, ["clip", "dino"], db=db, write=True))
    run_id = spec_store.list_runs(db=db, columns=["run_id"])["run_id"][0].as_py()
    print(f"compare {seconds:.1f} s; peak {peak_mb():,.0f} MB", flush=True)
    for changes in ({}, {"eta": 2.0}, {"center": False, "modes": 20}, {"objective": "koda"}):
        start = time.perf_counter()
        found = spec_store.compare_again(run_id, db=db, prefix="again", **changes)
        s = time.perf_counter() - start
        stages = ", ".join(f"{stage} {t:.1f}" for stage, t in found.record.seconds.items())
        print(f"again {changes}: {s:.1f} s ({stages}), {len(found.clusters_found)} clusters", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["models", "again"])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--db", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    args.db.mkdir(exist_ok=True)
    {"models": models, "again": again}[args.what](args)


if __name__ == "__main__":
    main()
