"""KODA's directions against the optimum over all n rows."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from planted import batch_of, random_pair, unit
from spec_store.errors import InputError
from spec_store.spectral.covariance import CovarianceAccumulator
from spec_store.spectral.features import CosineMap, NystroemMap, gaussian_kernel
from spec_store.spectral.koda import Epsilon, koda
from spec_store.spectral.spectrum import solve


def state_of(a, b):
    state = CovarianceAccumulator(
        [CosineMap("a", a.shape[1], True, "float64"), CosineMap("b", b.shape[1], True, "float64")]
    )
    state.update(batch_of(a=a, b=b))
    return state


def centred(kernel):
    kernel = kernel - kernel.mean(axis=0)
    return kernel - kernel.mean(axis=1, keepdims=True)


def best_objective(kernel_a, kernel_b, epsilon):
    """max uᵀAu over unit u with uᵀBu ≤ ε, by its dual over the whole n x n matrices."""

    def dual(log_eta):
        eta = np.exp(log_eta)
        return np.linalg.eigvalsh(kernel_a - eta * kernel_b)[-1] + eta * epsilon

    found = [minimize_scalar(dual, bounds=(low, low + 5), method="bounded").fun for low in (-10, -5, 0, 5)]
    return min(*found, np.linalg.eigvalsh(kernel_a)[-1])


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("epsilon", [0.003, 0.03, 0.3])
def test_the_first_direction_is_the_optimum_over_all_rows(epsilon, center):
    a, b = random_pair(300)
    found = koda(state_of(a, b), epsilon=Epsilon(epsilon, False), directions=1, center=center)
    kernels = [unit(x) @ unit(x).T / len(x) for x in (a, b)]
    if center:
        kernels = [centred(k) for k in kernels]
    scores = found.scores(0, np.concatenate([unit(a), unit(b)], axis=1))
    u = scores[:, 0] / np.sqrt(len(a))
    seen_a, seen_b = (float(u @ k @ u) for k in kernels)
    assert u @ u == pytest.approx(1, abs=1e-9)
    assert seen_b <= epsilon + 1e-6
    assert seen_a >= best_objective(*kernels, epsilon) - 1e-6
    assert found.ends[0].energies[:, 0] == pytest.approx([seen_a, seen_b], abs=1e-9)
    assert found.ends[0].eigenvalues[0] == pytest.approx(seen_a, abs=1e-9)


def test_a_thousand_rows_through_landmarks_reach_the_optimum_of_their_features():
    a, b = random_pair(1000, d_a=12, d_b=15)
    maps = [
        NystroemMap(name, x.shape[1], True, "float64", 0.6, unit(x)[:150], np.zeros(x.shape[1]))
        for name, x in (("a", a), ("b", b))
    ]
    state = CovarianceAccumulator(maps)
    state.update(batch_of(a=a, b=b))
    features = [m.features(x) for m, x in zip(maps, (a, b), strict=True)]
    kernels = [centred(f @ f.T / len(a)) for f in features]
    found = koda(state, epsilon=Epsilon(0.01, False), directions=3)
    energies = found.ends[0].energies
    assert (energies[1] <= 0.01 + 1e-6).all()
    assert energies[0, 0] >= best_objective(*kernels, 0.01) - 1e-6


def test_directions_are_orthogonal_and_descend():
    a, b = random_pair(400, d_a=20, d_b=24)
    found = koda(state_of(a, b), epsilon=Epsilon(0.02, False), directions=5)
    scores = found.scores(0, np.concatenate([unit(a), unit(b)], axis=1))
    np.testing.assert_allclose(scores.T @ scores / len(a), np.eye(5), atol=1e-7)
    seen = found.ends[0].energies[0]
    assert (np.diff(seen) <= 1e-7).all()


@pytest.mark.parametrize("epsilon", [0.1, 0.3, 0.5])
def test_a_double_eigenvalue_is_resolved_by_the_combination_on_the_limit(epsilon):
    """Two groups that a sees; b sees the larger one whole, and each row of the smaller one alone."""
    a = np.eye(2)[[0] * 60 + [1] * 40]
    b = np.concatenate([np.tile(np.eye(41)[0], (60, 1)), np.eye(41)[1:]])
    kernels = [x @ x.T / 100 for x in (a, b)]
    found = koda(state_of(a, b), epsilon=Epsilon(epsilon, False), directions=1, center=False)
    seen_a, seen_b = found.ends[0].energies[:, 0]
    assert seen_b == pytest.approx(epsilon, abs=1e-6)
    assert seen_a >= best_objective(*kernels, epsilon) - 1e-6
    assert seen_a > 0.42  # the smaller group alone has 0.4


def test_the_ends_change_places_with_the_embeddings():
    a, b = random_pair(200)
    one = koda(state_of(a, b), epsilon=Epsilon(0.5, True), directions=2)
    state = state_of(b, a)
    two = koda(state, epsilon=Epsilon(0.5, True), directions=2)
    np.testing.assert_allclose(one.ends[0].eigenvalues, -two.ends[1].eigenvalues, atol=1e-7)
    np.testing.assert_allclose(one.ends[1].eigenvalues, -two.ends[0].eigenvalues, atol=1e-7)


def test_what_the_other_sees_is_less_than_in_spec_modes():
    a, b = random_pair(500, d_a=20, d_b=24)
    state = state_of(a, b)
    spec = solve(state, modes=1).ends[0].energies[:, 0]
    found = koda(state, epsilon=Epsilon(0.001, False), directions=1).ends[0].energies[:, 0]
    assert found[0] / found[1] > 2 * spec[0] / spec[1]


def test_an_embedding_against_itself_has_no_direction_that_it_sees_and_does_not_see():
    a, _ = random_pair(300)
    found = koda(state_of(a, a), epsilon=Epsilon(1e-6, False), directions=3)
    assert all(end.energies[0].max(initial=0) <= 1e-5 for end in found.ends)


@pytest.mark.parametrize(
    ("text", "value", "is_quantile"), [("0.05", 0.05, False), ("90%", 0.9, True), (0.2, 0.2, False)]
)
def test_epsilon_is_a_number_or_a_quantile(text, value, is_quantile):
    assert Epsilon.parse(text) == Epsilon(pytest.approx(value), is_quantile)


@pytest.mark.parametrize("text", ["much", "-0.1", "2", "150%", "nan", ""])
def test_any_other_epsilon_is_refused(text):
    with pytest.raises(InputError, match="expected a number from 0 to 1"):
        Epsilon.parse(text)


def test_a_quantile_is_of_the_other_kernels_eigenvalues():
    covariance = np.diag([0.4, 0.2, 0.1, 0.05])
    assert Epsilon(0.5, True).of(covariance) == pytest.approx(0.15)
    assert Epsilon(0.03, False).of(covariance) == 0.03


def test_gaussian_features_of_all_rows_are_the_kernel():
    a, _ = random_pair(40)
    m = NystroemMap("a", 6, True, "float64", 0.6, unit(a), np.zeros(6))
    phi = m.features(a)
    np.testing.assert_allclose(phi @ phi.T, gaussian_kernel(unit(a), unit(a), 0.6), atol=1e-8)
    assert m.sigma == 0.6
