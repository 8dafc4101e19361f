"""The whole story on a table in an object store, by the command line; kills and two writers there."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest

import s3_server
import spec_store
from command import run as run_command
from planted import planted_mixture, vectors
from spec_store.errors import RetryError
from spec_store.workflows.checkpoint import SECONDS_VARIABLE

TESTS = Path(__file__).parent
UNIT = 1_000
N = 3 * UNIT
OPTIONS = {"dim": 20, "sample_rows": 600, "describe": False, "modes": 8}
COMPARE = "--cols clip,dino --dim 20 --sample-rows 600 --no-describe --modes 8 --key id --json --index"
ALIGN = "--source clip --target dino --n-landmarks 50 --steps 4 --force --key id"
GATE = "--source clip --target dino --fail-under 0"
RESULTS = [f"spec_clip_dino_{n}" for n in ("cluster", "clusters", "side", "score", "scores")]


@pytest.fixture(scope="module")
def s3():
    with s3_server.running() as server:
        yield server


@pytest.fixture(scope="module")
def planted():
    a, b, labels = planted_mixture(N, n_groups=12, merged=3, d=8, seed=3)
    rows = {
        "id": np.arange(N),
        "clip": vectors(a),
        "dino": vectors(b),
        "label": [f"group {i}" for i in labels],
    }
    return pa.table(rows)


@pytest.fixture
def uri(s3, request, planted):
    name = f"db-{request.node.name[:40]}"
    return s3.make_table(name, *(planted.slice(i * UNIT, UNIT) for i in range(3)))


@pytest.fixture(autouse=True)
def small_units(monkeypatch):
    monkeypatch.setattr("spec_store.workflows.units._LEAST_ROWS", UNIT)
    monkeypatch.setenv(SECONDS_VARIABLE, "0")


def beside(s3, uri):
    return sorted(n for n in s3.objects(uri) if n.startswith("_spec_store"))


def append(s3, uri, rows):
    missing = [f for f in s3.dataset(uri).schema if f.name not in rows.column_names]
    for f in missing:
        rows = rows.append_column(f, pa.nulls(len(rows), f.type))
    lance.write_dataset(
        rows.select(s3.dataset(uri).schema.names),
        f"{uri}/images.lance",
        mode="append",
        storage_options=s3.options,
    )


def test_a_table_is_compared_aligned_updated_gated_reported_and_undone(s3, uri, planted, tmp_path):
    options = [w for k, v in s3.options.items() for w in ("--storage-option", f"{k}={v}")]

    def run(command, *words, code=0):
        return run_command(command, *words, *options, db=uri, code=code).stdout

    images = ["--table", "images"]
    before = s3.dataset(uri).to_table().sort_by("id")
    found = json.loads(run("compare", *images, *COMPARE.split()))
    largest = found["clusters"][0]
    rows = run("query", *images, "--where", largest["where"], "--format", "jsonl").splitlines()
    assert len(rows) == largest["size"] > 0
    assert "group" in run("clusters", *images, "--by", "label")
    run("align", *images, *ALIGN.split())
    run("status", *images, "--check")

    append(s3, uri, planted.slice(0, 50).set_column(0, "id", pa.array(range(N, N + 50))))
    run("status", *images, "--check", code=1)
    run("update", *images)
    run("status", *images, "--check")
    assert s3.dataset(uri).to_table(["clip_as_dino"]).column(0).null_count == 0
    run("gate", *images, *GATE.split())
    run("report", *images, "-o", str(tmp_path / "report.html"))
    assert "spec_clip_dino" in (tmp_path / "report.html").read_text()
    assert {r["status"] for r in json.loads(run("runs", "--json"))} == {"current"}

    for prefix in ("spec_clip_dino", "clip_as_dino"):
        run("undo", *images, "--prefix", prefix)
    after = s3.dataset(uri).to_table(filter=f"id < {N}").sort_by("id")
    assert after.equals(before)
    assert beside(s3, uri) == []


def compare(s3, uri, progress=None, **more):
    location = spec_store.Location(uri, "lancedb", s3.options)
    return spec_store.compare(
        "images", ["clip", "dino"], db=location, write=True, progress=progress, **OPTIONS, **more
    )


def killed(s3, uri, stage, rows):
    given = {"columns": [["clip", "dino"]], **OPTIONS, "db": uri, "storage_options": s3.options}
    given |= {"table": "images", "until": [stage, rows], "unit": UNIT}
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(TESTS / "interrupted_run.py"), json.dumps(given)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=False)
    assert done.returncode == -9


def results(s3, uri):
    return s3.dataset(uri).to_table(["id", *RESULTS]).replace_schema_metadata(None)


def test_a_run_killed_in_both_passes_is_continued_to_the_same_columns(s3, uri, planted):
    other = s3.make_table("db-undisturbed", *(planted.slice(i * UNIT, UNIT) for i in range(3)))
    compare(s3, other)
    killed(s3, uri, "covariance", 2.5 * UNIT)
    killed(s3, uri, "write", 2.5 * UNIT)
    assert len(beside(s3, uri)) == 4  # what pass 1 summed, the claim of it, and the ledger of pass 2
    rows = {}
    run = compare(s3, uri, lambda stage, n, total: rows.update({stage: rows.get(stage, 0) + n}))
    assert any("which was interrupted after 3,000 rows" in w for w in run.warnings)
    assert rows["write"] == UNIT
    assert results(s3, uri).equals(results(s3, other))
    assert beside(s3, uri) == []


def test_of_two_runs_of_one_prefix_at_once_one_publishes(s3, uri):
    """Both have computed all when they begin to write; the one that comes later is refused by the lease."""
    ready, outcomes = threading.Barrier(2), {}

    def start(seed):
        begun = False

        def progress(stage, n, total):
            nonlocal begun
            if stage == "write" and not begun:
                begun = True
                ready.wait(60)

        try:
            outcomes[seed] = compare(s3, uri, progress, seed=seed)
        except RetryError as error:
            outcomes[seed] = error

    threads = [threading.Thread(target=start, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    refused = [o for o in outcomes.values() if isinstance(o, RetryError)]
    (published,) = [o for o in outcomes.values() if not isinstance(o, RetryError)]
    assert len(refused) == 1
    assert "Another spec-store run" in str(refused[0])
    metadata = s3.dataset(uri).schema.field(RESULTS[0]).metadata
    assert metadata[b"spec_store.run"].decode() == published.run_id
    assert len(beside(s3, uri)) == 2  # what the refused one summed, for another try
    spec_store.status("images", db=spec_store.Location(uri, "lancedb", s3.options), clean=True)
    assert beside(s3, uri) == []
