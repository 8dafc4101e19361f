"""The pipeline on real tables: what it finds, what it writes, and what it refuses before writing."""

import json

import lance
import lancedb
import numpy as np
import pyarrow as pa
import pytest

import spec_store
from planted import batch_of, vectors
from spec_store import CompareOptions, CovarianceAccumulator
from spec_store.errors import (
    ColumnClashError,
    ColumnNotFoundError,
    FilterError,
    InputError,
    InvalidVectorsError,
    UnsupportedError,
)
from spec_store.plugins import get_connector

SMALL = {"dim": 60, "sample_rows": 1500}
COLUMNS = ["clip", "dino"]


def table_of(folder, **columns):
    folder.mkdir(exist_ok=True)
    lance.write_dataset(pa.table(columns), folder / "images.lance")  # LanceDB itself refuses bad vectors
    return str(folder)


def snapshot(db):
    """Version, schema and the names of all tables: unchanged means nothing was written."""
    dataset = lance.dataset(f"{db}/images.lance")
    return dataset.version, dataset.schema, sorted(lancedb.connect(db).list_tables().tables)


def test_groups_that_dino_merges_are_found_and_written(db):
    run = spec_store.compare("images", COLUMNS, db=db, write=True, **SMALL)
    found = {}
    for c in run.record.clusters:
        inside = spec_store.query("images", c.where, select=["label"], db=db).read_all()
        labels, counts = np.unique(inside["label"].to_numpy(zero_copy_only=False), return_counts=True)
        assert len(inside) == c.size
        if c.side == "clip" and counts.max() > 0.9 * counts.sum():
            found[str(labels[counts.argmax()])] = c
    assert set(found) >= {f"group {i}" for i in range(6)}
    for i in range(0, 6, 2):
        one, two = found[f"group {i}"], found[f"group {i + 1}"]
        assert one.seen_by_other["kind"] == two.seen_by_other["kind"] == "merged"
        assert one.seen_by_other["clusters"][0]["cluster"] == two.cluster
        assert one.family == two.family == min(one.cluster, two.cluster)
        assert one.over_represented[0]["value"] == f"group {i}"
        assert one.capture["clip"] > 0.9 > 0.7 > one.capture["dino"]


def test_nothing_is_written_before_write(db):
    before = snapshot(db)
    run = spec_store.compare("images", COLUMNS, db=db, **SMALL)
    assert snapshot(db) == before
    assert run.clusters["size"].null_count == len(run.clusters)
    scored = run.score()
    assert snapshot(db) == before
    assert min(scored.clusters["size"].to_pylist()) > 0
    written = run.write()
    assert written.clusters == scored.clusters
    assert run.written == scored.written == []
    assert written.written == [
        f"spec_clip_dino_{n}" for n in ("cluster", "clusters", "side", "score", "scores")
    ]


def test_the_written_table_agrees_with_the_reported_clusters(db):
    run = spec_store.compare("images", COLUMNS, db=db, write=True, key="id", **SMALL)
    rows = lance.dataset(f"{db}/images.lance").to_table().to_pylist()
    for c in run.clusters.to_pylist():
        members = [r for r in rows if c["cluster"] in r["spec_clip_dino_clusters"]]
        assert len(members) == c["size"]
        best = max(rows, key=lambda r: r["spec_clip_dino_scores"][c["cluster"] - 1])
        assert c["top_rows"][0] == str(best["id"])
        assert spec_store.query("images", c["where"], db=db).read_all().num_rows == c["size"]


def test_swapping_the_columns_swaps_the_sides_and_keeps_the_groups(db):
    one = spec_store.compare("images", COLUMNS, db=db, write=True, **SMALL)
    two = spec_store.compare("images", COLUMNS[::-1], db=db, write=True, **SMALL)
    np.testing.assert_allclose(one.eigenvalues["clip"], [-v for v in two.eigenvalues["clip"]], rtol=1e-4)
    assert one.spec_diff == pytest.approx(two.spec_diff, rel=1e-4)
    select = ["id", "spec_clip_dino_clusters", "spec_dino_clip_clusters"]
    strong = one.clusters.to_pylist()[:6]
    rows = spec_store.query("images", select=select, db=db).read_all().to_pylist()
    for c in strong:
        members = {r["id"] for r in rows if c["cluster"] in r["spec_clip_dino_clusters"]}
        twins = [
            {r["id"] for r in rows if other["cluster"] in r["spec_dino_clip_clusters"]}
            for other in two.clusters.to_pylist()
            if other["side"] == c["side"]
        ]
        assert max(len(members & t) / len(members | t) for t in twins) > 0.99


def test_a_run_is_the_same_whatever_the_batch_size_and_where_the_rows_lie(
    db, planted_table, tmp_path_factory
):
    one = spec_store.compare("images", COLUMNS, db=db, **SMALL)
    two = spec_store.compare("images", COLUMNS, db=db, batch_rows=77, **SMALL)
    np.testing.assert_allclose(one.eigenvalues["dino"], two.eigenvalues["dino"], atol=1e-6)


def test_a_re_run_replaces_the_columns_and_another_prefix_stands_beside(db):
    spec_store.compare("images", COLUMNS, db=db, write=True, **SMALL)
    again = spec_store.compare("images", COLUMNS, db=db, write=True, modes=3, **SMALL)
    spec_store.compare("images", COLUMNS, db=db, write=True, prefix="other", **SMALL)
    schema = lance.dataset(f"{db}/images.lance").schema
    assert len(schema) == 4 + 5 + 5
    assert schema.field("spec_clip_dino_scores").metadata[b"spec_store.run"].decode() == again.run_id
    stored = json.loads(schema.field("other_cluster").metadata[b"spec_store.options"])
    assert stored["prefix"] == "other"
    assert stored["dim"] == 60


def test_modes_on_request_are_a_column_beside_the_clusters_which_undo_removes_too(db):
    spec_store.compare("images", COLUMNS, db=db, write=True, **SMALL)
    run = spec_store.compare("images", COLUMNS, db=db, write=True, modes=3, write_modes=True, **SMALL)
    assert run.written[-1] == "spec_clip_dino_modes"
    table = lance.dataset(f"{db}/images.lance").to_table(columns=["spec_clip_dino_modes"])
    modes = np.stack(table["spec_clip_dino_modes"].to_numpy())
    assert modes.shape == (len(table), 6)
    assert np.allclose((modes**2).mean(axis=0), 1, atol=0.02)  # of both ends, strongest first
    removed = spec_store.undo("images", prefix="spec_clip_dino", db=db)
    assert "spec_clip_dino_modes" in removed
    assert len(lance.dataset(f"{db}/images.lance").schema) == 4


def test_only_rows_that_match_are_compared_and_annotated(db):
    run = spec_store.compare("images", COLUMNS, db=db, write=True, where="id < 2000", **SMALL)
    assert run.n_rows == 1000
    found = spec_store.query("images", "spec_clip_dino_score IS NOT NULL", select=["id"], db=db).read_all()
    assert sorted(found["id"].to_pylist()) == list(range(1000, 2000))


def test_the_stored_state_solves_to_the_same_eigenvalues(db):
    run = spec_store.compare("images", COLUMNS, db=db, write=True, **SMALL)
    table = lancedb.connect(db).open_table("spec_store_runs").to_arrow()
    import io

    state = CovarianceAccumulator.load(io.BytesIO(table["state"][0].as_py()))
    assert state.n_rows == 2000
    solved = spec_store.solve(state, modes=40)
    np.testing.assert_allclose(solved.ends[0].eigenvalues, run.eigenvalues["clip"], rtol=1e-9)


def test_clusters_show_over_represented_labels(db):
    run = spec_store.compare("images", COLUMNS, db=db, write=True, **SMALL)
    report = spec_store.clusters("images", by="label", db=db)
    assert report.run.run_id == run.run_id
    strongest = next(c for c in report.clusters.to_pylist() if c["side"] == "clip")
    assert strongest["labels"][0]["share"] > 0.95
    assert strongest["labels"][0]["lift"] > 5
    with pytest.raises(InputError, match="holds fixed_size_list"):
        spec_store.clusters("images", by="clip", db=db)


def test_undo_removes_the_columns_and_clusters_says_so(db):
    spec_store.compare("images", COLUMNS, db=db, write=True, **SMALL)
    assert len(spec_store.undo("images", prefix="spec_clip_dino", db=db)) == 5
    assert lance.dataset(f"{db}/images.lance").schema.names == ["id", "clip", "dino", "label"]
    with pytest.raises(InputError, match="they were undone, or the table was restored or overwritten"):
        spec_store.clusters("images", db=db)
    with pytest.raises(InputError, match="has no result columns with prefix 'spec_clip_dino'"):
        spec_store.undo("images", prefix="spec_clip_dino", db=db)


def test_an_embedding_against_a_copy_of_itself_claims_nothing_and_writes_no_cluster(tmp_path):
    x = np.random.default_rng(0).standard_normal((300, 8))
    db = table_of(tmp_path, a=vectors(x), b=vectors(x))
    run = spec_store.compare("images", ["a", "b"], db=db, write=True, dim=40)
    assert len(run.clusters) == 0
    assert any("hardly differ" in w for w in run.warnings)
    rows = spec_store.query("images", db=db).read_all()
    assert rows["spec_a_b_cluster"].null_count == 300
    assert rows["spec_a_b_clusters"].to_pylist() == [[]] * 300


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_float_types_agree_with_float32(tmp_path, planted_table, dtype):
    columns = {c: np.stack(planted_table[c].to_numpy()) for c in COLUMNS}
    table_of(tmp_path / "wide", **{c: vectors(x) for c, x in columns.items()})
    table_of(tmp_path / "other", **{c: vectors(x, dtype) for c, x in columns.items()})
    found = [
        spec_store.compare("images", COLUMNS, db=str(tmp_path / d), kernel="cosine").eigenvalues["clip"]
        for d in ("wide", "other")
    ]
    np.testing.assert_allclose(found[0], found[1], rtol=2e-3 if dtype == np.float16 else 1e-5)


def test_variable_length_lists_of_one_width_are_read_like_fixed_ones(tmp_path, planted_table):
    lists = pa.list_(pa.float32())
    columns = {c: planted_table[c].combine_chunks().cast(lists) for c in COLUMNS}
    table_of(tmp_path / "one", **columns)
    table_of(tmp_path / "two", **{c: planted_table[c] for c in COLUMNS})
    found = [
        spec_store.compare("images", COLUMNS, db=str(tmp_path / d), kernel="cosine") for d in ("one", "two")
    ]
    assert found[0].spec_diff == pytest.approx(found[1].spec_diff, rel=1e-9)


def test_nested_columns_are_compared_and_annotated(tmp_path, planted_table):
    inner = pa.StructArray.from_arrays([planted_table["clip"].combine_chunks()], ["vector"])
    db = table_of(tmp_path, emb=inner, dino=planted_table["dino"])
    run = spec_store.compare("images", ["emb.vector", "dino"], db=db, write=True, **SMALL)
    assert run.prefix == "spec_emb_vector_dino"
    assert spec_store.query("images", "spec_emb_vector_dino_cluster = 1", db=db).read_all().num_rows > 0


def with_bad_rows(planted_table):
    clip = [list(map(float, v)) for v in np.stack(planted_table["clip"].to_numpy())]
    clip[10] = None
    clip[20][3] = float("nan")
    clip[21][0] = float("inf")
    clip[30] = [0.0] * 48
    return pa.array(clip, pa.list_(pa.float32(), 48))


def test_bad_rows_are_refused_with_their_count_by_reason_and_nothing_is_written(tmp_path, planted_table):
    db = table_of(tmp_path, clip=with_bad_rows(planted_table), dino=planted_table["dino"])
    before = snapshot(db)
    with pytest.raises(InvalidVectorsError) as caught:
        spec_store.compare("images", COLUMNS, db=db, write=True, **SMALL)
    assert "4 rows of table 'images'" in str(caught.value)
    assert "column 'clip': 1 null, 2 not finite, 1 zero (first: row 10)" in str(caught.value)
    assert "--skip-invalid" in str(caught.value)
    assert snapshot(db) == before


def test_skipped_bad_rows_are_null_and_the_others_as_if_they_had_not_been(tmp_path, planted_table):
    db = table_of(
        tmp_path / "bad",
        id=planted_table["id"],
        clip=with_bad_rows(planted_table),
        dino=planted_table["dino"],
    )
    run = spec_store.compare("images", COLUMNS, db=db, write=True, skip_invalid=True, kernel="cosine")
    assert (run.n_rows, run.n_skipped) == (1996, 4)
    null = spec_store.query("images", "spec_clip_dino_score IS NULL", select=["id"], db=db).read_all()
    assert null["id"].to_pylist() == [1010, 1020, 1021, 1030]
    good = planted_table.filter(pa.array([i not in (10, 20, 21, 30) for i in range(2000)]))
    clean = table_of(tmp_path / "clean", clip=good["clip"], dino=good["dino"])
    expected = spec_store.compare("images", COLUMNS, db=clean, kernel="cosine")
    np.testing.assert_allclose(run.eigenvalues["clip"], expected.eigenvalues["clip"], rtol=1e-5)


def test_zero_vectors_are_usable_where_rows_are_not_normalised(tmp_path, planted_table):
    clip = np.stack(planted_table["clip"].to_numpy()).copy()
    clip[5] = 0
    db = table_of(tmp_path, clip=vectors(clip), dino=planted_table["dino"])
    run = spec_store.compare("images", COLUMNS, db=db, normalize=False, **SMALL)
    assert run.n_rows == 2000


def test_unequal_widths_name_the_first_such_row(tmp_path):
    lists = pa.array([[1.0, 2.0]] * 20 + [[1.0]] + [[1.0, 3.0]] * 20, pa.list_(pa.float32()))
    db = table_of(tmp_path, clip=lists, dino=vectors(np.random.default_rng(0).standard_normal((41, 3))))
    with pytest.raises(InvalidVectorsError, match=r"Column 'clip': row 20 has 1 dimensions where 2"):
        spec_store.compare("images", COLUMNS, db=db, modes=2)


REFUSED = {
    "a misspelt column": (["clip", "dinno"], {}, ColumnNotFoundError, "Did you mean 'dino'"),
    "not a vector": (["clip", "label"], {}, InputError, "Column 'label' holds string"),
    "one column twice": (["clip", "clip"], {}, InputError, "'clip' is given twice"),
    "three columns": (["clip", "dino", "label"], {}, InputError, "Two embedding columns"),
    "a filter that selects nothing": (
        COLUMNS,
        {"where": "id < 0"},
        FilterError,
        "No row of .* matches 'id < 0'",
    ),
    "a filter that is not SQL": (COLUMNS, {"where": "id <"}, FilterError, "The filter 'id <' can't be used"),
    "more modes than rows": (
        COLUMNS,
        {"where": "id < 1005", "modes": 10},
        InputError,
        "5 rows to compare, fewer than the 10",
    ),
    "one row": (COLUMNS, {"where": "id = 1005"}, InputError, "one row"),
    "a bandwidth of zero": (
        COLUMNS,
        {"bandwidth": (0.0, 1.0)},
        InputError,
        "bandwidth is 0.0; expected a number from 1e-12",
    ),
    "a negative bandwidth": (COLUMNS, {"bandwidth": (1.0, -2.0)}, InputError, "bandwidth is -2.0"),
    "no eta": (COLUMNS, {"eta": 0.0}, InputError, "eta is 0.0"),
    "no modes": (COLUMNS, {"modes": 0}, InputError, "modes is 0; expected a whole number from 1"),
    "an unknown kernel": (COLUMNS, {"kernel": "laplace"}, InputError, "expected one of gaussian, cosine"),
    "a misspelt option": (COLUMNS, {"bandwith": 1.0}, InputError, "Did you mean 'bandwidth'"),
    "a prefix that is no name": (COLUMNS, {"prefix": "a-b"}, InputError, "prefix is 'a-b'"),
    "a key that is not there": (COLUMNS, {"key": "idd"}, ColumnNotFoundError, "Did you mean 'id'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_before_any_write(db, case):
    columns, options, kind, said = REFUSED[case]
    before = snapshot(db)
    with pytest.raises(kind, match=said):
        spec_store.compare("images", columns, db=db, write=True, **options)
    assert snapshot(db) == before


def test_an_empty_table_is_refused(tmp_path, planted_table):
    lancedb.connect(tmp_path).create_table("images", schema=planted_table.schema)
    with pytest.raises(InputError, match="is empty"):
        spec_store.compare("images", COLUMNS, db=str(tmp_path))


def test_a_column_of_nulls_only_is_refused(tmp_path):
    db = table_of(tmp_path, clip=pa.nulls(30, pa.list_(pa.float32(), 4)), dino=vectors(np.ones((30, 2))))
    with pytest.raises(InvalidVectorsError, match=r"Only 0 of 30 sampled rows.*30 null"):
        spec_store.compare("images", COLUMNS, db=db)


def test_a_prefix_held_by_other_peoples_columns_is_refused_before_any_work(db):
    lancedb.connect(db).open_table("images").add_columns({"spec_clip_dino_score": "1.0"})
    before = snapshot(db)
    with pytest.raises(ColumnClashError, match=r"already has spec_clip_dino_score.*--prefix"):
        spec_store.compare("images", COLUMNS, db=db, write=True, **SMALL)
    assert snapshot(db) == before
    spec_store.compare("images", COLUMNS, db=db, write=True, prefix="mine", **SMALL)


def test_a_bandwidth_far_off_is_warned_of(db):
    run = spec_store.compare("images", COLUMNS, db=db, bandwidth=(0.01, 100.0), **SMALL)
    assert "small for column 'clip'" in run.warnings[0]
    assert "large for column 'dino'" in run.warnings[1]


def test_options_survive_being_stored():
    options = CompareOptions(bandwidth=(1.0, 2.0), where="id < 3", modes=4)
    stored = json.loads(json.dumps(options.to_json()))
    assert CompareOptions.from_keywords({**stored, "bandwidth": tuple(stored["bandwidth"])}) == options


def test_cloud_tables_are_refused():
    with pytest.raises(UnsupportedError, match="cloud database"):
        spec_store.compare("images", COLUMNS, db="db://company")


def test_rows_that_arrive_during_the_run_are_annotated_too(db, planted_table):
    run = spec_store.compare("images", COLUMNS, db=db, **SMALL)
    late = planted_table.slice(0, 50).set_column(0, "id", pa.array(np.arange(9000, 9050)))
    lancedb.connect(db).open_table("images").add(late)
    run.write()
    found = spec_store.query("images", "spec_clip_dino_score IS NOT NULL", select=["id"], db=db).read_all()
    assert len(found) == 2050
    twins = spec_store.query(
        "images", "id IN (1000, 9000)", select=["spec_clip_dino_scores"], db=db
    ).read_all()
    assert twins[0][0].as_py() == pytest.approx(twins[0][1].as_py(), abs=1e-5)


def test_a_source_can_be_compared_without_naming_a_database(db):
    source = get_connector("lancedb").open(db, table="images")
    run = spec_store.compare(source, COLUMNS, write=True, **SMALL)
    assert run.n_rows == 2000
    assert spec_store.list_runs(db=db)["run_id"].to_pylist() == [run.run_id]


def test_the_pieces_are_usable_alone(planted_table):
    a, b = (np.stack(planted_table[c].to_numpy()) for c in COLUMNS)
    maps = [spec_store.CosineMap(c, 48, True, "float32") for c in "ab"]
    state = CovarianceAccumulator(maps)
    state.update(batch_of(a=a, b=b))
    assert spec_store.solve(state, modes=5).spec_diff > 0.01
