import numpy as np
import pytest
import scipy.linalg
from sklearn.metrics import adjusted_mutual_info_score

from planted import batch_of, planted_mixture, random_pair, unit
from spec_store.errors import InputError
from spec_store.options import CompareOptions
from spec_store.spectral.bandwidth import auto_bandwidths, examine_bandwidths
from spec_store.spectral.clusters import Membership, find_clusters, varimax
from spec_store.spectral.covariance import CovarianceAccumulator
from spec_store.spectral.scoring import Scorer
from spec_store.spectral.spectrum import solve
from spec_store.workflows.sampling import Sample, fit_maps, map_error, sample_features


def compared(a, b, **fields):
    """Maps, clusters and the scored batch, without a store."""
    options = CompareOptions(**fields)
    rows = [x / np.linalg.norm(x, axis=1, keepdims=True) if options.normalize else x for x in (a, b)]
    rng = np.random.default_rng(0)
    chosen = rng.permutation(len(a))[:5000]
    sample = Sample(("a", "b"), tuple(x[chosen].astype(float) for x in rows), np.arange(min(1500, len(a))))
    maps, bandwidths = fit_maps(sample, options)
    acc = CovarianceAccumulator(maps)
    batch = batch_of(a=a, b=b)
    acc.update(batch)
    spectrum = solve(acc, modes=options.modes, eta=options.eta, center=options.center)
    error = map_error(sample, maps, bandwidths, options.eta)
    clusters = find_clusters(
        spectrum, sample_features(sample, maps), rotate=options.rotate == "varimax", floor=error
    )
    return clusters, Scorer(maps, clusters, "p"), batch


def labels_of_end(clusters, found, end):
    """Each row's strongest cluster of one end, -1 for none."""
    numbers = [i for i, c in enumerate(clusters) if c.end == end]
    order, n_member = Membership(found.relative[:, numbers], found.contribution[:, numbers]).ranked()
    return np.where(n_member > 0, order[:, 0], -1)


@pytest.mark.parametrize("unequal", [False, True], ids=["equal sizes", "sizes 1 to 6"])
@pytest.mark.parametrize("kernel", ["gaussian", "cosine"])
def test_planted_groups_come_back_at_the_right_end_with_the_right_rows(unequal, kernel):
    a, b, groups = planted_mixture(8000, unequal=unequal, seed=3)
    clusters, scorer, batch = compared(a, b, kernel=kernel)
    found, _ = scorer.membership(batch)
    planted = groups < 8
    for end, truth in enumerate([groups, groups // 2]):
        labels = labels_of_end(clusters, found, end)
        enough = 0.95 if kernel == "gaussian" else 0.9  # a linear kernel sees fewer groups than there are
        assert adjusted_mutual_info_score(truth[planted], labels[planted]) > enough
    merged_by_b = [c for c in clusters if c.end == 1][:4]
    for c in merged_by_b:  # b holds these together, at an energy that a does not have
        assert c.energy[1] > 1.5 * c.energy[0]


def test_merges_and_splits_are_told_apart_by_the_end_at_which_they_come():
    rng = np.random.default_rng(11)
    groups = rng.integers(0, 10, 5000)
    half = rng.integers(0, 2, 5000)
    centres_a, centres_b = rng.standard_normal((2, 11, 64))
    centres_b[1] = centres_b[0]  # b merges groups 0 and 1 ...
    in_b = np.where((groups == 9) & (half == 1), 10, groups)  # ... and splits group 9 in two
    a = (centres_a[groups] + 0.5 * rng.standard_normal((5000, 64))).astype(np.float32)
    b = (centres_b[in_b] + 0.5 * rng.standard_normal((5000, 64))).astype(np.float32)
    clusters, scorer, batch = compared(a, b)
    member = scorer.membership(batch)[0].member
    for end, truth in ((0, groups == 9), (1, groups <= 1)):
        overlaps = [
            (member[:, i] & truth).sum() / (member[:, i] | truth).sum() if c.end == end else 0.0
            for i, c in enumerate(clusters)
        ]
        assert max(overlaps) > 0.9
        assert np.argmax(overlaps) < 6  # among the strongest


def test_varimax_gives_each_of_many_equal_groups_one_cluster_which_raw_eigenvectors_do_not():
    a, b, groups = planted_mixture(6000, seed=1, orthogonal=True, merged=8)
    planted = groups < 16
    single = []
    for rotate in ("varimax", "none"):
        clusters, scorer, batch = compared(a, b, rotate=rotate)
        strong = [i for i, c in enumerate(clusters) if c.end == 1 and c.strength > 0.02]
        member = scorer.membership(batch)[0].member[planted][:, strong]
        single.append((member.sum(axis=1) == 1).mean())
    assert single[0] > 0.85
    assert single[1] < 0.3


def test_varimax_finds_the_rotation_that_was_applied():
    rng = np.random.default_rng(0)
    sparse = np.repeat(np.eye(4), 50, axis=0) + 0.02 * rng.standard_normal((200, 4))
    turn = scipy.linalg.qr(rng.standard_normal((4, 4)))[0]
    found = sparse @ turn @ varimax(sparse @ turn)
    overlap = np.abs(found.T @ sparse) / 50
    np.testing.assert_allclose(np.sort(overlap, axis=1)[:, -1], 1.0, atol=0.05)
    np.testing.assert_allclose(np.sort(overlap, axis=1)[:, :-1], 0.0, atol=0.05)


def test_an_embedding_against_itself_or_its_rotation_claims_no_cluster():
    a, _, _ = planted_mixture(3000, seed=2)
    turn = scipy.linalg.qr(np.random.default_rng(0).standard_normal((64, 64)))[0].astype(np.float32)
    for other in (a, a @ turn):
        assert compared(a, other)[0] == ()


def test_a_nearly_identical_embedding_claims_no_cluster():
    a, _, _ = planted_mixture(3000, seed=2)
    noise = np.random.default_rng(0).standard_normal(a.shape).astype(np.float32)
    assert compared(a, a + 0.02 * noise)[0] == ()


def test_relative_membership_of_a_typical_member_is_about_one():
    a, b, _groups = planted_mixture(6000, seed=4)
    clusters, scorer, batch = compared(a, b)
    relative = scorer.membership(batch)[0].relative
    for i, c in enumerate(clusters[:8]):
        members = relative[relative[:, i] >= 0.5, i]
        assert 0.8 < np.median(members) < 1.2, c


def test_clusters_are_numbered_by_strength_over_both_ends():
    a, b, _ = planted_mixture(4000, seed=5)
    clusters, _, _ = compared(a, b)
    strengths = [c.strength for c in clusters]
    assert strengths == sorted(strengths, reverse=True)
    assert {c.end for c in clusters} == {0, 1}


def test_result_columns_agree_with_each_other():
    a, b, _ = planted_mixture(3000, seed=6)
    a[7] = 0
    clusters, scorer, batch = compared_with_zero_row(a, b)
    out = scorer.compute(batch)
    assert out.schema.names == ["p_cluster", "p_clusters", "p_side", "p_score", "p_scores"]
    rows = out.to_pylist()
    assert set(rows[7].values()) == {None}
    for i, row in enumerate(rows):
        if i == 7:
            continue
        members = {j for j, r in enumerate(row["p_scores"]) if r >= 0.5}
        assert set(row["p_clusters"]) == members
        if members:
            assert row["p_cluster"] == row["p_clusters"][0]
            assert row["p_side"] == "ab"[clusters[row["p_cluster"]].end]
            assert row["p_score"] == row["p_scores"][row["p_cluster"]]
        else:
            assert row["p_cluster"] is None
            assert row["p_side"] is None
            assert row["p_score"] == max(row["p_scores"])


def compared_with_zero_row(a, b):
    clean = a.copy()
    clean[7] = 1
    clusters, scorer, _ = compared(clean, b)
    return clusters, scorer, batch_of(a=a, b=b)


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
