"""The running k best of a stream, and nDCG, against sorting everything."""

import numpy as np
import pytest

from spec_store.alignment.topk import RunningTopK, hits, ndcg


def running(similarity, k, cuts, ids=None):
    found = RunningTopK(len(similarity), k)
    ids = np.arange(similarity.shape[1]) if ids is None else ids
    for part in np.split(np.arange(similarity.shape[1]), cuts):
        for start in range(0, len(similarity), 3):
            found.update(start, similarity[start : start + 3, part], ids[part])
    return found


def sorted_ids(similarity, k):
    return np.argsort(-similarity, axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize("cuts", [[], [1], [2, 5, 6, 90], list(range(1, 100))])
@pytest.mark.parametrize("ties", [False, True])
def test_any_batches_give_what_sorting_all_rows_gives(cuts, ties):
    similarity = np.random.default_rng(0).standard_normal((7, 100)).astype(np.float32)
    if ties:
        similarity = np.round(similarity)
    found = running(similarity, 5, cuts)
    wanted = sorted_ids(similarity, 5)
    assert (found.similarity == np.take_along_axis(similarity, wanted, axis=1)).all()
    assert (found.ids == wanted).all()  # of equal ones the first


def test_rows_that_cannot_be_found_and_places_that_stay_empty():
    similarity = np.full((2, 6), -np.inf, np.float32)
    similarity[0, [1, 4]] = 0.5, 0.7
    found = running(similarity, 3, [2, 4])
    assert found.ids[0, :2].tolist() == [4, 1]
    assert np.isneginf(found.similarity[0, 2])
    assert np.isneginf(found.similarity[1]).all()
    assert hits(found, found).sum() == 2


def test_hits_are_counted_by_id_not_by_place():
    rng = np.random.default_rng(1)
    one, two = rng.standard_normal((2, 9, 40)).astype(np.float32)
    found, wanted = running(one, 10, [7]), running(two, 10, [20])
    right = hits(found, wanted)
    for i in range(9):
        assert right[i].tolist() == [x in set(sorted_ids(two, 10)[i]) for x in sorted_ids(one, 10)[i]]


def test_ndcg_by_hand():
    right = np.array([[True, False, True], [False, False, False], [True, True, True], [True, False, False]])
    found = ndcg(right, np.array([2, 1, 5, 0]))
    best = 1 + 1 / np.log2(3)
    assert found[0] == pytest.approx((1 + 0.5) / best)
    assert found[1] == 0
    assert found[2] == pytest.approx(1)
    assert np.isnan(found[3])
