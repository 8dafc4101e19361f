"""A run that is killed, other processes that write, disks that are full: nothing is ever lost."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import lance
import lancedb
import numpy as np
import pytest
from lancedb.index import BTree, IvfFlat

from lance_tables import (
    NOTHING,
    SCHEMA,
    annotation,
    assert_annotated,
    contents,
    data_files,
    leftovers,
    make_table,
    open_source,
    rows,
)

TESTS = Path(__file__).parents[1]


ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}
# Runs that are killed at random moments; SPEC_STORE_ROUNDS=20 for all.
ROUNDS = int(os.environ.get("SPEC_STORE_ROUNDS", "4"))


def start(script, *arguments):
    command = [sys.executable, str(TESTS / script), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)


def test_runs_killed_at_random_moments_lose_nothing_and_the_next_completes(tmp_path):
    table = make_table(tmp_path, *(rows(300, start=300 * i) for i in range(4)))
    table.delete("id % 11 = 5")
    expected = {i: row["payload"] for i, row in contents(tmp_path).items()}
    before = data_files(tmp_path)
    moments = np.random.default_rng(7).uniform(0, 1.6, size=ROUNDS)
    killed = 0
    for moment in moments:
        run = start("slow_annotation.py", tmp_path, 0.02)
        assert run.stdout.readline() == "ready\n"
        try:
            run.wait(timeout=moment)
        except subprocess.TimeoutExpired:
            run.send_signal(signal.SIGKILL)
            killed += 1
        run.wait()
        run.stdout.close()
        lance.dataset(tmp_path / "images.lance").validate()
        assert {i: row["payload"] for i, row in contents(tmp_path).items()} == expected
        after = data_files(tmp_path)
        assert {name: after[name] for name in before} == before
        table = lancedb.connect(tmp_path).open_table("images")
        assert table.count_rows() == len(expected)
    assert killed >= 0.7 * ROUNDS
    open_source(tmp_path).annotate(annotation())
    assert_annotated(tmp_path, ids=list(expected))
    assert leftovers(tmp_path) == NOTHING


def test_what_a_killed_run_staged_serves_the_next_run_with_the_same_token(tmp_path):
    make_table(tmp_path, *(rows(300, start=300 * i) for i in range(4)))
    run = start("slow_annotation.py", tmp_path, 0.1)
    assert run.stdout.readline() == "ready\n"
    ledger = tmp_path / "images.lance" / "_spec_store"
    while not any(p.read_text().count("staged") >= 2 for p in ledger.glob("*.jsonl")):
        assert run.poll() is None
    run.kill()
    run.wait()
    run.stdout.close()
    inner, computed = annotation().compute, []

    def count(batch):
        computed.append(len(batch))
        return inner(batch)

    open_source(tmp_path).annotate(annotation(count))
    assert_annotated(tmp_path)
    assert sum(computed) <= 600
    assert leftovers(tmp_path) == NOTHING


def test_what_a_killed_run_staged_for_other_results_is_removed(tmp_path):
    make_table(tmp_path, *(rows(300, start=300 * i) for i in range(3)))
    run = start("slow_annotation.py", tmp_path, 0.1)
    assert run.stdout.readline() == "ready\n"
    while not leftovers(tmp_path)[0]:
        assert run.poll() is None
    run.kill()
    run.wait()
    run.stdout.close()
    open_source(tmp_path).annotate(annotation(token="z" * 24))
    assert_annotated(tmp_path)
    assert leftovers(tmp_path) == NOTHING


def test_a_second_process_that_appends_deletes_and_updates_throughout(tmp_path):
    make_table(tmp_path, rows(300), rows(300, 300), rows(300, 600))
    writer = start("busy_writer.py", tmp_path)
    runs = 0
    try:
        for _ in range(3):
            source = open_source(tmp_path)
            source.annotate(annotation(token=f"{runs}" * 24))
            runs += 1
    finally:
        (tmp_path / "stop").touch()
        log = json.loads(writer.communicate(timeout=60)[0])
    assert writer.returncode == 0
    expected = set(range(900)) | set(range(10_000, log["next_id"]))
    found = contents(tmp_path)
    assert set(found) == expected - set(log["deleted"])
    open_source(tmp_path).annotate(annotation(token="y" * 24))
    assert_annotated(tmp_path, ids=sorted(expected - set(log["deleted"])))
    for i in log["touched"]:
        assert contents(tmp_path)[i]["clip"][0] == i


def test_indices_that_stood_before_cover_what_they_covered_and_answer_the_same(tmp_path):
    table = make_table(tmp_path, rows(400), rows(200, 400))
    table.create_index("id", config=BTree())
    table.create_index("clip", config=IvfFlat(num_partitions=4))
    table.add(rows(50, 600))

    def coverage():
        indices = lance.dataset(tmp_path / "images.lance").describe_indices()
        return {i.name: sorted(f for s in i.segments for f in s.fragment_ids) for i in indices}

    def answers():
        found = lancedb.connect(tmp_path).open_table("images")
        search = found.search([0.1, 0.2, 0.3, 0.4], vector_column_name="clip").nprobes(4).limit(20)
        return [row["id"] for row in search.to_list()]

    covered, nearest = coverage(), answers()
    assert covered == {"id_idx": [0, 1], "clip_idx": [0, 1]}
    for token in ("a" * 24, "b" * 24):
        open_source(tmp_path).annotate(annotation(token=token))
        assert coverage() == covered
        assert answers() == nearest


FULL_DISK = """
import resource, sys
from lance_tables import annotation, open_source
from spec_store.errors import RetryError
source = open_source(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    source.annotate(annotation())
except RetryError as error:
    print(error)
"""


def test_no_space_in_the_middle_publishes_nothing_and_says_so(tmp_path):
    make_table(tmp_path, rows(300), rows(20_000, 300))
    version, before = lance.dataset(tmp_path / "images.lance").version, data_files(tmp_path)
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=True).stdout
    assert "No space is left" in said
    assert "Nothing was published" in said
    assert lance.dataset(tmp_path / "images.lance").version == version
    assert data_files(tmp_path) == before
    assert leftovers(tmp_path) == NOTHING


FULL_WHEN_PUBLISHING = """
import resource, signal, sys
from lance_tables import annotate_observed
from spec_store.errors import RetryError
from spec_store_lancedb.annotate import Step
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
def fill(step):
    if step is Step[sys.argv[2]]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    annotate_observed(sys.argv[1], fill)
except RetryError as error:
    print(error)
"""


@pytest.mark.parametrize("step", ["DRY_RUN", "COLUMNS_ADDED"])
def test_no_space_while_publishing_leaves_what_the_message_says(tmp_path, step):
    make_table(tmp_path, rows(300), rows(200, 300))
    before = data_files(tmp_path)
    command = [sys.executable, "-c", FULL_WHEN_PUBLISHING, str(tmp_path), step]
    said = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=True).stdout
    assert "No space is left" in said
    if step == "DRY_RUN":
        assert "Nothing was published, and what was staged is removed" in said
        assert lance.dataset(tmp_path / "images.lance").schema.names == ["id", "clip", "dino", "payload"]
    else:  # removing the null columns takes a commit, for which there is no room either
        assert "the next run or undo on this table does that" in said
        open_source(tmp_path).undo(["r_number"])
    assert data_files(tmp_path) == before
    assert leftovers(tmp_path) == NOTHING
    assert open_source(tmp_path).schema.names == ["id", "clip", "dino", "payload"]


READ_ONLY = """
import sys
from privileges import obey_permissions
obey_permissions()
from lance_tables import SCHEMA, open_source
source = open_source(sys.argv[1])
try:
    source.check_annotation(SCHEMA)
except Exception as error:
    print(type(error).__name__, error)
"""


def test_a_read_only_folder_is_refused_before_any_work(tmp_path):
    make_table(tmp_path, rows(10))
    for path in [tmp_path, *tmp_path.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    command = [sys.executable, "-c", READ_ONLY, str(tmp_path)]
    found = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    for path in [tmp_path, *tmp_path.rglob("*")]:
        path.chmod(0o755)
    assert "InputError Table 'images'" in found.stdout, found.stderr
    assert "can't be written: Permission denied" in found.stdout


@pytest.mark.parametrize("missing", ["clip", "r_number"])
def test_columns_that_vanish_in_the_midst_are_an_error_and_not_a_mess(tmp_path, missing):
    make_table(tmp_path, rows(300))
    if missing == "r_number":
        open_source(tmp_path).annotate(annotation(token="q" * 24))
    inner, once = annotation().compute, threading.Lock()

    def compute(batch):
        if once.acquire(blocking=False):
            lance.dataset(tmp_path / "images.lance").drop_columns([missing])
        return inner(batch)

    if missing == "r_number":
        open_source(tmp_path).annotate(annotation(compute))
        assert_annotated(tmp_path)
    else:
        with pytest.raises(Exception, match="clip"):
            open_source(tmp_path).annotate(annotation(compute))
        names = lance.dataset(tmp_path / "images.lance").schema.names
        assert not set(SCHEMA.names) & set(names)
    assert leftovers(tmp_path) == NOTHING
