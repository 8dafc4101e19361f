"""Live objects of lancedb and lance as data and as databases."""

import asyncio
import sys

import lance
import lancedb
import pandas
import pyarrow as pa
import pytest

import spec_store
from lance_tables import annotation, make_table, rows
from spec_store.errors import InputError, UnsupportedError
from spec_store.plugins import connector_for, get_connector


def ids(source):
    return [i for batch in source.batches(["id"]) for i in batch.column(1).to_pylist()]


async def opened(folder):
    db = await lancedb.connect_async(folder)
    return await db.open_table("images")


def handle(folder, kind):
    if kind == "Table":
        return lancedb.connect(folder).open_table("images")
    if kind == "AsyncTable":
        return asyncio.run(opened(folder))
    return lance.dataset(f"{folder}/images.lance")


@pytest.mark.parametrize("kind", ["Table", "AsyncTable", "LanceDataset"])
def test_an_open_table_is_a_source_at_the_version_at_which_it_is_open(tmp_path, kind):
    make_table(tmp_path, rows(20))
    data = handle(tmp_path, kind)
    lancedb.connect(tmp_path).open_table("images").add(rows(5, 20))
    assert connector_for(data).name == "lancedb"
    source = get_connector("lancedb").wrap(data)
    assert (source.table, source.version) == ("images", 1)
    assert (source.location.uri, source.location.connector) == (str(tmp_path), "lancedb")
    assert ids(source) == list(range(20))
    assert source.latest().count() == 25
    assert source.describe() == f"table 'images' in {tmp_path}"


@pytest.mark.parametrize("kind", ["Table", "AsyncTable", "LanceDataset"])
def test_an_open_table_keeps_its_storage_options(tmp_path, kind):
    make_table(tmp_path, rows(20))
    options = {"my_option": "kept"}
    if kind == "Table":
        data = lancedb.connect(tmp_path, storage_options=options).open_table("images")
    elif kind == "AsyncTable":

        async def opened_with():
            db = await lancedb.connect_async(tmp_path)
            return await db.open_table("images", storage_options=options)

        data = asyncio.run(opened_with())
    else:
        data = lance.dataset(tmp_path / "images.lance", storage_options=options)
    source = get_connector("lancedb").wrap(data)
    assert source.location.storage_options["my_option"] == "kept"
    assert "user_agent" not in source.location.storage_options


def test_an_async_table_is_opened_while_its_loop_is_running(tmp_path):
    make_table(tmp_path, rows(20))

    async def count():
        return get_connector("lancedb").wrap(await opened(tmp_path)).count()

    assert asyncio.run(count()) == 20


def test_a_data_set_outside_a_database_is_named_by_its_path(tmp_path, monkeypatch):
    lance.write_dataset(rows(20), tmp_path / "plain")
    monkeypatch.chdir(tmp_path)
    source = get_connector("lancedb").wrap(lance.dataset("plain"))
    assert (source.location, source.table) == (None, None)
    assert source.describe() == str(tmp_path / "plain")
    assert source.count() == 20


def test_a_table_on_a_branch_is_refused(tmp_path):
    table = make_table(tmp_path, rows(20))
    branch = table.to_lance().create_branch("trial")
    with pytest.raises(UnsupportedError, match="is checked out on branch 'trial'"):
        get_connector("lancedb").wrap(branch)


def test_a_connection_is_a_database_and_not_data(tmp_path):
    options = {"my_option": "kept"}
    connection = lancedb.connect(tmp_path, storage_options=options)
    connector = connector_for(connection)
    location = connector.location_of(connection)
    assert (location.uri, location.storage_options) == (str(tmp_path), options)
    with pytest.raises(InputError, match=r"give the table's name, and the connection as db="):
        connector.wrap(connection)
    with pytest.raises(InputError, match="A LanceTable is not a database"):
        connector.location_of(make_table(tmp_path, rows(3)))
    asynchronous = asyncio.run(lancedb.connect_async(tmp_path))
    assert connector_for(asynchronous).location_of(asynchronous).uri == str(tmp_path)


def test_other_data_belongs_to_no_store_and_loads_no_connector(tmp_path):
    loaded = {name for name in sys.modules if name.startswith("spec_store_")}
    for data in ({"a": [1]}, pa.table({"a": [1]}), pandas.DataFrame({"a": [1]}), [{"a": 1}], 7):
        assert connector_for(data) is None
    assert {name for name in sys.modules if name.startswith("spec_store_")} == loaded


def test_a_table_in_a_child_namespace_is_opened_by_the_name_that_lancedb_shows(tmp_path):
    db = lancedb.connect(tmp_path)
    db.create_table("images", rows(3))
    db.create_namespace(["team"])
    db.create_namespace(["team", "new"])
    table = db.create_table("images", rows(20), namespace_path=["team", "new"])
    assert table.id == "team$new$images"
    connector = get_connector("lancedb")
    for source in (connector.open(str(tmp_path), table=table.id), connector.wrap(table)):
        assert (source.table, source.location.uri, source.count()) == (table.id, str(tmp_path), 20)
    assert connector.open(str(tmp_path), table="images").count() == 3
    for name, said in {
        "team$new$imges": r"Did you mean 'team\$new\$images'",
        "pictures": r"Tables in namespaces \(team\) are named as in 'team\$table'",
        "tem$images": r"There is no namespace 'tem'. Did you mean 'team'",
    }.items():
        with pytest.raises(InputError, match=said):
            connector.open(str(tmp_path), table=name)


def test_a_table_in_a_child_namespace_is_annotated(tmp_path):
    db = lancedb.connect(tmp_path)
    db.create_namespace(["team"])
    db.create_table("images", rows(20), namespace_path=["team"])
    get_connector("lancedb").open(str(tmp_path), table="team$images").annotate(annotation())
    found = db.open_table("images", namespace_path=["team"]).to_lance().to_table()
    assert found["r_number"].null_count == 0
    assert len(found) == 20


def test_what_a_comparison_of_an_open_table_finds_is_written_to_it(tmp_path, planted_table):
    table = lancedb.connect(tmp_path).create_table("images", planted_table)
    run = spec_store.compare(table, ["clip", "dino"], dim=60, write=True)
    table.checkout_latest()
    assert set(run.written) <= set(table.schema.names)
    assert spec_store.clusters("images", db=lancedb.connect(tmp_path)).run.run_id == run.run_id


def test_an_open_table_is_aligned_and_the_column_written_to_it(tmp_path, planted_table):
    table = lancedb.connect(tmp_path).create_table("images", planted_table)
    quick = {"steps": 5, "minibatch_rows": 256, "key": "id", "force": True}
    run = spec_store.align(table.to_lance(), "clip", "dino", write=True, **quick)
    table.checkout_latest()
    assert table.schema.field(run.column).type.list_size == 48
