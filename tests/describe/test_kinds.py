"""How a column is described: by its type and by its sample; ranges; what is skipped, and why."""

import datetime
import decimal
import itertools
import uuid

import numpy as np
import pyarrow as pa
import pytest

from described import LISTS, batch_of, claimed, described, describer_of, three_groups
from spec_store.describe import Describer, candidates
from spec_store.errors import ColumnNotFoundError, InputError

GROUPS, MEMBERS = three_groups(1_200)
N = len(GROUPS)
RNG = np.random.default_rng(4)


def told(column, *, members=MEMBERS):
    """What is told of each cluster where a table has this column alone."""
    return [[v.value for v in d.over_represented] for d in described(pa.table({"x": column}), members)]


LABELS = [f"label {g}" for g in GROUPS]
EXPECTED = [["label 0"], ["label 1"], ["label 2"]]


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.dictionary(pa.int8(), pa.string()),
        pa.dictionary(pa.int32(), pa.large_string()),
    ],
    ids=str,
)
def test_strings_of_every_type_are_described_alike(kind):
    assert told(pa.array(LABELS, pa.string()).cast(kind)) == EXPECTED


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.string()),
        pa.large_list(pa.large_string()),
        pa.list_(pa.string(), 1),
        pa.list_(pa.dictionary(pa.int8(), pa.string())),
    ],
    ids=str,
)
def test_lists_of_every_type_are_tags(kind):
    assert told(pa.array([[label] for label in LABELS], kind)) == EXPECTED


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint16(), pa.int64(), pa.uint64()], ids=str)
def test_integers_of_few_values_are_values(kind):
    assert told(pa.array(GROUPS.astype(int)).cast(kind)) == [["0"], ["1"], ["2"]]


def test_dictionaries_of_numbers_and_with_repeated_or_null_values_are_described():
    integers = pa.array(GROUPS.astype(np.int32)).dictionary_encode()
    assert told(integers) == [["0"], ["1"], ["2"]]
    repeated = pa.DictionaryArray.from_arrays(
        pa.array([int(g) + 3 * (i % 2) for i, g in enumerate(GROUPS)]),
        pa.array(["a", "b", None, "a", "b", "c"]),
    )
    assert told(repeated) == [["a"], ["b"], ["c", "null"]] or told(repeated)[:2] == [["a"], ["b"]]
    assert set(told(repeated)[2]) == {"c", "null"}


def test_booleans_decimals_and_half_floats_are_described():
    assert told(pa.array(GROUPS == 1))[1] == ["true"]
    prices = [decimal.Decimal(int(g) * 10 + i % 10) / 4 for i, g in enumerate(GROUPS)]
    assert told(pa.array(prices, pa.decimal128(9, 2))) == [["under 2.5"], ["2.5 to 5"], ["5 or more"]]
    halves = pa.array((GROUPS + np.arange(N) % 10 / 16).astype(np.float16))
    assert [len(values) for values in told(halves)] == [1, 1, 1]


def test_numbers_are_told_of_in_ranges_that_a_person_reads():
    values = np.where(GROUPS == 0, RNG.uniform(0, 3, N), np.where(GROUPS == 1, RNG.uniform(3, 9, N), 50.0))
    low, middle, high = told(pa.array(values))
    assert high == ["50"]  # a value on a third of the rows is a range of its own
    (low,), (middle,) = low, middle
    assert low.startswith("under ")
    assert float(low.removeprefix("under ")) == pytest.approx(3, abs=0.5)
    assert middle.endswith(" to under 50")
    assert float(middle.split()[0]) == pytest.approx(3, abs=0.5)
    assert max(len(text) for text in (*low.split(), *middle.split())) <= 5


def test_a_range_says_exactly_which_rows_it_counts():
    values = RNG.normal(size=N) + GROUPS
    integers = (100 * values).astype(np.int64)
    for column in (values, integers):
        for d in described(pa.table({"x": column}), MEMBERS):
            (value,) = d.over_represented
            match value.value.split():
                case ["under", high]:
                    holds = column < float(high)
                case [low, "or", "more"]:
                    holds = column >= float(low)
                case [low, "to", high]:
                    top = column <= float(high) if column is integers else column < float(high)
                    holds = (column >= float(low)) & top
            assert value.count == (holds & (d.number == GROUPS)).sum()
            assert value.lift == pytest.approx(value.share / holds.mean())


def test_a_frequent_number_has_a_range_of_its_own_and_those_beside_it_leave_it_out():
    zero = GROUPS == 0
    values = np.where(zero, 0.0, RNG.uniform(0.1, 5, N))
    first, *_ = told(pa.array(values))
    assert first == ["0"]
    members = [[0] if z else [1] for z in zero]
    assert told(pa.array(values), members=members)[1] == ["over 0"]
    assert told(pa.array(-values), members=members)[1] == ["under 0"]


def test_what_is_not_a_finite_number_is_a_value_of_its_own():
    values = RNG.normal(size=N)
    values[GROUPS == 0] = np.nan
    values[GROUPS == 1] = -np.inf
    assert told(pa.array(values))[:2] == [["NaN"], ["-infinity"]]
    assert told(pa.array(values, mask=GROUPS == 1))[1] == ["null"]
    assert told(pa.array(np.where(GROUPS == 2, np.inf, 1.0)))[2] == ["infinity"]


def test_zero_and_minus_zero_are_one_number():
    values = np.where(GROUPS == 0, np.where(RNG.random(N) < 0.5, -0.0, 0.0), RNG.uniform(1, 2, N))
    d = described(pa.table({"x": values}), MEMBERS)[0]
    assert d.over_represented[0].share == 1.0


@pytest.mark.parametrize("extreme", [2**63 - 1, -(2**63)])
def test_the_largest_and_smallest_integers_are_counted(extreme):
    values = np.where(GROUPS == 0, extreme, RNG.integers(-500, 500, N))
    for d in described(pa.table({"x": values}), MEMBERS)[:1]:
        assert (d.over_represented[0].value, d.over_represented[0].share) == (str(extreme), 1.0)
    large = RNG.integers(2**63 - 10**6, 2**63 - 1, N, endpoint=True).astype(np.uint64) + np.uint64(1)
    assert len(told(pa.array(large))) == 3


def times(start, step, unit="us", zone=None):
    """Three spans of times, one after the other, by group."""
    moments = [start + (int(g) * 400 + i % 400) * step for i, g in enumerate(GROUPS)]
    return pa.array(moments, pa.timestamp(unit, zone))


def test_times_are_told_of_in_natural_units():
    day, hour = datetime.timedelta(days=1), datetime.timedelta(hours=1)
    start = datetime.datetime(2020, 1, 1)
    assert told(times(start, day))[0] == ["2020-01 to 2021-01"]
    assert told(times(start, 30 * day))[2][0].endswith(" to 2118")
    assert told(times(start, hour))[0][0] == "2020-01-01 to 2020-01-16"
    assert told(times(start, datetime.timedelta(seconds=6)))[1] == [
        "2020-01-01 00:39 to 2020-01-01 01:20"
    ]  # in bins of three minutes
    for unit, zone in (("s", None), ("ms", "UTC"), ("ns", "Europe/Berlin")):
        assert told(times(start, day, unit, zone)) == told(times(start, day))
    dates = times(start, day).cast(pa.date32())
    assert told(dates) == told(dates.cast(pa.date64())) == told(times(start, day))


def test_times_before_and_after_the_sample_are_counted():
    start, day = datetime.datetime(2020, 1, 1), datetime.timedelta(days=1)
    table = pa.table({"x": times(start, day)})
    sample = table.filter(pa.array(GROUPS == 1))
    first, _, third = described(table, MEMBERS, sample=sample)
    assert claimed(first) == [("x", "before 2021-02")] or first.over_represented[0].value.startswith("before")
    assert third.over_represented[0].value.endswith("or later")


def test_the_last_time_that_nanoseconds_can_tell_does_no_harm():
    moments = times(datetime.datetime(2020, 1, 1), datetime.timedelta(days=1), "ns").cast(pa.int64())
    values = np.where(np.arange(N) % 9 == 0, 2**63 - 1, moments.to_numpy())
    found = told(pa.array(values).cast(pa.timestamp("ns")))
    assert [len(values) for values in found] == [1, 1, 1]


def describer(column, n=1_000):
    table = pa.table({"x": column})
    return Describer(table.schema, table, [0])


def test_identifiers_are_skipped_with_the_reason():
    ids = [str(uuid.UUID(int=int(x) << 64 | int(y))) for x, y in RNG.integers(0, 2**62, (4_000, 2))]
    reason = {"x": "4,000 different values in 4,000 sampled rows"}
    assert describer(ids).skipped == reason
    assert describer(pa.array(ids).dictionary_encode()).skipped == reason
    assert describer(RNG.permutation(4_000) + 17).skipped == reason
    assert describer(RNG.choice(2**62, 4_000)).skipped == reason
    assert describer([f"IMG_{i:05}.JPG" for i in range(4_000)]).skipped == reason
    assert describer([f"{x:064x}" for x in RNG.choice(2**62, 4_000).tolist()]).skipped == reason
    assert describer([[i] for i in ids]).skipped == {"x": "4,000 different values in 4,000 sampled tags"}


def test_different_integers_that_are_a_quantity_are_described():
    sizes = np.unique(np.exp(RNG.normal(12, 2, 4_000)).astype(np.int64))
    assert describer(sizes).columns == ("x",)


def test_types_that_hold_no_values_for_eyes_are_skipped_with_the_reason():
    schema = pa.schema(
        {
            "vector": pa.list_(pa.float32(), 4),
            "vectors": pa.list_(pa.list_(pa.float16())),
            "bytes": pa.large_binary(),
            "uuid": pa.uuid(),
            "nothing": pa.null(),
            "fields": pa.struct({"a": pa.int32()}),
            "key": pa.int64(),
            "label": pa.string(),
        }
    )
    names, skipped = candidates(schema, skip=["key"])
    assert names == ("label",)
    assert skipped == {
        "vector": "vectors",
        "vectors": "vectors",
        "bytes": "binary",
        "uuid": "binary",
        "nothing": "null in every row",
        "fields": "values of struct<a: int32>",
    }
    found = Describer(schema, pa.table({"label": ["a", "b"]}), [0], skip=["key"])
    assert (found.columns, found.skipped) == (names, skipped)


def test_every_arrow_type_is_described_or_skipped_with_a_reason():
    kinds = [
        pa.time32("s"), pa.time64("us"), pa.duration("s"), pa.month_day_nano_interval(), pa.binary_view(),
        pa.binary(3), pa.decimal32(5, 2), pa.decimal256(40, 2), pa.map_(pa.string(), pa.int8()), pa.date64(),
        pa.list_view(pa.string()), pa.list_(pa.struct({"a": pa.int8()})), pa.list_(pa.string_view()),
        pa.list_(pa.bool_()), pa.list_(pa.int64()), pa.list_(pa.timestamp("s")),
        pa.dictionary(pa.int8(), pa.date32()), pa.large_list(pa.string_view()), pa.list_(pa.string_view(), 2),
        pa.run_end_encoded(pa.int16(), pa.string()), pa.dictionary(pa.int8(), pa.string_view()), pa.json_(),
    ]  # fmt: skip
    for kind in kinds:
        schema = pa.schema({"x": kind})
        names, skipped = candidates(schema)
        assert names or skipped["x"]
        if not names:
            continue
        table = pa.Table.from_batches([], schema)
        found = Describer(schema, table, [0])
        assert found.columns == ("x",)
        for rows in (pa.nulls(5, kind), pa.nulls(0, kind)):
            batch = pa.RecordBatch.from_arrays([rows], schema=schema)
            found.update(batch, pa.array([[0]] * len(rows), LISTS))
            found.update(batch, pa.array([None] * len(rows), LISTS))
        assert found.result()[0].n_members == 5


def test_a_column_of_nulls_and_a_table_of_no_rows_are_described_as_nothing():
    table = pa.table({"a": pa.nulls(40, pa.string()), "b": pa.nulls(40, pa.float64())})
    lists = [[0]] * 20 + [[1]] * 20
    assert [d.over_represented for d in described(table, lists)] == [(), (), ()]
    assert [d.name for d in described(table.slice(0, 0), [])] == ["", "", ""]
    assert (
        described(pa.table({"v": pa.array([[1.0]] * 3)}), [[0], None, []], sample=pa.table({}))[0].n_members
        == 1
    )


def test_no_clusters_are_no_descriptions():
    assert described(pa.table({"x": LABELS}), MEMBERS, numbers=[]) == ()


def test_rows_without_any_member_are_counted_as_the_table():
    found = described(pa.table({"x": ["a"] * 50 + ["b"] * 150}), [[0]] * 50 + [[]] * 150, numbers=[0])
    assert [(v.value, v.lift) for v in found[0].over_represented] == [("a", 4.0)]


def test_slices_of_arrays_count_their_own_rows_only():
    table = pa.table(
        {
            "string": LABELS,
            "number": RNG.normal(size=N) + 3 * GROUPS,
            "tags": [["x"] * (i % 3) + [label] for i, label in enumerate(LABELS)],
            "code": pa.array(LABELS).dictionary_encode(),
            "when": times(datetime.datetime(2020, 1, 1), datetime.timedelta(days=1)),
            "maybe": pa.array(LABELS, mask=np.arange(N) % 5 == 0),
        }
    )
    part = slice(311, 997)
    expected = described(pa.table({c: table.column(c).to_pylist()[part] for c in table.column_names},
                                  schema=table.schema), MEMBERS[part], sample=table)  # fmt: skip
    found = Describer(table.schema, table, range(3))
    batch, lists = batch_of(table), pa.array(MEMBERS, LISTS)
    for start, stop in itertools.pairwise([311, 312, 700, 700, 997]):
        found.update(batch.slice(start, stop - start), lists.slice(start, stop - start))
    assert found.result() == expected


@pytest.mark.parametrize(
    "kind",
    [
        pa.string_view(),
        pa.dictionary(pa.int8(), pa.string()),
        pa.dictionary(pa.int8(), pa.string_view()),
        pa.list_(pa.dictionary(pa.int8(), pa.string())),
        pa.list_(pa.string_view()),
    ],
    ids=str,
)
def test_samples_in_several_chunks_and_batches_of_other_dictionaries_are_read(kind):
    nested = pa.types.is_list(kind)
    values = [[label] for label in LABELS] if nested else LABELS

    def rows(start, stop):
        if kind == pa.dictionary(pa.int8(), pa.string_view()):
            coded = pa.array(values[start:stop]).dictionary_encode()
            return pa.DictionaryArray.from_arrays(
                coded.indices.cast(pa.int8()), coded.dictionary.cast(pa.string_view())
            )
        return pa.array(values[start:stop], kind)

    schema = pa.schema({"x": kind})
    parts = [rows(start, start + 100) for start in range(0, N, 100)]
    found = Describer(schema, pa.table([pa.chunked_array(parts)], schema=schema), range(3))
    for i, part in enumerate(parts):
        batch = pa.RecordBatch.from_arrays([part], schema=schema)
        found.update(batch, pa.array(MEMBERS[100 * i : 100 * i + 100], LISTS))
    assert [[v.value for v in d.over_represented] for d in found.result()] == EXPECTED


def test_a_batch_may_hold_other_columns_in_another_order():
    table = pa.table({"a": LABELS, "b": GROUPS})
    found = Describer(table.schema, table.select(["b"]), range(3), skip=["a"])
    found.update(batch_of(table.select(["b", "a"])), pa.array(MEMBERS, LISTS))
    assert [claimed(d) for d in found.result()] == [[("b", "0")], [("b", "1")], [("b", "2")]]


def test_a_sample_that_lacks_a_column_and_repeated_numbers_are_refused():
    table = pa.table({"a": LABELS, "b": GROUPS})
    with pytest.raises(ColumnNotFoundError, match="The sample has no column 'b'"):
        Describer(table.schema, table.select(["a"]), [0])
    with pytest.raises(InputError, match="Cluster numbers repeat"):
        Describer(table.schema, table, [4, 4])
    with pytest.raises(InputError, match=r"3 lists of clusters were given for 1,200 rows"):
        Describer(table.schema, table, [0]).update(batch_of(table), pa.array([[0]] * 3, LISTS))


def test_long_and_unprintable_values_are_cut_and_cleaned():
    values = np.array(["a\x1b[31m\n\u202eb" + "c" * 500, "short", "日本語"])[GROUPS]
    first, _, third = described(pa.table({"x": values}), MEMBERS)
    (value,) = first.over_represented
    assert value.value.startswith("a [31m bccc")
    assert (len(value.value), value.value[-1], value.share) == (60, "…", 1.0)
    assert len(first.name) == 40
    assert third.name == "日本語"


def test_new_values_of_great_length_are_not_kept():
    table = pa.table({"x": ["y" * 5_000 if g == 0 else "short" for g in GROUPS]})
    sample = table.filter(pa.array(GROUPS != 0))
    assert describer_of(table, MEMBERS, sample=sample).untracked == {"x": int((GROUPS == 0).sum())}
    assert describer_of(table, MEMBERS).untracked == {}
