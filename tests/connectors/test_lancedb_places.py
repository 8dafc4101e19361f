"""Databases that can't be reached, tables in formats that can't be used, and names that can't be taken."""

import os
import pickle

import lance
import lancedb
import pyarrow as pa
import pytest
from click.testing import CliRunner

import spec_store
from lance_tables import make_table, open_source, rows
from spec_store.cli import main
from spec_store.errors import ColumnClashError, InputError, RetryError, TableNotFoundError, UnsupportedError
from spec_store.plugins import get_connector

# Nothing listens on the port of the discard service.
NO_ANSWER = {
    "aws_access_key_id": "key",
    "aws_secret_access_key": "secret",
    "aws_region": "us-east-1",
    "aws_endpoint": "http://127.0.0.1:9",
    "allow_http": "true",
    "client_max_retries": "0",
}


def command(*arguments):
    done = CliRunner().invoke(main, [str(a) for a in arguments])
    assert "Unexpected" not in done.output
    return done.exit_code, done.output


@pytest.mark.parametrize(
    ("uri", "error", "said"),
    [
        ("", InputError, "path is empty"),
        ("   ", InputError, "path is empty"),
        ("foo://images", InputError, "No object store provider found for scheme: 'foo'"),
        ("http://127.0.0.1/db", InputError, "No object store provider found for scheme: 'http'"),
        ("db://images", UnsupportedError, "serves rows, not data files"),
        ("file:///nowhere/at/all", TableNotFoundError, "No LanceDB database at file:///nowhere/at/all"),
    ],
)
def test_a_database_that_can_not_be_is_refused_with_the_reason(uri, error, said):
    connector = get_connector("lancedb")
    with pytest.raises(error, match=said):
        connector.open(uri, table="images")
    with pytest.raises(InputError):
        connector.check_create(uri, "images", pa.schema([]))
    code, output = command("query", "--db", uri, "--table", "images")
    assert code == 1
    assert "Error: " in output


def test_a_store_that_does_not_answer_is_named_with_what_to_do():
    with pytest.raises(RetryError, match=r"Database s3://bucket/db can't be reached: connection refused"):
        get_connector("lancedb").open("s3://bucket/db", table="images", options=NO_ANSWER)


def test_a_bucket_that_is_not_there_is_named():
    moto = pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    try:
        _, port = server.get_host_and_port()
        options = {**NO_ANSWER, "aws_endpoint": f"http://127.0.0.1:{port}"}
        with pytest.raises(TableNotFoundError, match=r"Database s3://nowhere/db .* no such bucket"):
            get_connector("lancedb").open("s3://nowhere/db", table="images", options=options)
    finally:
        server.stop()


@pytest.mark.parametrize("character", ["?", "\n"])
def test_a_path_that_lance_can_not_open_is_refused_with_what_to_do(tmp_path, character):
    folder = tmp_path / f"what{character}"
    folder.mkdir()
    lancedb.connect(tmp_path / "plain").create_table("images", rows(5))
    (tmp_path / "plain" / "images.lance").rename(folder / "images.lance")
    with pytest.raises(InputError, match="in its path, which Lance can't open"):
        open_source(folder)
    (tmp_path / "link").symlink_to(folder)
    assert open_source(tmp_path / "link").count() == 5


@pytest.mark.parametrize("name", ["a b", "a#b", "a%20b", "a%b", "ä", "a'b", "a&b=c", "a$b"])
def test_other_characters_in_a_path_do_no_harm(tmp_path, name):
    make_table(tmp_path / name, rows(5))
    assert open_source(tmp_path / name).take(pa.array([3]), ["id"])["id"].to_pylist() == [3]


def test_a_database_is_opened_by_its_file_uri_too(tmp_path):
    make_table(tmp_path, rows(5))
    source = get_connector("lancedb").open(f"file://{tmp_path}", table="images")
    assert source.count() == 5
    assert pickle.loads(pickle.dumps(source)).count() == 5
    get_connector("lancedb").append(f"file://{tmp_path}", "log", pa.table({"a": [1]}))
    assert sorted(os.listdir(tmp_path)) == ["images.lance", "log.lance"]


def make_table_of(folder, version, planted_table):
    lance.write_dataset(planted_table, folder / "images.lance", data_storage_version=version)
    return str(folder)


@pytest.mark.parametrize(
    ("version", "named"), [("legacy", "legacy file format 0.1"), ("2.3", "file format 2.3")]
)
def test_a_table_in_a_file_format_that_can_not_be_used_is_refused_by_name_before_any_work(
    tmp_path, planted_table, version, named
):
    db = make_table_of(tmp_path, version, planted_table)
    for way in (["--dry-run"], ["--out", tmp_path / "out.parquet"], []):
        code, output = command("compare", "--db", db, "--table", "images", "--cols", "clip,dino", *way)
        assert code == 1
        assert f"Table 'images' in {db} is in Lance's" in output
        assert named in output
        assert 'data_storage_version="stable"' in output
    assert not (tmp_path / "out.parquet").exists()
    with pytest.raises(UnsupportedError, match=named):
        spec_store.align("images", "clip", "dino", db=db)


@pytest.mark.parametrize("version", ["2.0", "2.1", "2.2"])
def test_tables_in_every_stable_file_format_are_read_and_rows_found_again(tmp_path, version):
    lance.write_dataset(rows(40), tmp_path / "images.lance", data_storage_version=version)
    source = open_source(tmp_path)
    keys = pa.array([31, 2, 17], pa.uint64())
    assert source.take(keys, ["id", "clip"])["id"].to_pylist() == [31, 2, 17]


def test_rows_are_taken_by_reading_these_rows_alone(tmp_path):
    make_table(tmp_path, rows(5000), rows(5000, 5000))
    dataset = lance.dataset(tmp_path / "images.lance")
    plan = dataset.scanner(
        columns=["id"], filter="(_rowid IN (7, 4294967300))", with_row_id=True
    ).analyze_plan()
    assert "rows_scanned=2," in plan


@pytest.mark.parametrize("name", ["_rowid", "_rowaddr", "_rowoffset", "_distance", "_score"])
def test_names_that_lance_gives_to_columns_of_its_own_are_refused(tmp_path, name):
    make_table(tmp_path, rows(5))
    with pytest.raises(ColumnClashError, match=f"{name} can't be a result column"):
        open_source(tmp_path).check_annotation(pa.schema([(name, pa.int32())]))


def test_a_result_column_that_somebody_else_has_is_refused_with_the_option_that_renames_it(
    tmp_path, planted_table
):
    lancedb.connect(tmp_path).create_table("images", planted_table)
    align = ["align", "--db", tmp_path, "--table", "images", "--source", "clip", "--target", "dino"]
    for name, said in {"id": "already has id", "_rowid": "_rowid can't be a result column"}.items():
        code, output = command(*align, "--column", name)
        assert code == 1
        assert said in output
        assert "with --column for align" in output
