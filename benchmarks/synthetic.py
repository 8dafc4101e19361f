"""Large tables with structure, written in pieces."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa


def batches(
    n_rows: int, widths: dict[str, int], *, seed: int = 0, rows: int = 20_000
) -> Iterator[pa.RecordBatch]:
    """Forty groups of very different sizes; each embedding has one centre for some pairs of them."""
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, 41)
    centres = {c: rng.standard_normal((40, d), dtype=np.float32) for c, d in widths.items()}
    for i, own in enumerate(centres.values()):
        for first in range(6 + 2 * i, 40, 2 * len(centres)):  # the largest groups are apart in all
            own[first + 1] = own[first]
    for start in range(0, n_rows, rows):
        n = min(rows, n_rows - start)
        group = rng.choice(40, size=n, p=share / share.sum())
        columns: dict[str, pa.Array] = {"id": pa.array(np.arange(start, start + n))}
        for c, d in widths.items():
            x = centres[c][group]
            x += rng.standard_normal((n, d), dtype=np.float32)
            columns[c] = pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), d)
        yield pa.record_batch(columns)


def table_at(folder: Path, n_rows: int, widths: dict[str, int]) -> str:
    """The name of a table of this shape in the database `folder`; made on first use."""
    name = f"rows_{n_rows}_" + "_".join(f"{c}{d}" for c, d in widths.items())
    db = lancedb.connect(folder)
    if not (folder / f"{name}.lance").exists():
        stream = batches(n_rows, widths)
        first = next(stream)
        db.create_table(
            name, pa.RecordBatchReader.from_batches(first.schema, (b for p in ([first], stream) for b in p))
        )
    return name
