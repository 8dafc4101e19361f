"""Landmarks in a subspace: an exact kernel, taken only where unseen rows are seen as well."""

from __future__ import annotations

import numpy as np
import pytest

from spec_store.spectral.covariance import CovarianceAccumulator
from spec_store.spectral.features import NystroemMap, gaussian_kernel, kmeans_landmarks
from spec_store.spectral.subspace import principal_directions, subspace_map
from spec_store.stores.vectors import Vectors


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def rows_of_rank(rank: int, noise: float, n: int = 3000, width: int = 160) -> np.ndarray:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, rank)) @ rng.standard_normal((rank, width))
    return x + noise * rng.standard_normal((n, width))


def in_subspace(width: int, *, normalize: bool, dtype: str, scale: float = 1.0) -> NystroemMap:
    rng = np.random.default_rng(1)
    basis = np.linalg.qr(rng.standard_normal((width, 5)))[0].T
    origin = np.zeros(width) if normalize else rng.standard_normal(width)
    landmarks = origin + scale * rng.standard_normal((30, 5)) @ basis
    return NystroemMap("a", width, normalize, dtype, 1.5 * scale, landmarks, origin, basis)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-13), ("float32", 2e-6)])
def test_kernel_columns_of_landmarks_in_a_subspace_are_exact(
    normalize: bool, dtype: str, tolerance: float
) -> None:
    m = in_subspace(40, normalize=normalize, dtype=dtype)
    x = np.random.default_rng(2).standard_normal((700, 40))  # two blocks of rows
    seen = unit(x) if normalize else x
    chosen = np.arange(3, 690)

    found = m.columns(Vectors.from_matrix(x.astype(dtype), directions=normalize), chosen)

    assert found.dtype == dtype
    np.testing.assert_allclose(found, gaussian_kernel(seen, m.landmarks, m.bandwidth)[chosen], atol=tolerance)


def test_rows_far_out_are_computed_in_double_precision() -> None:
    m = in_subspace(40, normalize=False, dtype="float32")
    x = np.tile(m.landmarks[0], (4, 1))
    x[1] += 300.0 * np.linalg.qr(m.basis.T, mode="complete")[0][:, -1]  # out of the subspace
    m = NystroemMap("a", 40, False, "float32", 200.0, m.landmarks, m.origin, m.basis)

    found = m.columns(Vectors.from_matrix(x, directions=False))

    np.testing.assert_allclose(found, gaussian_kernel(x, m.landmarks, 200.0), rtol=1e-5)


def test_subspace_is_taken_where_unseen_rows_are_seen_as_well() -> None:
    low, high = unit(rows_of_rank(10, 0.05)), unit(rows_of_rank(160, 0.0))
    for x, dimensions in ((low, 64), (high, None)):
        full = NystroemMap(
            "a", 160, True, "float64", 0.8, kmeans_landmarks(x[:2000], 400, seed=0), np.zeros(160)
        )
        found = subspace_map(full, x[:2000], x[2000:], seed=0)
        assert (None if found.basis is None else len(found.basis)) == dimensions
        if found.basis is not None:
            assert found.digest != full.digest
            np.testing.assert_allclose(found.landmarks, found.landmarks @ found.basis.T @ found.basis)


def test_narrow_embeddings_keep_all_dimensions() -> None:
    x = unit(rows_of_rank(3, 0.0, width=64))
    full = NystroemMap("a", 64, True, "float32", 0.8, x[:100], np.zeros(64))

    assert subspace_map(full, x[:2000], x[2000:], seed=0) is full


def test_principal_directions_are_those_of_the_decomposition() -> None:
    x = rows_of_rank(6, 0.01)

    found = principal_directions(x, 6, seed=0)

    exact = np.linalg.svd(x, full_matrices=False)[2][:6]
    np.testing.assert_allclose(np.linalg.svd(found @ exact.T)[1], 1.0, atol=1e-6)
    np.testing.assert_allclose(found @ found.T, np.eye(6), atol=1e-12)


def test_state_keeps_the_subspace(tmp_path) -> None:
    m = in_subspace(40, normalize=True, dtype="float32")
    CovarianceAccumulator([m]).save(tmp_path / "state.npz")

    loaded = CovarianceAccumulator.load(tmp_path / "state.npz").maps[0]

    assert loaded.digest == m.digest
    np.testing.assert_array_equal(loaded.basis, m.basis)
    assert "basis" not in NystroemMap("a", 40, True, "float32", 1.0, m.landmarks, m.origin).arrays()
