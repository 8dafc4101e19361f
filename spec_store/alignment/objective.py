"""What alignment minimises on the normalised outputs f of a mini-batch, with its gradient.

|K_f - K_b|²_F / n² + β SPEC-diff(f, b)² + μ (1 - mean cosine of f to its anchor)

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
_ITERATIONS = 8
# Directions of the iterated subspace of less than this share of the largest are the others over again.
_DEPENDENT = 1e-10


@dataclass(frozen=True)
class Terms:
    """The objective's parts.

    Attributes
    ----------
    kernel
        |K_f - K_b|²_F / n².
    spec
        SPEC-diff squared, the square of the eigenvalue of largest absolute value of (K_f - K_b)/n.
    fidelity
        1 - mean cosine to the anchor.
    total
        Their weighted sum.
    """

    kernel: float
    spec: float
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
    """

    kernel: Literal["cosine", "gaussian"] = "cosine"
    beta: float = 0.1
    mu: float = 0.01
    bandwidths: tuple[float, float] = (1.0, 1.0)

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
        fidelity = 1.0 - float(np.einsum("ij,ij->", f, anchor)) / len(f)
        gradient -= (self.mu / len(f)) * anchor
        return Terms(kernel, spec, fidelity, kernel + self.beta * spec + self.mu * fidelity), gradient

    def _cosine(self, f: NDArray[Any], b: NDArray[Any]) -> tuple[float, float, NDArray[Any]]:
        n = len(f)
        ff, fb, bb = f.T @ f, f.T @ b, b.T @ b
        kernel = float((ff**2).sum() - 2 * (fb**2).sum() + (bb**2).sum()) / n**2
        gradient = (4 / n**2) * (f @ ff - b @ fb.T)
        if not self.beta:
            return kernel, 0.0, gradient
        gram = np.block([[ff, fb], [fb.T, bb]]).astype(np.float64) / n
        d = f.shape[1]
        signs = np.where(np.arange(len(gram)) < d, 1.0, -1.0)
        c, value = _extreme_of_gram(gram, signs)
        u = f @ c[:d].astype(f.dtype) + b @ c[d:].astype(b.dtype)  # √n times the unit eigenvector
        gradient += np.outer((4 * self.beta * value / n) * u, (gram @ c)[:d]).astype(gradient.dtype)
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
            u, value = _extreme(difference / n)
            by_entry += (2 * self.beta * value / n) * np.outer(u, u)
        return kernel, value**2, (2 / sigma_f**2) * ((by_entry * k) @ f)


def _start(n: int) -> NDArray[np.float64]:
    """Directions to begin with that hardly any spectrum is blind to, the same in every run."""
    return np.random.default_rng(n).standard_normal((n, min(_BLOCK, n)))


def _extreme(matrix: NDArray[Any]) -> tuple[NDArray[Any], float]:
    """A unit vector near the eigenvector of largest |λ| of a symmetric matrix, and its Rayleigh quotient.

    By subspace iteration with a Rayleigh-Ritz step: towards the end of a fit both ends of the spectrum are of
    nearly one size, where power iteration on one vector mixes them.
    """
    basis = _start(len(matrix)).astype(matrix.dtype)
    for _ in range(_ITERATIONS):
        basis, _ = np.linalg.qr(matrix @ basis)
    values, vectors = np.linalg.eigh(basis.T @ (matrix @ basis))
    at = int(np.argmax(np.abs(values)))
    return basis @ vectors[:, at], float(values[at])


def _extreme_of_gram(
    gram: NDArray[np.float64], signs: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """The same for Z D Zᵀ/n, n x n, from G = ZᵀZ/n, p x p, and D: the eigenvector is Zc/√n.

    The operator maps Zc to Z(D G c), and uᵀv is aᵀG c, so no iteration touches the n rows.
    """
    c = signs[:, None] * _start(len(gram))
    values, vectors = np.zeros(1), np.zeros((0, 1))
    for _ in range(_ITERATIONS):
        c = signs[:, None] * (gram @ c)
        image = gram @ c
        sizes, turn = np.linalg.eigh(c.T @ image)
        held = sizes > max(sizes[-1] * _DEPENDENT, np.finfo(np.float64).tiny)
        if not held.any():
            return np.zeros(len(gram)), 0.0
        turn = turn[:, held] / np.sqrt(sizes[held])
        c, image = c @ turn, image @ turn
        values, vectors = np.linalg.eigh(image.T @ (signs[:, None] * image))
    at = int(np.argmax(np.abs(values)))
    return c @ vectors[:, at], float(values[at])
