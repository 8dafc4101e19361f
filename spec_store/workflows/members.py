"""Rows of clusters to look at: the most typical ones, members drawn at random, and rows just outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..connector import Source, find_field, take_sample
from ..errors import InputError
from ..keys import hash_keys
from ..runs.clusters import ClusterRecord
from ..runs.records import ComparisonRecord
from ..stores.filters import quoted
from ..stores.locate import Database, open_table
from .annotated import find_comparison

__all__ = ["Members", "cluster_of", "members", "members_of"]

# The sample on which clusters were chosen is drawn by hash too: rows must not be drawn by the same one.
_OTHER_SEEDS = 1 << 32


@dataclass(frozen=True)
class Members:
    """Members of one cluster: the row key, the columns asked for, and ``membership``.

    Attributes
    ----------
    typical
        Those of the highest relative membership, the highest first.
    at_random
        A uniform sample of all members.
    near
        Rows that are no members, of the highest relative membership, the highest first; none unless asked
        for.
    """

    typical: pa.Table
    at_random: pa.Table
    near: pa.Table


def cluster_of(run: ComparisonRecord, number: int) -> ClusterRecord:
    """A run's cluster by its number. Raises InputError, with the numbers that there are."""
    for cluster in run.clusters:
        if cluster.cluster == number:
            return cluster
    known = ", ".join(str(n) for n in sorted(c.cluster for c in run.clusters))
    raise InputError(
        f"There is no cluster {number} in the results {run.prefix}_… (run {run.run_id})."
        f" {f'There are {known}.' if known else 'There are none.'}"
    )


def members(
    table: str,
    numbers: int | Sequence[int] | None = None,
    *,
    columns: Sequence[str] = (),
    n: int = 5,
    seed: int = 0,
    near: bool = False,
    prefix: str | None = None,
    db: Database = None,
) -> dict[int, Members]:
    """Typical rows of clusters, and members drawn at random: a good head must not hide a bad tail.

    Parameters
    ----------
    numbers
        Of one cluster or several; None is all, in their recorded order.
    columns
        Columns to show beside the key of the comparison, or the table's own where it had none.
    n
        Rows of each kind; fewer where a cluster has fewer.
    seed
        Of the draw, which depends on it and on the table's own row keys alone.
    near
        Also rows just outside each cluster.

    Raises
    ------
    InputError
        No comparison is recorded, or it has no such cluster.
    ColumnNotFoundError
        No such column.

    Notes
    -----
    Cost: one pass over the membership columns of the members (with `near`, of all rows), in memory for
    ``3 n`` rows per cluster; then the columns of these rows.
    """
    source = open_table(table, db)
    run = find_comparison(source, prefix=prefix)
    return members_of(source, run, numbers, columns=columns, n=n, seed=seed, near=near)


def members_of(
    source: Source,
    run: ComparisonRecord,
    numbers: int | Sequence[int] | None = None,
    *,
    columns: Sequence[str] = (),
    n: int = 5,
    seed: int = 0,
    near: bool = False,
    progress: Callable[[int], None] = lambda rows: None,
) -> dict[int, Members]:
    """As `members`, of an open table and a comparison whose results it holds."""
    if n < 1:
        raise InputError(f"{n} rows of each cluster were asked for; expected 1 or more.")
    asked = [numbers] if isinstance(numbers, int) else numbers
    chosen = run.clusters if asked is None else [cluster_of(run, number) for number in asked]
    key = run.options.get("key")
    leading = [key] if key is not None and key in source.schema.names else []
    names = list(dict.fromkeys([*leading, *columns]))
    for name in names:
        find_field(source, name)
    if not chosen:
        return {}
    where = chosen[0].where if len(chosen) == 1 else f"{quoted(f'{run.prefix}_cluster')} IS NOT NULL"
    if near:
        where = f"{quoted(f'{run.prefix}_scores')} IS NOT NULL"
    drawn = _draw(source, run.prefix, chosen, n, seed, where, near=near, progress=progress)
    rows = _Rows.read(source, list(drawn.values()), names, where, own_key=not leading)
    return {
        number: Members(rows.of(d.typical), rows.of(d.at_random), rows.of(d.near))
        for number, d in drawn.items()
    }


@dataclass
class _Best:
    """Rows of the least order seen so far, in that order: position in the stream, key, membership."""

    n: int
    order: NDArray[np.generic] | None = None
    positions: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    scores: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    keys: pa.Array | None = None

    def update(
        self,
        order: NDArray[np.generic],
        positions: NDArray[np.int64],
        scores: NDArray[np.float32],
        keys: pa.Array,
    ) -> None:
        if self.order is not None and self.keys is not None:
            order = np.concatenate([self.order, order])
            positions = np.concatenate([self.positions, positions])
            scores = np.concatenate([self.scores, scores])
            keys = pa.concat_arrays([self.keys, keys])
        keep = np.argsort(order, kind="stable")[: self.n]
        self.order, self.positions, self.scores = order[keep], positions[keep], scores[keep]
        self.keys = keys.take(pa.array(keep))


@dataclass(frozen=True)
class _Drawn:
    typical: _Best
    at_random: _Best
    near: _Best


def _draw(
    source: Source,
    prefix: str,
    clusters: Sequence[ClusterRecord],
    n: int,
    seed: int,
    where: str,
    *,
    near: bool,
    progress: Callable[[int], None],
) -> dict[int, _Drawn]:
    drawn = {c.cluster: _Drawn(_Best(n), _Best(n), _Best(n)) for c in clusters}
    # Numbers began with 0 before clusters were evaluated by capture.
    first = {c.cluster: 0 if c.capture is None else 1 for c in clusters}
    columns = [f"{prefix}_clusters", f"{prefix}_scores"]
    seen = 0
    for batch in source.batches(columns, where=where, batch_rows=65536):
        keys, lists, scores = batch.columns
        hashes = hash_keys(keys, _OTHER_SEEDS + seed)
        rows = np.repeat(np.arange(len(batch)), lists.value_lengths().fill_null(0).to_numpy())
        numbers = lists.flatten().to_numpy()
        for number, found in drawn.items():
            at = rows[numbers == number]
            relative = _element(scores, at, number - first[number])
            positions, held = seen + at, keys.take(pa.array(at))
            found.typical.update(-relative, positions, relative, held)
            found.at_random.update(hashes[at], positions, relative, held)
            if near:
                outside, relative = _nearest_outside(scores, at, number - first[number], n)
                found.near.update(-relative, seen + outside, relative, keys.take(pa.array(outside)))
        seen += len(batch)
        progress(len(batch))
    return drawn


def _nearest_outside(
    scores: pa.ListArray, members: NDArray[np.intp], position: int, n: int
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """The `n` rows of the highest relative membership that are no members, and that; none without any."""
    relative = _element(scores, np.arange(len(scores)), position)
    relative[members] = np.nan
    outside = np.flatnonzero(relative > 0)
    if len(outside) > n:
        outside = outside[np.argpartition(-relative[outside], n)[:n]]
    return outside, relative[outside]


def _element(lists: pa.ListArray, rows: NDArray[np.intp], position: int) -> NDArray[np.float32]:
    """The element at a position of the lists of these rows, NaN where there is none."""
    lengths = lists.value_lengths().fill_null(0).to_numpy()
    starts = np.concatenate([[0], np.cumsum(lengths)])[:-1]
    values = lists.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    there = position < lengths[rows]
    found = np.full(len(rows), np.nan, np.float32)
    found[there] = values[starts[rows[there]] + position]
    return found


@dataclass(frozen=True)
class _Rows:
    """The columns of all drawn rows, each read once, and where each row is by its position in the stream."""

    table: pa.Table
    place: dict[int, int]

    @classmethod
    def read(
        cls, source: Source, drawn: Sequence[_Drawn], names: Sequence[str], where: str, *, own_key: bool
    ) -> _Rows:
        best = [b for d in drawn for b in (d.typical, d.at_random, d.near) if b.keys is not None]
        if not best:
            fields = [find_field(source, name).with_name(name) for name in names]
            return cls(pa.schema(fields).empty_table(), {})
        positions, first = np.unique(np.concatenate([b.positions for b in best]), return_index=True)
        keys = pa.concat_arrays([b.keys for b in best]).take(pa.array(first))
        rows = take_sample(source, keys, positions, list(names), where)
        shown = rows.select(range(0 if own_key else 1, rows.num_columns))
        return cls(shown, {int(p): i for i, p in enumerate(positions)})

    def of(self, best: _Best) -> pa.Table:
        at = pa.array([self.place[int(p)] for p in best.positions], pa.int64())
        return self.table.take(at).append_column("membership", pa.array(best.scores, pa.float32()))
