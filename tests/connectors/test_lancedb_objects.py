"""Tables in an object store: the same promises, by leases instead of locks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import s3_server
from lance_tables import SCHEMA, annotation, expected_number, other_prefix
from spec_store.errors import InputError, RetryError
from spec_store_lancedb.annotate import Step, annotate
from spec_store_lancedb.lease import SECONDS_VARIABLE
from spec_store_lancedb.recovery import leftovers, remove_leftovers

TESTS = Path(__file__).parents[1]
KILLED = ["first-STAGED", "again-DRY_RUN", "first-COLUMNS_ADDED", "first-COMMITTED", "again-COMMITTED"]
MORE = [f"{kind}-STAGED" for kind in ("other", "undone", "cleaned", "distant")]


@pytest.fixture(scope="module")
def s3():
    with s3_server.running() as server:
        yield server


@pytest.fixture
def uri(s3, request):
    return s3.make_table(f"db-{request.node.name}")


def contents(s3, uri, table="images"):
    return s3.dataset(uri, table).to_table().to_pylist()


def assert_annotated(s3, uri, run, table="images"):
    found = contents(s3, uri, table)
    assert len(found) == 100
    for row in found:
        n = expected_number(row["clip"])
        assert (row["r_number"], row["r_list"], row["r_name"]) == (n, [n], f"n{n}")
    schema = s3.dataset(uri, table).schema
    assert {schema.field(n).metadata[b"spec_store.run"] for n in SCHEMA.names} == {run}


def unreferenced(s3, uri, table="images"):
    """Objects of ours that no version refers to."""
    dataset = s3.dataset(uri, table)
    versions = [dataset.checkout_version(v["version"]) for v in dataset.versions()]
    live = {f"data/{d.path}" for v in versions for f in v.get_fragments() for d in f.metadata.files}
    return {n for n in s3.objects(uri, table) - live if n.startswith(("data/", "_spec_store")) or "/d" in n}


def test_results_are_published_again_and_undone_and_nothing_else_is_left(s3, uri):
    s3.open(uri).annotate(annotation())
    assert_annotated(s3, uri, b"run-1")
    assert unreferenced(s3, uri) == set()
    s3.open(uri).annotate(annotation(token="b" * 24, run="run-2"))
    assert_annotated(s3, uri, b"run-2")
    s3.open(uri).undo(SCHEMA.names)
    assert s3.dataset(uri).schema.names == ["id", "clip", "dino", "payload"]
    assert not any(n.startswith("_spec_store") for n in s3.objects(uri))


def test_what_was_staged_in_parts_is_published_by_whoever_comes(s3, uri):
    assert s3.open(uri).stage(annotation(), 1, 2) == 40
    assert s3.open(uri).stage(annotation(), 0, 2) == 60
    assert s3.open(uri).stage(annotation(), 0, 2) == 0
    assert len(unreferenced(s3, uri)) == 4  # two column files, two ledgers
    assert s3.dataset(uri).schema.names == ["id", "clip", "dino", "payload"]

    def compute(batch):
        raise AssertionError("computed again")

    s3.open(uri).annotate(annotation(compute))
    assert_annotated(s3, uri, b"run-1")
    assert unreferenced(s3, uri) == set()


def test_what_a_failed_part_has_staged_is_gone(s3, uri):
    def compute(batch):
        raise ValueError("no such row")

    s3.open(uri).stage(annotation(), 0, 2)
    with pytest.raises(ValueError, match="no such row"):
        s3.open(uri).stage(annotation(compute), 1, 2)
    assert len(unreferenced(s3, uri)) == 2
    s3.open(uri).annotate(annotation())
    assert_annotated(s3, uri, b"run-1")
    assert unreferenced(s3, uri) == set()


def start_again(s3, uri, earlier):
    if earlier:
        s3.open(uri).annotate(annotation(token="0" * 24, run="run-0"))


def test_of_two_runs_with_one_prefix_the_later_is_refused_and_replaces_nothing(s3, uri):
    source = s3.open(uri)
    inner, refused = annotation().compute, []

    def compute(batch):
        if not refused:
            with pytest.raises(RetryError, match=rf"run \(process {os.getpid()} of .*\) is writing r_number"):
                s3.open(uri).annotate(annotation(token="b" * 24, run="run-2"))
            refused.append(True)
        return inner(batch)

    source.annotate(annotation(compute, run="run-1"))
    assert refused
    assert_annotated(s3, uri, b"run-1")
    assert unreferenced(s3, uri) == set()


def test_a_run_that_was_read_before_another_published_is_refused(s3, uri):
    source = s3.open(uri)
    s3.open(uri).annotate(annotation(token="b" * 24, run="run-2"))
    with pytest.raises(RetryError, match="Another spec-store run wrote r_number"):
        source.annotate(annotation(run="run-1"))
    assert_annotated(s3, uri, b"run-2")
    assert unreferenced(s3, uri) == set()


def change_lease(s3, uri, table, change):
    """Rewrite what the first line of the table's ledger says of its run."""
    (name,) = [n for n in s3.objects(uri, table) if n.endswith(".jsonl")]
    first, _, rest = s3.get_object(uri, name, table).partition(b"\n")
    lease = json.loads(first)
    change(lease["lease"])
    s3.put_object(uri, name, json.dumps(lease).encode() + b"\n" + rest, table)


@pytest.mark.parametrize(
    ("moment", "earlier"), [(Step.STAGED, False), (Step.DRY_RUN, True), (Step.COLUMNS_ADDED, False)]
)
def test_a_run_that_was_taken_for_dead_notices_and_undoes_nothing_of_its_successor(s3, uri, moment, earlier):
    start_again(s3, uri, earlier)
    done = []

    def overtake(step):
        if step is moment and not done:
            done.append(step)
            change_lease(s3, uri, "images", lambda lease: lease.clear())
            s3.open(uri).annotate(annotation(token="b" * 24, run="run-2"))

    with pytest.raises(RetryError, match=r"took over|Another spec-store run wrote r_number"):
        annotate(s3.dataset(uri), annotation(), "table", on_step=overtake)
    assert_annotated(s3, uri, b"run-2")
    assert unreferenced(s3, uri) == set()


@pytest.fixture(scope="module")
def killed(s3):
    """A database of tables in each of which a run was killed at the step that the name ends in.

    While the runs live, no other disturbs them.
    """
    names = [*KILLED, *MORE]
    for name in names:
        uri = s3.make_table("db-killed", table=name)
        if name.startswith("again"):
            s3.open(uri, name).annotate(annotation(token="0" * 24, run="run-1"))
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "STORAGE_OPTIONS": json.dumps(s3.options)}
    command = [sys.executable, str(TESTS / "stopped_annotations.py"), uri, *names]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout.readline() == "stopped\n"
    for name in names:
        before = s3.dataset(uri, name).version, s3.objects(uri, name)
        assert s3.open(uri, name).notes == ()
        remove_leftovers(s3.dataset(uri, name), name)
        assert (s3.dataset(uri, name).version, s3.objects(uri, name)) == before
    with pytest.raises(RetryError, match=rf"process {process.pid} of .* is writing"):
        s3.open(uri, KILLED[0]).annotate(annotation())
    process.kill()
    process.wait()
    process.stdout.close()
    return uri


@pytest.mark.parametrize("name", KILLED)
def test_opening_a_table_in_which_a_run_was_killed_leaves_all_of_its_results_or_none(s3, killed, name):
    kind, step = name.split("-")
    assert len(s3.open(killed, name).notes) == (step != "STAGED")
    if step == "COMMITTED" and kind == "again":
        assert {row["r_name"] for row in contents(s3, killed, name)} == {"second"}
    elif step == "COMMITTED" or kind == "again":
        assert_annotated(s3, killed, b"run-1", name)
    else:
        assert s3.dataset(killed, name).schema.names == ["id", "clip", "dino", "payload"]
    assert bool(unreferenced(s3, killed, name)) == (step != "COMMITTED")  # serves the next run


def test_what_a_killed_run_staged_serves_the_next_run_with_the_same_token(s3, killed):
    computed = []

    def count(batch):
        computed.append(len(batch))
        return annotation().compute(batch)

    s3.open(killed, "first-STAGED").annotate(annotation(count))
    assert computed == []
    assert_annotated(s3, killed, b"run-1", "first-STAGED")
    assert unreferenced(s3, killed, "first-STAGED") == set()


@pytest.mark.parametrize("name", ["other-STAGED", "undone-STAGED", "cleaned-STAGED"])
def test_what_a_killed_run_left_is_removed_by_another_prefix_by_undo_and_by_cleaning(s3, killed, name):
    assert set(leftovers(s3.dataset(killed, name))) == unreferenced(s3, killed, name)
    assert len(unreferenced(s3, killed, name)) == 3
    if name.startswith("other"):
        s3.open(killed, name).annotate(other_prefix())
    elif name.startswith("undone"):
        s3.open(killed, name).undo(["q_number"])
    else:
        assert len(s3.open(killed, name).leftovers(remove=True)) == 3
    assert unreferenced(s3, killed, name) == set()
    assert leftovers(s3.dataset(killed, name)) == []


def test_a_run_on_another_machine_counts_as_dead_once_its_lease_has_run_out(s3, killed, monkeypatch):
    name = "distant-STAGED"
    change_lease(s3, killed, name, lambda lease: lease.update(machine="elsewhere"))
    dataset = s3.dataset(killed, name)
    assert leftovers(dataset) == []
    with pytest.raises(RetryError, match="is writing r_number"):
        s3.open(killed, name).annotate(annotation())
    monkeypatch.setenv(SECONDS_VARIABLE, "-10")
    assert len(leftovers(dataset)) == 3
    remove_leftovers(dataset, name)
    assert unreferenced(s3, killed, name) == set()


def test_a_store_that_ignores_conditions_is_named_and_keeps_the_other_promises():
    with s3_server.running() as server:
        server.forget_conditions()
        uri = server.make_table("db-unconditional")
        published = server.open(uri).annotate(annotation())
        (note,) = published.notes
        assert "can't keep two runs apart" in note
        assert "ignores the conditions" in note
        assert_annotated(server, uri, b"run-1")
        assert unreferenced(server, uri) == set()


def test_a_bucket_that_goes_away_while_columns_are_written_is_an_error_that_says_so():
    with s3_server.running() as server:
        server.options["client_max_retries"] = "0"
        uri = server.make_table("db-gone")
        source = server.open(uri)
        for name in server.client.list_objects_v2(Bucket=s3_server.BUCKET)["Contents"]:
            server.client.delete_object(Bucket=s3_server.BUCKET, Key=name["Key"])
        server.client.delete_bucket(Bucket=s3_server.BUCKET)
        with pytest.raises(InputError, match="no such bucket"):
            source.annotate(annotation())
        with pytest.raises(InputError, match="no such bucket"):
            source.undo(SCHEMA.names)


def test_a_store_that_stops_answering_while_columns_are_written_is_an_error_that_says_so():
    with s3_server.running() as server:
        server.options["client_max_retries"] = "0"
        uri = server.make_table("db-down")
        source = server.open(uri)
    with pytest.raises(RetryError, match="doesn't answer"):
        source.annotate(annotation())
    with pytest.raises(RetryError, match="doesn't answer"):
        source.undo(SCHEMA.names)


def test_runs_with_different_prefixes_at_once_both_publish(s3, uri):
    done = []

    def meanwhile(step):
        if step is Step.DRY_RUN and not done:
            done.append(step)
            s3.open(uri).annotate(other_prefix())

    annotate(s3.dataset(uri), annotation(), "table", on_step=meanwhile)
    assert_annotated(s3, uri, b"run-1")
    assert {row["q_number"] for row in contents(s3, uri)} == {1}
