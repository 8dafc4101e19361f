"""What all commands print alike: JSON without NaN, hints that can be pasted, help under headings."""

import json
import math
import re
import shlex

import click
import lancedb
import numpy as np
import pyarrow as pa
import pytest

from command import run
from spec_store.cli import main
from spec_store.cli.help import next_command
from spec_store.cli.terminal import echo_json


def test_json_holds_no_nan(capsys):
    echo_json({"stability": math.nan, "list": (1.0, -math.inf), "n": 3})
    assert json.loads(capsys.readouterr().out) == {"stability": None, "list": [1.0, None], "n": 3}


@pytest.fixture
def spaced(tmp_path):
    """A database and a table whose names need quotes in a shell."""
    vectors = np.random.default_rng(0).standard_normal((300, 8)).astype(np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 8)
    turned = pa.FixedSizeListArray.from_arrays(pa.array(np.abs(vectors).ravel()), 8)
    db = str(tmp_path / "my data")
    lancedb.connect(db).create_table("images", pa.table({"a": column, "b": turned}))
    return db


def test_a_hint_is_a_command_that_works_when_pasted(spaced):
    arguments = ["compare", "--table", "images", "--cols", "a,b", "--db", spaced, "--connector", "lancedb"]
    hint = run(*arguments, "--dim", "30", "--modes", "3", "--no-center").stdout.splitlines()[-1]
    assert hint == f"Next: spec-store clusters --table images --db '{spaced}' --connector lancedb"
    for command in ("clusters --table images --cluster", "query --table images --where"):
        hint = run(*shlex.split(hint)[2:]).stdout.splitlines()[-1]
        assert hint.startswith(f"Next: spec-store {command} ")
    assert run(*shlex.split(hint)[2:]).stdout


def test_a_hint_repeats_no_secret_and_nothing_from_the_environment(monkeypatch):
    monkeypatch.setenv("SPEC_STORE_DB", "elsewhere")
    given = [
        "--table",
        "t",
        "--storage-option",
        "aws_secret_access_key=hush",
        "--storage-option",
        "region=a b",
    ]
    with main.commands["runs"].make_context("runs", given):
        hint = next_command("clusters", table="it's")
    options = (
        """--storage-option aws_secret_access_key="$AWS_SECRET_ACCESS_KEY" --storage-option 'region=a b'"""
    )
    assert hint == f"""spec-store clusters --table 'it'"'"'s' {options}"""


def test_long_commands_list_their_options_under_headings_essential_ones_first():
    for name, command in main.commands.items():
        text = run(name, "--help").stdout
        headings = re.findall(r"^(\S.*):$", text, re.MULTILINE)
        if len(command.params) > 8:
            assert headings[:2] == ["Data", "Database"], name
            assert headings[-1] == "Other options"
        for option in command.params:
            assert len(re.findall(rf"^ +(?:-\w, )?{option.opts[-1]}(?![-\w])", text, re.MULTILINE)) == 1


def test_help_texts_are_sentences_that_name_their_subject():
    for name, command in main.commands.items():
        for option in command.params:
            if isinstance(option, click.Option):
                assert option.help, f"{name} {option.opts}"
                assert not re.match(r"(Of|Rows of each|In|With)\b", option.help), f"{name} {option.opts}"
                assert option.help.endswith("."), f"{name} {option.opts}"
