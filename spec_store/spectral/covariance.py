"""The joint second moment of several embeddings' features: the sufficient statistic of a comparison.

Raw sums are kept (count, sum of columns, sum of products), so states over disjoint rows add, a state
over removed rows subtracts, and centred and uncentred moments come from the same state.
"""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..errors import InputError
from ..keys import hash_keys
from ..stores.vectors import InvalidRows, decode
from .features import FeatureMap, feature_map_from_arrays

__all__ = ["BatchSums", "CovarianceAccumulator", "RawMoment", "RowColumns"]

_FORMAT = 2
_HALVES_SEED = 1_618_033  # which half a row is in must never change: saved states depend on it
_TILE = 2048
# Two halves of a larger state would cost gigabytes; the stability of its modes is not measured.
_LARGEST_HALVED = 4096


@dataclass(frozen=True)
class RowColumns:
    """Raw feature columns, less their shifts, of one batch's usable rows, those of the first half first.

    `blocks` holds one (n, n_columns) matrix per map; `split` is where the second half begins.
    """

    blocks: tuple[NDArray[Any], ...]
    split: int
    invalid: InvalidRows


@dataclass(frozen=True)
class BatchSums:
    """What one batch adds to each half: counts, sums (P,), and products (P, P), upper blocks only."""

    counts: tuple[int, ...]
    sums: tuple[NDArray[Any], ...]
    products: tuple[dict[tuple[int, int], NDArray[Any]], ...]
    invalid: InvalidRows


class RawMoment(NamedTuple):
    """Moments of raw columns: mean, shape (P,), and second moment, shape (P, P); both float64."""

    n_rows: int
    mean: NDArray[np.float64]
    matrix: NDArray[np.float64]


@dataclass
class CovarianceAccumulator:
    """Sums of the feature columns of rows seen so far, in two halves split by a hash of the row key.

    Parameters
    ----------
    maps
        One feature map per embedding; their columns, P in all, are stacked in this order.
    halves
        2, or 1 where P > 4,096: the stability of modes is then not measured.

    Attributes
    ----------
    counts
        Rows in each half.
    sums
        Shape (halves, P), float64; of the columns less their maps' shifts.
    products
        Shape (halves, P, P), float64, likewise; only blocks on and above the diagonal are kept up to date.
    invalid
        Rows that were skipped because a vector was null, not finite, or zero.

    Notes
    -----
    Cost: O(n P²) time, O(P²) memory. Products within a batch are taken in the maps' float type, sums
    over batches in float64: with float32 the relative difference from float64 throughout is about 1e-7.
    """

    maps: Sequence[FeatureMap]
    halves: int = 0
    counts: list[int] = field(init=False)
    sums: NDArray[np.float64] = field(init=False)
    products: NDArray[np.float64] = field(init=False)
    invalid: InvalidRows = field(init=False, default_factory=InvalidRows)

    def __post_init__(self) -> None:
        ends = np.cumsum([0, *(m.n_columns for m in self.maps)])
        self._slices = [slice(int(a), int(b)) for a, b in itertools.pairwise(ends)]
        self.halves = self.halves or (2 if self.n_columns <= _LARGEST_HALVED else 1)
        shifts = [m.shift() for m in self.maps]
        self._shifts = [
            None if s is None else s.astype(m.dtype) for m, s in zip(self.maps, shifts, strict=True)
        ]
        self.counts = [0] * self.halves
        self.sums = np.zeros((self.halves, self.n_columns))
        self.products = np.zeros((self.halves, self.n_columns, self.n_columns))

    @property
    def n_rows(self) -> int:
        """Rows seen, without unusable ones."""
        return sum(self.counts)

    @property
    def n_columns(self) -> int:
        """P, the number of stacked raw columns."""
        return sum(m.n_columns for m in self.maps)

    @property
    def slices(self) -> list[slice]:
        """Where each map's columns are in the stack."""
        return self._slices

    def update(self, batch: pa.RecordBatch) -> None:
        """Add the rows of a batch: the key first, then (at least) the maps' columns.

        Raises InvalidVectorsError where a vector has the wrong width; other unusable rows are skipped
        and tallied in `invalid`.
        """
        self.add(self.batch_sums(self.columns(batch)))

    def revert(self, batch: pa.RecordBatch) -> None:
        """Take out rows that were added before; the inverse of `update` to float64 rounding.

        Raises InputError, and leaves the state as it was, for more rows than it holds.
        """
        taken = self.batch_sums(self.columns(batch))
        too_many = any(n > held for n, held in zip(taken.counts, self.counts, strict=True))
        if too_many or not self.invalid.includes(taken.invalid):
            raise InputError(
                f"{len(batch):,} rows can't be taken out of a state of {self.n_rows:,} usable and"
                f" {self.invalid.n_rows:,} unusable rows: they were not all added to it. Only rows that were"
                " added, with the same keys and vectors, can be reverted."
            )
        self.add(taken, sign=-1)

    def columns(self, batch: pa.RecordBatch) -> RowColumns:
        """The raw columns of a batch. Pure: may run in several threads."""
        keys = batch.column(0)
        invalid = InvalidRows()
        vectors = {
            m.column: decode(m.column, batch.column(m.column), m.width, directions=m.normalize, keys=keys)
            for m in self.maps
        }
        invalid.update(keys, vectors)
        usable = np.logical_and.reduce([v.usable for v in vectors.values()])
        rows = np.flatnonzero(usable)
        split = len(rows)
        if self.halves == 2:
            second = (hash_keys(keys, _HALVES_SEED)[rows] & np.uint64(1)).astype(bool)
            rows = np.concatenate([rows[~second], rows[second]])
            split = int((~second).sum())
        blocks = tuple(m.columns(vectors[m.column], rows) for m in self.maps)
        for block, shift in zip(blocks, self._shifts, strict=True):
            if shift is not None:
                block -= shift
        return RowColumns(blocks, split, invalid)

    def batch_sums(self, rows: RowColumns) -> BatchSums:
        """What a batch's columns add. Pure: may run in several threads; (P, P) per half."""
        n = len(rows.blocks[0])
        counts, sums, products = [], [], []
        for part in (slice(0, rows.split), slice(rows.split, n))[: self.halves]:
            blocks = [b[part] for b in rows.blocks]
            counts.append(len(blocks[0]))
            # A product with ones: faster than sum(dtype=float64), and as exact as the second moments.
            sums.append(np.concatenate([np.ones(len(b), b.dtype) @ b for b in blocks]))
            products.append(
                {
                    (i, j): np.matmul(blocks[i].T, blocks[j])
                    for i in range(len(blocks))
                    for j in range(i, len(blocks))
                }
            )
        return BatchSums(tuple(counts), tuple(sums), tuple(products), rows.invalid)

    def add(self, batch: BatchSums, *, sign: int = 1) -> None:
        """Add (or with sign -1 take out) a batch's sums."""
        for half in range(self.halves):
            self.counts[half] += sign * batch.counts[half]
            self.sums[half] += sign * batch.sums[half]
            for (i, j), product in batch.products[half].items():
                target = self.products[half, self._slices[i], self._slices[j]]
                np.add(target, product, out=target) if sign > 0 else np.subtract(target, product, out=target)
        self.invalid.merge(batch.invalid, sign=sign)

    def accumulate(self, rows: RowColumns) -> None:
        """Add a batch's columns tile by tile: for states too large to hold a second (P, P) matrix."""
        stacked = np.concatenate(rows.blocks, axis=1)
        for half, part in enumerate((slice(0, rows.split), slice(rows.split, len(stacked)))[: self.halves]):
            x = stacked[part]
            self.counts[half] += len(x)
            self.sums[half] += np.ones(len(x), x.dtype) @ x
            for start in range(0, self.n_columns, _TILE):
                left = slice(start, start + _TILE)
                self.products[half, left, start:] += x[:, left].T @ x[:, start:]
        self.invalid.merge(rows.invalid)

    def merge(self, other: CovarianceAccumulator) -> None:
        """Add the state of other rows. Raises InputError unless the maps are the same."""
        mine, theirs = [m.digest for m in self.maps], [m.digest for m in other.maps]
        if mine != theirs or self.halves != other.halves:
            raise InputError(
                f"States of different feature maps can't be merged: {_named(self.maps)} with digests"
                f" {mine}, and {_named(other.maps)} with {theirs}. Build both with the same maps."
            )
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        self.sums += other.sums
        self.products += other.products
        self.invalid.merge(other.invalid)

    def second_moment(self, half: int | None = None) -> RawMoment:
        """Moments of the raw columns of all rows, or of one half."""
        if half is None and self.halves == 1:
            half = 0
        n = self.n_rows if half is None else self.counts[half]
        total = self.products.sum(axis=0) if half is None else self.products[half].copy()
        mean = (self.sums.sum(axis=0) if half is None else self.sums[half]) / max(n, 1)
        _mirror(total)
        total /= max(n, 1)
        shift = self._shift
        total += np.outer(mean, shift) + np.outer(shift, mean + shift)
        return RawMoment(n, mean + shift, total)

    @property
    def _shift(self) -> NDArray[np.float64]:
        """What was taken from the columns before they were summed, shape (P,)."""
        parts = [
            np.zeros(m.n_columns) if s is None else s.astype(np.float64)
            for m, s in zip(self.maps, self._shifts, strict=True)
        ]
        return np.concatenate(parts)

    def save(self, file: str | Path | BinaryIO) -> None:
        """Write the whole state, maps included, as one .npz: JSON and arrays, no pickle."""
        upper = np.triu_indices(self.n_columns)
        header = {
            "format": _FORMAT,
            "halves": self.halves,
            "counts": self.counts,
            "invalid": self.invalid.to_json(),
            "maps": [m.parameters() for m in self.maps],
        }
        arrays = {f"map{i}_{name}": a for i, m in enumerate(self.maps) for name, a in m.arrays().items()}
        packed = np.stack([_mirrored(p)[upper] for p in self.products])
        text = np.frombuffer(json.dumps(header).encode(), np.uint8)
        np.savez(file, header=text, sums=self.sums, products=packed, **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, file: str | Path | BinaryIO) -> CovarianceAccumulator:
        """Read what `save` wrote; continuing from it equals never having stopped."""
        with np.load(file, allow_pickle=False) as stored:
            header = json.loads(stored["header"].tobytes())
            if header["format"] != _FORMAT:
                raise InputError(f"State format {header['format']} is not known; expected {_FORMAT}.")
            maps = [
                feature_map_from_arrays(
                    p, {n.split("_", 1)[1]: stored[n] for n in stored.files if n.startswith(f"map{i}_")}
                )
                for i, p in enumerate(header["maps"])
            ]
            acc = cls(maps, header["halves"])
            acc.counts = list(header["counts"])
            acc.sums = stored["sums"]
            acc.invalid = InvalidRows.from_json(header["invalid"])
            upper = np.triu_indices(acc.n_columns)
            for half in range(acc.halves):
                acc.products[half][upper] = stored["products"][half]
        return acc

    def to_bytes(self) -> bytes:
        """What `save` writes, in memory."""
        buffer = io.BytesIO()
        self.save(buffer)
        return buffer.getvalue()


def _mirrored(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    full = matrix.copy()
    _mirror(full)
    return full


def _mirror(matrix: NDArray[np.float64]) -> None:
    """Copy the upper triangle to the lower one, in place, a band of rows at a time."""
    for start in range(0, len(matrix), _TILE):
        band = slice(start, start + _TILE)
        matrix[band, :start] = matrix[:start, band].T
        block = matrix[band, band]
        block[:] = np.triu(block) + np.triu(block, 1).T


def _named(maps: Sequence[FeatureMap]) -> str:
    return ", ".join(f"{m.column!r} ({m.kind}, {m.n_columns} columns)" for m in maps)
