import numpy as np
import pyarrow as pa
import pytest

from spec_store.errors import InputError, InvalidVectorsError
from spec_store.stores.vectors import REASONS, InvalidRows, decode, normalize_rows, vector_width

ROWS = [[1.0, 2.0], None, [3.0, float("nan")], [0.0, 0.0], [5.0, None], [6.0, 7.0], [float("inf"), 1.0]]
KINDS = [
    pa.list_(pa.float32(), 2),
    pa.list_(pa.float64(), 2),
    pa.list_(pa.float16(), 2),
    pa.list_(pa.float32()),
    pa.large_list(pa.float32()),
]


def arrow_array(lists, kind):
    """Float16 is cast, since older pyarrow makes none from Python's floats."""
    wide = pa.list_(pa.float32(), kind.list_size) if kind.value_type == pa.float16() else kind
    return pa.array(lists, wide).cast(kind)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize(("start", "stop"), [(0, 7), (1, 6), (2, 2), (3, 7)])
def test_every_unusable_row_is_found_at_its_own_place_whatever_the_slice(kind, start, stop):
    array = arrow_array(ROWS, kind).slice(start, stop - start)
    found = decode("v", array, 2, directions=True)
    assert found.reason.tolist() == [0, 1, 2, 3, 1, 0, 2][start:stop]
    for i, row in enumerate(ROWS[start:stop]):
        if found.usable[i]:
            np.testing.assert_array_equal(found.matrix[i], row)


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float32(), 3), pa.list_(pa.float16(), 3), pa.list_(pa.uint8(), 3)]
)
def test_a_column_without_nulls_is_viewed_and_not_copied(kind):
    array = arrow_array(np.arange(30).reshape(10, 3).tolist(), kind)[4:9]
    found = decode("v", array, 3, directions=False)
    buffer = np.frombuffer(array.values.buffers()[1], found.matrix.dtype)
    assert np.shares_memory(found.matrix, buffer)
    np.testing.assert_array_equal(found.matrix, np.arange(12, 27).reshape(5, 3))


def test_a_zero_vector_is_usable_where_no_direction_is_needed():
    array = pa.array([[0.0, 0.0]], pa.list_(pa.float32(), 2))
    assert decode("v", array, 2, directions=False).usable.all()


@pytest.mark.parametrize(
    ("kind", "largest"), [(pa.float32(), 3e38), (pa.float64(), 3e38), (pa.float64(), 1e200)]
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_of_extreme_length_keep_their_direction(kind, largest, dtype):
    array = pa.array([[largest, -largest], [3e-20, 4e-20], [3.0, 4.0], [0.0, 0.0]], pa.list_(kind, 2))
    found = decode("v", array, 2, directions=True)
    assert found.usable.tolist() == [True, True, True, False]
    expected = [[0.5**0.5, -(0.5**0.5)], [0.6, 0.8], [0.6, 0.8], [0, 0]]
    for rows in (None, np.arange(4)):
        np.testing.assert_allclose(found.normalized(rows, dtype), expected, rtol=1e-6)


def test_rows_too_long_for_a_distance_are_counted_where_lengths_matter():
    array = pa.array([[1e200, 0.0], [1e19, 0.0], [3e17, 0.0]], pa.list_(pa.float64(), 2))
    found = decode("v", array, 2, directions=False)
    assert [REASONS[code - 1] if code else None for code in found.reason] == [REASONS[3], REASONS[3], None]
    assert REASONS[3] == "longer than 1e+18"
    assert np.isfinite(found.chosen(np.array([2]), "float32")).all()


def test_normalized_rows_are_unit_rows_zeros_or_not_finite():
    x = np.array([[3, 4], [0, 0], [1, np.nan], [1, np.inf]], np.float32)
    found = normalize_rows(x)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[:2], [[0.6, 0.8], [0, 0]], rtol=1e-6)
    assert not np.isfinite(found[2:]).all(axis=1).any()


def test_another_width_is_refused_and_names_the_first_such_row():
    array = pa.array([[1.0, 2.0], None, [1.0], [2.0]], pa.list_(pa.float32()))
    with pytest.raises(InvalidVectorsError, match=r"row 12 has 1 dimensions where 2 are expected"):
        decode("v", array, 2, directions=True, keys=pa.array([10, 11, 12, 13]))
    with pytest.raises(InvalidVectorsError, match="has 2 dimensions where 3"):
        decode("v", pa.array([[1.0, 2.0]], pa.list_(pa.float32(), 2)), 3, directions=True)


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.large_list(pa.float64())], ids=str)
def test_empty_vectors_of_a_variable_list_are_counted_as_missing(kind):
    array = pa.array([[9.0, 9.0], [], [1.0, 2.0], None, [3.0, 4.0], [5.0, None], []], kind).slice(1)
    found = decode("v", array, 2, directions=True)
    assert [REASONS[code - 1] if code else None for code in found.reason] == [
        *("empty", None, "null", None, "null", "empty")
    ]
    assert found.matrix[found.usable].tolist() == [[1, 2], [3, 4]]
    assert vector_width("v", kind, array) == 2
    short = pa.array([[], [1.0, 2.0], None, [1.0]], kind)
    with pytest.raises(InvalidVectorsError, match="row 13 has 1 dimensions"):
        decode("v", short, 2, directions=True, keys=pa.array([10, 11, 12, 13]))


def test_the_width_of_a_variable_list_is_that_of_its_first_vector():
    kind = pa.list_(pa.float32())
    assert vector_width("v", kind, pa.array([None, [1.0, 2.0]], kind)) == 2
    with pytest.raises(InvalidVectorsError, match="every row looked at is null or empty"):
        vector_width("v", kind, pa.array([None, []], kind))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (pa.string(), "holds string"),
        (pa.list_(pa.string()), "holds list<"),
        (pa.list_(pa.list_(pa.float32(), 4)), "several vectors per row"),
        (pa.float32(), "holds float"),
    ],
    ids=str,
)
def test_what_is_not_a_vector_is_refused_by_type(kind, said):
    with pytest.raises(InputError, match=said):
        vector_width("v", kind)


def test_invalid_rows_add_subtract_and_survive_json():
    array = pa.array(ROWS, pa.list_(pa.float32(), 2))
    keys = pa.array(range(7))
    v = decode("v", array, 2, directions=True)
    one, two = InvalidRows(), InvalidRows()
    one.update(keys, {"v": v})
    assert one.n_rows == 5
    assert one.describe() == "column 'v': 2 null, 2 not finite, 1 zero (first: row 1)"
    two.update(keys, {"v": v, "w": v})
    assert two.n_rows == 5
    total = InvalidRows.from_json(one.to_json())
    total.merge(two)
    total.merge(two, sign=-1)
    assert (total.counts, total.n_rows) == (one.counts, one.n_rows)
