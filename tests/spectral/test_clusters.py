import numpy as np
import pytest

from listed import listed
from planted import batch_of, planted_mixture, random_pair, unit
from spec_store.errors import InputError
from spec_store.spectral.bandwidth import auto_bandwidths, examine_bandwidths
from spec_store.spectral.choose import jaccard
from spec_store.spectral.clusters import Recorded, find_clusters
from spec_store.spectral.scoring import ModeWeights, Scorer
from spec_store.spectral.views import views_of_others


def one_hot(groups, n=8):
    """The first groups, one a column."""
    return groups[:, None] == np.arange(n)


def matrices_of(batch):
    return [batch.column(c).values.to_numpy().reshape(batch.num_rows, -1) for c in "ab"]


def members_of(clusters):
    return np.stack([c.members for c in clusters], axis=1)


@pytest.fixture(scope="module", params=[False, True], ids=["equal sizes", "sizes 1 to 6"])
def planted(request):
    a, b, groups = planted_mixture(4000, unequal=request.param, seed=3)
    return listed(a, b), groups


def test_each_group_that_b_merges_is_one_cluster_of_a_with_its_rows_and_nothing_else_is(planted):
    run, groups = planted
    ends = run.found.ends
    assert len(ends[0].clusters) == 8
    assert ends[1].clusters == ()
    alike = jaccard(one_hot(groups), members_of(ends[0].clusters))
    assert alike.max(axis=1).min() > 0.98
    for c in ends[0].clusters:
        assert c.capture[0] > 0.98
        assert c.capture[1] < 0.75
        assert c.contrast[0] > 2
        assert c.contrast[1] < 0.85 * c.contrast[0]
        assert c.gap == pytest.approx(c.capture[0] - c.capture[1])
        assert c.share == pytest.approx(c.members.mean())
        assert c.stability > 0.95
        for figure, interval in ((c.capture, c.capture_interval), (c.contrast, c.contrast_interval)):
            assert all(low <= x <= high + 1e-12 for x, (low, high) in zip(figure, interval, strict=True))
        assert c.gap_interval[0] < c.gap < c.gap_interval[1]


def test_each_group_is_said_to_be_merged_with_its_partner_and_they_are_a_family(planted):
    run, groups = planted
    clusters = run.found.clusters
    views = views_of_others(run.rows, clusters, seed=0)
    planted_as = jaccard(members_of(clusters), one_hot(groups)).argmax(axis=1)
    number_of = {int(g): c.number for g, c in zip(planted_as, clusters, strict=True)}
    for g in range(8):
        mine, partner = number_of[g], number_of[g ^ 1]
        assert views[mine].kind == "merged"
        assert views[mine].merged_with[0] == (partner, pytest.approx(1.0, abs=0.05))
        assert views[mine].family == min(mine, partner)


def test_clusters_are_numbered_by_size_times_gap_from_one(planted):
    clusters = planted[0].found.clusters
    assert [c.number for c in clusters] == list(range(1, len(clusters) + 1))
    sizes = [c.share * c.gap for c in clusters]
    assert sizes == sorted(sizes, reverse=True)


def test_the_mass_of_planted_groups_is_their_shares_times_gaps(planted):
    run, groups = planted
    end = run.found.ends[0]
    assert end.mass == pytest.approx(sum(c.share * c.gap for c in end.clusters), rel=0.02)
    assert end.covered == pytest.approx((groups < 8).mean(), abs=0.005)
    assert run.found.ends[1].mass == 0


def test_cohesion_is_the_mean_kernel_of_two_members(planted):
    run, _ = planted
    for c in run.found.clusters:
        for e, kernel in enumerate(run.rows.kernels):
            inside = kernel[c.members].astype(float)
            pairs = inside @ inside.T
            n = len(pairs)
            assert c.cohesion[e] == pytest.approx((pairs.sum() - np.trace(pairs)) / (n * (n - 1)), rel=1e-4)
            assert c.cohesion[e] > run.found.average_pair[e]


def test_the_same_sample_and_seed_give_the_same_clusters_in_any_number_of_threads(planted):
    run, _ = planted
    again = find_clusters(run.rows, seed=0, threads=2)
    assert again.ends[0].mass == run.found.ends[0].mass
    for one, other in zip(run.found.clusters, again.clusters, strict=True):
        np.testing.assert_array_equal(one.members, other.members)
        assert (one.number, one.end, one.capture) == (other.number, other.end, other.capture)


def test_swapping_the_embeddings_swaps_the_ends():
    a, b, groups = planted_mixture(4000, seed=3)
    found = listed(b, a).found
    assert found.ends[0].clusters == ()
    assert jaccard(one_hot(groups), members_of(found.ends[1].clusters)).max(axis=1).min() > 0.98
    for c in found.clusters:
        assert c.capture[1] > c.capture[0] + 0.15


def test_a_linear_kernel_finds_planted_groups_too():
    a, b, groups = planted_mixture(4000, seed=3)
    found = listed(a, b, kernel="cosine").found
    assert jaccard(one_hot(groups), members_of(found.ends[0].clusters)).max(axis=1).min() > 0.8


def nothing_new(case, seed):
    a, _, groups = planted_mixture(2500, seed=seed)
    rng = np.random.default_rng(seed)
    if case == "rotation":
        return a, a @ np.linalg.qr(rng.standard_normal((64, 64)))[0]
    if case == "noise of 1%":
        return a, a + 0.01 * a.std() * rng.standard_normal(a.shape)
    centres = rng.standard_normal((20, 64))
    return tuple(centres[groups] + 0.5 * rng.standard_normal(a.shape) for _ in "ab")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("case", ["rotation", "noise of 1%", "independent noise over the same groups"])
def test_where_nothing_differs_nothing_is_listed(case, seed):
    found = listed(*nothing_new(case, seed)).found
    assert found.clusters == ()
    for end in found.ends:
        assert end.mass == end.covered == 0
        assert end.n_candidates > 100
        assert sum(end.rejections.values()) >= end.n_candidates


def test_recorded_clusters_keep_their_numbers_and_new_ones_begin_at_the_first_number(planted):
    run, _ = planted
    kept = run.found.clusters[1:6]
    recorded = [Recorded(50 - i, c.end, c.members) for i, c in enumerate(kept)]
    for seed in (0, 7):
        found = find_clusters(run.rows, seed=seed, recorded=recorded, first_number=60)
        number_of = {c.number: c for c in found.clusters}
        for r in recorded:
            assert jaccard(number_of[r.number].members[:, None], r.members[:, None]) > 0.9
        others = sorted(set(number_of) - {r.number for r in recorded})
        assert others == [60, 61, 62]


def test_a_recorded_cluster_of_the_other_end_gives_its_number_to_none(planted):
    run, _ = planted
    first = run.found.clusters[0]
    found = find_clusters(run.rows, seed=0, recorded=[Recorded(30, 1, first.members)], first_number=31)
    assert [c.number for c in found.clusters] == list(range(31, 39))


def test_a_recorded_cluster_that_is_none_any_more_is_not_listed(planted):
    run, groups = planted
    by_chance = np.random.default_rng(0).random(len(groups)) < 0.05
    gone = [Recorded(1, 0, groups == 15), Recorded(2, 0, by_chance), Recorded(3, 0, groups < 0)]
    found = find_clusters(run.rows, seed=0, recorded=gone, first_number=4)
    assert [c.number for c in found.clusters] == list(range(4, 12))


def scored(planted, *, numbers=None, modes=False):
    """The scorer of planted clusters, and its result columns for rows of which three can't be compared."""
    run, _ = planted
    clusters = run.found.clusters
    if numbers is not None:
        recorded = [Recorded(n, c.end, c.members) for n, c in zip(numbers, clusters, strict=True)]
        clusters = find_clusters(run.rows, seed=0, recorded=recorded).clusters
    matrices = [x.copy() for x in matrices_of(run.batch)]
    matrices[0][7] = 0
    matrices[1][8, 3] = np.nan
    matrices[0][9, 0] = np.inf
    scorer = Scorer(run.maps, clusters, "p", ModeWeights.of(run.spectrum.leading(4)) if modes else None)
    return scorer, batch_of(a=matrices[0], b=matrices[1])


def test_a_row_that_cannot_be_compared_is_null_in_every_result_column(planted):
    scorer, batch = scored(planted, modes=True)
    out = scorer.compute(batch)
    assert out.schema == scorer.schema
    assert out.schema.names == ["p_cluster", "p_clusters", "p_side", "p_score", "p_scores", "p_modes"]
    rows = out.to_pylist()
    for i in (7, 8, 9):
        assert set(rows[i].values()) == {None}
    assert all(row["p_scores"] is not None for i, row in enumerate(rows) if i not in (7, 8, 9))


def test_result_columns_agree_with_each_other(planted):
    scorer, batch = scored(planted)
    side_of = {c.number: "ab"[c.end] for c in scorer.clusters}
    rows = scorer.compute(batch).to_pylist()
    n_member = 0
    for i, row in enumerate(rows):
        if i in (7, 8, 9):
            continue
        scores = row["p_scores"]
        assert len(scores) == 8
        assert set(row["p_clusters"]) == {k for k, r in enumerate(scores, 1) if r >= 0.5}
        assert row["p_score"] == max(scores)
        if row["p_clusters"]:
            n_member += 1
            ranked = [scores[k - 1] for k in row["p_clusters"]]
            assert ranked == sorted(ranked, reverse=True)
            assert row["p_cluster"] == row["p_clusters"][0]
            assert row["p_side"] == side_of[row["p_cluster"]]
            assert row["p_score"] == scores[row["p_cluster"] - 1]
        else:
            assert row["p_cluster"] is None
            assert row["p_side"] is None
    assert n_member > 500


def test_the_score_of_cluster_k_is_the_kth_and_null_where_no_cluster_has_the_number(planted):
    numbers = [12, 3, 5, 4, 1, 7, 9, 10]
    scorer, batch = scored(planted, numbers=numbers)
    assert [c.number for c in scorer.clusters] == numbers
    relative = scorer.membership(batch)[0].relative
    rows = scorer.compute(batch).to_pylist()
    for i in (0, 1, 500, 2000):
        assert len(rows[i]["p_scores"]) == 12
        for k, score in enumerate(rows[i]["p_scores"], 1):
            if k in numbers:
                assert score == relative[i, numbers.index(k)]
            else:
                assert score is None
        assert set(rows[i]["p_clusters"]) <= set(numbers)


def test_relative_membership_is_one_half_at_the_threshold_and_one_at_the_median_member(planted):
    scorer, batch = scored(planted)
    found, usable = scorer.membership(batch)
    features = [m.features(x) for m, x in zip(scorer.maps, matrices_of(planted[0].batch), strict=True)]
    for i, c in enumerate(scorer.clusters):
        score = features[c.end][usable] @ c.centre
        expected = np.maximum(0.5 + 0.5 * (score - c.threshold) / (c.typical - c.threshold), 0)
        np.testing.assert_allclose(found.relative[usable, i], expected, atol=1e-3)
        assert np.median(found.relative[c.members & usable, i]) == pytest.approx(1.0, abs=0.01)
        np.testing.assert_array_equal(found.member[usable, i], c.members[usable])


def test_written_modes_are_the_scores_of_the_leading_modes(planted):
    scorer, batch = scored(planted, modes=True)
    usable = scorer.membership(batch)[1]
    stacked = np.concatenate(
        [m.features(x) for m, x in zip(scorer.maps, matrices_of(planted[0].batch), strict=True)], axis=1
    )
    leading = planted[0].spectrum.leading(4)
    expected = np.concatenate([leading.scores(end, stacked) for end in (0, 1)], axis=1)
    written = [row for row in scorer.compute(batch).column("p_modes").to_pylist() if row is not None]
    assert np.shape(written) == (usable.sum(), 8)
    np.testing.assert_allclose(written, expected[usable], atol=2e-3)
    without = scored(planted)[0]
    np.testing.assert_array_equal(
        scorer.membership(batch)[0].member[usable], without.membership(batch)[0].member[usable]
    )


@pytest.mark.parametrize("modes", [False, True])
def test_a_scorer_read_back_gives_the_same_results(planted, modes):
    scorer, batch = scored(planted, modes=modes)
    again = Scorer.from_bytes(scorer.to_bytes(), scorer.maps)
    assert again.token == scorer.token
    assert again.compute(batch) == scorer.compute(batch)


def test_a_comparison_without_clusters_writes_no_cluster_and_empty_lists():
    a, _ = random_pair(300)
    run = listed(a, a, n_modes=4, dim=20)
    row = Scorer(run.maps, (), "p").compute(run.batch).to_pylist()[0]
    assert row == {"p_cluster": None, "p_clusters": [], "p_side": None, "p_score": None, "p_scores": []}


def test_auto_bandwidths_hold_both_embeddings_together_equally_and_scale_with_them():
    a, b, _ = planted_mixture(1000, seed=7)
    one = auto_bandwidths({"a": a, "b": b})
    assert one["a"].largest_eigenvalue == pytest.approx(one["b"].largest_eigenvalue, rel=1e-5)
    two = auto_bandwidths({"b": b, "a": 10 * a})
    assert two.values == pytest.approx((one.values[1], 10 * one.values[0]), rel=1e-5)


def test_three_embeddings_meet_at_the_geometric_mean_of_their_largest_eigenvalues():
    a, b = random_pair(120)
    rows = {"a": unit(a), "b": unit(b), "c": unit(np.random.default_rng(5).standard_normal((120, 4)))}
    alone = [auto_bandwidths({c: x})[c].largest_eigenvalue for c, x in rows.items()]
    found = auto_bandwidths(rows)
    assert list(found.by_column) == ["a", "b", "c"]
    for c in rows:
        assert found[c].largest_eigenvalue == pytest.approx(np.prod(alone) ** (1 / 3), rel=1e-5)
    pair = auto_bandwidths({c: rows[c] for c in ("a", "b")})
    assert pair["a"].largest_eigenvalue == pytest.approx(np.sqrt(alone[0] * alone[1]), rel=1e-5)
    assert found["a"] != pair["a"]


def test_duplicates_do_not_drive_a_bandwidth_to_zero():
    a, b, _ = planted_mixture(1000, seed=7)
    b[:400] = b[0]
    alone = {c: auto_bandwidths({c: x})[c].sigma for c, x in (("a", a), ("b", b))}
    found = auto_bandwidths({"a": a, "b": b})
    assert found["b"].sigma == pytest.approx(alone["b"] / 2)
    assert found["b"].largest_eigenvalue > found["a"].largest_eigenvalue


def test_bandwidths_far_off_are_warned_of_with_the_median_kernel_value():
    a, b, _ = planted_mixture(500, seed=8)
    told = examine_bandwidths({"clip": a, "dino": b}, (0.1, 1e4)).warnings()
    assert len(told) == 2
    assert "small for column 'clip'" in told[0]
    assert "large for column 'dino': the median kernel value is 1.000" in told[1]
    assert examine_bandwidths({"a": a, "b": b}, auto_bandwidths({"a": a, "b": b}).values).warnings() == []


def test_a_column_of_identical_rows_has_no_bandwidth():
    a, b, _ = planted_mixture(100, seed=9)
    with pytest.raises(InputError, match=r"Column 'b'.*same vector.*--bandwidth"):
        auto_bandwidths({"a": a, "b": np.ones_like(b)})
