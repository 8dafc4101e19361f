"""`query --order-by`: exact order, nulls last, bounded memory."""

import json

import lancedb
import numpy as np
import pyarrow as pa
import pytest

import spec_store
from command import run
from spec_store.errors import ColumnNotFoundError, InputError
from spec_store.workflows import ordering
from spec_store.workflows.ordering import Order, first_rows

N = 2000


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A table in three fragments: id, price with nulls and NaN, shelf of many equal values, text, lists."""
    folder = str(tmp_path_factory.mktemp("shop"))
    price = np.random.default_rng(0).permutation(N).astype(float)
    goods = pa.table(
        {
            "id": np.arange(N),
            "price": pa.array([None if p < 3 else float("nan") if p < 5 else p for p in price]),
            "shelf": np.arange(N) % 7,
            "name": [f"good {p:05.0f}" for p in price],
            "a, b": np.arange(N),
            "sort desc": np.arange(N),
            "tags": [["x"]] * N,
            "place": pa.array([{"row": i} for i in range(N)]),
        }
    )
    table = lancedb.connect(folder).create_table("goods", goods.slice(0, 700))
    table.add(goods.slice(700, 100))
    table.add(goods.slice(800))
    return folder


def ids(shop, *order_by, **options):
    reader = spec_store.query("goods", order_by=order_by, select=["id"], db=shop, **options)
    assert reader.schema.names == ["id"]
    return reader.read_all()["id"].to_pylist()


def expected(shop, *, descending=False):
    rows = spec_store.query("goods", select=["id", "price"], db=shop).read_all().to_pylist()
    known = [r for r in rows if r["price"] is not None and r["price"] == r["price"]]
    rest = [r for r in rows if r["price"] is not None and r["price"] != r["price"]]
    nulls = [r for r in rows if r["price"] is None]
    return [r["id"] for r in sorted(known, key=lambda r: (-1) ** descending * r["price"]) + rest + nulls]


def test_nulls_and_nan_come_last_in_either_direction(shop):
    assert ids(shop, "price") == expected(shop)
    assert ids(shop, "price desc") == expected(shop, descending=True)


def test_the_first_rows_are_the_same_whether_columns_are_streamed_or_fetched_by_key(shop, monkeypatch):
    by_key = ids(shop, "price desc", limit=30)
    monkeypatch.setattr(ordering, "_MOST_TAKEN_ROWS", 0)
    assert by_key == ids(shop, "price desc", limit=30) == expected(shop, descending=True)[:30]


def test_rows_equal_in_the_first_column_go_by_the_second_and_then_by_the_table(shop):
    rows = [(i % 7, i) for i in range(N)]
    assert ids(shop, "shelf") == [i for _, i in sorted(rows)]
    assert ids(shop, "shelf desc", "id desc") == [i for _, i in sorted(rows, reverse=True)]
    assert (
        ids(shop, "shelf desc", limit=400) == [i for _, i in sorted(rows, key=lambda r: (-r[0], r[1]))][:400]
    )


def test_a_direction_may_be_given_once_for_all(shop):
    assert ids(shop, "shelf", "id asc", descending=True) == ids(shop, "shelf desc", "id")


def test_a_filter_goes_before_the_order(shop):
    assert ids(shop, "price", where="shelf = 3", limit=9) == [i for i in expected(shop) if i % 7 == 3][:9]
    assert ids(shop, "price", where="id < 0", limit=9) == ids(shop, "price", where="id < 0") == []
    assert ids(shop, "price", limit=0) == []


def test_columns_with_spaces_and_nested_ones_can_be_named(shop):
    assert ids(shop, "sort desc", limit=2) == [0, 1]
    assert ids(shop, "sort desc desc", limit=2) == [N - 1, N - 2]
    assert ids(shop, "place.row DESC", limit=2) == [N - 1, N - 2]
    assert ids(shop, '"a, b" desc', limit=2) == [N - 1, N - 2]


@pytest.mark.parametrize("column", ["tags", "place"])
def test_lists_and_structs_have_no_order(shop, column):
    with pytest.raises(InputError, match=rf"Column '{column}' holds .* which has no order"):
        spec_store.query("goods", order_by=column, db=shop)


def test_an_unknown_column_is_named_with_the_nearest_one(shop):
    with pytest.raises(ColumnNotFoundError, match=r"No column 'prise' .* Did you mean 'price'"):
        spec_store.query("goods", order_by="prise desc", db=shop)
    with pytest.raises(InputError, match="order_by is empty"):
        spec_store.query("goods", order_by=[], db=shop)


def test_more_rows_than_fit_in_memory_are_refused_before_any_is_read(shop, monkeypatch):
    monkeypatch.setattr(ordering, "MOST_SORTED_ROWS", 100)
    with pytest.raises(InputError, match=r"2,000 rows match; at most 100 can be ordered\. Give a --limit"):
        spec_store.query("goods", order_by="id", db=shop)
    assert len(ids(shop, "id", limit=100)) == 100
    assert len(ids(shop, "id", where="id < 100")) == 100


def test_more_bytes_than_fit_in_memory_are_refused(shop, monkeypatch):
    monkeypatch.setattr(ordering, "MOST_SORTED_BYTES", 1000)
    with pytest.raises(InputError, match="take more than"):
        spec_store.query("goods", order_by="id", db=shop).read_all()


def test_no_more_than_the_limit_and_a_part_of_the_stream_is_held(monkeypatch):
    monkeypatch.setattr(ordering, "_SLACK_ROWS", 50)
    held = []

    def sort(batches, orders, limit):
        held.append(sum(map(len, batches)))
        return whole(batches, orders, limit)

    whole = ordering._sorted
    monkeypatch.setattr(ordering, "_sorted", sort)
    values = np.random.default_rng(1).permutation(5000)
    batches = (pa.record_batch({"x": values[i : i + 20]}) for i in range(0, 5000, 20))
    found = first_rows(batches, [Order("x", descending=True)], 10)
    assert found["x"].to_pylist() == list(range(4999, 4989, -1))
    assert max(held) <= 10 + 50 + 20
    assert len(held) > 50


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["b", None, "a"]).dictionary_encode(),
        pa.array(["b", None, "a"]).cast(pa.string_view()),
        pa.array(np.array([2, 9, 1], np.float16), mask=np.array([False, True, False])),
        pa.array([True, None, False]),
        pa.array([2, None, 1], pa.timestamp("us", "UTC")),
        pa.array([2, None, 1], pa.duration("s")),
        pa.array([2, None, 1]).cast(pa.decimal128(38, 2)),
        pa.array([b"b", None, b"a"]),
        pa.array([b"b" * 16, None, b"a" * 16], pa.uuid()),
    ],
    ids=lambda c: str(c.type),
)
def test_every_type_with_an_order_is_ordered(column):
    assert ordering._has_order(column.type)
    batch = pa.record_batch({"x": column, "at": [0, 1, 2]})
    assert first_rows([batch], [Order("x")], None)["at"].to_pylist() == [2, 0, 1]
    assert first_rows([batch], [Order("x", descending=True)], 2)["at"].to_pylist() == [0, 2]


def test_the_command_orders_its_table_and_its_files(shop, tmp_path):
    query = ["query", "--table", "goods", "--select", "id"]
    shown = run(*query, "--order-by", "shelf desc, id desc", "--limit", "2", db=shop).stdout.split()
    assert shown == ["id", "1994", "1987"]
    cut = run(*query, "--order-by", '"a, b"', "--desc", db=shop)
    assert cut.stdout.split()[:3] == ["id", "1999", "1998"]
    assert "The first 20 rows; --limit shows more." in cut.stderr
    run(*query, "--order-by", "id", "--desc", "-o", tmp_path / "all.json", db=shop)
    found = json.loads((tmp_path / "all.json").read_text())
    assert [row["id"] for row in found] == list(range(N))[::-1]
    assert "--desc is the direction of --order-by" in run(*query, "--desc", db=shop, code=2).stderr
    assert "Did you mean 'shelf'?" in run(*query, "--order-by", "shelv", db=shop, code=1).stderr
