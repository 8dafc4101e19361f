"""`compare` of several columns, of a recorded run, and of two times, as a person calls it."""

import json

import lance
import lancedb
import numpy as np
import pyarrow as pa
import pytest

import spec_store
from command import run
from planted import planted_mixture, vectors

SMALL = ["--dim", "60", "--sample-rows", "700", "--key", "id"]


@pytest.fixture
def db(tmp_path):
    a, b, groups = planted_mixture(700, n_groups=8, merged=2, d=24, seed=5)
    c = a @ np.random.default_rng(1).standard_normal((24, 10)).astype(np.float32)
    columns = {"clip": vectors(a), "dino": vectors(b), "siglip": vectors(c)}
    table = pa.table({"id": np.arange(700), **columns, "label": [f"group {g}" for g in groups]})
    lancedb.connect(tmp_path).create_table("images", table)
    return str(tmp_path)


def compare(db, *arguments, code=0):
    return run("compare", *arguments, db=db, code=code)


def newest(db):
    return spec_store.list_runs(db=db)["run_id"][0].as_py()


def test_three_columns_give_a_table_of_pairs_and_the_command_for_clusters(db):
    lines = compare(db, "--table", "images", "--cols", "clip,dino,siglip", *SMALL).stdout.splitlines()
    assert lines[0].startswith("clip, dino, siglip: 700 rows of table 'images'")
    assert lines[1].split() == ["first", "second", "SPEC-diff", "centred", "CKA", "unbiased", "CKA"]
    assert {tuple(line.split()[:2]) for line in lines[2:5]} == {
        ("clip", "dino"),
        ("clip", "siglip"),
        ("dino", "siglip"),
    }
    assert lines[-2].startswith("Recorded in ")
    following = lines[-1].removeprefix("Next: spec-store compare ").split()
    shown = compare(db, *following, "--dry-run").stdout
    assert "clip groups" in shown
    assert "Dry run: nothing was written." in shown
    assert lance.dataset(f"{db}/images.lance").version == 1


def test_pairs_are_written_and_told_of(db):
    several = ["--table", "images", "--cols", "clip,dino,siglip", *SMALL]
    shown = compare(db, *several, "--pairs", "clip:dino").stdout
    assert "\nclip against dino\nclip groups" in shown
    assert "Wrote spec_clip_dino_…" in shown
    assert "label group" in shown or "(group " in shown
    found = compare(db, *several, "--pairs", "all", "--json", "--dry-run").stdout
    parsed = json.loads(found)
    assert [entry["columns"] for entry in parsed["comparisons"]] == [
        ["clip", "dino"],
        ["clip", "siglip"],
        ["dino", "siglip"],
    ]
    assert parsed["comparisons"][0]["clusters"][0]["size"] > 0
    assert len(parsed["matrix"]) == 3


def test_a_recorded_run_answers_with_kodas_ratios(db):
    compare(db, "--table", "images", "--cols", "clip,dino", *SMALL)
    shown = compare(
        db, "--from-run", newest(db), "--objective", "koda", "--epsilon", "1%", "--dry-run"
    ).stdout
    assert "clip : dino in energy: first direction " in shown
    assert " : 1" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--cols", "clip,dino,siglip", "--out", "x.parquet"], "--out takes two columns; --cols names 3"),
        (
            ["--table", "images", "--cols", "clip,dino", "--pairs", "all"],
            "--pairs is for more than two columns",
        ),
        (["--table", "images"], "Name the embedding columns with --cols"),
        (["--cols", "clip,dino,siglip", "--pairs", "clip"], "neither all nor first nor pairs"),
        (["--cols", "clip,dino,siglip"], "Name a --table"),
        (["--against-run", "x"], "takes --from-run OLD, --against-run NEW and --column NAME"),
    ],
)
def test_what_can_not_be_meant_is_a_usage_error(db, arguments, said):
    assert said in compare(db, *arguments, code=2).stderr


def test_options_of_the_state_are_refused_by_name(db):
    compare(db, "--table", "images", "--cols", "clip,dino", *SMALL)
    told = compare(db, "--from-run", newest(db), "--kernel", "cosine", code=2).stderr
    assert "--kernel can't go with --from-run" in told
    told = compare(db, "--from-run", newest(db), "--table", "other", code=2).stderr
    assert "is of table 'images', not of 'other'" in told


def test_what_is_new_is_told_in_a_line_each(db):
    common = ["--table", "images", "--cols", "clip,dino", *SMALL]
    compare(db, *common, "--prefix", "new")
    new = newest(db)
    compare(db, *common, "--prefix", "old", "--where", "label != 'group 3'", "--maps-from", new)
    old = newest(db)
    times = ["--from-run", old, "--against-run", new, "--column", "clip"]
    lines = compare(db, *times).stdout.splitlines()
    assert lines[0].startswith(f"clip: 700 rows of run {new} against ")
    assert lines[2].startswith(" more: 0.00% of the rows then, ")
    assert "(label group 3)" in lines[2] or "(group 3)" in lines[2]
    assert json.loads(compare(db, *times, "--json").stdout)["groups"][0]["kind"] == "more"
    nothing = compare(db, "--from-run", new, "--against-run", new, "--column", "dino").stdout
    assert "No group of rows has become more or less frequent" in nothing
