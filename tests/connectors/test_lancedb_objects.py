"""Tables in an object store: the same promises without locks."""

import json
import threading

import pytest

import s3_server
from lance_tables import SCHEMA, annotation, expected_number, other_prefix
from spec_store.errors import InputError, RetryError
from spec_store_lancedb.annotate import Step, annotate


@pytest.fixture(scope="module")
def s3():
    with s3_server.running() as server:
        yield server


@pytest.fixture
def uri(s3, request):
    return s3.make_table(f"db-{request.node.name}")


def contents(s3, uri):
    return s3.dataset(uri).to_table().to_pylist()


def assert_annotated(s3, uri, run):
    found = contents(s3, uri)
    assert len(found) == 100
    for row in found:
        n = expected_number(row["clip"])
        assert (row["r_number"], row["r_list"], row["r_name"]) == (n, [n], f"n{n}")
    schema = s3.dataset(uri).schema
    assert {schema.field(n).metadata[b"spec_store.run"] for n in SCHEMA.names} == {run}


def unreferenced(s3, uri):
    """Objects of ours that no fragment refers to."""
    live = {f"data/{d.path}" for f in s3.dataset(uri).get_fragments() for d in f.metadata.files}
    return {n for n in s3.objects(uri) - live if n.startswith(("data/", "_spec_store")) or "/d" in n}


def test_results_are_published_again_and_undone_and_nothing_else_is_left(s3, uri):
    s3.open(uri).annotate(annotation())
    assert_annotated(s3, uri, b"run-1")
    assert unreferenced(s3, uri) == set()
    s3.open(uri).annotate(annotation(token="b" * 24, run="run-2"))
    assert_annotated(s3, uri, b"run-2")
    s3.open(uri).undo(SCHEMA.names)
    assert s3.dataset(uri).schema.names == ["id", "clip", "dino", "payload"]
    assert not any(n.startswith("_spec_store") for n in s3.objects(uri))


@pytest.mark.parametrize("earlier", [False, True], ids=["first", "again"])
def test_of_two_runs_with_one_prefix_the_later_is_refused_and_replaces_nothing(s3, uri, earlier):
    if earlier:
        s3.open(uri).annotate(annotation(token="0" * 24, run="run-0"))
    source = s3.open(uri)
    inner, done = annotation().compute, []

    def compute(batch):
        if not done:
            done.append(s3.open(uri).annotate(annotation(token="b" * 24, run="run-2")))
        return inner(batch)

    with pytest.raises(RetryError, match="Another spec-store run wrote r_number"):
        source.annotate(annotation(compute, run="run-1"))
    assert_annotated(s3, uri, b"run-2")
    assert not any(n.startswith("data/spec-aaaa") for n in s3.objects(uri))


@pytest.mark.parametrize("moment", [Step.DRY_RUN, Step.COLUMNS_ADDED])
@pytest.mark.parametrize("earlier", [False, True], ids=["first", "again"])
def test_of_two_runs_that_publish_at_once_one_is_refused(s3, uri, moment, earlier):
    if earlier:
        s3.open(uri).annotate(annotation(token="0" * 24, run="run-0"))
    done = []

    def overtake(step):
        if step is moment and not done:
            done.append(step)
            s3.open(uri).annotate(annotation(token="b" * 24, run="run-2"))

    with pytest.raises(RetryError, match="Another spec-store run wrote r_number"):
        annotate(s3.dataset(uri), annotation(), "table", on_step=overtake)
    assert_annotated(s3, uri, b"run-2")


def stopped(s3, uri, step):
    """A run that stops for ever at a step: with no locks and no process to look for, as good as killed."""
    reached = threading.Event()

    def stop(now):
        if now is step:
            reached.set()
            threading.Event().wait()

    arguments = (s3.dataset(uri), annotation(), "table")
    threading.Thread(target=annotate, args=arguments, kwargs={"on_step": stop}, daemon=True).start()
    assert reached.wait(20)


def make_ledgers_older(s3, uri, seconds):
    for name in s3.objects(uri):
        if name.endswith(".jsonl"):
            key = {"Bucket": s3_server.BUCKET, "Key": f"{uri.split('/', 3)[3]}/images.lance/{name}"}
            lines = [json.loads(line) for line in s3.client.get_object(**key)["Body"].read().splitlines()]
            for line in lines:
                if "at" in line:
                    line["at"] -= seconds
            s3.client.put_object(**key, Body="".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize("step", [Step.DRY_RUN, Step.COLUMNS_ADDED, Step.COMMITTED])
@pytest.mark.parametrize("earlier", [False, True], ids=["first", "again"])
def test_what_a_killed_run_began_to_publish_is_settled_once_it_counts_as_dead(s3, uri, step, earlier):
    if earlier:
        s3.open(uri).annotate(annotation(token="0" * 24, run="run-0"))
    stopped(s3, uri, step)
    assert any(n.startswith("_spec_store") for n in s3.objects(uri))
    before = s3.dataset(uri).version
    assert s3.open(uri).notes == ()  # it may be alive
    assert s3.dataset(uri).version == before
    make_ledgers_older(s3, uri, 700)
    assert len(s3.open(uri).notes) == 1
    if step is Step.COMMITTED:
        assert_annotated(s3, uri, b"run-1")
    elif earlier:
        assert_annotated(s3, uri, b"run-0")
    else:
        assert s3.dataset(uri).schema.names == ["id", "clip", "dino", "payload"]
    assert not any(n.startswith("_spec_store") for n in s3.objects(uri))


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
