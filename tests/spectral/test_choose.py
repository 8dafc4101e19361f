"""The choice, by hand."""

import numpy as np
import pytest

from spec_store.spectral.choose import choose, jaccard, match_numbers, mean_kernels, mismatch_mass, worth
from spec_store.spectral.judge import Figures


def columns(n, *ranges):
    """Groups of rows, one a column, from (start, stop)."""
    found = np.zeros((n, len(ranges)), bool)
    for j, (start, stop) in enumerate(ranges):
        found[start:stop, j] = True
    return found


def test_the_choice_goes_by_value_times_the_root_of_new_rows():
    members = columns(100, (0, 16), (0, 36), (40, 44), (50, 75))
    # gains at first: 4, 3, 4.2, 1.5; then the second has 20 new rows of 36: 2.2
    assert choose(members, np.array([1.0, 0.5, 2.1, 0.3])) == [2, 0, 1, 3]


def test_a_pure_candidate_goes_before_the_union_that_holds_it():
    members = columns(100, (0, 20), (0, 10), (10, 20))
    assert choose(members, np.array([1.0, 2.0, 2.0])) == [1, 2]


def test_overlapping_copies_of_a_choice_are_passed_over():
    members = columns(100, (0, 20), (1, 21), (4, 24), (16, 36))
    # new rows of the copies: 1 and 4 of 20; a quarter is asked for
    assert choose(members, np.array([1.0, 0.9, 0.9, 0.5])) == [0, 3]


def test_what_has_no_value_is_not_chosen():
    assert choose(columns(20, (0, 5), (5, 10)), np.array([0.0, -1.0])) == []
    assert choose(np.zeros((20, 0), bool), np.zeros(0)) == []


def test_worth_is_the_gap_times_the_logarithm_of_the_ratio_of_contrasts_times_cohesion():
    figures = Figures(
        np.array([50, 50, 50]),
        np.full(3, 0.1),
        np.array([[0.9, 0.9, 0.9], [0.4, 0.4, 0.4]]),
        np.array([[3.0, 1.0, 3.0], [1.0, 2.0, 0.0]]),
        np.zeros((2, 3)),
        np.zeros(3),
    )
    found = worth(figures, np.array([0.5, 0.5, 0.1]))
    assert found == pytest.approx([0.25 * np.log(3), 0.0, 0.05 * np.log(10)], abs=1e-6)


def test_a_union_of_k_groups_has_a_kth_of_their_cohesion():
    apart = np.repeat(np.eye(4, dtype=np.float32), 10, axis=0)
    found = mean_kernels(apart, columns(40, (0, 10), (0, 20), (0, 40), (5, 5)))
    np.testing.assert_allclose(found, [1, 1 / 2, 1 / 4, 0])


def test_mismatch_mass_counts_each_row_once_in_the_largest_cluster():
    members = columns(100, (0, 20), (10, 40), (50, 60))
    mass, covered = mismatch_mass(members, np.array([0.5, 0.4, 0.9]))
    # by size x gap: 12, 10 (its first ten rows are new) and 9
    assert mass == pytest.approx(0.30 * 0.4 + 0.10 * 0.5 + 0.10 * 0.9)
    assert covered == pytest.approx(0.5)
    assert mismatch_mass(np.zeros((100, 0), bool), np.zeros(0)) == (0.0, 0.0)


def test_jaccard_is_rows_in_both_over_rows_in_either():
    found = jaccard(columns(40, (0, 10), (20, 20)), columns(40, (5, 20), (0, 10), (30, 40)))
    np.testing.assert_allclose(found, [[5 / 20, 1, 0], [0, 0, 0]])


def test_the_same_rows_keep_their_number_and_others_do_not():
    found = columns(100, (0, 10), (20, 30), (40, 50))
    assert match_numbers(found, found[:, [2, 0]]) == {0: 1, 2: 0}
    assert match_numbers(found, columns(100, (60, 70), (28, 38))) == {}
    assert match_numbers(columns(100, (0, 10)), columns(100, (0, 20))) == {0: 0}  # half is enough
    assert match_numbers(columns(100, (0, 10)), columns(100, (0, 21))) == {}


def test_numbers_are_kept_one_to_one_so_that_most_members_stay():
    found = columns(100, (0, 10), (1, 11))
    assert match_numbers(found, columns(100, (0, 10))) == {0: 0}
    # the first is like both, the second only like the first recorded one
    found = columns(100, (0, 12), (0, 7))
    assert match_numbers(found, columns(100, (0, 11), (2, 14))) == {0: 1, 1: 0}
