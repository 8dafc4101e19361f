"""The judge against naive loops and known values."""

import numpy as np
import pytest

from planted import gaussian, planted_mixture, random_pair, unit
from spec_store.spectral.judge import (
    HOLDS,
    LEAST_UNITY,
    LISTED,
    REASONS,
    Figures,
    failures,
    joined,
    judge,
    judge_halves,
    pooled,
    unity,
    wilson,
)
from spec_store.spectral.similarity import by_features, by_gaussian

N = 240
A, B = (unit(x) for x in random_pair(N, seed=3))
SIGMAS = (0.7, 0.6)
PASSING = {
    "n": 50,
    "share": 0.1,
    "capture": (0.9, 0.3),
    "contrast": (3.0, 1.0),
    "spread": (0.01, 0.01),
    "near": 0.5,
}


def groups_by_chance(m=5, seed=0):
    """Overlapping groups of different sizes, near a random row of the first embedding each."""
    rng = np.random.default_rng(seed)
    near = A @ A[rng.permutation(N)[:m]].T
    return near > np.quantile(near, np.linspace(0.6, 0.95, m), axis=0).diagonal()


def halves(seed=0):
    shuffled = np.random.default_rng(seed).permutation(N)
    return np.sort(shuffled[: N // 2]), np.sort(shuffled[N // 2 :])


def figures_of(*several, **fields):
    """Figures of candidates, given each one's fields; or of one."""
    rows = [PASSING | f for f in several or (fields,)]
    return Figures(
        np.array([r["n"] for r in rows]),
        np.array([float(r["share"]) for r in rows]),
        *(np.array([r[name] for r in rows], float).T for name in ("capture", "contrast", "spread")),
        np.array([r["near"] for r in rows]),
    )


def naive(kernel, members, described, tested):
    """Capture and contrast of each group, row by row, and the tested rows, those nearest to it first."""
    found = []
    for group in members.T:
        inside = [i for i in described if group[i]]
        score = {i: sum(kernel[i, j] for j in inside) / len(inside) for i in tested}
        ranked = sorted(tested, key=lambda i: -score[i])
        own = [i for i in ranked if group[i]]
        others = [i for i in ranked if not group[i]][: len(own)]
        capture = sum(bool(group[i]) for i in ranked[: len(own)]) / len(own)
        contrast = (sum(score[i] for i in own) / len(own)) / (sum(score[i] for i in others) / len(own))
        found.append((capture, contrast, ranked))
    return list(zip(*found, strict=True))


@pytest.mark.parametrize("exact", [True, False], ids=["by the kernel itself", "by features"])
def test_capture_and_contrast_equal_a_naive_loop_over_exact_kernels(exact):
    kernels = [gaussian(x, s) for x, s in zip((A, B), SIGMAS, strict=True)]
    if exact:
        similarities = [by_gaussian(x, s) for x, s in zip((A, B), SIGMAS, strict=True)]
    else:
        factors = [np.linalg.cholesky(k + 1e-9 * np.eye(N)) for k in kernels]
        similarities = [by_features(f.astype(np.float32)) for f in factors]
    members, (described, tested) = groups_by_chance(), halves()
    found = judge(members, similarities, described, tested)
    ranked = []
    for e, kernel in enumerate(kernels):
        capture, contrast, nearest_first = naive(kernel, members, described, tested)
        ranked.append(nearest_first)
        np.testing.assert_allclose(found.capture[e], capture, atol=1e-12)
        np.testing.assert_allclose(found.contrast[e], contrast, rtol=1e-4)
    np.testing.assert_array_equal(found.n, members[tested].sum(axis=0))
    np.testing.assert_allclose(found.share, members[tested].mean(axis=0))
    for j, n in enumerate(found.n):
        around = set(ranked[0][j][: int(1.5 * n)])
        assert found.near[j] == pytest.approx(len(around & set(ranked[1][j][:n])) / n)
    np.testing.assert_allclose(found.gap, found.capture[0] - found.capture[1])
    np.testing.assert_allclose(found.ratio, found.contrast[1] / found.contrast[0])


def test_the_kernel_itself_is_averaged_over_64_members_at_most():
    rows = np.random.default_rng(0).standard_normal((400, 3))
    everyone, tested = np.ones((200, 1), bool), np.arange(200, 400)
    found = by_gaussian(rows, 1.0)(tested, np.arange(200), everyone)
    shuffled = np.random.default_rng(0).permutation(400)[:200]
    some = gaussian(rows, 1.0)[np.ix_(tested, np.argsort(shuffled)[:64])].mean(axis=1)
    np.testing.assert_allclose(found[:, 0], some, rtol=1e-5)
    few = np.repeat([[True], [False]], [40, 160], axis=0)
    alone = by_gaussian(rows, 1.0)(tested, np.arange(200), np.concatenate([few, everyone], axis=1))
    np.testing.assert_allclose(alone[:, 0], gaussian(rows, 1.0)[200:, :40].mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(alone[:, 1], some, rtol=1e-5)


@pytest.mark.parametrize("similarity", [by_features(A.astype(np.float32)), by_gaussian(A, 0.7)])
def test_a_group_without_described_members_has_no_capture_beyond_chance(similarity):
    members = np.zeros((N, 1), bool)
    members[200:220] = True
    found = judge(members, (similarity, similarity), np.arange(100), np.arange(100, N))
    np.testing.assert_allclose(found.capture, 20 / 140)
    np.testing.assert_array_equal(found.contrast, 0)


def test_rows_of_equal_score_are_captured_as_often_as_by_chance():
    rows = np.repeat(unit(np.random.default_rng(0).standard_normal((2, 4))), [100, 100], axis=0)
    similarity = by_features(rows.astype(np.float32))
    members = np.zeros((200, 1), bool)
    members[:20] = True  # a fifth of the rows that are all the same
    described, tested = np.arange(0, 200, 2), np.arange(1, 200, 2)
    found = judge(members, (similarity, similarity), described, tested)
    np.testing.assert_allclose(found.capture, 0.2)
    np.testing.assert_allclose(found.contrast, 1.0, rtol=1e-6)


def test_swapping_the_embeddings_swaps_the_figures():
    a, b = by_gaussian(A, 0.7), by_gaussian(B, 0.6)
    members, rows = groups_by_chance(), halves()
    one, other = judge(members, (a, b), *rows), judge(members, (b, a), *rows)
    for name in ("capture", "contrast", "spread"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name)[::-1])
    np.testing.assert_array_equal(one.gap, -other.gap)


def test_no_row_that_describes_a_group_is_tested_in_it():
    asked = []

    def similarity(tested, described, groups):
        asked.append((tested, described, groups))
        return by_gaussian(A, 0.7)(tested, described, groups)

    members, rows = groups_by_chance(), np.arange(20, N)
    found = judge_halves(members, (similarity, similarity), rows, np.random.default_rng(5))
    assert len(asked) == 4  # two halves, two embeddings
    for tested, described, groups in asked:
        assert not set(tested) & set(described)
        np.testing.assert_array_equal(np.sort(np.concatenate([tested, described])), rows)
        np.testing.assert_array_equal(groups, members[described])
    np.testing.assert_array_equal(found.n, members[rows].sum(axis=0))


def test_halves_weigh_by_their_tested_members():
    a, b = by_gaussian(A, 0.7), by_gaussian(B, 0.6)
    members = groups_by_chance()
    found = judge_halves(members, (a, b), np.arange(N), np.random.default_rng(5))
    shuffled = np.random.default_rng(5).permutation(np.arange(N))
    one, two = np.sort(shuffled[: N // 2]), np.sort(shuffled[N // 2 :])
    first, second = judge(members, (a, b), one, two), judge(members, (a, b), two, one)
    for name in ("capture", "contrast"):
        x, y = getattr(first, name), getattr(second, name)
        np.testing.assert_allclose(getattr(found, name), (first.n * x + second.n * y) / found.n)


def test_a_group_with_one_row_in_a_half_is_not_judged():
    members = np.zeros((N, 1), bool)
    members[np.random.default_rng(5).permutation(N)[: N // 2][:30]] = True  # all in the first half
    similarity = by_gaussian(A, 0.7)
    found = judge_halves(members, (similarity, similarity), np.arange(N), np.random.default_rng(5))
    assert found.n[0] == 0
    assert REASONS[failures(found, LISTED, largest=1.0)[0]] == "too few rows"


def test_pooled_evidence_of_two_equal_figures_is_the_same_and_surer():
    one = figures_of(spread=(0.2, 0.1))
    both = pooled(joined([one, one]), np.ones((2, 2)))
    np.testing.assert_array_equal(both.n, [100, 100])
    np.testing.assert_allclose(both.share, [0.1, 0.1])
    np.testing.assert_allclose(both.capture, np.repeat(one.capture, 2, axis=1))
    np.testing.assert_allclose(both.contrast, np.repeat(one.contrast, 2, axis=1))
    np.testing.assert_allclose(both.spread, np.repeat(one.spread, 2, axis=1) / np.sqrt(2))


def test_pooled_evidence_weighs_by_tested_members_and_only_where_asked():
    several = figures_of(
        {"n": 30, "capture": (1.0, 0.0), "near": 0.2}, {"n": 10, "capture": (0.6, 0.4), "near": 0.6}
    )
    found = pooled(several, np.array([[1.0, 1.0], [0.0, 1.0]]))
    np.testing.assert_array_equal(found.n, [40, 10])
    np.testing.assert_allclose(found.capture, [[0.9, 0.6], [0.1, 0.4]])
    np.testing.assert_allclose(found.near, [0.3, 0.6])


@pytest.mark.parametrize(
    ("share", "n", "low", "high"),
    [
        (0.5, 10, 0.2366, 0.7634),
        (0.0, 10, 0.0, 0.2775),
        (1.0, 20, 0.8389, 1.0),
        (81 / 263, 263, 0.2553, 0.3662),
    ],
)
def test_wilsons_interval_has_its_published_values(share, n, low, high):
    found = wilson(np.array([share]), np.array([n]), 1.959964)
    assert np.ravel(found) == pytest.approx([low, high], abs=1e-4)


def test_newcombes_interval_of_a_gap_has_its_published_values():
    found = figures_of(n=70, capture=(56 / 70, 48 / 70)).gap_interval(1.959964)
    assert np.ravel(found) == pytest.approx([-0.0310, 0.2549], abs=2e-3)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, None),
        ({"n": 1}, "too few rows"),
        ({"share": 0.3}, "over a quarter of the rows"),
        ({"capture": (0.4, 0.1)}, "not grouped"),
        ({"contrast": (1.05, 0.5)}, "without an edge"),
        ({"capture": (0.9, 0.8)}, "grouped by both"),
        ({"contrast": (3.0, 2.9)}, "grouped by both"),
        ({"near": 0.95}, "grouped by both"),
        ({"n": 1, "capture": (0.4, 0.4)}, "too few rows"),
        ({"capture": (0.4, 0.4), "contrast": (1.0, 1.0)}, "not grouped"),
    ],
)
def test_the_first_reason_in_order_is_given(fields, reason):
    found = failures(figures_of(**fields), LISTED, largest=0.22)
    assert found.shape == (1,)
    assert (REASONS[found[0]] if found[0] >= 0 else None) == reason


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"capture": (0.55, 0.0)}, "not grouped"),
        ({"contrast": (1.2, 0.5), "spread": (0.1, 0.1)}, "without an edge"),
        ({"capture": (0.8, 0.6)}, "grouped by both"),
        ({"contrast": (3.0, 2.4), "spread": (0.05, 0.05)}, "grouped by both"),
    ],
)
def test_bounds_of_intervals_are_asked_for_where_z_is_positive(fields, reason):
    few = figures_of(**{"n": 20} | fields)
    assert failures(few, LISTED, largest=0.22) == [-1]
    assert REASONS[failures(few, LISTED, largest=0.22, z=2.0)[0]] == reason
    many = figures_of(**{"n": 5000} | fields | {"spread": (0.001, 0.001)})
    assert failures(many, LISTED, largest=0.22, z=2.0) == [-1]


def test_what_is_listed_holds():
    assert LISTED.capture > HOLDS.capture
    assert LISTED.gap > HOLDS.gap
    assert LISTED.contrast > HOLDS.contrast
    assert LISTED.ratio < HOLDS.ratio


def test_members_that_a_cluster_must_have_are_counted():
    assert list(failures(figures_of({"n": 19}, {"n": 20}), LISTED, largest=0.22, least=20)) == [0, -1]


def test_a_planted_group_is_one_and_a_union_of_two_is_not():
    a, _, groups = planted_mixture(600, n_groups=6, seed=2)
    kernel = gaussian(unit(a).astype(float), 0.7)
    factor = np.linalg.cholesky(kernel + 1e-6 * np.eye(600)).astype(np.float32)
    for g in range(6):
        assert unity(factor, groups == g) > 0.9
        assert unity(factor, (groups == g) | (groups == (g + 1) % 6)) < LEAST_UNITY


def test_unity_is_the_mean_kernel_between_the_two_parts_over_that_within():
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.normal((1, 0, 0), 0.05, (30, 3)), rng.normal((0.6, 0.8, 0), 0.05, (20, 3))])
    kernel = rows @ rows.T
    within = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (kernel[:30, :30], kernel[30:, 30:])]
    expected = kernel[:30, 30:].mean() / np.sqrt(within[0] * within[1])
    assert unity(rows.astype(np.float32), np.ones(50, bool)) == pytest.approx(expected, rel=1e-5)


def test_rows_that_are_all_the_same_are_one_group():
    assert unity(np.ones((20, 4), np.float32), np.ones(20, bool)) == 1.0


def test_the_core_of_a_group_that_both_embeddings_see_is_no_cluster():
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((10, 16))
    groups = np.arange(1000) % 10
    a, b = (unit(centres[groups] + 0.3 * rng.standard_normal((1000, 16))) for _ in "ab")
    to_centre = a @ a[groups == 0].mean(axis=0)
    core = (groups == 0) & (to_centre > np.quantile(to_centre[groups == 0], 0.3))
    similarities = by_gaussian(a, 0.6), by_gaussian(b, 0.6)
    found = judge_halves(core[:, None], similarities, np.arange(1000), rng)
    assert found.gap[0] > LISTED.gap  # by the cut: b sees the whole group as well as a
    assert REASONS[failures(found, LISTED, largest=0.22)[0]] == "grouped by both"
