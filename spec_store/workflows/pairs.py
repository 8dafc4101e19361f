"""Pairs of unit rows from a source: test rows, validation rows, and mini-batches of the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..alignment.fit import LARGEST_MINIBATCH, Pair
from ..alignment.kernel import Features
from ..alignment.start import PairMoments
from ..connector import Source, find_field, take_sample
from ..keys import hash_keys, smallest_hashes
from ..spectral.covariance import BatchSums, CovarianceAccumulator
from ..spectral.features import CosineMap
from ..stores.streaming import even_batches, ordered_map
from ..stores.vectors import InvalidRows, Vectors, decode, is_vector, vector_width

__all__ = [
    "SPLIT_SEED",
    "DecodedPair",
    "Gathered",
    "PairReader",
    "Split",
    "column_widths",
    "gather",
    "mini_batches",
    "training_sample",
]

# The split must be the same wherever a map is evaluated again.
SPLIT_SEED = 271_828
_DRAW_SEED = 314_159
_BUFFER_ROWS = LARGEST_MINIBATCH
_KEY_ROWS = 1 << 16


def column_widths(source: Source, pair: tuple[str, str]) -> tuple[int, int]:
    """The dimensions of two vector columns; that of variable-length lists is their first row's."""
    found = []
    for c in pair:
        kind = find_field(source, c).type
        example = None
        if is_vector(kind) and not pa.types.is_fixed_size_list(kind):
            first = next(iter(source.batches([c], batch_rows=1024)), None)
            example = None if first is None else first.column(1)
        found.append(vector_width(c, kind, example))
    return found[0], found[1]


@dataclass(frozen=True)
class PairReader:
    """Reads two embedding columns of a source as pairs of unit rows.

    Parameters
    ----------
    held_out
        Share of the rows that is never trained on, selected by a hash of their keys and `seed`: test rows.
    """

    source: Source
    columns: tuple[str, str]
    widths: tuple[int, int]
    held_out: float
    seed: int
    where: str | None = None
    batch_rows: int = 4096

    def batches(self, *more: str) -> Iterator[pa.RecordBatch]:
        """Keys and both columns, then `more`; of one size, however the store cuts its batches."""
        columns = [*self.columns, *more]
        batches = self.source.batches(columns, where=self.where, batch_rows=self.batch_rows)
        return even_batches(batches, self.batch_rows)

    def uniform(self, keys: pa.Array) -> NDArray[np.float64]:
        """A number in [0, 1) for each row; those below `held_out` are test rows."""
        return hash_keys(keys, SPLIT_SEED + self.seed) / 2.0**64

    def decoded(self, batch: pa.RecordBatch) -> DecodedPair:
        """Both columns of a batch."""
        vectors = {
            c: decode(c, batch.column(c), w, directions=True, keys=batch.column(0))
            for c, w in zip(self.columns, self.widths, strict=True)
        }
        return DecodedPair(vectors, np.logical_and.reduce([v.usable for v in vectors.values()]))


@dataclass(frozen=True)
class DecodedPair:
    """Both columns of a batch: vectors by column, and which rows are usable in both, shape (n,)."""

    vectors: dict[str, Vectors]
    usable: NDArray[np.bool_]

    def unit_rows(self, rows: NDArray[np.bool_]) -> Pair:
        """Those of the rows that are usable, at unit length."""
        at = np.flatnonzero(rows & self.usable)
        a, b = (v.normalized(at, "float32") for v in self.vectors.values())
        return Pair(a, b)


@dataclass(frozen=True)
class Split:
    """Which rows are for what, by their uniform numbers: first test rows, then validation rows, then
    training.

    Attributes
    ----------
    held_out
        Below it lie test rows,
    test
        and below this, no larger, those on which maps are evaluated.
    skip
        From here on rows are for training.
    """

    held_out: float
    test: float
    skip: float

    @classmethod
    def of(cls, reader: PairReader, n_rows: int, *, validation_rows: int, held_out_rows: int) -> Split:
        """For about so many rows of either kind; a tenth of the rest at most for validation."""
        held_out = reader.held_out
        test = min(held_out, held_out_rows / max(n_rows, 1))
        skip = held_out + min((1 - held_out) * 0.1, validation_rows / max(n_rows, 1))
        return cls(held_out, test, skip)


def training_sample(reader: PairReader, split: Split, n: int) -> Pair:
    """At most `n` training rows, or about as many: those of the smallest hashes. Cost: a pass over the
    keys."""
    drawn = int(1.05 * n / (1 - split.skip)) + 1
    keys = (
        (b.column(0), b.column(0))
        for b in reader.source.batches([], where=reader.where, batch_rows=_KEY_ROWS)
    )
    chosen, positions = smallest_hashes(keys, drawn, _DRAW_SEED + reader.seed)
    if not len(chosen):
        return _joined([], reader.widths)
    training = np.flatnonzero(reader.uniform(chosen) >= split.skip)[:n]
    table = take_sample(
        reader.source,
        chosen.take(pa.array(training)),
        positions[training],
        list(reader.columns),
        reader.where,
    )
    return _joined(
        [reader.decoded(b).unit_rows(np.ones(len(b), bool)) for b in table.to_batches()], reader.widths
    )


@dataclass
class Gathered:
    """What one pass over the rows gives.

    Attributes
    ----------
    moments
        Of the training rows that the fit is to see; of their vectors as they are.
    feature_moments
        The same of their features; None where none were asked for.
    n_train, n_fitted, n_held_out
        Usable rows for training, those of them in the moments, and those for the test.
    validation, held_out
        Pairs of unit rows: validation rows, on which steps are compared, and a sample of the test rows.
    skip
        Rows whose uniform number is below this are not for training.
    members
        For each sampled test row, its values of the extra column; None where none was asked for.
    invalid
        Rows that were skipped.
    """

    moments: PairMoments
    feature_moments: PairMoments | None
    n_train: int
    n_fitted: int
    n_held_out: int
    validation: Pair
    held_out: Pair
    skip: float
    members: list[Any] | None
    invalid: InvalidRows = field(default_factory=InvalidRows)


def gather(
    reader: PairReader,
    split: Split,
    *,
    features: Features | None = None,
    share: float = 1.0,
    members: str | None,
    progress: Callable[[int], None],
    workers: int,
) -> Gathered:
    """One pass: the training rows' moments, and seeded samples of the other two kinds.

    Parameters
    ----------
    features
        What of the source the moments are to hold beside its vectors.
    share
        Of the training rows, the seeded share whose moments are taken.

    Notes
    -----
    Memory: O(d²), and the two samples, whose sizes hold on average.
    """
    own, target = (
        CosineMap(c, w, True, "float32") for c, w in zip(reader.columns, reader.widths, strict=True)
    )
    acc = CovarianceAccumulator([own, *([features.nystroem] if features else []), target])

    def part(batch: pa.RecordBatch) -> _Part:
        at = reader.uniform(batch.column(0))
        pair = reader.decoded(batch)
        invalid = InvalidRows()
        invalid.update(batch.column(0), pair.vectors)
        sampled = pair.usable & (at < split.test)
        training = at >= split.skip
        fitted = training
        if share < 1:
            fitted = training & (hash_keys(batch.column(0), _DRAW_SEED + reader.seed) / 2.0**64 < share)
        return _Part(
            n_rows=len(batch),
            n_train=int((pair.usable & training).sum()),
            n_held_out=int((pair.usable & (at < split.held_out)).sum()),
            training=acc.batch_sums(acc.columns(batch.filter(pa.array(fitted)))),
            validation=pair.unit_rows((at >= split.held_out) & ~training),
            held_out=pair.unit_rows(sampled),
            members=batch.column(members).filter(pa.array(sampled)).to_pylist() if members else [],
            invalid=invalid,
        )

    validation: list[Pair] = []
    held_out: list[Pair] = []
    values: list[Any] = []
    n_train, n_held_out = 0, 0
    invalid = InvalidRows()
    extra = (members,) if members else ()
    for found in ordered_map(part, reader.batches(*extra), workers=workers):
        invalid.merge(found.invalid)
        n_train += found.n_train
        n_held_out += found.n_held_out
        validation.append(found.validation)
        held_out.append(found.held_out)
        values += found.members
        acc.add(found.training)
        progress(found.n_rows)
    moment = acc.second_moment()
    mean, second = moment.mean, moment.matrix
    a, b = acc.slices[0], acc.slices[-1]
    return Gathered(
        moments=PairMoments(mean[a], mean[b], second[a, a], second[a, b], second[b, b]),
        feature_moments=features.moments(mean, second) if features and acc.n_rows else None,
        n_train=n_train,
        n_fitted=acc.n_rows,
        n_held_out=n_held_out,
        validation=_joined(validation, reader.widths),
        held_out=_joined(held_out, reader.widths),
        skip=split.skip,
        members=values if members else None,
        invalid=invalid,
    )


@dataclass(frozen=True)
class _Part:
    """What one batch adds to `Gathered`."""

    n_rows: int
    n_train: int
    n_held_out: int
    training: BatchSums
    validation: Pair
    held_out: Pair
    members: list[Any]
    invalid: InvalidRows


def _joined(pairs: list[Pair], widths: tuple[int, int]) -> Pair:
    parts = [[p[i] for p in pairs] or [np.empty((0, widths[i]), np.float32)] for i in (0, 1)]
    return Pair(np.concatenate(parts[0]), np.concatenate(parts[1]))


def mini_batches(
    reader: PairReader, n_train: int, *, skip: float, steps: int, rows: int, seed: int
) -> Iterator[Pair]:
    """Endless mini-batches of training rows, in an order that a seeded shuffle buffer mixes.

    Parameters
    ----------
    n_train
        Training rows, about.
    skip
        Rows whose uniform number is below this are test or validation rows.
    steps, rows
        Mini-batches wanted, and rows in each. Where the table holds more rows than they need, a seeded
        share of it is used, so that one pass over the table gives them all.

    Notes
    -----
    Memory: 32,768 pairs. A training set that fits there is read once.
    """
    rng = np.random.default_rng([seed, steps])
    share = min(1.0, 1.1 * steps * rows / max(n_train, 1))
    buffer = _ShuffleBuffer(reader.widths, rng)
    rows = min(rows, max(int(n_train * share), 1))
    fits = n_train * share <= _BUFFER_ROWS
    while True:
        for batch in reader.batches():
            keys = batch.column(0)
            drawn = (hash_keys(keys, _DRAW_SEED + seed) / 2.0**64) < share
            buffer.add(reader.decoded(batch).unit_rows((reader.uniform(keys) >= skip) & drawn))
            while not fits and len(buffer) >= _BUFFER_ROWS:
                yield buffer.take(rows)
        if not len(buffer):
            return
        while fits:
            yield buffer.draw(rows)
        while len(buffer) >= rows:
            yield buffer.take(rows)


class _ShuffleBuffer:
    def __init__(self, widths: tuple[int, int], rng: np.random.Generator) -> None:
        self._rows: list[NDArray[np.float32]] = [np.empty((0, w), np.float32) for w in widths]
        self._n = 0
        self._rng = rng

    def __len__(self) -> int:
        return self._n

    def add(self, pair: Pair) -> None:
        needed = self._n + len(pair.a)
        if needed > len(self._rows[0]):
            size = max(needed, min(2 * len(self._rows[0]), _BUFFER_ROWS + len(pair.a)))
            self._rows = [
                np.resize(r, (size, r.shape[1])) if len(r) else np.empty((size, r.shape[1]), np.float32)
                for r in self._rows
            ]
        for held, new in zip(self._rows, pair, strict=True):
            held[self._n : needed] = new
        self._n = needed

    def draw(self, n: int) -> Pair:
        """`n` rows, which stay."""
        at = self._rng.choice(self._n, size=min(n, self._n), replace=False)
        return Pair(self._rows[0][at], self._rows[1][at])

    def take(self, n: int) -> Pair:
        """`n` rows, which leave: rows from the end fill their places."""
        at = self._rng.choice(self._n, size=n, replace=False)
        pair = Pair(self._rows[0][at], self._rows[1][at])
        left = self._n - n
        stay = np.setdiff1d(np.arange(left, self._n), at, assume_unique=True)
        for held in self._rows:
            held[at[at < left]] = held[stay]
        self._n = left
        return pair
