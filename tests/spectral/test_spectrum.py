"""The oracles: identities that the spectrum must meet, against the naive n x n computation."""

import numpy as np
import pytest
import scipy.linalg

from planted import batch_of, exact_difference, gaussian, random_pair, unit
from spec_store.errors import InputError
from spec_store.spectral import spectrum as spectrum_module
from spec_store.spectral.covariance import CovarianceAccumulator
from spec_store.spectral.features import CosineMap, NystroemMap, RandomFourierMap
from spec_store.spectral.spectrum import linear_cka, second_moment, solve

N = 300
A, B = random_pair(N)


def cosine_maps(a=A, b=B, dtype="float64"):
    return [CosineMap("a", a.shape[1], True, dtype), CosineMap("b", b.shape[1], True, dtype)]


def nystroem_maps(a=A, b=B, sigma=(0.7, 0.6)):
    return [
        NystroemMap(c, x.shape[1], True, "float64", s, unit(x), np.zeros(x.shape[1]))
        for c, x, s in zip("ab", (a, b), sigma, strict=True)
    ]


def state(maps, a=A, b=B):
    acc = CovarianceAccumulator(maps)
    acc.update(batch_of(a=a, b=b))
    return acc


def all_features(maps, a=A, b=B):
    return np.concatenate([maps[0].features(a), maps[1].features(b)], axis=1)


def subspace_gap(u, v):
    """Sine of the largest principal angle between two column spaces."""
    qu, qv = np.linalg.qr(u)[0], np.linalg.qr(v)[0]
    return np.linalg.norm(qu - qv @ (qv.T @ qu), 2)


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("eta", [1.0, 0.4])
@pytest.mark.parametrize(
    ("maps", "kernels"),
    [
        (cosine_maps, lambda: (unit(A) @ unit(A).T, unit(B) @ unit(B).T)),
        (nystroem_maps, lambda: (gaussian(unit(A), 0.7), gaussian(unit(B), 0.6))),
    ],
    ids=["cosine", "nystroem with every row a landmark"],
)
def test_both_ends_equal_the_full_eigendecomposition(maps, kernels, eta, center):
    values, vectors = np.linalg.eigh(exact_difference(*kernels(), eta=eta, center=center))
    found = solve(state(maps()), modes=3, eta=eta, center=center)
    features = all_features(maps())
    for end, order in enumerate([np.argsort(-values), np.argsort(values)]):
        k = 3
        np.testing.assert_allclose(found.ends[end].eigenvalues, values[order[:k]], atol=1e-10)
        assert subspace_gap(found.scores(end, features), vectors[:, order[:k]]) < 1e-8


def test_both_spec_diffs_are_reported_whichever_operator_is_shown():
    kernels = unit(A) @ unit(A).T, unit(B) @ unit(B).T
    plain = np.abs(np.linalg.eigvalsh(exact_difference(*kernels))).max()
    centred = np.abs(np.linalg.eigvalsh(exact_difference(*kernels, center=True))).max()
    for center in (True, False):
        found = solve(state(cosine_maps()), modes=3, center=center)
        assert found.spec_diff == pytest.approx(plain, rel=1e-10)
        assert found.spec_diff_centered == pytest.approx(centred, rel=1e-10)


@pytest.mark.parametrize("center", [True, False])
def test_scores_have_mean_square_one_and_rayleigh_quotient_lambda_even_when_rotated(center):
    found = solve(state(cosine_maps()), modes=4, center=center, eta=0.7)
    exact = exact_difference(unit(A) @ unit(A).T, unit(B) @ unit(B).T, eta=0.7, center=center)
    features = all_features(cosine_maps())
    for end, modes in enumerate(found.ends):
        k = len(modes.eigenvalues)
        turn = scipy.linalg.qr(np.random.default_rng(0).standard_normal((k, k)))[0]
        for rotation in (np.eye(k), turn):
            scores = found.scores(end, features) @ rotation
            turned = modes.rotated(rotation)
            np.testing.assert_allclose((scores**2).mean(axis=0), 1.0, rtol=1e-9)
            quotient = np.einsum("ij,ik,kj->j", scores, exact, scores) / N
            np.testing.assert_allclose(turned.eigenvalues, quotient, atol=1e-11)
            energy_a, energy_b = turned.energies
            np.testing.assert_allclose(energy_a - 0.7 * energy_b, quotient, atol=1e-11)


def test_energies_are_the_rayleigh_quotients_of_each_kernel():
    found = solve(state(cosine_maps()), modes=3, center=False)
    features = all_features(cosine_maps())
    for end, modes in enumerate(found.ends):
        s = found.scores(end, features)
        for row, x in enumerate((unit(A), unit(B))):
            quotient = np.einsum("ij,ik,kj->j", s, x @ x.T, s) / N**2
            np.testing.assert_allclose(modes.energies[row], quotient, atol=1e-12)


def test_swapping_the_embeddings_negates_eigenvalues_and_swaps_the_ends():
    one = solve(state(nystroem_maps()), modes=5)
    maps = nystroem_maps()[::-1]
    two = solve(state(maps), modes=5)
    features = all_features(nystroem_maps())
    swapped = np.concatenate([maps[0].features(B), maps[1].features(A)], axis=1)
    for end in (0, 1):
        np.testing.assert_allclose(one.ends[end].eigenvalues, -two.ends[1 - end].eigenvalues, atol=1e-12)
        np.testing.assert_allclose(
            np.abs(one.scores(end, features)), np.abs(two.scores(1 - end, swapped)), atol=1e-6
        )


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_an_embedding_does_not_differ_from_itself(dtype):
    a, _ = random_pair(3000, 40, 40)
    found = solve(state(cosine_maps(a, a, dtype), a, a), modes=10)
    assert [len(end.eigenvalues) for end in found.ends] == [0, 0]
    # An error ε of the moment moves eigenvalues by √ε here; whether float32 makes one depends on the
    # BLAS kernel, as some round xᵀx and xᵀy alike for equal x and y.
    assert found.spec_diff < (found.rounding if dtype == "float32" else 1e-6)
    assert found.rounding < 1e-3
    assert found.cka == pytest.approx(1.0)


def test_rotating_or_scaling_an_embedding_changes_nothing():
    turn = scipy.linalg.qr(np.random.default_rng(1).standard_normal((9, 9)))[0]
    for maps in (cosine_maps, nystroem_maps):
        before = solve(state(maps()), modes=4)
        turned = 7.5 * B @ turn
        after = solve(state(maps(A, turned), A, turned), modes=4)
        for one, two in zip(before.ends, after.ends, strict=True):
            np.testing.assert_allclose(one.eigenvalues, two.eigenvalues, atol=1e-10)


def test_a_factor_of_a_moment_of_few_rows_leaves_no_more_than_float32_rounding():
    a, b = random_pair(300, 40, 50)
    maps = [
        NystroemMap("a", 40, True, "float32", 0.9, unit(a), np.zeros(40)),
        CosineMap("b", 50, True, "float32"),
    ]
    moment = second_moment(state(maps, a, b))
    factor = spectrum_module._factor(moment)
    assert factor.shape[1] < len(moment.matrix)  # deficient: 300 centred rows, 350 features
    left = moment.matrix - factor @ factor.T
    assert np.linalg.norm(left, 2) < 2 * max(-np.linalg.eigvalsh(moment.matrix)[0], 1e-7)


@pytest.mark.parametrize("center", [True, False])
def test_the_iterative_solver_agrees_with_the_full_one(monkeypatch, center):
    a, b = random_pair(400, 60, 70)
    maps = [
        RandomFourierMap("a", 60, True, "float64", 0.9, 60, 0, False),
        RandomFourierMap("b", 70, True, "float64", 0.9, 60, 0, False),
    ]
    monkeypatch.setattr(spectrum_module, "_LARGEST_FULL", 500)
    full = solve(state(maps, a, b), modes=6, center=center)
    monkeypatch.setattr(spectrum_module, "_LARGEST_DENSE", 50)
    monkeypatch.setattr(spectrum_module, "_LARGEST_FULL", 50)
    leading = solve(state(maps, a, b), modes=6, center=center)
    features = all_features(maps, a, b)
    for end in (0, 1):
        np.testing.assert_allclose(full.ends[end].eigenvalues, leading.ends[end].eigenvalues, atol=1e-11)
        assert subspace_gap(full.scores(end, features), leading.scores(end, features)) < 1e-6
    assert leading.spec_diff == pytest.approx(full.spec_diff, rel=1e-9)


def test_coverage_is_one_for_exact_maps_and_falls_with_fewer_landmarks():
    exact = solve(state(nystroem_maps()), modes=3)
    assert exact.coverage == pytest.approx((1.0, 1.0), abs=1e-9)
    few = [
        NystroemMap(m.column, m.width, True, "float64", m.bandwidth, m.landmarks[:5], m.origin)
        for m in nystroem_maps()
    ]
    assert max(solve(state(few), modes=3).coverage) < 0.9


def test_more_modes_than_there_are_gives_those_that_there_are():
    found = solve(state(cosine_maps()), modes=200)
    assert len(found.ends[0].eigenvalues) + len(found.ends[1].eigenvalues) <= 15


def test_cka_is_one_for_rotations_and_small_for_independent_embeddings():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 4000, 8))
    turn = scipy.linalg.qr(rng.standard_normal((8, 8)))[0]
    assert linear_cka(second_moment(state(cosine_maps(a, a @ turn), a, a @ turn))) == pytest.approx(1.0)
    assert linear_cka(second_moment(state(cosine_maps(a, b), a, b))) < 0.05


def test_fewer_rows_than_modes_are_refused_with_both_numbers():
    with pytest.raises(InputError, match="5 usable rows can't carry 10 modes"):
        solve(state(cosine_maps(), A[:5], B[:5]), modes=10)
