"""Every command takes a filter whole, or refuses it before any work."""

import lance
import pytest
from click.testing import CliRunner

from spec_store.cli import main

COLUMNS = ["--source", "clip", "--target", "dino"]
COMMANDS = {
    "query": ["query", "--where"],
    "compare": ["compare", "--cols", "clip,dino", "--where"],
    "align": ["align", *COLUMNS, "--where"],
    "gate": ["gate", *COLUMNS, "--no-map", "--slice"],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("id > 1100 LIMIT 5", "'LIMIT'"),
        ("label = 'group 1' ADN id < 5000", "'ADN'"),
        ("id < 1300 banana split", "'banana'"),
        ("1=1; DROP TABLE images", "'; DROP TABLE images' follows the expression"),
        ("id / 0 = 1", "Divide by zero"),
        ("", "it is empty"),
    ],
)
def test_text_that_is_not_one_expression_is_refused_by_every_command(db, command, where, said):
    done = CliRunner().invoke(main, [*COMMANDS[command], where, "--db", db, "--table", "images"])
    assert done.exit_code == 1
    assert f"The filter {where!r} can't be used" in done.output
    assert said in done.output
    assert "Unexpected" not in done.output
    assert lance.dataset(f"{db}/images.lance").version == 3


def test_a_comment_in_a_filter_is_no_part_of_it(db):
    where = "id >= 2997 -- the last ones"
    arguments = ["query", "--db", db, "--table", "images", "--where", where, "--select", "id"]
    done = CliRunner().invoke(main, arguments)
    assert done.output.split() == ["id", "2997", "2998", "2999"]
