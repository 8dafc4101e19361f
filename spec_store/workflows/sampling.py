"""What is fixed on a seeded sample before any pass: bandwidths and feature maps, and the maps' error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse.linalg import eigsh
from threadpoolctl import threadpool_limits

from ..connector import Source, find_field
from ..errors import InvalidVectorsError
from ..options import CompareOptions
from ..spectral.bandwidth import Bandwidths, SampledKernel, auto_bandwidths, examine_bandwidths
from ..spectral.candidates import SampledRows
from ..spectral.features import (
    CosineMap,
    FeatureMap,
    NystroemMap,
    RandomFourierMap,
    gaussian_kernel,
    kmeans_landmarks,
    uniform_landmarks,
)
from ..spectral.similarity import by_features, by_gaussian
from ..spectral.spectrum import Spectrum
from ..spectral.subspace import subspace_map
from ..stores.memory import release_memory
from ..stores.streaming import ordered_map, usable_cores
from ..stores.vectors import InvalidRows, decode, vector_width
from ..stores.view import View

__all__ = [
    "FittedMaps",
    "Sample",
    "draw_sample",
    "evaluated_rows",
    "fit_maps",
    "identified",
    "map_error",
    "normalizes",
    "pairwise_rows",
    "sample_features",
    "single",
]

# Pairwise work on the sample is done on this many of its rows.
_PAIRWISE_ROWS = 2000
# Landmarks are fitted on this many of its rows: more give no better a map.
_LANDMARK_ROWS = 10_000
# Up to this number of rows clusters are judged by the kernel itself.
_EXACT_ROWS = 2000
# Features in all that clusters are judged on.
_LARGEST_EVALUATED = 40_000_000
# Bytes up to which a sample is kept in single precision.
_LARGEST_SINGLE = 16 << 20
# Rows of it that are brought to features at once.
_CHUNK_ROWS = 2048


@dataclass(frozen=True)
class Sample:
    """Usable sampled rows.

    Attributes
    ----------
    columns
        The embedding columns.
    rows
        Per column, shape (n, d), of the precision asked for, unit length where the kernel normalises.
    pairwise
        Positions of the rows on which pairwise work is done, shape (≤ 2,000,).
    others
        What other columns hold in these rows.
    keys
        The row keys by which they were sampled.
    """

    columns: tuple[str, ...]
    rows: tuple[NDArray[np.floating[Any]], ...]
    pairwise: NDArray[np.intp]
    others: pa.Table
    keys: pa.Array

    def __len__(self) -> int:
        return len(self.rows[0])

    def of(self, columns: Sequence[str]) -> Sample:
        """The same rows of some of the embeddings."""
        rows = tuple(self.rows[self.columns.index(c)] for c in columns)
        return Sample(tuple(columns), rows, self.pairwise, self.others, self.keys)

    def stored(self, options: CompareOptions) -> Sample:
        """As it is kept with a run: on it clusters are found, then and when the run is asked again.

        A large sample of unit vectors is kept in half precision, which moves a kernel value by 2e-4 at most.
        """
        size = sum(x.size for x in self.rows) * np.dtype(np.float32).itemsize
        halved = size > _LARGEST_SINGLE and normalizes(options) and options.precision == "float32"
        rows = tuple(x.astype(np.float16) if halved else x.astype(np.float32, copy=False) for x in self.rows)
        return Sample(self.columns, rows, self.pairwise, self.others, self.keys)

    @cached_property
    def kernels(self) -> dict[str, SampledKernel]:
        """By column, the Gaussian kernel of the pairwise rows, at any bandwidth."""
        with threadpool_limits(1, user_api="blas"):
            found = ordered_map(
                lambda x: SampledKernel(single(x[self.pairwise])),
                self.rows,
                workers=min(len(self.rows), usable_cores()),
            )
            return dict(zip(self.columns, found, strict=True))


class Identified(NamedTuple):
    """A source whose keys are unique, and messages about keys that were not."""

    source: Source
    warnings: list[str]


def identified(source: Source, where: str | None) -> Identified:
    """The source to take the sample from, which goes by a hash of the row key.

    Rows that share a key would all be sampled or none. Where the key that a person named repeats, the store's
    own is used instead.
    """
    n_repeated = source.repeated_keys(where) if isinstance(source, View) else 0
    if not isinstance(source, View) or not n_repeated:
        return Identified(source, [])
    return Identified(
        source.by_own_key(),
        [
            f"{n_repeated:,} rows repeat the {source.key!r} of another row: it names typical rows, but the"
            " sample goes by the store's own row key."
        ],
    )


def draw_sample(
    source: Source, columns: tuple[str, ...], options: CompareOptions, *, others: Sequence[str] = ()
) -> Sample:
    """Read the seeded sample and leave out its unusable rows.

    Parameters
    ----------
    others
        Columns beside the embeddings that are wanted of the same rows.

    Raises
    ------
    InvalidVectorsError
        No two usable rows among the sampled ones, or vectors of unequal width.
    """
    names = tuple(dict.fromkeys((*columns, *others)))
    table = source.sample(options.sample_rows, seed=options.seed, columns=names, where=options.where)
    kept, kept_keys = [], []
    directions = normalizes(options)
    widths = {c: vector_width(c, find_field(source, c).type, _first_vector(table.column(c))) for c in columns}
    rows = [np.empty((len(table), widths[c]), options.precision) for c in columns]
    invalid, n_usable = InvalidRows(), 0
    for batch in table.to_batches():
        keys = batch.column(0)
        vectors = {
            c: decode(c, batch.column(c), widths[c], directions=directions, keys=keys) for c in columns
        }
        invalid.update(keys, vectors)
        usable = np.flatnonzero(np.logical_and.reduce([v.usable for v in vectors.values()]))
        for v, held in zip(vectors.values(), rows, strict=True):
            chosen = (v.normalized if directions else v.chosen)(usable, options.precision)
            held[n_usable : n_usable + len(usable)] = chosen
        kept.append(batch.select(list(others)).take(pa.array(usable)))
        kept_keys.append(keys.take(pa.array(usable)))
        n_usable += len(usable)
    if n_usable < 2:
        raise InvalidVectorsError(
            f"Only {n_usable} of {len(table):,} sampled rows of {source.describe()} can be compared:"
            f" {invalid.describe() or 'there are no others'}."
        )
    del table, batch, keys, vectors, v, chosen  # pass 1 comes on top of what is still held here
    release_memory()
    schema = pa.schema([find_field(source, name) for name in others])
    held_others = pa.Table.from_batches(kept) if kept else schema.empty_table()
    return Sample(
        columns,
        tuple(held[:n_usable] for held in rows),
        pairwise_rows(n_usable, options.seed),
        held_others,
        pa.concat_arrays(kept_keys),
    )


def pairwise_rows(n: int, seed: int) -> NDArray[np.intp]:
    """Positions of the sampled rows, n in all, on which pairwise work is done, ascending."""
    return np.sort(np.random.default_rng(seed).permutation(n)[:_PAIRWISE_ROWS])


def _first_vector(column: pa.ChunkedArray) -> pa.Array:
    """The first row that is not null, or no row."""
    for chunk in column.chunks:
        if chunk.null_count < len(chunk):
            return chunk.drop_null().slice(0, 1)
    return pa.nulls(0, column.type)


def normalizes(options: CompareOptions) -> bool:
    """Whether rows are scaled to unit length, so that a zero vector is unusable."""
    return options.normalize or options.kernel == "cosine"


class FittedMaps(NamedTuple):
    """A feature map per embedding, and their bandwidths: None for the cosine kernel."""

    maps: list[FeatureMap]
    bandwidths: Bandwidths | None


def fit_maps(sample: Sample, options: CompareOptions) -> FittedMaps:
    """Feature maps for all embeddings of a sample."""
    rows = dict(zip(sample.columns, sample.rows, strict=True))
    if options.kernel == "cosine":
        return FittedMaps([CosineMap(c, x.shape[1], True, options.precision) for c, x in rows.items()], None)
    if options.bandwidth is None:
        bandwidths = auto_bandwidths(sample.kernels, scale=options.bandwidth_scale)
    else:
        given = [sigma * options.bandwidth_scale for sigma in options.bandwidth]
        bandwidths = examine_bandwidths(sample.kernels, given)
    threads = options.threads or usable_cores()
    fitted = ordered_map(
        lambda c: _gaussian_map(c, rows[c], bandwidths[c].sigma, options, max(1, threads // len(rows))),
        rows,
        workers=min(threads, len(rows)),
    )
    with threadpool_limits(1, user_api="blas"):
        return FittedMaps(list(fitted), bandwidths)


def _gaussian_map(
    column: str, rows: NDArray[np.floating[Any]], sigma: float, options: CompareOptions, threads: int
) -> FeatureMap:
    shared = (column, rows.shape[1], options.normalize, options.precision, sigma)
    if options.features != "nystroem":
        return RandomFourierMap(*shared, options.n_features, options.seed, options.features == "orf")
    fitted = rows[:_LANDMARK_ROWS]
    if options.landmarks == "kmeans":
        z = kmeans_landmarks(fitted, options.n_features, seed=options.seed, threads=threads)
    else:
        z = uniform_landmarks(fitted, options.n_features, seed=options.seed)
    origin = np.zeros(rows.shape[1])
    if not options.normalize:  # a mean would follow a few rows that lie far out, at the others' expense
        origin += np.median(rows[:_PAIRWISE_ROWS], axis=0)
    found = NystroemMap(*shared, z, origin)
    unseen = rows[_LANDMARK_ROWS : _LANDMARK_ROWS + _PAIRWISE_ROWS]
    if options.landmarks == "uniform" or len(unseen) < _PAIRWISE_ROWS:
        return found
    return subspace_map(found, single(fitted), single(unseen), seed=options.seed)


def sample_features(sample: Sample, maps: Sequence[FeatureMap]) -> NDArray[np.float64]:
    """Whitened features of all sampled rows, shape (n, p)."""
    found = np.empty((len(sample.rows[0]), sum(m.n_features for m in maps)))
    for start in range(0, len(found), _CHUNK_ROWS):
        chunk = slice(start, start + _CHUNK_ROWS)
        found[chunk] = np.concatenate(
            [m.features(single(x[chunk])) for m, x in zip(maps, sample.rows, strict=True)], axis=1
        )
    return found


def single(rows: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Rows to compute with: those kept in half precision in single precision."""
    return rows.astype(np.float32) if rows.dtype == np.float16 else rows


def evaluated_rows(sample: Sample, maps: Sequence[FeatureMap], spectrum: Spectrum) -> SampledRows:
    """What clusters are proposed and judged on: the sample, or as many of its rows as memory allows.

    Candidates are judged by the features' kernel, and what is listed by the kernel itself; of a small sample
    all are; the cosine kernel is shifted into [0, 1], so that it can't be negative.
    """
    widths = [m.n_features for m in maps]
    n = min(len(sample.rows[0]), max(_EXACT_ROWS, _LARGEST_EVALUATED // sum(widths)))
    features = [np.empty((n, width), np.float32) for width in widths]
    scores = [np.empty((n, len(end.eigenvalues)), np.float32) for end in spectrum.ends]
    for start in range(0, n, _CHUNK_ROWS):
        chunk = slice(start, min(start + _CHUNK_ROWS, n))
        both = [m.features(single(x[chunk])) for m, x in zip(maps, sample.rows, strict=True)]
        stacked = np.concatenate(both, axis=1)
        for held, phi in zip(features, both, strict=True):
            held[chunk] = phi
        for end, found in enumerate(scores):
            found[chunk] = spectrum.scores(end, stacked)
    kernels = features
    sigmas = [m.sigma for m in maps]
    gaussian = [(x[:n], s) for x, s in zip(sample.rows, sigmas, strict=True) if s is not None]
    if not gaussian:
        kernels = [_shifted(f) for f in features]
    elif n <= _EXACT_ROWS:
        kernels = [_exact_factor(x, s) for x, s in gaussian]
    exact = [by_features(k) for k in kernels]
    if gaussian and n > _EXACT_ROWS:
        exact = [by_gaussian(x, s) for x, s in gaussian]
    first, second = spectrum.ends
    return SampledRows(
        (features[0], features[1]),
        (kernels[0], kernels[1]),
        (exact[0], exact[1]),
        (scores[0], scores[1]),
        (first.eigenvalues, second.eigenvalues),
    )


def _shifted(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Features of (1 + k) / 2."""
    ones = np.ones((len(features), 1), np.float32)
    return np.concatenate([features, ones], axis=1) * np.float32(np.sqrt(0.5))


def _exact_factor(rows: NDArray[np.floating[Any]], sigma: float) -> NDArray[np.float32]:
    """L with K = L Lᵀ, but for a millionth on the diagonal, which makes it positive where rows repeat."""
    kernel = gaussian_kernel(rows, rows, sigma)
    kernel[np.diag_indices(len(kernel))] += 1e-6
    return np.asarray(np.linalg.cholesky(kernel), np.float32)


def map_error(sample: Sample, maps: Sequence[FeatureMap], eta: float) -> float:
    """How far the feature maps may shift an eigenvalue: the spectral norm of their error on the sample.

    With E = (K_A - Φ_A Φ_Aᵀ) - η (K_B - Φ_B Φ_Bᵀ) over n sampled rows, no eigenvalue of the sampled
    difference moves by more than |E|/n (Weyl). Zero for exact maps.
    """
    n = len(sample.pairwise)
    error = np.zeros((n, n), single(sample.rows[0][:0]).dtype)
    with threadpool_limits(1, user_api="blas"):  # threads wait for each other in the iteration
        for m, x, weight in zip(maps, sample.rows, (1.0, -eta), strict=True):
            if m.sigma is None:
                return 0.0
            phi = m.features(single(x[sample.pairwise])).astype(error.dtype)
            lost = sample.kernels[m.column].matrix(m.sigma)
            lost -= phi @ phi.T
            lost *= weight
            error += lost
        frobenius = float(np.linalg.norm(error)) / n
        if n < 4 or frobenius < 1e-9:  # no iteration starts on zeros; the norm bounds what it would find
            return frobenius
        start = np.random.default_rng(0).standard_normal(n).astype(error.dtype)
        largest = eigsh(error, k=1, which="LM", v0=start, tol=1e-3, return_eigenvectors=False)
    return float(abs(largest[0])) / n
