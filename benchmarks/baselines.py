"""Maps from an old embedding to a new one that the field uses, each fitted on pairs of unit rows.

A fit takes the old rows (n, d_old), the new rows (n, d_new) and a seed, and gives a function from unit rows
of the old model to unit rows of the new one; None where the map can't be had for these widths. Whatever has
to be chosen (strength, rank, epoch) is chosen by search overlap@10, the very figure that is compared
afterwards, on a fifth of the training rows; ridge and reduced rank are then fitted again on all of them.

References
----------
.. [1] Schönemann, "A generalized solution of the orthogonal Procrustes problem", Psychometrika 1966.
.. [2] Izenman, "Reduced-rank regression for the multivariate linear model", J. Multivariate Analysis 1975.
.. [3] Vejendla, "Drift-Adapter: A Practical Approach to Near Zero-Downtime Embedding Model Upgrades in
   Vector Databases", EMNLP 2025: Procrustes, low-rank affine, and a perceptron beside a linear map; there
   they take new queries back to old rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from evaluation import unit_rows
from numpy.typing import NDArray

from spec_store.alignment.metrics import nearest, neighbour_overlap

__all__ = ["BASELINES", "Map"]

Matrix = NDArray[np.float32]
Map = Callable[[Matrix], Matrix]

STRENGTHS = tuple(10.0**exponent for exponent in np.arange(-4, 1.5, 0.5))
RANKS = (16, 32, 64, 128, 256)
HIDDEN = 512
BATCH = 200
MOST_BATCHES = 600
PATIENCE = 6  # epochs
FOLDS = 5


def mean_shift(old: Matrix, new: Matrix, seed: int) -> Map | None:
    """The difference of the two means, added."""
    if old.shape[1] != new.shape[1]:
        return None
    shift = new.mean(axis=0) - old.mean(axis=0)
    return lambda x: unit_rows(x + shift)


def procrustes(old: Matrix, new: Matrix, seed: int) -> Map:
    """The orthogonal map that is nearest in least squares; a partial isometry where widths differ [1]_."""
    u, _, vt = np.linalg.svd(old.T @ new, full_matrices=False)
    rotation = u @ vt
    return lambda x: unit_rows(x @ rotation)


def ridge(old: Matrix, new: Matrix, seed: int) -> Map:
    """Affine least squares with a penalty, as a share of the mean variance, chosen among 11."""
    return _unit(_Moments(old, new).solve(_strength(old, new, seed)))


def low_rank(old: Matrix, new: Matrix, seed: int) -> Map:
    """Reduced-rank regression [2]_: ridge's predictions on their leading directions, a chosen number."""
    fit, check = _split(len(old), seed)
    searched = _Searched(new[check])
    moments = _Moments(old[fit], new[fit])
    tried = {}
    for strength in STRENGTHS[::3]:
        solution = moments.solve(strength)
        directions = _leading(old[fit], solution)
        for rank in (r for r in RANKS if r < directions.shape[1]):
            cut = _reduced(solution, new[fit], directions[:, :rank])
            tried[strength, rank] = searched.overlap(cut(old[check]))
    strength, rank = max(tried, key=lambda choice: tried[choice])
    solution = _Moments(old, new).solve(strength)
    return _unit(_reduced(solution, new, _leading(old, solution)[:, :rank]))


def perceptron(old: Matrix, new: Matrix, seed: int) -> Map:
    """A multilayer perceptron with 512 hidden units, stopped early."""
    return _unit(_perceptron(old, new, np.zeros_like(new), seed))


def residual_perceptron(old: Matrix, new: Matrix, seed: int) -> Map:
    """Ridge, and a multilayer perceptron with 512 hidden units that is fitted to what ridge leaves [3]_.

    What it leaves of rows that it was not fitted on: of its own training rows it leaves too little.
    """
    strength = _strength(old, new, seed)
    linear = _Moments(old, new).solve(strength)
    predicted = np.empty_like(new)
    parts = np.random.default_rng([seed, FOLDS]).integers(FOLDS, size=len(old))
    for part in range(FOLDS):
        inside = parts == part
        predicted[inside] = _Moments(old[~inside], new[~inside]).solve(strength)(old[inside])
    correction = _perceptron(old, new, predicted, seed)
    return lambda x: unit_rows(linear(x) + correction(x))


@dataclass(frozen=True)
class Affine:
    """x W + c, not scaled to unit length."""

    weights: Matrix
    bias: Matrix

    def __call__(self, x: Matrix) -> Matrix:
        return np.asarray(x @ self.weights + self.bias)


@dataclass(frozen=True)
class Network:
    """One hidden layer of rectified units."""

    hidden: Affine
    output: Affine

    def __call__(self, x: Matrix) -> Matrix:
        return self.output(np.maximum(self.hidden(x), 0))


class _Moments:
    """Affine ridge solutions of one set of rows, of any strength by one eigendecomposition."""

    def __init__(self, old: Matrix, new: Matrix) -> None:
        self._means = old.mean(axis=0, dtype=np.float64), new.mean(axis=0, dtype=np.float64)
        centred = old - self._means[0]
        values, self._basis = np.linalg.eigh(centred.T @ centred / len(old))
        self._values = np.maximum(values, 0)
        self._crossed = self._basis.T @ (centred.T @ (new - self._means[1])) / len(old)

    def solve(self, strength: float) -> Affine:
        """With a penalty of `strength` times the mean variance of the old rows."""
        penalised = self._values + strength * self._values.mean()
        weights = self._basis @ (self._crossed / penalised[:, None])
        bias = self._means[1] - self._means[0] @ weights
        return Affine(np.asarray(weights, np.float32), np.asarray(bias, np.float32))


class _Searched:
    """Rows by which a choice is made: the share of right neighbours that are found among mapped rows."""

    def __init__(self, new: Matrix) -> None:
        self._new = new
        self._wanted = nearest(new, 10)

    def overlap(self, mapped: Matrix) -> float:
        found = nearest(self._new, 10, gallery=unit_rows(mapped))
        return float(neighbour_overlap(self._wanted, found).mean())


def _split(n: int, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows to fit on and rows to choose by."""
    order = np.random.default_rng([seed, n]).permutation(n)
    return order[n // 5 :], order[: n // 5]


def _unit(mapping: Map) -> Map:
    return lambda x: unit_rows(mapping(x))


def _strength(old: Matrix, new: Matrix, seed: int) -> float:
    fit, check = _split(len(old), seed)
    searched = _Searched(new[check])
    moments = _Moments(old[fit], new[fit])
    tried = {strength: searched.overlap(moments.solve(strength)(old[check])) for strength in STRENGTHS}
    return max(tried, key=lambda strength: tried[strength])


def _leading(old: Matrix, solution: Affine) -> Matrix:
    """The principal directions of a solution's predictions, the strongest first, shape (d_new, r)."""
    predicted = (old - old.mean(axis=0)) @ solution.weights
    directions = np.linalg.eigh(predicted.T @ predicted)[1]
    return np.asarray(directions[:, ::-1][:, : min(solution.weights.shape)])


def _reduced(solution: Affine, new: Matrix, directions: Matrix) -> Affine:
    mean = new.mean(axis=0)
    kept = directions @ directions.T
    return Affine(solution.weights @ kept, mean + (solution.bias - mean) @ kept)


def _perceptron(old: Matrix, new: Matrix, base: Matrix, seed: int) -> Network:
    """Fitted by least squares to what `base`, shape (n, d_new), leaves; the best epoch on validation rows."""
    from sklearn.neural_network import MLPRegressor

    wanted = new - base
    means = old.mean(axis=0), wanted.mean(axis=0)
    scales = old.std(axis=0).mean(), max(wanted.std(axis=0).mean(), np.float32(1e-9))
    x, y = ((rows - mean) / scale for rows, mean, scale in zip((old, wanted), means, scales, strict=True))
    fit, check = _split(len(old), seed)
    searched = _Searched(new[check])
    model = MLPRegressor(
        hidden_layer_sizes=(HIDDEN,), batch_size=BATCH, learning_rate_init=0.002, random_state=seed
    )
    best, kept, waited = -1.0, None, 0
    for _ in range(MOST_BATCHES * BATCH // len(fit)):
        model.partial_fit(x[fit], y[fit])
        network = _network(model, means, scales)
        found = searched.overlap(base[check] + network(old[check]))
        waited += 1
        if found > best:
            best, kept, waited = found, network, 0
        if waited == PATIENCE:
            break
    assert kept is not None
    return kept


def _network(model: Any, means: tuple[Matrix, Matrix], scales: tuple[Any, Any]) -> Network:
    """What the model computes, of vectors that are not standardised; a copy of its weights."""
    (first, last), (first_bias, last_bias) = model.coefs_, model.intercepts_
    first = first / scales[0]
    return Network(
        Affine(first, first_bias - means[0] @ first),
        Affine(last * scales[1], last_bias * scales[1] + means[1]),
    )


BASELINES: dict[str, Callable[[Matrix, Matrix, int], Map | None]] = {
    "mean shift": mean_shift,
    "Procrustes": procrustes,
    "ridge": ridge,
    "low-rank affine": low_rank,
    "MLP": perceptron,
    "ridge + MLP": residual_perceptron,
}
