"""The sample a switch is evaluated on: an index of sampled rows, test rows as queries, members of slices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..errors import InputError
from ..keys import hash_keys, smallest_hashes
from ..stores.view import KEY_ROWS
from .pairs import SPLIT_SEED
from .switch import Switch, SwitchRows

__all__ = ["SwitchSample", "draw_switch_sample"]

# Independent of the split: the index holds the rows that the map was fitted on, too.
_INDEX_SEED = 161_803
_SLICE_QUERIES = 200
_TAKE_ROWS = 4096


@dataclass(frozen=True)
class SwitchSample:
    """Sampled rows in memory.

    Attributes
    ----------
    names
        Hashes of the row keys of all sampled rows, queries first, then those that are in the index alone.
    rows
        Their vectors.
    n_common, n_queries
        The first `n_common` rows are a uniform sample of the test rows; those up to `n_queries` were added
        for slices with few of them.
    index
        Which rows the index consists of: a uniform sample of all rows, shape (m,).
    own
        The place in `index` of each query's own row, -1 for none, shape (n_queries,).
    members
        By slice, which rows are its members, shape (n_slices, n).
    n_unusable
        Sampled rows that were left out, since the model that is queried has no vector for them.
    """

    names: NDArray[np.uint64]
    rows: SwitchRows
    n_common: int
    n_queries: int
    index: NDArray[np.intp]
    own: NDArray[np.intp]
    members: NDArray[np.bool_]
    n_unusable: int


def draw_switch_sample(
    switch: Switch,
    slices: Sequence[str],
    counts: Sequence[int],
    *,
    n_rows: int,
    index_rows: int,
    query_rows: int,
    progress: Callable[[int], None],
) -> SwitchSample:
    """Read the sample.

    Parameters
    ----------
    slices, counts
        SQL filters, and the rows that each has.
    n_rows
        Of the table.
    index_rows, query_rows
        Sizes of the index, and of the uniform sample of queries.

    Notes
    -----
    Cost: two passes over the keys, one or two more per slice, and the sampled rows. Memory: the sampled rows.
    """
    index, _ = smallest_hashes(switch.keys(None), index_rows, _INDEX_SEED + switch.seed)
    split = SPLIT_SEED + switch.seed
    queries, _ = smallest_hashes(switch.test_rows(None), query_rows, split)
    parts = [queries]
    for where, count in zip(slices, counts, strict=True):
        expected = len(queries) * count / max(n_rows, 1)
        rare = expected < 1.5 * _SLICE_QUERIES or switch.n_without_target
        if count and rare and len(queries) == query_rows:
            parts.append(smallest_hashes(switch.test_rows(where), _SLICE_QUERIES, split)[0])
    if not len(queries) or not len(index):
        raise InputError(
            f"No row of {switch.source.describe()} is a test row of the map, one that it was not fitted on."
        )
    keys = pa.concat_arrays([p for p in [*parts, index] if len(p)])
    names = hash_keys(keys)
    _, first = np.unique(names, return_index=True)
    first.sort()
    names, keys = names[first], keys.take(pa.array(first))
    rows = _read(switch, keys, names)
    usable = ~np.isnan(switch.reference(rows)[:, 0])
    names, rows = names[usable], rows.chosen(usable)
    members = np.zeros((len(slices), len(names)), bool)
    for i, where in enumerate(slices):
        members[i] = _found(switch, where, names)
        progress(1)
    query_names = hash_keys(pa.concat_arrays([p for p in parts if len(p)]))
    at_index = np.flatnonzero(np.isin(names, hash_keys(index)))
    n_queries = int(np.isin(names, query_names).sum())
    own = np.full(n_queries, -1, np.intp)
    own[at_index[at_index < n_queries]] = np.flatnonzero(at_index < n_queries)
    return SwitchSample(
        names=names,
        rows=rows,
        n_common=int(np.isin(names, hash_keys(queries)).sum()),
        n_queries=n_queries,
        index=at_index,
        own=own,
        members=members,
        n_unusable=int((~usable).sum()),
    )


def _read(switch: Switch, keys: pa.Array, names: NDArray[np.uint64]) -> SwitchRows:
    """The rows of these keys, in their order."""
    source, order = switch.source, np.argsort(names)
    out: SwitchRows | None = None
    for at, batch in (
        _batches(switch, keys, names[order], order) if not source.random_access else _taken(switch, keys)
    ):
        found = switch.rows(batch)
        if out is None:
            out = SwitchRows(*(np.empty((len(keys), *part.shape[1:]), part.dtype) for part in found))
        for held, part in zip(out, found, strict=True):
            held[at] = part
    assert out is not None
    return out


def _taken(switch: Switch, keys: pa.Array) -> Iterator[tuple[slice | NDArray[np.intp], pa.RecordBatch]]:
    for start in range(0, len(keys), _TAKE_ROWS):
        part = keys.slice(start, _TAKE_ROWS)
        table = switch.source.take(part, switch.read).combine_chunks()
        yield slice(start, start + len(part)), table.to_batches()[0]


def _batches(
    switch: Switch, keys: pa.Array, ordered: NDArray[np.uint64], order: NDArray[np.intp]
) -> Iterator[tuple[slice | NDArray[np.intp], pa.RecordBatch]]:
    """A store without random access is read through."""
    for batch in switch.source.batches(switch.read):
        names = hash_keys(batch.column(0))
        wanted = np.flatnonzero(np.isin(names, ordered))
        if len(wanted):
            yield order[np.searchsorted(ordered, names[wanted])], batch.take(pa.array(wanted))


def _found(switch: Switch, where: str, names: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which of the sampled rows a filter selects."""
    order = np.argsort(names)
    ordered = names[order]
    selected = np.zeros(len(names), bool)
    for batch in switch.source.batches([], where=where, batch_rows=KEY_ROWS):
        found = hash_keys(batch.column(0))
        at = np.minimum(np.searchsorted(ordered, found), len(ordered) - 1)
        selected[order[at[ordered[at] == found]]] = True
    return selected
