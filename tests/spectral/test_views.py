"""How the other embedding sees a cluster."""

from types import SimpleNamespace

import numpy as np
import pytest

from listed import listed
from planted import unit
from spec_store.spectral.views import OtherView, families, views_of_others

N = 2500
RNG = np.random.default_rng(4)
GROUPS = np.arange(N) % 20
CENTRES_A, CENTRES_B = RNG.standard_normal((2, 22, 64))


def noisy(centres):
    return centres + 0.3 * np.random.default_rng(5).standard_normal(centres.shape)


def rows_of(a, b):
    """Sampled rows as views need them: exact kernels."""
    factors = [np.linalg.cholesky(gaussian_of(unit(x)) + 1e-6 * np.eye(len(x))) for x in (a, b)]
    return SimpleNamespace(kernels=[f.astype(np.float32) for f in factors])


def gaussian_of(x, sigma=0.6):
    return np.exp((x @ x.T - 1) / sigma**2)


def cluster(number, members, end=0):
    return SimpleNamespace(number=number, end=end, members=members)


def test_a_group_that_b_cuts_in_two_is_two_clusters_of_b_and_split_seen_from_a():
    in_b = np.where((GROUPS == 3) & (np.arange(N) % 40 < 20), 20, GROUPS)
    run = listed(noisy(CENTRES_A[GROUPS]), noisy(CENTRES_B[in_b]))
    assert run.found.ends[0].clusters == ()
    halves = run.found.ends[1].clusters
    assert {tuple(np.unique(in_b[c.members])) for c in halves} == {(3,), (20,)}
    views = views_of_others(run.rows, run.found.clusters, seed=0)
    for one, other in (halves, halves[::-1]):
        assert views[one.number].kind == "merged"  # a does not tell the halves apart
        assert views[one.number].merged_with[0][0] == other.number
    whole = cluster(9, GROUPS == 3)
    assert views_of_others(run.rows, [whole], seed=0)[9].kind == "split"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("case", ["each row on its own", "each in some other group"])
def test_a_group_whose_rows_lie_everywhere_in_b_is_scattered(case, seed):
    rng = np.random.default_rng(seed)
    b = noisy(CENTRES_B[GROUPS])
    inside = GROUPS == 3
    if case == "each row on its own":
        b[inside] = rng.standard_normal((inside.sum(), 64))
    else:
        b[inside] = CENTRES_B[rng.integers(0, 20, inside.sum())] + 0.3 * rng.standard_normal(
            (inside.sum(), 64)
        )
    clusters = [cluster(g + 1, g == GROUPS) for g in range(20)]
    views = views_of_others(rows_of(noisy(CENTRES_A[GROUPS]), b), [clusters[3]], seed=0)
    assert views[4].kind == "scattered"
    # some listed cluster is the nearest to the mean of rows from everywhere
    assert views_of_others(rows_of(noisy(CENTRES_A[GROUPS]), b), clusters, seed=0)[4].kind == "scattered"


def test_a_group_is_merged_with_a_larger_one_that_is_not_listed():
    groups = np.where(GROUPS == 6, 5, GROUPS)
    b = noisy(CENTRES_B[np.where(groups == 3, 5, groups)])
    rows = rows_of(noisy(CENTRES_A[groups]), b)
    one, other = cluster(1, groups == 3), cluster(2, groups == 5)
    alone = views_of_others(rows, [one], seed=0)[1]
    assert (alone.kind, alone.merged_with, alone.family) == ("merged", (), 1)
    assert alone.others == pytest.approx(2 / 3, abs=0.1)
    assert alone.purity == pytest.approx(1 / 3, abs=0.1)
    both = views_of_others(rows, [one, other], seed=0)
    assert both[1].merged_with == ((2, 1.0),)
    assert (both[1].kind, both[2].family) == ("merged", 1)


def test_clusters_of_the_other_end_are_not_what_one_is_merged_with():
    rows = rows_of(noisy(CENTRES_A[GROUPS]), noisy(CENTRES_B[np.where(GROUPS == 3, 5, GROUPS)]))
    found = views_of_others(rows, [cluster(1, GROUPS == 3), cluster(2, GROUPS == 5, end=1)], seed=0)
    assert found[1].merged_with == ()


def test_a_family_is_a_chain_of_mergers_under_its_least_number():
    def view(kind, *merged):
        return OtherView(kind, merged, 0.5, 0.5)

    clusters = [cluster(n, None) for n in (9, 2, 5, 7, 4)]
    views = {
        9: view("merged", (5, 0.9), (4, 0.1)),
        5: view("merged", (2, 0.6)),
        2: view("scattered"),
        7: view("split", (9, 0.3)),
        4: view("merged"),
    }
    assert families(clusters, views) == {9: 2, 5: 2, 2: 2, 7: 7, 4: 4}
