"""The whole story in each kind of store, by the command line; run with the oldest dependencies too."""

import json

import faiss
import lance
import lancedb
import numpy as np
import pyarrow.parquet as pq

from command import run
from lance_tables import NOTHING, leftovers

SMALL = ["--dim", "60", "--sample-rows", "1500", "--key", "id"]


def test_a_table_is_compared_asked_appended_to_compared_again_aligned_gated_and_undone(db, planted_table):
    before = lance.dataset(f"{db}/images.lance").to_table().sort_by("id")
    images = ["--table", "images"]
    compare = ["compare", *images, "--cols", "clip,dino", "--json", *SMALL]
    found = json.loads(run(*compare, "--where", "id >= 1000", "--index", db=db).stdout)
    largest = found["clusters"][0]
    rows = run("query", *images, "--where", largest["where"], "--format", "jsonl", db=db).stdout.splitlines()
    assert len(rows) == largest["size"] > 0
    assert "group" in run("clusters", *images, "--by", "label", db=db).stdout

    table = lancedb.connect(db).open_table("images")
    table.add(planted_table.slice(0, 50).drop_columns("id").append_column("id", [range(5000, 5050)]))
    table.optimize()
    assert json.loads(run(*compare, db=db).stdout)["n_rows"] == 2050

    align = "--source clip --target dino --kind affine --steps 20 --held-out 0.2 --force --key id"
    run("align", *images, *align.split(), db=db)
    table.checkout_latest()
    table.add(planted_table.slice(0, 50).drop_columns("id").append_column("id", [range(6000, 6050)]))
    run("update", *images, db=db)
    aligned = lance.dataset(f"{db}/images.lance").to_table(["clip_as_dino"])
    assert aligned.column(0).null_count == 0
    run("gate", *images, *["--source", "clip", "--target", "dino", "--fail-under", "0"], db=db)

    for prefix in ("spec_clip_dino", "clip_as_dino"):
        run("undo", *images, "--prefix", prefix, db=db)
    after = lance.dataset(f"{db}/images.lance").to_table(filter="id < 5000").sort_by("id")
    assert after.equals(before)
    assert leftovers(db) == NOTHING


def test_parquet_files_are_compared_into_a_new_file(tmp_path, planted_table):
    for name in ("clip", "dino"):
        pq.write_table(planted_table.select(["id", name]), tmp_path / f"{name}.parquet")
    columns = ",".join(f"{name}=arrow:{tmp_path}/{name}.parquet" for name in ("clip", "dino"))
    run("compare", "--cols", columns, "--out", tmp_path / "scores.parquet", *SMALL)
    written = pq.read_table(tmp_path / "scores.parquet")
    assert written["id"].to_pylist() == planted_table["id"].to_pylist()
    assert written["spec_clip_dino_score"].null_count < written.num_rows


def test_an_index_is_compared_with_a_column_of_a_table(db, tmp_path, planted_table):
    dino = np.stack(planted_table["dino"].to_numpy())
    index = faiss.index_factory(dino.shape[1], "IDMap,Flat")
    index.add_with_ids(dino, planted_table["id"].to_numpy())
    faiss.write_index(index, str(tmp_path / "dino.index"))
    columns = ["--cols", f"clip,dino=faiss:{tmp_path}/dino.index"]
    inside = run("compare", "--table", "images", "--cols", "clip,dino", "--dry-run", "--json", *SMALL, db=db)
    across = run("compare", "--table", "images", *columns, "--json", *SMALL, db=db)
    assert json.loads(inside.stdout)["eigenvalues"] == json.loads(across.stdout)["eigenvalues"]
    run("undo", "--table", "images", "--prefix", "spec_clip_dino", db=db)
