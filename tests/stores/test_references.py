"""Columns named in text."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import spec_store
from planted import vectors
from spec_store.cli import main
from spec_store.connector import Location
from spec_store.errors import InputError
from spec_store.stores.references import ColumnRef, split_columns


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("clip", ColumnRef("clip")),
        ("emb.vector", ColumnRef("emb.vector")),
        (" clip ", ColumnRef(" clip ")),
        ('we"ird`', ColumnRef('we"ird`')),
        ('"a=b"', ColumnRef("a=b")),
        ("`a,b`", ColumnRef("a,b")),
        (' "say ""hi"""', ColumnRef('say "hi"')),
        ('"`x"', ColumnRef("`x")),
        ("dino=faiss:a/b.index", ColumnRef("dino", Location("a/b.index", "faiss"))),
        (" dino = faiss : a/b.index ", ColumnRef("dino", Location("a/b.index", "faiss"))),
        (
            "dino=arrow:s3://b/x.pq#v",
            ColumnRef("dino", Location("s3://b/x.pq", "arrow"), None, "v"),
        ),
        (
            'dino=arrow:"run #3, a=b.pq"#v',
            ColumnRef("dino", Location("run #3, a=b.pq", "arrow"), None, "v"),
        ),
        ('"a=b"=arrow:x.parquet#"v#1"', ColumnRef("a=b", Location("x.parquet", "arrow"), None, "v#1")),
        ("dino=lancedb:./db#images/dino", ColumnRef("dino", Location("./db", "lancedb"), "images", "dino")),
        ("dino=lancedb:./db#images", ColumnRef("dino", Location("./db", "lancedb"), "images", None)),
        ("dino=lancedb:./db#`a/b`/`c/d`", ColumnRef("dino", Location("./db", "lancedb"), "a/b", "c/d")),
    ],
)
def test_a_column_is_read_with_what_is_quoted_as_it_is(text, expected):
    assert ColumnRef.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Column '' can't be read: expected a column's name, or name=connector:uri"),
        ("dino=faiss", "can't be read"),
        ("a=b=c", "can't be read.*goes in double quotes"),
        ("dino=lancedb:./db", "names no table: expected dino=lancedb:./db#table/column"),
        ("dino=pinecone:x", "No connector named 'pinecone' is installed"),
        ('"clip', 'its " is not closed'),
        ("dino=arrow:`x.parquet", "its ` is not closed"),
    ],
)
def test_what_names_no_column_is_refused(text, message):
    with pytest.raises(spec_store.SpecStoreError, match=message):
        ColumnRef.parse(text)


def test_a_line_is_split_at_commas_outside_quotes():
    assert split_columns("clip, dino=faiss:x.index") == ["clip", "dino=faiss:x.index"]
    assert split_columns('"a,b", x=arrow:"c,d.parquet"#`e,f`') == ['"a,b"', 'x=arrow:"c,d.parquet"#`e,f`']
    assert split_columns("clip,") == ["clip", ""]
    with pytest.raises(InputError, match="is not closed"):
        split_columns('clip,"dino')


def test_columns_and_files_of_any_name_are_compared_from_the_command_line(tmp_path):
    a, b = np.random.default_rng(0).standard_normal((2, 300, 6)).astype(np.float32)
    path = tmp_path / "run #3.parquet"
    pq.write_table(pa.table({"a,b": vectors(a), "x=y": vectors(b), "w`z": vectors(b)}), path)
    file = f'arrow:"{path}"'
    for where, cols in (
        ([], f'"a,b"={file}#"a,b", other={file}#`x=y`'),
        ([], f'"a,b"={file}, other={file}#w`z'),
        (["--table", str(path)], '"a,b","x=y"'),
    ):
        done = CliRunner().invoke(
            main, ["compare", *where, "--cols", cols, "--dry-run", "--json", "--dim", "40"]
        )
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["columns"][0] == "a,b"


def test_a_path_takes_the_place_of_a_tables_name(tmp_path):
    a, b = np.random.default_rng(0).standard_normal((2, 300, 6)).astype(np.float32)
    table = pa.table({"clip": vectors(a), "dino": vectors(b)})
    pq.write_table(table, tmp_path / "x.parquet")
    expected = spec_store.compare(table, ["clip", "dino"], dim=40).spec_diff
    for path in (tmp_path / "x.parquet", str(tmp_path / "x.parquet")):
        assert spec_store.compare(path, ["clip", "dino"], dim=40).spec_diff == expected
