"""The run registry: a row per run, whatever version wrote it, found by the run that columns name."""

import json
import shutil

import lance
import lancedb
import numpy as np
import pyarrow as pa
import pytest

import spec_store
from command import run as command
from lance_tables import make_table
from planted import vectors
from spec_store.errors import ColumnClashError, ColumnNotFoundError, InputError, TableNotFoundError
from spec_store.runs.clusters import json_values
from spec_store.runs.records import AlignmentRecord, ComparisonRecord
from spec_store.runs.registry import Registry
from spec_store.stores.locate import location_of

QUICK = {"dim": 40, "modes": 3, "key": "id"}


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A database whose table `images` was compared once."""
    folder = tmp_path_factory.mktemp("compared")
    rng = np.random.default_rng(0)
    a = rng.standard_normal((600, 8)) + 4 * np.eye(8)[np.arange(600) % 6]
    b = rng.standard_normal((600, 8)) + 4 * np.eye(8)[np.arange(600) % 6 // 2]
    table = pa.table({"id": np.arange(600), "clip": vectors(a), "dino": vectors(b)})
    make_table(folder, table)
    return folder, spec_store.compare("images", ["clip", "dino"], db=folder, write=True, **QUICK)


@pytest.fixture
def db(compared, tmp_path):
    """A copy of it for the test alone."""
    return shutil.copytree(compared[0], tmp_path / "db")


def rows_of(db, table):
    return lance.dataset(f"{db}/{table}.lance").to_table().to_pylist()


def statuses(db, **which):
    return [(r["run_id"], r["status"]) for r in spec_store.list_runs(db=db, **which).to_pylist()]


def test_a_run_is_one_row_and_its_record_comes_back_as_it_was(compared):
    folder, run = compared
    (row,) = rows_of(folder, "spec_store_runs")
    assert row["finished"]
    assert json.loads(row["details"]) == json.loads(json.dumps(run.to_json()))
    assert len(rows_of(folder, "spec_store_clusters")) == len(run.clusters)
    (loaded,) = Registry(location_of(folder)).comparisons([run.run_id])
    assert isinstance(loaded, ComparisonRecord)
    assert loaded.to_json() == run.to_json()
    assert loaded.clusters == run.record.clusters


def test_an_alignment_record_comes_back_as_it_was(db):
    run = spec_store.align("images", "clip", "dino", db=db, write=True, key="id", steps=5, held_out=0.3)
    (loaded,) = Registry(location_of(db)).alignments()
    assert isinstance(loaded, AlignmentRecord)
    assert loaded.to_json() == run.to_json()


def test_records_are_frozen(compared):
    with pytest.raises(AttributeError):
        compared[1].record.n_rows = 1
    with pytest.raises(AttributeError):
        compared[1].record = None


def test_values_that_json_does_not_know_become_null():
    assert json_values({"a": (float("nan"), float("inf"), 1.5)}) == {"a": [None, None, 1.5]}


def test_a_run_that_died_between_publishing_and_recording_is_finished_by_the_next_command(db, compared):
    """The registry as a process killed right after the commit of the columns left it."""
    run = compared[1]
    runs = lancedb.connect(db).open_table("spec_store_runs")
    runs.update(where="true", values={"finished": False, "details": _unsized(run), "written_version": None})
    lancedb.connect(db).drop_table("spec_store_clusters")
    assert statuses(db) == [(run.run_id, "current")]
    report = spec_store.clusters("images", db=db)
    assert report.run.finished
    assert report.clusters["size"].to_pylist() == run.clusters["size"].to_pylist()
    assert report.clusters["top_rows"].to_pylist()[0]
    assert len(rows_of(db, "spec_store_clusters")) == len(run.clusters)
    (row,) = rows_of(db, "spec_store_runs")
    assert row["finished"]
    assert row["state"] is not None
    assert command("clusters", "--table", "images", "--by", "id", db=str(db)).stdout


def _unsized(run):
    unsized = run.to_json()
    for cluster in unsized["clusters"]:
        cluster["size"] = None
    return json.dumps(unsized)


def test_a_run_that_died_before_publishing_is_unfinished_and_the_earlier_one_stays_current(db, compared):
    run = compared[1]
    registry = Registry(location_of(db))
    other = spec_store.compare("images", ["clip", "dino"], db=db, **(QUICK | {"seed": 1}))
    registry.start(other.record, None)
    assert statuses(db) == [(other.run_id, "unfinished"), (run.run_id, "current")]
    assert spec_store.clusters("images", db=db).run.run_id == run.run_id


def test_runs_tell_which_results_are_current_replaced_and_removed(db, compared):
    first = compared[1]
    second = spec_store.compare("images", ["clip", "dino"], db=db, write=True, **QUICK)
    assert statuses(db) == [(second.run_id, "current"), (first.run_id, "replaced")]
    spec_store.undo("images", prefix="spec_clip_dino", db=db)
    assert [s for _, s in statuses(db)] == ["removed", "removed"]
    with pytest.raises(InputError, match="they were undone, or the table was restored or overwritten"):
        spec_store.clusters("images", db=db)
    lancedb.connect(db).drop_table("images")
    assert [s for _, s in statuses(db)] == ["no table", "no table"]


def test_clusters_name_no_prefix_that_was_undone(db):
    spec_store.compare("images", ["clip", "dino"], db=db, write=True, prefix="other", **QUICK)
    assert spec_store.clusters("images", db=db).other_prefixes == ("spec_clip_dino",)
    spec_store.undo("images", prefix="spec_clip_dino", db=db)
    assert spec_store.clusters("images", db=db).other_prefixes == ()


def test_after_a_restore_clusters_does_not_say_undone_alone(db):
    lancedb.connect(db).open_table("images").restore(1)
    with pytest.raises(InputError, match="undone, or the table was restored or overwritten"):
        spec_store.clusters("images", db=db)


def test_a_renamed_table_keeps_its_runs(db, compared):
    (db / "images.lance").rename(db / "pictures.lance")
    assert spec_store.clusters("pictures", db=db).run.run_id == compared[1].run_id
    assert statuses(db, table="pictures") == [(compared[1].run_id, "current")]


def test_a_table_copied_to_another_database_says_where_its_runs_are_not(db, tmp_path):
    shutil.copytree(db / "images.lance", tmp_path / "elsewhere" / "images.lance")
    with pytest.raises(InputError, match=r"has no record of.*Copy its tables spec_store_runs"):
        spec_store.clusters("images", db=tmp_path / "elsewhere")


def test_the_gate_says_that_it_has_no_clusters_after_an_undo(db):
    spec_store.align("images", "clip", "dino", db=db, write=True, key="id", steps=5, held_out=0.3)
    assert len(spec_store.gate("images", "clip", "dino", db=db).slices) > 0
    spec_store.undo("images", prefix="spec_clip_dino", db=db)
    found = spec_store.gate("images", "clip", "dino", db=db)
    assert found.slices == ()
    assert any("holds no clusters of clip and dino" in warning for warning in found.warnings)
    done = command("gate", "--table", "images", "--source", "clip", "--target", "dino", db=str(db), code=1)
    assert "holds no clusters of clip and dino" in done.stderr


@pytest.mark.parametrize(("first", "second"), [(("a", "b_c"), ("a_b", "c")), (("клип", "б"), ("виды", "в"))])
def test_results_of_another_pair_with_the_same_prefix_are_not_replaced(tmp_path, first, second):
    rng = np.random.default_rng(0)
    columns = {c: vectors(rng.standard_normal((60, 4))) for c in (*first, *second)}
    make_table(tmp_path, pa.table({"id": np.arange(60), **columns}))
    options = {"db": tmp_path, "kernel": "cosine", "modes": 2, "write": True}
    prefix = {"prefix": "spec_same"} if len(second[0]) > 3 else {}
    run = spec_store.compare("images", list(first), **options, **prefix)
    before = lance.dataset(f"{tmp_path}/images.lance").version
    with pytest.raises(ColumnClashError, match=rf"results of {first[0]} and {first[1]}.*another --prefix"):
        spec_store.compare("images", list(second), **options, **prefix)
    assert lance.dataset(f"{tmp_path}/images.lance").version == before
    again = spec_store.compare("images", list(first), **options, **prefix)  # its own are
    assert statuses(tmp_path)[0] == (again.run_id, "current")
    assert run.prefix == again.prefix


def test_a_registry_of_a_newer_version_is_refused_before_any_work(db):
    runs = lancedb.connect(db).open_table("spec_store_runs")
    runs.add_columns({"from_the_future": "1"})
    version = lance.dataset(f"{db}/images.lance").version
    with pytest.raises(InputError, match=r"'spec_store_runs'.*from_the_future.*Upgrade spec-store"):
        spec_store.compare("images", ["clip", "dino"], db=db, write=True, **QUICK)
    with pytest.raises(InputError, match="from_the_future"):
        spec_store.align("images", "clip", "dino", db=db, write=True, key="id", steps=5)
    assert lance.dataset(f"{db}/images.lance").version == version


def test_somebody_elses_table_of_that_name_is_refused_before_any_work(db):
    lancedb.connect(db).create_table("spec_store_runs", pa.table({"x": [1]}), mode="overwrite")
    with pytest.raises(InputError, match="is not a run registry"):
        spec_store.compare("images", ["clip", "dino"], db=db, write=True, **QUICK)


def test_a_registry_of_an_older_version_is_read_and_brought_up_to_date(db, compared):
    first = compared[1]
    runs = lancedb.connect(db).open_table("spec_store_runs")
    runs.drop_columns(["finished"])
    runs.update(where="true", values={"details": None})  # a comparison had none
    report = spec_store.clusters("images", db=db)
    assert report.run.run_id == first.run_id
    assert report.clusters["size"].to_pylist() == first.clusters["size"].to_pylist()
    second = spec_store.compare("images", ["clip", "dino"], db=db, write=True, prefix="other", **QUICK)
    assert statuses(db) == [(second.run_id, "current"), (first.run_id, "current")]


def test_reading_one_state_reads_no_other(db, compared):
    """States of up to 256 MB each: the rows of other runs must not be decoded for it."""
    registry = Registry(location_of(db))
    big = spec_store.compare("images", ["clip", "dino"], db=db, **QUICK)
    registry.start(big.record, b"x" * 50_000_000)
    table = lancedb.connect(db).open_table("spec_store_runs")
    read = pa.total_allocated_bytes()
    peak = pa.default_memory_pool().max_memory()
    assert registry.state(compared[1].run_id)[:4] == b"PK\x03\x04"
    spec_store.list_runs(db=db)
    assert pa.default_memory_pool().max_memory() - max(peak, read) < 10_000_000
    assert table.count_rows() == 2


def test_runs_are_listed_by_the_columns_asked_for(compared):
    folder, run = compared
    listed = spec_store.list_runs(db=folder, columns=["status", "run_id"])
    assert listed.to_pylist() == [{"status": "current", "run_id": run.run_id}]
    with pytest.raises(ColumnNotFoundError, match=r"Did you mean 'status'\?"):
        spec_store.list_runs(db=folder, columns=["state"])


def test_listing_no_runs_says_what_to_do(tmp_path):
    make_table(tmp_path, pa.table({"id": [1]}))
    with pytest.raises(TableNotFoundError, match="Run spec-store compare first"):
        spec_store.list_runs(db=tmp_path)


def test_results_can_be_found_by_location_and_path_alike(db, compared):
    where = spec_store.Location(str(db), "lancedb")
    assert spec_store.clusters("images", db=where).run.run_id == compared[1].run_id
    assert spec_store.query("images", db=where, select=["id"], limit=2).read_all().num_rows == 2
    with pytest.raises(InputError, match=r"path is empty"):
        spec_store.clusters("images", db="")
    with pytest.raises(InputError, match=r"is a int; expected a path"):
        spec_store.clusters("images", db=3)


def test_a_comparison_shows_itself_briefly(compared):
    text = repr(compared[1])
    assert text.startswith("<Comparison of clip and dino: 600 rows of table 'images'")
    assert len(text) < 300
    assert "grouped by</th>" in compared[1]._repr_html_()


def test_bare_arrays_are_refused_in_words():
    a = np.eye(3)
    with pytest.raises(InputError, match=r"a ndarray was given. Arrays are given by name") as refused:
        spec_store.compare(None, [a, a])
    assert len(str(refused.value)) < 200
