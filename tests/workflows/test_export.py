"""An exported sample holds what viewers need, in types that they read."""

import lancedb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import spec_store
from command import run
from planted import planted_mixture, vectors
from spec_store.errors import ColumnNotFoundError, InputError, TableNotFoundError

COLUMNS = ["clip", "dino"]
RESULTS = [f"spec_clip_dino_{name}" for name in ("cluster", "clusters", "side", "score", "scores")]
N = 600


@pytest.fixture(scope="module")
def db(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    a, b, groups = planted_mixture(N, n_groups=8, merged=2, d=24, seed=5)
    table = pa.table(
        {
            "id": np.arange(N),
            "clip": vectors(a),
            "dino": vectors(b),
            "label": [f"group {g}" for g in groups],
            "wide": pa.array([{"x": 1}] * N),
            "image": pa.array([b"\x89PNG"] * N),
            "clip_y": np.zeros(N),
        }
    )
    lancedb.connect(folder).create_table("images", table)
    spec_store.compare("images", COLUMNS, db=str(folder), dim=60, key="id", where="id < 500", write=True)
    return str(folder)


def test_a_sample_holds_the_key_scalar_columns_results_and_a_place_in_each_embedding(db, tmp_path):
    out = tmp_path / "sample.parquet"
    found = spec_store.export("images", out, columns=["label"], rows=200, projection="pca", db=db)
    table = pq.read_table(out)
    places = ["clip_x", "clip_y", "dino_x", "dino_y"]
    assert table.column_names == list(found.columns) == ["_rowid", "id", "label", *RESULTS, *places]
    assert found.projections == {"clip": ("clip_x", "clip_y"), "dino": ("dino_x", "dino_y")}
    assert (found.n_rows, found.warnings) == (len(table), ())
    assert {table.schema.field(name).type for name in places} == {pa.float32()}
    assert all(table[name].null_count == 0 for name in places)
    assert 150 < len(table) <= 200
    assert max(table["id"].to_pylist()) < 500  # what the run compared


def test_the_rows_are_the_table_s_own_and_the_picture_is_that_of_their_vectors(db, tmp_path):
    out = tmp_path / "sample.parquet"
    spec_store.export("images", out, columns=["label"], rows=10_000, projection="pca", db=db)
    frame = pd.read_parquet(out).set_index("id")
    assert sorted(frame.index) == list(range(500))
    held = spec_store.query("images", "id < 500", select=["id", "label", *RESULTS, "clip"], db=db).read_all()
    told = held.select(["label", RESULTS[0], RESULTS[3]]).to_pandas().set_index(held["id"].to_numpy())
    for name in told:
        assert frame[name].loc[told.index].equals(told[name]), name
    x = np.stack(held["clip"].to_numpy()).astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    x -= x.mean(axis=0)
    plane = x @ np.linalg.svd(x, full_matrices=False)[2][:2].T
    shown = frame.loc[held["id"].to_numpy(), ["clip_x", "clip_y"]].to_numpy()
    for ours, naive in zip(shown.T, plane.T, strict=True):
        assert abs(np.corrcoef(ours, naive)[0, 1]) > 1 - 1e-6


def test_without_columns_named_all_scalar_ones_are_there_and_without_pictures_no_places(db, tmp_path):
    out = tmp_path / "sample.parquet"
    found = spec_store.export("images", out, projection="none", db=db)
    assert list(found.columns) == ["_rowid", "id", "label", "clip_y", *RESULTS]
    assert found.projections == {}


def test_columns_of_any_type_can_be_asked_for(db, tmp_path):
    out = tmp_path / "sample.parquet"
    spec_store.export("images", out, columns=["image", "wide"], rows=50, projection="none", db=db)
    assert pq.read_table(out)["image"][0].as_py() == b"\x89PNG"


def test_the_same_seed_gives_the_same_file_and_another_one_another_sample(db, tmp_path):
    files = [tmp_path / f"{i}.parquet" for i in range(3)]
    for file, seed in zip(files, (0, 0, 1), strict=True):
        spec_store.export("images", file, columns=["label"], rows=60, seed=seed, db=db)
    one, two, other = (pq.read_table(file) for file in files)
    assert one == two
    assert set(one["id"].to_pylist()) != set(other["id"].to_pylist())


def test_what_can_t_be_exported_is_refused_and_an_earlier_file_stays(db, tmp_path):
    out = tmp_path / "sample.parquet"
    out.write_text("mine")
    with pytest.raises(InputError, match=r"'clip_y' of table 'images' .* has the name of a projection"):
        spec_store.export("images", out, db=db)
    with pytest.raises(InputError, match=r"give a name that ends in \.parquet"):
        spec_store.export("images", tmp_path / "sample.csv", db=db)
    with pytest.raises(TableNotFoundError, match="there is no folder"):
        spec_store.export("images", tmp_path / "no" / "sample.parquet", db=db)
    with pytest.raises(ColumnNotFoundError, match="lable"):
        spec_store.export("images", out, columns=["lable"], db=db)
    with pytest.raises(InputError, match="no results with prefix 'other'"):
        spec_store.export("images", out, prefix="other", db=db)
    with pytest.raises(InputError, match="projection is 'umap'; expected one of tsne, pca, none"):
        spec_store.export("images", out, projection="umap", db=db)
    assert out.read_text() == "mine"


def test_the_command_names_the_file_and_how_a_viewer_opens_it(db, tmp_path):
    out = tmp_path / "sample.parquet"
    arguments = ["--table", "images", "-o", out, "--columns", "id,label", "--rows", "100"]
    said = run("export", *arguments, "--projection", "pca", db=db).stdout.splitlines()
    assert said[0] == f"Wrote {len(pq.read_table(out))} rows and 12 columns: {out}"
    assert said[1:] == [f"Next: embedding-atlas {out} --x {c}_x --y {c}_y" for c in COLUMNS]
