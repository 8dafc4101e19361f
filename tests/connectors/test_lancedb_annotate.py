import os
import threading
import warnings
from dataclasses import replace

import lance
import lancedb
import numpy as np
import pyarrow as pa
import pytest
from lancedb.index import BTree

from lance_tables import (
    NOTHING,
    SCHEMA,
    annotate_observed,
    annotation,
    assert_annotated,
    contents,
    data_files,
    leftovers,
    make_table,
    open_source,
    rows,
)
from planted import vectors
from spec_store.errors import ColumnClashError, RetryError
from spec_store_lancedb.annotate import Step


@pytest.fixture
def folder(tmp_path):
    """Three fragments, with deleted rows in two of them."""
    table = make_table(tmp_path, rows(200), rows(100, 200), rows(1, 300))
    table.delete("id % 10 = 3 OR id = 300")
    table.add(rows(30, 301))
    return tmp_path


IDS = [i for i in range(331) if i != 300 and (i % 10 != 3 or i > 300)]


def test_each_column_has_metadata_of_its_own_beside_the_run_s(tmp_path):
    make_table(tmp_path, rows(30))
    own = {"r_number": {"spec_store.columns": "a"}, "r_list": {"spec_store.columns": "b"}}
    for run in ("run-1", "run-2"):  # into new columns, and into those that are there
        open_source(tmp_path).annotate(replace(annotation(run=run, token=run * 4), column_metadata=own))
        schema = lance.dataset(tmp_path / "images.lance").schema
        marks = {n: schema.field(n).metadata for n in SCHEMA.names}
        assert {m[b"spec_store.run"] for m in marks.values()} == {run.encode()}
        assert marks["r_number"][b"spec_store.columns"] == b"a"
        assert marks["r_list"][b"spec_store.columns"] == b"b"
        assert b"spec_store.columns" not in marks["r_name"]


def test_every_live_row_gets_its_own_values_and_old_files_stay_byte_identical(folder):
    before = data_files(folder)
    published = open_source(folder).annotate(annotation())
    assert_annotated(folder, ids=IDS)
    after = data_files(folder)
    assert {name: after[name] for name in before} == before
    assert published.columns == ("r_number", "r_list", "r_name")
    assert published.attempts == 1
    assert published.version == lance.dataset(folder / "images.lance").version
    assert leftovers(folder) == NOTHING


@pytest.mark.parametrize("storage", ["2.0", "2.1", "2.2"])
@pytest.mark.parametrize("stable", [False, True])
def test_every_file_version_and_stable_row_ids(tmp_path, storage, stable):
    path = tmp_path / "images.lance"
    lance.write_dataset(rows(100), path, data_storage_version=storage, enable_stable_row_ids=stable)
    lance.write_dataset(rows(60, 100), path, mode="append")
    lance.dataset(path).delete("id BETWEEN 40 AND 120")
    open_source(tmp_path).annotate(annotation())
    assert_annotated(tmp_path, ids=[*range(40), *range(121, 160)])
    assert lancedb.connect(tmp_path).open_table("images").count_rows("r_number IS NULL") == 0


@pytest.mark.parametrize("storage", ["2.0", "2.1", "2.2"])
def test_a_table_with_v1_manifest_paths_is_annotated_again_and_undone(tmp_path, storage):
    path = tmp_path / "images.lance"
    v1 = {"enable_v2_manifest_paths": False, "data_storage_version": storage}
    lance.write_dataset(rows(100), path, **v1)
    lance.write_dataset(rows(60, 100), path, mode="append")
    lance.dataset(path).delete("id BETWEEN 40 AND 120")
    for run in ("run-1", "run-2"):
        open_source(tmp_path).annotate(annotation(token=run * 4, run=run))
        assert_annotated(tmp_path, ids=[*range(40), *range(121, 160)])
        assert leftovers(tmp_path) == NOTHING
    assert (path / "_versions" / "3.manifest").exists()
    open_source(tmp_path).undo(SCHEMA.names)
    assert lance.dataset(path).schema.names == ["id", "clip", "dino", "payload"]


def test_a_shallow_clone_is_annotated_beside_its_original(folder):
    clone = folder / "clone.lance"
    original = lance.dataset(folder / "images.lance")
    original.shallow_clone(str(clone), original.version)
    before = data_files(folder), original.version
    lancedb.connect(folder).open_table("clone").add(rows(10, 400))
    open_source(folder, "clone").annotate(annotation())
    assert_annotated(folder, "clone", ids=[*IDS, *range(400, 410)])
    assert (data_files(folder), lance.dataset(folder / "images.lance").version) == before


def test_a_database_by_its_relative_path_is_annotated(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    open_source(folder.name).annotate(annotation())
    assert_annotated(folder, ids=IDS)


def test_rows_outside_the_filter_are_null(folder):
    open_source(folder).annotate(annotation(where="id >= 150 AND id <> 222"))
    assert_annotated(folder, ids=IDS, null={i for i in IDS if i < 150 or i == 222})


def test_a_filter_that_selects_few_rows_leaves_wide_gaps_null(tmp_path):
    make_table(tmp_path, rows(5000))
    open_source(tmp_path).annotate(annotation(where="id IN (0, 2500, 4999)", batch_rows=100))
    assert_annotated(tmp_path, null=set(range(5000)) - {0, 2500, 4999})


def test_fixed_size_list_results_and_nested_reads(tmp_path):
    inner = pa.StructArray.from_arrays([vectors(np.arange(300.0).reshape(100, 3))], ["vector"])
    make_table(tmp_path, pa.table({"id": range(100), "emb": inner}))
    schema = pa.schema([("aligned", pa.list_(pa.float32(), 3))])

    def negate(batch):
        flipped = -np.stack(batch.column(1).to_numpy(zero_copy_only=False))
        return pa.record_batch([vectors(flipped)], schema=schema)

    open_source(tmp_path).annotate(annotation(negate, schema=schema, reads=("emb.vector",)))
    found = contents(tmp_path, columns=("id", "aligned"))
    assert found[99]["aligned"] == [-297.0, -298.0, -299.0]


def test_a_second_run_replaces_values_and_provenance_and_nothing_else(folder):
    open_source(folder).annotate(annotation(run="run-1"))

    def other(batch):
        n = len(batch)
        lists = pa.array([[7.0]] * n, pa.list_(pa.float32()))
        return pa.record_batch([pa.array([7] * n, pa.int32()), lists, ["x"] * n], schema=SCHEMA)

    before = data_files(folder)
    open_source(folder).annotate(annotation(other, token="c" * 24, run="run-2"))
    assert {row["r_number"] for row in contents(folder).values()} == {7}
    after = data_files(folder)
    assert {name: after[name] for name in before} == before
    field = lance.dataset(folder / "images.lance").schema.field("r_list")
    assert field.metadata[b"spec_store.run"] == b"run-2"


def test_undo_drops_our_columns_and_refuses_others(folder):
    source = open_source(folder)
    source.annotate(annotation())
    with pytest.raises(ColumnClashError, match="payload was not written by spec-store"):
        source.undo(["payload"])
    source.undo(SCHEMA.names)
    assert lance.dataset(folder / "images.lance").schema.names == ["id", "clip", "dino", "payload"]
    assert sorted(contents(folder)) == IDS


def test_somebody_elses_column_is_never_replaced(folder):
    lancedb.connect(folder).open_table("images").add_columns({"r_list": "1.0"})
    with pytest.raises(ColumnClashError, match=r"already has r_list.*with --prefix for compare"):
        open_source(folder).check_annotation(SCHEMA)
    with pytest.raises(ColumnClashError):
        open_source(folder).annotate(annotation())
    assert {row["r_list"] for row in contents(folder).values()} == {1.0}


def during(folder, act):
    """An annotation that lets `act` happen once, in the midst of computing."""
    once = threading.Lock()
    inner = annotation().compute

    def compute(batch):
        if once.acquire(blocking=False):
            act(lancedb.connect(folder).open_table("images"))
        return inner(batch)

    return annotation(compute)


def update(table):
    table.update(where="id IN (5, 205)", values={"clip": [9.0, 8.0, 7.0, 6.0]})


def touch(folder):
    lancedb.connect(folder).open_table("images").update(where="id = 1", values={"payload": "payload 1"})


def once(moment, act):
    """An observer that acts when a step is reached first."""
    reached = []

    def on_step(step):
        if step is moment and not reached:
            reached.append(step)
            act()

    return on_step


OTHER_WRITERS = {
    "append": (lambda t: t.add(rows(40, 400)), [*IDS, *range(400, 440)]),
    "delete": (lambda t: t.delete("id < 17"), [i for i in IDS if i >= 17]),
    "delete a fragment": (
        lambda t: t.delete("id >= 200 AND id < 300"),
        [i for i in IDS if not 200 <= i < 300],
    ),
    "update": (update, IDS),
    "compact": (lambda t: t.optimize(), IDS),
    "add a column": (lambda t: t.add_columns({"extra": "id * 2"}), IDS),
    "index": (lambda t: t.create_index("id", config=BTree()), IDS),
}


@pytest.mark.parametrize("rerun", [False, True], ids=["first run", "re-run"])
@pytest.mark.parametrize("other", OTHER_WRITERS)
def test_another_writer_in_the_midst_loses_nothing_and_every_row_is_annotated(folder, other, rerun):
    act, ids = OTHER_WRITERS[other]
    if rerun:
        stale = annotation(token="d" * 24)
        open_source(folder).annotate(stale)
    open_source(folder).annotate(during(folder, act))
    assert_annotated(folder, ids=ids)
    assert leftovers(folder) == NOTHING
    lance.dataset(folder / "images.lance").validate()


@pytest.mark.parametrize("other", OTHER_WRITERS)
@pytest.mark.parametrize("moment", [Step.DRY_RUN, Step.COLUMNS_ADDED])
def test_another_writer_between_the_dry_run_and_the_commit(folder, other, moment):
    act, ids = OTHER_WRITERS[other]
    published = annotate_observed(
        folder, once(moment, lambda: act(lancedb.connect(folder).open_table("images")))
    )
    late = set(range(400, 440)) if other == "append" and moment is Step.COLUMNS_ADDED else set()
    assert_annotated(folder, ids=ids, null=late)
    if late:
        assert "40 rows were added while the results were published" in published.notes[0]
    assert leftovers(folder) == NOTHING


def test_other_writers_that_never_stop_end_in_an_error_and_an_untouched_table(folder):
    def interfere(step):
        if step is Step.COLUMNS_ADDED:
            touch(folder)

    with pytest.raises(RetryError, match=r"exceeded the retry limit of 3\. Nothing was published"):
        annotate_observed(folder, interfere, max_attempts=3)
    assert lance.dataset(folder / "images.lance").schema.names == ["id", "clip", "dino", "payload"]
    assert leftovers(folder) == NOTHING


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt()])
def test_a_failure_or_ctrl_c_leaves_the_table_as_it_was(folder, error):
    calls = []
    inner = annotation().compute

    def compute(batch):
        calls.append(1)
        if len(calls) == 4:
            raise error
        return inner(batch)

    before, version = data_files(folder), lance.dataset(folder / "images.lance").version
    with pytest.raises(type(error)):
        open_source(folder).annotate(annotation(compute))
    assert data_files(folder) == before
    assert lance.dataset(folder / "images.lance").version == version
    assert leftovers(folder) == NOTHING


def test_two_runs_on_the_same_columns_do_not_mix(folder):
    def second_run(table):
        with pytest.raises(RetryError, match="Another spec-store run is writing r_number"):
            open_source(folder).annotate(annotation())

    open_source(folder).annotate(during(folder, second_run))
    assert_annotated(folder, ids=IDS)


def test_a_column_file_that_was_cut_short_is_refused_and_removed(folder):
    before = data_files(folder)

    def cut():
        for path in leftovers(folder)[0]:
            os.truncate(folder / "images.lance" / "data" / path, 100)

    with pytest.raises(RetryError, match="was cut short, as happens on a full disk"):
        annotate_observed(folder, once(Step.STAGED, cut))
    assert data_files(folder) == before
    assert leftovers(folder) == NOTHING


def test_a_cleanup_that_removes_staged_files_makes_them_staged_again(folder):
    def clean():
        for path in leftovers(folder)[0]:
            (folder / "images.lance" / "data" / path).unlink()
        touch(folder)

    annotate_observed(folder, once(Step.DRY_RUN, clean))
    assert_annotated(folder, ids=IDS)


def test_no_tag_stays_and_everybodys_cleanup_works(folder):
    import datetime

    open_source(folder).annotate(annotation())
    table = lancedb.connect(folder).open_table("images")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # newer LanceDB warns of so short a time
        table.optimize(cleanup_older_than=datetime.timedelta(0))
    assert_annotated(folder, ids=IDS)


def test_a_bitmap_index_covers_all_fragments_again_after_a_re_run(folder):
    source = open_source(folder)
    source.annotate(annotation())
    for token in ("e" * 24, "f" * 24):
        source = source.latest()
        source.create_index("r_number")
        dataset = lance.dataset(folder / "images.lance")
        (index,) = [i for i in dataset.describe_indices() if "r_number" in i.name]
        covered = {f for s in index.segments for f in s.fragment_ids}
        assert covered == {f.fragment_id for f in dataset.get_fragments()}
        source.annotate(annotation(token=token))


def test_a_result_column_of_another_type_is_replaced(folder):
    open_source(folder).annotate(annotation())
    schema = pa.schema([("r_number", pa.string())])

    def names(batch):
        return pa.record_batch([pa.array(["x"] * len(batch))], schema=schema)

    open_source(folder).annotate(annotation(names, schema=schema, token="9" * 24))
    assert {r["r_number"] for r in contents(folder).values()} == {"x"}


def test_an_annotation_of_the_wrong_length_is_refused(folder):
    def short(batch):
        return annotation().compute(batch.slice(1))

    with pytest.raises(Exception, match="annotation of 64 rows gave 63 rows"):
        open_source(folder).annotate(annotation(short))


def test_results_that_another_run_wrote_since_the_version_was_pinned_are_not_replaced(folder):
    stale = open_source(folder)
    open_source(folder).annotate(annotation(run="run-1"))
    with pytest.raises(RetryError, match=r"Another spec-store run wrote r_number .* after this one had read"):
        stale.annotate(annotation(token="c" * 24, run="run-2"))
    assert_annotated(folder, ids=IDS)
    assert leftovers(folder) == NOTHING


def test_a_run_may_write_its_results_twice(folder):
    source = open_source(folder)
    source.annotate(annotation())
    source.annotate(annotation())
    assert_annotated(folder, ids=IDS)
