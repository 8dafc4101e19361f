"""Rows appended to the tables that all runs of a database share, by several at once."""

import threading

import pyarrow as pa
import pytest

import s3_server
from spec_store.plugins import get_connector

WRITERS = 5


@pytest.fixture(params=["local", "object store"])
def place(request, tmp_path):
    """A URI, and its storage options."""
    if request.param == "local":
        yield str(tmp_path), None
        assert [p.name for p in tmp_path.iterdir()] == ["runs.lance"]
        return
    with s3_server.running() as server:
        uri = f"s3://{s3_server.BUCKET}/db-append"
        yield uri, server.options
        found = server.client.list_objects_v2(Bucket=s3_server.BUCKET)["Contents"]
        assert all(o["Key"].startswith("db-append/runs.lance/") for o in found)


def test_a_table_that_several_create_at_once_has_the_rows_of_all(place):
    uri, options = place
    connector, together = get_connector("lancedb"), threading.Barrier(WRITERS)
    failed = []

    def append(i):
        rows = pa.table({"run_id": [f"run-{i}"]})
        together.wait()
        try:
            connector.append(uri, "runs", rows, key="run_id" if i % 2 else None, options=options)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=append, args=(i,)) for i in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    source = connector.open(uri, table="runs", options=options)
    found = [run for batch in source.batches(["run_id"]) for run in batch["run_id"].to_pylist()]
    assert sorted(found) == [f"run-{i}" for i in range(WRITERS)]
