"""Work shared out among processes: the same results, and nothing left where it fails."""

import os
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
import pytest

import pieces
import spec_store
from lance_tables import NOTHING, data_files, leftovers, make_table, open_source
from pieces import until
from planted import planted_mixture, vectors
from spec_store.connector import Annotation
from spec_store.errors import InputError, RetryError, UnsupportedError
from spec_store.executor import IN_PROCESS
from spec_store.plugins import get_connector
from spec_store.spectral.features import CosineMap
from spec_store.stores.join import Joined
from spec_store.stores.view import View
from spec_store.workflows.executor import Processes, RayTasks, executor_for
from spec_store.workflows.passes import accumulate
from spec_store.workflows.units import Progressed, units_of

N = 6000
OPTIONS = {"kernel": "cosine", "sample_rows": 800, "batch_rows": 256, "describe": False}


@pytest.fixture(scope="module")
def workers():
    with Processes(2) as executor:
        yield executor


@pytest.fixture
def small_units(monkeypatch):
    """Units of a thousand rows: so a small table has several."""
    monkeypatch.setattr("spec_store_lancedb.source._PARTITION_ROWS", 300)
    monkeypatch.setattr("spec_store.workflows.units._LEAST_ROWS", 1000)


@pytest.fixture(scope="module")
def data():
    a, b, groups = planted_mixture(N, n_groups=12, merged=3, d=24, seed=3)
    return pa.table(
        {"id": np.arange(N), "clip": vectors(a), "dino": vectors(b), "label": [f"g{g}" for g in groups]}
    )


@pytest.fixture
def images(tmp_path, data, small_units):
    """Four fragments, rows deleted in each."""
    make_table(tmp_path, *(data.slice(s, 1500) for s in range(0, N, 1500))).delete("id % 11 = 5")
    return tmp_path


def read(folder, name="images"):
    return lancedb.connect(folder).open_table(name).to_arrow().sort_by("id")


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# --- the executor itself


def test_results_come_in_the_order_of_the_items_from_several_processes(workers):
    assert list(workers.map(pieces.double, range(20))) == [2 * i for i in range(20)]
    found = set(workers.map(pieces.worker, range(12)))
    assert len(found) == 2
    assert os.getpid() not in found


def test_an_error_is_raised_in_its_turn_with_where_it_arose(workers):
    results = workers.map(pieces.refuse_three, range(8))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(InputError, match="3 is refused") as raised:
        next(results)
    assert "refuse_three" in str(raised.value.__cause__)
    with pytest.raises(spec_store.SpecStoreError, match="_Stubborn: 0 and 0"):
        next(workers.map(pieces.fail_strangely, [0]))


def test_a_worker_that_dies_ends_the_pass_and_the_other_workers(workers):
    with pytest.raises(RetryError, match=r"worker process \(\d+\) was ended by SIGKILL.*Nothing was"):
        list(workers.map(pieces.die_at_two, range(8)))
    assert list(workers.map(pieces.double, range(3))) == [0, 2, 4]  # others are started


def test_a_pass_that_is_left_ends_its_workers(workers, tmp_path):
    before = set(workers.map(pieces.worker, range(12)))
    results = workers.map(pieces.double, range(100))
    next(results)
    results.close()
    assert not any(map(is_running, before))
    assert set(workers.map(pieces.worker, range(12))).isdisjoint(before)


def test_workers_end_with_the_process_that_they_work_for(tmp_path):
    process = subprocess.Popen([sys.executable, Path(pieces.__file__), tmp_path])
    until(lambda: len(list(tmp_path.iterdir())) == 2)
    pids = [int(p.name) for p in tmp_path.iterdir()]
    process.kill()
    process.wait()
    until(lambda: not any(map(is_running, pids)))


class Locked:
    """Data of a library that can't pickle them."""

    def __init__(self, table):
        self.table, self.lock = table, threading.Lock()

    def __arrow_c_stream__(self, requested_schema=None):
        return self.table.__arrow_c_stream__(requested_schema)


def test_work_that_cannot_be_pickled_is_refused(workers, data):
    with pytest.raises(UnsupportedError, match="can't be sent to other processes"):
        workers.map(lambda x: x, [1])
    with pytest.raises(UnsupportedError, match=r"can't be sent to another process.*Arrow table, or a file"):
        spec_store.compare(Locked(data), ["clip", "dino"], executor=workers)


def test_an_engine_is_chosen_by_name_or_by_a_number_of_workers():
    assert executor_for(None, None, None) is IN_PROCESS
    assert executor_for("threads", None, None) is IN_PROCESS
    assert executor_for(None, 3, None).describe() == "3 processes"
    assert executor_for("processes", 1, None).describe() == "1 process"
    assert isinstance(executor_for("ray", None, "auto"), RayTasks)
    for engine, n, address, message in (
        ("threads", 2, None, "--workers is for the engines processes and ray"),
        (None, None, "auto", "Add --engine ray"),
        ("processes", 0, None, "workers is 0; expected a whole number from 1 to 1,024"),
        ("spark", None, None, "engine is 'spark'; expected one of threads, processes, ray"),
    ):
        with pytest.raises(InputError, match=message):
            executor_for(engine, n, address)


# --- pass 1


@pytest.mark.parametrize("where", [None, "id % 3 <> 0"])
@pytest.mark.parametrize("kind", ["table", "joined", "memory"])
def test_the_state_is_the_same_to_the_bit_in_threads_and_processes(images, data, workers, kind, where):
    source = open_source(images)
    if kind == "memory":
        if where:
            pytest.skip("data in memory have no filters")
        source = get_connector("arrow").wrap(data)
    if kind == "joined":
        make_table(images, data.select(["id", "dino"]).take(np.arange(N)[::-1]), name="other")
        right = View(open_source(images, "other"), key="id", names={"dino": "dino"})
        source = Joined(View(source, key="id"), right, on_missing="drop")
    maps = [CosineMap(column, 24, True, "float32") for column in ("clip", "dino")]
    options = {"where": where, "batch_rows": 256, "threads": 2}
    rows, merged = [], []
    here = accumulate(source, maps, **options, progress=lambda n: None)
    there = accumulate(
        source,
        maps,
        **options,
        progress=rows.append,
        executor=workers,
        merged=lambda d: merged.append(d.n_units),
    )
    assert there.n_rows == here.n_rows == sum(rows) == source.count(where)
    assert len(rows) == len(merged) > (0 if kind == "memory" else 4)
    assert np.array_equal(np.triu(there.products), np.triu(here.products))
    assert np.array_equal(there.sums, here.sums)
    if kind == "table":  # interrupted after two units, and continued by others
        first = accumulate(source, maps, **options, progress=rows.append, units=units_of(source)[:2])
        there = accumulate(
            source, maps, **options, progress=rows.append, executor=workers, start=Progressed(first, 2)
        )
        assert np.array_equal(np.triu(there.products), np.triu(here.products))


# --- both passes


def test_a_comparison_in_processes_writes_the_same_columns_in_one_commit(images, workers):
    here = spec_store.compare("images", ["clip", "dino"], db=str(images), write=True, **OPTIONS)
    version = lancedb.connect(images).open_table("images").version
    seen = []
    there = spec_store.compare(
        "images", ["clip", "dino"], db=str(images), write=True, executor=workers, prefix="again",
        progress=lambda *told: seen.append(told), **OPTIONS,
    )  # fmt: skip
    table = read(images)
    for name in ("cluster", "clusters", "side", "score", "scores"):
        assert table[f"again_{name}"] == table[f"spec_clip_dino_{name}"]
    assert len(here.record.clusters) > 2
    assert [c.size for c in there.record.clusters] == [c.size for c in here.record.clusters]
    assert lancedb.connect(images).open_table("images").version - version <= 4
    written = [n for stage, n, _ in seen if stage == "write" and n]
    assert len(written) == 4  # fragments
    assert sum(written) == there.n_rows
    assert not any("more workers than work" in w for w in there.warnings)


def test_models_alignments_files_and_recorded_runs_take_processes_too(images, workers, tmp_path):
    db = str(images)
    here, there = (
        spec_store.compare("images", ["clip", "dino"], db=db, out=tmp_path / f"{i}.parquet", write=True,
                           executor=executor, **OPTIONS)
        for i, executor in enumerate((IN_PROCESS, workers))
    )  # fmt: skip
    assert here.record.clusters == there.record.clusters
    assert pa.parquet.read_table(tmp_path / "0.parquet") == pa.parquet.read_table(tmp_path / "1.parquet")
    run = spec_store.compare_models(
        "images", ["clip", "dino"], pairs="all", db=db, write=True, executor=workers, **OPTIONS
    )
    spec_store.compare_again(
        run.run_id, db=db, write=True, executor=workers, prefix="again", pair=["clip", "dino"]
    )
    for name, executor in (("threads", IN_PROCESS), ("processes", workers)):
        spec_store.align(
            "images", "clip", "dino", db=db, key="id", column=name, kind="affine", force=True, write=True,
            executor=executor,
        )  # fmt: skip
    table = read(images)
    assert table["again_cluster"] == table["spec_clip_dino_cluster"]
    assert table["threads"] == table["processes"]


def test_updates_share_out_what_they_read_and_write(images, workers, data):
    db, table = str(images), lancedb.connect(images).open_table("images")
    for prefix in ("here", "there"):
        spec_store.compare("images", ["clip", "dino"], db=db, write=True, prefix=prefix, **OPTIONS)
    table.add(data.slice(0, 300).set_column(0, "id", pa.array(np.arange(9000, 9300))))
    dataset = table.to_lance()
    dataset.cleanup_old_versions(older_than=timedelta(0), delete_unverified=True)  # what changed is not known
    (one,) = spec_store.update("images", prefix="here", db=db)
    (two,) = spec_store.update("images", prefix="there", db=db, executor=workers)
    assert one.state == two.state == "read again"
    assert one.n_rows == two.n_rows == table.count_rows()
    assert one.coverage == two.coverage
    found = read(images)
    for name in ("cluster", "clusters", "side", "score", "scores"):
        assert found[f"here_{name}"] == found[f"there_{name}"]
    assert found["there_score"].null_count == 0


def test_fewer_parts_than_workers_are_told(tmp_path, data):
    make_table(tmp_path, data)
    with Processes(2) as executor:
        run = spec_store.compare(
            "images", ["clip", "dino"], db=str(tmp_path), write=True, executor=executor, **OPTIONS
        )
    told = [w for w in run.warnings if "more workers than work" in w]
    assert [w.split(" for 2 processes")[0] for w in told] == [
        "there are 1 parts in pass 1",
        "there are 1 fragments to be written",
    ]


def test_data_in_memory_are_sent_with_a_warning_where_they_are_large(data, workers, monkeypatch):
    monkeypatch.setattr("spec_store.workflows.executor._LARGE_SOURCE", 1 << 19)
    run = spec_store.compare(data, ["clip", "dino"], executor=workers, **OPTIONS)
    assert any("is held in memory, and 1 MB of it are sent to each of 2 processes" in w for w in run.warnings)


# --- what goes wrong in pass 2


def scores(executor, **what):
    return Annotation(
        schema=pieces.Scores.schema, reads=("id",), compute=pieces.Scores(**what), token="t" * 24,
        metadata={"spec_store.run": "run-1"}, executor=executor, batch_rows=200,
    )  # fmt: skip


def test_a_worker_that_dies_while_it_writes_leaves_the_table_as_it_was(images, workers):
    before = data_files(images), lancedb.connect(images).open_table("images").version
    with pytest.raises(RetryError, match="was ended by SIGKILL"):
        open_source(images).annotate(scores(workers, die_at=3100))
    files = {name: digest for name, digest in data_files(images).items() if not name.startswith(".tmp")}
    assert (files, lancedb.connect(images).open_table("images").version) == before
    assert leftovers(images) == NOTHING
    open_source(images).annotate(scores(workers))
    assert read(images)["r_number"].to_pylist() == [i % 1000 for i in range(N) if i % 11 != 5]


def test_rows_deleted_and_added_while_workers_write_are_as_their_writer_left_them(images, workers, data):
    table = lancedb.connect(images).open_table("images")

    def progress(rows):
        if table.version == version:
            table.delete("id < 20 OR id = 4000")
            table.add(
                pa.table({**{c: data[c].slice(0, 5) for c in data.column_names}, "id": np.arange(9000, 9005)})
            )

    version = table.version
    annotation = scores(workers)
    object.__setattr__(annotation, "progress", progress)
    assert open_source(images).annotate(annotation).attempts == 1
    found = read(images)
    kept = [i for i in range(20, N) if i % 11 != 5 and i != 4000]
    assert found["id"].to_pylist() == [*kept, *range(9000, 9005)]
    assert found["r_number"].to_pylist() == [i % 1000 for i in found["id"].to_pylist()]
