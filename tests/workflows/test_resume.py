"""Runs that are interrupted are continued by the next one with the same arguments."""

import datetime
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import lance
import lancedb
import numpy as np
import pyarrow as pa
import pytest

import spec_store
from command import run as run_command
from interrupted_run import progress_until
from lance_tables import NOTHING, leftovers
from planted import planted_mixture, vectors
from spec_store.errors import InputError, InvalidVectorsError
from spec_store.workflows.checkpoint import SECONDS_VARIABLE
from spec_store.workflows.pass_checkpoint import PassCheckpoint

TESTS = Path(__file__).parents[1]
UNIT = 2_000
N = 3 * UNIT
OPTIONS = {"dim": 20, "sample_rows": 600, "describe": False, "modes": 8}
COLUMNS = ["clip", "dino"]
RESULTS = [f"spec_clip_dino_{n}" for n in ("cluster", "clusters", "side", "score", "scores")]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A database whose table `images` has three fragments, a unit each."""
    folder = tmp_path_factory.mktemp("original")
    a, b, _ = planted_mixture(N, n_groups=12, merged=3, d=8, seed=3)
    rows = pa.table({"id": np.arange(N), "clip": vectors(a), "dino": vectors(b)})
    table = lancedb.connect(folder).create_table("images", rows.slice(0, UNIT))
    table.add(rows.slice(UNIT, UNIT))
    table.add(rows.slice(2 * UNIT))
    return folder


@pytest.fixture(scope="module")
def undisturbed(original, tmp_path_factory):
    """The result columns of a run that nothing interrupts."""
    folder = tmp_path_factory.mktemp("undisturbed")
    shutil.copytree(original, folder, dirs_exist_ok=True)
    assert compare(folder).clusters.num_rows > 1
    assert leftovers(folder) == NOTHING
    return results(folder)


@pytest.fixture(autouse=True)
def small_units(monkeypatch):
    monkeypatch.setattr("spec_store.workflows.units._LEAST_ROWS", UNIT)


@pytest.fixture
def db(original, tmp_path, monkeypatch):
    """A copy of the database; progress is kept after every unit."""
    monkeypatch.setenv(SECONDS_VARIABLE, "0")
    shutil.copytree(original, tmp_path, dirs_exist_ok=True)
    return tmp_path


def compare(db, progress=None, **more):
    return spec_store.compare(
        "images", COLUMNS, db=str(db), write=True, progress=progress, **{**OPTIONS, **more}
    )


def results(db):
    return lance.dataset(db / "images.lance").to_table(["id", *RESULTS]).replace_schema_metadata(None)


def assert_same(found, expected):
    for name in expected.column_names:
        assert found[name].combine_chunks().equals(expected[name].combine_chunks()), name


class Rows(dict):
    """A progress that counts rows by stage."""

    def __call__(self, stage, rows, total):
        self[stage] = self.get(stage, 0) + rows


class Crash(BaseException):
    """What no part of the program expects."""


def crash(calls):
    raise Crash


def interrupt(db, stage, rows, **more):
    with pytest.raises(Crash):
        compare(db, progress_until(stage, rows, crash), **more)


def kept(db):
    return sorted(p.suffixes[0] for p in (db / "images.lance").glob("_spec_store/checkpoint*"))


def killed(db, stage, rows, **given):
    given = given if "call" in given else {"columns": [COLUMNS], **OPTIONS, **given}
    given |= {"db": str(db), "table": "images", "until": [stage, rows], "unit": UNIT}
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(TESTS / "interrupted_run.py"), json.dumps(given)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=False)
    assert done.returncode == -9


def test_a_run_killed_in_pass_1_and_again_in_pass_2_is_continued_to_the_same_columns(db, undisturbed):
    killed(db, "covariance", 2.5 * UNIT)
    killed(db, "write", 2.5 * UNIT)
    assert kept(db) == [".base", ".claim", ".state"]
    rows = Rows()
    run = compare(db, rows)
    assert any("which was interrupted after 6,000 rows of its first pass" in w for w in run.warnings)
    # Progress of pass 1 begins where it is continued; pass 2 computes one fragment alone.
    assert rows["covariance"] == N
    assert rows["write"] == UNIT
    assert_same(results(db), undisturbed)
    (row,) = spec_store.list_runs(db=str(db)).to_pylist()
    assert (row["run_id"], row["status"]) == (run.run_id, "current")
    assert leftovers(db) == NOTHING


def test_the_version_that_was_read_is_read_on_and_rows_that_came_since_are_scored_too(db, undisturbed):
    interrupt(db, "covariance", 2.5 * UNIT)
    table = lancedb.connect(db).open_table("images")
    first = table.head(7)
    table.add(first.set_column(0, "id", pa.array(range(N, N + 7))))
    read = []
    run = compare(db, lambda stage, rows, total: read.append(rows) if stage == "covariance" else None)
    assert read[0] == 2 * UNIT  # of the last unit alone are rows read again
    assert sum(read) == N
    assert any("at version 3; the table is at version 4 now" in w for w in run.warnings)
    assert run.n_rows == N
    found = results(db)
    assert_same(found.slice(0, N), undisturbed)
    assert found["spec_clip_dino_scores"].slice(N).equals(found["spec_clip_dino_scores"].slice(0, 7))
    assert leftovers(db) == NOTHING


def test_a_version_that_is_gone_is_a_reason_to_start_over(db):
    interrupt(db, "covariance", 2.5 * UNIT)
    table = lancedb.connect(db).open_table("images")
    table.delete("id = 0")
    table.to_lance().cleanup_old_versions(datetime.timedelta(0))
    run = compare(db)
    assert any("started over" in w and "has no version 3" in w for w in run.warnings)
    assert run.n_rows == N - 1
    assert kept(db) == []


@pytest.mark.parametrize("part", ["base", "state"])
def test_a_torn_checkpoint_is_dropped_with_a_note(db, undisturbed, part):
    interrupt(db, "covariance", 2.5 * UNIT)
    (path,) = (db / "images.lance" / "_spec_store").glob(f"*.{part}.kept")
    path.write_bytes(path.read_bytes()[:-100])
    run = compare(db)
    assert any("started over" in w and "incomplete" in w for w in run.warnings)
    assert_same(results(db), undisturbed)
    assert leftovers(db) == NOTHING


def test_fresh_ignores_and_deletes_what_is_kept(db):
    interrupt(db, "covariance", 2.5 * UNIT)
    (before,) = (db / "images.lance" / "_spec_store").glob("*.base.kept")
    first = before.read_bytes()[:300]
    rows = Rows()
    interrupt(db, "covariance", 1.5 * UNIT, fresh=True)
    assert before.read_bytes()[:300] != first  # another run's
    run = compare(db, rows, fresh=True)
    assert not any("continues" in w for w in run.warnings)
    assert leftovers(db) == NOTHING


def test_other_arguments_start_over_and_remove_what_was_kept_of_the_same_prefix(db):
    interrupt(db, "covariance", 2.5 * UNIT)
    run = compare(db, seed=1)
    assert run.warnings == []
    assert leftovers(db) == NOTHING


def test_undo_and_cleaning_remove_what_was_kept(db):
    for remove in (
        lambda: undo(db),
        lambda: spec_store.stores.locate.open_table("images", str(db)).leftovers(remove=True),
    ):
        interrupt(db, "covariance", 1.5 * UNIT)
        assert kept(db) == [".base", ".state"]
        try:
            remove()
        except InputError as error:  # there are no columns yet
            assert "no result columns" in str(error)  # noqa: PT017
        assert kept(db) == []


def test_results_of_another_run_are_not_overtaken_by_one_that_is_continued(db):
    interrupt(db, "write", 1.5 * UNIT)
    copies = list((db / "images.lance" / "_spec_store").glob("checkpoint*"))
    contents = {p: p.read_bytes() for p in copies}
    other = compare(db, seed=1)
    for path, data in contents.items():  # as if it had been claimed when the other one looked
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    run = compare(db)
    assert any("another run has written spec_clip_dino_cluster" in w for w in run.warnings)
    assert run.run_id > other.run_id
    assert leftovers(db) == NOTHING


def test_bad_vectors_are_refused_and_nothing_is_kept_of_the_run(db):
    bad = lance.dataset(db / "images.lance").to_table(limit=1)
    bad = bad.set_column(1, "clip", vectors(np.full((1, 8), np.nan)))
    lance.write_dataset(bad, db / "images.lance", mode="append")  # LanceDB itself refuses them
    with pytest.raises(InvalidVectorsError):
        compare(db)
    assert leftovers(db) == NOTHING


def test_a_share_of_the_rows_is_not_summed_again(db):
    killed(db, "write", 2.5 * UNIT, fit_rows=2 * UNIT)
    rows = Rows()
    run = compare(db, rows, fit_rows=2 * UNIT)
    assert any("continues run" in w for w in run.warnings)
    assert "covariance" not in rows
    assert rows["write"] == UNIT
    found = results(db)
    undo(db)
    compare(db, fit_rows=2 * UNIT)
    assert_same(found, results(db))
    assert leftovers(db) == NOTHING


def undo(db):
    spec_store.undo("images", prefix="spec_clip_dino", db=str(db))


def test_several_models_are_continued_too(db):
    def many(progress=None):
        return spec_store.compare_models(
            "images", COLUMNS, pairs="all", db=str(db), write=True, progress=progress, **OPTIONS
        )

    with pytest.raises(Crash):
        many(progress_until("covariance", 2.5 * UNIT, crash))
    run = many()
    assert any("continues run" in w for w in run.warnings)
    assert {c.run_id for c in run.comparisons} == {f"{run.run_id}.1"}
    runs = spec_store.list_runs(db=str(db)).to_pylist()
    assert {row["run_id"] for row in runs} == {run.run_id, f"{run.run_id}.1"}
    assert leftovers(db) == NOTHING


def test_ctrl_c_says_that_the_same_command_continues(db, monkeypatch):
    inner = PassCheckpoint.keep

    def keep(self, prepared, done, share):
        inner(self, prepared, done, share)
        if done.n_units == 2:
            raise KeyboardInterrupt

    line = "compare --table images --cols clip,dino --dim 20 --sample-rows 600 --no-describe --modes 8"
    words = line.split()
    with monkeypatch.context() as patched:
        patched.setattr(PassCheckpoint, "keep", keep)
        said = run_command(*words, db=str(db), code=130).stderr
    assert said == (
        "Interrupted. Nothing unfinished was left in the table. The same command continues it after 4,000"
        " rows of its first pass.\n"
    )
    assert "continues run" in run_command(*words, db=str(db)).stderr
    assert "continues run" not in run_command(*words, "--fresh", db=str(db)).stderr
    assert leftovers(db) == NOTHING


def test_of_two_runs_with_the_same_arguments_the_later_keeps_nothing(db):
    interrupt(db, "covariance", 1.5 * UNIT)
    (state,) = (db / "images.lance" / "_spec_store").glob("*.state.kept")
    workspace = spec_store.stores.locate.open_table("images", str(db)).workspace
    claim = workspace.claim(state.name.partition(".")[0])
    before = state.read_bytes()
    run = compare(db)
    assert any("another run with the same arguments is under way" in w for w in run.warnings)
    assert state.read_bytes() == before
    claim.release()
    compare(db, fresh=True)
    assert leftovers(db) == NOTHING


def test_an_alignment_killed_while_it_is_written_is_not_fitted_again(db, original, tmp_path_factory):
    few = {"n_landmarks": 50, "steps": 4, "column": "aligned", "force": True}

    def align(db, progress=None):
        return spec_store.align("images", *COLUMNS, db=str(db), write=True, progress=progress, **few)

    other = tmp_path_factory.mktemp("other")
    shutil.copytree(original, other, dirs_exist_ok=True)
    expected = align(other)
    given = {"columns": COLUMNS, "call": "align", **few}
    killed(db, "write", 2.5 * UNIT, **given)
    rows = Rows()
    run = align(db, rows)
    assert rows == {"write": UNIT}
    assert any("which was interrupted after its map was fitted" in w for w in run.warnings)
    assert run.to_json()["maps"] == expected.to_json()["maps"]
    assert run.after.to_json() == expected.after.to_json()
    found, wanted = (lance.dataset(d / "images.lance").to_table(["aligned"]) for d in (db, other))
    assert found["aligned"].combine_chunks().equals(wanted["aligned"].combine_chunks())
    assert leftovers(db) == NOTHING
