"""Pass 2: from a batch of vectors to the result columns, once the clusters are known."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..errors import InputError
from ..stores.vectors import Vectors, decode
from .clusters import Rule
from .features import FeatureMap
from .spectrum import Spectrum

__all__ = [
    "MEMBER",
    "MODES_COLUMN",
    "RESULT_COLUMNS",
    "Membership",
    "ModeWeights",
    "Scorer",
    "ScorerOfPairs",
    "result_schema",
]

RESULT_COLUMNS = ("cluster", "clusters", "side", "score", "scores")
MODES_COLUMN = "modes"

_FORMAT = 1

MEMBER = 0.5
"""A row is a member of a cluster from this relative membership; the median member has 1."""


def result_schema(prefix: str, *, modes: bool = False) -> pa.Schema:
    """The result columns, all nullable: a row that could not be compared is null in each."""
    types = (pa.int32(), pa.list_(pa.int32()), pa.string(), pa.float32(), pa.list_(pa.float32()))
    fields = [(f"{prefix}_{n}", t) for n, t in zip(RESULT_COLUMNS, types, strict=True)]
    return pa.schema(fields + [(f"{prefix}_{MODES_COLUMN}", pa.list_(pa.float32()))] * modes)


@dataclass(frozen=True)
class Membership:
    """Rows of a batch against all clusters: n rows, K clusters.

    Attributes
    ----------
    relative
        Shape (n, K), float32: 1 for the median member, 0.5 at the cluster's threshold, at least 0.
    """

    relative: NDArray[np.float32]

    @property
    def member(self) -> NDArray[np.bool_]:
        """Shape (n, K): whether the row is a member of the cluster."""
        return np.greater_equal(self.relative, MEMBER)

    def ranked(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Each row's clusters by relative membership, shape (n, K); and of how many it is a member."""
        order = np.argsort(-self.relative, axis=1, kind="stable")
        return order, self.member.sum(axis=1)


@dataclass(frozen=True)
class ModeWeights:
    """The modes whose scores are written: those of the first end, then those of the second, strongest first.

    Attributes
    ----------
    weights, offsets
        Shapes (p, k) and (2, k), see `Modes`.
    sides
        Where each embedding's features are among all p.
    """

    weights: NDArray[np.float64]
    offsets: NDArray[np.float64]
    sides: tuple[slice, ...]

    @classmethod
    def of(cls, spectrum: Spectrum) -> ModeWeights:
        """All modes of a spectrum."""
        first, second = spectrum.ends
        return cls(
            np.concatenate([first.weights, second.weights], axis=1),
            np.concatenate([first.offsets, second.offsets], axis=1),
            spectrum.sides,
        )


@dataclass(frozen=True)
class Scorer:
    """Relative membership of rows in clusters; pure, so it may run in several threads.

    Parameters
    ----------
    maps
        The feature maps of both embeddings.
    clusters
        In any order; results go by their numbers.
    prefix
        Result columns are named ``{prefix}_cluster`` and so on.
    modes
        Those whose scores are written too, as ``{prefix}_modes``.
    """

    maps: Sequence[FeatureMap]
    clusters: Sequence[Rule]
    prefix: str
    modes: ModeWeights | None = None
    _weights: list[tuple[NDArray[Any], NDArray[Any]]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        per_map = []
        for end, m in enumerate(self.maps):
            own = [c for c in self.clusters if c.end == end]
            centres = [np.stack([c.centre for c in own], axis=1)] if own else []
            offsets = [np.array([c.threshold for c in own])]
            if self.modes is not None:
                centres.append(self.modes.weights[self.modes.sides[end]])
                offsets.append(self.modes.offsets[end])
            t = m.whitening()
            width = m.n_columns if t is None else t.shape[1]
            w = np.concatenate([np.zeros((width, 0)), *centres], axis=1)
            per_map.append(
                ((w if t is None else t @ w).astype(m.dtype), np.concatenate(offsets).astype(m.dtype))
            )
        object.__setattr__(self, "_weights", per_map)

    @property
    def schema(self) -> pa.Schema:
        """The result columns."""
        return result_schema(self.prefix, modes=self.modes is not None)

    @property
    def token(self) -> str:
        """Equal for scorers that give equal results for equal rows."""
        h = hashlib.blake2b(self.prefix.encode(), digest_size=12)
        for m, (w, offset) in zip(self.maps, self._weights, strict=True):
            h.update(m.digest.encode() + w.tobytes() + offset.tobytes())
        for c in self.clusters:
            h.update(repr((c.number, c.end, c.typical)).encode())
        return h.hexdigest()

    def to_bytes(self) -> bytes:
        """All there is to know but the maps, as one .npz: JSON and arrays, no pickle."""
        modes = self.modes
        header = {
            "format": _FORMAT,
            "prefix": self.prefix,
            "clusters": [[c.number, c.end, c.threshold, c.typical] for c in self.clusters],
            "sides": None if modes is None else [[s.start, s.stop] for s in modes.sides],
        }
        arrays = {f"centre{i}": c.centre for i, c in enumerate(self.clusters)}
        if modes is not None:
            arrays |= {"weights": modes.weights, "offsets": modes.offsets}
        buffer = io.BytesIO()
        np.savez(buffer, header=np.frombuffer(json.dumps(header).encode(), np.uint8), **arrays)  # type: ignore[arg-type]
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, maps: Sequence[FeatureMap]) -> Scorer:
        """What `to_bytes` gave, with the maps that it had. Raises InputError for a newer format."""
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            header = json.loads(stored["header"].tobytes())
            if header["format"] != _FORMAT:
                raise InputError(f"Rules of clusters have format {header['format']}; expected {_FORMAT}.")
            rules = [
                Rule(number, end, stored[f"centre{i}"], threshold, typical)
                for i, (number, end, threshold, typical) in enumerate(header["clusters"])
            ]
            modes = None
            if header["sides"] is not None:
                sides = tuple(slice(start, stop) for start, stop in header["sides"])
                modes = ModeWeights(stored["weights"], stored["offsets"], sides)
        return cls(maps, rules, header["prefix"], modes)

    def membership(self, batch: pa.RecordBatch) -> tuple[Membership, NDArray[np.bool_]]:
        """Membership of each row, zero where it is not usable; and which rows are usable, shape (n,)."""
        found, usable, _ = self._scored(batch)
        return found, usable

    def compute(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The result columns of a batch that holds the key first, then the embeddings."""
        return self._columns(*self._scored(batch))

    def _scored(
        self, batch: pa.RecordBatch
    ) -> tuple[Membership, NDArray[np.bool_], NDArray[np.float32] | None]:
        vectors = [_decoded(m, batch) for m in self.maps]
        weights = [w for w, _ in self._weights]
        products = [_products(m, v, w) for m, v, w in zip(self.maps, vectors, weights, strict=True)]
        return self._found(products, np.logical_and.reduce([v.usable for v in vectors]))

    def _found(
        self, products: Sequence[NDArray[Any]], usable: NDArray[np.bool_]
    ) -> tuple[Membership, NDArray[np.bool_], NDArray[np.float32] | None]:
        """From the products of both embeddings' columns and weights, shape (n, k_E), changed in place."""
        relative = np.zeros((len(usable), len(self.clusters)), np.float32)
        modes = None
        for end, parts in enumerate(products):
            with np.errstate(invalid="ignore", over="ignore"):
                parts -= self._weights[end][1]
            parts[~usable] = 0
            at = [i for i, c in enumerate(self.clusters) if c.end == end]
            spread = np.array(
                [2 * max(self.clusters[i].typical - self.clusters[i].threshold, 1e-12) for i in at]
            )
            relative[:, at] = np.maximum(MEMBER + parts[:, : len(at)] / spread.astype(parts.dtype), 0)
            if self.modes is not None:
                modes = parts[:, len(at) :] if modes is None else modes + parts[:, len(at) :]
        relative[~usable] = 0
        return Membership(relative), usable, modes

    def _columns(
        self, found: Membership, usable: NDArray[np.bool_], modes: NDArray[np.float32] | None
    ) -> pa.RecordBatch:
        n, k = found.relative.shape
        order, n_member = found.ranked()
        is_member = n_member > 0
        first = order[:, 0] if k else np.zeros(n, np.intp)
        score = found.relative[np.arange(n), first] if k else np.zeros(n, np.float32)
        numbers = np.array([c.number for c in self.clusters], np.int32)
        none = ~(is_member & usable)
        sides = pa.array([self.maps[c.end].column for c in self.clusters], pa.string())
        ranks = numbers[order[np.arange(k) < n_member[:, None]]] if k else np.zeros(0, np.int32)
        blank = ~usable
        arrays = [
            pa.array(numbers[first] if k else np.zeros(n, np.int32), mask=none),
            _lists(pa.array(ranks), n_member, blank),
            sides.take(pa.array(first.astype(np.int32), mask=none)),
            pa.array(score, mask=blank | (k == 0)),
            self._by_number(found.relative[usable], numbers, blank),
        ]
        if modes is not None:
            written = modes[usable].astype(np.float32)
            arrays.append(_lists(pa.array(written.ravel()), np.full(n, written.shape[1]), blank))
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def _by_number(
        self, relative: NDArray[np.float32], numbers: NDArray[np.int32], blank: NDArray[np.bool_]
    ) -> pa.Array:
        """Lists in which the score of cluster k is the k-th, and null for a number that no cluster has."""
        width = int(numbers.max(initial=0))
        values = np.zeros((len(relative), width), np.float32)
        values[:, numbers - 1] = relative
        absent = np.ones(width, bool)
        absent[numbers - 1] = False
        mask = np.broadcast_to(absent, values.shape).ravel() if absent.any() else None
        return _lists(pa.array(values.ravel(), mask=mask), np.full(len(blank), width), blank)


@dataclass(frozen=True)
class ScorerOfPairs:
    """Several scorers over the same rows; the columns of each embedding are computed once.

    Parameters
    ----------
    scorers
        One per pair of embeddings, of different prefixes.
    """

    scorers: Sequence[Scorer]

    @property
    def maps(self) -> list[FeatureMap]:
        """Every embedding's feature map, once."""
        return list({m.column: m for scorer in self.scorers for m in scorer.maps}.values())

    @property
    def schema(self) -> pa.Schema:
        """The result columns of all."""
        return pa.schema([f for scorer in self.scorers for f in scorer.schema])

    @property
    def token(self) -> str:
        """Equal for scorers that give equal results for equal rows."""
        text = " ".join(scorer.token for scorer in self.scorers)
        return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()

    def compute(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The result columns of a batch that holds the key first, then the embeddings."""
        products: dict[tuple[int, str], NDArray[Any]] = {}
        usable: dict[str, NDArray[np.bool_]] = {}
        for m in self.maps:
            vectors = _decoded(m, batch)
            usable[m.column] = vectors.usable
            weights = {
                i: scorer._weights[[own.column for own in scorer.maps].index(m.column)][0]
                for i, scorer in enumerate(self.scorers)
                if m.column in {own.column for own in scorer.maps}
            }
            stacked = _products(m, vectors, np.concatenate(list(weights.values()), axis=1))
            cuts = np.cumsum([w.shape[1] for w in weights.values()])[:-1]
            for i, part in zip(weights, np.split(stacked, cuts, axis=1), strict=True):
                products[i, m.column] = part
        columns: list[pa.Array] = []
        for i, scorer in enumerate(self.scorers):
            names = [m.column for m in scorer.maps]
            found = scorer._found([products[i, n] for n in names], usable[names[0]] & usable[names[1]])
            columns += scorer._columns(*found).columns
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)


def _decoded(m: FeatureMap, batch: pa.RecordBatch) -> Vectors:
    column = batch.column(m.column)
    return decode(m.column, column, m.width, directions=m.normalize, keys=batch.column(0))


def _products(m: FeatureMap, vectors: Vectors, weights: NDArray[Any]) -> NDArray[Any]:
    with np.errstate(invalid="ignore", over="ignore"):  # rows that are not usable may hold anything
        return m.project(vectors, weights)


def _lists(values: pa.Array, lengths: NDArray[np.integer[Any]], blank: NDArray[np.bool_]) -> pa.Array:
    """A list array whose blank rows are null and hold no values."""
    offsets = np.concatenate([[0], np.cumsum(np.where(blank, 0, lengths))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=pa.array(blank))
