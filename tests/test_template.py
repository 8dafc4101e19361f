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
    assert "20 passed" in done.stdout


def test_the_template_is_as_short_as_it_says():
    lines = (TEMPLATE / "spec_store_sqlite" / "__init__.py").read_text().splitlines()
    assert len(lines) <= 120


def test_the_command_compares_and_annotates_through_the_template(environment, tmp_path):
    a, b, _ = planted_mixture(800, n_groups=8, merged=2, d=16, seed=2)
    with sqlite3.connect(tmp_path / "rows.db") as db:
        db.execute("CREATE TABLE images (id INTEGER PRIMARY KEY, clip BLOB, dino BLOB)")
        rows = ((i, x.tobytes(), y.tobytes()) for i, (x, y) in enumerate(zip(a, b, strict=True)))
        db.executemany("INSERT INTO images VALUES (?, ?, ?)", rows)
    db.close()
    command = [str(Path(sys.executable).with_name("spec-store"))]
    listed = subprocess.run(
        [*command, "connectors", "--json"], env=environment, capture_output=True, text=True, check=True
    )
    assert {c["name"]: c["package"] for c in json.loads(listed.stdout)}["sqlite"] == "spec-store-sqlite"
    where = ["--connector", "sqlite", "--db", str(tmp_path / "rows.db"), "--table", "images"]
    done = subprocess.run(
        [*command, "compare", *where, "--cols", "clip,dino", "--dim", "60", "--json"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "the run is not recorded" in done.stderr
    found = json.loads(done.stdout)["clusters"]
    with sqlite3.connect(tmp_path / "rows.db") as db:
        lists = [json.loads(row[0]) for row in db.execute("SELECT spec_clip_dino_clusters FROM images")]
    db.close()
    assert np.bincount([j for members in lists for j in members]).tolist() == [c["size"] for c in found]
