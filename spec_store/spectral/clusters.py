"""Clusters from modes: rotation, sign, lobes, relative membership, and the result columns per row.

References
----------
.. [1] Kaiser, "The varimax criterion for analytic rotation in factor analysis", Psychometrika 1958.
.. [2] Rohe, Zeng, "Vintage factor analysis with varimax performs statistical inference", arXiv 2004.05387.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # its submodules are imported when they are first used
from numpy.typing import NDArray

from .spectrum import Spectrum

__all__ = ["Cluster", "Membership", "find_clusters", "membership", "varimax"]

# A sign of a mode is a cluster of its own from this share of the mode's mean square.
SMALLEST_LOBE = 0.25
# A row is a member of a cluster from this relative membership; a typical member has about 1.
MEMBER = 0.5
# An eigenvalue under this share of the one before begins a new run of modes.
_GAP = 0.7
# A row's whole score must reach this share of what the embedding that holds the cluster says.
_AGREEMENT = 0.5


@dataclass(frozen=True)
class Cluster:
    """Rows that one embedding groups and the other does not.

    Attributes
    ----------
    end
        0 where the first embedding groups it, 1 where the second does.
    strength
        |λ|: the (rotated) mode's Rayleigh quotient under the kernel difference.
    energy
        The mode's Rayleigh quotient under each embedding's own kernel, K_A/n and K_B/n.
    weights
        Shape (p,), over all whitened features: the mode, signed so that the cluster's rows score positive.
    offsets
        Each embedding's part of a row's score is φ_A·w_A - offsets[0], and φ_B·w_B - offsets[1].
    held_scale, score_scale
        From the holding embedding's part, and from the whole score, to relative membership.
    contribution
        Times a squared relative membership, what the row adds to the difference: compares clusters.
    """

    end: int
    strength: float
    energy: tuple[float, float]
    weights: NDArray[np.float64]
    offsets: tuple[float, float]
    held_scale: float
    score_scale: float
    contribution: float


def find_clusters(
    spectrum: Spectrum,
    features: NDArray[np.float64],
    *,
    rotate: bool = True,
    floor: float = 0.0,
) -> tuple[Cluster, ...]:
    """Turn the modes of both ends into clusters, strongest first over both ends.

    Parameters
    ----------
    features
        Whitened features of sampled rows, shape (n, p). The rotation, each lobe's share and the scale of
        relative membership are estimated on them.
    rotate
        Varimax among modes of like strength at each end, which unmixes near-equal eigenvalues [1]_, [2]_.
    floor
        The size of error of an eigenvalue: no weaker mode is reported.

    Notes
    -----
    Each sign that holds a quarter of a mode's mean square or more is a lobe, and so a cluster. With t the
    lobe's scores, relative membership is t √(Σt² / Σt⁴): about 1 for a typical member. The part of the score
    that comes from the embedding that groups the cluster decides who is a member, as long as the whole score
    agrees at half that level. For λ u = K_A u - η K_B u, and at A's end K_A u says how much A finds a
    row like the cluster, while K_B u says into how many pieces B splits it and weighs them by the inverse
    root of their size: whole scores alone lose the larger pieces (two planted groups merged at sizes 1 : 6:
    recall 0.92, here 1.00), and the holder's part alone takes in rows that both embeddings hold.
    """
    found: list[Cluster] = []
    for end, modes in enumerate(spectrum.ends):
        reported = modes.selected(np.abs(modes.eigenvalues) > max(floor, spectrum.rounding))
        scores = features @ reported.weights - reported.offsets.sum(axis=0)
        k = scores.shape[1]
        rotation = _rotation(reported.eigenvalues, scores) if rotate and k > 1 else np.eye(k)
        turned = reported.rotated(rotation)
        side = spectrum.sides[end]
        for j, mode_scores in enumerate((scores @ rotation).T):
            held = features[:, side] @ turned.weights[side, j] - turned.offsets[end, j]
            for sign in _lobes(mode_scores):
                strength = float(abs(turned.eigenvalues[j]))
                held_scale = _relative_scale(sign * held)
                cluster = Cluster(
                    end=end,
                    strength=strength,
                    energy=(float(turned.energies[0, j]), float(turned.energies[1, j])),
                    weights=sign * turned.weights[:, j],
                    offsets=(sign * float(turned.offsets[0, j]), sign * float(turned.offsets[1, j])),
                    held_scale=held_scale,
                    score_scale=_relative_scale(sign * mode_scores),
                    contribution=strength / (held_scale**2 * float(np.mean(held**2))),
                )
                found.append(cluster)
    return tuple(sorted(found, key=lambda c: (-c.strength, -c.contribution)))


@dataclass(frozen=True)
class Membership:
    """Rows of a batch against all clusters: n rows, K clusters.

    Attributes
    ----------
    relative
        Shape (n, K), float32: about 1 for a typical member, 0 for rows on the other side of the mode.
    contribution
        Shape (n, K): what the row adds to the difference through this cluster.
    """

    relative: NDArray[np.float32]
    contribution: NDArray[np.float32]

    @property
    def member(self) -> NDArray[np.bool_]:
        """Shape (n, K): whether the row is a member of the cluster."""
        return np.greater_equal(self.relative, MEMBER)

    def ranked(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Each row's clusters, members first and by contribution, shape (n, K); and how many are members."""
        member = self.member
        order = np.argsort(np.where(member, -self.contribution, 1.0), axis=1, kind="stable")
        return order, member.sum(axis=1)


def membership(
    part_a: NDArray[np.floating], part_b: NDArray[np.floating], clusters: Sequence[Cluster]
) -> Membership:
    """Who is a member of what, from each embedding's part of the scores, both of shape (n, K)."""
    end = np.array([c.end for c in clusters], np.intp)
    held = np.where(end == 0, part_a, part_b)
    held *= np.array([c.held_scale for c in clusters], held.dtype)
    whole = part_a + part_b
    whole *= np.array([c.score_scale / _AGREEMENT for c in clusters], held.dtype)
    relative = np.maximum(np.minimum(held, whole), 0).astype(np.float32, copy=False)
    weight = np.array([c.contribution for c in clusters], np.float32)
    return Membership(relative, relative * relative * weight)


def _relative_scale(signed: NDArray[np.float64]) -> float:
    """√(Σt² / Σt⁴) over the positive lobe t."""
    lobe = np.maximum(signed, 0.0)
    return float(np.sqrt(np.sum(lobe**2) / np.sum(lobe**4)))


def _lobes(scores: NDArray[np.float64]) -> list[float]:
    """The signs of a mode that are clusters, the heavier tail's first."""
    heavy = 1.0 if np.sum(scores**3) >= 0 else -1.0
    total = float(np.sum(scores**2))
    share = {s: float(np.sum(np.maximum(s * scores, 0.0) ** 2)) / total for s in (heavy, -heavy)}
    return [s for s in share if share[s] >= SMALLEST_LOBE]


def _rotation(eigenvalues: NDArray[np.float64], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Varimax within runs of modes of like strength, shape (k, k).

    Only near-equal eigenvalues leave their modes arbitrary. Across a gap a rotation does harm: mixing a
    strong mode with one of noise is sparser than either, and cuts the group that the strong one is in two.
    """
    strengths = np.abs(eigenvalues)
    gaps = np.flatnonzero(strengths[1:] < _GAP * strengths[:-1]) + 1
    runs = np.split(np.arange(len(strengths)), gaps)
    return np.asarray(scipy.linalg.block_diag(*(varimax(scores[:, run]) for run in runs)))


def varimax(scores: NDArray[np.float64], *, iterations: int = 500) -> NDArray[np.float64]:
    """The orthogonal R, shape (k, k), under which scores R, shape (n, k), are nearest to sparse [1]_.

    Maximises the summed variance of squared scores per column, by fixed-point polar steps from the
    identity; deterministic. Cost: O(n k²) a step.
    """
    n, k = scores.shape
    rotation = np.eye(k)
    last = 0.0
    for _ in range(iterations):
        turned = scores @ rotation
        gradient = scores.T @ (turned**3 - turned * np.mean(turned**2, axis=0))
        u, singular, vt = np.linalg.svd(gradient / n)
        rotation = u @ vt
        total = float(singular.sum())
        if total <= last * (1 + 1e-9):
            break
        last = total
    return rotation
