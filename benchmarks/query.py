"""Filters on the cluster column with and without its BITMAP index, in one run.

python benchmarks/query.py --db bench-db
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import lancedb
from synthetic import table_at

from spec_store import compare, query


def milliseconds(table: str, where: str, db: str) -> tuple[float, float]:
    """Median time of the filter as LanceDB's users write it, and through `spec_store.query`."""
    handle = lancedb.connect(db).open_table(table)
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(15):
        start = time.perf_counter()
        n = handle.search().where(where).select(["id"]).limit(300_000).to_arrow().num_rows
        middle = time.perf_counter()
        assert n == query(table, where, select=["id"], db=db).read_all().num_rows > 0
        times[0].append(1000 * (middle - start))
        times[1].append(1000 * (time.perf_counter() - middle))
    return statistics.median(times[0]), statistics.median(times[1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--db", type=Path, required=True)
    args = parser.parse_args()
    args.db.mkdir(exist_ok=True)
    table = table_at(args.db, 300_000, {"clip": 512, "dino": 768})
    run = compare(table, ["clip", "dino"], db=str(args.db), write=True)
    rarest = min(run.clusters.to_pylist(), key=lambda c: c["size"])["cluster"]
    where = f"{run.prefix}_cluster = {rarest}"
    for state in ("without", "with"):
        search, ours = milliseconds(table, where, str(args.db))
        print(f"{state} index: table.search().where() {search:.1f} ms, spec_store.query {ours:.1f} ms")
        if state == "without":
            run.create_index()
    run.source.undo(run.written)


if __name__ == "__main__":
    main()
