"""Numbers that nothing can be computed with are refused by name, before any work."""

import pytest
from click.testing import CliRunner

from spec_store import CompareOptions
from spec_store.cli import main
from spec_store.errors import InputError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "seed is -1; expected a whole number from 0 to 2,147,483,647"),
        ({"seed": 1 << 40}, "seed is 1099511627776"),
        ({"bandwidth": (1e-30, 1e-30)}, r"bandwidth is 1e-30; expected a number from 1e-12 to 1e\+12"),
        ({"bandwidth": (1.0, float("nan"))}, "bandwidth is nan"),
        ({"bandwidth_scale": 1e300}, r"bandwidth_scale is 1e\+300; expected a number from 1e-06 to 1e\+06"),
        ({"eta": 0.0}, "eta is 0.0"),
        ({"eta": float("inf")}, "eta is inf"),
        ({"batch_rows": 999_999_999_999}, "batch_rows is 999999999999; .* from 1 to 1,048,576"),
        ({"batch_rows": 4096.0}, "batch_rows is 4096.0; expected a whole number"),
        ({"modes": 0}, "modes is 0"),
        ({"modes": True}, "modes is True"),
        ({"dim": 10**9}, "dim is 1000000000"),
        ({"sample_rows": 10**12}, "sample_rows is 1000000000000"),
        ({"threads": 0}, "threads is 0"),
        ({"fit_rows": 999}, "fit_rows is 999; expected a whole number from 1,000"),
        ({"fit_rows": 1500, "modes": 2000}, "fit_rows is 1500; .* from 2,000"),
    ],
)
def test_numbers_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        CompareOptions(**options)


@pytest.mark.parametrize(
    "words",
    [
        "compare --cols clip,dino --seed -1",
        "compare --cols clip,dino --bandwidth 1e-30,1e-30",
        "compare --cols clip,dino --bandwidth-scale 1e300",
        "compare --cols clip,dino --batch-rows 999999999999",
        "align --source clip --target dino --beta 1e30",
        "align --source clip --target dino --seed -1",
        "align --source clip --target dino --minibatch-rows 32769",
        "align --source clip --target dino --learning-rate nan",
    ],
)
def test_the_command_line_refuses_them_in_a_sentence_and_reads_nothing(words):
    command, *rest = words.split()
    result = CliRunner().invoke(main, [command, "--table", "images", "--db", "/nowhere", *rest])
    assert result.exit_code == 1
    assert "expected a" in result.stderr
    assert "Unexpected" not in result.stderr
    assert "nowhere" not in result.stderr
