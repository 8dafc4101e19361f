"""Feature maps: kernels as inner products, so that the n x n kernel matrix never exists.

A map turns a row x into *columns* c(x), and its features are φ(x) = c(x) T with a fixed matrix T, the
whitening (the identity for most maps). Then φ(x)·φ(y) ≈ k(x, y) with k(x, x) ≤ 1. Keeping T apart lets a
pass accumulate the raw columns and whiten once, at the end.

References
----------
.. [1] Rahimi, Recht, "Random features for large-scale kernel machines", NeurIPS 2007.
.. [2] Yu et al., "Orthogonal random features", NeurIPS 2016, arXiv 1610.09072.
.. [3] Williams, Seeger, "Using the Nystroem method to speed up kernel machines", NeurIPS 2001.
.. [4] Zhang, Kwok, "Clustered Nystroem method for large scale manifold learning", IEEE TNN 2010.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from ..errors import InputError
from ..stores.vectors import Vectors

__all__ = [
    "CosineMap",
    "FeatureMap",
    "NystroemMap",
    "RandomFourierMap",
    "feature_map_from_arrays",
    "gaussian_kernel",
    "kmeans_landmarks",
    "orthogonal_frequencies",
    "random_frequencies",
    "uniform_landmarks",
]


@dataclass(frozen=True, eq=False)
class FeatureMap(ABC):
    """One embedding's kernel as features.

    Attributes
    ----------
    column
        The embedding column this map reads.
    width
        Its number of dimensions d.
    normalize
        Whether rows are scaled to unit length first.
    dtype
        Float type in which columns are computed, float32 or float64.
    """

    column: str
    width: int
    normalize: bool
    dtype: str

    kind: ClassVar[str]

    @property
    def sigma(self) -> float | None:
        """The Gaussian kernel's bandwidth; None for the cosine kernel."""
        return None

    @property
    @abstractmethod
    def n_columns(self) -> int:
        """The number of raw columns."""

    @property
    def n_features(self) -> int:
        """The number of whitened features."""
        t = self.whitening()
        return self.n_columns if t is None else t.shape[1]

    @abstractmethod
    def columns(self, vectors: Vectors, rows: NDArray[np.intp] | None = None) -> NDArray[Any]:
        """Raw columns of the given rows, all by default: shape (len(rows), n_columns), `dtype`.

        What comes of a row that is not usable is arbitrary.
        """

    def project(self, vectors: Vectors, weights: NDArray[Any]) -> NDArray[Any]:
        """``columns(vectors) @ weights`` for weights of shape (n_columns, k): (n, k), `dtype`."""
        return np.asarray(self.columns(vectors) @ weights)

    def whitening(self) -> NDArray[np.float64] | None:
        """T, shape (n_columns, n_features), or None for the identity."""
        return None

    def shift(self) -> NDArray[np.float64] | None:
        """Constants near the columns' means, shape (n_columns,); None where none are known.

        Sums of products are taken of what is left of the columns, whose rounding errors are smaller.
        """
        return None

    def parameters(self) -> dict[str, Any]:
        """All scalar parameters; with `arrays`, all there is to know about the map."""
        shared = {"kind": self.kind, "column": self.column, "width": self.width}
        return {**shared, "normalize": self.normalize, "dtype": self.dtype}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Arrays that the map holds."""
        return {}

    @cached_property
    def digest(self) -> str:
        """Equal for maps that give equal features: only their states may be merged."""
        h = hashlib.blake2b(json.dumps(self.parameters(), sort_keys=True).encode(), digest_size=16)
        for name, array in sorted(self.arrays().items()):
            h.update(f"{name}{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
        return h.hexdigest()

    def features(self, matrix: NDArray[Any]) -> NDArray[np.float64]:
        """φ of each row of `matrix`, shape (n, d) -> (n, n_features): for samples and tests.

        Raises InputError for rows that are not finite, or zero where rows are normalised.
        """
        vectors = Vectors.from_matrix(matrix, directions=self.normalize)
        if not vectors.usable.all():
            row = int(np.argmax(vectors.reason))
            raise InputError(f"Row {row} of {self.column!r} is not usable: not finite, or zero.")
        raw = self.columns(vectors).astype(np.float64)
        t = self.whitening()
        return raw if t is None else raw @ t


# Expanded distances of longer rows err by more than this in a kernel's exponent: those are taken in float64.
_ROUNDING = 1e-4
_CHUNK_ROWS = 1024
_CACHED_ROWS = 512


@dataclass(frozen=True, eq=False)
class CosineMap(FeatureMap):
    """φ(x) = x / |x|: the cosine kernel, exactly, in d features."""

    kind: ClassVar[str] = "cosine"

    @property
    def n_columns(self) -> int:
        return self.width

    def columns(self, vectors: Vectors, rows: NDArray[np.intp] | None = None) -> NDArray[Any]:
        return vectors.normalized(rows, self.dtype)

    def project(self, vectors: Vectors, weights: NDArray[Any]) -> NDArray[Any]:
        scores: NDArray[Any] = vectors.matrix.astype(self.dtype, copy=False) @ weights
        scores /= vectors.lengths.astype(self.dtype)[:, None]  # k columns instead of d
        return scores


@dataclass(frozen=True, eq=False)
class RandomFourierMap(FeatureMap):
    """φ(x) = [cos(Wx/σ), sin(Wx/σ)] / √m for m random frequencies W: the Gaussian kernel [1]_, [2]_.

    The draw is a pure function of (seed, d, m), so embeddings of equal width share it and their errors
    cancel in the difference where the embeddings agree. Eigenvalues have a noise floor of about 1/m.
    """

    bandwidth: float
    n_frequencies: int
    seed: int
    orthogonal: bool

    kind: ClassVar[str] = "random fourier"

    def __post_init__(self) -> None:
        draw = orthogonal_frequencies if self.orthogonal else random_frequencies
        w = draw(self.seed, self.width, self.n_frequencies) / self.bandwidth
        object.__setattr__(self, "_frequencies", w)
        object.__setattr__(self, "_cut", w.astype(self.dtype))

    @property
    def sigma(self) -> float:
        return self.bandwidth

    @property
    def n_columns(self) -> int:
        return 2 * self.n_frequencies

    def columns(self, vectors: Vectors, rows: NDArray[np.intp] | None = None) -> NDArray[Any]:
        cut: NDArray[Any] = self._cut  # type: ignore[attr-defined]  # set in __post_init__
        frequencies: NDArray[np.float64] = self._frequencies  # type: ignore[attr-defined]  # likewise
        x = _rows(vectors, rows, self.normalize, self.dtype)
        out = self._waves(x @ cut.T)
        error = np.finfo(self.dtype).eps * np.sqrt(_sq_norms(vectors, rows, self.normalize)) / self.bandwidth
        for at, chosen in _chunks(np.flatnonzero(error > _ROUNDING), rows):
            exact = _rows(vectors, chosen, self.normalize, "float64")
            out[at] = self._waves(exact @ frequencies.T)
        return out

    def _waves(self, angles: NDArray[Any]) -> NDArray[Any]:
        out = np.empty((len(angles), self.n_columns), self.dtype)
        np.cos(angles, out=out[:, : self.n_frequencies], casting="same_kind")
        np.sin(angles, out=out[:, self.n_frequencies :], casting="same_kind")
        out *= self.n_frequencies**-0.5
        return out

    def parameters(self) -> dict[str, Any]:
        own = {"bandwidth": self.bandwidth, "n_frequencies": self.n_frequencies}
        return {**super().parameters(), **own, "seed": self.seed, "orthogonal": self.orthogonal}


@dataclass(frozen=True, eq=False)
class NystroemMap(FeatureMap):
    """φ(x) = k(x, Z) K_ZZ^(-1/2) for landmarks Z: the Gaussian kernel where the data is [3]_, [4]_.

    Attributes
    ----------
    landmarks
        Shape (L, d), float64, in the space of the (normalised) rows.
    origin
        Shape (d,); distances are taken between x - origin and z - origin, which keeps their digits when
        the data lies far from zero. The kernel does not depend on it. Zeros where rows are normalised.
    basis
        Shape (r, d), orthonormal rows that span every z - origin; None where the landmarks span all
        dimensions. With it a row costs r (d + L) multiplications instead of d L, and the kernel is still
        exact: |x - z|² = |x|² + |z|² - 2 xᵀz, and xᵀz needs of x what lies in the span alone.
    """

    bandwidth: float
    landmarks: NDArray[np.float64]
    origin: NDArray[np.float64]
    basis: NDArray[np.float64] | None = None

    kind: ClassVar[str] = "nystroem"

    def __post_init__(self) -> None:
        z = self.landmarks - self.origin
        half_sq = 0.5 * np.einsum("ij,ij->i", z, z)
        object.__setattr__(self, "_exact", (z, half_sq))
        coordinates = z if self.basis is None else z @ self.basis.T
        scaled = coordinates * self.bandwidth**-2, half_sq * self.bandwidth**-2
        object.__setattr__(self, "_scaled", tuple(a.astype(self.dtype) for a in scaled))
        if self.basis is not None:
            object.__setattr__(self, "_directions", self.basis.T.astype(self.dtype))

    @property
    def sigma(self) -> float:
        return self.bandwidth

    @property
    def n_columns(self) -> int:
        return len(self.landmarks)

    def columns(self, vectors: Vectors, rows: NDArray[np.intp] | None = None) -> NDArray[Any]:
        x = vectors.chosen(rows, self.dtype)
        k = np.empty((len(x), self.n_columns), self.dtype)
        if self.normalize:
            lengths = vectors.lengths if rows is None else vectors.lengths[rows]
            sq_norms = np.ones(len(k))
        else:
            lengths = np.ones(len(k))
            sq_norms = np.empty(len(k))
        for start in range(0, len(k), _CACHED_ROWS):  # each block stays in the cache from product to kernel
            at = slice(start, start + _CACHED_ROWS)
            block = x[at]
            if not self.normalize:
                block = block - self.origin.astype(self.dtype)
                sq_norms[at] = np.einsum("ij,ij->i", block, block)
            self._kernel(block, lengths[at], sq_norms[at], k[at])
        if self.dtype == "float32":
            error = np.finfo(np.float32).eps * sq_norms / self.bandwidth**2
            for at_rows, chosen in _chunks(np.flatnonzero(error > _ROUNDING), rows):
                k[at_rows] = self._exact_columns(_rows(vectors, chosen, self.normalize, "float64"))
        return k

    def _kernel(
        self,
        x: NDArray[Any],
        lengths: NDArray[np.float64],
        sq_norms: NDArray[np.float64],
        out: NDArray[Any],
    ) -> None:
        """Kernel columns of rows x / lengths, whose squared lengths are given, into `out`."""
        coordinates, half_sq = self._scaled  # type: ignore[attr-defined]  # set in __post_init__
        divisor = lengths.astype(self.dtype)[:, None]
        if self.basis is None:
            np.matmul(x, coordinates.T, out=out)
            out /= divisor
        else:
            x = x @ self._directions  # type: ignore[attr-defined]  # likewise
            x /= divisor
            np.matmul(x, coordinates.T, out=out)
        out -= half_sq
        out -= (0.5 * self.bandwidth**-2 * sq_norms).astype(self.dtype)[:, None]
        np.minimum(out, 0.0, out=out)
        np.exp(out, out=out)

    def _exact_columns(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        centres, half_sq = self._exact  # type: ignore[attr-defined]  # set in __post_init__
        x = x - self.origin
        k: NDArray[np.float64] = x @ centres.T
        k -= half_sq
        k -= 0.5 * np.einsum("ij,ij->i", x, x)[:, None]
        np.minimum(k, 0.0, out=k)  # -|x - z|²/2, which rounding may have made positive
        k *= self.bandwidth**-2
        return np.exp(k, out=k)

    def whitening(self) -> NDArray[np.float64]:
        """K_ZZ^(-1/2) without the directions that `dtype` can't distinguish from rounding errors."""
        return self._whitening

    @cached_property
    def _whitening(self) -> NDArray[np.float64]:
        kzz = gaussian_kernel(self.landmarks, self.landmarks, self.bandwidth)
        with threadpool_limits(1, user_api="blas"):  # see `spectrum`: threads wait more than they work
            values, directions = np.linalg.eigh(kzz)
        keep = values > values[-1] * len(values) * np.finfo(self.dtype).eps
        return np.asarray(directions[:, keep] / np.sqrt(values[keep]))

    def shift(self) -> NDArray[np.float64]:
        """The kernel's mean over the landmarks, which lie as the rows do."""
        return self._mean_kernels

    @cached_property
    def _mean_kernels(self) -> NDArray[np.float64]:
        kzz = gaussian_kernel(self.landmarks, self.landmarks, self.bandwidth)
        return np.asarray(kzz.mean(axis=0))

    def parameters(self) -> dict[str, Any]:
        return {**super().parameters(), "bandwidth": self.bandwidth}

    def arrays(self) -> dict[str, NDArray[Any]]:
        held = {"landmarks": self.landmarks, "origin": self.origin}
        return held if self.basis is None else {**held, "basis": self.basis}


def feature_map_from_arrays(parameters: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> FeatureMap:
    """The map that gave these `FeatureMap.parameters` and `FeatureMap.arrays`."""
    given = {**parameters, **arrays}
    kind = given.pop("kind")
    kinds: dict[str, type[FeatureMap]] = {c.kind: c for c in (CosineMap, RandomFourierMap, NystroemMap)}
    if kind not in kinds:
        raise InputError(f"Unknown feature map {kind!r}: it was saved by a newer spec-store.")
    return kinds[kind](**given)


def _rows(vectors: Vectors, rows: NDArray[np.intp] | None, normalize: bool, dtype: str) -> NDArray[Any]:
    return vectors.normalized(rows, dtype) if normalize else vectors.chosen(rows, dtype)


def _sq_norms(vectors: Vectors, rows: NDArray[np.intp] | None, normalize: bool) -> NDArray[np.float64]:
    """Of the rows that a map sees, shape (len(rows),)."""
    sq_norms = vectors.sq_norms if rows is None else vectors.sq_norms[rows]
    return np.ones(len(sq_norms)) if normalize else sq_norms


def _chunks(
    positions: NDArray[np.intp], rows: NDArray[np.intp] | None
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Some positions among the given rows, a few at a time, and the rows that they are."""
    for start in range(0, len(positions), _CHUNK_ROWS):
        at = positions[start : start + _CHUNK_ROWS]
        yield at, at if rows is None else rows[at]


def gaussian_kernel(
    x: NDArray[Any], y: NDArray[Any], bandwidth: float, *, dtype: str = "float64"
) -> NDArray[Any]:
    """exp(-|x - y|² / 2σ²) for all pairs, shape (len(x), len(y)).

    Computed in `dtype`: float32 suits rows of like lengths alone.
    """
    origin = np.median(y, axis=0).astype(dtype)  # a mean would follow a few rows that lie far out
    x, y = x.astype(dtype) - origin, y.astype(dtype) - origin
    k = x @ y.T
    k -= 0.5 * np.einsum("ij,ij->i", x, x)[:, None]
    k -= 0.5 * np.einsum("ij,ij->i", y, y)
    np.minimum(k, 0.0, out=k)
    k *= bandwidth**-2
    return np.asarray(np.exp(k, out=k))


def random_frequencies(seed: int, width: int, n: int) -> NDArray[np.float64]:
    """`n` draws from N(0, I), shape (n, width)."""
    return np.random.default_rng([seed, width, n]).standard_normal((n, width))


def orthogonal_frequencies(seed: int, width: int, n: int) -> NDArray[np.float64]:
    """As `random_frequencies`, but orthogonal within each block of `width` rows [2]_."""
    rng = np.random.default_rng([seed, width, n, 1])
    blocks = []
    for start in range(0, n, width):
        q, r = np.linalg.qr(rng.standard_normal((width, width)))
        q *= np.sign(np.diag(r))  # QR's sign rule would make the draw less than uniform
        lengths = np.sqrt(rng.chisquare(width, size=width))
        blocks.append((lengths[:, None] * q)[: n - start])
    return np.concatenate(blocks)


def kmeans_landmarks(rows: NDArray[Any], n: int, *, seed: int, threads: int = 1) -> NDArray[np.float64]:
    """k-means centroids of sampled rows, shape (min(n, len(rows)), d) [4]_.

    With no more rows than landmarks the rows themselves are the landmarks, and the map is exact on them.
    Cost: 8 iterations of len(rows) x n distances; 20 give no better a map.
    """
    if len(rows) <= n:
        return np.asarray(rows, np.float64)
    import faiss  # a second to import; only this map needs it

    kmeans = faiss.Kmeans(
        rows.shape[1], n, niter=8, seed=seed, min_points_per_centroid=1, max_points_per_centroid=1 << 30
    )
    with threadpool_limits(threads, user_api="openmp"):  # of the calling thread alone
        kmeans.train(np.ascontiguousarray(rows, np.float32))
    return np.asarray(kmeans.centroids, np.float64)


def uniform_landmarks(rows: NDArray[Any], n: int, *, seed: int) -> NDArray[np.float64]:
    """Rows drawn without replacement, shape (min(n, len(rows)), d), in their own order."""
    chosen = np.random.default_rng(seed).permutation(len(rows))[:n]
    return np.asarray(rows[np.sort(chosen)], np.float64)
