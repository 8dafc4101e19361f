"""The objective against its definition, its gradients against finite differences."""

import numpy as np
import pytest

from planted import unit
from spec_store.alignment.fit import FitOptions, _Model, _unit
from spec_store.alignment.maps import features
from spec_store.alignment.objective import Objective

N, D_A, D_F, D_B = 30, 5, 4, 6


def rows(*widths, seed=0):
    """Unit rows with spectra that decay, so that the extreme eigenvalue stands alone."""
    rng = np.random.default_rng(seed)
    return [unit(rng.standard_normal((N, d)) * 0.5 ** np.arange(d) + 0.2) for d in widths]


def kernel(objective, x, sigma):
    return x @ x.T if objective.kernel == "cosine" else np.exp((x @ x.T - 1) / sigma**2)


def by_definition(objective, f, b, anchor):
    """Kernel matching, SPEC-diff², the cross term, fidelity."""
    difference = kernel(objective, f, objective.bandwidths[0]) - kernel(objective, b, objective.bandwidths[1])
    n = len(f)
    spec_diff = np.abs(np.linalg.eigvalsh(difference / n)).max()
    cross = ((f @ b.T - b @ b.T) ** 2).sum() / n**2 if objective.kappa else 0.0
    fidelity = 1 - (f * anchor).sum(axis=1).mean()
    return (difference**2).sum() / n**2, spec_diff**2, cross, fidelity


def total(objective, *rows):
    weights = 1, objective.beta, objective.kappa, objective.mu
    return sum(w * part for w, part in zip(weights, by_definition(objective, *rows), strict=True))


OBJECTIVES = [
    Objective("cosine", 0.0, 0.0),
    Objective("cosine", 2.0, 0.3),
    Objective("gaussian", 0.0, 0.0, (0.7, 0.5)),
    Objective("gaussian", 2.0, 0.3, (0.7, 0.5)),
]
each_objective = pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: f"{o.kernel}-{o.beta}")


@each_objective
def test_terms_are_those_of_the_n_by_n_kernels(objective):
    f, b, anchor = rows(D_F, D_B, D_F)
    terms, _ = objective.value_and_gradient(f, b, anchor)
    expected = by_definition(objective, f, b, anchor)
    assert terms.kernel == pytest.approx(expected[0], rel=1e-10)
    assert terms.fidelity == pytest.approx(expected[3], rel=1e-10)
    if objective.beta:
        assert terms.spec == pytest.approx(expected[1], rel=1e-4)
    assert terms.total == pytest.approx(
        terms.kernel + objective.beta * terms.spec + objective.mu * terms.fidelity
    )


def test_spec_diff_is_exact_with_more_dimensions_than_rows_and_on_one_direction():
    objective = Objective("cosine", 1.0, 0.0)
    f, b = (x[:7] for x in rows(9, 8))
    terms, _ = objective.value_and_gradient(f, b, f)
    assert terms.spec == pytest.approx(
        np.abs(np.linalg.eigvalsh((f @ f.T - b @ b.T) / 7)).max() ** 2, rel=1e-6
    )
    alike = np.tile(f[:1], (7, 1))  # all rows the same: one eigenvalue, of the other kernel
    terms, gradient = objective.value_and_gradient(alike, b, alike)
    expected = np.abs(np.linalg.eigvalsh((alike @ alike.T - b @ b.T) / 7)).max()
    assert terms.spec == pytest.approx(expected**2, rel=1e-6)
    assert np.isfinite(gradient).all()


@each_objective
def test_gradient_by_each_output(objective):
    f, b, anchor = rows(D_F, D_B, D_F)
    _, gradient = objective.value_and_gradient(f, b, anchor)
    step = 1e-5
    for i, j in [(0, 0), (3, 1), (11, 2), (29, 3)]:
        ends = []
        for sign in (1, -1):
            moved = f.copy()
            moved[i, j] += sign * step
            ends.append(total(objective, moved, b, anchor))
        assert gradient[i, j] == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=2e-3, abs=1e-6)


@each_objective
@pytest.mark.parametrize("kind", ["affine", "lowrank", "residual"])
def test_gradient_by_each_parameter_through_the_normalisation(objective, kind):
    """The whole chain, as `fit` puts it together, in float64."""
    a, b, anchor = rows(D_A, D_B, D_F)
    rng = np.random.default_rng(1)
    start = rng.standard_normal((D_A, D_F)), rng.standard_normal(D_F)
    model = _Model.create(start, kind, FitOptions(rank=2, n_frequencies=3), a, 0)
    for p in model.parameters:  # also those that begin at zero
        p += (0.3 * rng.standard_normal(p.shape)).astype(p.dtype)
    doubled = [p.astype(np.float64) for p in model.parameters]
    model.parameters = doubled
    if kind == "lowrank":
        model.factors = doubled[0], doubled[1]
        model.weights = model.weights.astype(np.float64)
    else:
        model.weights = doubled[0]
    model.bias = doubled[-1]
    inputs = features(a, model.frequencies.astype(np.float64))

    def value():
        return total(objective, _unit(model.outputs(inputs)).rows, b, anchor)

    f, lengths = _unit(model.outputs(inputs))
    _, gradient = objective.value_and_gradient(f, b, anchor)
    along = np.einsum("ij,ij->i", gradient, f)[:, None]
    found = model.gradients(inputs, (gradient - along * f) / lengths)
    for parameter, by_parameter in zip(model.parameters, found, strict=True):
        assert by_parameter.shape == parameter.shape
        flat = parameter.reshape(-1)
        for at in rng.choice(flat.size, size=min(4, flat.size), replace=False):
            held, ends = flat[at], []
            for sign in (1, -1):
                flat[at] = held + sign * 1e-5
                ends.append(value())
            flat[at] = held
            expected = (ends[0] - ends[1]) / 2e-5
            assert by_parameter.reshape(-1)[at] == pytest.approx(expected, rel=5e-3, abs=2e-6)


@each_objective
def test_equal_kernels_have_nothing_to_reduce(objective):
    (b,) = rows(D_B)
    same = Objective(objective.kernel, objective.beta, 0.0, (0.5, 0.5))
    terms, gradient = same.value_and_gradient(b, b, b)
    assert (terms.kernel, terms.spec) == pytest.approx((0, 0), abs=1e-12)
    assert np.abs(gradient).max() < 1e-9


@pytest.mark.parametrize("n", [N, 5])  # more rows than dimensions, and fewer: two ways to the same sums
@pytest.mark.parametrize("kernel_", ["cosine", "gaussian"])
def test_the_cross_term_is_that_of_searches_and_has_its_gradient(kernel_, n):
    objective = Objective(kernel_, 2.0, 0.3, (0.7, 0.5), kappa=3.0)
    f, b, anchor = (x[:n] for x in rows(D_B, D_B, D_B))
    terms, gradient = objective.value_and_gradient(f, b, anchor)
    expected = by_definition(objective, f, b, anchor)
    assert terms.cross == pytest.approx(expected[2], rel=1e-10)
    assert terms.kernel == pytest.approx(expected[0], rel=1e-10)
    assert terms.total == pytest.approx(total(objective, f, b, anchor), rel=1e-3)
    for i, j in [(0, 0), (3, 1), (4, 5)]:
        ends = []
        for sign in (1, -1):
            moved = f.copy()
            moved[i, j] += sign * 1e-5
            ends.append(total(objective, moved, b, anchor))
        assert gradient[i, j] == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=2e-3, abs=1e-6)


def test_the_cross_term_alone_sees_a_rotation_of_the_output():
    (b,) = rows(D_B)
    turned = b @ np.linalg.qr(np.random.default_rng(0).standard_normal((D_B, D_B)))[0]
    terms, _ = Objective("cosine", 1.0, 0.0, kappa=1.0).value_and_gradient(turned, b, b)
    assert (terms.kernel, terms.spec) == pytest.approx((0, 0), abs=1e-12)
    assert terms.cross > 0.01
