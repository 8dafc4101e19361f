"""`align`, `update` and `compare --align` as commands: what they print, write and exit with."""

import json
import re
import subprocess
import sys

import lance
import lancedb
import numpy as np
import onnx
import pytest

from command import interrupted_while_staging, run
from lance_tables import NOTHING, leftovers

SMALL = ["--dim", "60", "--sample-rows", "1500"]
PAIR = ["--table", "images", "--source", "clip", "--target", "dino", "--key", "id"]
QUICK = ["--steps", "30", "--minibatch-rows", "512", "--held-out", "0.3"]


def names(db):
    return lance.dataset(f"{db}/images.lance").schema.names


def test_align_prints_every_map_writes_the_column_and_says_what_is_next(db):
    done = run("align", *PAIR, *QUICK, db=db)
    lines = done.stdout.splitlines()
    assert re.match(r"clip to dino: a query of dino finds \d+% of the 10 rows in mapped vectors", lines[0])
    start = next(i for i, line in enumerate(lines) if line.startswith("map "))
    names_shown = [line.split("  ")[0] for line in lines[start + 1 : start + 8]]
    assert [n.removesuffix(" *") for n in names_shown] == [
        *("none", "kernel", *(f"kernel, variance {share}%" for share in (0, 50, 100)), "ridge", "procrustes")
    ]
    assert sum(n.endswith(" *") for n in names_shown[1:5]) == 1
    assert "Wrote clip_as_dino" in lines[-2]
    assert lines[-1] == "Next: spec-store gate --table images --source clip --target dino"
    assert "clip_as_dino" in names(db)
    assert all(line.startswith("Warning: ") for line in done.stderr.splitlines())


def test_align_as_json(db):
    found = json.loads(run("align", *PAIR, *QUICK, "--json", "--index", db=db).stdout)
    assert set(found) == {
        *("run_id", "table", "columns", "column", "in_place", "n_train", "n_fitted", "n_aside", "n_held_out"),
        *(
            "n_judged",
            "n_skipped",
            "chosen",
            "better",
            "maps",
            "seconds",
            "written",
            "index_recall",
            "scored_version",
            "warnings",
        ),
    }
    assert set(found["maps"][0]) == {
        *("name", "search_10", "search_interval", "mismatch_mass", "spec_diff", "distance", "eigenvalues"),
        *("recall_1", "recall_10", "cosine_source", "cosine_target", "clusters"),
    }
    assert found["maps"][0]["recall_1"] is None
    assert 0.5 < found["index_recall"] <= 1
    assert set(found["seconds"]) == {"sample", "moments", "fit", "evaluate", "write", "index"}


def test_dry_run_and_export_touch_no_table_and_the_map_loads_without_any_store(db, tmp_path):
    before = lance.dataset(f"{db}/images.lance").version
    done = run("align", *PAIR, *QUICK, "--dry-run", "--export", tmp_path / "map.npz", db=db)
    assert "No column was written." in done.stdout
    assert f'spec_store.load_map("{tmp_path}/map.npz").transform(vectors)' in done.stdout
    assert lance.dataset(f"{db}/images.lance").version == before
    code = (
        "import sys, numpy, spec_store; f = spec_store.load_map(sys.argv[1]).transform(numpy.ones((3, 48)));"
        " print(f.shape, {'lance', 'lancedb', 'faiss'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "map.npz")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "(3, 48) set()\n"
    run("align", *PAIR, "--map", tmp_path / "map.npz", db=db)
    assert "clip_as_dino" in names(db)
    done = run("align", *PAIR, *QUICK, "--dry-run", "--export", tmp_path / "map.onnx", db=db)
    assert "an ONNX model from vectors to aligned" in done.stdout
    onnx.checker.check_model(str(tmp_path / "map.onnx"))


def test_one_command_prints_the_trade_off_over_the_fidelity(db):
    done = run("align", *PAIR, *QUICK, "--in-place", "--fidelity", "0,0.1,1", "--dry-run", db=db)
    shown = [line for line in done.stdout.splitlines() if line.startswith("affine, fidelity")]
    assert len(shown) == 3
    assert "*" not in done.stdout


def test_what_is_no_better_is_shown_and_not_written_unless_forced(db, tmp_path):
    import spec_store

    weights = np.random.default_rng(0).standard_normal((48, 48)).astype(np.float32)
    bad = spec_store.AlignmentMap(weights, np.full(48, 50, np.float32), np.zeros((48, 0), np.float32))
    bad.save(tmp_path / "bad.npz")
    done = run("align", *PAIR, "--map", tmp_path / "bad.npz", db=db, code=1)
    assert "given *" in done.stdout
    assert "No column was written." in done.stdout
    assert "Error: Not written: on the test rows 'clip_as_dino' has SPEC-diff" in done.stderr
    assert "clip_as_dino" not in names(db)
    run("align", *PAIR, "--map", tmp_path / "bad.npz", "--force", db=db)
    assert "clip_as_dino" in names(db)


def test_compare_then_align_in_one_go(db):
    few = ["--table", "images", "--cols", "clip,dino", "--where", "id < 1500", *SMALL]
    done = run("compare", *few, "--align", "dino:clip", db=db)
    assert "Wrote spec_clip_dino_cluster" in done.stdout
    assert "dino to clip: " in done.stdout
    assert "clusters that dino does not group: mismatch " in done.stdout
    assert {"spec_clip_dino_cluster", "dino_as_clip"} <= set(names(db))
    found = json.loads(run("compare", *few, "--align", "clip:dino", "--dry-run", "--json", db=db).stdout)
    assert found["alignment"]["columns"] == ["clip", "dino"]
    assert found["alignment"]["written"] == []


def test_compare_refuses_an_alignment_that_could_not_be_written_before_any_work(db):
    table = lancedb.connect(db).open_table("images")
    table.add_columns({"clip_as_dino": "id"})
    before = lance.dataset(f"{db}/images.lance").version
    done = run(
        *("compare", "--table", "images", "--cols", "clip,dino", "--align", "clip:dino"), db=db, code=1
    )
    assert "already has clip_as_dino, which spec-store did not write" in done.stderr
    assert lance.dataset(f"{db}/images.lance").version == before


def test_update_fills_late_rows(db):
    run("align", *PAIR, *QUICK, db=db)
    table = lancedb.connect(db).open_table("images")
    table.add(table.to_arrow().slice(0, 10).drop_columns(["clip_as_dino"]))
    done = run("update", "--table", "images", db=db)
    assert "10 rows filled, 0 still null; results of 10 rows written." in done.stdout
    (updated,) = json.loads(run("update", "--table", "images", "--json", db=db).stdout)
    assert (updated["n_filled"], updated["n_rows"]) == (0, 2010)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["align", *PAIR, "--fidelity", "0,1"], "--dry-run, without --export"),
        (["align", *PAIR, "--fidelity", "0,1", "--dry-run", "--export", "map.npz"], "without --export"),
        (["align", *PAIR, "--fidelity", "much"], "is not μ"),
        (["align", *PAIR, "--dry-run", "--index"], "--index has no use"),
        (["align", *PAIR, "--export", "absent/map.npz"], "there is no folder"),
        (["align", "--table", "images", "--source", "clip"], "--target"),
        (["compare", "--table", "images", "--cols", "clip,dino", "--align", "clip:dina"], "clip:dino"),
        (["compare", "--cols", "clip,dino", "--out", "x.parquet", "--align", "clip:dino"], "--out"),
    ],
)
def test_usage_errors_exit_with_2(db, arguments, said):
    done = run(*arguments, db=db, code=2)
    assert said in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["align", *PAIR[:-2], "--kind", "cubic"], "kind is 'cubic'"),
        (["align", "--table", "image", "--source", "clip", "--target", "dino"], "No table 'image'"),
        (["align", "--table", "images", "--source", "clap", "--target", "dino"], "Did you mean 'clip'?"),
        (["update", "--table", "images"], "run spec-store compare or spec-store align first"),
    ],
)
def test_failures_exit_with_1_and_one_line_on_stderr(db, arguments, said):
    done = run(*arguments, db=db, code=1)
    assert done.stdout == ""
    assert done.stderr.startswith("Error: ")
    assert said in done.stderr


def test_ctrl_c_leaves_the_table_untouched_and_exits_with_130(db):
    before = lance.dataset(f"{db}/images.lance").version
    code, said = interrupted_while_staging("align", *PAIR, *QUICK, "--batch-rows", "1", db=db)
    assert code == 130
    assert "must then say vector_column_name='clip'" in said  # warned of before it is written
    assert "Interrupted. Nothing unfinished was left in the table." in said
    assert lance.dataset(f"{db}/images.lance").version == before
    assert leftovers(db) == NOTHING
