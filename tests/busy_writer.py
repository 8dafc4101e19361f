"""Run as a process: append, delete and update until a file named `stop` appears; log what was done."""

import json
import sys
import time
from pathlib import Path

import lancedb
import numpy as np

from lance_tables import rows


def main(folder):
    rng = np.random.default_rng(0)
    table = lancedb.connect(folder).open_table("images")
    next_id, deleted, touched = 10_000, [], []
    while not (Path(folder) / "stop").exists():
        table.checkout_latest()
        table.add(rows(5, next_id))
        next_id += 5
        victim = int(rng.integers(0, 300))
        table.delete(f"id = {victim}")
        deleted.append(victim)
        changed = int(rng.integers(300, 600))
        table.update(where=f"id = {changed}", values={"clip": [float(changed), 0.0, 0.0, 0.0]})
        touched.append(changed)
        time.sleep(0.05)
    print(json.dumps({"next_id": next_id, "deleted": deleted, "touched": touched}))


if __name__ == "__main__":
    main(sys.argv[1])
