"""What a type checker tells those who use the package."""

import dataclasses
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest

import spec_store
from spec_store.alignment.fit import FitOptions
from spec_store.keywords import AgainKeywords, AlignKeywords, CompareKeywords, GateKeywords, ReportKeywords
from spec_store.workflows.again import CHANGEABLE

ROOT = Path(__file__).parents[1]

RIGHT = """
from pathlib import Path

import lance
import lancedb
import numpy as np
import polars

import spec_store

db = lancedb.connect("lancedb")
run = spec_store.compare("images", ["clip", "dino"], db=db, kernel="cosine", modes=20)
reveal_type(run)  # Comparison
reveal_type(run.write(out=Path("scores.parquet")))  # Comparison
reveal_type(run.eigenvalues)  # Mapping[str, Sequence[float]]
reveal_type(run.record)  # ComparisonRecord
reveal_type(run.record.with_stage({}))  # ComparisonRecord
reveal_type(run.record.mismatch["clip"]["mass"])  # float
cluster = run.record.clusters[0]
reveal_type(cluster)  # ClusterRecord
if cluster.seen_by_other and cluster.over_represented and cluster.intervals:
    reveal_type(cluster.seen_by_other["kind"])  # Literal['merged'] | Literal['split'] | Literal['scattered']
    reveal_type(cluster.seen_by_other["clusters"][0]["share"])  # float
    reveal_type(cluster.over_represented[0]["count"])  # int
    reveal_type(cluster.intervals["capture"]["clip"])  # Sequence[float | None]

models = spec_store.compare_models("images", ["clip", "dino", "siglip"], pairs="all")
reveal_type(models)  # ModelComparison
reveal_type(models.pair("clip", "dino"))  # Comparison
reveal_type(spec_store.compare_again(run.run_id, modes=10, eta=0.5))  # Comparison
reveal_type(spec_store.report("images", "report.html", show=["label"]))  # Path
reveal_type(spec_store.export("images", "sample.parquet").projections)  # dict[str, tuple[str, str]]

alignment = spec_store.align("images", "clip", "dino", kind="affine", steps=10, progress=None)
reveal_type(alignment)  # Alignment
reveal_type(alignment.after.search_10)  # float
gate = spec_store.gate("images", "clip", "dino", slices=["label = 'cat'"], budget="10%")
reveal_type(gate)  # Gate
reveal_type(gate.overall.search_overlap.value)  # float | None
reveal_type(spec_store.update("images"))  # list[Updated | UpdatedClusters]
reveal_type(spec_store.members("images", 1)[1])  # Members
reveal_type(spec_store.clusters("images").run)  # ComparisonRecord
reveal_type(spec_store.undo("images", prefix="spec_clip_dino"))  # list[str]
reveal_type(spec_store.load_map("map.npz"))  # AlignmentMap

columns = ["a", "b"]
spec_store.compare(db.open_table("images"), columns, progress=lambda stage, rows, total: None)
spec_store.compare(lance.dataset("images.lance"), columns)
spec_store.compare(polars.DataFrame(), columns)
spec_store.compare(polars.LazyFrame(), columns)
spec_store.compare({"a": np.zeros((3, 2)), "b": [[1.0, 2.0]], "name": ["x"]}, columns)
spec_store.compare([{"a": [1.0], "b": [2.0]}], columns)
spec_store.compare(Path("rows.parquet"), columns, db=spec_store.Location("x", "lancedb"))
spec_store.compare(None, columns, out="scores.parquet")


async def opened() -> None:
    connection = await lancedb.connect_async("lancedb")
    spec_store.compare(await connection.open_table("images"), columns)
    spec_store.compare("images", columns, db=connection)
"""

WRONG = """
import spec_store

columns = ["a", "b"]
spec_store.compare("images", columns, dims=60)  # call-arg
spec_store.compare("images", columns, kernel="gauss")  # arg-type
spec_store.compare("images", columns, progress="yes")  # arg-type
spec_store.compare(3, columns)  # arg-type
spec_store.compare("images", columns, db=3)  # arg-type
spec_store.align("images", "a", "b", steps="many")  # arg-type
spec_store.gate("images", "a", "b", queries=3.5)  # arg-type
spec_store.gate("images", "a", "b", slice="id > 3")  # call-arg
spec_store.compare_again("20260131T120000-5f3a2b", kernel="cosine")  # call-arg
spec_store.export("images", "sample.parquet", projection="umap")  # arg-type
"""


def expected(script):
    """By line, what its comment says."""
    lines = enumerate(script.splitlines(), start=1)
    return {number: line.split("  # ")[1] for number, line in lines if "  # " in line}


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """What mypy says of both scripts, checked as a user's are: without this repository's settings."""
    folder = tmp_path_factory.mktemp("types")
    (folder / "right.py").write_text(RIGHT)
    (folder / "wrong.py").write_text(WRONG)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--explicit-package-bases"]
    done = subprocess.run(
        [*command, "right.py", "wrong.py"],
        cwd=folder,
        env={**os.environ, "MYPYPATH": f"{ROOT}:{ROOT}/connectors"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "error" in done.stdout, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_public_calls_have_the_types_that_a_language_server_shows(checked):
    said = [re.match(r'right\.py:(\d+): note: Revealed type is "(.+)"$', line) for line in checked]
    shown = {int(m[1]): re.sub(r"\b(?:\w+\.)+(?=\w)", "", m[2]) for m in said if m}
    assert shown == expected(RIGHT)
    assert not [line for line in checked if line.startswith("right.py") and "Revealed" not in line]


def test_misspelt_options_and_wrong_arguments_are_errors(checked):
    said = [re.match(r"wrong\.py:(\d+): error: .*\[(.+)\]$", line) for line in checked]
    assert {int(m[1]): m[2] for m in said if m} == expected(WRONG)


@pytest.mark.parametrize(
    ("keywords", "options", "wider"),
    [
        (CompareKeywords, [spec_store.CompareOptions], set()),
        (AlignKeywords, [spec_store.AlignOptions, FitOptions], {"kind", "fidelity"}),
        (GateKeywords, [spec_store.GateOptions], {"slices"}),
        (ReportKeywords, [spec_store.ReportOptions], {"show"}),
    ],
)
def test_keywords_are_the_fields_of_the_options(keywords, options, wider):
    fields = {}
    for kind in options:
        hints = get_type_hints(kind)
        fields |= {f.name: hints[f.name] for f in dataclasses.fields(kind)}
    fields.pop("fit", None)
    found = get_type_hints(keywords)
    assert set(found) == set(fields)
    assert {name for name in fields if found[name] != fields[name]} == wider


def test_what_can_change_when_a_run_is_asked_again_are_options_of_a_comparison():
    changes, options = get_type_hints(AgainKeywords), get_type_hints(CompareKeywords)
    assert set(changes) == set(CHANGEABLE)
    assert changes.items() <= options.items()


def test_no_public_function_takes_or_gives_any():
    for name in spec_store.__all__:
        public = getattr(spec_store, name)
        if inspect.isfunction(public):
            for parameter, annotation in public.__annotations__.items():
                precise = str(annotation).replace("NDArray[Any]", "")  # arrays of any number type
                assert not re.search(r"\bAny\b", precise), f"{name}({parameter}: {annotation})"
