"""Both passes by one worker and by two: processes, and tasks in a Ray cluster of two nodes of one core each.

python benchmarks/workers.py --rows 524288 --db bench-db
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
from synthetic import batches

from spec_store.connector import Annotation, Source
from spec_store.executor import Executor
from spec_store.plugins import get_connector
from spec_store.workflows.compare import compare
from spec_store.workflows.comparison import Comparison
from spec_store.workflows.executor import Processes, RayTasks
from spec_store.workflows.passes import accumulate

WIDTHS = {"clip": 256, "dino": 384}
FRAGMENT_ROWS = 65_536


def table_in_fragments(folder: Path, n_rows: int) -> str:
    """A table whose fragments are units; made on first use."""
    name = f"fragments_{n_rows}_" + "_".join(map(str, WIDTHS.values()))
    if not (folder / f"{name}.lance").exists():
        stream = batches(n_rows, WIDTHS)
        first = next(stream)
        reader = pa.RecordBatchReader.from_batches(first.schema, (b for p in ([first], stream) for b in p))
        lance.write_dataset(reader, str(folder / f"{name}.lance"), max_rows_per_file=FRAGMENT_ROWS)
    return name


@contextmanager
def ray_cluster() -> Iterator[str]:
    """The address of two nodes of one core each."""
    from ray.cluster_utils import Cluster

    # By default Ray's workers yield to all other processes of the machine.
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "lance is not fork-safe|lancedb fork support")
        node = {"num_cpus": 1, "object_store_memory": 400 << 20}
        cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
        cluster.add_node(**node)
    try:
        yield cluster.address
    finally:
        cluster.shutdown()


class Passes:
    """Pass 1 and pass 2 of one comparison, by any executor."""

    def __init__(self, source: Source, run: Comparison) -> None:
        self.source, self.run = source, run
        self.states: list[np.ndarray] = []
        self.columns: list[pa.Table] = []

    def first(self, executor: Executor) -> None:
        state = accumulate(
            self.source,
            self.run.state.maps,
            where=None,
            batch_rows=4096,
            threads=1,
            progress=lambda rows: None,
            executor=executor,
        )
        self.states.append(np.triu(state.products))

    def second(self, executor: Executor) -> None:
        scorer, latest = self.run.scorer, self.source.latest()
        latest.annotate(
            Annotation(
                scorer.schema,
                self.run.columns,
                scorer.compute,
                f"{scorer.token}{len(self.columns)}",
                metadata={"spec_store.run": "bench"},
                workers=1,
                batch_rows=4096,
                executor=executor,
            )
        )

    def keep(self) -> None:
        """The columns as they were written, to be compared."""
        table = lance.dataset(f"{self.source.uri}/{self.source.table}.lance")
        self.columns.append(table.to_table(columns=self.run.scorer.schema.names))

    def are_equal(self) -> bool:
        """Whether every run so far has given the same bits."""
        return all(np.array_equal(s, self.states[0]) for s in self.states) and all(
            t.equals(self.columns[0]) for t in self.columns
        )


def timed(run: Callable[[Executor], object], executor: Executor) -> float:
    start = time.perf_counter()
    run(executor)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=8 * FRAGMENT_ROWS)
    parser.add_argument("--db", type=Path, default=Path("bench-db"))
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--kernel", default="gaussian")
    parser.add_argument("--no-ray", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    args.db.mkdir(exist_ok=True)
    name = table_in_fragments(args.db, args.rows)
    source = get_connector("lancedb").open(str(args.db), table=name)
    run = compare(source, list(WIDTHS), kernel=args.kernel, describe=False, progress=None)
    passes = Passes(source, run)
    print(
        f"{args.rows:,} rows x {tuple(WIDTHS.values())}, {args.kernel}, load {os.getloadavg()[0]:.1f}",
        flush=True,
    )

    seconds: dict[str, dict[str, list[float]]] = {}
    with ExitStack() as stack:
        executors: dict[str, Executor] = {
            "1 process": stack.enter_context(Processes(1)),
            "2 processes": stack.enter_context(Processes(2)),
        }
        if not args.no_ray:
            address = stack.enter_context(ray_cluster())
            executors["Ray, 1 at a time"] = stack.enter_context(RayTasks(address, workers=1))
            executors["Ray, 2 nodes"] = RayTasks(address)
        for executor in executors.values():  # start-up: imports, and the first read of the file
            passes.first(executor)
        for i in range(args.repeat):
            for label, executor in executors.items():
                own = seconds.setdefault(label, {"pass 1": [], "pass 2": []})
                own["pass 1"].append(timed(passes.first, executor))
                own["pass 2"].append(timed(passes.second, executor))
                passes.keep()
                shown = ", ".join(f"{stage} {found[-1]:.2f} s" for stage, found in own.items())
                print(f"round {i} {label}: {shown}, load {os.getloadavg()[0]:.1f}", flush=True)
        nodes = len(executors["Ray, 2 nodes"].nodes) if not args.no_ray else None  # type: ignore[attr-defined]

    stages = ("pass 1", "pass 2")

    def ratio(one: str, two: str, *wanted: str) -> float:
        a, b = (sum(min(seconds[label][stage]) for stage in wanted) for label in (one, two))
        return a / b

    pairs = [("1 process", "2 processes")]
    if not args.no_ray:
        pairs += [("1 process", "Ray, 2 nodes"), ("Ray, 1 at a time", "Ray, 2 nodes")]
    ratios = {
        f"{a} / {b}": {**{s: ratio(a, b, s) for s in stages}, "both passes": ratio(a, b, *stages)}
        for a, b in pairs
    }
    for pair, found in ratios.items():
        print(f"{pair}: " + ", ".join(f"{what} {value:.2f}" for what, value in found.items()))
    print(f"same bits everywhere: {passes.are_equal()}; Ray nodes that computed: {nodes}")
    if args.json:
        about: dict[str, Any] = {"rows": args.rows, "kernel": args.kernel, "nodes": nodes}
        args.json.write_text(json.dumps({**about, "seconds": seconds, "ratios": ratios}, indent=2))


if __name__ == "__main__":
    main()
