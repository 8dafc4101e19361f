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
from ..stores.vectors import InvalidRows, decode
from .features import FeatureMap, feature_map_from_arrays

__all__ = ["BatchSums", "CovarianceAccumulator", "RawMoment", "RowColumns"]

_FORMAT = 3
_OLD_FORMAT = 2  # its sums are those of two halves of the rows, or of one part
_TILE = 2048


@dataclass(frozen=True)
class RowColumns:
    """Raw feature columns, less their shifts, of one batch's usable rows: per map, shape (n, n_columns)."""

    blocks: tuple[NDArray[Any], ...]
    invalid: InvalidRows

    @property
    def n_rows(self) -> int:
        """Usable rows."""
        return len(self.blocks[0])


@dataclass(frozen=True)
class BatchSums:
    """What some rows add: usable rows, sums (P,), and products (P, P), upper blocks only."""

    n_rows: int
    sums: NDArray[Any]
    products: dict[tuple[int, int], NDArray[Any]]
    invalid: InvalidRows


class RawMoment(NamedTuple):
    """Moments of raw columns: mean, shape (P,), and second moment, shape (P, P); both float64."""

    n_rows: int
    mean: NDArray[np.float64]
    matrix: NDArray[np.float64]


@dataclass
class CovarianceAccumulator:
    """Sums of the feature columns of rows seen so far.

    Parameters
    ----------
    maps
        One feature map per embedding; their columns, P in all, are stacked in this order.

    Attributes
    ----------
    n_rows
        Rows seen, without unusable ones.
    sums
        Shape (P,), float64; of the columns less their maps' shifts.
    products
        Shape (P, P), float64, likewise; only the upper triangle is kept up to date.
    invalid
        Rows that were skipped because a vector was null, not finite, or zero.

    Notes
    -----
    Cost: O(n P²) time, O(P²) memory. Products within a batch are taken in the maps' float type, sums
    over batches in float64: with float32 the relative difference from float64 throughout is about 1e-7.
    """

    maps: Sequence[FeatureMap]
    n_rows: int = field(init=False, default=0)
    sums: NDArray[np.float64] = field(init=False)
    products: NDArray[np.float64] = field(init=False)
    invalid: InvalidRows = field(init=False, default_factory=InvalidRows)

    def __post_init__(self) -> None:
        ends = np.cumsum([0, *(m.n_columns for m in self.maps)])
        self._slices = [slice(int(a), int(b)) for a, b in itertools.pairwise(ends)]
        shifts = [m.shift() for m in self.maps]
        self._shifts = [
            None if s is None else s.astype(m.dtype) for m, s in zip(self.maps, shifts, strict=True)
        ]
        self.sums = np.zeros(self.n_columns)
        self.products = np.zeros((self.n_columns, self.n_columns))

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
        self._check_taken(taken.n_rows, taken.invalid)
        self.add(taken, sign=-1)

    def _check_taken(self, n_rows: int, invalid: InvalidRows) -> None:
        if n_rows > self.n_rows or not self.invalid.includes(invalid):
            raise InputError(
                f"{n_rows:,} usable and {invalid.n_rows:,} unusable rows can't be taken out of a state of"
                f" {self.n_rows:,} usable and {self.invalid.n_rows:,} unusable rows: they were not all added"
                " to it. Only rows that were added, with the same keys and vectors, can be taken out."
            )

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
        rows = None if usable.all() else np.flatnonzero(usable)
        blocks = tuple(m.columns(vectors[m.column], rows) for m in self.maps)
        for block, shift in zip(blocks, self._shifts, strict=True):
            if shift is not None:
                block -= shift
        return RowColumns(blocks, invalid)

    def batch_sums(self, rows: RowColumns) -> BatchSums:
        """What a batch's columns add. Pure: may run in several threads."""
        blocks = rows.blocks
        # A product with ones: faster than sum(dtype=float64), and as exact as the second moments.
        sums = np.concatenate([np.ones(len(b), b.dtype) @ b for b in blocks])
        pairs = itertools.combinations_with_replacement(range(len(blocks)), 2)
        products = {(i, j): np.matmul(blocks[i].T, blocks[j]) for i, j in pairs}
        return BatchSums(len(blocks[0]), sums, products, rows.invalid)

    def add(self, batch: BatchSums, *, sign: int = 1) -> None:
        """Add (or with sign -1 take out) a batch's sums."""
        self.n_rows += sign * batch.n_rows
        self.sums += sign * batch.sums
        for (i, j), product in batch.products.items():
            target = self.products[self._slices[i], self._slices[j]]
            np.add(target, product, out=target) if sign > 0 else np.subtract(target, product, out=target)
        self.invalid.merge(batch.invalid, sign=sign)

    def accumulate(self, rows: RowColumns) -> None:
        """Add a batch's columns tile by tile: for states too large to hold a second (P, P) matrix."""
        x = np.concatenate(rows.blocks, axis=1)
        self.n_rows += len(x)
        self.sums += np.ones(len(x), x.dtype) @ x
        for start in range(0, self.n_columns, _TILE):
            left = slice(start, start + _TILE)
            self.products[left, start:] += x[:, left].T @ x[:, start:]
        self.invalid.merge(rows.invalid)

    @property
    def total(self) -> BatchSums:
        """What all rows seen so far would add to another state of these maps; views, not copies."""
        pairs = itertools.combinations_with_replacement(range(len(self._slices)), 2)
        products = {(i, j): self.products[self._slices[i], self._slices[j]] for i, j in pairs}
        return BatchSums(self.n_rows, self.sums, products, self.invalid)

    def merge(self, other: CovarianceAccumulator, *, sign: int = 1) -> None:
        """Add the state of other rows, or with sign -1 take out one of rows that were added.

        Raises InputError unless the maps are the same; and, with the state left as it was, where more rows
        are to be taken out than it holds.
        """
        mine, theirs = [m.digest for m in self.maps], [m.digest for m in other.maps]
        if mine != theirs:
            raise InputError(
                f"States of different feature maps can't be merged: {_named(self.maps)} with digests"
                f" {mine}, and {_named(other.maps)} with {theirs}. Build both with the same maps."
            )
        if sign < 0:
            self._check_taken(other.n_rows, other.invalid)
        self.n_rows += sign * other.n_rows
        self.sums += sign * other.sums
        (np.add if sign > 0 else np.subtract)(self.products, other.products, out=self.products)
        self.invalid.merge(other.invalid, sign=sign)

    def second_moment(self, which: Sequence[int] | None = None) -> RawMoment:
        """Moments of the raw columns.

        Parameters
        ----------
        which
            Positions of the embeddings wanted, in this order; None is all.
        """
        n = max(self.n_rows, 1)
        if which is None:
            mean, total, shift = self.sums / n, self.products / n, self._shift
        else:
            mean, total, shift = self._selected(which)
            mean /= n
            total /= n
        _mirror(total)
        total += np.outer(mean, shift) + np.outer(shift, mean + shift)
        return RawMoment(self.n_rows, mean + shift, total)

    def _selected(
        self, which: Sequence[int]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Sums, products (upper blocks only) and shifts of some of the embeddings."""
        parts = [self._slices[i] for i in which]

        def block(i: int, j: int) -> NDArray[np.float64]:
            return self.products[self._slices[i], self._slices[j]] if i <= j else block(j, i).T

        blocks = [[block(i, j) for j in which] for i in which]
        shift = self._shift
        return (
            np.concatenate([self.sums[p] for p in parts]),
            np.block(blocks),
            np.concatenate([shift[p] for p in parts]),
        )

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
            "n_rows": self.n_rows,
            "invalid": self.invalid.to_json(),
            "maps": [m.parameters() for m in self.maps],
        }
        arrays = {f"map{i}_{name}": a for i, m in enumerate(self.maps) for name, a in m.arrays().items()}
        text = np.frombuffer(json.dumps(header).encode(), np.uint8)
        np.savez(file, header=text, sums=self.sums, products=self.products[upper], **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, file: str | Path | BinaryIO) -> CovarianceAccumulator:
        """Read what `save` wrote; continuing from it equals never having stopped.

        A state of format 2 held two halves of its rows: they are added up.
        """
        with np.load(file, allow_pickle=False) as stored:
            header = json.loads(stored["header"].tobytes())
            if header["format"] not in (_OLD_FORMAT, _FORMAT):
                raise InputError(
                    f"State format {header['format']} is not known; expected {_OLD_FORMAT} or {_FORMAT}."
                )
            maps = [
                feature_map_from_arrays(
                    p, {n.split("_", 1)[1]: stored[n] for n in stored.files if n.startswith(f"map{i}_")}
                )
                for i, p in enumerate(header["maps"])
            ]
            acc = cls(maps)
            acc.invalid = InvalidRows.from_json(header["invalid"])
            sums, packed = stored["sums"], stored["products"]
            if header["format"] == _OLD_FORMAT:
                acc.n_rows, sums, packed = sum(header["counts"]), sums.sum(axis=0), packed.sum(axis=0)
            else:
                acc.n_rows = header["n_rows"]
            acc.sums = sums
            acc.products[np.triu_indices(acc.n_columns)] = packed
        return acc

    def to_bytes(self) -> bytes:
        """What `save` writes, in memory."""
        buffer = io.BytesIO()
        self.save(buffer)
        return buffer.getvalue()


def _mirror(matrix: NDArray[np.float64]) -> None:
    """Copy the upper triangle to the lower one, in place, a band of rows at a time."""
    for start in range(0, len(matrix), _TILE):
        band = slice(start, start + _TILE)
        matrix[band, :start] = matrix[:start, band].T
        block = matrix[band, band]
        block[:] = np.triu(block) + np.triu(block, 1).T


def _named(maps: Sequence[FeatureMap]) -> str:
    return ", ".join(f"{m.column!r} ({m.kind}, {m.n_columns} columns)" for m in maps)
