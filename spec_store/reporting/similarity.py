"""How alike rows are in each embedding: neighbours, similarities in clusters and across, kernel blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..spectral.features import gaussian_kernel
from .sample import ReportSample

__all__ = ["KernelBlocks", "Neighbours", "Spread", "kernel_blocks", "nearest", "similarities", "spreads"]

# Rows of one cluster, or pairs of rows, that stand for all.
_MOST_MEMBERS = 60
_MOST_OTHERS = 200


@dataclass(frozen=True)
class Neighbours:
    """The answer of one embedding to one row as a query.

    Attributes
    ----------
    rows
        Positions in the sample, nearest first; the query is not among them.
    members
        Which of them are members of the query's cluster.
    n_wide, n_wide_members
        As many of the nearest sampled rows as the cluster has other members there, and how many of these rows
        are members.
    """

    rows: tuple[int, ...]
    members: tuple[bool, ...]
    n_wide: int
    n_wide_members: int


@dataclass(frozen=True)
class Spread:
    """Similarities of members to each other, and to rows that are not members, each a sample of pairs."""

    within: NDArray[np.float32]
    across: NDArray[np.float32]


@dataclass(frozen=True)
class KernelBlocks:
    """The kernel of some rows of some clusters, in each embedding.

    Attributes
    ----------
    clusters
        (number, rows) of each block, in order.
    kernels
        By column, shape (n, n), values in [0, 1].
    """

    clusters: tuple[tuple[int, int], ...]
    kernels: Mapping[str, NDArray[np.float32]]


def similarities(x: NDArray[np.float32], y: NDArray[np.float32], sigma: float | None) -> NDArray[np.float32]:
    """The run's kernel of all pairs of rows, shape (len(x), len(y)).

    Parameters
    ----------
    sigma
        The bandwidth of the Gaussian kernel; None is the cosine kernel.
    """
    if sigma is not None:
        return np.asarray(gaussian_kernel(x, y, sigma), np.float32)
    return np.asarray(x @ y.T, np.float32)


def nearest(sample: ReportSample, column: str, query: int, number: int, n: int) -> Neighbours:
    """The `n` sampled rows of the highest cosine similarity to a sampled row."""
    x = sample.vectors[column]
    lengths = np.linalg.norm(x, axis=1)
    cosines = x @ x[query] / np.where(lengths > 0, lengths, 1)
    cosines[query] = -np.inf
    ranked = np.argsort(-cosines, kind="stable")[:-1]
    members = sample.members[ranked, sample.numbers.index(number)]
    n_wide = int(members.sum())
    return Neighbours(
        tuple(map(int, ranked[:n])), tuple(map(bool, members[:n])), n_wide, int(members[:n_wide].sum())
    )


def spreads(
    sample: ReportSample, number: int, bandwidths: Mapping[str, float | None], seed: int
) -> dict[str, Spread]:
    """By column, similarities within a cluster and across its edge; none where fewer than two are sampled.

    The same pairs of rows in each column.
    """
    j = sample.numbers.index(number)
    rng = np.random.default_rng([seed, number])
    members = rng.permutation(np.flatnonzero(sample.members[:, j]))[:_MOST_MEMBERS]
    others = rng.permutation(np.flatnonzero(~sample.members[:, j]))[:_MOST_OTHERS]
    if len(members) < 2 or not len(others):
        return {}
    pairs = np.triu_indices(len(members), k=1)
    found = {}
    for column, x in sample.vectors.items():
        within = similarities(x[members], x[members], bandwidths[column])[pairs]
        across = similarities(x[members], x[others], bandwidths[column]).ravel()
        found[column] = Spread(within, across)
    return found


def kernel_blocks(
    sample: ReportSample, numbers: Sequence[int], bandwidths: Mapping[str, float | None], *, rows: int
) -> KernelBlocks | None:
    """The kernel of the most typical sampled rows of some clusters; each row stands in the first of its own.

    None where none of them has a sampled row.
    """
    taken: set[int] = set()
    blocks: list[tuple[int, int]] = []
    order: list[int] = []
    for number in numbers:
        found = [int(i) for i in sample.most_typical(number, len(sample)) if int(i) not in taken][:rows]
        if found:
            taken.update(found)
            order += found
            blocks.append((number, len(found)))
    if not blocks:
        return None
    kernels = {
        column: np.clip(similarities(x[order], x[order], bandwidths[column]), 0, 1)
        for column, x in sample.vectors.items()
    }
    return KernelBlocks(tuple(blocks), kernels)
