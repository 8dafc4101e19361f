"""`query`'s output: exact for programs, harmless for eyes, and never over what is not a plain file."""

import csv
import datetime
import decimal
import io
import json
import math
import os
import stat
import threading
import uuid

import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from command import run, run_process
from spec_store.cli.formats import csv_header, csv_rows, json_rows
from spec_store.cli.rows import chosen_format


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A database whose table `goods` has what CSV and terminals trip over."""
    folder = str(tmp_path_factory.mktemp("shop"))
    data = pa.table(
        {
            "id": pa.array([1, 2, 3]),
            "price": pa.array([1830227.87, None, 0.1]),
            "weight": pa.array([0.1, 16777216.0, None], pa.float32()),
            "name": pa.array(["", None, "=1+1"]),
            "label": pa.array(["[/nope]", "[bold red]x[/]", "\x1b]0;owned\x07\x1b[2J\x9b1m\u202eabc\nid"]),
            "tags": pa.array([["a", None, 'b"c'], None, []], pa.list_(pa.string())),
            "seven": pa.array([[1.5] * 7] * 3, pa.list_(pa.float32())),
        }
    )
    lancedb.connect(folder).create_table("goods", data)
    return folder


def query(*arguments, **more):
    return run("query", "--table", "goods", *arguments, **more)


def test_csv_values_read_back_as_they_are_stored(shop, tmp_path):
    query("-o", tmp_path / "goods.csv", db=shop)
    with open(tmp_path / "goods.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [r["price"] for r in rows] == ["1830227.87", "", "0.1"]
    assert [r["weight"] for r in rows] == ["0.1", "16777216.0", ""]
    assert rows[2]["label"] == "\x1b]0;owned\x07\x1b[2J\x9b1m\u202eabc\nid"
    assert json.loads(rows[0]["tags"]) == ["a", None, 'b"c']
    assert json.loads(rows[0]["seven"]) == [1.5] * 7


def test_csv_tells_null_from_the_empty_text(shop):
    lines = query("--select", "id,name", "--format", "csv", db=shop).stdout.splitlines()
    assert lines == ["id,name", '1,""', "2,", "3,=1+1"]


def test_excel_safe_defuses_text_and_no_number():
    batch = pa.record_batch({"=a": ["-x", "@y", "ok"], "n": pa.array([-1, -2, -3])})
    assert csv_header(batch.schema.names, ",", excel_safe=True) == "'=a,n"
    assert csv_rows(batch, ",", excel_safe=True) == ["'-x,-1", "'@y,-2", "ok,-3"]
    assert csv_rows(batch, ",") == ["-x,-1", "@y,-2", "ok,-3"]


@pytest.mark.parametrize(
    "suffix", [".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet", ".arrow", ".feather"]
)
def test_the_suffix_decides_the_format(shop, tmp_path, suffix):
    file = tmp_path / f"goods{suffix.upper()}"
    query("--select", "id,price", "-o", file, db=shop)
    readers = {
        ".csv": lambda: [int(r["id"]) for r in csv.DictReader(io.StringIO(file.read_text()))],
        ".tsv": lambda: [int(r["id"]) for r in csv.DictReader(io.StringIO(file.read_text()), delimiter="\t")],
        ".json": lambda: [r["id"] for r in json.loads(file.read_text())],
        ".jsonl": lambda: [json.loads(line)["id"] for line in file.read_text().splitlines()],
        ".parquet": lambda: pq.read_table(file)["id"].to_pylist(),
        ".arrow": lambda: pa.ipc.open_file(file).read_all()["id"].to_pylist(),
    }
    read = readers[{".ndjson": ".jsonl", ".feather": ".arrow"}.get(suffix, suffix)]
    assert read() == [1, 2, 3]
    assert os.listdir(tmp_path) == [file.name]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-o", "goods.txt"], ".csv, .tsv, .json, .jsonl, .ndjson, .parquet, .arrow, .feather"),
        (["-o", "goods.csv", "--format", "json"], "--format json contradicts -o goods.csv"),
        (["--format", "parquet"], "--format parquet needs -o FILE"),
        (["--excel-safe"], "--excel-safe is for csv and tsv"),
    ],
)
def test_formats_that_cannot_be_are_usage_errors(shop, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert said in query(*arguments, db=shop, code=2).stderr
    assert os.listdir(tmp_path) == []


def test_no_row_is_an_empty_array_and_a_header(shop):
    assert query("--where", "id < 0", "--format", "json", db=shop).stdout == "[]\n"
    assert query("--where", "id < 0", "--format", "jsonl", db=shop).stdout == ""
    assert query("--where", "id < 0", "--select", "id", "--format", "csv", db=shop).stdout == "id\n"


def test_every_type_has_an_exact_text():
    key = uuid.UUID(int=7)
    batch = pa.record_batch(
        {
            "big": pa.array([2**64 - 1], pa.uint64()),
            "f16": pa.array(np.array([0.5], np.float16)),
            "d": pa.array([decimal.Decimal("-12345678901234567890.10")], pa.decimal128(38, 2)),
            "ts": pa.array([datetime.datetime(2020, 1, 2, 3, 4, 5, 6)], pa.timestamp("us")),
            "utc": pa.array([datetime.datetime(2020, 1, 2)], pa.timestamp("s", "UTC")),
            "berlin": pa.array([datetime.datetime(2020, 7, 2)], pa.timestamp("s", "Europe/Berlin")),
            "day": pa.array([datetime.date(2020, 1, 2)]),
            "raw": pa.array([b"\x00\xff"]),
            "view": pa.array(["v"]).cast(pa.string_view()),
            "dict": pa.array(["x"]).dictionary_encode(),
            "uuid": pa.array([key.bytes], pa.uuid()),
            "took": pa.array([5], pa.duration("s")),
            "struct": pa.array([{"a": [{"b": 0.1}], "c": None}]),
            "map": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int8())),
            "fixed": pa.array([[0.1, None]], pa.list_(pa.float32(), 2)),
            "nan": pa.array([math.nan]),
        }
    )
    expected = {
        "big": 2**64 - 1,
        "f16": 0.5,
        "d": "-12345678901234567890.10",
        "ts": "2020-01-02T03:04:05.000006",
        "utc": "2020-01-02T00:00:00Z",
        "berlin": "2020-07-02T02:00:00+02:00",
        "day": "2020-01-02",
        "raw": "AP8=",
        "view": "v",
        "dict": "x",
        "uuid": str(key),
        "took": 5,
        "struct": {"a": [{"b": 0.1}], "c": None},
        "map": [{"key": "k", "value": 1}],
        "fixed": [0.1, None],
        "nan": None,
    }
    assert json.loads(json_rows(batch)[0]) == expected
    (cells,) = csv.reader(csv_rows(batch, ","))
    assert cells[0] == str(2**64 - 1)
    assert cells[-2:] == ["[0.1,null]", "nan"]


def test_floats_of_both_widths_read_back_bit_for_bit():
    bits = np.random.default_rng(0).integers(0, 2**63, 2000, dtype=np.uint64)
    for kind in (np.float64, np.float32):
        values = bits.view(kind)
        values = values[np.isfinite(values)]
        batch = pa.record_batch({"x": values})
        for rows in ([json.loads(r)["x"] for r in json_rows(batch)], csv_rows(batch, ",")):
            assert np.array_equal(np.array(rows, str).astype(kind), values)


def test_slices_of_nested_columns_keep_their_rows():
    column = pa.array([[1], None, [], [2, 3]], pa.list_(pa.int8()))
    batch = pa.record_batch({"l": column, "s": pa.array([{"a": 1}, None, {"a": None}, {"a": 4}])}).slice(1)
    assert [json.loads(r) for r in json_rows(batch)] == batch.to_pylist()


def test_json_in_a_pipe_is_ascii_and_exact(shop):
    done = query("--format", "jsonl", "--where", "id = 3", db=shop)
    assert done.stdout.isascii()
    assert json.loads(done.stdout)["label"] == "\x1b]0;owned\x07\x1b[2J\x9b1m\u202eabc\nid"


def test_a_table_shows_control_characters_and_obeys_no_markup(shop):
    shown = query("--select", "label", db=shop).stdout
    assert shown.splitlines() == [
        "label",
        "[/nope]",
        "[bold red]x[/]",
        r"\x1b]0;owned\x07\x1b[2J\x9b1m\u202eabc\nid",
    ]


def test_on_a_terminal_markup_and_control_characters_stay_text(shop, monkeypatch):
    class Terminal(io.StringIO):
        encoding = "utf-8"

        def isatty(self):
            return True

    import spec_store.cli.terminal as terminal

    screen = Terminal()
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setenv("TERM", "dumb")
    labels = ["[/nope]", "[link=http://x]y[/link]", "\x1b[2J", ":smile:"]
    terminal.echo_table(["[bold]head"], [[label] for label in labels])
    for text in ("[bold]head", "[/nope]", "[link=http://x]y[/link]", r"\x1b[2J", ":smile:"):
        assert text in screen.getvalue()
    assert "\x1b[2J" not in screen.getvalue()


def test_errors_show_control_characters(shop):
    said = query("--select", "x\x1b[2Jy", db=shop, code=1).stderr
    assert "\x1b" not in said
    assert r"\x1b[2Jy" in said
    assert "\x1b" not in query("-o", "x\x1b[2Jy", db=shop, code=2).stderr


def test_a_named_pipe_is_written_to_and_stays(shop, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()))
    reader.start()
    query("--select", "id", "--format", "csv", "-o", pipe, db=shop)
    reader.join(10)
    assert got == ["id\n1\n2\n3\n"]
    assert stat.S_ISFIFO(pipe.lstat().st_mode)


def test_a_link_is_refused_and_its_target_stays(shop, tmp_path):
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "goods.csv").symlink_to(tmp_path / "victim")
    assert "symbolic link" in query("-o", tmp_path / "goods.csv", db=shop, code=1).stderr
    assert (tmp_path / "victim").read_text() == "precious"


def test_a_link_at_a_foreseeable_partial_name_is_not_followed(shop, tmp_path):
    (tmp_path / "victim").write_text("precious")
    (tmp_path / ".goods.csv.partial").symlink_to(tmp_path / "victim")
    query("-o", tmp_path / "goods.csv", db=shop)
    assert (tmp_path / "victim").read_text() == "precious"


def test_a_missing_folder_is_told_before_any_row_is_read(shop, tmp_path):
    said = query("-o", tmp_path / "no" / "x.csv", db=shop, code=1).stderr
    assert said == f"Error: {tmp_path}/no/x.csv can't be written: there is no folder {tmp_path}/no.\n"


def test_a_device_takes_rows_and_stays(shop):
    """A terminal of the test's own: to replace it is not possible, as it is for root with /dev/null."""
    ours, theirs = os.openpty()
    try:
        query("--select", "id", "--format", "csv", "-o", os.ttyname(theirs), db=shop)
        assert os.read(ours, 100) == b"id\r\n1\r\n2\r\n3\r\n"
    finally:
        os.close(ours)
        os.close(theirs)


def test_stdout_takes_rows_by_dash_and_by_name(shop, tmp_path):
    done = run_process("query", "--table", "goods", "--format", "arrow", "-o", "-", db=shop, text=False)
    assert pa.ipc.open_stream(done.stdout).read_all().num_rows == 3
    with open(tmp_path / "log", "w") as log:
        log.write("before\n")
        log.flush()
        arguments = ["--select", "id", "--format", "csv", "-o", "/dev/fd/1"]
        more = {"capture_output": False, "stdout": log}
        run_process("query", "--table", "goods", *arguments, db=shop, **more)
    assert (tmp_path / "log").read_text() == "before\nid\n1\n2\n3\n"
    assert chosen_format("/dev/stdout", "csv") == "csv"  # not refused as a link; root must not try more


def test_a_column_selected_twice_is_named(shop):
    assert "'id' is selected twice" in query("--select", "id,id", db=shop, code=1).stderr
