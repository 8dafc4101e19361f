"""`update` after a table grew, shrank and changed, against a fresh run on the same table.

Appends 10% of the rows, deletes 5% and changes 5%, scattered over the table. Prints how long both commands
took, how far the updated state is from one of all rows through the same maps, and which data files changed.

python benchmarks/update.py --rows 500000 --db bench-db [--precision float64]
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
from synthetic import batches

from spec_store.runs.registry import Registry
from spec_store.stores.locate import location_of, open_table
from spec_store.workflows.passes import accumulate
from spec_store.workflows.solving import kept_state

WIDTHS = {"clip": 512, "dino": 768}


def command(*words: str, db: Path) -> float:
    """Seconds that a command took, its start included."""
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "spec_store", *words, "--table", "images", "--db", str(db)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return time.perf_counter() - start


def write(uri: Path, n_rows: int) -> None:
    stream = batches(n_rows, WIDTHS)
    first = next(stream)
    reader = pa.RecordBatchReader.from_batches(first.schema, (b for part in ([first], stream) for b in part))
    lance.write_dataset(reader, uri, enable_stable_row_ids=True, max_rows_per_file=65_536)


def change(uri: Path, n_rows: int) -> None:
    dataset = lance.dataset(uri)
    for batch in batches(n_rows // 10, WIDTHS, seed=1):
        ids = pa.array(np.asarray(batch["id"]) + n_rows)
        dataset.insert(pa.table({**{c: batch[c] for c in WIDTHS}, "id": ids}))
    dataset.delete("id % 20 = 0")
    changed = pa.Table.from_batches(batches(n_rows // 20, WIDTHS, seed=2))
    ids = pa.array(np.arange(n_rows // 20) * 20 + 1)
    merge = lance.dataset(uri).merge_insert("id").when_matched_update_all()
    merge.execute(changed.set_column(0, "id", ids))


def data_files(uri: Path) -> set[str]:
    return {f.path for fragment in lance.dataset(uri).get_fragments() for f in fragment.metadata.files}


def state_error(db: Path, run_id: str) -> float:
    state = kept_state(location_of(str(db)), run_id)
    fresh = accumulate(
        open_table("images", str(db)),
        state.maps,
        where=None,
        batch_rows=4096,
        threads=None,
        progress=lambda rows: None,
    )
    assert state.n_rows == fresh.n_rows
    upper = np.triu_indices(state.n_columns)
    difference = (state.products - fresh.products)[upper]
    return float(np.linalg.norm(difference) / np.linalg.norm(fresh.products[upper]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--db", type=Path, required=True)
    parser.add_argument("--precision", default="float32")
    given = parser.parse_args()
    db = given.db / "update"
    shutil.rmtree(db, ignore_errors=True)
    db.mkdir(parents=True)
    uri = db / "images.lance"
    write(uri, given.rows)
    asked = ["compare", "--cols", "clip,dino", "--key", "id", "--no-describe", "--precision", given.precision]
    first = command(*asked, db=db)
    run_id = Registry(location_of(str(db))).rows(["run_id"])[-1]["run_id"]
    change(uri, given.rows)
    before = data_files(uri)
    updated = command("update", db=db)
    after = data_files(uri)
    again = command(*asked, "--prefix", "fresh", db=db)
    print(f"{given.rows:,} rows x (512 + 768), {given.precision}; first run {first:.1f} s")
    print(f"update {updated:.1f} s, fresh run {again:.1f} s: ratio {updated / again:.2f}")
    print(f"data files: {len(before)} before, {len(before & after)} kept, {len(after - before)} new")
    print(f"state against one of all rows through the same maps: {state_error(db, run_id):.1e}, relatively")


if __name__ == "__main__":
    main()
