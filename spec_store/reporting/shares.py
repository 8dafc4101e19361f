"""What share of each cluster has which value of a column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from .sample import ReportSample
from .text import format_number

__all__ = ["Shares", "column_shares", "is_scalar"]

_MOST_VALUES = 9
_MOST_DISTINCT = 500
# Of a column like this nearly every value is another: it identifies rows.
_IDENTIFIER = 0.5
_BINS = 5


@dataclass(frozen=True)
class Shares:
    """Of one column.

    Attributes
    ----------
    column
        Its name.
    values
        The values, or ranges of numbers, in words; the last may stand for all other values.
    everywhere
        Sampled rows with each, shape (m,).
    within
        By cluster, sampled members with each, shape (K, m).
    """

    column: str
    values: tuple[str, ...]
    everywhere: NDArray[np.int64]
    within: NDArray[np.int64]


def is_scalar(kind: pa.DataType) -> bool:
    """Whether a column of this type has values to count: text, numbers, truth values or dates."""
    types = pa.types
    if types.is_dictionary(kind):
        kind = kind.value_type
    return bool(
        types.is_boolean(kind)
        or _is_number(kind)
        or types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_string_view(kind)
        or types.is_date(kind)
    )


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def column_shares(sample: ReportSample, columns: Sequence[str]) -> tuple[Shares, ...]:
    """Of each column whose values recur; those that identify rows are passed over."""
    found = (_shares(sample, column) for column in columns)
    return tuple(s for s in found if s is not None)


def _shares(sample: ReportSample, column: str) -> Shares | None:
    held = sample.others.column(column)
    if pa.types.is_dictionary(held.type):
        held = held.cast(held.type.value_type)
    distinct = pc.count_distinct(held).as_py()
    if distinct < 2:
        return None
    if _is_number(held.type) and distinct > _MOST_VALUES + 1:
        if pa.types.is_integer(held.type) and distinct > _IDENTIFIER * len(held):
            return None
        labels, codes = _ranges(held)
    elif distinct > min(_MOST_DISTINCT, _IDENTIFIER * len(held)) and distinct > _MOST_VALUES:
        return None
    else:
        labels, codes = _values(held)
    m = len(labels)
    within = [np.bincount(codes[column_members], minlength=m) for column_members in sample.members.T]
    shape = (len(sample.numbers), m)
    counts = np.asarray(within, np.int64).reshape(shape)
    return Shares(column, tuple(labels), np.bincount(codes, minlength=m).astype(np.int64), counts)


def _values(held: pa.ChunkedArray) -> tuple[list[str], NDArray[np.intp]]:
    """The most frequent values, in their own order, and each row's; the rest together as the last."""
    codes = pc.fill_null(held.cast(pa.string()), "null").combine_chunks().dictionary_encode()
    names = codes.dictionary.to_pylist()
    index = codes.indices.to_numpy(zero_copy_only=False)
    counts = np.bincount(index, minlength=len(names))
    most = sorted(np.argsort(-counts, kind="stable")[: _MOST_VALUES + (len(names) == _MOST_VALUES + 1)])
    number = _is_number(held.type)
    most.sort(key=lambda i: (float(names[i]) if number and names[i] != "null" else 0.0, names[i]))
    place = np.full(len(names), len(most))
    place[most] = np.arange(len(most))
    labels = [names[i] for i in most]
    if len(most) < len(names):
        labels.append(f"{len(names) - len(most):,} other values")
    return labels, place[index]


def _ranges(held: pa.ChunkedArray) -> tuple[list[str], NDArray[np.intp]]:
    """Five ranges of about as many rows each; what is null or not a number comes last."""
    numbers = held.cast(pa.float64()).to_numpy().astype(np.float64)
    known = np.isfinite(numbers)
    edges = np.unique(np.quantile(numbers[known], np.linspace(0, 1, _BINS + 1)[1:-1]))
    codes = np.searchsorted(edges, numbers, side="right")
    ends = [format_number(float(e)) for e in edges]
    labels = [f"under {ends[0]}", *(f"{a} to {b}" for a, b in pairwise(ends)), f"{ends[-1]} and over"]
    if not known.all():
        codes[~known] = len(labels)
        labels.append("not known")
    return labels, codes
