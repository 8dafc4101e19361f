"""Partitions of joined sources: the first source's, without the rows that the second has not."""

import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lance_tables import make_table, open_source
from planted import vectors
from spec_store.plugins import get_connector
from spec_store.stores.join import Joined
from spec_store.stores.view import View

RNG = np.random.default_rng(0)
IDS = RNG.permutation(9000)[:3000]


def table(ids, column, width):
    """Vectors that tell whose they are."""
    return pa.table({"id": ids, column: vectors(np.repeat(ids[:, None], width, axis=1).astype(np.float32))})


def right(store, folder, ids):
    if store == "lancedb":
        make_table(folder, *(table(part, "dino", 1) for part in np.array_split(ids, 4)), name="other")
        return open_source(folder, "other")
    if store == "parquet":
        pq.write_table(table(ids, "dino", 1), folder / "dino.parquet", row_group_size=500)
        return get_connector("arrow").open(str(folder / "dino.parquet"))
    return get_connector("arrow").wrap(table(ids, "dino", 1))


def joined(folder, store, ids):
    make_table(folder, *(table(part, "clip", 2) for part in np.split(IDS, [1000, 1010, 2200])))
    other = View(right(store, folder, ids), key="id", names={"dino": "dino"})
    return Joined(View(open_source(folder), key="id"), other, on_missing="drop")


def read(source, **how):
    rows = []
    for batch in source.batches(["dino", "clip"], batch_rows=64, **how):
        ids = batch.column(0).to_pylist()
        assert batch.column("dino").to_pylist() == [[float(i)] for i in ids]
        assert batch.column("clip").to_pylist() == [[float(i)] * 2 for i in ids]
        rows += ids
    return rows


@pytest.mark.parametrize("order", ["same", "shuffled"])
@pytest.mark.parametrize("store", ["lancedb", "parquet", "memory"])
def test_partitions_give_the_rows_that_both_hold_once_and_in_order(tmp_path, store, order):
    kept = np.sort(RNG.permutation(len(IDS))[:2500])
    among = np.concatenate([IDS[kept], 9000 + np.arange(400)])
    source = joined(tmp_path, store, among if order == "same" else RNG.permutation(among))
    parts = source.partitions()
    assert [p.id for p in parts] == [p.id for p in source.left.partitions()]
    for where in (None, "id % 3 <> 1"):
        pieces = [read(source, partition=p, where=where) for p in parts]
        assert [i for piece in pieces for i in piece] == read(source, where=where)
        if where is None:
            assert [len(piece) for piece in pieces] == [p.n_rows for p in parts]
    assert any("temporary file" in note for note in source.notes) == (
        (store, order) == ("parquet", "shuffled")
    )
    elsewhere = pickle.loads(pickle.dumps(source))
    for at in (2, 3, 0):  # as a worker may get them
        assert read(elsewhere, partition=parts[at]) == read(source, partition=parts[at])


def test_partitions_without_a_row_in_common_are_empty(tmp_path):
    source = joined(tmp_path, "lancedb", IDS[1000:1010])
    assert [p.n_rows for p in source.partitions()] == [0, 10, 0, 0]
    assert [len(read(source, partition=p)) for p in source.partitions()] == [0, 10, 0, 0]
