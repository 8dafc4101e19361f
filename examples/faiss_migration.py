"""A switch of models between FAISS indices: what changes, a map for the old vectors, and what searchers find.

python examples/faiss_migration.py --folder indices

The old model's index holds every row; the new model has embedded half of them so far. The commands read both
index files by their ids. The rows that are not embedded yet are mapped into an index which the new model's
queries search.
"""

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from sklearn.datasets import load_digits

import spec_store
from spec_store.demo import histograms_of_oriented_gradients

Matrix = NDArray[np.float32]

N_QUERIES = 200
SHARE_EMBEDDED = 0.5
K = 10


def main() -> None:
    parser = argparse.ArgumentParser(description="Migrate a FAISS index of digits from one model to another.")
    parser.add_argument("--folder", type=Path, help="Where the files stay. Default: a temporary folder.")
    folder = parser.parse_args().folder
    if folder is None:
        with tempfile.TemporaryDirectory() as temporary:
            migrate(Path(temporary))
    else:
        folder.mkdir(parents=True, exist_ok=True)
        migrate(folder)


def migrate(folder: Path) -> None:
    old, new = embedded_digits()
    rng = np.random.default_rng(0)
    order = rng.permutation(len(old))
    asked, rows = order[:N_QUERIES], order[N_QUERIES:]
    ids = 10_000 + rows  # as a production index has them: neither positions nor in order
    embedded = rng.random(len(rows)) < SHARE_EMBEDDED
    write_index(folder / "old.index", ids, old[rows])
    write_index(folder / "new.index", ids[embedded], new[rows][embedded])
    queries = pa.table({"old_query": list(old[asked]), "new_query": list(new[asked])})
    pq.write_table(queries, folder / "queries.parquet")
    print(f"old.index holds {len(rows):,} rows, new.index {embedded.sum():,} of them.")

    pair = "old=faiss:old.index,new=faiss:new.index"
    source, target = pair.split(",")
    table = ["--db", ".", "--table", "differences", "--key", "id", "--on-missing", "drop"]
    switch = ["--source", source, "--target", target]
    run(folder, "compare", *table, "--cols", pair)
    run(folder, "align", *table, *switch, "--dry-run", "--export", "map.npz")
    asking = ["--queries", "queries.parquet", "--query-source", "old_query", "--query-target", "new_query"]
    run(folder, "gate", *table, *switch, "--map", "map.npz", *asking, "--fail-under", "0.6")

    mapped = map_index(folder / "old.index", folder / "new.index", folder / "map.npz")
    faiss.write_index(mapped, str(folder / "migrated.index"))
    expected = nearest(exact_index(ids, new[rows]), new[asked])
    found = nearest(mapped, new[asked])
    today = nearest(faiss.read_index(str(folder / "old.index")), old[asked])
    print(
        f"\nOf the {K} rows that a query finds where the new model has embedded all {len(rows):,}, it finds"
    )
    print(f"{overlap(today, expected):.0%} today, by the old model in old.index, and")
    print(f"{overlap(found, expected):.0%} by the new model in migrated.index.")


def embedded_digits() -> tuple[Matrix, Matrix]:
    """Handwritten digits by the old model, raw pixels, and the new, histograms of oriented gradients."""
    images = load_digits().images.astype(np.float32) / 16
    return unit(images.reshape(len(images), -1)), unit(histograms_of_oriented_gradients(images))


def unit(rows: Matrix) -> Matrix:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def exact_index(ids: NDArray[np.int64], rows: Matrix) -> faiss.Index:
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(rows.shape[1]))
    index.add_with_ids(rows, ids)
    return index


def write_index(path: Path, ids: NDArray[np.int64], rows: Matrix) -> None:
    faiss.write_index(exact_index(ids, rows), str(path))


def map_index(old: Path, new: Path, map: Path) -> faiss.Index:
    """The new model's own vectors where there are any, and mapped ones for the other ids."""
    index = faiss.read_index(str(new))
    (old_ids, old_rows), (new_ids, _) = contents(faiss.read_index(str(old))), contents(index)
    missing = ~np.isin(old_ids, new_ids)
    index.add_with_ids(spec_store.load_map(map).transform(old_rows[missing]), old_ids[missing])
    return index


def contents(index: faiss.Index) -> tuple[NDArray[np.int64], Matrix]:
    """Ids and vectors of an exact index with ids."""
    return faiss.vector_to_array(index.id_map), index.index.reconstruct_n(0, index.ntotal)


def nearest(index: faiss.Index, queries: Matrix) -> NDArray[np.int64]:
    return index.search(queries, K)[1]


def overlap(found: NDArray[np.int64], expected: NDArray[np.int64]) -> float:
    return float(np.mean([len(set(f) & set(e)) / K for f, e in zip(found, expected, strict=True)]))


def run(folder: Path, *words: str) -> None:
    """Print a command, run it in the folder, and let its output follow."""
    print("\n$ spec-store", shlex.join(words), flush=True)
    environment = {**os.environ, "COLUMNS": "110"}
    subprocess.run([sys.executable, "-m", "spec_store", *words], cwd=folder, env=environment, check=True)


if __name__ == "__main__":
    main()
