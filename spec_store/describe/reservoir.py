"""A bounded sample of the texts of each cluster, and of all rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ..keys import hash_keys
from .members import Members

__all__ = ["Reservoir", "TextSample"]

_LONGEST_TEXT = 2_000
_MOST_TEXTS = 10_000


@dataclass(frozen=True)
class TextSample:
    """Sampled texts.

    Attributes
    ----------
    texts
        n different rows' texts, in the order of the rows.
    of_cluster
        Shape (K, n): the uniform sample of each cluster's members.
    of_table
        Shape (n,): the uniform sample of all rows.
    member
        Shape (K, n): whether the row is a member.
    sizes, n_rows
        Members with a text, shape (K,), and rows with one, sampled or not.
    """

    texts: list[str]
    of_cluster: NDArray[np.bool_]
    of_table: NDArray[np.bool_]
    member: NDArray[np.bool_]
    sizes: NDArray[np.int64]
    n_rows: int


class Reservoir:
    """Uniform samples without replacement: of the members of each cluster with a text, and of all rows.

    A row's priority is a hash of its place in the stream, and each sample is of the rows of least priority,
    so that it depends on the order of the rows, not on how they are cut into batches.

    Parameters
    ----------
    n_clusters
        K.
    seed
        Of the hash.
    n_texts
        At most so many are sampled, of 2,000 characters; twice as many may be held. Two fifths are of all
        rows, the others shared by the clusters, of which none gets more than a twentieth.
    """

    def __init__(self, n_clusters: int, *, seed: int, n_texts: int = _MOST_TEXTS) -> None:
        of_table = 2 * n_texts // 5
        of_cluster = min(n_texts // 20, (n_texts - of_table) // max(n_clusters, 1))
        self._limits = np.array([of_cluster] * n_clusters + [of_table])
        self._seed = seed
        self._sizes = np.zeros(n_clusters + 1, np.int64)
        # Sorted by sample and then by priority: a row is here once for each sample that it is in.
        self._samples = np.empty(0, np.int64)
        self._priorities = np.empty(0, np.uint64)
        self._rows = np.empty(0, np.int64)
        self._texts: dict[int, tuple[str, NDArray[np.int64]]] = {}

    def __len__(self) -> int:
        """Texts held."""
        return len(self._texts)

    def update(self, texts: pa.Array, members: Members, first_row: int) -> None:
        """Take in a batch.

        Parameters
        ----------
        texts
            Of the batch's compared rows, strings as `plain` gives them; null and empty ones take no part.
        first_row
            The place of the batch's first compared row among those of the stream.
        """
        if pa.types.is_dictionary(texts.type):
            texts = texts.cast(texts.type.value_type)
        present = np.flatnonzero(pc.greater(pc.binary_length(texts), 0).fill_null(False))
        at, clusters = members.joined(present)
        samples = np.concatenate([clusters, np.full(len(present), len(self._sizes) - 1)])
        self._sizes += np.bincount(samples, minlength=len(self._sizes))
        rows = np.concatenate([present[at], present]) + first_row
        priorities = hash_keys(pa.array(present + first_row), self._seed)
        priorities = np.concatenate([priorities[at], priorities])
        low = priorities < self._bars()[samples]
        if low.any():
            self._merge(samples[low], priorities[low], rows[low])
            self._hold(texts, members, first_row)

    def _bars(self) -> NDArray[np.uint64]:
        """The priority that a row must be under to get into each sample."""
        ends = np.searchsorted(self._samples, np.arange(len(self._limits)), side="right")
        full = np.bincount(self._samples, minlength=len(self._limits)) >= self._limits
        bars = np.full(len(self._limits), np.iinfo(np.uint64).max)
        bars[full] = self._priorities[ends[full] - 1]
        return bars

    def _merge(
        self, samples: NDArray[np.int64], priorities: NDArray[np.uint64], rows: NDArray[np.int64]
    ) -> None:
        samples = np.concatenate([self._samples, samples])
        priorities = np.concatenate([self._priorities, priorities])
        order = np.lexsort((priorities, samples))
        samples = samples[order]
        rank = np.arange(len(samples)) - np.searchsorted(samples, samples)
        kept = rank < self._limits[samples]
        self._samples, self._priorities = samples[kept], priorities[order][kept]
        self._rows = np.concatenate([self._rows, rows])[order][kept]

    def _hold(self, texts: pa.Array, members: Members, first_row: int) -> None:
        """Take the texts of this batch's sampled rows, and let go of those that have been displaced."""
        sampled = np.unique(self._rows)
        new = sampled[sampled >= first_row]
        chosen = pc.utf8_slice_codeunits(texts.take(pa.array(new - first_row)), 0, _LONGEST_TEXT)
        starts = np.searchsorted(members.rows, new - first_row)
        stops = np.searchsorted(members.rows, new - first_row, side="right")
        for row, text, start, stop in zip(
            new.tolist(), chosen.to_pylist(), starts.tolist(), stops.tolist(), strict=True
        ):
            self._texts[row] = text, members.clusters[start:stop].copy()
        if len(self._texts) > 2 * len(sampled):
            self._texts = {row: self._texts[row] for row in sampled.tolist()}

    def sample(self) -> TextSample:
        """What is held now."""
        rows, at = np.unique(self._rows, return_inverse=True)
        held = [self._texts[row] for row in rows.tolist()]
        drawn = np.zeros((len(self._limits), len(rows)), bool)
        drawn[self._samples, at] = True
        member = np.zeros((len(self._limits) - 1, len(rows)), bool)
        for i, (_, clusters) in enumerate(held):
            member[clusters, i] = True
        return TextSample(
            [text for text, _ in held],
            drawn[:-1],
            drawn[-1],
            member,
            self._sizes[:-1],
            int(self._sizes[-1]),
        )
