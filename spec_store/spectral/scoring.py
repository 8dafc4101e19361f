"""Pass 2: from a batch of vectors to the result columns, once the clusters are known."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..stores.vectors import decode
from .clusters import Cluster, Membership, membership
from .features import FeatureMap

__all__ = ["RESULT_COLUMNS", "Scorer", "result_schema"]

RESULT_COLUMNS = ("cluster", "clusters", "side", "score", "scores")


def result_schema(prefix: str) -> pa.Schema:
    """The result columns, all nullable: a row that could not be compared is null in each."""
    types = (pa.int32(), pa.list_(pa.int32()), pa.string(), pa.float32(), pa.list_(pa.float32()))
    return pa.schema([(f"{prefix}_{n}", t) for n, t in zip(RESULT_COLUMNS, types, strict=True)])


@dataclass(frozen=True)
class Scorer:
    """Relative membership of rows in clusters; pure, so it may run in several threads.

    Parameters
    ----------
    maps
        The feature maps of both embeddings.
    clusters
        Strongest first; their position is their number.
    prefix
        Result columns are named ``{prefix}_cluster`` and so on.
    """

    maps: Sequence[FeatureMap]
    clusters: Sequence[Cluster]
    prefix: str
    _weights: list[tuple[NDArray[Any], NDArray[Any]]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        whitenings = [m.whitening() for m in self.maps]
        widths = [
            m.n_columns if t is None else t.shape[1] for m, t in zip(self.maps, whitenings, strict=True)
        ]
        weights = np.zeros((sum(widths), 0))
        if self.clusters:
            weights = np.stack([c.weights for c in self.clusters], axis=1)
        per_map = []
        for i, (m, t) in enumerate(zip(self.maps, whitenings, strict=True)):
            w = weights[sum(widths[:i]) : sum(widths[: i + 1])]
            offsets = np.array([c.offsets[i] for c in self.clusters])
            per_map.append(((w if t is None else t @ w).astype(m.dtype), offsets.astype(m.dtype)))
        object.__setattr__(self, "_weights", per_map)

    @property
    def schema(self) -> pa.Schema:
        """The result columns."""
        return result_schema(self.prefix)

    @property
    def token(self) -> str:
        """Equal for scorers that give equal results for equal rows."""
        h = hashlib.blake2b(self.prefix.encode(), digest_size=12)
        for m, (w, offset) in zip(self.maps, self._weights, strict=True):
            h.update(m.digest.encode() + w.tobytes() + offset.tobytes())
        for c in self.clusters:
            h.update(repr((c.end, c.held_scale, c.score_scale, c.contribution)).encode())
        return h.hexdigest()

    def membership(self, batch: pa.RecordBatch) -> tuple[Membership, NDArray[np.bool_]]:
        """Membership of each row, zero where it is not usable; and which rows are usable, shape (n,)."""
        vectors = [
            decode(m.column, batch.column(m.column), m.width, directions=m.normalize, keys=batch.column(0))
            for m in self.maps
        ]
        usable = np.logical_and.reduce([v.usable for v in vectors])
        parts = []
        with np.errstate(invalid="ignore", over="ignore"):  # rows that are not usable may hold anything
            for m, v, (w, offset) in zip(self.maps, vectors, self._weights, strict=True):
                part = m.project(v, w)
                part -= offset
                part[~usable] = 0
                parts.append(part)
        return membership(parts[0], parts[1], self.clusters), usable

    def compute(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The result columns of a batch that holds the key first, then the embeddings."""
        return self._columns(*self.membership(batch))

    def _columns(self, found: Membership, usable: NDArray[np.bool_]) -> pa.RecordBatch:
        n, k = found.relative.shape
        order, n_member = found.ranked()
        is_member = n_member > 0
        first = order[:, 0] if k else np.zeros(n, np.intp)
        at = np.arange(n)
        best = np.where(is_member, first, found.relative.argmax(axis=1)) if k else first
        score = found.relative[at, best] if k else np.zeros(n, np.float32)
        sides = pa.array([self.maps[c.end].column for c in self.clusters], pa.string())
        strongest = pa.array(first.astype(np.int32), mask=~(is_member & usable))
        ranks = order[np.arange(k) < n_member[:, None]].astype(np.int32)
        blank = ~usable
        arrays = [
            strongest,
            _lists(ranks, n_member, blank),
            sides.take(strongest),
            pa.array(score, mask=blank | (k == 0)),
            _lists(found.relative[usable].ravel(), np.full(n, k), blank),
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)


def _lists(values: NDArray[Any], lengths: NDArray[np.integer[Any]], blank: NDArray[np.bool_]) -> pa.Array:
    """A list array whose blank rows are null and hold no values."""
    offsets = np.concatenate([[0], np.cumsum(np.where(blank, 0, lengths))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values), mask=pa.array(blank))
