"""The minimisation: Adam over mini-batches, stopped where rows that it does not train on are best."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .maps import AlignmentMap, features
from .objective import Objective, Terms
from .start import Linear

__all__ = ["FitOptions", "Fitted", "Kind", "fit"]

Kind = Literal["affine", "lowrank", "residual"]
MiniBatch = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Unit rows of the source (n, d_a) and of the target (n, d_b)."""

_CHECK_EVERY = 20
_DECAY = (0.9, 0.999)


@dataclass(frozen=True)
class FitOptions:
    """How to fit.

    Attributes
    ----------
    kind
        "affine"; "lowrank", the start plus a map of rank `rank`; or "residual", affine plus a part over
        `n_frequencies` random features for what is not linear.
    steps
        Mini-batches.
    learning_rate
        Of Adam; falls to zero by a cosine.
    seed
        Of the random features and of the low-rank start.
    """

    kind: Kind = "affine"
    rank: int = 32
    n_frequencies: int = 512
    steps: int = 400
    learning_rate: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise InputError(f"kind is {self.kind!r}; expected one of {', '.join(get_args(Kind))}.")
        for name in ("rank", "n_frequencies", "steps"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; expected 1 or more.")
        if not self.learning_rate > 0:
            raise InputError(f"learning_rate is {self.learning_rate}; expected a number above 0.")


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


def fit(
    start: Linear,
    batches: Iterable[MiniBatch],
    validation: MiniBatch,
    objective: Objective,
    options: FitOptions,
    *,
    in_place: bool,
) -> Fitted:
    """Fit a map by the objective.

    Parameters
    ----------
    start
        Weights (d_a, d_out) and bias (d_out,) to begin from.
    batches
        At least one mini-batch; at most `options.steps` are used.
    validation
        Rows that are not in the mini-batches.
    in_place
        Fidelity holds outputs near the source's own rows; otherwise near the target's.

    Notes
    -----
    Cost: per step O(n d²) for n rows. The gradients are analytic; the same mini-batches give the same map.
    """
    model = _Model.create(start, options)
    adam = _Adam(model.parameters, options.learning_rate, options.steps)
    best: tuple[float, int, AlignmentMap, Terms] | None = None
    history: list[tuple[int, float]] = []

    def check(step: int) -> None:
        nonlocal best
        terms = _judged(model, validation, objective, in_place)
        history.append((step, terms.total))
        if best is None or terms.total < best[0]:
            best = terms.total, step, model.to_map(), terms

    check(0)
    step = 0
    for a, b in _first(batches, options.steps):
        step += 1
        inputs = features(a, model.frequencies)
        f, lengths = _unit(model.outputs(inputs))
        _, gradient = objective.value_and_gradient(f, b, a if in_place else b)
        along = np.einsum("ij,ij->i", gradient, f)[:, None]
        adam.step(model.gradients(inputs, (gradient - along * f) / lengths))
        if step % _CHECK_EVERY == 0:
            check(step)
    if step % _CHECK_EVERY:
        check(step)
    assert best is not None
    return Fitted(best[2], best[1], history, best[3])


def _first(batches: Iterable[MiniBatch], n: int) -> Iterator[MiniBatch]:
    for _, batch in zip(range(n), batches, strict=False):
        yield batch


def _judged(model: _Model, rows: MiniBatch, objective: Objective, in_place: bool) -> Terms:
    a, b = rows
    f, _ = _unit(model.outputs(features(a, model.frequencies)))
    return objective.value_and_gradient(f, b, a if in_place else b)[0]


def _unit(y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    lengths = np.maximum(np.linalg.norm(y, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return y / lengths, lengths


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
    def create(cls, start: Linear, options: FitOptions) -> _Model:
        weights, bias = (np.array(part, np.float32) for part in start)
        rng = np.random.default_rng([options.seed, *weights.shape])
        frequencies = np.zeros((len(weights), 0), np.float32)
        factors = None
        if options.kind == "residual":
            # Unit rows lie within distances of about 1: frequencies of that scale.
            frequencies = rng.standard_normal((len(weights), options.n_frequencies)).astype(np.float32)
            weights = np.concatenate(
                [weights, np.zeros((2 * options.n_frequencies, weights.shape[1]), np.float32)]
            )
        if options.kind == "lowrank":
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
