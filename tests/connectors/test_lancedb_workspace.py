"""What runs keep beside a table, local and in an object store."""

import json
import os
import subprocess
import sys

import pytest

import s3_server
from lance_tables import NOTHING, leftovers, make_table, open_source, rows

HOLD = """
import json, os, sys, time
from spec_store.plugins import get_connector
options = json.loads(os.environ["STORAGE_OPTIONS"])
workspace = get_connector("lancedb").open(sys.argv[1], table="images", options=options).workspace
assert workspace.claim("a-1") is not None
print("held", flush=True)
time.sleep(1000)
"""


@pytest.fixture(params=["local", "object store"])
def place(request, tmp_path):
    """A source, its URI, its storage options, and what is beside the table."""
    if request.param == "local":
        make_table(tmp_path, rows(10))
        beside = tmp_path / "images.lance" / "_spec_store"
        yield (
            open_source(tmp_path),
            tmp_path,
            None,
            lambda: set(beside.glob("*")) | set(beside.parent.glob("_spec*")),
        )
        assert leftovers(tmp_path) == NOTHING
        return
    with s3_server.running() as server:
        uri = server.make_table(f"db-{request.node.name}")

        def beside():
            return {n for n in server.objects(uri) if "_spec_store" in n}

        yield server.open(uri), uri, server.options, beside


def test_bytes_are_kept_replaced_found_and_deleted_and_the_place_goes_with_the_last(place):
    source, _, _, beside = place
    workspace = source.workspace
    assert workspace.get("a-1") is None
    workspace.put("a-1", b"first")
    workspace.put("a-1", b"second" * 10)
    workspace.put("b", b"")
    assert (workspace.get("a-1"), workspace.get("b")) == (b"second" * 10, b"")
    assert set(workspace.ages()) == {"a-1", "b"}
    assert len(beside()) >= 2
    assert all(age < 60 for age in workspace.ages().values())
    for name in ("a-1", "b", "c"):
        workspace.delete(name)
    assert beside() == set()


def test_a_claim_is_one_run_s_until_it_is_released_or_its_process_dies(place):
    source, uri, options, beside = place
    workspace = source.workspace
    environment = {**os.environ, "STORAGE_OPTIONS": json.dumps(options)}
    command = [sys.executable, "-c", HOLD, str(uri)]
    other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert other.stdout.readline() == "held\n"
    assert workspace.claim("a-1") is None
    own = workspace.claim("b")
    other.kill()
    other.wait()
    other.stdout.close()
    assert set(workspace.ages()) == {"a-1", "b"}
    taken = workspace.claim("a-1")
    assert workspace.claim("a-1") is None
    taken.release()
    own.release()
    assert beside() == set()
