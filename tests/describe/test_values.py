"""What is over-represented: counts, shares, lifts and probabilities against naive ones, and their order."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from described import claimed, described, describer_of, three_groups
from spec_store.describe.enrichment import enriched, log_upper_tail, pairs_to_test

GENERATOR = np.random.default_rng(3)
N = 3_000
GROUPS = GENERATOR.integers(0, 3, N)
MEMBERS = [
    None if absent else sorted({int(g), *([2] if also else [])})
    for g, absent, also in zip(GROUPS, GENERATOR.random(N) < 0.1, GENERATOR.random(N) < 0.2, strict=True)
]
OWN = GENERATOR.random(N) < 0.6
LANGUAGES = np.where(OWN, GROUPS, GENERATOR.integers(0, 9, N))
TAGS = [
    [f"t{t}" for t in GENERATOR.integers(0, 12, GENERATOR.integers(0, 4))] + ["own"] * bool(own and g == 1)
    for own, g in zip(OWN, GROUPS, strict=True)
]
TABLE = pa.table(
    {
        "language": pa.array([None if x == 8 else f"language {x}" for x in LANGUAGES]),
        "digit": pa.array(LANGUAGES.astype(np.int16)),
        "public": pa.array(LANGUAGES % 2 == 0),
        "tags": pa.array([None if i % 50 == 7 else tags for i, tags in enumerate(TAGS)]),
    }
)


def naive(column, value, number):
    """Count, share, lift and uncorrected log p by pandas and scipy."""
    frame = pd.DataFrame({"value": TABLE.column(column).to_pylist(), "members": MEMBERS})
    frame = frame[frame["members"].map(lambda m: m is not None)]

    def has(found):
        if isinstance(found, list):
            return value in found or (value == "empty" and not found)
        if found is None or found != found:
            return value == "null"
        return value == (str(found).lower() if isinstance(found, bool) else str(found))

    holds = frame["value"].map(has).to_numpy(bool)
    member = frame["members"].map(lambda m: number in m).to_numpy(bool)
    count, share = int(holds[member].sum()), holds[member].mean()
    log_p = scipy.stats.hypergeom.logsf(count - 1, len(frame), holds.sum(), member.sum())
    return count, share, share / holds.mean(), log_p


def test_counts_shares_and_lifts_equal_naive_ones_and_p_is_corrected_scipys():
    found = described(TABLE, MEMBERS)
    pairs = [(v, d.number) for d in found for v in d.over_represented]
    assert {v.column for v, _ in pairs} == {"language", "digit", "public", "tags"}
    for value, number in pairs:
        count, share, lift, log_p = naive(value.column, value.value, number)
        assert value.count == count
        assert value.share == pytest.approx(share, rel=1e-12)
        assert value.lift == pytest.approx(lift, rel=1e-12)
        assert log_p < value.log_p <= log_p + np.log(200)  # under 200 tests of some 30 values and 3 clusters
        assert value.p_value == pytest.approx(np.exp(value.log_p))
        assert value.p_value < 0.01
        assert value.lift >= 1.2
        assert value.share >= 0.05


def test_every_value_of_the_naive_computation_that_passes_is_told():
    for d in described(TABLE, MEMBERS):
        told = {v.value for v in d.over_represented if v.column == "language"}
        for value in ("null", *(f"language {i}" for i in range(8))):
            _, share, lift, log_p = naive("language", value, d.number)
            if log_p < np.log(0.01 / 200):
                assert (value in told) == (lift >= 1.2 and share >= 0.05)


@given(st.lists(st.integers(0, N), max_size=8))
@settings(deadline=None, max_examples=25)
def test_batches_cut_anywhere_give_the_same_values(cuts):
    assert described(TABLE, MEMBERS, cuts=cuts) == described(TABLE, MEMBERS)


def test_a_planted_tag_comes_first():
    rng = np.random.default_rng(0)
    groups, members = three_groups(6_000)
    planted = np.where(groups == 1, rng.random(6_000) < 0.95, rng.random(6_000) < 0.01)
    table = pa.table(
        {
            "half": pa.array(np.where(groups == 1, 0, rng.integers(0, 2, 6_000))),
            "rare": pa.array(np.where((groups == 1) & (rng.random(6_000) < 0.3), "rare", "x")),
            "tags": [["planted"] * p + ["common"] for p in planted.tolist()],
        }
    )
    found = described(table, members)[1]
    assert claimed(found) == [("tags", "planted"), ("half", "0"), ("rare", "rare")]
    assert found.over_represented[0].share == pytest.approx(0.95, abs=0.02)
    assert found.name.startswith("planted 9")


def test_probabilities_too_small_for_a_float_still_rank():
    groups, members = three_groups(9_000)
    noise = np.random.default_rng(1).random(9_000) < 0.02
    table = pa.table({"b": np.where(noise, 3, groups).astype(str), "a": groups.astype(str)})
    for d in described(table, members):
        assert [v.column for v in d.over_represented] == ["a", "b"]
        assert [v.p_value for v in d.over_represented] == [0.0, 0.0]
        assert d.over_represented[0].log_p < d.over_represented[1].log_p < -745


def test_independent_columns_are_not_told_of():
    rng = np.random.default_rng(2)
    wrong = 0
    for seed in range(20):
        _, members = three_groups(400, seed)
        table = pa.table({f"c{i}": rng.integers(0, 6, 400).astype(str) for i in range(8)})
        wrong += sum(len(d.over_represented) for d in described(table, members))
    assert wrong <= 1  # 20 tables at a family-wise error rate of 1%


def test_nulls_are_told_of_only_where_they_are_over_represented():
    groups, members = three_groups(900)
    table = pa.table({"note": [None if g == 2 else "x" * int(g) for g in groups]})
    first, _, third = described(table, members)
    assert claimed(third) == [("note", "null")]
    assert third.name == "note null"
    assert claimed(first) == [("note", "empty")]


def test_a_tag_on_few_rows_that_the_sample_lacks_is_found():
    n = 60_000
    members = [[0] if i % 300 == 7 else [1] for i in range(n)]
    table = pa.table({"tags": [[f"t{i % 50}", "rare"] if i % 300 == 7 else [f"t{i % 50}"] for i in range(n)]})
    sample = table.filter(pa.array([i % 300 != 7 for i in range(n)])).slice(0, 2_000)
    rare = described(table, members, numbers=[0, 1], sample=sample)[0].over_represented[0]
    assert (rare.value, rare.count, rare.share) == ("rare", 200, 1.0)


def test_values_beyond_the_tracked_ones_are_counted_as_others_and_the_tracked_ones_exactly():
    n = 60_000
    rng = np.random.default_rng(0)
    author = np.where(rng.random(n) < 0.5, 10**6, np.arange(n)).astype(str)
    table = pa.table({"author": author})
    members = [[0] if a == "1000000" else [1] for a in author]
    describer = describer_of(
        table, members, numbers=[0, 1], sample=table.slice(0, 5_000), cuts=[7_000, 50_001]
    )
    (value,) = describer.result()[0].over_represented
    assert (value.value, value.count) == ("1000000", (author == "1000000").sum())
    sampled = len(set(author[:5_000]))
    assert describer.untracked == {"author": len(set(author)) - sampled - 20_000}


def test_the_same_values_are_tracked_however_batches_are_cut():
    n = 50_000
    table = pa.table({"author": [f"a{i % 40_000}" for i in range(n)]})
    encoded = pa.table({"author": table.column("author").combine_chunks().dictionary_encode()})
    sample = pa.table({"author": ["a1", "a2"] * 50})
    members = [[0]] * n
    counts = []
    for rows, cuts in [(table, []), (table, [1, 20_001, 30_000]), (encoded, [1, 20_001, 30_000])]:
        describer = describer_of(rows, members, numbers=[0], sample=sample, cuts=cuts)
        counts.append(describer.untracked["author"])
    assert counts == [40_000 - 20_002] * 3


def test_rows_not_compared_and_unknown_numbers_are_not_counted():
    table = pa.table({"kind": ["a"] * 50 + ["b"] * 50 + ["c"] * 50})
    members = [[7]] * 50 + [[9, 4]] * 50 + [None] * 50
    seven, nine = described(table, members, numbers=[7, 9])
    assert (seven.number, seven.n_members, nine.number, nine.n_members) == (7, 50, 9, 50)
    assert [(v.value, v.share, v.lift) for v in seven.over_represented] == [("a", 1.0, 2.0)]
    assert [(v.value, v.share, v.lift) for v in nine.over_represented] == [("b", 1.0, 2.0)]


def test_a_column_shows_its_values_or_its_ranges_whichever_tell_more():
    rng = np.random.default_rng(0)
    groups, members = three_groups(6_000)
    labels = np.where(groups == 0, 417, np.where(groups == 1, rng.integers(100, 300, 6_000), 0))
    labels = np.where(rng.random(6_000) < 0.3, rng.integers(0, 1_000, 6_000), labels)
    one_value, values, _ = described(pa.table({"label": labels}), members)
    assert claimed(one_value) == [("label", "417")]
    (told,) = values.over_represented
    assert (told.column, told.share > 0.7) == ("label", True)
    low, high = (int(x) for x in told.value.split(" to "))
    assert (50 <= low <= 110, 290 <= high <= 310) == (True, True)
    assert told.count == ((labels >= low) & (labels <= high) & (groups == 1)).sum()


@given(st.integers(2, 400), st.data())
@settings(deadline=None)
def test_the_tail_is_that_of_the_hypergeometric_distribution(population, data):
    total = data.draw(st.integers(1, population))
    drawn = data.draw(st.integers(1, population))
    low, high = max(0, drawn + total - population), min(total, drawn)
    count = data.draw(st.integers(max(low, int(np.ceil(drawn * total / population))), high))
    with np.errstate(divide="ignore"):
        expected = np.log(scipy.stats.hypergeom.sf(count - 1, population, total, drawn))
    (found,) = log_upper_tail(*(np.array([x]) for x in (count, total, drawn, population)))
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_the_tail_of_large_tables_is_known_far_below_the_smallest_float():
    args = 60_000, 100_000, 250_000, 10_000_000
    (found,) = log_upper_tail(*(np.array([x]) for x in args))
    assert found < -100_000
    assert found == pytest.approx(
        scipy.stats.hypergeom.logsf(args[0] - 1, args[3], args[1], args[2]), rel=1e-9
    )


def test_p_is_corrected_by_holm():
    counts, totals = np.array([[30], [22], [25]]), np.array([[40], [40], [40]])
    drawn, population = np.array([50]), np.array([100])
    pairs = pairs_to_test(counts, totals, drawn, population)
    raw = np.sort(log_upper_tail(pairs.counts, pairs.totals, pairs.drawn, pairs.populations))
    assert pairs.n_tests == 3
    found = enriched([pairs])
    assert found.features.tolist() == [0]
    np.testing.assert_allclose(found.log_p, raw[:1] + np.log(3))
    both = pairs_to_test(counts[[0, 0]], totals[:2], drawn, population)
    np.testing.assert_allclose(enriched([both]).log_p, raw[0] + np.log(2))


def test_values_too_rare_to_be_told_of_cost_no_tests():
    counts = np.array([[30]] + [[1]] * 1_000)
    totals = np.array([[40]] + [[1]] * 1_000)
    assert pairs_to_test(counts, totals, np.array([50]), np.array([2_000])).n_tests == 1


def test_no_more_than_ten_values_of_a_cluster_are_told():
    groups, members = three_groups(600)
    table = pa.table({f"c{i}": groups.astype(str) for i in range(15)})
    assert [len(d.over_represented) for d in described(table, members)] == [10, 10, 10]
