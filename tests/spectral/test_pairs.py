"""One state over several embeddings answers for each pair as a state of that pair does."""

import itertools

import numpy as np
import pytest

from planted import batch_of, random_pair, unit
from spec_store.errors import InputError
from spec_store.spectral.covariance import CovarianceAccumulator
from spec_store.spectral.features import CosineMap, NystroemMap
from spec_store.spectral.spectrum import second_moment, solve, unbiased_cka

NAMES = ("a", "b", "c")


def embeddings(n=500):
    a, b = random_pair(n)
    c = np.random.default_rng(5).standard_normal((n, 7)) + 0.4 * a[:, :1]
    return dict(zip(NAMES, (a, b, c), strict=True))


def cosine(name, x):
    return CosineMap(name, x.shape[1], True, "float64")


def landmarks(name, x):
    return NystroemMap(name, x.shape[1], True, "float32", 0.7, unit(x)[:60], np.zeros(x.shape[1]))


def state_of(columns, make):
    state = CovarianceAccumulator([make(name, x) for name, x in columns.items()])
    state.update(batch_of(**columns))
    return state


@pytest.mark.parametrize(("make", "tolerance"), [(cosine, 1e-12), (landmarks, 1e-7)])
@pytest.mark.parametrize("pair", list(itertools.permutations(range(3), 2)))
def test_a_pair_of_three_has_the_spectrum_of_the_pair_alone(pair, make, tolerance):
    columns = embeddings()
    of_three = solve(state_of(columns, make), pair=pair, modes=4)
    names = [NAMES[i] for i in pair]
    alone = solve(state_of({n: columns[n] for n in names}, make), modes=4)
    for one, two in zip(of_three.ends, alone.ends, strict=True):
        np.testing.assert_allclose(one.eigenvalues, two.eigenvalues, atol=tolerance)
        np.testing.assert_allclose(abs(one.weights), abs(two.weights), atol=3e5 * tolerance)
    assert of_three.spec_diff == pytest.approx(alone.spec_diff, abs=tolerance)
    assert of_three.cka == pytest.approx(alone.cka, abs=tolerance)


@pytest.mark.parametrize("pair", [(0, 0), (0, 3), (-1, 1)])
def test_what_is_no_pair_is_refused(pair):
    with pytest.raises(InputError, match="expected two positions among 3"):
        solve(state_of(embeddings(50), cosine), pair=pair)


def test_a_state_of_three_asks_for_a_pair():
    with pytest.raises(InputError, match="the state holds 3: give a pair"):
        solve(state_of(embeddings(50), cosine))


def exact_unbiased_cka(kernel_a, kernel_b):
    """Song et al.'s estimator over the whole matrices."""

    def hsic(k, m):
        k, m = (x - np.diag(np.diag(x)) for x in (k, m))
        n = len(k)
        total = np.trace(k @ m) + k.sum() * m.sum() / ((n - 1) * (n - 2))
        return (total - 2 / (n - 2) * (k @ m).sum()) / (n * (n - 3))

    return hsic(kernel_a, kernel_b) / np.sqrt(hsic(kernel_a, kernel_a) * hsic(kernel_b, kernel_b))


def test_unbiased_cka_is_that_of_the_whole_matrices():
    columns = embeddings(200)
    moment = second_moment(state_of(columns, cosine), (0, 1))
    kernels = [unit(columns[n]) @ unit(columns[n]).T for n in "ab"]
    assert unbiased_cka(moment) == pytest.approx(exact_unbiased_cka(*kernels), abs=1e-10)


def test_unbiased_cka_of_independent_embeddings_is_about_zero_where_the_raw_one_is_not():
    rng = np.random.default_rng(0)
    columns = {"a": rng.standard_normal((300, 100)), "b": rng.standard_normal((300, 120))}
    spectrum = solve(state_of(columns, cosine), modes=1)
    assert spectrum.cka > 0.2
    assert abs(spectrum.cka_unbiased) < 0.02
    assert np.isnan(unbiased_cka(second_moment(state_of({n: x[:3] for n, x in columns.items()}, cosine))))
