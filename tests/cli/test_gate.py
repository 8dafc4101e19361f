"""`gate` as a command: what it prints, and what it exits with."""

import json

import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from command import run
from planted import unit, vectors

ASKED = ["gate", "--table", "images", "--source", "clip", "--target", "dino"]
FIT = ["--table", "images", "--source", "clip", "--target", "dino", "--key", "id"]
QUICK = ["--steps", "30", "--minibatch-rows", "512", "--held-out", "0.3"]


@pytest.fixture
def aligned(db):
    run("align", *FIT, *QUICK, db=db)
    return db


@pytest.fixture
def queries(db, tmp_path):
    table = lance.dataset(f"{db}/images.lance").to_table()
    near = [unit(np.stack(table[c].to_numpy())[::40] + 0.1) for c in ("clip", "dino")]
    right = [[i] for i in table["id"].to_pylist()[::40]]
    path = tmp_path / "queries.parquet"
    pq.write_table(pa.table({"q_clip": vectors(near[0]), "q_dino": vectors(near[1]), "right": right}), path)
    return path


def test_the_headline_is_a_sentence_and_the_last_line_the_verdict(aligned):
    lines = run(*ASKED, "--fail-under", "0", "--slice", "label = 'group 0'", db=aligned).stdout.splitlines()
    assert lines[0].startswith("After the switch a searcher of dino finds 0.")
    assert " of the 10 rows that full re-embedding would give (today: 0." in lines[0]
    assert "test rows stand in as queries, among all 2,000 rows. Map: run " in lines[1]
    assert lines[2].split("  ")[0] == "slice"
    assert lines[2].split()[-1] == "verdict"
    assert [line.split("  ")[0] for line in lines[3:5]] == ["all rows", "label = 'group 0'"]
    assert lines[-1] == "Passed."


def test_it_exits_with_1_if_a_slice_fails_and_names_its_rows(aligned):
    bar = ["--fail-under", "0.9", "--slice", "label = 'group 0'"]
    done = run(*ASKED, *bar, db=aligned, code=1)
    assert done.stdout.splitlines()[-1] == "Failed: all rows, label = 'group 0'."
    assert "\nRe-embed all 2,000 rows (then search overlap@10 1.00 [1.00, 1.00]).\n" in done.stdout
    found = json.loads(run(*ASKED, *bar, "--json", "--no-map", db=aligned, code=1).stdout)
    assert found["passed"] is False
    assert found["map"] is None
    assert found["n_re_embed"] == 2000
    assert found["failed"] == ["all rows", "label = 'group 0'"]


def test_ten_slices_are_printed_the_worst_first_unless_all_are_asked_for(aligned):
    slices = [x for i in range(13) for x in ("--slice", f"label = 'group {i}'")]
    done = run(*ASKED, *slices, "--fail-under", "0", db=aligned).stdout
    rows = [line.split("  ") for line in done.splitlines() if line.startswith("label = ")]
    shown = [float(next(c for c in row[1:] if "[" in c).split()[0]) for row in rows]
    assert len(shown) == 10
    assert shown == sorted(shown)
    assert "… and 3 better slices: --all." in done
    assert "What to re-embed first" not in done
    everything = run(*ASKED, *slices, "--fail-under", "0", "--all", db=aligned).stdout
    assert sum(line.startswith("label = ") for line in everything.splitlines()) > 13  # and the plan
    assert "What to re-embed first:" in everything


def test_a_budget_prints_the_filter_of_the_rows_to_re_embed_first(aligned):
    slices = [x for i in range(4) for x in ("--slice", f"label = 'group {i}'")]
    done = run(*ASKED, *slices, "--fail-under", "0", "--budget", "10%", db=aligned).stdout
    assert "What to re-embed first, at most 200 rows:" in done
    assert "The plan's 1" in done
    assert "]): (label = 'group " in done
    assert "Larger than what is left of the budget: label = 'group " in done


def test_real_queries_are_searched_for_in_the_whole_table(aligned, queries):
    given = ["--queries", queries, "--query-source", "q_clip", "--query-target", "q_dino"]
    done = run(
        *ASKED, *given, "--fail-under", "0", "--relevant", "right", "--cutoff", "0.5", db=aligned
    ).stdout
    lines = done.splitlines()
    assert lines[1].startswith("50 real queries, among all 2,000 rows; slices: ")
    assert lines[2].split("  ")[0] == "queries"
    ways = [line.split("  ")[0] for line in lines[3:6]]
    assert ways == ["do nothing", "mapped", "re-embedded"]
    assert "nDCG@10" in lines[2]
    assert "recall@10" in lines[2]
    assert any(line.startswith("Cut-off 0.5 becomes 0.") for line in lines)


def test_without_a_map_nothing_is_said_of_a_switch_that_has_one(db):
    lines = run(*ASKED, "--no-map", "--fail-under", "0", db=db).stdout.splitlines()
    assert lines[0].startswith("Without a map or re-embedding a searcher, still of clip, finds 0.")
    assert "today" not in lines[0]
    assert "Map: none" in lines[1]
    assert "twin recall" not in lines[2]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--map", "x", "--no-map"], "not both"),
        (["--relevant", "right"], "--relevant is a column of --queries"),
        (["--query-target", "q"], "--query-target is a column of --queries"),
        (["--budget", "much"], "expected a number of rows"),
        (["--k", "ten"], "not a valid integer"),
    ],
)
def test_usage_errors_exit_with_2(db, arguments, said):
    done = run(*ASKED, *arguments, db=db, code=2)
    assert said in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Run spec-store align"),
        (["--no-map", "--k", "2000"], "k is 2000; table 'images'"),
        (["--no-map", "--fail-under", "80"], "fail_under is 80.0; expected a share from 0 to 1"),
        (["--no-map", "--queries", "x.parquet", "--query-target", "q"], "without query_source"),
        (["--no-map", "--queries", "x.parquet", "--query-target", "q", "--query-source", "p"], "x.parquet"),
    ],
)
def test_failures_exit_with_1_and_one_line_on_stderr(db, arguments, said):
    done = run(*ASKED, *arguments, db=db, code=1)
    assert done.stdout == ""
    assert done.stderr.startswith("Error: ")
    assert said in done.stderr
