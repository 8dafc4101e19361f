"""The maps that an alignment tries: each kind with each fidelity, and the closed forms to compare with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..alignment.fit import Fitting, Kind, Pair
from ..alignment.kernel import Features
from ..alignment.maps import AlignmentMap
from ..alignment.objective import Objective
from ..alignment.options import AlignOptions
from ..alignment.start import Linear, RidgePath, procrustes_start, rotation
from ..alignment.validation import STRENGTHS, Candidate, Validation, best_candidate, strongest
from ..spectral.bandwidth import auto_bandwidths
from ..stores.streaming import ordered_map
from .pairs import Gathered, PairReader, mini_batches

__all__ = ["Fits", "fit_all"]

_Maps = dict[str, AlignmentMap]
_SHARES = (0.0, 0.5, 1.0)
_CURVE = "kernel, variance {:.0%}"
# Shown and never written: its rows crowd around their mean, and it compares worse than it searches.
_SHRUNKEN = _CURVE.format(0.0)


@dataclass(frozen=True)
class Fits:
    """All maps that were fitted.

    Attributes
    ----------
    maps
        By name: the kinds asked for first, then what they are compared with.
    chosen
        The name of the one to write.
    """

    maps: dict[str, AlignmentMap]
    chosen: str


def fit_all(
    reader: PairReader,
    found: Gathered,
    options: AlignOptions,
    *,
    features: Features | None,
    sample: Pair | None,
    workers: int,
    progress: Callable[[int], None],
) -> Fits:
    """Every kind with every fidelity asked for, on the same rows.

    Parameters
    ----------
    features, sample
        For a "kernel" map, the features that the moments hold, and training rows to polish it on.
    """
    task = _Task(reader, found, options, workers, progress)
    jobs: list[Callable[[], tuple[_Maps, _Maps]]] = [
        lambda: _kernel_fits(task, features, sample),
        lambda: ({}, task.closed_forms()),
    ]
    (fits, curve), (_, linear) = ordered_map(lambda job: job(), jobs, workers=workers)
    fits |= task.descended()
    writable = fits | {name: m for name, m in curve.items() if name != _SHRUNKEN}
    candidates = list(ordered_map(task.candidate, writable.items(), workers=workers))
    return Fits(fits | curve | linear, candidates[best_candidate(candidates)].name)


def _kernel_fits(task: _Task, features: Features | None, sample: Pair | None) -> tuple[_Maps, _Maps]:
    """Polished maps, and those with shares of the variance restored; none where none are asked for."""
    if features is None or sample is None:
        return {}, {}
    kernel = _KernelFit(task, features, sample)
    return {task.name("kernel", mu): kernel.polished(mu) for mu in task.options.fidelity}, kernel.curve()


@dataclass
class _Task:
    reader: PairReader
    found: Gathered
    options: AlignOptions
    workers: int
    progress: Callable[[int], None]

    judge: Validation = field(init=False)

    def __post_init__(self) -> None:
        a, b = self.found.validation
        self.judge = Validation(a if self.options.in_place else b, b)

    @cached_property
    def path(self) -> RidgePath:
        return RidgePath(self.found.moments)

    @cached_property
    def strength(self) -> float:
        return self.strongest([self.path], self.found.validation.a)[1]

    def strongest(self, paths: Sequence[RidgePath], inputs: NDArray[np.float32]) -> tuple[RidgePath, float]:
        given = self.options.ridge
        strengths = STRENGTHS if given is None else (given,)
        return strongest(paths, inputs, self.judge, strengths, workers=self.workers)

    def candidate(self, named: tuple[str, AlignmentMap]) -> Candidate:
        name, fitted = named
        outputs = fitted.transform(self.found.validation.a)
        return Candidate(name, fitted, self.judge.search_overlaps(outputs), self.judge.spec_diff(outputs))

    def priors(self, n_inputs: int) -> list[NDArray[np.float64]]:
        """What most of a map may be, of weights on so many inputs: a rotation, or nothing but a shift."""
        own = rotation(self.found.moments)
        found = [own] if own.shape[0] != own.shape[1] else [own, np.eye(len(own))]
        return [np.concatenate([p, np.zeros((n_inputs - len(p), p.shape[1]))]) for p in found]

    @cached_property
    def bandwidths(self) -> tuple[float, float]:
        """σ of output and target: the target's for both where the output is to lie in its space."""
        if self.options.kernel == "cosine":
            return 1.0, 1.0
        samples = (rows.astype(np.float64) for rows in self.found.validation)
        columns = dict(zip(self.reader.columns, samples, strict=True))
        sigma_a, sigma_b = auto_bandwidths(columns).values
        return (sigma_a if self.options.in_place else sigma_b), sigma_b

    def objective(self, mu: float) -> Objective:
        o = self.options
        return Objective(o.kernel, o.beta, mu, self.bandwidths, 0.0 if o.in_place else o.cross)

    def name(self, kind: Kind, mu: float) -> str:
        return f"{kind}, fidelity {mu:g}" if self.options.compares_fidelities else kind

    def descended(self) -> dict[str, AlignmentMap]:
        """By name, the maps that are fitted over mini-batches."""
        options = self.options
        kinds = [kind for kind in options.kinds if kind != "kernel"]
        if not kinds:
            return {}
        fits = {
            self.name(kind, mu): Fitting(
                self._start(),
                self.found.validation,
                self.objective(mu),
                kind,
                options.fit,
                in_place=options.in_place,
                seed=options.seed,
            )
            for kind in kinds
            for mu in options.fidelity
        }
        descent = options.fit.descent(polish=False)
        batches = mini_batches(
            self.reader,
            self.found.n_train,
            skip=self.found.skip,
            steps=descent.steps,
            rows=descent.rows,
            seed=options.seed,
        )
        for _, batch in zip(range(descent.steps), batches, strict=False):
            for fitting in fits.values():
                fitting.step(batch)
            self.progress(len(batch.a))
        return {name: fitting.result().map for name, fitting in fits.items()}

    def _start(self) -> Linear:
        if self.options.in_place:
            d = len(self.found.moments.mean_a)
            return Linear(np.eye(d), np.zeros(d))
        return self.path.restored(self.strength)

    def closed_forms(self) -> dict[str, AlignmentMap]:
        """By name, the linear maps into the target's space that need no fit."""
        if self.options.in_place:
            return {}
        return {
            "ridge": _linear(self.path.at(self.strength)),
            "procrustes": _linear(procrustes_start(self.found.moments)),
        }


class _KernelFit:
    """Ridge regression on features, its prior and strength chosen, its variance restored, and polished.

    The polish is of what follows the regression, a matrix (d_b, d_b): predictions of sampled rows are
    computed once, and a step costs no features.
    """

    def __init__(self, task: _Task, features: Features, sample: Pair) -> None:
        assert task.found.feature_moments is not None
        self._task, self._features, self._sample = task, features, sample
        towards_zero = RidgePath(task.found.feature_moments)
        inputs = features.of(task.found.validation.a)
        paths = [towards_zero, *(towards_zero.around(prior) for prior in task.priors(inputs.shape[1]))]
        path, strength = task.strongest(paths, inputs)
        self._moments = path.moments
        weights = path.weights(strength)
        self._weights = path.basis @ weights
        self._transport = path.transport(weights)
        self._validation = self._predictions(inputs)

    def _predictions(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Of validation or sampled rows, centred."""
        mean = self._moments.mean_a @ self._weights
        return np.asarray(inputs @ self._weights.astype(np.float32) - mean, np.float32)

    def polished(self, mu: float) -> AlignmentMap:
        """From full variance on, by the objective with this fidelity."""
        task, mean = self._task, self._moments.mean_b
        fitting = Fitting(
            Linear(self._transport, mean),
            Pair(self._validation, task.found.validation.b),
            task.objective(mu),
            "affine",
            task.options.fit,
            in_place=False,
            seed=task.options.seed,
            polish=True,
        )
        for batch in self._batches():
            fitting.step(batch)
            task.progress(len(batch.a))
        result = fitting.result().map
        return self._composed(result.weights.astype(np.float64), result.bias.astype(np.float64))

    def _batches(self) -> Iterator[Pair]:
        descent = self._task.options.fit.descent(polish=True)
        predictions = np.concatenate(
            [
                self._predictions(self._features.of(self._sample.a[i : i + 2048]))
                for i in range(0, len(self._sample.a), 2048)
            ]
        )
        rng = np.random.default_rng([self._task.options.seed, descent.steps])
        for _ in range(descent.steps):
            at = rng.choice(len(predictions), size=min(descent.rows, len(predictions)), replace=False)
            yield Pair(predictions[at], self._sample.b[at])

    def curve(self) -> dict[str, AlignmentMap]:
        """By name, with shares of the variance restored: from the best neighbours to the lowest SPEC-diff."""
        one = np.eye(len(self._transport))
        mean = self._moments.mean_b
        return {
            _CURVE.format(share): self._composed((1 - share) * one + share * self._transport, mean)
            for share in _SHARES
        }

    def _composed(self, matrix: NDArray[np.float64], bias: NDArray[np.float64]) -> AlignmentMap:
        weights = self._weights @ matrix
        return self._features.to_map(Linear(weights, bias - self._moments.mean_a @ weights))


def _linear(linear: Linear) -> AlignmentMap:
    weights, bias = (np.asarray(part, np.float32) for part in linear)
    return AlignmentMap(weights, bias, np.zeros((len(weights), 0), np.float32))
