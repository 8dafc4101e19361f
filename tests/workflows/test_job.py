"""A comparison in steps that separate processes take."""

import json
import threading

import lancedb
import numpy as np
import pyarrow as pa
import pytest

import pieces
import spec_store
from command import run as command
from lance_tables import NOTHING, data_files, leftovers, make_table, open_source
from planted import planted_mixture, vectors
from spec_store.connector import Annotation
from spec_store.errors import InputError, InvalidVectorsError, RetryError, UnsupportedError
from spec_store.plugins import get_connector
from spec_store.workflows.executor import Processes

N = 3000
OPTIONS = {"kernel": "cosine", "sample_rows": 500, "batch_rows": 200, "describe": False}
COLUMNS = ("cluster", "clusters", "side", "score", "scores")


@pytest.fixture(scope="module")
def data():
    a, b, groups = planted_mixture(N, n_groups=8, merged=2, d=8, seed=3)
    return pa.table(
        {"id": np.arange(N), "clip": vectors(a), "dino": vectors(b), "label": [f"g{g}" for g in groups]}
    )


@pytest.fixture
def images(tmp_path, data, monkeypatch):
    """Six fragments of 500 rows, each of which is a unit."""
    monkeypatch.setattr("spec_store.workflows.units._LEAST_ROWS", 400)
    make_table(tmp_path / "db", *(data.slice(s, 500) for s in range(0, N, 500)))
    return str(tmp_path / "db")


def read(db):
    return lancedb.connect(db).open_table("images").to_arrow().sort_by("id")


def prepared(tmp_path, images, **more):
    return spec_store.Job.prepare(
        tmp_path / "job", "images", ["clip", "dino"], db=images, **{**OPTIONS, **more}
    )


def solved(tmp_path, images, **more):
    job = prepared(tmp_path, images, **more)
    for part in range(job.n_parts):
        job.accumulate(part)
    job.solve()
    return job


def assert_columns(table, prefix, other="spec_clip_dino"):
    for name in COLUMNS:
        assert table[f"{prefix}_{name}"] == table[f"{other}_{name}"], name


def test_steps_in_any_order_give_what_compare_gives_in_one_commit(tmp_path, images):
    here = spec_store.compare(
        "images", ["clip", "dino"], db=images, write=True, **{**OPTIONS, "describe": True}
    )
    spec_store.compare("images", ["clip", "dino"], db=images, write=True, prefix="again", **OPTIONS)
    job = prepared(tmp_path, images, prefix="job", describe=True)
    assert job.n_parts == 6
    table = lancedb.connect(images).open_table("images")
    n_versions = len(table.list_versions())
    files = data_files(images)
    assert [job.accumulate(part) for part in (3, 0, 5, 1, 4, 2, 3)] == [500] * 7
    assert job.solve().record.spec_diff == here.record.spec_diff
    assert data_files(images) == files
    with Processes(2) as workers:  # Dask and others call it so: the job and the part are all that is sent
        assert list(workers.map(job.stage, [5, 4, 3, 2, 1, 0])) == [500] * 6
    assert job.stage(2) == 0  # staged already
    assert len(table.list_versions()) == n_versions
    there = job.publish(progress=None)
    assert len(table.list_versions()) - n_versions <= 3
    found = read(images)
    assert_columns(found, "job")
    assert leftovers(images) == NOTHING
    assert not any("staged" in w for w in there.warnings)
    assert [c.size for c in there.record.clusters] == [c.size for c in here.record.clusters]
    assert [c.name for c in there.record.clusters] == [c.name for c in here.record.clusters]
    assert there.run_id in {r["run_id"] for r in spec_store.list_runs(db=images).to_pylist() if r["finished"]}
    answer = spec_store.compare_again(there.run_id, db=images, modes=10)
    assert answer.n_rows == N
    (updated,) = spec_store.update("images", prefix="job", db=images)
    assert updated.state == "current"


def test_the_command_takes_the_same_steps(tmp_path, images):
    folder = str(tmp_path / "job")
    job = ("--job", folder)
    said = command(
        *("worker", "prepare", *job, "--table", "images", "--cols", "clip,dino", "--parts", 2, "--json"),
        *("--kernel", "cosine", "--sample-rows", 500, "--no-describe", "--db", images),
    )
    assert json.loads(said.stdout) == {"job": folder, "n_parts": 2}
    said = command("worker", "solve", *job, code=1)
    assert f"Of 2 parts of {folder}, 0, 1 are not summed yet" in said.stderr
    for part in (0, 1):
        assert "1,500 rows summed" in command("worker", "accumulate", *job, "--part", part).stdout
    assert "Nothing is written yet" in command("worker", "solve", *job).stdout
    for part in (0, 1):
        assert "1,500 rows staged" in command("worker", "stage", *job, "--part", part).stdout
    assert "Wrote spec_clip_dino_cluster" in command("worker", "publish", *job).stdout
    assert "is published, as run" in command("worker", "publish", *job, code=1).stderr
    spec_store.compare("images", ["clip", "dino"], db=images, write=True, prefix="again", **OPTIONS)
    found = read(images)
    assert found["again_side"] == found["spec_clip_dino_side"]


def test_rows_that_come_and_go_between_the_steps_are_as_their_writer_left_them(tmp_path, images, data):
    job = solved(tmp_path, images)
    for part in range(6):
        job.stage(part)
    table = lancedb.connect(images).open_table("images")
    late = data.slice(0, 7).set_column(0, "id", pa.array(np.arange(9000, 9007)))
    table.add(late)
    table.delete("id = 700 OR id = 9001")
    run = job.publish(progress=None)
    assert any("column files of 1 of 7 fragments had not been staged" in w for w in run.warnings)
    found = read(images)
    kept = [i for i in range(N) if i != 700]
    assert found["id"].to_pylist() == [*kept, *(i for i in range(9000, 9007) if i != 9001)]
    assert found["spec_clip_dino_score"].null_count == 0
    scores = dict(zip(found["id"].to_pylist(), found["spec_clip_dino_score"].to_pylist(), strict=True))
    assert all(scores[9000 + i] == scores[i] for i in (0, 2, 3, 4, 5, 6))
    assert leftovers(images) == NOTHING


def test_what_another_run_removed_is_computed_by_publish(tmp_path, images):
    job = solved(tmp_path, images)
    job.stage(0)
    job.stage(1)
    spec_store.compare("images", ["clip", "dino"], db=images, write=True, prefix="other", **OPTIONS)
    assert leftovers(images) == NOTHING
    with Processes(2) as workers:
        job.publish(progress=None, executor=workers)
    assert_columns(read(images), "other")


def test_a_share_of_the_rows_is_fitted_by_solve(tmp_path, images):
    run = spec_store.compare("images", ["clip", "dino"], db=images, fit_rows=1500, **OPTIONS)
    job = prepared(tmp_path, images, fit_rows=1500)
    with pytest.raises(InputError, match="no pass 1 to share out"):
        job.accumulate(0)
    assert job.solve().record.spec_diff == run.record.spec_diff


def test_joined_tables_are_worked_on_in_parts(tmp_path, images, data):
    make_table(images, data.select(["id", "dino"]).take(np.arange(N)[::-1]), name="other")
    columns = ["clip", f"vector=lancedb:{images}#other/dino"]
    spec_store.compare("images", columns, db=images, write=True, key="id", prefix="one", **OPTIONS)
    job = spec_store.Job.prepare(
        tmp_path / "job", "images", columns, db=images, key="id", prefix="two", n_parts=3, **OPTIONS
    )
    for part in (2, 1, 0):
        job.accumulate(part)
    job.solve()
    with Processes(2) as workers:
        assert list(workers.map(job.stage, range(3))) == [1000] * 3
    job.publish(progress=None)
    found = read(images)
    assert found["one_side"] == found["two_side"]
    assert leftovers(images) == NOTHING


# --- what is refused


def test_what_a_job_cannot_do_is_refused_before_any_work(tmp_path, images, data):
    for message, more in (
        ("it has 6 units of 65,536 rows or more", {"n_parts": 7}),
        ("n_parts is 0; expected a whole number", {"n_parts": 0}),
        ("has 3000 rows to compare, fewer than the 4000", {"modes": 4000}),
    ):
        with pytest.raises(InputError, match=message):
            prepared(tmp_path, images, **more)
    assert not (tmp_path / "job").exists()
    job = prepared(tmp_path, images)
    with pytest.raises(InputError, match="holds a job already"):
        prepared(tmp_path, images)
    with pytest.raises(InputError, match=r"Part 6 of .*; expected one from 0 to 5"):
        job.accumulate(6)
    with pytest.raises(InputError, match=r"Of 6 parts of .*, 0, 1, 2, 3, 4 and 1 more are not summed yet"):
        job.solve()
    with pytest.raises(InputError, match="is not solved yet: spec-store worker solve"):
        job.stage(0)
    with pytest.raises(InputError, match="holds no job: spec-store worker prepare"):
        spec_store.Job(str(tmp_path / "none")).accumulate(0)
    with pytest.raises(UnsupportedError, match="can't be annotated in parts"):
        get_connector("arrow").wrap(data).stage(scores(), 0, 2)


def test_rows_that_cannot_be_compared_stop_the_job_unless_they_may_be_skipped(tmp_path, images, data):
    lancedb.connect(images).open_table("images").add(
        pa.table({"id": [9000], "clip": vectors(np.zeros((1, 8))), "dino": vectors(np.ones((1, 8)))})
    )
    job = prepared(tmp_path, images)
    for part in range(job.n_parts):
        job.accumulate(part)
    with pytest.raises(InvalidVectorsError, match=r"1 rows of .* can't be compared"):
        job.solve()


# --- staging


def scores(**what):
    return Annotation(
        schema=pieces.Scores.schema, reads=("id",), compute=pieces.Scores(**what), token="t" * 24,
        metadata={"spec_store.run": "run-1"}, batch_rows=200,
    )  # fmt: skip


def test_a_process_that_dies_while_it_stages_leaves_what_the_next_one_removes(images):
    with Processes(2) as workers, pytest.raises(RetryError, match="was ended by SIGKILL"):
        list(workers.map(pieces.Staging(open_source(images), scores(die_at=1700)), [0, 1]))
    assert open_source(images).annotate(scores()).attempts == 1
    assert leftovers(images) == NOTHING
    assert read(images)["r_number"].to_pylist() == [i % 1000 for i in range(N)]


def test_publishing_waits_for_no_process_that_still_stages(images):
    entered, go = threading.Event(), threading.Event()
    inner = pieces.Scores()

    def compute(batch):
        entered.set()
        assert go.wait(60)
        return inner(batch)

    slow = scores()
    object.__setattr__(slow, "compute", compute)
    staging = threading.Thread(target=open_source(images).stage, args=(slow, 0, 2))
    staging.start()
    assert entered.wait(60)
    with pytest.raises(RetryError, match="Another spec-store run is writing r_number"):
        open_source(images).annotate(scores())
    assert open_source(images).stage(scores(), 1, 2) == 1500
    go.set()
    staging.join()
    published = open_source(images).annotate(scores())
    assert not published.notes
    assert leftovers(images) == NOTHING
    assert read(images)["r_number"].to_pylist() == [i % 1000 for i in range(N)]
