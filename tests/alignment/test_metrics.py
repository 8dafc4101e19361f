"""Retrieval, neighbourhoods and spectra against the naive computation."""

import numpy as np
import pytest

from planted import unit
from spec_store.alignment.metrics import (
    cosines,
    difference_eigenvalues,
    nearest,
    neighbour_overlap,
    ranks,
    recall,
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
