"""The spectrum of the kernel difference, from the joint second moment alone.

With stacked features φ = [φ_A, φ_B], second moment C = E[φ φᵀ] and D = diag(1 on A, -η on B), the kernel
difference Λ = (K_A - η K_B)/n has the eigenvalues of the symmetric matrix Fᵀ D F for any factor
C = F Fᵀ; its eigenvectors, as row scores with mean square 1, are φ·w with w = D F v / λ.

References
----------
.. [1] Jalali, Dibaei Nia, Farnia, "Towards an explainable comparison and alignment of feature
   embeddings", ICML 2025, arXiv 2506.06231.
.. [2] Kornblith et al., "Similarity of neural network representations revisited", ICML 2019.
.. [3] Song et al., "Feature selection via dependence maximization", JMLR 2012.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy  # its submodules are imported when they are first used
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from ..errors import InputError
from .covariance import CovarianceAccumulator
from .features import FeatureMap

__all__ = [
    "Modes",
    "SecondMoment",
    "Spectrum",
    "centred_factor",
    "linear_cka",
    "second_moment",
    "solve",
    "unbiased_cka",
]

# Above this size only the leading modes are computed, by iteration. Up to it one BLAS thread computes: a
# decomposition is a chain of small products, after each of which threads on busy cores wait for each other
# (p = 500: 0.1 s in one thread, 0.6 to 5.7 s in two); on idle cores two threads save a third.
_LARGEST_DENSE = 1500
# Above this size a spectral radius alone comes by iteration.
_LARGEST_FULL = 150
# What whitening in float32 may add to a coverage of 1.
_COVERAGE_ROUNDING = 0.01


@dataclass(frozen=True)
class SecondMoment:
    """Moments of whitened features: `matrix` C, shape (p, p); `mean` μ, shape (p,); both float64.

    `sides` are the slices of the embeddings' features. `tolerance` is the float type's relative rounding,
    `noise` the norm of the error it leaves in the matrix, and `relative_noise` the same before whitening and
    relative to the largest eigenvalue.
    """

    n_rows: int
    mean: NDArray[np.float64]
    matrix: NDArray[np.float64]
    sides: tuple[slice, ...]
    tolerance: float
    noise: float
    relative_noise: float


@dataclass(frozen=True)
class Modes:
    """Leading eigenvectors of one end of the kernel difference.

    Attributes
    ----------
    eigenvalues
        Shape (k,), strongest first: positive at the first embedding's end, negative at the second's.
    weights
        Shape (p, k): the score of a row with features φ is φ·w less the sum of its `offsets`. Mean square
        over the rows is 1; the sign is arbitrary.
    offsets
        Shape (2, k): each embedding's share of the mean score, μ_A·w_A and μ_B·w_B; zero where the operator
        is not centred.
    energy_forms
        Shape (2, k, k): the modes' quadratic forms under K_A/n and K_B/n.
    """

    eigenvalues: NDArray[np.float64]
    weights: NDArray[np.float64]
    offsets: NDArray[np.float64]
    energy_forms: NDArray[np.float64]

    @property
    def energies(self) -> NDArray[np.float64]:
        """Shape (2, k): each mode's Rayleigh quotient under K_A/n and K_B/n; λ = e_A - η e_B."""
        return np.diagonal(self.energy_forms, axis1=1, axis2=2)

    def selected(self, keep: NDArray[np.bool_]) -> Modes:
        """The modes chosen by a mask of shape (k,)."""
        return Modes(
            self.eigenvalues[keep],
            self.weights[:, keep],
            self.offsets[:, keep],
            self.energy_forms[:, keep][:, :, keep],
        )

    def rotated(self, rotation: NDArray[np.float64]) -> Modes:
        """The modes W R for an orthogonal R, shape (k, k); their eigenvalues become Rayleigh quotients."""
        return Modes(
            np.diag(rotation.T @ (self.eigenvalues[:, None] * rotation)),
            self.weights @ rotation,
            self.offsets @ rotation,
            rotation.T @ self.energy_forms @ rotation,
        )


@dataclass(frozen=True)
class Spectrum:
    """Both ends of the difference of two embeddings' kernels.

    Attributes
    ----------
    sides
        Where each embedding's features are among all p.
    ends
        Modes that the first embedding captures (λ > 0), and modes that the second does (λ < 0).
    spec_diff, spec_diff_centered
        The spectral radius max |λ| of the uncentred and of the centred operator, whichever `ends` show.
    cka
        Linear CKA of the feature maps, centred: 1 where the kernels are proportional.
    cka_unbiased
        The same by unbiased estimates: 0 at chance level, whatever the number of rows.
    coverage
        Mean |φ(x)|² of each embedding, in (0, 1]. For an exact map 1; else 1 - coverage bounds every
        error of that embedding's eigenvalues.
    rounding
        Eigenvalues smaller than this can't be distinguished from zero, and are not in `ends`.
    """

    n_rows: int
    eta: float
    centered: bool
    sides: tuple[slice, ...]
    ends: tuple[Modes, Modes]
    spec_diff: float
    spec_diff_centered: float
    cka: float
    cka_unbiased: float
    coverage: tuple[float, float]
    rounding: float

    def leading(self, k: int) -> Spectrum:
        """This spectrum with at most the `k` strongest modes of each end."""
        kept = [modes.selected(np.arange(len(modes.eigenvalues)) < k) for modes in self.ends]
        return replace(self, ends=(kept[0], kept[1]))

    def scores(self, end: int, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scores of rows in the modes of one end, from whitened features: (n, p) -> (n, k)."""
        modes = self.ends[end]
        return np.asarray(features @ modes.weights - modes.offsets.sum(axis=0))


def second_moment(acc: CovarianceAccumulator, which: Sequence[int] | None = None) -> SecondMoment:
    """Whiten an accumulator's raw moments.

    Parameters
    ----------
    which
        Positions of the embeddings wanted, in this order; None is all.

    Notes
    -----
    Cost: O(P² L) for the whitening of a map with L columns, P the wanted embeddings' columns.
    """
    raw = acc.second_moment(which)
    maps = [acc.maps[i] for i in (range(len(acc.maps)) if which is None else which)]
    whitenings = [m.whitening() for m in maps]
    sides = _consecutive([m.n_features for m in maps])
    tolerance = float(max(np.finfo(m.dtype).eps for m in maps))
    noise, relative = _rounding_noise(raw.matrix, whitenings, tolerance)
    mean, matrix = _whiten(raw.mean, raw.matrix, _consecutive([m.n_columns for m in maps]), whitenings)
    return SecondMoment(raw.n_rows, mean, matrix, sides, tolerance, noise, relative)


def _consecutive(lengths: Sequence[int]) -> tuple[slice, ...]:
    ends = np.cumsum([0, *lengths])
    return tuple(slice(int(a), int(b)) for a, b in itertools.pairwise(ends))


def _rounding_noise(
    raw: NDArray[np.float64], whitenings: Sequence[NDArray[np.float64] | None], tolerance: float
) -> tuple[float, float]:
    """Norm of the error of the whitened moment, and the error of the raw one relative to its own norm.

    Independent errors of P x P entries have a norm of √P times one; whitening amplifies it.
    """
    amplified = max((float(np.max(np.sum(t**2, axis=0))) for t in whitenings if t is not None), default=1.0)
    error = tolerance * float(np.max(np.abs(raw), initial=0.0)) * float(np.sqrt(len(raw)))
    at_least = float(np.sum(raw**2)) / max(float(np.trace(raw)), np.finfo(float).tiny)  # ≤ the spectral norm
    return error * amplified, error / max(at_least, np.finfo(float).tiny)


def _resolution_limit(moment: SecondMoment, center: bool) -> float:
    """The size of eigenvalue that may be due to rounding error alone.

    Where the embeddings agree, D C is nearly nilpotent, and an error ε of C moves its eigenvalues by √ε: an
    embedding against its rotation shows up to 1.7 l √ε, l the largest eigenvalue of C.
    """
    c = moment.matrix - np.outer(moment.mean, moment.mean) if center else moment.matrix
    return moment.noise + 3 * float(np.linalg.norm(c)) * float(np.sqrt(moment.relative_noise))


def _whiten(
    mean: NDArray[np.float64],
    matrix: NDArray[np.float64],
    slices: Sequence[slice],
    whitenings: Sequence[NDArray[np.float64] | None],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if all(t is None for t in whitenings):
        return mean, matrix
    parts = list(zip(slices, whitenings, strict=True))
    matrix = np.concatenate([matrix[:, s] if t is None else matrix[:, s] @ t for s, t in parts], axis=1)
    matrix = np.concatenate([matrix[s] if t is None else t.T @ matrix[s] for s, t in parts])
    mean = np.concatenate([mean[s] if t is None else mean[s] @ t for s, t in parts])
    return mean, (matrix + matrix.T) / 2


def solve(
    acc: CovarianceAccumulator,
    *,
    pair: tuple[int, int] | None = None,
    modes: int = 10,
    eta: float = 1.0,
    center: bool = True,
) -> Spectrum:
    """Both ends of the kernel difference of two embeddings of `acc`.

    Parameters
    ----------
    pair
        Their positions among the state's embeddings; None is (0, 1) for a state of two.
    modes
        Leading modes wanted at each end; fewer where the difference has fewer.
    eta
        The weight of the second kernel.
    center
        Take the covariance of features instead of their second moment: removes the mode that is the
        mean similarity itself.

    Raises
    ------
    InputError
        Fewer rows than modes, or no such pair of embeddings.

    Notes
    -----
    Cost: O(p³) for p features in all: a pivoted Cholesky factor, then a full eigendecomposition whatever the
    number of modes. Above p = 1,500 the leading modes come from an iterative solver.
    """
    if pair is None:
        if len(acc.maps) != 2:
            raise InputError(
                f"solve compares two embeddings, the state holds {len(acc.maps)}: give a pair of them."
            )
        pair = (0, 1)
    if pair[0] == pair[1] or not all(0 <= i < len(acc.maps) for i in pair):
        raise InputError(f"pair is {pair}; expected two positions among {len(acc.maps)} embeddings.")
    if acc.n_rows < max(modes, 2):
        raise InputError(
            f"{acc.n_rows} usable rows can't carry {modes} modes: give more rows, or fewer --modes."
        )
    n_columns = sum(acc.maps[i].n_columns for i in pair)
    with threadpool_limits(1 if n_columns <= _LARGEST_DENSE else None, user_api="blas"):
        moment = second_moment(acc, pair)
        return _solved(moment, _coverage([acc.maps[i] for i in pair], moment), modes, eta, center)


def _solved(
    moment: SecondMoment, coverage: tuple[float, float], modes: int, eta: float, center: bool
) -> Spectrum:
    signs = _signs(moment, eta)
    plain = _factor(moment)
    centred = plain[:, :-1]
    shown, other = (centred, plain) if center else (plain, centred)
    values, vectors = _eigenpairs(shown, signs, modes)
    radii = {center: float(np.max(np.abs(values), initial=0.0)), not center: _radius(other, signs)}
    rounding = _resolution_limit(moment, center)
    ends = [
        _modes(shown, moment, signs, values[order], vectors[:, order], center)
        for order in _leading(values, modes, rounding)
    ]
    return Spectrum(
        n_rows=moment.n_rows,
        eta=eta,
        centered=center,
        sides=moment.sides,
        ends=(ends[0], ends[1]),
        spec_diff=radii[False],
        spec_diff_centered=radii[True],
        cka=linear_cka(moment),
        cka_unbiased=unbiased_cka(moment),
        coverage=coverage,
        rounding=rounding,
    )


def _coverage(maps: Sequence[FeatureMap], moment: SecondMoment) -> tuple[float, float]:
    """Mean |φ(x)|² of each embedding. Raises InputError where it is not a number up to 1, rounding aside."""
    found = [float(np.trace(moment.matrix[s, s])) for s in moment.sides]
    for m, coverage in zip(maps, found, strict=True):
        if not coverage <= 1 + _COVERAGE_ROUNDING:
            raise InputError(
                f"The features of column {m.column!r} cover {coverage:.4g} of its kernel, which can be 1 at"
                f" most: {m.dtype} does not hold these vectors' kernel. Use --precision float64, or drop"
                " --no-normalize and rows of extreme length."
            )
    return found[0], found[1]


def linear_cka(moment: SecondMoment) -> float:
    """Centred linear CKA of two embeddings' features, in [0, 1]; NaN where one of them is constant [2]_."""
    a, b = moment.sides
    c = moment.matrix - np.outer(moment.mean, moment.mean)
    scale = np.linalg.norm(c[a, a]) * np.linalg.norm(c[b, b])
    return float(np.linalg.norm(c[a, b]) ** 2 / scale) if scale > 0 else float("nan")


def unbiased_cka(moment: SecondMoment) -> float:
    """CKA by unbiased estimates of its three terms, about 0 for independent embeddings [3]_.

    The raw value of independent embeddings grows with their widths over the number of rows. A kernel's
    diagonal is left out of every term; it is taken to be constant, which it is but for the error of feature
    maps. NaN where an embedding is constant, or of fewer than four rows.
    """
    if moment.n_rows < 4:
        return float("nan")
    a, b = moment.sides
    own = _unbiased_hsic(moment, a, a) * _unbiased_hsic(moment, b, b)
    return float(_unbiased_hsic(moment, a, b) / np.sqrt(own)) if own > 0 else float("nan")


def _unbiased_hsic(moment: SecondMoment, a: slice, b: slice) -> float:
    """n(n-3) times the estimate of Song et al. from moments of features, K̃ and L̃ without their diagonals:
    tr K̃L̃ + 1ᵀK̃1 1ᵀL̃1 / (n-1)(n-2) - 2/(n-2) 1ᵀK̃L̃1. The factor is the same in all terms of CKA."""
    n = float(moment.n_rows)
    c, mean = moment.matrix, moment.mean
    diagonals = [float(np.trace(c[s, s])) for s in (a, b)]
    sums = [n * n * float(mean[s] @ mean[s]) - n * d for s, d in zip((a, b), diagonals, strict=True)]
    traces = n * n * float(np.sum(c[a, b] ** 2)) - n * diagonals[0] * diagonals[1]
    # 1ᵀK̃L̃1 of K̃ = K - k I and L̃ = L - l I.
    both = n**3 * float(mean[a] @ c[a, b] @ mean[b]) - n * n * (
        diagonals[1] * float(mean[a] @ mean[a]) + diagonals[0] * float(mean[b] @ mean[b])
    )
    both += n * diagonals[0] * diagonals[1]
    return traces + sums[0] * sums[1] / ((n - 1) * (n - 2)) - 2 * both / (n - 2)


def _signs(moment: SecondMoment, eta: float) -> NDArray[np.float64]:
    signs = np.ones(len(moment.mean))
    signs[moment.sides[1]] = -eta
    return signs


def _factor(moment: SecondMoment) -> NDArray[np.float64]:
    """F with C = F Fᵀ up to rounding, shape (p, q + 1), q the numerical rank of C - μμᵀ.

    The last column is μ: without it, F is a factor of C - μμᵀ. A pivoted Cholesky, a tenth of the work of an
    eigendecomposition, is exact at full rank. Where it stops early, what it leaves is 30 times as large.
    """
    c = moment.matrix - np.outer(moment.mean, moment.mean)
    least = float(np.max(np.diag(c), initial=0.0)) * moment.tolerance
    packed, pivots, rank, _ = scipy.linalg.lapack.dpstrf(c, lower=1, tol=least)
    if rank < len(c) <= _LARGEST_DENSE:
        values, vectors = np.linalg.eigh(c)
        keep = values > max(values[-1], 0.0) * moment.tolerance
        return np.column_stack([vectors[:, keep] * np.sqrt(values[keep]), moment.mean])
    f = np.empty((len(c), rank + 1))
    f[pivots - 1, :-1] = np.tril(packed[:, :rank])
    f[:, -1] = moment.mean
    return f


def centred_factor(moment: SecondMoment) -> NDArray[np.float64]:
    """F with C - μμᵀ = F Fᵀ up to rounding, shape (p, q), q its numerical rank."""
    return _factor(moment)[:, :-1]


def _eigenpairs(
    factor: NDArray[np.float64], signs: NDArray[np.float64], modes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """At least the `modes` largest and smallest eigenpairs of Fᵀ D F, ascending."""
    q = factor.shape[1]
    if q <= max(_LARGEST_DENSE, 4 * modes):
        values, vectors = np.linalg.eigh(factor.T @ (signs[:, None] * factor))
        return values, vectors
    k = 2 * modes
    values, vectors = scipy.sparse.linalg.eigsh(
        _operator(factor, signs), k=k, which="BE", v0=_start(q), ncv=min(q, max(3 * k, 40))
    )
    order = np.argsort(values)
    return values[order], vectors[:, order]


def _radius(factor: NDArray[np.float64], signs: NDArray[np.float64]) -> float:
    """The spectral radius of Fᵀ D F."""
    q = factor.shape[1]
    if q <= _LARGEST_FULL:
        values = np.linalg.eigvalsh(factor.T @ (signs[:, None] * factor))
    else:
        values = scipy.sparse.linalg.eigsh(
            _operator(factor, signs), k=2, which="BE", v0=_start(q), ncv=40, return_eigenvectors=False
        )
    return float(np.max(np.abs(values), initial=0.0))


def _operator(factor: NDArray[np.float64], signs: NDArray[np.float64]) -> scipy.sparse.linalg.LinearOperator:
    """Fᵀ D F for the iterative solver, which is not formed."""
    q = factor.shape[1]
    return scipy.sparse.linalg.LinearOperator(
        (q, q), matvec=lambda v: factor.T @ (signs * (factor @ v.ravel())), dtype=np.float64
    )


def _start(q: int) -> NDArray[np.float64]:
    return np.random.default_rng(0).standard_normal(q)


def _leading(values: NDArray[np.float64], modes: int, rounding: float) -> list[NDArray[np.intp]]:
    """Positions of the leading eigenvalues of the positive and the negative end, strongest first."""
    ends = []
    for sign in (1.0, -1.0):
        order = np.argsort(-sign * values, kind="stable")[:modes]
        ends.append(order[sign * values[order] > rounding])
    return ends


def _modes(
    factor: NDArray[np.float64],
    moment: SecondMoment,
    signs: NDArray[np.float64],
    values: NDArray[np.float64],
    vectors: NDArray[np.float64],
    center: bool,
) -> Modes:
    w = signs[:, None] * (factor @ vectors) / values
    parts = np.stack([moment.mean[s] @ w[s] for s in moment.sides])
    held = moment.matrix @ w
    if center:
        held -= np.outer(moment.mean, parts.sum(axis=0))
    forms = np.stack([held[s].T @ held[s] for s in moment.sides])
    offsets = parts if center else np.zeros_like(parts)
    return Modes(values, w, offsets, forms)
