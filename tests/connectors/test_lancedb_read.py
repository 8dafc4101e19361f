import lancedb
import numpy as np
import pyarrow as pa
import pytest

from lance_tables import make_table, open_source, rows
from planted import vectors
from spec_store.connector import Partition
from spec_store.errors import (
    ColumnNotFoundError,
    FilterError,
    InputError,
    TableNotFoundError,
    UnsupportedError,
)
from spec_store.plugins import get_connector


def test_batches_are_in_file_order_with_keys_that_find_the_same_rows_again(tmp_path):
    table = make_table(tmp_path, rows(100), rows(50, 100), rows(1, 150))
    table.delete("id % 7 = 3")
    source = open_source(tmp_path)
    batches = list(source.batches(["dino", "id"], batch_rows=16))
    assert max(len(b) for b in batches) <= 16
    assert batches[0].schema.names == ["_rowid", "dino", "id"]
    ids = [i for b in batches for i in b["id"].to_pylist()]
    assert ids == [i for i in range(151) if i % 7 != 3]
    keys = pa.concat_arrays([b["_rowid"] for b in batches])
    shuffled = np.random.default_rng(0).permutation(len(keys))
    taken = source.take(keys.take(pa.array(shuffled)), ["id", "dino"])
    assert taken["id"].to_pylist() == [ids[i] for i in shuffled]
    again = [i for b in source.batches(["id"], batch_rows=999) for i in b["id"].to_pylist()]
    assert again == ids


def test_a_pinned_version_does_not_move(tmp_path):
    table = make_table(tmp_path, rows(10))
    source = open_source(tmp_path)
    table.add(rows(5, 10))
    table.delete("id = 3")
    assert source.count() == 10
    assert sum(len(b) for b in source.batches(["id"])) == 10
    assert open_source(tmp_path).count() == 14
    assert open_source(tmp_path, version=1).count() == 10
    with pytest.raises(InputError, match="no version 99; it holds 1 to 3"):
        open_source(tmp_path, version=99)


def test_filters_select_for_count_batches_and_sample(tmp_path):
    make_table(tmp_path, rows(200))
    source = open_source(tmp_path)
    assert source.count("id < 50 AND payload <> 'payload 7'") == 49
    assert sum(len(b) for b in source.batches(["clip"], where="id < 50")) == 50
    sample = source.sample(20, seed=3, columns=["id"], where="id < 50")
    assert len(sample) == 20
    assert max(sample["id"].to_pylist()) < 50


@pytest.mark.parametrize("where", ["id <", "nosuch = 1", "id = 'x'", "clip"])
def test_what_is_not_a_filter_is_refused_before_any_batch(tmp_path, where):
    make_table(tmp_path, rows(10))
    source = open_source(tmp_path)
    with pytest.raises(FilterError, match="The filter"):
        source.count(where)
    with pytest.raises(FilterError, match="The filter"):
        source.batches(["id"], where=where)


def test_partitions_are_ranges_of_fragments_that_cover_every_row_once_in_order(tmp_path):
    n = 150_000
    table = make_table(tmp_path, pa.table({"id": range(n)}), pa.table({"id": range(n, n + 30)}))
    table.delete("id % 5 = 2 OR id = 65535 OR id >= 149000 AND id < 150003")
    source = open_source(tmp_path)
    parts = source.partitions()
    kept = [i for i in range(n + 30) if not (i % 5 == 2 or i == 65535 or 149_000 <= i < 150_003)]
    in_first = sum(i < n for i in kept)
    assert [p.id for p in parts] == ["0:0:65536", f"0:65536:{in_first}", f"1:0:{len(kept) - in_first}"]
    found = [[i for b in source.batches(["id"], partition=p) for i in b["id"].to_pylist()] for p in parts]
    assert [len(ids) for ids in found] == [p.n_rows for p in parts]
    assert [i for ids in found for i in ids] == kept
    for columns in (["id"], []):
        where = {"where": "id % 3 = 0 OR id > 149990"}
        whole = [k for b in source.batches(columns, **where) for k in b["_rowid"].to_pylist()]
        pieces = (source.batches(columns, **where, partition=p) for p in parts)
        assert [k for piece in pieces for b in piece for k in b["_rowid"].to_pylist()] == whole


def test_wide_rows_are_read_in_pieces_that_are_in_order_and_skip_deleted_ones(tmp_path):
    wide = np.repeat(
        np.arange(21_000, dtype=np.float32), 1024
    )  # 57 MB of live rows, more than is read at once
    column = pa.FixedSizeListArray.from_arrays(pa.array(wide), 1024)
    made = lancedb.connect(tmp_path).create_table("t", pa.table({"n": np.arange(21_000), "v": column}))
    made.delete("n % 3 = 1")
    source = open_source(tmp_path, "t")
    (part,) = source.partitions()
    batches = list(source.batches(["v"], partition=part, batch_rows=1000))
    first = np.concatenate([b["v"].flatten().to_numpy()[::1024] for b in batches])
    np.testing.assert_array_equal(first, [i for i in range(21_000) if i % 3 != 1])
    assert max(len(b) for b in batches) <= 1000


@pytest.mark.parametrize("unknown", ["7:0:10", "all", "0"])
def test_a_partition_of_another_table_is_refused(tmp_path, unknown):
    make_table(tmp_path, rows(10))
    with pytest.raises(InputError, match=f"no partition '{unknown}'"):
        open_source(tmp_path).batches(["id"], partition=Partition(unknown, 10))


def test_a_sample_is_a_function_of_the_seed(tmp_path):
    make_table(tmp_path, rows(500), rows(500, 500))
    source = open_source(tmp_path)
    one, two, other = (source.sample(100, seed=s, columns=["id"])["id"].to_pylist() for s in (1, 1, 2))
    assert one == two
    assert 0 < len(set(one) & set(other)) < 40
    assert len(source.sample(5000, seed=1, columns=["id"])) == 1000


def test_nested_columns_are_read_by_dotted_path(tmp_path):
    inner = pa.StructArray.from_arrays([vectors(np.ones((10, 3))), pa.array(range(10))], ["vector", "n"])
    make_table(tmp_path, pa.table({"id": range(10), "emb": inner}))
    source = open_source(tmp_path)
    batch = next(source.batches(["emb.vector"]))
    assert batch.schema.names == ["_rowid", "emb.vector"]
    assert (
        source.take(batch["_rowid"].slice(3, 2), ["emb.vector"])["emb.vector"].to_pylist() == [[1.0] * 3] * 2
    )
    with pytest.raises(ColumnNotFoundError, match=r"No column 'emb.vectr'.*Did you mean 'emb.vector'"):
        source.batches(["emb.vectr"])


def test_stable_row_ids_are_read_as_keys(tmp_path):
    import lance

    lance.write_dataset(rows(20), tmp_path / "images.lance", enable_stable_row_ids=True)
    dataset = lance.dataset(tmp_path / "images.lance")
    dataset.delete("id < 5")
    dataset.update({"payload": "'x'"}, "id = 9")
    source = open_source(tmp_path)
    batches = list(source.batches(["id"]))
    keys = pa.concat_arrays([b["_rowid"] for b in batches])
    assert source.take(keys, ["id"])["id"].to_pylist() == [i for b in batches for i in b["id"].to_pylist()]


def test_row_ids_that_are_gone_are_refused_with_their_count(tmp_path):
    make_table(tmp_path, rows(10)).delete("id = 4")
    with pytest.raises(InputError, match=r"2 of 3 row ids are not in table 'images'.*the first 4"):
        open_source(tmp_path).take(pa.array([1, 4, 77]), ["id"])


def test_a_missing_database_table_or_column_is_named_with_the_nearest_name(tmp_path):
    make_table(tmp_path, rows(3))
    with pytest.raises(TableNotFoundError, match="No LanceDB database"):
        open_source(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(TableNotFoundError, match=r"No table 'image' in database .* Did you mean 'images'"):
        open_source(tmp_path, "image")
    with pytest.raises(ColumnNotFoundError, match=r"No column 'clp' in table 'images'.*Did you mean 'clip'"):
        open_source(tmp_path).batches(["clp"])


def test_more_tables_than_a_page_are_all_found(tmp_path):
    db = lancedb.connect(tmp_path)
    for i in range(25):
        db.create_table(f"t{i:02}", pa.table({"id": [i]}))
    assert open_source(tmp_path, "t24").count() == 1


def test_cloud_databases_are_refused_with_the_reason():
    with pytest.raises(UnsupportedError, match="serves rows, not data files"):
        get_connector("lancedb").open("db://somewhere", table="images")


def test_creating_is_whole_or_not_at_all(tmp_path):
    connector = get_connector("lancedb")
    batch = rows(10).to_batches()[0]

    def broken():
        yield batch
        raise RuntimeError("the stream broke")

    with pytest.raises(RuntimeError, match="the stream broke"):
        connector.create(str(tmp_path), "new", batch.schema, broken())
    assert not list(tmp_path.iterdir())
    connector.create(str(tmp_path), "new", batch.schema, iter([batch]))
    assert open_source(tmp_path, "new").count() == 10
    with pytest.raises(InputError, match="holds more than spec-store's results"):
        connector.create(str(tmp_path), "new", batch.schema, iter([batch]))


def test_appending_creates_the_table_once(tmp_path):
    connector = get_connector("lancedb")
    make_table(tmp_path, rows(1))
    for _ in range(2):
        connector.append(str(tmp_path), "log", pa.table({"run": ["r"]}))
    assert open_source(tmp_path, "log").count() == 2
