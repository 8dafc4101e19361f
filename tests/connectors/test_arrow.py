"""Parquet and Arrow files and data in memory."""

import os
import pickle
import subprocess
import sys

import datasets
import duckdb
import fsspec
import numpy as np
import pandas
import polars
import pyarrow as pa
import pyarrow.dataset
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

import spec_store
from command import run_process
from planted import vectors
from spec_store.errors import InputError, TableNotFoundError, UnsupportedError
from spec_store.plugins import get_connector
from spec_store_arrow import DatasetSource, HuggingFaceSource, StreamSource, TableSource


def rows(start, stop):
    matrix = np.arange(4 * start, 4 * stop, dtype=np.float32).reshape(-1, 4)
    return pa.table({"id": range(start, stop), "clip": vectors(matrix)})


def ids(source, **how):
    return [i for b in source.batches(["id"], **how) for i in b["id"].to_pylist()]


def wrap(data):
    return get_connector("arrow").wrap(data)


def test_a_folder_is_read_in_the_order_of_its_paths_with_hive_partitions_as_columns(tmp_path):
    for split, part in (("train", rows(0, 70)), ("test", rows(70, 100))):
        folder = tmp_path / "images" / f"split={split}"
        folder.mkdir(parents=True)
        pq.write_table(part, folder / "part-0.parquet")
    (tmp_path / "images" / "_SUCCESS").touch()
    (tmp_path / "images" / ".part.crc").touch()
    source = get_connector("arrow").open(str(tmp_path / "images"))
    assert ids(source) == [*range(70, 100), *range(70)]
    found = {b["split"][0].as_py() for b in source.batches(["split"])}
    assert found == {"train", "test"}
    assert [p.n_rows for p in source.partitions()] == [30, 70]
    numbers = [k for b in source.batches([], partition=source.partitions()[1]) for k in b[0].to_pylist()]
    assert numbers == list(range(30, 100))


@pytest.mark.parametrize("name", ["x.arrow", "x.feather", "x.parquet", "x.arrows", "stream.arrow"])
@pytest.mark.parametrize("scheme", ["", "file://"])
def test_files_of_each_kind_by_path_and_by_uri(tmp_path, name, scheme):
    path = tmp_path / name
    if name.endswith("parquet"):
        pq.write_table(rows(0, 50), path, row_group_size=7)
    elif name.endswith("feather"):
        pyarrow.feather.write_feather(rows(0, 50), path, compression="zstd")
    else:
        new = pa.ipc.new_file if name == "x.arrow" else pa.ipc.new_stream
        with new(path, rows(0, 50).schema) as writer:
            writer.write_table(rows(0, 50), max_chunksize=9)
    source = get_connector("arrow").open(f"{scheme}{path}")
    assert ids(source, batch_rows=4) == list(range(50))


def test_nested_columns_and_nulls(tmp_path):
    inner = pa.StructArray.from_arrays([vectors(np.ones((3, 2)))], ["vector"])
    vector = pa.array([[1.0, 2.0], None, [3.0, 4.0]], pa.list_(pa.float32(), 2))
    table = pa.table({"emb": inner, "clip": vector, "row": ["a", "b", "c"]})
    pq.write_table(table, tmp_path / "x.parquet")
    for source in (get_connector("arrow").open(str(tmp_path / "x.parquet")), wrap(table)):
        (batch,) = source.batches(["emb.vector", "clip"])
        assert batch.schema.names == ["_row", "emb.vector", "clip"]
        assert batch["clip"].to_pylist() == [[1, 2], None, [3, 4]]
        assert batch["emb.vector"].to_pylist() == [[1, 1]] * 3


def test_what_cannot_be_read_is_refused_by_name(tmp_path):
    connector = get_connector("arrow")
    with pytest.raises(TableNotFoundError, match="No file or folder"):
        connector.open(str(tmp_path / "nothing.parquet"))
    (tmp_path / "x.csv").write_text("a\n1\n")
    with pytest.raises(InputError, match=r"suffix '\.csv'; expected one of \.parquet"):
        connector.open(str(tmp_path / "x.csv"))
    with pytest.raises(InputError, match="holds no Parquet or Arrow files"):
        connector.open(str(tmp_path))
    (tmp_path / "x.parquet").write_bytes(b"PAR1 but nothing more")
    with pytest.raises(InputError, match="can't be read"):
        connector.open(str(tmp_path / "x.parquet"))
    with pytest.raises(InputError, match="have no table"):
        connector.open(str(tmp_path / "x.parquet"), table="images")


def test_a_file_that_changes_between_two_passes_is_noticed(tmp_path):
    pq.write_table(rows(0, 50), tmp_path / "x.parquet")
    source = get_connector("arrow").open(str(tmp_path / "x.parquet"))
    assert len(ids(source)) == 50
    pq.write_table(rows(0, 60), tmp_path / "x.parquet")
    with pytest.raises(InputError, match=r"x\.parquet changed while it was read"):
        ids(source)


class Exported:
    """What pandas, polars, DuckDB and datasets have in common."""

    def __init__(self, *tables):
        self._tables = list(tables)

    def __arrow_c_stream__(self, requested_schema=None):
        table = self._tables[0] if len(self._tables) == 1 else self._tables.pop(0)
        return table.__arrow_c_stream__(requested_schema)


def test_whatever_exports_a_stream_is_read_pass_after_pass():
    source = wrap(Exported(rows(0, 40)))
    assert isinstance(source, StreamSource)
    assert ids(source, batch_rows=7) == ids(source) == list(range(40))
    assert source.count() == 40
    assert len(source.sample(10, seed=0, columns=["clip"])) == 10


def test_pandas_polars_duckdb_and_hugging_face_are_read_and_their_vectors_compared():
    x = np.random.default_rng(0).standard_normal((300, 6)).astype(np.float32)
    table = pa.table(
        {"id": range(300), "a": vectors(x), "b": vectors(np.tanh(x[:, ::-1] * [1, 2, 3, 4, 5, 6]))}
    )
    frames = {
        "hugging face": datasets.Dataset(table),
        "polars": polars.from_arrow(table),
        "duckdb": duckdb.from_arrow(table).filter("id >= 0"),
        "pandas": pandas.DataFrame({name: table[name].to_pylist() for name in table.column_names}),
    }
    expected = spec_store.compare(table, ["a", "b"], key="id", dim=40).eigenvalues["a"]
    for name, frame in frames.items():
        assert ids(wrap(frame)) == list(range(300)), name
        found = spec_store.compare(frame, ["a", "b"], key="id", dim=40).eigenvalues["a"]
        # Rounding of float32 features moves every eigenvalue by a like amount, the small ones' too.
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * expected[0], err_msg=name)


def test_a_reader_that_one_pass_uses_up_is_refused_with_the_remedy():
    with pytest.raises(InputError, match=r"can be read only once.*reader\.read_all\(\)"):
        wrap(rows(0, 5).to_reader())


def test_a_stream_that_changes_between_passes_is_noticed():
    # One table for the schema, one for the count, and another for the pass.
    source = wrap(Exported(rows(0, 40), rows(0, 40), rows(0, 30)))
    assert source.count() == 40
    with pytest.raises(InputError, match="gave 40 rows at first and 30 now"):
        ids(source)


def test_arrays_and_tables_have_random_access():
    matrix = np.random.default_rng(0).standard_normal((50, 3))
    source = wrap({"id": np.arange(50), "clip": matrix})
    assert isinstance(source, TableSource)
    taken = source.take(pa.array([49, 0, 7]), ["id", "clip"])
    assert taken["id"].to_pylist() == [49, 0, 7]
    np.testing.assert_array_equal(np.array(taken["clip"].to_pylist()), matrix[[49, 0, 7]])
    chunked = wrap(pa.concat_tables([rows(0, 20), rows(20, 21), rows(21, 50)]))
    assert chunked.take(pa.array([40, 20, 3, 40]), ["id"])["id"].to_pylist() == [40, 20, 3, 40]
    with pytest.raises(InputError, match="1 of 1 rows are not in"):
        source.take(pa.array([50]), ["id"])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (7, "A int can't be compared: expected a table's name; a path"),
        ({"clip": np.zeros((3, 2)), "dino": np.zeros((4, 2))}, "different numbers of rows"),
        ({"clip": np.zeros((3, 2, 2))}, r"Array 'clip' has shape \(3, 2, 2\)"),
    ],
)
def test_data_that_is_no_table_is_refused(data, message):
    with pytest.raises(InputError, match=message):
        wrap(data)


def test_data_in_memory_is_compared_and_written_to_a_file(tmp_path, planted_table):
    run = spec_store.compare(planted_table, ["clip", "dino"], key="id", dim=60, sample_rows=1500)
    with pytest.raises(UnsupportedError, match="--db and --table"):
        run.write()
    run = run.write(out=tmp_path / "scores.parquet")
    found = pq.read_table(tmp_path / "scores.parquet")
    assert found.column_names == [
        "id",
        *(f"spec_clip_dino_{n}" for n in ("cluster", "clusters", "side", "score", "scores")),
    ]
    assert found["id"].to_pylist() == planted_table["id"].to_pylist()
    sizes = np.bincount([j for c in found["spec_clip_dino_clusters"].to_pylist() for j in c])
    assert sizes[run.clusters["cluster"].to_pylist()].tolist() == run.clusters["size"].to_pylist()
    assert sizes.sum() == sum(run.clusters["size"].to_pylist())
    assert found.schema.field("id").metadata[b"spec_store.run"].decode() == run.run_id
    run.write(out=tmp_path / "scores.parquet")  # ours: replaced
    pq.write_table(planted_table, tmp_path / "other.parquet")
    with pytest.raises(InputError, match="holds more than spec-store's results"):
        run.write(out=tmp_path / "other.parquet")
    assert sorted(os.listdir(tmp_path)) == ["other.parquet", "scores.parquet"]


OWN = pa.schema([pa.field("id", pa.int64(), metadata={"spec_store.run": "test"})])


def own_rows(n):
    return iter([pa.record_batch([pa.array(range(n), pa.int64())], schema=OWN)])


def fail_after(batches):
    yield from batches
    raise RuntimeError("the power went out")


def test_results_never_pass_through_a_link_or_replace_what_is_not_a_plain_file(tmp_path):
    connector = get_connector("arrow")
    victim = tmp_path / "victim"
    victim.write_bytes(b"old")
    foreseen = tmp_path / f".scores.parquet.{os.getpid()}.partial"
    foreseen.symlink_to(victim)
    connector.create(str(tmp_path / "scores.parquet"), None, OWN, own_rows(5))
    assert victim.read_bytes() == b"old"
    assert foreseen.is_symlink()
    (tmp_path / "link.parquet").symlink_to(tmp_path / "scores.parquet")
    os.mkfifo(tmp_path / "pipe.parquet")
    for uri in (str(tmp_path / "link.parquet"), f"file://{tmp_path}/link.parquet"):
        with pytest.raises(InputError, match=r"link\.parquet is a symbolic link"):
            connector.check_create(uri, None, OWN)
        with pytest.raises(InputError, match=r"link\.parquet is a symbolic link"):
            connector.create(uri, None, OWN, own_rows(6))
    with pytest.raises(InputError, match=r"pipe\.parquet is a named pipe"):
        connector.create(str(tmp_path / "pipe.parquet"), None, OWN, own_rows(6))
    assert pq.read_table(tmp_path / "scores.parquet")["id"].to_pylist() == list(range(5))


def test_a_target_that_cannot_be_written_is_refused_before_any_work(tmp_path):
    connector = get_connector("arrow")
    (tmp_path / "folder.parquet").mkdir()
    for target, message in (
        (tmp_path, "is a folder"),
        (tmp_path / "folder.parquet", "is a folder"),
        (tmp_path / "nothing" / "x.parquet", "there is no folder"),
        (tmp_path / "x.csv", r"suffix '\.csv'"),
        ("foo://bucket/x.parquet", "Unrecognized filesystem type"),
    ):
        with pytest.raises(InputError, match=message):
            connector.check_create(str(target), None, OWN)


@pytest.fixture
def bucket():
    store = fsspec.filesystem("memory")
    store.mkdir("/bucket")
    yield "fsspec+memory://bucket"
    store.rm("/bucket", recursive=True)


def test_an_object_is_replaced_only_by_a_complete_one_and_only_if_it_is_ours(bucket):
    connector = get_connector("arrow")
    uri = f"{bucket}/scores.parquet"
    with pytest.raises(RuntimeError, match="the power went out"):
        connector.create(uri, None, OWN, fail_after(own_rows(3)))
    with pytest.raises(TableNotFoundError):
        connector.open(uri)
    for n in (5, 6):
        connector.create(uri, None, OWN, own_rows(n))
    with pytest.raises(RuntimeError, match="the power went out"):
        connector.create(uri, None, OWN, fail_after(own_rows(3)))
    assert connector.open(uri).count() == 6
    other = pa.schema([("id", pa.int64())])
    connector.create(f"{bucket}/other.parquet", None, other, iter([]))
    with pytest.raises(InputError, match="holds more than spec-store's results"):
        connector.check_create(f"{bucket}/other.parquet", None, OWN)
    with pytest.raises(TableNotFoundError, match="there is no 'elsewhere'"):
        connector.check_create("fsspec+memory://elsewhere/x.parquet", None, OWN)


def test_an_object_store_that_is_down_is_named_before_any_work(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    uri = "s3://bucket/x.parquet?endpoint_override=127.0.0.1:9&scheme=http&region=us-east-1"
    with pytest.raises(InputError, match=r"can't be reached: .*Could not connect to server"):
        get_connector("arrow").check_create(uri, None, OWN)


def hugging_face(n=100, **how):
    data = datasets.Dataset.from_dict({"id": list(range(n)), "clip": rows(0, n)["clip"].to_pylist()}, **how)
    return data.cast_column("clip", datasets.List(datasets.Value("float32"), length=4))


def vectors_of(source, column="clip"):
    return [v for b in source.batches([column]) for v in b[column].to_pylist()]


def test_a_folder_of_save_to_disk_holds_the_rows_that_were_saved_and_no_cached_results(tmp_path):
    folder = tmp_path / "images"
    hugging_face().shuffle(seed=3).select(range(70)).save_to_disk(folder, num_shards=3)
    saved = datasets.load_from_disk(folder)
    saved.map(lambda row: {"id": -row["id"]})
    assert any(name.startswith("cache-") for name in os.listdir(folder))
    source = get_connector("arrow").open(str(folder))
    assert ids(source, batch_rows=9) == saved["id"][:]
    assert [p.n_rows for p in source.partitions()] == [24, 23, 23]
    assert vectors_of(source) == saved["clip"][:]
    parts = [ids(source, partition=p) for p in source.partitions()]
    assert [i for part in parts for i in part] == saved["id"][:]
    assert vectors_of(wrap(folder)) == saved["clip"][:]


def test_a_saved_dict_of_splits_is_refused_and_each_split_read(tmp_path):
    datasets.DatasetDict({"train": hugging_face(30), "test": hugging_face(20)}).save_to_disk(tmp_path / "d")
    with pytest.raises(InputError, match=r"DatasetDict of the splits test, train\. Name one: .*/d/test"):
        get_connector("arrow").open(str(tmp_path / "d"))
    assert get_connector("arrow").open(str(tmp_path / "d" / "train")).count() == 30


def test_streams_of_other_columns_and_broken_ones_are_refused(tmp_path):
    for name, table in (("a", rows(0, 5)), ("b", rows(0, 5).rename_columns(["id", "dino"]))):
        with pa.ipc.new_stream(tmp_path / f"{name}.arrows", table.schema) as writer:
            writer.write_table(table)
    with pytest.raises(InputError, match=r"b\.arrows has other columns than .*a\.arrows"):
        get_connector("arrow").open(str(tmp_path))
    content = (tmp_path / "a.arrows").read_bytes()
    for name, broken in (("cut", content[: len(content) // 2]), ("empty", b""), ("text", b"id,clip" * 9)):
        (tmp_path / f"{name}.arrow").write_bytes(broken)
        with pytest.raises(InputError, match="can't be read"):
            get_connector("arrow").open(str(tmp_path / f"{name}.arrow"))


def test_a_stream_that_becomes_shorter_while_it_is_read_does_not_take_the_process_down(tmp_path):
    path = tmp_path / "x.arrows"
    with pa.ipc.new_stream(path, rows(0, 1).schema) as writer:
        writer.write_table(rows(0, 20_000), max_chunksize=1000)
    batches = get_connector("arrow").open(str(path)).batches(["clip"], batch_rows=1000)
    next(batches)
    os.truncate(path, 500)
    with pytest.raises(InputError, match="changed while it was read"):
        list(batches)


PEAK = """
import resource, sys
from spec_store_arrow import FileSource
source = FileSource(sys.argv[1])
next(source.batches(["clip"]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
total = sum(b["clip"].flatten().to_numpy().sum() for b in source.batches(["clip"]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_large_stream_is_read_in_bounded_memory(tmp_path):
    path = tmp_path / "x.arrows"
    batch = pa.record_batch({"clip": vectors(np.ones((1000, 512)))})
    with pa.ipc.new_stream(path, batch.schema) as writer:
        for _ in range(150):  # 300 MB
            writer.write_batch(batch)
    done = subprocess.run([sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 150_000


@pytest.mark.parametrize(
    ("path", "reader"),
    [
        ("_delta_log/00000000000000000000.json", "deltalake"),
        ("metadata/v1.metadata.json", "pyiceberg"),
        (".hoodie/hoodie.properties", "Hudi reader"),
    ],
)
def test_tables_whose_logs_remove_files_are_refused_and_their_reader_named(tmp_path, path, reader):
    for folder in (tmp_path, tmp_path / "tables" / "images"):
        (folder / path).parent.mkdir(parents=True)
        (folder / path).write_text("{}")
        (folder / "data").mkdir()
        pq.write_table(rows(0, 5), folder / "data" / "part-0.parquet")
    with pytest.raises(InputError, match=reader):
        get_connector("arrow").open(str(tmp_path))
    with pytest.raises(InputError, match=reader):
        get_connector("arrow").open(str(tmp_path / "tables"))


@pytest.mark.parametrize("where", ["memory", "mapped"])
def test_a_hugging_face_dataset_is_read_in_its_own_order_with_random_access(tmp_path, where):
    data = hugging_face()
    if where == "mapped":
        data.save_to_disk(tmp_path / "d")
        data = datasets.load_from_disk(tmp_path / "d")
    data = data.shuffle(seed=1).select(range(60)).with_format("numpy")
    source = wrap(data)
    assert isinstance(source, HuggingFaceSource)
    plain = data.with_format(None)
    assert ids(source, batch_rows=7) == ids(source) == plain["id"][:]
    assert vectors_of(source) == plain["clip"][:]
    assert [k for b in source.batches([]) for k in b[0].to_pylist()] == list(range(60))
    taken = source.take(pa.array([59, 0, 7, 59]), ["clip", "id"])
    assert taken["id"].to_pylist() == [plain["id"][i] for i in (59, 0, 7, 59)]
    assert taken["clip"].to_pylist() == [plain["clip"][i] for i in (59, 0, 7, 59)]
    assert source.take(pa.array([], pa.int64()), ["clip"]).schema.field("clip").type == taken["clip"].type
    with pytest.raises(InputError, match="1 of 1 rows are not in"):
        source.take(pa.array([60]), ["id"])


def test_a_pyarrow_dataset_is_streamed_pass_after_pass(tmp_path):
    pq.write_table(rows(0, 40), tmp_path / "a.parquet")
    pq.write_table(rows(40, 90), tmp_path / "b.parquet")
    data = pyarrow.dataset.dataset(tmp_path).filter(pyarrow.dataset.field("id") >= 10)
    source = wrap(data)
    assert isinstance(source, DatasetSource)
    assert source.count() == 80
    assert ids(source, batch_rows=7) == ids(source) == list(range(10, 90))
    assert len(source.sample(10, seed=0, columns=["clip"])) == 10
    once = pyarrow.dataset.Scanner.from_batches(rows(0, 5).to_reader())
    with pytest.raises(InputError, match="A Scanner can't be compared: expected"):
        wrap(once)


def test_a_query_is_run_once_and_its_rows_kept_in_one_order():
    frame = polars.DataFrame(
        {"id": range(50), "name": [f"n{i}" for i in range(50)], "clip": np.ones((50, 4))}
    )
    source = wrap(frame.lazy().filter(polars.col("id") >= 10))
    assert isinstance(source, TableSource)
    assert ids(source) == ids(source) == list(range(10, 50))
    assert source.take(pa.array([3]), ["name"])["name"].to_pylist() == ["n13"]
    assert "LazyFrame was run once" in source.notes[0]
    relation = duckdb.sql("select range as id, random() as score from range(1000)")
    drawn = wrap(relation)
    scores = [[v for b in drawn.batches(["score"]) for v in b["score"].to_pylist()] for _ in range(2)]
    assert scores[0] == scores[1]
    with pytest.raises(InputError, match=r"LazyFrame can't be run: .*nosuch.*frame\.collect\(\)"):
        wrap(frame.lazy().select("nosuch"))


def test_a_list_of_dicts_may_leave_out_values():
    source = wrap([{"id": 1, "clip": [1.0, 2.0]}, {"id": 2, "name": "b"}, {"clip": np.ones(2)}])
    table = pa.Table.from_batches(list(source.batches(["id", "clip", "name"])))
    assert table["id"].to_pylist() == [1, 2, None]
    assert table["clip"].to_pylist() == [[1, 2], None, [1, 1]]
    assert table["name"].to_pylist() == [None, "b", None]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            hugging_face(5).to_iterable_dataset(),
            r"IterableDataset can be read only once.*without streaming=True",
        ),
        (datasets.DatasetDict({"a": hugging_face(5)}), r"several data sets: a\. Give one: data\['a'\]"),
        ([], "A list can't be compared"),
        ([{"id": 1}, {"id": "x"}], "Array 'id' can't be read"),
        ({"clip": np.ones((3, 2), complex)}, "Array 'clip' can't be read"),
    ],
    ids=["iterable", "splits", "empty", "mixed", "complex"],
)
def test_data_that_cannot_be_read_again_is_refused_with_the_remedy(data, message):
    with pytest.raises(InputError, match=message):
        wrap(data)


def test_arrays_of_either_byte_order_are_read():
    matrix = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    source = wrap({"id": np.arange(5, dtype=">i8"), "clip": matrix.astype(">f4")})
    assert ids(source) == list(range(5))
    assert vectors_of(source) == matrix.tolist()


def test_text_of_polars_is_a_key_and_a_column_like_any_other(tmp_path):
    frame = polars.DataFrame(
        {"name": [f"n{i}" for i in range(400)], "clip": np.random.default_rng(0).random((400, 4))}
    )
    frame = frame.with_columns(dino=polars.col("clip"), kind=polars.col("name").cast(polars.Categorical))
    for data in (frame, frame.to_arrow(compat_level=polars.CompatLevel.newest())):
        run = spec_store.compare(data, ["clip", "dino"], key="name", dim=40, sample_rows=300)
        run.write(out=tmp_path / "scores.parquet")
        assert pq.read_table(tmp_path / "scores.parquet")["name"].to_pylist() == frame["name"].to_list()
        assert {b["kind"].type for b in wrap(data).batches(["kind"])} == {
            pa.dictionary(pa.uint32(), pa.large_string())
        }


SEND = [
    lambda folder: pandas.DataFrame({"id": range(20), "clip": rows(0, 20)["clip"].to_pylist()}),
    lambda folder: polars.from_arrow(rows(0, 20)),
    lambda folder: rows(0, 40).slice(0, 20),
    lambda folder: hugging_face(20),
    lambda folder: pyarrow.dataset.dataset(folder / "x.parquet"),
    lambda folder: folder / "x.parquet",
    lambda folder: folder / "x.arrows",
]


@pytest.mark.parametrize("give", SEND)
def test_sources_are_pickled(tmp_path, give):
    pq.write_table(rows(0, 20), tmp_path / "x.parquet")
    with pa.ipc.new_stream(tmp_path / "x.arrows", rows(0, 20).schema) as writer:
        writer.write_table(rows(0, 20))
    source = wrap(give(tmp_path))
    again = pickle.loads(pickle.dumps(source))
    assert ids(again) == list(range(20))
    assert again.fingerprint == source.fingerprint
    assert vectors_of(again) == vectors_of(source)


def test_files_that_changed_are_refused_where_a_source_arrives(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pq.write_table(rows(0, 20), "x.parquet")
    content = pickle.dumps(get_connector("arrow").open("x.parquet"))
    monkeypatch.chdir("/")
    assert pickle.loads(content).uri == "x.parquet"
    pq.write_table(rows(0, 30), tmp_path / "x.parquet")
    with pytest.raises(InputError, match="were changed or replaced since they were opened"):
        pickle.loads(content)


def test_data_that_its_library_cannot_pickle_is_refused_with_the_remedy():
    with pytest.raises(UnsupportedError, match=r"can't be sent to another process: .* Give an Arrow table"):
        pickle.dumps(wrap(Exported(rows(0, 5), (i for i in ()))))


def test_a_hub_that_cannot_be_reached_is_named(tmp_path):
    cols = "clip=arrow:hf://datasets/x/y/a.parquet#a,dino=arrow:hf://datasets/x/y/a.parquet#b"
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    done = run_process("compare", "--cols", cols, "--dry-run", db=str(tmp_path), code=1, env=nowhere)
    assert "hf://datasets/x/y/a.parquet can't be reached: " in done.stderr
    assert "Unexpected" not in done.stderr


def test_rows_without_a_vector_are_skipped_and_counted():
    a, b = np.random.default_rng(0).standard_normal((2, 300, 4))
    table = pa.table({"clip": [[], *a[1:].tolist()], "dino": [*b[:-1].tolist(), None]})
    run = spec_store.compare(table, ["clip", "dino"], dim=40, skip_invalid=True)
    assert run.n_skipped == 2
    with pytest.raises(InputError, match=r"column 'clip': 1 empty \(first: row 0\)"):
        spec_store.compare(table, ["clip", "dino"], dim=40)
