"""What is fixed on the sample: bandwidths, landmarks and the maps' error."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from planted import planted_mixture, random_pair, unit
from spec_store.options import CompareOptions
from spec_store.spectral.bandwidth import auto_bandwidths
from spec_store.workflows.sampling import Sample, fit_maps, map_error, sample_features


def sample_of(a, b, dtype="float32"):
    pairwise = np.arange(min(len(a), 1500))
    return Sample(
        ("a", "b"),
        (unit(a).astype(dtype), unit(b).astype(dtype)),
        pairwise,
        pa.table({}),
        pa.array(range(len(a))),
    )


def test_landmarks_are_fitted_on_ten_thousand_rows_of_a_larger_sample():
    a, b = random_pair(12_000)
    options = CompareOptions(dim=20, bandwidth=(0.7, 0.6))
    whole = sample_of(a, b)
    first = replace(whole, rows=tuple(x[:10_000] for x in whole.rows))
    fewer = replace(whole, rows=tuple(x[:9_000] for x in whole.rows))
    landmarks = [[m.landmarks for m in fit_maps(s, options).maps] for s in (whole, first, fewer)]
    assert all(np.array_equal(x, y) for x, y in zip(landmarks[0], landmarks[1], strict=True))
    assert not np.array_equal(landmarks[0][0], landmarks[2][0])


@pytest.mark.parametrize("threads", [1, 4])
def test_maps_do_not_depend_on_the_number_of_threads(threads):
    a, b, _ = planted_mixture(3000, seed=1)
    found = fit_maps(sample_of(a, b), CompareOptions(threads=threads, dim=50)).maps
    expected = fit_maps(sample_of(a, b), CompareOptions(threads=2, dim=50)).maps
    assert [m.digest for m in found] == [m.digest for m in expected]


@pytest.mark.parametrize("kernel", ["gaussian", "cosine"])
def test_features_of_the_sample_are_those_of_each_map_side_by_side(kernel):
    a, b = random_pair(5000)
    sample = sample_of(a, b)
    maps = fit_maps(sample, CompareOptions(kernel=kernel, dim=20)).maps
    expected = np.concatenate([m.features(x) for m, x in zip(maps, sample.rows, strict=True)], axis=1)
    # Products of other batch sizes may round otherwise; whitening amplifies that.
    np.testing.assert_allclose(sample_features(sample, maps), expected, atol=1e-4)


def test_bandwidths_and_the_maps_error_in_float32_are_those_in_float64():
    a, b, _ = planted_mixture(2000, seed=3)
    found = []
    for precision in ("float32", "float64"):
        sample = sample_of(a, b, precision)
        maps, bandwidths = fit_maps(sample, CompareOptions(precision=precision, dim=50))
        found.append((*bandwidths.values, map_error(sample, maps, 1.0)))
    assert found[0][:2] == pytest.approx(found[1][:2], rel=1e-5)
    assert found[0][2] == pytest.approx(found[1][2], rel=5e-3)  # the iteration stops at 1e-3 of it


def test_bandwidths_of_float32_rows_of_very_different_lengths_are_those_in_float64():
    a, b, _ = planted_mixture(1000, seed=3)
    far = a.copy()
    far[::20] *= 5e4  # squares of which float32 loses all that tells the others apart
    one = auto_bandwidths({"a": far, "b": b})
    two = auto_bandwidths({"a": far.astype(float), "b": b.astype(float)})
    assert one.values == pytest.approx(two.values, rel=1e-5)


def test_bandwidths_do_not_depend_on_the_unit_of_length():
    a, b, _ = planted_mixture(500, seed=4)
    one = auto_bandwidths({"a": a.astype(float), "b": b})
    two = auto_bandwidths({"a": 1e-25 * a.astype(float), "b": b})
    assert two.values == pytest.approx((1e-25 * one.values[0], one.values[1]), rel=1e-5)
