"""Retrieval, neighbourhoods and spectra against the naive computation."""

import numpy as np
import pytest

from planted import unit
from spec_store.alignment.metrics import (
    bootstrap_interval,
    cosines,
    difference_eigenvalues,
    nearest,
    neighbour_overlap,
    ranks,
    recall,
    search_overlap,
)


def rows(n, d, seed=0):
    return unit(np.random.default_rng(seed).standard_normal((n, d)))


def test_ranks_are_places_in_the_sorted_gallery():
    queries, gallery = rows(1500, 5), rows(1500, 5, 1)
    order = np.argsort(-(queries @ gallery.T), axis=1)
    expected = [int(np.flatnonzero(order[i] == i)[0]) for i in range(1500)]
    assert ranks(queries, gallery).tolist() == expected
    own = np.arange(1500)[::-1].copy()
    expected = [int(np.flatnonzero(order[i] == own[i])[0]) for i in range(1500)]
    assert ranks(queries, gallery, own).tolist() == expected


def test_a_map_that_collapses_all_rows_has_no_recall():
    gallery = rows(200, 5)
    assert recall(ranks(np.tile(gallery[:1], (200, 1)), np.tile(gallery[:1], (200, 1))), 10) == 0
    assert recall(ranks(gallery, gallery), 1) == 1
    assert np.isnan(recall(np.empty(0), 1))


def test_a_similarity_that_is_not_finite_ranks_last():
    gallery = rows(200, 5)
    nothing = np.full_like(gallery, np.nan)
    assert ranks(nothing, gallery).tolist() == [199] * 200
    assert recall(ranks(gallery, nothing), 199) == 0
    assert neighbour_overlap(nearest(nothing, 5), nearest(gallery, 5)).max() == 0
    assert neighbour_overlap(nearest(nothing, 5), nearest(nothing, 5)).max() == 0
    few = gallery.copy()
    few[7] = np.inf
    assert ranks(few, gallery)[7] == 199
    assert (np.delete(ranks(few, gallery), 7) == 0).all()
    assert not (nearest(few, 198) == 7).any()


def test_nearest_leaves_each_row_out_of_its_own_list():
    x, gallery = rows(1100, 6), rows(80, 6, 1)
    similarity = x @ x.T
    np.fill_diagonal(similarity, -9)
    expected = np.argsort(-similarity, axis=1)[:, :7]
    assert np.array_equal(np.sort(nearest(x, 7), axis=1), np.sort(expected, axis=1))
    own = np.arange(10, 40)
    found = nearest(gallery[10:40], 3, gallery=gallery, own=own)
    assert not (found == own[:, None]).any()
    assert nearest(x[:4], 10).shape == (4, 3)  # no more than there are


def test_overlap_is_the_share_that_two_lists_have_in_common():
    one, two = np.array([[0, 1, 2, 3], [4, 5, 6, 7]]), np.array([[3, 2, 9, 8], [7, 6, 5, 4]])
    assert neighbour_overlap(one, two).tolist() == [0.5, 1.0]


def test_cosines_are_of_row_i_with_row_i():
    assert cosines(np.eye(2), np.array([[1.0, 0], [1.0, 0]])).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("widths", [(6, 9), (9, 6)])
def test_eigenvalues_are_those_of_the_n_by_n_difference(widths):
    f, b = rows(60, widths[0]), rows(60, widths[1], 1)
    values = np.linalg.eigvalsh((f @ f.T - b @ b.T) / 60)
    found = difference_eigenvalues(f, b)
    assert np.allclose(found, values[np.abs(values) > 1e-9])


def test_search_overlap_is_the_share_of_wanted_rows_that_a_search_finds():
    wanted_queries, wanted = rows(60, 6), rows(300, 6, 1)
    queries, gallery = rows(60, 4, 2), rows(300, 4, 3)
    own = np.where(np.arange(60) % 2 == 0, np.arange(60) * 3, -1)
    expected = []
    for i in range(60):
        lists = []
        for q, g in ((wanted_queries, wanted), (queries, gallery)):
            order = [j for j in np.argsort(-(q[i] @ g.T)).tolist() if j != own[i]]
            lists.append(set(order[:10]))
        expected.append(len(lists[0] & lists[1]) / 10)
    found = search_overlap((wanted_queries, wanted), (queries, gallery), 10, own)
    assert found.tolist() == expected
    assert 0 < found.mean() < 0.2  # independent spaces agree by chance alone
    assert (search_overlap((wanted_queries, wanted), (wanted_queries, wanted), 10, own) == 1).all()


def test_the_bootstrap_interval_covers_the_mean_of_where_values_come_from():
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        values = rng.binomial(10, 0.3, 150) / 10
        low, high = bootstrap_interval(values, seed=seed)
        covered += low <= 0.3 <= high
        assert low < values.mean() < high
    assert 0.9 <= covered / 200 <= 0.99
    assert bootstrap_interval(np.ones(5)) == (1, 1)
    assert np.isnan(bootstrap_interval(np.empty(0))).all()
