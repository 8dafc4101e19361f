"""Maps in closed form: features, moments, strength, variance; and which map is chosen."""

import numpy as np
import pytest

from planted import rotated_clipped_noisy, unit
from spec_store.alignment.kernel import fit_features
from spec_store.alignment.metrics import difference_eigenvalues, search_overlap
from spec_store.alignment.start import Linear, PairMoments, RidgePath, rotation
from spec_store.alignment.validation import STRENGTHS, Candidate, Validation, best_candidate, strongest


def pair(n=1500):
    a, b = rotated_clipped_noisy(n, widths=(12, 9), n_groups=8)
    return a.astype(np.float32), b.astype(np.float32)


def moments_of(x, y):
    x, y = x.astype(np.float64), y.astype(np.float64)
    return PairMoments(x.mean(0), y.mean(0), x.T @ x / len(x), x.T @ y / len(x), y.T @ y / len(x))


def test_features_are_the_row_and_a_gaussian_kernel():
    a, _ = pair()
    features = fit_features(a, "a", 400, seed=0)
    found = features.of(a[:200])
    assert np.array_equal(found[:, :12], a[:200])
    sq = ((a[:200, None, :] - a[None, :200, :]) ** 2).sum(axis=2)
    median = np.sqrt(np.median(((a[:1000, None] - a[None, :1000]) ** 2).sum(2)[np.triu_indices(1000, 1)]))
    assert features.nystroem.bandwidth == pytest.approx(0.6 * median, rel=0.05)
    kernel = np.exp(-sq / (2 * features.nystroem.bandwidth**2))
    assert np.abs(found[:, 12:] @ found[:, 12:].T - kernel).mean() < 0.02  # of 400 landmarks


def test_moments_of_features_come_from_those_of_raw_columns():
    a, b = pair()
    features = fit_features(a, "a", 50, seed=0)
    sq = ((a[:, None, :].astype(float) - features.nystroem.landmarks[None]) ** 2).sum(axis=2)
    raw = np.hstack([a, np.exp(-sq / (2 * features.nystroem.bandwidth**2)), b]).astype(np.float64)
    found = features.moments(raw.mean(axis=0), raw.T @ raw / len(raw))
    expected = moments_of(features.of(a), b)
    for name in ("mean_a", "mean_b", "aa", "ab", "bb"):
        assert np.allclose(getattr(found, name), getattr(expected, name), atol=1e-4)


def test_a_regression_on_features_is_the_same_as_a_map_of_vectors():
    a, b = pair()
    features = fit_features(a, "a", 100, seed=0)
    linear = RidgePath(moments_of(features.of(a), b)).restored(0.01)
    expected = unit(features.of(a).astype(np.float64) @ linear.weights + linear.bias)
    found = features.to_map(linear)
    assert np.allclose(found.transform(5 * a), expected, atol=1e-4)
    assert found.landmarks.shape == (12, 100)


def test_every_strength_of_the_path_is_the_ridge_regression():
    a, b = pair()
    path = RidgePath(moments_of(a, b))
    x, y = a - a.mean(axis=0, dtype=np.float64), b - b.mean(axis=0, dtype=np.float64)
    covariance = x.T @ x / len(x)
    for strength in (1e-3, 0.3):
        penalty = strength * np.trace(covariance) / 12 * np.eye(12)
        expected = np.linalg.solve(covariance + penalty, x.T @ y / len(x))
        found = path.at(strength)
        assert np.allclose(found.weights, expected, atol=1e-6)
        assert np.allclose(a.mean(axis=0) @ found.weights + found.bias, b.mean(axis=0), atol=1e-6)


def test_restored_variance_is_the_targets_and_a_share_lies_between():
    a, b = pair()
    path = RidgePath(moments_of(a, b))
    spread = {
        share: np.cov((a @ path.restored(0.1, share).weights).T, bias=True) for share in (0.0, 0.5, 1.0)
    }
    assert np.allclose(spread[1.0], np.cov(b.T, bias=True), atol=1e-5)
    assert np.trace(spread[0.0]) < 0.9 * np.trace(spread[0.5]) < 0.95 * np.trace(spread[1.0])
    assert np.allclose(path.restored(0.1, 0.0).weights, path.at(0.1).weights)


def test_validation_figures_are_those_of_the_metrics():
    a, b = pair()
    outputs = 7 * (b + 0.1 * np.random.default_rng(0).standard_normal(b.shape)).astype(np.float32)
    f = unit(outputs)
    to_target, in_place = Validation(b, b), Validation(a, b)
    assert to_target.search_overlaps(outputs).mean() == pytest.approx(
        search_overlap((b, b), (b, f), 10).mean(), abs=1e-3
    )
    assert to_target.spec_diff(outputs) == pytest.approx(np.abs(difference_eigenvalues(f, b)).max(), rel=1e-4)
    assert (in_place.search_overlaps(a) == 1).all()


def test_the_strength_of_the_highest_search_overlap_is_taken():
    rng = np.random.default_rng(0)
    a, b = pair(700)
    noisy = unit(np.hstack([a, 0.3 * rng.standard_normal((700, 300))])).astype(np.float32)
    few = moments_of(noisy[:350], b[:350])  # more inputs than rows: hardly any penalty fits the noise
    path, validation = RidgePath(few), Validation(b[350:], b[350:])
    chosen, found = strongest([path], noisy[350:], validation)
    assert chosen is path
    overlaps = {
        s: validation.search_overlaps(noisy[350:] @ path.at(s).weights + path.at(s).bias).mean()
        for s in STRENGTHS
    }
    assert overlaps[found] == pytest.approx(max(overlaps.values()), abs=1e-3)
    assert overlaps[found] > overlaps[STRENGTHS[0]] + 0.02


def test_among_maps_that_searchers_cannot_tell_apart_spec_diff_decides():
    def candidate(overlap, spec_diff, n=1000):
        spread = np.tile([0.2, -0.2], n // 2) if overlap < 0.5 else np.tile([-0.2, 0.2], n // 2)
        return Candidate("", None, overlap + spread, spec_diff)

    assert best_candidate([candidate(0.5, 0.3), candidate(0.497, 0.1), candidate(0.4, 0.01)]) == 1
    assert best_candidate([candidate(0.5, 0.3), candidate(0.47, 0.1)]) == 0
    assert (
        best_candidate([candidate(0.5, 0.3, 100), candidate(0.47, 0.1, 100)]) == 1
    )  # two standard errors are 0.08


def test_linear_is_what_features_without_use_leave():
    """Of a target that is linear in the source, nothing is left for the kernel."""
    a, _ = pair()
    b = unit(a @ np.linalg.qr(np.random.default_rng(0).standard_normal((12, 12)))[0]).astype(np.float32)
    features = fit_features(a, "a", 60, seed=0)
    linear: Linear = RidgePath(moments_of(features.of(a), b)).at(1e-5)
    assert np.abs(features.to_map(linear).transform(a) - b).max() < 1e-2


def test_a_path_around_a_rotation_ends_there_and_begins_at_least_squares():
    a, _ = pair()
    rng = np.random.default_rng(0)
    turned = np.linalg.qr(rng.standard_normal((12, 12)))[0]
    b = unit(a @ turned + 0.05 * rng.standard_normal(a.shape)).astype(np.float32)
    moments = moments_of(a, b)
    prior = rotation(moments)
    assert np.abs(prior / np.linalg.norm(prior, axis=0) - turned).max() < 0.03
    plain = RidgePath(moments)
    path = plain.around(prior)
    assert np.allclose(path.at(1e12).weights, prior, atol=1e-9)
    assert np.allclose(path.at(1e-9).weights, plain.at(1e-9).weights, atol=1e-4)
    assert np.abs(plain.at(1e12).weights).max() < 1e-9
    few = moments_of(a[:14], b[:14])
    paths = [RidgePath(few), RidgePath(few).around(rotation(moments))]
    chosen, _ = strongest(paths, a[200:800], Validation(b[200:800], b[200:800]))
    assert chosen is paths[1]  # hardly more rows than dimensions
