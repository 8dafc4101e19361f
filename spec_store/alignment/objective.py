"""What alignment minimises on the normalised outputs f of a mini-batch, with its gradient.

|K_f - K_b|²_F / n² + β SPEC-diff(f, b)² + κ |F Bᵀ - B Bᵀ|²_F / n² + μ (1 - mean cosine of f to its anchor)

The first two see no rotation of f. The third, the cross term, is what searches see: queries come from the
target model, so a row's cosine to them must be that of the target's own row.

References
----------
Jalali, Dibaei Nia, Farnia, "Towards an explainable comparison and alignment of feature embeddings",
ICML 2025, section 5: the SPEC-diff term.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Objective", "Terms"]

_BLOCK = 8
_ITERATIONS = 6


@dataclass(frozen=True)
class Terms:
    """The objective's parts.

    Attributes
    ----------
    kernel
        |K_f - K_b|²_F / n².
    spec
        SPEC-diff squared, the square of the eigenvalue of largest absolute value of (K_f - K_b)/n.
    cross
        |F Bᵀ - B Bᵀ|²_F / n².
    fidelity
        1 - mean cosine to the anchor.
    total
        Their weighted sum.
    """

    kernel: float
    spec: float
    cross: float
    fidelity: float
    total: float


@dataclass(frozen=True)
class Objective:
    """The objective for one kernel and one set of weights.

    Parameters
    ----------
    kernel
        "cosine", or "gaussian" with exp((x·y - 1)/σ²) on unit rows.
    beta
        Weight of SPEC-diff².
    mu
        Weight of fidelity.
    bandwidths
        σ of the aligned and of the target rows, for the Gaussian kernel.
    kappa
        Weight of the cross term, for rows f in the target's space.
    """

    kernel: Literal["cosine", "gaussian"] = "cosine"
    beta: float = 0.1
    mu: float = 0.01
    bandwidths: tuple[float, float] = (1.0, 1.0)
    kappa: float = 0.0

    def value_and_gradient(
        self, f: NDArray[Any], b: NDArray[Any], anchor: NDArray[Any]
    ) -> tuple[Terms, NDArray[Any]]:
        """The terms, and the gradient with respect to the unit rows `f`, shape (n, d_f).

        Parameters
        ----------
        f, b, anchor
            Unit rows: aligned (n, d_f), target (n, d_b), and what f is to stay near (n, d_f).
        """
        measure = self._cosine if self.kernel == "cosine" else self._gaussian
        kernel, spec, gradient = measure(f, b)
        n, cross = len(f), 0.0
        if self.kappa:
            off = (f - b) @ (b.T @ b) if n > b.shape[1] else ((f - b) @ b.T) @ b
            cross = float(np.einsum("ij,ij->", off, f - b)) / n**2
            gradient += (2 * self.kappa / n**2) * off
        fidelity = 1.0 - float(np.einsum("ij,ij->", f, anchor)) / n
        gradient -= (self.mu / n) * anchor
        total = kernel + self.beta * spec + self.kappa * cross + self.mu * fidelity
        return Terms(kernel, spec, cross, fidelity, total), gradient

    def _cosine(self, f: NDArray[Any], b: NDArray[Any]) -> tuple[float, float, NDArray[Any]]:
        n = len(f)
        if n <= max(f.shape[1], b.shape[1]):
            return self._matched(f, f @ f.T - b @ b.T)
        ff, fb, bb = f.T @ f, f.T @ b, b.T @ b
        kernel = float((ff**2).sum() - 2 * (fb**2).sum() + (bb**2).sum()) / n**2
        gradient = (4 / n**2) * (f @ ff - b @ fb.T)
        if not self.beta:
            return kernel, 0.0, gradient
        u, value = _extreme(lambda v: (f @ (f.T @ v) - b @ (b.T @ v)) / n, f @ _start(f) - b @ _start(b))
        gradient += (4 * self.beta * value / n) * np.outer(u, u @ f)
        return kernel, value**2, gradient

    def _matched(self, f: NDArray[Any], difference: NDArray[Any]) -> tuple[float, float, NDArray[Any]]:
        """The cosine kernels' terms by their difference itself, (n, n): the shorter way for few rows."""
        n = len(f)
        kernel, value = float((difference**2).sum()) / n**2, 0.0
        gradient = (4 / n**2) * (difference @ f)
        if self.beta:
            u, value = _extreme(lambda v: difference @ v / n, difference @ _start(difference))
            gradient += (4 * self.beta * value / n) * np.outer(u, u @ f)
        return kernel, value**2, gradient

    def _gaussian(self, f: NDArray[Any], b: NDArray[Any]) -> tuple[float, float, NDArray[Any]]:
        n = len(f)
        sigma_f, sigma_b = self.bandwidths
        k = np.exp((f @ f.T - 1) / sigma_f**2)
        difference = k - np.exp((b @ b.T - 1) / sigma_b**2)
        kernel = float((difference**2).sum()) / n**2
        by_entry = (2 / n**2) * difference
        value = 0.0
        if self.beta:
            u, value = _extreme(lambda v: difference @ v / n, difference @ _start(difference))
            by_entry += (2 * self.beta * value / n) * np.outer(u, u)
        return kernel, value**2, (2 / sigma_f**2) * ((by_entry * k) @ f)


def _start(rows: NDArray[Any]) -> NDArray[Any]:
    """Directions to begin with that hardly any spectrum is blind to, the same in every run."""
    directions = np.random.default_rng(rows.shape[1]).standard_normal((rows.shape[1], _BLOCK))
    return directions.astype(rows.dtype)


def _extreme(apply: Any, start: NDArray[Any]) -> tuple[NDArray[Any], float]:
    """A unit vector near the eigenvector of largest |λ|, and its Rayleigh quotient.

    By subspace iteration with a Rayleigh-Ritz step: towards the end of a fit both ends of the spectrum are of
    nearly one size, where power iteration on one vector mixes them.
    """
    basis, _ = np.linalg.qr(start)
    for _ in range(_ITERATIONS):
        basis, _ = np.linalg.qr(apply(basis))
    within = basis.T @ apply(basis)
    values, vectors = np.linalg.eigh((within + within.T) / 2)
    at = int(np.argmax(np.abs(values)))
    return basis @ vectors[:, at], float(values[at])
