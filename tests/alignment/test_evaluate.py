"""What is said of a map's output on test rows."""

import numpy as np
import pytest

from planted import hidden_clusters, rotated_clipped_noisy, unit
from spec_store.alignment.evaluate import Evaluator


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_outputs_that_are_not_finite_or_zero_are_worse_than_nothing(value):
    a, b = (x.astype(np.float32) for x in rotated_clipped_noisy(400, widths=(12, 9), n_groups=6))
    evaluator = Evaluator(a, b, {0: np.arange(400) < 40}, [0], to_target=True)
    found = evaluator.after("broken", np.full_like(b, value))
    assert found.recall_10 == 0
    assert found.search_10 < 0.1
    assert found.clusters[0].capture[2] < 0.3
    assert np.isfinite(found.spec_diff)
    assert not found.better_than(evaluator.before())
    assert not evaluator.before().better_than(evaluator.before())


def pair(n=900):
    a, b = rotated_clipped_noisy(n, widths=(12, 9), n_groups=6)
    return a.astype(np.float32), b.astype(np.float32)


def found_by(queries, gallery, k=10):
    similarity = queries @ gallery.T
    np.fill_diagonal(similarity, -9)
    return [set(row) for row in np.argsort(-similarity, axis=1)[:, :k].tolist()]


def test_search_overlap_is_that_of_the_targets_queries_and_in_place_of_the_sources():
    a, b = pair()
    f = unit(b + 0.4 * np.random.default_rng(0).standard_normal(b.shape)).astype(np.float32)
    found = Evaluator(a, b, {}, [], to_target=True)
    expected = np.mean([len(x & y) / 10 for x, y in zip(found_by(b, b), found_by(b, f), strict=True)])
    after = found.after("noisy", f)
    assert after.search_10 == pytest.approx(expected, abs=1e-9)
    assert after.search_interval[0] < expected < after.search_interval[1]
    assert 0.1 < expected < 0.9
    expected = np.mean([len(x & y) / 10 for x, y in zip(found_by(b, b), found_by(a, a), strict=True)])
    assert found.before().search_10 == pytest.approx(expected, abs=1e-9)
    g = unit(a + 0.4 * np.random.default_rng(0).standard_normal(a.shape)).astype(np.float32)
    found = Evaluator(a, b, {}, [], to_target=False)
    expected = np.mean([len(x & y) / 10 for x, y in zip(found_by(a, a), found_by(a, g), strict=True)])
    assert found.after("noisy", g).search_10 == pytest.approx(expected, abs=1e-9)
    assert found.before().search_10 == 1
    assert np.isnan(found.before().mismatch_mass)


def test_clusters_that_the_source_cannot_see_are_lost_and_their_mismatch_stays():
    a, b = pair(2000)
    b, truth = hidden_clusters(b, n_rows=150, n_clusters=2, shift=2.5)
    b = b.astype(np.float32)
    evaluator = Evaluator(a, b, {1: truth == 0, 2: truth == 1}, [1, 2], to_target=True)
    blind = np.linalg.lstsq(a, b, rcond=None)[0]
    blind, full = evaluator.after("blind", unit(a @ blind)), evaluator.after("re-embedded", b)
    for c in blind.clusters:
        assert c.lost
        assert c.capture[1] > 0.9 > 0.3 > max(c.capture[0], c.capture[2])
        assert c.contrast[1] > c.contrast[2]
    for c in full.clusters:
        assert c.recovered == pytest.approx(1)
        assert not c.lost
    assert evaluator.before().mismatch_mass > 0.1
    assert blind.mismatch_mass == pytest.approx(evaluator.before().mismatch_mass, rel=0.1)
    assert full.mismatch_mass == 0


def test_a_map_that_searchers_find_less_in_is_not_better():
    a, b = pair()
    evaluator = Evaluator(a, b, {}, [], to_target=True)
    turned = b @ np.linalg.qr(np.random.default_rng(0).standard_normal((9, 9)))[0].astype(np.float32)
    found = evaluator.after("turned", turned)
    assert found.spec_diff < 1e-4  # the kernel is the target's own
    assert found.search_10 < 0.3
    assert not found.better_than(evaluator.before())
    assert evaluator.after("re-embedded", b).better_than(evaluator.before())
