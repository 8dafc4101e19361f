"""Runs that die or are interrupted at a known step: the next command leaves all of their results or none."""

import datetime
import os
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import lance
import lancedb
import pyarrow as pa
import pytest

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
    other_prefix,
    rows,
)
from spec_store.errors import RetryError
from spec_store_lancedb.annotate import Step

TESTS = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}
STEPS = ("STAGED", "DRY_RUN", "COLUMNS_ADDED", "COMMITTED")
TABLES = [f"{kind}-{step}" for kind in ("first", "again", "mixed") for step in STEPS]
MORE = ["other-STAGED", "undone-STAGED", "plain-STAGED", "readonly-COLUMNS_ADDED"]


def values(folder, name):
    return {row.get("r_name") for row in contents(folder, name).values()}


def run_marks(folder, name):
    schema = lance.dataset(folder / f"{name}.lance").schema
    return {schema.field(n).metadata[b"spec_store.run"] for n in SCHEMA.names if n in schema.names}


def annotation_of(columns, run):
    """Some of the columns of `annotation`."""
    whole = annotation()
    schema = pa.schema([SCHEMA.field(n) for n in columns])
    return replace(
        whole,
        schema=schema,
        token=run * 4,
        metadata={"spec_store.run": run},
        compute=lambda batch: whole.compute(batch).select(columns),
    )


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Tables in each of which a run was killed at the step that the name ends in.

    While the runs live, opening the tables disturbs none of them.
    """
    folder = tmp_path_factory.mktemp("killed")
    for name in [*TABLES, *MORE]:
        make_table(folder, rows(60), rows(40, 60), name=name)
        if name.startswith("again"):
            open_source(folder, name).annotate(annotation())
        if name.startswith("mixed"):  # columns of two runs, which one run is to replace
            for run, columns in (("run-1", ["r_number"]), ("run-2", ["r_list", "r_name"])):
                open_source(folder, name).annotate(annotation_of(columns, run))
    command = [sys.executable, str(TESTS / "stopped_annotations.py"), str(folder), *TABLES, *MORE]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert process.stdout.readline() == "stopped\n"
    for name in TABLES:
        before = lance.dataset(folder / f"{name}.lance").version, data_files(folder, name)
        assert open_source(folder, name).notes == ()
        assert (lance.dataset(folder / f"{name}.lance").version, data_files(folder, name)) == before
    with pytest.raises(RetryError, match="Another spec-store run is writing"):
        open_source(folder, TABLES[0]).annotate(annotation())
    process.kill()
    process.wait()
    process.stdout.close()
    return folder


@pytest.mark.parametrize("name", TABLES)
def test_opening_a_table_in_which_a_run_was_killed_leaves_all_of_its_results_or_none(killed, name):
    source = open_source(killed, name)
    kind, step = name.split("-")
    if kind == "first" and step != "COMMITTED":
        assert source.schema.names == ["id", "clip", "dino", "payload"]
    elif kind == "first":
        assert_annotated_by_id(killed, name)
        assert run_marks(killed, name) == {b"run-1"}
    elif step == "COMMITTED":
        assert values(killed, name) == {"second"}
        assert run_marks(killed, name) == {b"run-2" if kind == "again" else b"run-3"}
    else:
        assert_annotated_by_id(killed, name)
        assert run_marks(killed, name) == ({b"run-1"} if kind == "again" else {b"run-1", b"run-2"})
    assert bool(source.notes) == (step != "STAGED")
    assert open_source(killed, name).notes == ()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # newer LanceDB warns of so short a time
        lancedb.connect(killed).open_table(name).optimize(cleanup_older_than=datetime.timedelta(0))
    lance.dataset(killed / f"{name}.lance").validate()


def assert_annotated_by_id(folder, name):
    found = contents(folder, name)
    assert len(found) == 100
    assert None not in values(folder, name)
    assert "second" not in values(folder, name)


def test_a_run_with_another_prefix_removes_what_a_killed_one_staged(killed):
    assert len(leftovers(killed, "other-STAGED")[0]) == 2
    open_source(killed, "other-STAGED").annotate(other_prefix())
    assert leftovers(killed, "other-STAGED") == NOTHING


def test_undo_of_another_prefix_removes_what_a_killed_run_staged(killed):
    assert len(leftovers(killed, "undone-STAGED")[0]) == 2
    open_source(killed, "undone-STAGED").undo(["q_number"])
    assert leftovers(killed, "undone-STAGED") == NOTHING


def test_what_a_living_run_has_staged_is_not_removed_by_one_with_another_prefix(tmp_path):
    make_table(tmp_path, rows(60), rows(40, 60))

    done = []

    def meanwhile(step):
        if step is Step.DRY_RUN and not done:
            done.append(step)
            open_source(tmp_path).annotate(other_prefix())

    annotate_observed(tmp_path, meanwhile)
    assert_annotated(tmp_path)
    assert {row["q_number"] for row in contents(tmp_path, columns=("id", "q_number")).values()} == {1}


@pytest.mark.parametrize("kind", ["first", "again"])
@pytest.mark.parametrize("step", list(Step))
def test_ctrl_c_at_any_step_leaves_all_results_or_none_and_nothing_else(tmp_path, step, kind):
    make_table(tmp_path, rows(60), rows(40, 60))
    if kind == "again":
        open_source(tmp_path).annotate(annotation(token="c" * 24))
    interrupted = []

    def interrupt(reached):
        if reached is step:
            interrupted.append(reached)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        annotate_observed(tmp_path, interrupt, annotation(run="run-2"))
    assert interrupted
    assert leftovers(tmp_path) == NOTHING
    published = step in (Step.COMMITTED, Step.MARKED)
    if published or kind == "again":
        assert_annotated(tmp_path)
        assert run_marks(tmp_path, "images") == {b"run-2" if published else b"run-1"}
    else:
        assert lance.dataset(tmp_path / "images.lance").schema.names == ["id", "clip", "dino", "payload"]


READ_ONLY = """
import sys
from privileges import obey_permissions
obey_permissions()
from lance_tables import SCHEMA, annotation, open_source
for name in sys.argv[2:]:
    source = open_source(sys.argv[1], name)
    print(source.count(), len(source.notes), *source.notes)
    for attempt in (lambda: source.undo(SCHEMA.names), lambda: source.annotate(annotation())):
        try:
            attempt()
        except Exception as error:
            print(type(error).__name__, error)
"""


def test_a_read_only_table_opens_whatever_a_killed_run_left_and_undo_says_that_it_is_read_only(killed):
    names = ["readonly-COLUMNS_ADDED", "plain-STAGED"]
    folders = [
        killed,
        *(p for name in names for p in [(killed / f"{name}.lance"), *(killed / f"{name}.lance").rglob("*")]),
    ]
    modes = {path: path.stat().st_mode for path in folders}
    for path in folders:
        path.chmod(0o555 if path.is_dir() else 0o444)
    command = [sys.executable, "-c", READ_ONLY, str(killed), *names]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    for path in folders:
        path.chmod(modes[path])
    assert done.returncode == 0, done.stderr
    half, undo, write, plain, *_ = done.stdout.splitlines()
    assert half.startswith("100 1 What a killed run left in table 'readonly-COLUMNS_ADDED'")
    assert plain == "100 0"
    for said in (undo, write):
        assert said.startswith("InputError Table 'readonly-COLUMNS_ADDED'"), said
        assert "can't be written" in said
    assert len(open_source(killed, names[0]).notes) == 1
    assert "r_number" not in open_source(killed, names[0]).schema.names


def test_a_user_s_tags_are_left_alone_whatever_their_names(tmp_path):
    make_table(tmp_path, rows(10))
    dataset = lance.dataset(tmp_path / "images.lance")
    dataset.tags.create("spec-store-release", 1)
    dataset.tags.create("spec-store-aaaaaaaaaaaa-1", 1)
    source = open_source(tmp_path)
    source.annotate(annotation())
    source.undo(SCHEMA.names)
    assert set(lance.dataset(tmp_path / "images.lance").tags.list()) == {
        "spec-store-release",
        "spec-store-aaaaaaaaaaaa-1",
    }
