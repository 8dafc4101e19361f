"""Bar B4: a run killed at half of pass 1 and again at half of pass 2; and what checkpoints cost.

    python benchmarks/resume.py [--rows 1000000] [--folder DIR]

Prints rows read again as a share of the rows of both passes, whether the columns are those of a run that
nothing interrupts, and the share of that run's time that is spent on checkpoints.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import lance
from synthetic import table_at

import spec_store
from spec_store.workflows.checkpoint import Checkpoint
from spec_store.workflows.pass_checkpoint import PassCheckpoint

TESTS = Path(__file__).parents[1] / "tests"
WIDTHS = {"clip": 64, "dino": 96}
COLUMNS = list(WIDTHS)
OPTIONS = {"describe": False}
RESULTS = [f"spec_clip_dino_{n}" for n in ("cluster", "clusters", "side", "score", "scores")]
FRAGMENT = 22_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="For the tables. Default: a temporary one.")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        table = _table(Path(folder) / "first", given.rows)
        shutil.copytree(Path(folder) / "first", Path(folder) / "second", copy_function=os.link)
        took, spent = _undisturbed(Path(folder) / "first", table)
        print(f"undisturbed: {took:.1f} s, {spent:.2f} s of it on checkpoints ({spent / took:.2%}; bar 3%)")
        calls = [
            _killed(Path(folder) / "second", table, "covariance", given.rows // 2),
            _killed(Path(folder) / "second", table, "write", given.rows // 2),
            _ended(Path(folder) / "second", table),
        ]
        again = _read(calls) - 2 * given.rows
        print(f"killed twice: {again:,} rows read again ({again / (2 * given.rows):.1%}; bar 10%)")
        found, expected = (_columns(Path(folder) / name, table) for name in ("second", "first"))
        same = found.equals(expected)
        print("columns: the same" if same else "columns: not the same")
    return 0 if same and again < 0.2 * given.rows and spent < 0.03 * took else 1


def _table(folder: Path, n_rows: int) -> str:
    """A table in fragments of 22,000 rows, three to a unit; its name."""
    name = table_at(folder, n_rows, WIDTHS)
    path = folder / f"{name}.lance"
    batches = lance.dataset(path).to_batches(batch_size=10_000)
    schema = lance.dataset(path).schema
    lance.write_dataset(
        batches, folder / "images.lance", schema=schema, max_rows_per_file=FRAGMENT, max_rows_per_group=10_000
    )
    shutil.rmtree(path)
    return "images"


def _undisturbed(folder: Path, table: str) -> tuple[float, float]:
    """Seconds of a run, and those of them within checkpoints."""
    spent = 0.0

    def measured(owner: type, name: str) -> None:
        inner = getattr(owner, name)

        def wrapper(*args: object, **kwargs: object) -> object:
            nonlocal spent
            began = time.perf_counter()
            try:
                return inner(*args, **kwargs)
            finally:
                spent += time.perf_counter() - began

        setattr(owner, name, wrapper)

    measured(PassCheckpoint, "keep")
    for name in ("find", "sweep", "discard", "release"):
        measured(Checkpoint, name)
    began = time.perf_counter()
    spec_store.compare(table, COLUMNS, db=str(folder), write=True, progress=None, **OPTIONS)  # type: ignore[arg-type]
    return time.perf_counter() - began, spent


def _killed(folder: Path, table: str, stage: str, rows: int) -> dict[str, list[int]]:
    given = {"db": str(folder), "table": table, "columns": [COLUMNS], "until": [stage, rows], **OPTIONS}
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(TESTS / "interrupted_run.py"), json.dumps(given)]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, check=False, stdout=subprocess.PIPE, text=True
    )
    assert done.returncode == -9, done.returncode
    calls: dict[str, list[int]] = json.loads(done.stdout.splitlines()[-1])
    print(f"killed at half of {stage}: {_told(calls)}")
    return calls


def _ended(folder: Path, table: str) -> dict[str, list[int]]:
    calls: dict[str, list[int]] = {}

    def progress(stage: str, rows: int, total: int) -> None:
        calls.setdefault(stage, []).append(rows)

    spec_store.compare(table, COLUMNS, db=str(folder), write=True, progress=progress, **OPTIONS)  # type: ignore[arg-type]
    print(f"third run: {_told(calls)}")
    return calls


def _told(calls: dict[str, list[int]]) -> str:
    parts = []
    for stage in ("covariance", "write"):
        if stage in calls:
            start, *rows = calls[stage]
            parts.append(f"{stage} from {start:,}, {sum(rows):,} rows")
    return "; ".join(parts)


def _read(calls: list[dict[str, list[int]]]) -> int:
    """Rows that were read by both passes of all runs: the first call of each tells where it is continued."""
    read: Counter[str] = Counter()
    for run in calls:
        for stage in ("covariance", "write"):
            read[stage] += sum(run.get(stage, [0])[1:])
    return read.total()


def _columns(folder: Path, table: str) -> object:
    return lance.dataset(folder / f"{table}.lance").to_table(["id", *RESULTS]).replace_schema_metadata(None)


if __name__ == "__main__":
    sys.exit(main())
