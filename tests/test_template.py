"""The connector template: installed as a package of its own, it passes the suite, and the command uses it."""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from planted import planted_mixture

TEMPLATE = Path(__file__).parents[1] / "examples" / "connector-template"


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Where the template is installed."""
    site = tmp_path_factory.mktemp("site")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    install += ["--no-deps", "--no-build-isolation", "--target", str(site), str(TEMPLATE)]
    subprocess.run(install, check=True, capture_output=True)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *sys.path])}


def test_the_template_passes_the_suite(environment, tmp_path):
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", str(TEMPLATE)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "28 passed" in done.stdout


def test_the_template_is_as_short_as_it_says():
    lines = (TEMPLATE / "spec_store_sqlite" / "__init__.py").read_text().splitlines()
    assert len(lines) <= 150


def test_what_the_template_wrote_is_listed_queried_and_undone_through_it(environment, tmp_path):
    a, b, groups = planted_mixture(800, n_groups=8, merged=2, d=16, seed=2)
    with sqlite3.connect(tmp_path / "rows.db") as db:
        db.execute("CREATE TABLE images (id INTEGER PRIMARY KEY, clip BLOB, dino BLOB, label TEXT)")
        rows = zip(range(800), (x.tobytes() for x in a), (y.tobytes() for y in b), groups, strict=True)
        db.executemany("INSERT INTO images VALUES (?, ?, ?, ?)", ((*r[:3], f"g{r[3]}") for r in rows))
    db.close()

    def command(name, *arguments, table=("--table", "images")):
        where = ["--connector", "sqlite", "--db", str(tmp_path / "rows.db"), *table]
        return subprocess.run(
            [str(Path(sys.executable).with_name("spec-store")), name, *where, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    found = json.loads(command("compare", "--cols", "clip,dino", "--dim", "60", "--key", "id", "--json"))
    with sqlite3.connect(tmp_path / "rows.db") as db:
        lists = [json.loads(row[0]) for row in db.execute("SELECT spec_clip_dino_clusters FROM images")]
    db.close()
    sizes = [c["size"] for c in found["clusters"]]
    assert np.bincount([j for members in lists for j in members])[1:].tolist() == sizes

    listed = json.loads(command("clusters", "--by", "label", "--json"))
    assert listed["run_id"] == found["run_id"]
    assert [c["size"] for c in listed["clusters"]] == sizes
    assert {e["value"] for c in listed["clusters"] for e in c["labels"]} <= {f"g{i}" for i in range(8)}
    rows = command("query", "--where", "spec_clip_dino_cluster = 1", "--select", "id", "--format", "json")
    assert len(rows.splitlines()) > 0
    (run,) = json.loads(command("runs", "--json"))
    assert (run["run_id"], run["status"], run["n_clusters"]) == (found["run_id"], "current", len(sizes))
    command("report", "-o", str(tmp_path / "page.html"), "--sample-rows", "200")
    page = (tmp_path / "page.html").read_text()
    assert page.count("<canvas") == 2
    assert page.count("<article") == len(sizes)
    assert "spec_clip_dino_scores" in command("undo", "--prefix", "spec_clip_dino")
    (run,) = json.loads(command("runs", "--json"))
    assert run["status"] == "removed"
    with sqlite3.connect(tmp_path / "rows.db") as db:
        assert [c[1] for c in db.execute("PRAGMA table_info(images)")] == ["id", "clip", "dino", "label"]
    db.close()
