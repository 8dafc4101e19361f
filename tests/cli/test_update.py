"""`update` and `status` as commands: what they print, exit codes, leftovers."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import lance
import pytest

from command import run
from lance_tables import NOTHING, leftovers, make_table
from lance_tables import rows as plain_rows

SMALL = ["--dim", "40", "--modes", "6", "--sample-rows", "1000", "--no-describe"]
TESTS = Path(__file__).parents[1]


@pytest.fixture
def compared(db, planted_table):
    run("compare", "--table", "images", "--cols", "clip,dino", *SMALL, db=db)
    return db


def add(db, planted_table, n=50):
    lance.write_dataset(planted_table.slice(0, n), f"{db}/images.lance", mode="append")


def test_status_and_update_tell_what_is_not_current_and_make_it_so(compared, planted_table):
    done = run("status", "--table", "images", "--check", db=compared)
    assert "all results are current" in done.stdout
    add(compared, planted_table)
    done = run("status", "--table", "images", "--check", db=compared, code=1)
    assert done.stdout.splitlines()[2].split()[-4:] == ["2,000", "50", "0", "0"]
    assert "spec-store update --table images" in done.stdout
    done = run("update", "--table", "images", db=compared)
    assert "spec_clip_dino (2,050 rows): 50 rows added to the state, 0 taken out" in done.stdout
    assert "results of 50 rows written" in done.stdout
    assert "Coverage of the added rows: clip 0." in done.stdout
    run("status", "--table", "images", "--check", db=compared)
    assert "nothing to write" in run("update", "--table", "images", db=compared).stdout


def test_as_json(compared, planted_table):
    add(compared, planted_table)
    found = json.loads(run("status", "--table", "images", "--json", db=compared).stdout)
    assert list(found) == ["table", "version", "n_rows", "results", "leftovers", "cleaned", "up_to_date"]
    assert found["up_to_date"] is False
    assert found["results"][0]["rows"] == {"current": 2000, "missing": 50, "stale": 0, "unknown": 0}
    (updated,) = json.loads(run("update", "--table", "images", "--json", "--refit", db=compared).stdout)
    keys = """kind prefix columns run_id version n_rows state n_added n_removed n_written coverage
        coverage_added angle advice changes warnings"""
    assert list(updated) == keys.split()
    assert (updated["kind"], updated["n_added"]) == ("compare", 50)
    assert set(updated["changes"]) == {"kept", "new", "gone"}


def test_a_table_without_results_is_told_of_and_counts_as_current(db):
    done = run("status", "--table", "images", "--check", db=db)
    assert "no results that a run is recorded for" in done.stdout
    assert (
        "spec-store compare or spec-store align first"
        in run("update", "--table", "images", db=db, code=1).stderr
    )


def test_what_killed_runs_left_is_named_and_cleaned(tmp_path):
    db = str(tmp_path)
    table = "images-STAGED"
    make_table(tmp_path, plain_rows(60), plain_rows(40, 60), name=table)
    command = [sys.executable, TESTS / "stopped_annotations.py", tmp_path, table]
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=TESTS, env=environment) as stopped:
        assert stopped.stdout.readline() == "stopped\n"
        assert json.loads(run("status", "--table", table, "--json", db=db).stdout)["leftovers"] == []
        stopped.send_signal(signal.SIGKILL)
    done = run("status", "--table", table, db=db)
    assert "3 files left by killed runs, --clean removes them" in done.stdout
    assert "3 files removed" in run("status", "--table", table, "--clean", db=db).stdout
    assert leftovers(tmp_path, table) == NOTHING
