"""The benchmark's measures: what a cluster claims, and how much of a table a list of clusters explains."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from evaluation import Claim, Evaluator, mismatch_mass, unit_rows

N_ROWS = 1200


@pytest.fixture(scope="module")
def planted():
    """Rows of four groups, of which b sees the first two as one; a cosine kernel's evaluator of both."""
    rng = np.random.default_rng(0)
    groups = rng.integers(4, size=N_ROWS)
    centres = np.eye(4, 16)
    a, b = (
        unit_rows(centres[g] + 0.1 * rng.standard_normal((N_ROWS, 16))) for g in (groups, groups // 2 * 2)
    )
    return groups, Evaluator([a, b], [0.3, None], 0)


def test_a_group_that_only_one_embedding_keeps_apart_holds_there_and_nowhere_else(planted):
    groups, evaluator = planted
    (here,) = evaluator.claims([groups == 0], 0)
    (there,) = evaluator.claims([groups == 0], 1)
    assert here.holds
    assert here.capture[0] == 1
    assert here.capture[1] == pytest.approx(0.5, abs=0.1)
    assert not there.holds
    assert there.gap == -here.gap


def test_a_group_that_both_embeddings_keep_apart_does_not_hold(planted):
    groups, evaluator = planted
    shared = [groups >= 2]
    assert not any(c.holds for end in (0, 1) for c in evaluator.claims(shared, end))


def test_rows_drawn_at_random_do_not_hold(planted):
    drawn = np.random.default_rng(1).random((40, N_ROWS)) < 0.1
    assert not any(c.holds for end in (0, 1) for c in planted[1].claims(list(drawn), end))


def test_a_cluster_of_one_row_is_not_evaluated(planted):
    mask = np.zeros(N_ROWS, bool)
    mask[3] = True
    assert planted[1].claims([mask], 0)[0].capture == (0, 0)


def test_mismatch_mass_counts_a_row_once_and_a_false_cluster_never():
    rows = np.arange(10)
    first = Claim(rows < 6, (0.9, 0.4), (2.0, 1.0))
    overlapping = Claim((rows >= 4) & (rows < 8), (0.8, 0.3), (2.0, 1.0))
    false = Claim(rows >= 8, (0.9, 0.85), (2.0, 1.0))
    assert mismatch_mass([false, overlapping, first]) == pytest.approx(0.6 * 0.5 + 0.2 * 0.5)
    assert mismatch_mass([false]) == 0
