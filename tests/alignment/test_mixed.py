"""Searches of mixed indexes and moved cut-offs, against searching each one anew."""

import numpy as np
import pytest

from planted import unit
from spec_store.alignment.cutoff import shift_cutoff
from spec_store.alignment.metrics import nearest, neighbour_overlap, ranks, twin_ranks
from spec_store.alignment.mixed import MixedSearch

N, M, D = 300, 900, 12


def data(noise=0.5, seed=0):
    rng = np.random.default_rng(seed)
    target = unit(rng.standard_normal((M, D))).astype(np.float32)
    mapped = unit(target + noise * rng.standard_normal((M, D))).astype(np.float32)
    own = np.r_[np.arange(N // 2), np.full(N // 2, -1)]
    queries = np.concatenate([target[: N // 2], unit(rng.standard_normal((N // 2, D))).astype(np.float32)])
    return queries, target, mapped, own, rng


def searched_anew(queries, target, index, own, k):
    wanted, found = (nearest(queries, k, gallery=x, own=own) for x in (target, index))
    return neighbour_overlap(found, wanted)


@pytest.mark.parametrize("noise", [0.1, 0.5, 5.0])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.9, 1.0])
def test_any_mix_is_as_if_it_were_searched(noise, share):
    queries, target, mapped, own, rng = data(noise)
    search = MixedSearch(queries, target, mapped, own, 7)
    embedded = rng.random(M) < share
    expected = searched_anew(queries, target, np.where(embedded[:, None], target, mapped), own, 7)
    assert search.overlap(embedded) == pytest.approx(expected)
    assert search.overlap(embedded, 33) == pytest.approx(expected[:33])
    if share == 1:
        assert (expected == 1).all()


def test_rows_without_a_mapped_vector_are_not_found_until_they_are_re_embedded():
    queries, target, mapped, own, _ = data()
    mapped[::2] = np.nan
    search = MixedSearch(queries, target, mapped, own, 5)
    none = np.zeros(M, bool)
    assert search.overlap(none) == pytest.approx(searched_anew(queries, target, mapped, own, 5))
    assert (search.overlap(~none) == 1).all()
    mapped[:] = np.nan
    assert (MixedSearch(queries, target, mapped, own, 5).overlap(none) == 0).all()


def test_equal_rows_are_all_right_whichever_of_them_is_found():
    queries, target, _, own, _ = data()
    target[:100] = target[0]
    shuffled = np.arange(M)
    shuffled[:100] = shuffled[:100][::-1]
    search = MixedSearch(queries, target, target.copy(), own, 10)
    assert (search.overlap(np.arange(M) % 2 == 0) == 1).all()
    found = shuffled[nearest(queries, 10, gallery=target[shuffled], own=np.full(N, -1))]
    assert search.overlap_of(found)[150:].mean() == 1


def test_what_another_search_finds():
    queries, target, mapped, own, _ = data()
    search = MixedSearch(queries, target, mapped, own, 10)
    found = nearest(queries, 10, gallery=mapped, own=own)
    assert search.overlap_of(found) == pytest.approx(search.overlap(np.zeros(M, bool)))


def test_twins_outside_the_gallery_rank_as_if_they_were_in_it():
    _, target, mapped, _, _ = data()
    own = np.r_[np.arange(10), np.full(10, -1)]
    found = twin_ranks(mapped[:20], target[:20], np.concatenate([target[:10], target[20:]]), own)
    expected = [
        ranks(mapped[i : i + 1], target[np.r_[i, [j for j in range(M) if j not in range(10, 20)]]])[0]
        - (0.5 if i < 10 else 0)  # the twin is there twice, then
        for i in range(20)
    ]
    assert found == pytest.approx(expected)


def test_a_cut_off_lets_the_same_share_pass():
    rng = np.random.default_rng(0)
    before = rng.random(5000).astype(np.float32)
    target = (before + 0.2 * rng.standard_normal(5000)).astype(np.float32)
    after = (0.3 * target + 0.02 * rng.standard_normal(5000)).astype(np.float32)
    before[:10] = np.nan
    moved = shift_cutoff(0.8, before, after, target)
    passed = before[10:] >= 0.8
    assert moved.n_pairs == 4990
    assert moved.share == pytest.approx(passed.mean())
    passes = after[10:] >= moved.new
    assert passes.sum() == passed.sum()
    assert moved.overlap == pytest.approx((passes & passed).sum() / passed.sum())
    best = np.sort(target[10:])[-passed.sum()]
    assert moved.overlap_target == pytest.approx((passes & (target[10:] >= best)).sum() / passed.sum())
    assert moved.overlap < moved.overlap_target < 1


def test_a_cut_off_that_nothing_passes_has_no_new_place():
    moved = shift_cutoff(1.0, *np.zeros((3, 50), np.float32))
    assert (moved.share, moved.new, moved.overlap) == (0, None, None)
