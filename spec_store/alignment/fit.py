"""The minimisation: Adam over mini-batches, stopped where rows that it does not train on are best."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..options import check_count, check_number
from ..stores.vectors import Vectors
from .maps import AlignmentMap, features
from .objective import Objective, Terms
from .start import Linear

__all__ = [
    "LARGEST_MINIBATCH",
    "Descent",
    "FitOptions",
    "Fitted",
    "Fitting",
    "Kind",
    "Pair",
    "fit",
    "residual_frequencies",
]

Kind = Literal["kernel", "affine", "lowrank", "residual"]
"""How a map is fitted. "kernel": in closed form on Nystroem features, then polished, see
`spec_store.alignment.kernel`. The others over mini-batches, from a linear start: all weights, a part of low
rank, or one that is not linear beside them."""
LARGEST_MINIBATCH = 32_768
_CHECK_EVERY = 20
# Steps, rows of each, and learning rate: a polish changes little, a fit from a linear start much.
_DEFAULTS: dict[bool, tuple[int, int, float]] = {True: (40, 512, 3e-3), False: (400, 2048, 1e-3)}
_DECAY = (0.9, 0.999)
# A coordinate of less than this share of the largest spread is constant, rounding aside.
_DEAD = 1e-4


class Pair(NamedTuple):
    """Unit rows of the source, shape (n, d_a), and the same rows of the target, shape (n, d_b)."""

    a: NDArray[np.float32]
    b: NDArray[np.float32]


@dataclass(frozen=True)
class FitOptions:
    """How to fit.

    Attributes
    ----------
    n_landmarks
        Landmarks of a "kernel" map: k-means centroids of sampled training rows.
    fit_rows
        A "kernel" map is fitted on the moments of so many training rows at most, a seeded share of them;
        None is all.
    rank
        Rank of what a "lowrank" map adds to its start.
    n_frequencies
        Directions whose cosines and sines a "residual" map takes, see `residual_frequencies`.
    steps
        Mini-batches. None is 40 that polish a "kernel" map, and 400 for the others. 0 is none.
    minibatch_rows
        Rows of each; at most the 32,768 that are held in memory to be shuffled. None is 512 or 2,048.
    learning_rate
        Learning rate of the Adam optimiser; falls to zero by a cosine. None is 0.003 or 0.001.
    """

    n_landmarks: int = 1000
    fit_rows: int | None = 100_000
    rank: int = 32
    n_frequencies: int = 256
    steps: int | None = None
    minibatch_rows: int | None = None
    learning_rate: float | None = None

    def __post_init__(self) -> None:
        check_count("n_landmarks", self.n_landmarks, 1, 16_384)
        check_count("rank", self.rank, 1, 16_384)
        check_count("n_frequencies", self.n_frequencies, 1, 16_384)
        if self.fit_rows is not None:
            check_count("fit_rows", self.fit_rows, 100, 1_000_000_000)
        if self.steps is not None:
            check_count("steps", self.steps, 0, 1_000_000)
        if self.minibatch_rows is not None:
            check_count("minibatch_rows", self.minibatch_rows, 1, LARGEST_MINIBATCH)
        if self.learning_rate is not None:
            check_number("learning_rate", self.learning_rate, 1e-9, 10)

    def descent(self, *, polish: bool) -> Descent:
        """Steps, rows and learning rate for a polish, or for a fit from a linear start."""
        given = self.steps, self.minibatch_rows, self.learning_rate
        steps, rows, rate = (d if g is None else g for g, d in zip(given, _DEFAULTS[polish], strict=True))
        return Descent(int(steps), int(rows), float(rate))


class Descent(NamedTuple):
    """Mini-batches, rows of each, and the learning rate."""

    steps: int
    rows: int
    learning_rate: float


@dataclass(frozen=True)
class Fitted:
    """A fitted map, and how it came about.

    Attributes
    ----------
    map
        The map at its best step.
    best_step
        0 is the start.
    history
        (step, objective on the validation rows) at intervals.
    terms
        The objective's parts on the validation rows, at the best step.
    """

    map: AlignmentMap
    best_step: int
    history: list[tuple[int, float]]
    terms: Terms


class Fitting:
    """A fit on its way: `step` for each mini-batch, then `result`.

    Parameters
    ----------
    start
        Weights (d_a, d_out) and bias (d_out,) to begin from.
    validation
        Rows that are not in the mini-batches.
    kind
        "affine"; "lowrank", the start plus a map of rank `rank`; or "residual", affine plus a part over
        cosines and sines for what is not linear.
    in_place
        Fidelity holds outputs near the source's own rows; otherwise near the target's.
    seed
        Seed of the random features and of the low-rank start.
    polish
        The start is nearly right already, which needs fewer steps, see `FitOptions`.

    Notes
    -----
    Cost: per step O(n d²) for n rows. The gradients are analytic; the same mini-batches give the same map.
    """

    def __init__(
        self,
        start: Linear,
        validation: Pair,
        objective: Objective,
        kind: Kind,
        options: FitOptions,
        *,
        in_place: bool,
        seed: int = 0,
        polish: bool = False,
    ) -> None:
        self._validation = validation
        self._objective = objective
        self._in_place = in_place
        self._model = _Model.create(start, kind, options, validation[0], seed)
        descent = options.descent(polish=polish)
        self._adam = _Adam(self._model.parameters, descent.learning_rate, descent.steps)
        self._best: Fitted | None = None
        self._history: list[tuple[int, float]] = []
        self._step = 0
        self._check()

    def step(self, batch: Pair) -> None:
        """One step of the optimiser."""
        a, b = batch
        inputs = features(a, self._model.frequencies)
        f = _unit(self._model.outputs(inputs))
        _, gradient = self._objective.value_and_gradient(f.rows, b, a if self._in_place else b)
        along = np.einsum("ij,ij->i", gradient, f.rows)[:, None]
        self._adam.step(self._model.gradients(inputs, (gradient - along * f.rows) / f.lengths))
        self._step += 1
        if self._step % _CHECK_EVERY == 0:
            self._check()

    def result(self) -> Fitted:
        """The map at its best step so far."""
        if self._history[-1][0] < self._step:
            self._check()
        assert self._best is not None
        return self._best

    def _check(self) -> None:
        a, b = self._validation
        f = _unit(self._model.outputs(features(a, self._model.frequencies))).rows
        terms, _ = self._objective.value_and_gradient(f, b, a if self._in_place else b)
        self._history.append((self._step, terms.total))
        if self._best is None or terms.total < self._best.terms.total:
            self._best = Fitted(self._model.to_map(), self._step, self._history, terms)


def fit(
    start: Linear,
    batches: Iterable[Pair],
    validation: Pair,
    objective: Objective,
    kind: Kind,
    options: FitOptions,
    *,
    in_place: bool,
    seed: int = 0,
) -> Fitted:
    """Fit a map by the objective, over at most `options.steps` of the mini-batches; see `Fitting`."""
    fitting = Fitting(start, validation, objective, kind, options, in_place=in_place, seed=seed)
    for _, batch in zip(range(options.descent(polish=False).steps), batches, strict=False):
        fitting.step(batch)
    return fitting.result()


class _Unit(NamedTuple):
    rows: NDArray[Any]
    lengths: NDArray[Any]


def _unit(y: NDArray[Any]) -> _Unit:
    """Rows at unit length, and what they were divided by, shape (n, 1)."""
    vectors = Vectors.from_matrix(y, directions=True)
    return _Unit(vectors.normalized(None, y.dtype.name), vectors.lengths.astype(y.dtype)[:, None])


@dataclass
class _Model:
    """Parameters in float32: weights and bias, or factors U, V and bias over fixed weights."""

    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    frequencies: NDArray[np.float32]
    factors: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
    parameters: list[NDArray[np.float32]] = field(init=False)

    def __post_init__(self) -> None:
        own = [self.weights] if self.factors is None else list(self.factors)
        self.parameters = [*own, self.bias]

    @classmethod
    def create(
        cls, start: Linear, kind: Kind, options: FitOptions, rows: NDArray[np.float32], seed: int
    ) -> _Model:
        weights, bias = (np.array(part, np.float32) for part in start)
        rng = np.random.default_rng([seed, *weights.shape])
        frequencies = np.zeros((len(weights), 0), np.float32)
        factors = None
        if kind == "residual":
            frequencies = residual_frequencies(weights, rows, options.n_frequencies, rng)
            weights = np.concatenate(
                [weights, np.zeros((2 * frequencies.shape[1], weights.shape[1]), np.float32)]
            )
        if kind == "lowrank":
            rank = min(options.rank, *weights.shape)
            u = rng.standard_normal((len(weights), rank)) / np.sqrt(len(weights))
            factors = u.astype(np.float32), np.zeros((rank, weights.shape[1]), np.float32)
        return cls(weights, bias, frequencies, factors)

    def outputs(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        y: NDArray[np.float32] = inputs @ self.weights + self.bias
        if self.factors is not None:
            y += (inputs @ self.factors[0]) @ self.factors[1]
        return y

    def gradients(self, inputs: NDArray[np.float32], by_output: NDArray[Any]) -> list[NDArray[Any]]:
        if self.factors is None:
            return [inputs.T @ by_output, by_output.sum(axis=0)]
        u, v = self.factors
        return [inputs.T @ (by_output @ v.T), (inputs @ u).T @ by_output, by_output.sum(axis=0)]

    def to_map(self) -> AlignmentMap:
        weights = self.weights.copy()
        if self.factors is not None:
            weights += self.factors[0] @ self.factors[1]
        return AlignmentMap(weights, self.bias.copy(), self.frequencies)


def residual_frequencies(
    weights: NDArray[np.float32], rows: NDArray[np.float32], n: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Directions whose cosines and sines carry what is not linear, shape (d_a, n).

    First the output coordinates of the linear start themselves, those of the largest spread over `rows`
    first, scaled to a spread of 1 and then of 2; random directions if `n` asks for more. Models end in
    functions of single coordinates (they clip, rectify, quantise), which random directions are slow to
    find: on a clipped quadratic function of 128 dimensions, 512 random ones lowered SPEC-diff by a tenth, 192
    of these by two fifths.
    """
    spread = (rows @ weights).std(axis=0)
    order = np.argsort(-spread, kind="stable")
    order = order[spread[order] > _DEAD * spread.max(initial=0.0)]
    own = weights[:, order] / spread[order]
    drawn = rng.standard_normal((len(weights), n)).astype(np.float32)  # unit rows lie about 1 apart
    return np.concatenate([own, 2 * own, drawn], axis=1)[:, :n]


class _Adam:
    """Kingma, Ba, "Adam: a method for stochastic optimization", ICLR 2015; parameters change in place."""

    def __init__(self, parameters: list[NDArray[np.float32]], rate: float, steps: int) -> None:
        self._parameters = parameters
        self._first = [np.zeros_like(p) for p in parameters]
        self._second = [np.zeros_like(p) for p in parameters]
        self._rate, self._steps, self._t = rate, steps, 0

    def step(self, gradients: list[NDArray[Any]]) -> None:
        self._t += 1
        rate = self._rate * 0.5 * (1 + np.cos(np.pi * self._t / self._steps))
        one, two = (1 - decay**self._t for decay in _DECAY)
        for p, g, m, v in zip(self._parameters, gradients, self._first, self._second, strict=True):
            m += (1 - _DECAY[0]) * (g - m)
            v += (1 - _DECAY[1]) * (g * g - v)
            p -= (rate * (m / one) / (np.sqrt(v / two) + 1e-10)).astype(p.dtype)
