"""What README says is what the software does."""

import dataclasses
import re
import shlex
from pathlib import Path

import click
import numpy as np
import pytest

import spec_store
from spec_store.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def commands_in(text):
    lines = [line.strip() for line in text.splitlines() if line.strip().startswith("spec-store ")]
    return [shlex.split(line.split("   #")[0]) for line in lines]


def test_readme_shows_the_three_commands_first():
    assert [c[1] for c in commands_in(README)][:3] == ["compare", "clusters", "query"]


@pytest.mark.parametrize("words", commands_in(README), ids=lambda w: w[1])
def test_every_command_in_readme_parses(words):
    command = main.commands[words[1]]
    command.make_context(words[1], list(words[2:]))


def test_readme_python_runs_on_the_demo_table(tmp_path, monkeypatch):
    from spec_store.demo import create_demo

    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo-db").mkdir()
    create_demo(db="demo-db")
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names = {}
    exec(code, names)
    assert len(names["rows"]) == names["first"].size > 0


def test_readme_names_every_command_and_result_column():
    for name in main.commands:
        assert name in README, name
    for column in ("cluster", "clusters", "side", "score", "scores"):
        assert f"`spec_pixels_hog_{column}`" in README


def test_every_command_and_option_says_what_it_does():
    steps = main.commands["worker"].commands
    for name, command in [*main.commands.items(), *steps.items()]:
        assert command.help, name
        for option in command.params:
            if isinstance(option, click.Option) and option.name != "kernel":
                assert option.help, f"{name} {option.opts}"


@pytest.mark.parametrize(
    ("command", "options", "needed", "no_default"),
    [
        (
            "compare",
            spec_store.CompareOptions,
            ["--table", "images", "--cols", "clip,dino"],
            {"bandwidth", "dim", "where", "prefix", "key", "threads", "modes", "write_modes"},
        ),
        (
            "align",
            spec_store.AlignOptions,
            ["--table", "images", "--source", "clip", "--target", "dino"],
            {"where", "column", "key", "threads"},
        ),
        (
            "gate",
            spec_store.GateOptions,
            ["--table", "images", "--source", "clip", "--target", "dino"],
            {"budget", "cutoff", "query_source", "query_target", "relevant", "key"},
        ),
        (
            "report",
            spec_store.ReportOptions,
            ["--table", "images", "-o", "report.html"],
            {"show"},
        ),
    ],
)
def test_options_and_the_command_line_agree(command, options, needed, no_default):
    offered = {p.name for p in main.commands[command].params}
    nested = hasattr(options, "to_json")  # those of nested options stand beside the others
    fields = options().to_json() if nested else dataclasses.asdict(options())
    assert set(fields) - offered == set()
    defaults = main.commands[command].make_context(command, needed).params
    for name, default in fields.items():
        if name not in no_default:
            assert defaults[name] == default, name


def test_a_job_is_prepared_with_the_options_of_a_comparison():
    compare, prepare = main.commands["compare"], main.commands["worker"].commands["prepare"]
    needed = ["--table", "images", "--cols", "clip,dino"]
    given = compare.make_context("compare", list(needed)).params
    offered = prepare.make_context("prepare", [*needed, "--job", "job"]).params
    for name in spec_store.CompareOptions().to_json():
        assert offered[name] == given[name], name


def test_every_public_name_is_documented():
    for name in spec_store.__all__:
        assert getattr(spec_store, name).__doc__, name


def test_the_makefile_offers_what_readme_promises():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_what_readme_reads_from_the_digits_is_so(tmp_path):
    from spec_store.demo import create_demo

    create_demo(db=str(tmp_path))
    run = spec_store.compare("images", ["pixels", "hog"], db=str(tmp_path), write=True, key="id")
    clusters = run.record.clusters

    def labels(cluster):
        rows = spec_store.query("images", cluster.where, select=["label"], db=str(tmp_path)).read_all()
        names, counts = np.unique(rows["label"].to_numpy(zero_copy_only=False), return_counts=True)
        return dict(
            sorted(zip(names.tolist(), (counts / len(rows)).tolist(), strict=True), key=lambda x: -x[1])
        )

    first = clusters[0]
    assert first.side == "pixels"
    assert {"8", "9", "3"} <= set(list(labels(first))[:4])  # digits that look alike as ink
    assert first.seen_by_other["kind"] == "split"
    sevens = [c for c in clusters if c.side == "pixels" and labels(c).get("7", 0) > 0.8]
    assert max(c.size for c in sevens) > 100
    assert all(c.capture["pixels"] - c.capture["hog"] > 0.1 for c in sevens)
    fours = [c for c in clusters if c.side == "hog" and labels(c).get("4", 0) > 0.9]
    assert any(c.seen_by_other["kind"] == "split" for c in fours)
    pure = {next(iter(labels(c))) for c in clusters if next(iter(labels(c).values())) >= 0.7}
    assert len(pure) >= 5
    assert 0.1 < run.record.mismatch["pixels"]["mass"] > run.record.mismatch["hog"]["mass"] > 0
