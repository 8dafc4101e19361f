"""Proposers and the rules that are made of what they propose."""

import numpy as np
import pytest

from planted import planted_mixture
from spec_store.spectral.candidates import (
    PROPOSERS,
    SMALLEST,
    ProposingRows,
    embedding_cells,
    propose,
    refined,
)


@pytest.fixture(scope="module")
def rows():
    """Planted groups, with the leading principal coordinates as modes."""
    a, b, _ = planted_mixture(1200, seed=1)
    scores, eigenvalues = [], []
    for x in (a, b):
        u, singular, _ = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
        scores.append(np.ascontiguousarray(u[:, :25] * np.float32(np.sqrt(len(x)))))
        eigenvalues.append(singular[:25].astype(float) ** 2 / len(x))
    return ProposingRows((a, b), tuple(scores), tuple(eigenvalues))


@pytest.mark.parametrize("proposer", PROPOSERS)
@pytest.mark.parametrize("end", [0, 1])
def test_a_proposer_gives_masks_of_rows_and_the_same_for_the_same_seed(rows, proposer, end):
    masks = proposer(rows, end, 5)
    assert masks
    assert all(mask.shape == (1200,) and mask.dtype == bool for mask in masks)
    again = proposer(rows, end, 5)
    np.testing.assert_array_equal(np.stack(masks), np.stack(again))


@pytest.mark.parametrize("proposer", PROPOSERS)
def test_a_proposer_has_nothing_to_say_of_an_end_without_modes_but_its_embeddings_cells(rows, proposer):
    none = np.zeros((1200, 0), np.float32)
    masks = proposer(ProposingRows(rows.features, (none, none), (np.zeros(0), np.zeros(0))), 0, 5)
    assert bool(masks) == (proposer is embedding_cells)


def test_candidates_are_neither_too_small_nor_too_large(rows):
    found = propose(rows, 0, seed=0)
    assert found.shape[0] == 1200
    assert found.shape[1] > 50
    assert found.sum(axis=0).min() >= SMALLEST
    assert found.sum(axis=0).max() <= 0.44 * 1200


def test_a_proposer_of_ones_own_is_asked(rows):
    asked = []

    def mine(given, end, seed):
        asked.append((given, end, seed))
        return [np.arange(len(given)) < 30, np.arange(len(given)) < SMALLEST - 1, np.ones(len(given), bool)]

    found = propose(rows, 1, seed=9, proposers=[mine])
    assert asked == [(rows, 1, 9)]
    np.testing.assert_array_equal(found, (np.arange(1200) < 30)[:, None])
    both = propose(rows, 1, seed=9, proposers=[*PROPOSERS, mine])
    assert both.shape[1] == propose(rows, 1, seed=9).shape[1] + 1


def test_no_candidate_is_an_empty_set_of_them(rows):
    assert propose(rows, 0, seed=0, proposers=[]).shape == (1200, 0)


def test_a_rule_takes_in_as_many_rows_as_its_candidate_has_those_nearest_to_its_mean(rows):
    features = rows.features[0]
    masks = propose(rows, 0, seed=0)
    rules = refined(masks, features)
    assert len(rules) == masks.shape[1]
    members = rules.members(features)
    np.testing.assert_array_equal(members.sum(axis=0), masks.sum(axis=0))
    for j in range(0, masks.shape[1], 7):
        centre = features[masks[:, j]].mean(axis=0)
        np.testing.assert_allclose(rules.centres[:, j], centre, rtol=1e-4, atol=1e-4)
        score = features @ rules.centres[:, j]
        assert score[~members[:, j]].max() < rules.thresholds[j] < score[members[:, j]].min()


def test_a_rule_of_all_rows_takes_in_all():
    features = np.random.default_rng(0).standard_normal((30, 3)).astype(np.float32)
    assert refined(np.ones((30, 1), bool), features).members(features).all()


def test_chosen_rules_are_those_asked_for(rows):
    rules = refined(propose(rows, 0, seed=0), rows.features[0])
    some = rules.chosen([4, 2])
    np.testing.assert_array_equal(some.members(rows.features[0]), rules.members(rows.features[0])[:, [4, 2]])
