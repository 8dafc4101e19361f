"""The command line: what it prints, where, and with which exit code."""

import json
from pathlib import Path

import lance
import pyarrow.parquet as pq
import pytest

from command import interrupted_while_staging, run
from lance_tables import NOTHING, leftovers
from spec_store.cli import main

SMALL = ["--dim", "60", "--sample-rows", "1500"]


@pytest.fixture(scope="module")
def annotated(tmp_path_factory, planted_table):
    """A database on which `compare` has run."""
    import lancedb

    folder = tmp_path_factory.mktemp("annotated")
    lancedb.connect(folder).create_table("images", planted_table)
    run(
        "compare",
        "--table",
        "images",
        "--cols",
        "clip,dino",
        "--key",
        "id",
        "--index",
        *SMALL,
        db=str(folder),
    )
    return str(folder)


def test_compare_prints_results_on_stdout_and_nothing_on_stderr(db):
    done = run("compare", "--table", "images", "--cols", "clip, dino", *SMALL, db=db)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0] == f"clip against dino: 2,000 rows of table 'images' in {db}"
    assert lines[1].startswith("clip groups ")
    assert lines[3].startswith("SPEC-diff 0.")
    assert "  clip groups 1" in done.stdout
    assert ": together in dino." in done.stdout
    assert lines[-2].startswith("Wrote spec_clip_dino_cluster, _clusters, _side, _score, _scores in ")
    assert "Next: spec-store clusters --table images" in lines[-1]


def test_compare_json_is_one_object_with_the_documented_keys(db):
    found = json.loads(
        run("compare", "--table", "images", "--cols", "clip,dino", "--json", *SMALL, db=db).stdout
    )
    expected = """run_id table columns n_rows n_skipped fit objective kernel features bandwidth coverage
        map_error spec_diff spec_diff_centered cka mismatch average_pair n_candidates rejections eigenvalues
        cka_unbiased rounding mode_energies state_run references clusters rejected next_number changes
        skipped_columns state_version scored_version updates seconds written warnings"""
    assert list(found) == expected.split()
    assert set(found["bandwidth"]) == set(found["coverage"]) == set(found["eigenvalues"]) == {"clip", "dino"}
    keys = """cluster side strength energy where capture gap contrast cohesion intervals stability
        seen_by_other family share size top_rows name over_represented words"""
    assert list(found["clusters"][0]) == keys.split()
    assert set(found["seconds"]) == {"sample", "covariance", "solve", "clusters", "write"}
    counted = run(
        "query", "--table", "images", "--where", found["clusters"][0]["where"], "--format", "jsonl", db=db
    )
    assert len(counted.stdout.splitlines()) == found["clusters"][0]["size"]


def test_dry_run_prints_the_same_clusters_and_writes_nothing(db):
    version = lance.dataset(f"{db}/images.lance").version
    done = run("compare", "--table", "images", "--cols", "clip,dino", "--dry-run", "--json", *SMALL, db=db)
    found = json.loads(done.stdout)
    assert found["written"] == []
    assert found["clusters"][0]["size"] > 0
    assert lance.dataset(f"{db}/images.lance").version == version
    assert not Path(db, "spec_store_runs.lance").exists()


def test_clusters_and_runs_tell_what_was_found(annotated):
    done = run("clusters", "--table", "images", "--by", "label", db=annotated)
    assert "over-represented" in done.stdout
    assert "group" in done.stdout
    assert "merged with" in run("clusters", "--table", "images", db=annotated).stdout
    found = json.loads(run("clusters", "--table", "images", "--json", db=annotated).stdout)
    assert len(found["clusters"][0]["top_rows"]) == 10
    assert int(found["clusters"][0]["top_rows"][0]) >= 1000
    runs = json.loads(run("runs", "--json", db=annotated).stdout)
    assert runs[0]["run_id"] == found["run_id"]
    assert "spec_clip_dino" in run("runs", db=annotated).stdout


def test_query_writes_every_format(annotated, tmp_path):
    where = "spec_clip_dino_cluster = 1 AND spec_clip_dino_score > 0.8"
    table = run("query", "--table", "images", "--where", where, "--limit", "3", db=annotated).stdout
    assert len(table.splitlines()) == 4
    csv = run(
        "query",
        "--table",
        "images",
        "--where",
        where,
        "--format",
        "csv",
        "--select",
        "id,label",
        db=annotated,
    )
    assert csv.stdout.splitlines()[0] == "id,label"
    target = tmp_path / "rows.parquet"
    run("query", "--table", "images", "--where", where, "--format", "parquet", "-o", target, db=annotated)
    assert pq.read_table(target).num_rows == len(csv.stdout.splitlines()) - 1
    assert [p.name for p in tmp_path.iterdir()] == ["rows.parquet"]


def test_a_table_of_rows_is_cut_at_twenty_and_says_so(annotated):
    done = run("query", "--table", "images", db=annotated)
    assert len(done.stdout.splitlines()) == 21
    assert "The first 20 rows; --limit shows more." in done.stderr


def test_index_covers_the_cluster_column(annotated):
    indices = lance.dataset(f"{annotated}/images.lance").describe_indices()
    assert [i.field_names for i in indices] == [["spec_clip_dino_cluster"]]


def test_undo_removes_the_columns(db):
    run("compare", "--table", "images", "--cols", "clip,dino", *SMALL, db=db)
    assert (
        "Removed spec_clip_dino_cluster"
        in run("undo", "--table", "images", "--prefix", "spec_clip_dino", db=db).stdout
    )
    assert "spec_clip_dino_cluster" not in lance.dataset(f"{db}/images.lance").schema.names


def test_connectors_lists_name_package_version_and_capabilities():
    done = run("connectors")
    (line,) = [x for x in done.stdout.splitlines() if x.startswith("lancedb")]
    assert "spec-store" in line
    assert "annotate" in line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["compare", "--table", "image", "--cols", "clip,dino"], "No table 'image' in database"),
        (["compare", "--table", "images", "--cols", "clip,dyno"], "Did you mean 'dino'?"),
        (["compare", "--table", "images", "--cols", "clip"], "Two embedding columns"),
        (["compare", "--table", "images", "--cols", "clip,dino", "--bandwidth", "0,1"], "bandwidth is 0.0"),
        (["query", "--table", "images", "--where", "id <"], "The filter 'id <' can't be used"),
        (["query", "--table", "images", "--select", "labl"], "Did you mean 'label'?"),
        (["clusters", "--table", "images"], "Run spec-store compare first"),
        (["runs"], "Run spec-store compare first"),
        (["undo", "--table", "images", "--prefix", "x"], "has no result columns with prefix 'x'"),
        (["runs", "--db", "nowhere"], "nowhere"),
        (["query", "--table", "images", "--db", ""], "The database's path is empty"),
        (["compare", "--table", "images", "--cols", "clip,dino", "--seed", "-1"], "seed is -1; expected"),
        (
            ["compare", "--table", "images", "--cols", "clip,dino", "--batch-rows", "9" * 12],
            "batch_rows is 9",
        ),
        (
            ["align", "--table", "images", "--source", "clip", "--target", "dino", "--seed", "-1"],
            "seed is -1",
        ),
    ],
)
def test_failures_exit_with_1_and_one_line_on_stderr(db, arguments, said):
    done = run(*arguments, db=db, code=1)
    assert done.stdout == ""
    assert done.stderr.startswith("Error: ")
    assert said in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["compare", "--table", "images"],
        ["compare", "--table", "images", "--cols", "a,b", "--kernel", "laplace"],
        ["compare", "--table", "images", "--cols", "a,b", "--bandwidth", "wide"],
        ["query", "--table", "images", "--format", "parquet"],
        ["nosuch"],
    ],
)
def test_usage_errors_exit_with_2(db, arguments):
    assert "Usage:" in run(*arguments, db=db, code=2).stderr


def test_ctrl_c_leaves_the_table_untouched_and_exits_with_130(db):
    before = lance.dataset(f"{db}/images.lance").version
    code, said = interrupted_while_staging(
        "compare", "--table", "images", "--cols", "clip,dino", "--batch-rows", "1", *SMALL, db=db
    )
    assert code == 130
    assert "Interrupted. Nothing unfinished was left in the table." in said
    assert lance.dataset(f"{db}/images.lance").version == before
    assert leftovers(db) == NOTHING


def test_the_demo_makes_a_table_and_the_three_commands_make_sense_of_it(tmp_path):
    db = str(tmp_path)
    assert "1,797 images" in run("demo", db=db).stdout
    run("compare", "--table", "images", "--cols", "pixels,hog", db=db)
    found = run("clusters", "--table", "images", "--by", "label", db=db).stdout.splitlines()
    assert any("4 100%" in line for line in found)
    assert run("query", "--table", "images", "--where", "spec_pixels_hog_cluster = 1", db=db).stdout
    assert "Table 'images' exists" in run("demo", db=db, code=1).stderr


def test_help_of_every_command_says_what_it_does():
    listed = run("--help").stdout
    for name in main.commands:
        assert name in listed
        assert len(run(name, "--help").stdout.splitlines()) > 4
