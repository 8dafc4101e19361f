"""`--workers` and `--engine` of the real command."""

import json
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
import pytest

from command import interrupted_while_staging, run, run_process
from lance_tables import NOTHING, data_files, leftovers
from planted import planted_mixture, vectors

COMPARE = (
    "compare",
    "--table",
    "images",
    "--cols",
    "clip,dino",
    "--kernel",
    "cosine",
    "--no-describe",
    "--sample-rows",
    "800",
)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Three fragments."""
    a, b, _ = planted_mixture(9000, n_groups=8, merged=2, d=8, seed=1)
    table = pa.table({"id": np.arange(9000), "clip": vectors(a), "dino": vectors(b)})
    folder = tmp_path_factory.mktemp("large")
    images = lancedb.connect(folder).create_table("images", table.slice(0, 4000))
    images.add(table.slice(4000, 4000))
    images.add(table.slice(8000))
    return folder


def workers_of(db):
    """Processes that work for a command on this database."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            about = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
        except OSError:
            continue
        if b"process_worker" in about[0] and f"SPEC_STORE_DB={db}\0".encode() in about[1]:
            found.append(process.name)
    return found


def test_processes_write_what_threads_write(large):
    said = {}
    for prefix, more in (("one", []), ("two", ["--workers", "2"])):
        done = run_process(*COMPARE, "--prefix", prefix, "--json", *more, db=str(large))
        said[prefix] = json.loads(done.stdout)
    for key in ("n_rows", "spec_diff", "eigenvalues", "cka", "coverage"):
        assert said["one"][key] == said["two"][key], key
    table = lancedb.connect(large).open_table("images").to_arrow()
    for name in ("cluster", "scores"):
        assert table[f"one_{name}"] == table[f"two_{name}"]
    assert said["one"]["clusters"]
    assert not workers_of(large)


def test_ctrl_c_ends_the_workers_and_leaves_the_table_untouched(large, monkeypatch):
    monkeypatch.setenv("SPEC_STORE_CHECKPOINT_SECONDS", "1000")  # nothing to continue from
    before = data_files(large)
    options = ("--workers", "2", "--prefix", "three", "--batch-rows", "8")
    code, said = interrupted_while_staging(*COMPARE, *options, db=str(large))
    assert code == 130  # and where the machine is slow, progress is told before
    assert said.endswith("Interrupted. Nothing unfinished was left in the table.\n")
    assert not workers_of(large)
    assert data_files(large) == before
    assert leftovers(large) == NOTHING


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--engine", "threads", "--workers", "2"), "--workers is for the engines processes and ray"),
        (("--address", "auto"), "Add --engine ray"),
        (("--workers", "0"), "workers is 0; expected a whole number from 1"),
    ],
)
def test_options_that_do_not_go_together_are_refused_before_any_work(options, message):
    assert message in run(*COMPARE, *options, db="/nowhere", code=1).stderr
    align = ("align", "--table", "images", "--source", "clip", "--target", "dino")
    assert message in run(*align, *options, db="/nowhere", code=1).stderr
