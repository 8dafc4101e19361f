"""The laws of a mergeable statistic, as river states them, for the covariance accumulator."""

import base64
import io
import itertools
import zlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planted import batch_of, random_pair
from spec_store.errors import InputError
from spec_store.spectral.covariance import CovarianceAccumulator
from spec_store.spectral.features import CosineMap, RandomFourierMap
from spec_store.spectral.spectrum import solve

A, B = random_pair(40)
BATCH = batch_of(a=A, b=B)
MAPS = [
    CosineMap("a", 6, True, "float64"),
    RandomFourierMap("b", 9, True, "float64", 0.8, 5, 0, False),
]
# `SMALL_MAPS` over `small_batch`, as format 2 kept them: in two halves, of 18 and 21 rows.
OLD_STATE = """
eNoL8GZm0WWAAEWGU/t/5P2HAi4GEYaM1MSU1CK9vIJKRgYBho2MEHUwerJfqG9AJCNDGUO1ekpqcXKRupWCek2pobqOgnpaflFJUWJe
fH4R0ACguFtiTnEqULw4I7EgFcjXMDYw1dHUUahVIBtwVSsBbclNLFGyUjDSUVDKSMwpSy2GcpLzS/NKQJxoQwsdBSPDWKBYZl5ZYk5m
ClCwGkk+WilRCShZlVqUD6QNY0Eq0zKLikvA6hKBpJKxUi1QMC++KL8cpMUQxMtNLABrr1bKzswDmQk0sjgzL1UJbHlOaW4eSAxsdHlm
SkkG1F15IBfnZFalAvklRaXAIFFKKaksAHGV0nLyE0vMTECW4Tc1CdlUY2JNja0NQIls8z9L0mCRzQGM7OLS3GJYVF+AqoLRWKPaJs2C
qKgG+tuUwqiOXyBrwRIj5PBz2YWI3ZUqDlynd3dburAeWLHnVn6L8/f97bdfr9usxnrA+l595psfEg7XEnksnVIEHTYu784I7WA7UPO4
Yr0J59H9Qe9mr105WfIAakhwvz62GxYSPMCQKCjKTylNLoGHRgE0wRcwUic0DCkLDq71P792vPdVcNjmczG/luu//Yvq1MvGb7gd5ix9
om96+JJ91roXa3JvMzgEsHGVC2xSdlA4tm+da6XwgUq93U7/b360Tzsx9cVO0b/7LSLmhPJfkHS4+F58zofs//sZ/vNyMecyOQgvtGg7
xirlkNX/umpZ0Sf7bWzaKlpaIg73xb0svAPUHdxZJ79g3nprv0ddJnOxqqDDk4etRbGFN/enJOz8Ytb2f7/8i63Ht6xXchCdrjfT3oXv
QL2PddhGdo4DL6/yWBhufrA/+UH53ytOYg6ed/5oTZq11V75mE2388539vmBk4O4Lss6tGrunFkss8Ne99yX9Qqv5B0CvBmZdJlRiylQ
IQTCXAwI0ACOH0Shha4PlOIvQFM1B4q+t0CdsPSPrguUOkAxD8I8KLq+MzGgpJUAb1Y2kAwzEK4A0ktZQDwAzi+X0w==
"""
SMALL_MAPS = [CosineMap("a", 2, True, "float64"), CosineMap("b", 3, True, "float64")]
cuts = st.lists(st.integers(0, 40), max_size=6).map(lambda c: sorted({0, *c, 40}))


def state_of(*batches, maps=MAPS):
    acc = CovarianceAccumulator(maps)
    for b in batches:
        acc.update(b)
    return acc


def pieces(at):
    return [BATCH.slice(i, j - i) for i, j in itertools.pairwise(at)]


def merged(*states):
    total = CovarianceAccumulator(states[0].maps)
    for s in states:
        total.merge(s)
    return total


def assert_same(one, two, atol=1e-12):
    assert one.n_rows == two.n_rows
    assert one.invalid.counts == two.invalid.counts
    np.testing.assert_allclose(one.sums, two.sums, atol=atol)
    for x, y in zip(one.second_moment()[1:], two.second_moment()[1:], strict=True):
        np.testing.assert_allclose(x, y, atol=atol)


@given(cuts)
@settings(deadline=None)
def test_any_partition_into_batches_equals_one_shot(at):
    assert_same(state_of(*pieces(at)), state_of(BATCH))


@given(cuts, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_any_order_and_any_tree_of_merges_equals_one_shot(at, random):
    states = [state_of(p) for p in pieces(at)]
    random.shuffle(states)
    while len(states) > 1:
        i = random.randrange(len(states) - 1)
        states[i : i + 2] = [merged(states[i], states[i + 1])]
    assert_same(states[0], state_of(BATCH))


@given(st.integers(0, 40), st.integers(0, 40))
@settings(deadline=None)
def test_merging_is_commutative_and_associative(i, j):
    x, y, z = (state_of(p) for p in (BATCH.slice(0, i), BATCH.slice(i, j), BATCH.slice(i + j)))
    assert_same(merged(x, y), merged(y, x))
    assert_same(merged(merged(x, y), z), merged(x, merged(y, z)))


def test_the_empty_state_is_the_identity():
    assert_same(merged(state_of(), state_of(BATCH)), state_of(BATCH))
    assert_same(merged(state_of(BATCH), state_of()), state_of(BATCH))


def test_one_row_shards_are_not_lost():
    assert_same(merged(*(state_of(BATCH.slice(i, 1)) for i in range(40))), state_of(BATCH))


@given(st.integers(0, 40))
@settings(deadline=None)
def test_reverting_rows_undoes_updating_with_them(i):
    acc = state_of(BATCH)
    acc.revert(BATCH.slice(i))
    assert_same(acc, state_of(BATCH.slice(0, i)))


def test_rows_that_were_not_added_cannot_be_reverted_and_the_state_stays():
    acc, expected = state_of(BATCH.slice(0, 4)), state_of(BATCH.slice(0, 4))
    unusable = A.copy()
    unusable[:2] = np.nan
    for other in (BATCH.slice(0, 10), batch_of(a=unusable, b=B).slice(0, 3)):
        with pytest.raises(
            InputError, match=r"can't be taken out of a state of 4 usable and 0 unusable rows"
        ):
            acc.revert(other)
        assert_same(acc, expected)
    acc.revert(BATCH.slice(0, 4))
    assert acc.n_rows == 0


@given(st.integers(0, 40))
@settings(deadline=None, max_examples=20)
def test_save_load_and_continue_equals_never_having_stopped(tmp_path_factory, i):
    path = tmp_path_factory.mktemp("state") / "state.npz"
    state_of(BATCH.slice(0, i)).save(path)
    loaded = CovarianceAccumulator.load(path)
    loaded.update(BATCH.slice(i))
    assert_same(loaded, state_of(BATCH), atol=1e-13)


def test_unusable_rows_are_left_out_and_counted_and_travel_with_the_state(tmp_path):
    rows = A.copy()
    rows[3] = np.nan
    rows[5] = 0
    acc = state_of(batch_of(a=rows, b=B))
    kept = [i for i in range(40) if i not in (3, 5)]
    expected = state_of(BATCH.take(pa.array(kept)))
    np.testing.assert_allclose(acc.second_moment()[2], expected.second_moment()[2], atol=1e-12)
    assert acc.n_rows == 38
    acc.save(tmp_path / "s.npz")
    assert CovarianceAccumulator.load(tmp_path / "s.npz").invalid.n_rows == 2


def test_the_tiled_accumulation_of_large_states_equals_the_plain_one(monkeypatch):
    monkeypatch.setattr("spec_store.spectral.covariance._TILE", 3)
    acc = CovarianceAccumulator(MAPS)
    for piece in pieces([0, 7, 40]):
        acc.accumulate(acc.columns(piece))
    assert_same(acc, state_of(BATCH))


def small_batch():
    a = A[:, :2].copy()
    a[3] = 0
    return batch_of(a=a, b=B[:, :3])


def test_a_state_that_was_saved_in_two_halves_is_loaded_as_their_sum():
    old = CovarianceAccumulator.load(io.BytesIO(zlib.decompress(base64.b64decode(OLD_STATE))))
    assert_same(old, state_of(small_batch(), maps=SMALL_MAPS))
    old.update(small_batch())
    assert (old.n_rows, old.invalid.n_rows) == (78, 2)
    assert_same(CovarianceAccumulator.load(io.BytesIO(old.to_bytes())), old, atol=0)


def test_a_state_of_an_unknown_format_is_refused_with_the_known_ones(monkeypatch):
    monkeypatch.setattr("spec_store.spectral.covariance._FORMAT", 4)
    newer = state_of(BATCH).to_bytes()
    monkeypatch.undo()
    with pytest.raises(InputError, match="State format 4 is not known; expected 2 or 3"):
        CovarianceAccumulator.load(io.BytesIO(newer))


def test_states_of_different_maps_are_refused():
    other = [MAPS[0], RandomFourierMap("b", 9, True, "float64", 0.8, 5, 1, False)]
    with pytest.raises(InputError, match="different feature maps can't be merged"):
        state_of(BATCH).merge(state_of(BATCH, maps=other))


def test_float32_products_stay_within_1e_6_of_float64():
    # Rounding to float32 is 6e-8 relative; sums of 4,096 products add about √4096 of them at random.
    a, b = random_pair(4096, 32, 48)
    batch = batch_of(a=a, b=b)
    states = [
        state_of(batch, maps=[CosineMap("a", 32, True, t), CosineMap("b", 48, True, t)])
        for t in ("float32", "float64")
    ]
    narrow, wide = (s.second_moment()[2] for s in states)
    assert np.abs(narrow - wide).max() < 1e-6 * np.abs(wide).max()
    values = [solve(s, modes=5).ends[0].eigenvalues for s in states]
    np.testing.assert_allclose(values[0], values[1], atol=1e-6 * values[1][0])
