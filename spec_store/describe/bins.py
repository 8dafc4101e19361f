"""Ranges of numbers and of times: edges from a sample, counts per bin, claims about runs of bins."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .encoders import FIRST, NULL
from .values import Claims

__all__ = ["Bins", "number_bins", "time_bins"]

_N_BINS = 20
_ENOUGH_UNITS = 12
_MOST_UNITS = 40
_SHORTER_UNITS = ("M", "D", "h", "m")
# Integers beyond this have no float of their own.
_LARGEST_EXACT = 2**53


class Edge(NamedTuple):
    """Where a bin begins; and the name of a range under it, and above, and of one's start there, and end."""

    at: Any
    under: str
    start: str
    stop: str
    above: str


class Bins:
    """Ranges between fixed edges, and what is not a finite number.

    Parameters
    ----------
    edges
        Increasing; a bin begins at each and ends before the next, and one lies under them.
    dtype
        NumPy's type of the values.
    """

    def __init__(self, edges: Sequence[Edge], dtype: str) -> None:
        self._edges = edges
        self._at = np.array([e.at for e in edges], dtype)
        self._special = FIRST + len(edges) + 1

    @property
    def n_codes(self) -> int:
        return self._special + 3

    def encode(self, array: pa.Array) -> tuple[NDArray[np.int64] | None, NDArray[np.int64]]:
        """The bin of each row, of an array of the type that `plain` gives."""
        values = _numbers(array)
        codes = FIRST + np.searchsorted(self._at, values, side="right").astype(np.int64, copy=False)
        if values.dtype.kind == "f":
            for i, special in enumerate((np.isnan(values), np.isposinf(values), np.isneginf(values))):
                codes[special] = self._special + i
        if array.null_count:
            codes[array.is_null().to_numpy(zero_copy_only=False)] = NULL
        return None, codes

    def claims(self, column: str, table: NDArray[np.int64]) -> Claims:
        """One per run of bins, the shortest first, then null, NaN and infinities: at most one is made.

        Every run is a claim of its own, so that the correction for the number of tests covers the choice.
        """
        n_bins = len(self._edges) + 1
        runs = sorted(itertools.combinations(range(n_bins + 1), 2), key=lambda run: (run[1] - run[0], run[0]))
        start, stop = np.array(runs).T
        sums = np.zeros((n_bins + 1, table.shape[1]), np.int64)
        np.cumsum(table[FIRST : self._special], axis=0, out=sums[1:])
        others = ("null", "NaN", "infinity", "-infinity")
        texts = [self._text(i, j) for i, j in runs]
        rows = np.concatenate([sums[stop] - sums[start], table[[NULL, *range(self._special, self.n_codes)]]])
        return Claims(column, rows, [*texts, *others].__getitem__, exclusive=True)

    def _text(self, start: int, stop: int) -> str:
        """The name of bins `start` to `stop`, which is left out."""
        last = stop > len(self._edges)
        if start == 0:
            return "any value" if last else self._edges[stop - 1].under
        low = self._edges[start - 1]
        if last:
            return low.above
        high = self._edges[stop - 1].stop
        return high if low.start == high else f"{low.start} to {high}"


def _numbers(array: pa.Array) -> NDArray[Any]:
    """The values, or anything where null."""
    if pa.types.is_timestamp(array.type):
        array = array.cast(pa.int64())
    filled = array.fill_null(0) if array.null_count else array
    return np.asarray(filled.to_numpy(zero_copy_only=False))


def number_bins(sample: pa.Array) -> Bins:
    """Twenty bins of about as many sampled rows each; a value on a tenth of them has a bin of its own.

    Parameters
    ----------
    sample
        int64, uint64 or float64; nulls and what is not finite are left out.
    """
    values = np.sort(_numbers(sample.drop_null()))
    values = values[np.isfinite(values)] + 0  # minus zero is zero
    if not len(values):
        return Bins([], values.dtype.name)
    ranks = np.arange(1, _N_BINS) * len(values) // _N_BINS
    cuts, repeats = np.unique(values[ranks], return_counts=True)
    heavy = repeats > 1
    edges = []
    for i, cut in enumerate(cuts):
        if heavy[i]:
            edges += [_edge_before(cut), _edge_above(cut)]
        elif cut > values[0]:
            edges.append(_number_edge(_rounded(cut, i, cuts)))
    unique = {e.at: e for e in edges if e is not None}
    return Bins([unique[at] for at in sorted(unique)], values.dtype.name)


def _rounded(cut: Any, i: int, cuts: NDArray[Any]) -> Any:
    """The number of the fewest digits within a quarter of the way to either neighbour."""
    exact = float(cut)
    slack = min((abs(exact - float(cuts[j])) / 4 for j in (i - 1, i + 1) if 0 <= j < len(cuts)), default=0.0)
    if cuts.dtype.kind != "f" and abs(exact) > _LARGEST_EXACT:
        return cut
    for digits in range(1, 17):
        number = float(f"{exact:.{digits}g}")
        if abs(number - exact) <= slack and cuts[0] <= number <= cuts[-1]:
            return cuts.dtype.type(number)
    return cut


def _number_edge(at: Any) -> Edge:
    text = _text(at)
    stop = _text(at - 1) if isinstance(at, np.integer) and at > np.iinfo(at.dtype).min else text
    return Edge(at, f"under {text}", text, stop, f"{text} or more")


def _edge_before(cut: Any) -> Edge:
    """The edge at a number that has a bin of its own, which so is not in a range that ends there."""
    edge = _number_edge(cut)
    return edge if isinstance(cut, np.integer) else edge._replace(stop=f"under {edge.start}")


def _edge_above(cut: Any) -> Edge | None:
    """The edge just above a number, which so has a bin of its own; None where there is no such number."""
    if isinstance(cut, np.integer):
        return _number_edge(cut + 1) if cut < np.iinfo(cut.dtype).max else None
    text = _text(cut)
    return Edge(np.nextafter(cut, np.inf), f"{text} or less", f"over {text}", text, f"over {text}")


def _text(number: Any) -> str:
    return repr(number.item()).removesuffix(".0")


def time_bins(sample: pa.Array) -> Bins:
    """Bins of years, or of months, days, hours or minutes where the sample has under 12 of the longer unit.

    Of a unit with more than 40, as many follow each other in a bin. No unit is taken of which there is one to
    every fifth sampled row or more, except years. Times with a zone are in UTC.
    """
    times = _numbers(sample.drop_null()).astype(f"M8[{sample.type.unit}]")
    times = times[~np.isnat(times)]
    if not len(times):
        return Bins([], "int64")
    starts = np.unique(times.astype("M8[Y]"))
    for shorter in _SHORTER_UNITS:
        found = np.unique(times.astype(f"M8[{shorter}]"))
        if len(starts) >= _ENOUGH_UNITS or 5 * len(found) > len(times):
            break
        if len(found) > len(starts):
            starts = found
    step = -(-len(starts) // _MOST_UNITS)
    starts = np.unique(np.append(starts[::step], starts[-1] + 1))
    edges = starts.astype(times.dtype)
    exact = (
        edges.astype(starts.dtype) == starts
    )  # a year's first day may lie outside the range of nanoseconds
    pairs = zip(edges[exact].astype(np.int64), starts[exact], strict=True)
    return Bins([_time_edge(at, start) for at, start in pairs], "int64")


def _time_edge(at: Any, start: Any) -> Edge:
    text, before = _time_text(start), _time_text(start - 1)
    return Edge(at, f"before {text}", text, before, f"{text} or later")


def _time_text(time: Any) -> str:
    return str(time).replace("T", " ") + (":00" if np.datetime_data(time)[0] == "h" else "")
