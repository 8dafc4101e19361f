"""Directions that one embedding captures and the other hardly sees, from the joint second moment alone.

Where SPEC's modes are those of the largest difference, KODA [1]_ asks for u with the largest uᵀK_A u/n among
those with uᵀK_B u/n ≤ ε: what differs may be seen by both, what is found here is not.

References
----------
.. [1] Wu, Jalali, Farnia, KODA, ICML 2026, arXiv 2606.04180.
.. [2] Polyak, "Convexity of quadratic transformations and its use in control and optimization", JOTA 1998.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import scipy  # its submodules are imported when they are first used
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from ..errors import InputError
from .covariance import CovarianceAccumulator
from .spectrum import Modes, SecondMoment, Spectrum, centred_factor, second_moment, solve

__all__ = ["Epsilon", "koda"]

# The multiplier is searched for until the objective is known to this, in units of the largest eigenvalue.
_PRECISION = 1e-8
_MOST_STEPS = 80
_LARGEST_MULTIPLIER = 1e9
# Problems up to this size are solved whole.
_LARGEST_WHOLE = 200
# Eigenvectors by which a subspace is widened at once.
_WIDER = 10
# A vector adds nothing to a subspace from which it departs by this share of its length.
_DEPENDENT = 1e-6

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Epsilon:
    """How much the other embedding may see of a direction.

    Attributes
    ----------
    value
        The largest uᵀK u/n itself, or a quantile of the eigenvalues of K/n.
    is_quantile
        Which of them; quantiles in [0, 1].
    """

    value: float
    is_quantile: bool

    @classmethod
    def parse(cls, text: str | float) -> Epsilon:
        """``0.05``, or ``50%`` for a quantile. Raises InputError for anything else."""
        try:
            if isinstance(text, str) and text.strip().endswith("%"):
                found = cls(float(text.strip()[:-1]) / 100, True)
            else:
                found = cls(float(text), False)
        except ValueError:
            found = cls(float("nan"), False)
        if not 0 <= found.value <= 1:
            raise InputError(
                f"epsilon is {text!r}; expected a number from 0 to 1, the largest eigenvalue that a kernel"
                " can have, or a quantile of these such as 50%."
            )
        return found

    def of(self, covariance: Matrix) -> float:
        """The limit for an embedding whose features have this second moment, shape (p, p)."""
        if not self.is_quantile:
            return self.value
        return max(float(np.quantile(np.linalg.eigvalsh(covariance), self.value)), 0.0)


def koda(
    acc: CovarianceAccumulator,
    *,
    epsilon: Epsilon,
    pair: tuple[int, int] | None = None,
    directions: int = 10,
    center: bool = True,
) -> Spectrum:
    """The spectrum of `solve`, its modes replaced by KODA's directions of both ends.

    Parameters
    ----------
    epsilon
        The limit of what the other embedding may see.
    pair
        Positions of the two embeddings; None is (0, 1).
    directions
        Wanted at each end: orthogonal, each the best one that is orthogonal to those before.
    center
        Take K_A and K_B centred.

    Returns
    -------
    Eigenvalues are uᵀK_A u/n at the first end and -uᵀK_B u/n at the second; a direction that its own
    embedding does not see either is left out.

    Notes
    -----
    By strong duality [2]_ the optimum is min over η ≥ 0 of λmax(K_A - ηK_B)/n + ηε, a convex function of one
    number; where the leading eigenvalue is double there, the direction is the combination of the two for
    which the constraint holds with equality. Cost: O(p³) for p features in all, then the leading eigenvectors
    of one or a few p x p matrices for each direction.
    """
    spectrum = solve(acc, pair=pair, modes=min(directions, acc.n_rows), eta=1.0, center=center)
    a, b = pair or (0, 1)
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(2, "spec-store-koda") as pool:
        moment = second_moment(acc, (a, b))
        problem = _Problem.of(moment, center)
        ends = list(pool.map(lambda end: problem.end(end, epsilon, directions, spectrum.rounding), (0, 1)))
    return replace(spectrum, ends=(ends[0], ends[1]))


@dataclass(frozen=True)
class _Problem:
    """Both kernels as matrices on unit vectors v, in whose span all that either sees lies.

    With C = F Fᵀ and G = Fᵀ F, rows' scores are φ·w for w = F G⁻¹ v, and uᵀK_E u/n = |F_E v|².
    """

    moment: SecondMoment
    center: bool
    factor: Matrix

    @classmethod
    def of(cls, moment: SecondMoment, center: bool) -> _Problem:
        return cls(moment, center, centred_factor(moment) if center else _uncentred_factor(moment))

    def end(self, end: int, epsilon: Epsilon, k: int, least: float) -> Modes:
        """The directions of one end, strongest first."""
        f, sides = self.factor, self.moment.sides
        own, other = f[sides[end]], f[sides[1 - end]]
        a, b = own.T @ own, other.T @ other
        limit = epsilon.of(other @ other.T)
        rank = f.shape[1]
        if rank < self.moment.n_rows:  # a direction that neither sees: there are rows beyond the features
            a, b = np.pad(a, (0, 1)), np.pad(b, (0, 1))
        found = _directions(a, b, limit, min(k, rank), least)
        return self._modes(found[:rank], end)

    def _modes(self, v: Matrix, end: int) -> Modes:
        f, moment = self.factor, self.moment
        w = f @ np.linalg.solve(f.T @ f, v)
        parts = np.stack([moment.mean[s] @ w[s] for s in moment.sides])
        held = f @ v
        forms = np.stack([held[s].T @ held[s] for s in moment.sides])
        own = np.diagonal(forms[end]).copy()
        return Modes(own if end == 0 else -own, w, parts if self.center else np.zeros_like(parts), forms)


def _uncentred_factor(moment: SecondMoment) -> Matrix:
    """F with C = F Fᵀ of full column rank."""
    values, vectors = np.linalg.eigh(moment.matrix)
    keep = values > max(float(values[-1]), 0.0) * moment.tolerance
    return np.asarray(vectors[:, keep] * np.sqrt(values[keep]))


def _directions(a: Matrix, b: Matrix, limit: float, k: int, least: float) -> Matrix:
    """The first k directions, shape (q, k), or those of them that see more than `least`.

    Each is the best one in a subspace of leading eigenvectors, which is widened until the dual of the whole
    problem says that nothing better lies outside.
    """
    q = len(a)
    scale = float(np.max(np.diag(a), initial=0.0)) or 1.0
    whole = q <= _LARGEST_WHOLE
    chosen = np.zeros((q, 0))
    space = np.eye(q) if whole else _leading(a, 2 * k, chosen)[1]
    while chosen.shape[1] < k:
        inside = space.T @ chosen
        best = _best(space.T @ a @ space, space.T @ b @ space, limit, inside)
        v = None if best is None else space @ best.vector
        if not whole:
            eta = _LARGEST_MULTIPLIER if best is None else best.multiplier
            values, vectors = _leading(a - eta * b, _WIDER, chosen)
            bound = float(values[-1]) + eta * limit
            if v is None or bound - v @ a @ v > _PRECISION * scale:
                wider = _orthonormal(np.column_stack([space, vectors]))
                if wider.shape[1] > space.shape[1]:
                    space = wider
                    continue
        if v is None or v @ a @ v <= least:
            break
        v = v - chosen @ (chosen.T @ v)
        chosen = np.column_stack([chosen, v / np.linalg.norm(v)])
    return chosen


def _orthonormal(vectors: Matrix) -> Matrix:
    """A basis of the span of vectors, those first that come first; nearly dependent ones are left out."""
    q, r = np.linalg.qr(vectors)
    lengths = np.linalg.norm(vectors, axis=0)
    return np.asarray(q[:, np.abs(np.diag(r)) > _DEPENDENT * np.maximum(lengths, 1e-300)])


def _leading(matrix: Matrix, k: int, without: Matrix) -> tuple[Matrix, Matrix]:
    """The k largest eigenpairs, ascending, among vectors orthogonal to those of `without`.

    Decomposed rather than iterated: the largest eigenvalues lie close together.
    """
    n = len(matrix)
    inner = matrix
    if without.shape[1]:
        held = matrix @ without
        cross = held @ without.T
        inner = matrix - cross - cross.T + without @ (without.T @ held) @ without.T
        inner = inner - 2 * float(np.abs(matrix).sum(axis=1).max()) * (without @ without.T)
    values, vectors = scipy.linalg.eigh(inner, subset_by_index=[max(n - k, 0), n - 1])
    return values, vectors


class _Best(NamedTuple):
    """A direction, and the multiplier of its constraint."""

    vector: Matrix
    multiplier: float


def _best(a: Matrix, b: Matrix, limit: float, removed: Matrix) -> _Best | None:
    """Among unit vectors orthogonal to `removed` with vᵀBv ≤ limit one of the largest vᵀAv, shape (q,).

    None where no vector satisfies the constraint. Cost: some 15 eigendecompositions.
    """
    complement = scipy.linalg.null_space(removed.T) if removed.shape[1] else np.eye(len(a))
    a, b = complement.T @ a @ complement, complement.T @ b @ complement
    scale = float(np.max(np.diag(a), initial=0.0)) or 1.0

    def leading(eta: float) -> Matrix:
        return np.asarray(np.linalg.eigh(a - eta * b)[1][:, -1])

    first = leading(0.0)
    if first @ b @ first <= limit:
        return _Best(complement @ first, 0.0)
    low, v_low = 0.0, first
    high = 1.0
    v_high = leading(high)
    while v_high @ b @ v_high > limit:
        if high > _LARGEST_MULTIPLIER:
            return None
        low, v_low = high, v_high
        high *= 4
        v_high = leading(high)
    over, under = float(v_low @ b @ v_low) - limit, float(v_high @ b @ v_high) - limit
    for step in range(_MOST_STEPS):
        # What is lost against the dual's bound, and what the bracket leaves open.
        if -under * high <= 0.1 * _PRECISION * scale or high - low <= 1e-14 * high:
            break
        share = over / (over - under) if step % 3 else 0.5
        eta = low + min(max(share, 0.01), 0.99) * (high - low)
        v = leading(eta)
        excess = float(v @ b @ v) - limit
        if excess > 0:
            low, v_low, over = eta, v, excess
        else:
            high, v_high, under = eta, v, excess
    if -under * high > 0.1 * _PRECISION * scale:
        v_high = _between(a, b, limit, v_low, v_high)
    return _Best(complement @ v_high, high)


def _between(a: Matrix, b: Matrix, limit: float, v_low: Matrix, v_high: Matrix) -> Matrix:
    """In the plane of two unit vectors on both sides of the limit, the best one upon it."""
    across = v_low - (v_low @ v_high) * v_high
    length = float(np.linalg.norm(across))
    if length < 1e-12:
        return v_high
    plane = np.column_stack([v_high, across / length])
    small = plane.T @ b @ plane
    # vᵀBv = mean + r cos(2θ - φ) for v = cos θ, sin θ.
    mean, difference = (small[0, 0] + small[1, 1]) / 2, (small[0, 0] - small[1, 1]) / 2
    r, phase = float(np.hypot(difference, small[0, 1])), float(np.arctan2(small[0, 1], difference))
    turn = float(np.arccos(np.clip((limit - mean) / max(r, 1e-300), -1, 1)))
    both = [plane @ np.array([np.cos(t), np.sin(t)]) for t in ((phase + turn) / 2, (phase - turn) / 2)]
    return max(both, key=lambda v: float(v @ a @ v))
