"""From Arrow vector columns to matrices: without copies, and with every unusable row accounted for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ..errors import InputError, InvalidVectorsError

__all__ = ["NUMPY_TYPES", "InvalidRows", "Vectors", "decode", "is_vector", "normalize_rows", "vector_width"]

# A table of our own, since pyarrow before 26 needs pandas for `to_pandas_dtype`.
NUMPY_TYPES: Mapping[pa.DataType, np.dtype[Any]] = {
    pa.float16(): np.dtype(np.float16),
    pa.float32(): np.dtype(np.float32),
    pa.float64(): np.dtype(np.float64),
    pa.int8(): np.dtype(np.int8),
    pa.uint8(): np.dtype(np.uint8),
}
"""NumPy's type for each type of element that a vector column may have."""

# A norm under this can't be inverted in float32 without overflow: it has no direction to compute with.
_SMALLEST_NORM = 1e-30
# Squares of longer rows overflow float32, and take all digits of an ordinary row's in float64.
_LARGEST_NORM = 1e18
# Rows of other lengths are brought to unit length in float64, where they are normalised at all.
_ORDINARY_SQ_NORM = 1e-24, _LARGEST_NORM**2
REASONS = ("null", "not finite", "zero", f"longer than {_LARGEST_NORM:g}", "empty")
# Rows that are gathered, then scaled, while they are in the cache.
_CHUNK_ROWS = 256


@dataclass(frozen=True)
class Vectors:
    """One batch of one embedding.

    Attributes
    ----------
    matrix
        Shape (n, d), the store's float type, row-major; a view of the Arrow buffer where possible.
        The content of unusable rows is arbitrary. Where only directions are asked for, rows of extreme
        length are at unit length already.
    sq_norms
        Shape (n,), squared Euclidean lengths of these rows, float64.
    reason
        Shape (n,), 0 where the row is usable, else 1 + the position in `REASONS`: null (or holds a null
        element), not finite, zero (has no direction though one is needed), too long for a distance (where
        one is needed), empty (a list of no elements, where others have d).
    """

    matrix: NDArray[Any]
    sq_norms: NDArray[np.float64]
    reason: NDArray[np.uint8]

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Shape (n,), True for rows that can be compared."""
        return np.equal(self.reason, 0)

    @property
    def lengths(self) -> NDArray[np.float64]:
        """Shape (n,): what `normalized` divides by, which is 1 for rows of zeros."""
        return np.sqrt(
            self.sq_norms, where=~(self.sq_norms < _SMALLEST_NORM**2), out=np.ones(len(self.sq_norms))
        )

    def chosen(self, rows: NDArray[np.intp] | None, dtype: str) -> NDArray[Any]:
        """The given rows as they are, all by default: shape (len(rows), d), of `dtype`."""
        return self._chosen(rows, dtype, None)

    def normalized(self, rows: NDArray[np.intp] | None, dtype: str) -> NDArray[Any]:
        """The given rows at unit length, all by default: shape (len(rows), d), of `dtype`.

        A row of zeros has no direction and stays zeros; one that is not finite stays so.
        """
        return self._chosen(rows, dtype, self.lengths.astype(dtype)[:, None])

    def _chosen(
        self, rows: NDArray[np.intp] | None, dtype: str, lengths: NDArray[Any] | None
    ) -> NDArray[Any]:
        if rows is None:
            x = self.matrix.astype(dtype, copy=False)
            if lengths is None:
                return x
            with np.errstate(invalid="ignore", over="ignore"):  # rows that are not usable may hold anything
                return np.asarray(x / lengths)
        out = np.empty((len(rows), self.matrix.shape[1]), dtype)
        same = self.matrix.dtype == out.dtype
        for start in range(0, len(rows), _CHUNK_ROWS):
            chunk = slice(start, start + _CHUNK_ROWS)
            if same:
                np.take(self.matrix, rows[chunk], axis=0, out=out[chunk], mode="clip")
            else:
                out[chunk] = self.matrix[rows[chunk]]
            if lengths is not None:
                out[chunk] /= lengths[rows[chunk]]
        return out

    @classmethod
    def from_matrix(cls, matrix: NDArray[Any], *, directions: bool) -> Vectors:
        """Rows held as a NumPy matrix, shape (n, d)."""
        return _examine(np.asarray(matrix), None, directions)


def normalize_rows(matrix: NDArray[Any]) -> NDArray[Any]:
    """Rows at unit length, shape (n, d), of the matrix's float type; see `Vectors.normalized`."""
    return Vectors.from_matrix(matrix, directions=True).normalized(None, matrix.dtype.name)


@dataclass
class InvalidRows:
    """Counts of unusable rows by column and reason, and the first such row of each column."""

    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)
    n_rows: int = 0

    def update(self, keys: pa.Array, vectors: Mapping[str, Vectors]) -> None:
        """Tally one batch; `n_rows` counts a row once, however many of its vectors are unusable."""
        unusable = np.zeros(len(keys), bool)
        for column, v in vectors.items():
            bad = np.flatnonzero(v.reason)
            if not len(bad):
                continue
            unusable[bad] = True
            self.first.setdefault(column, str(keys[int(bad[0])].as_py()))
            for code, n in zip(*np.unique(v.reason[bad], return_counts=True), strict=True):
                at = (column, REASONS[code - 1])
                self.counts[at] = self.counts.get(at, 0) + int(n)
        self.n_rows += int(unusable.sum())

    def merge(self, other: InvalidRows, *, sign: int = 1) -> None:
        """Add the tally of rows that come after these, or with sign -1 take one out again."""
        for at, n in other.counts.items():
            self.counts[at] = self.counts.get(at, 0) + sign * n
            if not self.counts[at]:
                del self.counts[at]
        for column, row in other.first.items() if sign > 0 else ():
            self.first.setdefault(column, row)
        counted = {column for column, _ in self.counts}
        self.first = {column: row for column, row in self.first.items() if column in counted}
        self.n_rows += sign * other.n_rows

    def includes(self, other: InvalidRows) -> bool:
        """Whether a tally of some of these rows could be `other`."""
        known = all(n <= self.counts.get(at, 0) for at, n in other.counts.items())
        return known and other.n_rows <= self.n_rows

    def to_json(self) -> dict[str, Any]:
        """Plain lists and dicts, for `from_json`."""
        counts = [[column, reason, n] for (column, reason), n in self.counts.items()]
        return {"counts": counts, "first": self.first, "n_rows": self.n_rows}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> InvalidRows:
        """What `to_json` gave."""
        counts = {(column, reason): n for column, reason, n in stored["counts"]}
        return cls(counts, dict(stored["first"]), stored["n_rows"])

    def describe(self) -> str:
        """For messages: ``column 'clip': 3 null, 1 zero (first: row 17)``."""
        parts = []
        for column, row in self.first.items():
            counts = ", ".join(f"{n:,} {why}" for (c, why), n in self.counts.items() if c == column)
            parts.append(f"column {column!r}: {counts} (first: row {row})")
        return "; ".join(parts)


def is_vector(kind: pa.DataType) -> bool:
    """Whether a column of this Arrow type can hold one vector per row."""
    if pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return kind.value_type in NUMPY_TYPES
    return False


def vector_width(column: str, kind: pa.DataType, example: pa.Array | None = None) -> int:
    """The number of dimensions of a vector column.

    Parameters
    ----------
    example
        Rows of the column. Variable-length lists have no width of their own; theirs is the length
        of the first row here that is neither null nor empty.

    Raises
    ------
    InputError
        The column does not hold one numeric vector per row.
    InvalidVectorsError
        No row has a vector from which to take the width of a variable-length list.
    """
    if not is_vector(kind):
        several = pa.types.is_list(kind) and pa.types.is_fixed_size_list(kind.value_type)
        found = "several vectors per row" if several else str(kind)
        raise InputError(
            f"Column {column!r} holds {found}; expected one vector per row: a list of float16, float32,"
            " float64, int8 or uint8."
        )
    if pa.types.is_fixed_size_list(kind):
        width = int(kind.list_size)
    else:
        lengths = [] if example is None else [n for n in example.value_lengths().to_pylist() if n]
        if not lengths:
            raise InvalidVectorsError(
                f"Column {column!r} holds no vector: every row looked at is null or empty."
            )
        width = int(lengths[0])
    if width == 0:
        raise InvalidVectorsError(f"Column {column!r} holds vectors of zero dimensions.")
    return width


def decode(
    column: str, array: pa.Array, width: int, *, directions: bool, keys: pa.Array | None = None
) -> Vectors:
    """View an Arrow vector column as a matrix, and find its unusable rows.

    Parameters
    ----------
    array
        Fixed-size or variable-length lists of float16/32/64 or (u)int8, any offset, nulls allowed.
    width
        The expected number of dimensions d.
    directions
        Whether rows get normalised, so that a zero vector is unusable.
    keys
        Row keys for messages; row numbers within the batch otherwise.

    Raises
    ------
    InvalidVectorsError
        Vectors of another width that are not empty; names the first such row. No other kind of row raises.
    """
    matrix, missing = _matrix(column, array, width, keys)
    return _examine(matrix, missing, directions)


def _examine(matrix: NDArray[Any], missing: NDArray[np.uint8] | None, directions: bool) -> Vectors:
    reason = np.zeros(len(matrix), np.uint8)
    with np.errstate(over="ignore", invalid="ignore"):
        wide = matrix if matrix.dtype in (np.float32, np.float64) else matrix.astype(np.float32)
        sq_norms = np.einsum("ij,ij->i", wide, wide).astype(np.float64)
    low, high = _ORDINARY_SQ_NORM
    extreme = np.flatnonzero(~((sq_norms > low) & (sq_norms < high)))
    if len(extreme):
        matrix = _settle_extremes(matrix, sq_norms, reason, extreme, directions)
    if directions:
        reason[sq_norms < _SMALLEST_NORM**2] = 3
    if missing is not None:
        reason = np.where(missing > 0, missing, reason)
    return Vectors(matrix, sq_norms, reason)


def _settle_extremes(
    matrix: NDArray[Any],
    sq_norms: NDArray[np.float64],
    reason: NDArray[np.uint8],
    extreme: NDArray[np.intp],
    directions: bool,
) -> NDArray[Any]:
    """Examine in float64 the rows whose squares the store's type may not hold; the matrix to go on with."""
    rows = matrix[extreme].astype(np.float64)
    finite = np.isfinite(rows).all(axis=1)
    reason[extreme[~finite]] = 2
    with np.errstate(over="ignore", invalid="ignore"):
        sq_norms[extreme] = np.einsum("ij,ij->i", rows, rows)
    usable = finite & ~(sq_norms[extreme] < _SMALLEST_NORM**2)
    if not directions:
        reason[extreme[finite & (sq_norms[extreme] > _LARGEST_NORM**2)]] = 4
    elif usable.any():
        rows, settled = rows[usable], extreme[usable]
        rows /= np.abs(rows).max(axis=1, keepdims=True)  # else the squares of 1e200 overflow float64 too
        rows /= np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]
        matrix = matrix.copy()
        matrix[settled], sq_norms[settled] = rows, 1.0
    return matrix


def _matrix(
    column: str, array: pa.Array, width: int, keys: pa.Array | None
) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """The (n, width) matrix; and the reasons of rows that are null or empty, or hold a null element."""
    reason = np.zeros(len(array), np.uint8)
    fixed = pa.types.is_fixed_size_list(array.type)
    if not fixed:
        reason[pc.equal(array.value_lengths(), 0).fill_null(False).to_numpy(zero_copy_only=False)] = 5
    if array.null_count:
        reason[array.is_null().to_numpy(zero_copy_only=False)] = 1
    # Variable-length nulls take no room, or any room, in the child: look at the other rows only.
    listed = np.ones(len(array), bool) if fixed else np.equal(reason, 0)
    every = bool(listed.all())
    present = array if every else array.filter(pa.array(listed))
    start = _first_element(column, present, width, keys if keys is None or every else keys.filter(listed))
    child = present.values.slice(start, len(present) * width)
    flat = _view(child).reshape(len(present), width)
    if child.null_count:
        holes = child.is_null().to_numpy(zero_copy_only=False).reshape(flat.shape).any(axis=1)
        reason[np.flatnonzero(listed)[holes]] = 1
    if every:
        return flat, reason
    matrix = np.zeros((len(array), width), flat.dtype)
    matrix[listed] = flat
    return matrix, reason


def _first_element(column: str, array: pa.Array, width: int, keys: pa.Array | None) -> int:
    """Where a list array's first row begins in its child; every row is checked to be `width` long."""
    if pa.types.is_fixed_size_list(array.type):
        if array.type.list_size != width:
            raise _unequal(column, array.type.list_size, width, 0, keys)
        return int(array.offset * width)
    offsets = array.offsets.to_numpy()
    wrong = np.flatnonzero(np.diff(offsets) != width)
    if len(wrong):
        row = int(wrong[0])
        raise _unequal(column, int(offsets[row + 1] - offsets[row]), width, row, keys)
    return int(offsets[0]) if len(offsets) else 0


def _view(child: pa.Array) -> NDArray[Any]:
    """The child values as NumPy, nulls or not: the buffer itself, null slots holding anything."""
    dtype = NUMPY_TYPES[child.type]
    buffer = child.buffers()[1]
    if buffer is None:
        return np.empty(0, dtype)
    return np.frombuffer(buffer, dtype, count=child.offset + len(child))[child.offset :]


def _unequal(column: str, found: int, width: int, row: int, keys: pa.Array | None) -> InvalidVectorsError:
    name = keys[row].as_py() if keys is not None else row
    return InvalidVectorsError(
        f"Column {column!r}: row {name} has {found} dimensions where {width} are expected. Every vector"
        " of a column must have the same width."
    )
