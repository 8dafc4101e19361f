"""Columns of two stores, matched by an id."""

import faiss
import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import spec_store
from faiss_files import write_index
from planted import planted_mixture, vectors
from spec_store.errors import ColumnNotFoundError, InputError, UnsupportedError
from spec_store.plugins import get_connector
from spec_store.stores.join import Joined
from spec_store.stores.locate import open_columns
from spec_store.stores.view import KeyIndex, View

RNG = np.random.default_rng(0)


def memory(**columns):
    return get_connector("arrow").wrap(columns)


def stream(joined, columns, **how):
    batches = list(joined.batches(columns, **how))
    return {n: [v for b in batches for v in b.column(n).to_pylist()] for n in [joined.key, *columns]}


def joined(left_ids, right_ids, *, on_missing="error", wrap=memory, **left):
    """Vectors that tell whose they are: (id, id) on the left, (id,) on the right."""
    left_ids, right_ids = np.asarray(left_ids), np.asarray(right_ids)
    a = np.repeat(left_ids[:, None], 2, axis=1).astype(np.float32)
    b = right_ids[:, None].astype(np.float32)
    one = View(memory(id=left_ids, clip=a, **left), key="id")
    other = View(wrap(id=right_ids, vector=b), key="id", names={"dino": "vector"})
    return Joined(one, other, on_missing=on_missing)


def parquet_at(path):
    def wrap(**columns):
        pq.write_table(
            pa.table({n: vectors(c) if c.ndim == 2 else c for n, c in columns.items()}),
            path,
            row_group_size=33,
        )
        return get_connector("arrow").open(str(path))

    return wrap


@pytest.mark.parametrize("order", ["same", "shuffled"])
@pytest.mark.parametrize("store", ["memory", "parquet"])
def test_every_row_meets_its_own_whatever_the_order(tmp_path, store, order):
    ids = RNG.permutation(5000)[:500]
    other = ids if order == "same" else RNG.permutation(ids)
    source = joined(ids, other, wrap=memory if store == "memory" else parquet_at(tmp_path / "x.parquet"))
    assert source.count() == 500
    for batch_rows in (7, 100, 1000):
        found = stream(source, ["dino", "clip"], batch_rows=batch_rows)
        assert found["id"] == ids.tolist()
        assert found["dino"] == [[float(i)] for i in ids]
        assert found["clip"] == [[float(i)] * 2 for i in ids]
    copied = store == "parquet" and order == "shuffled"
    assert any("copied to a temporary file" in note for note in source.notes) == copied


def test_rows_that_only_one_store_holds_are_refused_with_their_count_or_dropped_and_told():
    with pytest.raises(
        InputError, match=r"20 of 100 rows of .* were not matched.*30 of 110 rows.*--on-missing drop"
    ):
        joined(range(100), range(20, 130)).count()
    source = joined(range(100), range(20, 130), on_missing="drop")
    assert source.count() == 80
    assert stream(source, ["dino"])["dino"] == [[float(i)] for i in range(20, 100)]
    assert [note.split(" rows")[0] for note in source.notes] == ["20 of 100", "30 of 110"]
    assert "were skipped" in source.notes[0]


def test_stores_with_no_id_in_common_are_refused():
    with pytest.raises(InputError, match="are they ids of the same rows"):
        joined(range(10), range(50, 60), on_missing="drop").count()


@pytest.mark.parametrize("side", ["left", "right"])
def test_duplicate_ids_are_refused_with_their_count(side):
    twice = [1, 2, 3, 3, 3]
    with pytest.raises(InputError, match=r"2 rows of .* repeat an id \(int64\), such as 3"):
        joined(*((twice, range(5)) if side == "left" else (range(5), twice))).count()


def test_ids_of_different_types_are_refused():
    with pytest.raises(InputError, match=r"are int64 and those of .* are string: they never match"):
        joined(range(3), ["0", "1", "2"]) if False else Joined(
            View(memory(id=np.arange(3), clip=np.ones((3, 2))), key="id"),
            View(
                memory(id=pa.array(["0", "1", "2"]), dino=np.ones((3, 2))), key="id", names={"dino": "dino"}
            ),
        ).count()


def test_null_ids_are_refused():
    with pytest.raises(InputError, match="1 row keys are null"):
        KeyIndex(pa.chunked_array([pa.array([1, None])]), "a table")


def test_ids_beyond_signed_integers_match_their_equals_and_not_the_negative_numbers_with_their_bits():
    large = pa.array([1, 2**64 - 1, 2**63], pa.uint64())
    index = KeyIndex(pa.chunked_array([large]), "a table")
    assert index.find(pa.array([2**63, 2**64 - 1, 1], pa.uint64()), "another").tolist() == [2, 1, 0]
    assert index.find(pa.array([-1, 1, -(2**63)], pa.int64()), "another").tolist() == [-1, 0, -1]
    signed = KeyIndex(pa.chunked_array([pa.array([-1, 1])]), "a table")
    assert signed.find(large, "another").tolist() == [1, -1, -1]


TEXT = pa.array([f"row {i:013}" for i in range(20)])
FIXED = pa.array([f"{i:016}".encode() for i in range(20)], pa.binary(16))
NUMBERS = pa.array(range(20))
ENCODINGS = [
    *((TEXT, TEXT.cast(kind)) for kind in (pa.string(), pa.large_string(), pa.string_view())),
    (TEXT, TEXT.dictionary_encode()),
    *((FIXED, FIXED.cast(kind)) for kind in (pa.binary(16), pa.binary_view(), pa.uuid())),
    (NUMBERS, NUMBERS.cast(pa.uint64())),
    (NUMBERS, NUMBERS.dictionary_encode()),
]


@pytest.mark.parametrize(("left", "right"), ENCODINGS, ids=lambda keys: str(keys.type))
def test_equal_ids_match_whatever_their_encoding(left, right):
    x = np.arange(20, dtype=np.float32)[:, None]
    backwards = pa.array(right.to_pylist()[::-1], right.type)
    for (ids, a), (others, b) in (
        ((left, x), (backwards, x[::-1])),
        ((backwards, x[::-1]), (left, x)),
        ((right, x), (left, x)),
    ):
        source = Joined(
            View(memory(id=ids, clip=a), key="id"),
            View(memory(id=others, vector=b), key="id", names={"dino": "vector"}),
        )
        found = stream(source, ["clip", "dino"], batch_rows=7)
        assert found["id"] == ids.to_pylist()
        assert found["clip"] == found["dino"] == a.tolist()
        assert source.take(ids[4:6], ["dino"])["dino"].to_pylist() == a[4:6].tolist()


def test_a_column_that_cannot_identify_rows_is_refused_by_name():
    with pytest.raises(InputError, match=r"Column 'score' of .* can't identify rows. .* not double"):
        View(memory(score=np.ones(3), clip=np.ones((3, 2))), key="score")


def test_an_empty_store_is_said_to_be_empty():
    with pytest.raises(InputError, match="is empty: there are no rows to match"):
        joined(range(5), np.empty(0, np.int64), on_missing="drop").count()


def test_the_sample_of_a_join_is_that_of_a_table_with_both_columns():
    ids = RNG.permutation(3000)[:800]
    both = View(memory(id=ids, clip=np.ones((800, 2))), key="id")
    source = joined(ids, np.sort(ids))
    one = source.sample(100, seed=3, columns=["clip", "dino"])
    assert one["id"].to_pylist() == both.sample(100, seed=3, columns=["clip"])["id"].to_pylist()
    assert one["dino"].to_pylist() == [[float(i)] for i in one["id"].to_pylist()]


N = 100_000


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """The same rows in LanceDB, FAISS (dino in another order) and Parquet."""
    folder = tmp_path_factory.mktemp("stores")
    a, b, groups = planted_mixture(N, n_groups=12, merged=3, d=32, seed=1, unequal=True)
    ids = np.random.default_rng(0).permutation(10 * N)[:N]
    table = pa.table(
        {"image_id": ids, "clip": vectors(a), "dino": vectors(b), "label": [f"g{g}" for g in groups]}
    )
    images = lancedb.connect(folder / "db").create_table("images", table.slice(0, N // 3))
    images.add(table.slice(N // 3))
    lancedb.connect(folder / "db").create_table("half", table.select(["image_id", "clip", "label"]))
    shuffled = np.random.default_rng(1).permutation(N)
    write_index(folder / "clip.index", "IDMap2,Flat", a, ids)
    write_index(folder / "dino.index", "IDMap2,Flat", b[shuffled], ids[shuffled])
    for name in ("clip", "dino"):
        pq.write_table(table.select(["image_id", name]), folder / f"{name}.parquet", row_group_size=20_000)
    return folder


def by_id(table, prefix="spec_clip_dino"):
    order = np.argsort(table["image_id"].to_numpy())
    return table[f"{prefix}_cluster"].fill_null(-1).to_numpy()[order]


def test_four_ways_to_keep_the_same_rows_give_the_same_comparison(stores):
    db, options = str(stores / "db"), {"key": "image_id", "dim": 200, "sample_rows": 5000}
    at = {
        c: {"faiss": f"{c}=faiss:{stores}/{c}.index", "arrow": f"{c}=arrow:{stores}/{c}.parquet"}
        for c in ("clip", "dino")
    }
    database = lancedb.connect(db)
    runs, found = {}, {}

    def compare(name, table, columns, **more):
        runs[name] = spec_store.compare(table, columns, db=db, write=True, **options, **more)

    compare("lancedb", "images", ["clip", "dino"])
    found["lancedb"] = by_id(database.open_table("images").to_arrow())
    compare("faiss", "scores", [at["clip"]["faiss"], at["dino"]["faiss"]])
    found["faiss"] = by_id(database.open_table("scores").to_arrow())
    compare("joined", "half", ["clip", at["dino"]["faiss"]])
    found["joined"] = by_id(database.open_table("half").to_arrow())
    compare("parquet", None, [at["clip"]["arrow"], at["dino"]["arrow"]], out=stores / "scores.parquet")
    found["parquet"] = by_id(pq.read_table(stores / "scores.parquet"))
    expected = runs["lancedb"]
    assert len(expected.clusters) > 3
    for name, run in runs.items():
        assert run.n_rows == N
        for column in ("clip", "dino"):
            # Partitions differ, and with them the batches over which float32 products are taken.
            np.testing.assert_allclose(
                run.eigenvalues[column], expected.eigenvalues[column], rtol=1e-6, atol=1e-8, err_msg=name
            )
        # And with those, now and then, which of two overlapping candidates passes all bars.
        assert len(run.clusters) == len(expected.clusters)
        assert np.mean(found[name] == found["lancedb"]) > 0.99, name
    assert runs["faiss"].registry is not None
    report = spec_store.clusters("scores", db=db)
    assert report.run.run_id == runs["faiss"].run_id
    assert spec_store.query("scores", report.clusters["where"][0].as_py(), db=db).read_all().num_rows == (
        report.clusters["size"][0].as_py()
    )


def test_a_joined_table_is_annotated_in_place_beside_rows_that_the_other_store_lacks(tmp_path):
    a, b, _ = planted_mixture(1500, n_groups=8, merged=2, d=16, seed=3)
    ids = np.random.default_rng(2).permutation(9000)[:1500]
    table = lancedb.connect(tmp_path).create_table("images", pa.table({"id": ids, "clip": vectors(a)}))
    write_index(tmp_path / "dino.index", "IDMap,Flat", b[:1400], ids[:1400])
    columns = ["clip", f"dino=faiss:{tmp_path}/dino.index"]
    options = {"db": str(tmp_path), "key": "id", "dim": 60}
    with pytest.raises(InputError, match="100 of 1,500 rows of table 'images'"):
        spec_store.compare("images", columns, write=True, **options)
    assert table.schema.names == ["id", "clip"]
    run = spec_store.compare("images", columns, write=True, on_missing="drop", **options)
    assert run.n_rows == 1400
    assert any("100 of 1,500 rows" in w for w in run.warnings)
    written = lancedb.connect(tmp_path).open_table("images").to_arrow()
    blank = written["spec_clip_dino_scores"].is_null().to_numpy()
    assert set(written["id"].to_numpy()[blank]) == set(ids[1400:])
    filtered = spec_store.compare(
        "images", columns, where=f"id < {int(np.median(ids))}", on_missing="drop", **options
    )
    assert 600 < filtered.n_rows < 800


def test_a_join_without_a_key_is_refused_unless_both_stores_have_ids_of_their_own(tmp_path):
    x = RNG.standard_normal((50, 4)).astype(np.float32)
    lancedb.connect(tmp_path).create_table("images", pa.table({"id": np.arange(50), "clip": vectors(x)}))
    index = write_index(tmp_path / "dino.index", "Flat", x)
    columns = ["clip", f"dino=faiss:{index}"]
    with pytest.raises(UnsupportedError, match=r"name the column that holds it with --key.*has id"):
        spec_store.compare("images", columns, db=str(tmp_path))
    with pytest.raises(ColumnNotFoundError, match="No column 'nosuch' in table 'images'"):
        spec_store.compare("images", columns, key="nosuch", db=str(tmp_path))
    run = spec_store.compare(None, [f"clip=faiss:{index}", f"dino=faiss:{index}"], kernel="cosine")
    assert run.spec_diff < 1e-6


def test_the_first_columns_store_leads_whatever_the_stores_are_called(tmp_path):
    x = RNG.standard_normal((5, 4)).astype(np.float32)
    for i in range(6):  # a set of stores would come in an order of its own
        first = write_index(tmp_path / f"{i}a.index", "IDMap,Flat", x, np.arange(5))
        second = write_index(tmp_path / f"{i}b.index", "IDMap,Flat", x, np.arange(5)[::-1].copy())
        columns = [f"clip=faiss:{first}", f"dino=faiss:{second}"]
        for order in (columns, columns[::-1]):
            source = open_columns(order, table=None).source
            assert source.uri in order[0]
            ids = list(range(5)) if source.uri == first else list(range(5))[::-1]
            assert stream(source, ["clip"])["id"] == ids


def test_lossy_indices_and_unnamed_columns_are_told(tmp_path):
    x = np.random.default_rng(0).standard_normal((400, 8)).astype(np.float32)
    lossy = write_index(tmp_path / "q.index", "SQ8", x)
    pq.write_table(pa.table({"a": vectors(x), "b": vectors(x), "row_id": range(400)}), tmp_path / "x.parquet")
    with pytest.raises(ColumnNotFoundError, match=r"No column 'dino' in .*x\.parquet.*Name it after #"):
        spec_store.compare(None, [f"clip=faiss:{lossy}", f"dino=arrow:{tmp_path}/x.parquet"], key="row_id")
    run = spec_store.compare(
        None, [f"clip=faiss:{lossy}", f"dino=arrow:{tmp_path}/x.parquet#b"], key="row_id", kernel="cosine"
    )
    assert any("scalar quantizer" in w for w in run.warnings)
    assert 0 < run.spec_diff < 0.01


def test_one_file_with_both_columns_under_other_names_needs_no_join(tmp_path):
    a, b, _ = planted_mixture(600, n_groups=6, merged=1, d=12, seed=4)
    pq.write_table(pa.table({"x": vectors(a), "y": vectors(b)}), tmp_path / "x.parquet")
    ref = f"arrow:{tmp_path}/x.parquet"
    run = spec_store.compare(
        None, [f"clip={ref}#x", f"dino={ref}#y"], dim=50, write=True, out=tmp_path / "scores.parquet"
    )
    assert run.columns == ("clip", "dino")
    written = pq.read_table(tmp_path / "scores.parquet")
    assert written["row"].to_pylist() == list(range(600))
    assert not isinstance(run.source, Joined)


def test_a_faiss_index_shares_no_memory_with_its_batches():
    index = faiss.IndexFlatL2(4)
    index.add(np.ones((10, 4), np.float32))
    from spec_store_faiss import FaissSource

    (batch,) = FaissSource.from_index(index).batches(["vector"])
    index.reset()
    del index
    assert batch["vector"].flatten().to_pylist() == [1.0] * 40
