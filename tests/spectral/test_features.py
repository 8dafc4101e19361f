import numpy as np
import pytest

from planted import gaussian, random_pair, unit
from spec_store.errors import InputError
from spec_store.spectral.features import (
    CosineMap,
    NystroemMap,
    RandomFourierMap,
    feature_map_from_arrays,
    kmeans_landmarks,
    orthogonal_frequencies,
    uniform_landmarks,
)
from spec_store.stores.vectors import Vectors


def nystroem(rows, sigma, landmarks, normalize=True, dtype="float64"):
    origin = np.zeros(rows.shape[1]) if normalize else rows.mean(axis=0)
    return NystroemMap("a", rows.shape[1], normalize, dtype, sigma, landmarks, origin)


def test_cosine_features_give_the_cosine_of_every_pair():
    a, _ = random_pair(50)
    phi = CosineMap("a", 6, True, "float64").features(a)
    np.testing.assert_allclose(phi @ phi.T, unit(a) @ unit(a).T, atol=1e-14)


@pytest.mark.parametrize("normalize", [True, False])
def test_nystroem_with_every_row_a_landmark_is_the_gaussian_kernel(normalize):
    a, _ = random_pair(80)
    a = a + 100 * (not normalize)  # far from zero, where careless distances lose their digits
    x = unit(a) if normalize else a
    sigma = 0.6 if normalize else 2.0
    phi = nystroem(x, sigma, x, normalize).features(a)
    np.testing.assert_allclose(phi @ phi.T, gaussian(x, sigma), atol=1e-10)


@pytest.mark.parametrize("orthogonal", [False, True])
def test_random_fourier_features_have_unit_length_and_approach_the_kernel(orthogonal):
    a, _ = random_pair(60)
    exact = gaussian(unit(a), 0.7)
    errors = []
    for m in (100, 6400):
        phi = RandomFourierMap("a", 6, True, "float64", 0.7, m, 3, orthogonal).features(a)
        np.testing.assert_allclose((phi**2).sum(axis=1), 1.0, rtol=1e-12)
        errors.append(np.abs(phi @ phi.T - exact).max())
    assert errors[1] < errors[0] / 4  # eightfold by √m, with room for the draw
    assert errors[1] < 0.05


def test_orthogonal_frequencies_are_orthogonal_within_a_block():
    w = orthogonal_frequencies(0, 5, 12)
    assert w.shape == (12, 5)
    inner = w[:5] @ w[:5].T
    np.testing.assert_allclose(inner - np.diag(np.diag(inner)), 0, atol=1e-12)


def test_embeddings_of_equal_width_share_the_draw():
    a, _ = random_pair(10)
    one = RandomFourierMap("a", 6, True, "float64", 0.7, 50, 3, False).features(a)
    two = RandomFourierMap("b", 6, True, "float64", 0.7, 50, 3, False).features(a)
    np.testing.assert_array_equal(one, two)


def test_float32_columns_differ_from_float64_by_rounding_only():
    a, _ = random_pair(400, d_a=64)
    z = uniform_landmarks(unit(a), 50, seed=0)
    wide, narrow = nystroem(unit(a), 0.6, z), nystroem(unit(a), 0.6, z, dtype="float32")
    v, rows = Vectors.from_matrix(a, directions=True), np.arange(400)
    np.testing.assert_allclose(narrow.columns(v, rows), wide.columns(v, rows), atol=2e-6)


def far_rows(dtype=np.float64):
    """Rows near zero, and one in twenty 50,000 times as far out, each with a close companion."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 8))
    x[::20] *= 5e4
    x[1::20] = x[::20] + 0.5 * rng.standard_normal((20, 8))
    return x.astype(dtype).astype(np.float64)


@pytest.mark.parametrize("rows", [None, np.arange(399, -1, -1)])
def test_float32_holds_the_kernel_of_rows_of_very_different_lengths(rows):
    x = far_rows(np.float32)
    v = Vectors.from_matrix(x, directions=False)
    found = nystroem(x, 2.0, x[:40], normalize=False, dtype="float32").columns(v, rows)
    expected = gaussian(x, 2.0)[:, :40]
    assert found.max() <= 1
    np.testing.assert_allclose(found, expected if rows is None else expected[rows], atol=1e-4)


def test_float32_holds_the_kernel_at_a_small_bandwidth():
    x = unit(np.random.default_rng(0).standard_normal((60, 8)))
    x[30:] = unit(x[:30] + 1e-4 * np.random.default_rng(1).standard_normal((30, 8)))
    v = Vectors.from_matrix(3 * x, directions=True)
    found = nystroem(x, 3e-4, x[:30], dtype="float32").columns(v)
    np.testing.assert_allclose(found, gaussian(x, 3e-4)[:, :30], atol=1e-4)


def test_float32_holds_the_waves_of_rows_of_very_different_lengths():
    x = far_rows(np.float32)
    v = Vectors.from_matrix(x, directions=False)
    narrow, wide = (RandomFourierMap("a", 8, False, t, 0.05, 30, 3, True) for t in ("float32", "float64"))
    np.testing.assert_allclose(narrow.columns(v), wide.columns(v), atol=1e-3)


@pytest.mark.parametrize(
    "build",
    [
        lambda a: CosineMap("a", 6, True, "float32"),
        lambda a: RandomFourierMap("a", 6, False, "float32", 0.7, 40, 3, True),
        lambda a: nystroem(a, 0.7, a[:9], normalize=False),
    ],
    ids=["cosine", "fourier", "nystroem"],
)
def test_a_map_rebuilt_from_its_parts_is_the_same_map(build):
    a, _ = random_pair(20)
    first = build(a)
    second = feature_map_from_arrays(first.parameters(), first.arrays())
    assert second.digest == first.digest
    np.testing.assert_array_equal(second.features(a), first.features(a))


def test_maps_that_differ_in_anything_have_different_digests():
    a, _ = random_pair(20)
    maps = [nystroem(a, s, a[:k], normalize=n) for s in (0.7, 0.8) for k in (9, 10) for n in (True, False)]
    assert len({m.digest for m in maps}) == 8


def test_kmeans_landmarks_are_a_function_of_the_seed_and_sit_in_the_data():
    rng = np.random.default_rng(0)
    rows = np.concatenate([c + 0.01 * rng.standard_normal((100, 3)) for c in np.eye(3)])
    z = kmeans_landmarks(rows, 12, seed=1)
    np.testing.assert_array_equal(z, kmeans_landmarks(rows, 12, seed=1))
    nearest = np.linalg.norm(z[:, None] - rows, axis=-1).min(axis=0)
    assert nearest.max() < 0.05


def test_no_more_rows_than_landmarks_makes_the_rows_the_landmarks():
    rows = np.arange(12.0).reshape(4, 3)
    np.testing.assert_array_equal(kmeans_landmarks(rows, 500, seed=0), rows)


def test_features_of_an_unusable_row_are_refused():
    with pytest.raises(InputError, match="Row 1 of 'a' is not usable"):
        CosineMap("a", 2, True, "float64").features(np.array([[1.0, 0.0], [0.0, 0.0]]))


def test_an_unknown_kind_of_map_is_refused():
    with pytest.raises(InputError, match="newer spec-store"):
        feature_map_from_arrays({"kind": "quantum"}, {})
