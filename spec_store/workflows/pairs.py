"""Pairs of unit rows from a source: which are held out, which judge a fit, and mini-batches of the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..alignment.start import Moments
from ..connector import Source, find_field
from ..keys import hash_keys
from ..spectral.covariance import CovarianceAccumulator
from ..spectral.features import CosineMap
from ..stores.streaming import even_batches, ordered_map
from ..stores.vectors import InvalidRows, Vectors, decode, is_vector, vector_width

__all__ = ["SPLIT_SEED", "Gathered", "PairReader", "column_widths", "gather", "mini_batches"]

# The split must be the same wherever a map is judged again.
SPLIT_SEED = 271_828
_DRAW_SEED = 314_159
_BUFFER_ROWS = 32_768

Pair = tuple[NDArray[np.float32], NDArray[np.float32]]


def column_widths(source: Source, pair: tuple[str, str]) -> tuple[int, int]:
    """The dimensions of two vector columns; variable-length lists tell theirs by their first rows."""
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
        Share of the rows that is never trained on, told by a hash of their keys and `seed`.
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
        """A number in [0, 1) for each row; those below `held_out` are held out."""
        return hash_keys(keys, SPLIT_SEED + self.seed) / 2.0**64

    def decoded(self, batch: pa.RecordBatch) -> tuple[dict[str, Vectors], NDArray[np.bool_]]:
        """Both columns, and which rows are usable in both."""
        vectors = {
            c: decode(c, batch.column(c), w, directions=True, keys=batch.column(0))
            for c, w in zip(self.columns, self.widths, strict=True)
        }
        return vectors, np.logical_and.reduce([v.usable for v in vectors.values()])

    def unit_rows(self, batch: pa.RecordBatch, wanted: NDArray[np.bool_]) -> tuple[Pair, NDArray[np.bool_]]:
        """The wanted and usable rows, and which these are."""
        vectors, usable = self.decoded(batch)
        return _pair(vectors, wanted & usable), wanted & usable


def _pair(vectors: dict[str, Vectors], rows: NDArray[np.bool_]) -> Pair:
    a, b = (v.normalized(np.flatnonzero(rows), "float32") for v in vectors.values())
    return a, b


@dataclass
class Gathered:
    """What one pass over the rows gives.

    Attributes
    ----------
    moments
        Of the training rows.
    n_train, n_held_out
        Usable rows.
    validation, held_out
        Pairs of unit rows: training rows kept aside to judge steps by, and a sample of those held out.
    skip
        Rows whose uniform number is below this are not for training.
    members
        For each sampled held-out row, its values of the extra column; None where none was asked for.
    invalid
        Rows that were left out.
    """

    moments: Moments
    n_train: int
    n_held_out: int
    validation: Pair
    held_out: Pair
    skip: float
    members: list[Any] | None
    invalid: InvalidRows = field(default_factory=InvalidRows)


def gather(
    reader: PairReader,
    n_rows: int,
    *,
    validation_rows: int,
    held_out_rows: int,
    members: str | None,
    progress: Callable[[int], None],
    workers: int,
) -> Gathered:
    """One pass: the training rows' moments, and seeded samples of the other two kinds.

    Memory: O(d²), and the two samples, whose sizes hold on average.
    """
    maps = [CosineMap(c, w, True, "float32") for c, w in zip(reader.columns, reader.widths, strict=True)]
    acc = CovarianceAccumulator(maps, halves=1)
    test = min(reader.held_out, held_out_rows / max(n_rows, 1))
    checked = reader.held_out + min((1 - reader.held_out) * 0.1, validation_rows / max(n_rows, 1))

    def split(batch: pa.RecordBatch) -> Any:
        at = reader.uniform(batch.column(0))
        vectors, usable = reader.decoded(batch)
        found = InvalidRows()
        found.update(batch.column(0), vectors)
        n_held = int((usable & (at < reader.held_out)).sum())
        check = _pair(vectors, usable & (at >= reader.held_out) & (at < checked))
        sampled = usable & (at < test)
        values = batch.column(members).filter(pa.array(sampled)).to_pylist() if members else []
        train = acc.moments(acc.columns(batch.filter(pa.array(at >= checked))))
        return found, n_held, check, _pair(vectors, sampled), values, train, len(batch)

    checks: list[Pair] = []
    samples: list[Pair] = []
    values: list[Any] = []
    n_held_out = 0
    invalid = InvalidRows()
    extra = (members,) if members else ()
    parts = ordered_map(split, reader.batches(*extra), workers=workers)
    for unusable, n_held, check, sample, values_here, train, n in parts:
        invalid.merge(unusable)
        n_held_out += n_held
        checks.append(check)
        samples.append(sample)
        values += values_here
        acc.add(train)
        progress(n)
    _, mean, second = acc.second_moment()
    a, b = acc.slices
    return Gathered(
        Moments(mean[a], mean[b], second[a, a], second[a, b], second[b, b]),
        acc.n_rows,
        n_held_out,
        _joined(checks, reader.widths),
        _joined(samples, reader.widths),
        checked,
        values if members else None,
        invalid,
    )


def _joined(pairs: list[Pair], widths: tuple[int, int]) -> Pair:
    parts = [[p[i] for p in pairs] or [np.empty((0, widths[i]), np.float32)] for i in (0, 1)]
    return np.concatenate(parts[0]), np.concatenate(parts[1])


def mini_batches(
    reader: PairReader, n_train: int, *, skip: float, steps: int, rows: int, seed: int
) -> Iterator[Pair]:
    """Endless mini-batches of training rows, in an order that a seeded shuffle buffer mixes.

    Parameters
    ----------
    n_train
        Training rows, about.
    skip
        Rows whose uniform number is below this are held out or judge the fit.
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
            pair, _ = reader.unit_rows(batch, (reader.uniform(keys) >= skip) & drawn)
            buffer.add(pair)
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
        needed = self._n + len(pair[0])
        if needed > len(self._rows[0]):
            size = max(needed, min(2 * len(self._rows[0]), _BUFFER_ROWS + len(pair[0])))
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
        return self._rows[0][at], self._rows[1][at]

    def take(self, n: int) -> Pair:
        """`n` rows, which leave: rows from the end fill their places."""
        at = self._rng.choice(self._n, size=n, replace=False)
        pair = self._rows[0][at], self._rows[1][at]
        left = self._n - n
        stay = np.setdiff1d(np.arange(left, self._n), at, assume_unique=True)
        for held in self._rows:
            held[at[at < left]] = held[stay]
        self._n = left
        return pair
