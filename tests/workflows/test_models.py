"""Any number of embeddings in one pass: figures, publication, and what later runs make of them."""

import json

import faiss
import lance
import lancedb
import numpy as np
import pyarrow as pa
import pytest

import spec_store
from lance_tables import open_source
from planted import planted_mixture, vectors
from spec_store.errors import ColumnClashError, InputError, UnsupportedError
from spec_store.runs.registry import Registry
from spec_store.stores.locate import location_of

SMALL = {"dim": 60, "sample_rows": 700}
COLUMNS = ["clip", "dino", "siglip"]


@pytest.fixture
def db(tmp_path):
    """A table of three embeddings, 700 rows: dino merges pairs of clip's groups, siglip is a blur of clip."""
    a, b, groups = planted_mixture(700, n_groups=8, merged=2, d=24, seed=5)
    c = a @ np.random.default_rng(1).standard_normal((24, 10)).astype(np.float32)
    table = pa.table(
        {
            "id": np.arange(700),
            "clip": vectors(a),
            "dino": vectors(b),
            "siglip": vectors(c),
            "label": [f"group {g}" for g in groups],
        }
    )
    lancedb.connect(tmp_path).create_table("images", table)
    return str(tmp_path)


def statuses(db):
    rows = spec_store.list_runs(db=db).to_pylist()
    return {(row["kind"], row["prefix"]): row["status"] for row in rows[::-1]}


@pytest.mark.parametrize(
    ("fields", "tolerance"), [({"kernel": "cosine", "precision": "float64"}, 1e-8), ({"dim": 60}, 1e-5)]
)
def test_a_pairs_eigenvalues_are_those_of_a_run_of_the_pair_with_the_same_maps(db, fields, tolerance):
    fields = {"sample_rows": 700, "describe": False} | fields
    run = spec_store.compare_models(
        "images", COLUMNS, pairs=[("dino", "siglip")], db=db, write=True, **fields
    )
    alone = spec_store.compare("images", ["dino", "siglip"], db=db, maps_from=run.run_id, **fields)
    for column in ("dino", "siglip"):
        found = run.pair("dino", "siglip").eigenvalues[column]
        np.testing.assert_allclose(found, alone.eigenvalues[column], atol=tolerance)
    entry = next(e for e in run.record.matrix if (e["first"], e["second"]) == ("dino", "siglip"))
    assert entry["spec_diff"] == pytest.approx(alone.spec_diff, abs=tolerance)
    assert entry["cka"] == pytest.approx(alone.record.cka, abs=tolerance)
    assert entry["cka_unbiased"] == pytest.approx(alone.record.cka_unbiased, abs=tolerance)


def test_the_matrix_alone_is_recorded_and_leaves_the_table_as_it_was(db):
    before = lance.dataset(f"{db}/images.lance").version
    run = spec_store.compare_models("images", COLUMNS, db=db, write=True, **SMALL)
    assert lance.dataset(f"{db}/images.lance").version == before
    assert [(e["first"], e["second"]) for e in run.matrix.to_pylist()] == [
        ("clip", "dino"),
        ("clip", "siglip"),
        ("dino", "siglip"),
    ]
    assert statuses(db) == {("models", "spec_clip_dino_siglip"): "recorded"}
    stored = Registry(location_of(db)).run(run.run_id)
    assert stored.to_json() == run.record.to_json()


def test_all_pairs_are_published_at_once_each_under_its_prefix(db):
    run = spec_store.compare_models("images", COLUMNS, pairs="first", db=db, write=True, **SMALL)
    dataset = lance.dataset(f"{db}/images.lance")
    assert run.record.written_version == dataset.version
    for comparison, pair in zip(run.comparisons, (["clip", "dino"], ["clip", "siglip"]), strict=True):
        assert list(comparison.columns) == pair
        assert comparison.record.written_version == dataset.version
        marks = dataset.schema.field(f"{comparison.prefix}_cluster").metadata
        assert marks[b"spec_store.run"].decode() == run.run_id
        assert json.loads(marks[b"spec_store.columns"]) == pair
        for cluster in comparison.record.clusters:
            assert spec_store.query("images", cluster.where, db=db).read_all().num_rows == cluster.size > 0
        stored = spec_store.clusters("images", prefix=comparison.prefix, db=db).run
        assert stored.clusters == comparison.record.clusters
    assert set(statuses(db).values()) == {"current"}


def test_each_pair_is_written_as_it_would_be_alone(db):
    fields = {**SMALL, "kernel": "cosine"}
    spec_store.compare_models("images", COLUMNS, pairs="all", db=db, write=True, **fields)
    together = lance.dataset(f"{db}/images.lance").to_table()
    alone = spec_store.compare("images", ["clip", "siglip"], db=db, **fields)
    rows = alone.scores().read_all()
    for name in ("cluster", "side"):
        column = f"spec_clip_siglip_{name}"
        assert rows[column].to_pylist() == together[column].to_pylist()
    scores = (t["spec_clip_siglip_score"].to_numpy() for t in (rows, together))
    np.testing.assert_allclose(*scores, atol=1e-5)


def test_one_pair_can_be_undone_and_rerun_and_the_others_stay(db):
    spec_store.compare_models("images", COLUMNS, pairs="all", db=db, write=True, **SMALL)
    spec_store.undo("images", prefix="spec_dino_siglip", db=db)
    spec_store.compare("images", ["clip", "dino"], db=db, write=True, **SMALL)
    found = statuses(db)
    assert found["compare", "spec_dino_siglip"] == "removed"
    assert found["compare", "spec_clip_siglip"] == "current"
    held = {run.prefix for run in spec_store.workflows.annotated.held_comparisons(open_source(db))}
    assert held == {"spec_clip_dino", "spec_clip_siglip"}
    again = spec_store.compare_models("images", COLUMNS, pairs="all", db=db, write=True, **SMALL)
    assert set(statuses(db).values()) == {"current"}
    assert len(again.pair("clip", "siglip").record.changes["kept"]) >= 4


def test_embeddings_of_three_stores_are_joined_by_id(db, tmp_path):
    rows = lance.dataset(f"{db}/images.lance").to_table()
    order = np.random.default_rng(0).permutation(700)
    references = ["clip"]
    for name in ("dino", "siglip"):
        x = np.stack(rows[name].to_numpy(zero_copy_only=False))[order]
        index = faiss.IndexIDMap2(faiss.IndexFlatL2(x.shape[1]))
        index.add_with_ids(x, order.astype(np.int64))
        faiss.write_index(index, str(tmp_path / f"{name}.index"))
        references.append(f"{name}=faiss:{tmp_path}/{name}.index")
    lancedb.connect(db).create_table("clips", rows.select(["id", "clip", "label"]))
    joined = spec_store.compare_models("clips", references, pairs="first", db=db, key="id", **SMALL)
    whole = spec_store.compare_models("images", COLUMNS, pairs="first", db=db, key="id", **SMALL)
    for one, two in zip(joined.matrix.to_pylist(), whole.matrix.to_pylist(), strict=True):
        assert one == pytest.approx(two, abs=1e-6)
    written = joined.write()
    for comparison in written.comparisons:
        for cluster in comparison.record.clusters:
            assert spec_store.query("clips", cluster.where, db=db).read_all().num_rows == cluster.size
    again = spec_store.compare_again(joined.run_id, pair=("dino", "siglip"), db=db, write=True)
    assert sum(c.size for c in again.record.clusters) > 0


def test_a_row_with_a_bad_vector_is_null_where_that_embedding_counts(db):
    rows = lance.dataset(f"{db}/images.lance").to_table()
    siglip = np.stack(rows["siglip"].to_numpy(zero_copy_only=False))
    siglip[3] = np.nan
    broken = rows.set_column(rows.column_names.index("siglip"), "siglip", vectors(siglip))
    lance.write_dataset(broken, f"{db}/images.lance", mode="overwrite")
    with pytest.raises(InputError, match=r"1 rows of table 'images'.*can't be compared"):
        spec_store.compare_models("images", COLUMNS, db=db, **SMALL)
    run = spec_store.compare_models(
        "images", COLUMNS, pairs="first", db=db, write=True, skip_invalid=True, **SMALL
    )
    assert (run.record.n_rows, run.record.n_skipped) == (699, 1)
    row = lance.dataset(f"{db}/images.lance").to_table().slice(3, 1).to_pylist()[0]
    assert row["spec_clip_siglip_scores"] is None
    assert row["spec_clip_dino_scores"] is not None


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([("clip", "other")], "'clip:other' is not a pair of the columns clip, dino, siglip"),
        ([("clip", "clip")], "'clip:clip' is not a pair"),
        ([("clip", "dino"), ("dino", "clip")], "given twice"),
        ("some", "expected all, first, or pairs"),
    ],
)
def test_what_is_no_pair_is_refused_before_any_work(db, pairs, message):
    with pytest.raises(InputError, match=message):
        spec_store.compare_models("images", COLUMNS, pairs=pairs, db=db)


def test_results_of_others_are_refused_before_any_work(db):
    spec_store.compare("images", ["clip", "dino"], db=db, write=True, prefix="spec_clip_siglip", **SMALL)
    with pytest.raises(ColumnClashError, match="holds results of clip and dino, not of clip and siglip"):
        spec_store.compare_models("images", COLUMNS, pairs="all", db=db, write=True, **SMALL)
    with pytest.raises(InputError, match="A prefix is for one pair; 3 are asked for"):
        spec_store.compare_models("images", COLUMNS, pairs="all", db=db, prefix="mine")
    with pytest.raises(InputError, match="2 bandwidths are given for 3 embeddings"):
        spec_store.compare_models("images", COLUMNS, db=db, bandwidth=(1.0, 2.0))


def test_what_can_not_be_recorded_is_refused_before_any_work(db, tmp_path):
    x = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)
    references = []
    for name in COLUMNS:
        index = faiss.IndexFlatL2(8)
        index.add(x)
        faiss.write_index(index, str(tmp_path / f"{name}.index"))
        references.append(f"{name}=faiss:{tmp_path}/{name}.index")
    reached = []
    with pytest.raises(UnsupportedError, match="nothing to write"):
        spec_store.compare_models(None, references, write=True, progress=lambda *stage: reached.append(stage))
    foreign = pa.table({"x": [1]})
    lancedb.connect(db).create_table("spec_store_runs", foreign)
    with pytest.raises(InputError, match="not a run registry"):
        spec_store.compare_models(
            "images", COLUMNS, db=db, write=True, progress=lambda *stage: reached.append(stage)
        )
    assert not reached


def test_two_columns_are_a_pair_too_and_arrays_in_memory_serve(db):
    rng = np.random.default_rng(0)
    data = {name: rng.standard_normal((60, 5)).astype(np.float32) for name in COLUMNS}
    run = spec_store.compare_models(data, COLUMNS, dim=20)
    assert run.matrix.num_rows == 3
    assert repr(run).startswith("<Comparison of clip, dino, siglip: 60 rows")
    with pytest.raises(spec_store.SpecStoreError, match="nothing to write"):
        run.write()
    with pytest.raises(InputError, match="clip:dino was not asked for"):
        run.pair("clip", "dino")
