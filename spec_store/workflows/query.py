"""Questions to an annotated table: filtered rows, clusters with what is over-represented in them, undo."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..connector import Location, Source, find_field, is_own_result
from ..errors import (
    ColumnNotFoundError,
    InputError,
    TableNotFoundError,
    UnsupportedError,
    did_you_mean,
    sentence,
)
from ..runs.records import ComparisonRecord
from ..runs.registry import RUN_FIELDS, Registry, cluster_table
from ..spectral.scoring import MODES_COLUMN, RESULT_COLUMNS
from ..stores.filters import quoted
from ..stores.locate import Database, location_of, open_table
from ..stores.vectors import is_vector
from .aligned import origin_column
from .annotated import Results, find_comparison, held_comparisons, result_columns
from .checkpoint import discard_checkpoints
from .ordering import ordered_rows, parse_orders

__all__ = ["ClusterReport", "clusters", "list_runs", "query", "undo"]

_TOP_LABELS = 3
_MOST_LABELS = 10_000


def query(
    table: str,
    where: str | None = None,
    *,
    select: Sequence[str] | None = None,
    order_by: str | Sequence[str] | None = None,
    descending: bool = False,
    limit: int | None = None,
    db: Database = None,
) -> pa.RecordBatchReader:
    """Stream the rows that match a SQL filter, in the table's own order or in that of columns.

    Parameters
    ----------
    where
        SQL over any columns, result columns included: ``spec_clip_dino_cluster = 0``.
    select
        Columns; None is all but vectors and binary values.
    order_by
        A column, or several: the second orders rows that are equal in the first. ``"score desc"`` gives a
        direction. Nulls come last.
    descending
        The direction of columns that give none.
    limit
        At most so many rows; None is all. To be ordered, there may be at most 1,000,000.

    Raises
    ------
    FilterError, ColumnNotFoundError, TableNotFoundError
        Before any row is read.
    """
    if limit is not None and limit < 0:
        raise InputError(f"limit is {limit}; expected 0 or more.")
    source = open_table(table, db)
    names = list(select) if select else [f.name for f in source.schema if _readable(f.type)]
    twice = [name for name, n in Counter(names).items() if n > 1]
    if twice:
        raise InputError(f"Column {twice[0]!r} is selected twice: name each column once.")
    schema = pa.schema([pa.field(name, find_field(source, name).type) for name in names])
    if order_by is None:
        batches = _limited(source.batches(names, where=where), names, limit)
    else:
        orders = parse_orders(source, order_by, descending=descending)
        batches = ordered_rows(source, where, names, orders, limit)
    return pa.RecordBatchReader.from_batches(schema, batches)


def _readable(kind: pa.DataType) -> bool:
    """Whether values of this type tell a person something; result scores do, vectors don't."""
    binary = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    return not binary and not (is_vector(kind) and pa.types.is_fixed_size_list(kind))


def _limited(
    batches: Iterator[pa.RecordBatch], names: list[str], limit: int | None
) -> Iterator[pa.RecordBatch]:
    left = limit
    for batch in batches:
        batch = batch.select(names)
        if left is None:
            yield batch
            continue
        yield batch.slice(0, left)
        left -= min(left, len(batch))
        if left == 0:
            return


@dataclass(frozen=True)
class ClusterReport:
    """The clusters of a table's newest comparison.

    Attributes
    ----------
    run
        Its record: options, bandwidths, eigenvalues and so on.
    clusters
        A row per cluster, strongest first; with labels asked for, a column ``labels`` of
        [{value, share, lift}] joins them: the values most over-represented among the members.
    other_prefixes
        Prefixes of further comparisons whose results the table holds.
    """

    run: ComparisonRecord
    clusters: pa.Table
    other_prefixes: tuple[str, ...]


def clusters(
    table: str, *, prefix: str | None = None, by: str | None = None, db: Database = None
) -> ClusterReport:
    """The clusters of the newest comparison whose results a table holds, and what they consist of.

    Parameters
    ----------
    prefix
        Of the result columns, where a table holds several comparisons.
    by
        A column of the table, of labels: its values' share among the members of each cluster, and the
        lift, that share over the one in the whole table. One pass over that column and the clusters.

    Raises
    ------
    InputError
        No comparison is recorded, its columns have been removed, or `by` has too many values.
    """
    source = open_table(table, db)
    run = find_comparison(source, prefix=prefix)
    rows = cluster_table(run)
    if by is not None:
        lists = _label_lists(source, f"{run.prefix}_clusters", by, rows["cluster"].to_pylist())
        rows = rows.append_column("labels", lists)
    others = sorted({r.prefix for r in held_comparisons(source)} - {run.prefix})
    return ClusterReport(run, rows, tuple(others))


def list_runs(
    *, db: Database = None, table: str | None = None, columns: Sequence[str] | None = None
) -> pa.Table:
    """Recorded runs, newest first, without their states, with what became of their columns.

    Parameters
    ----------
    table
        Only runs on the table of this name, and runs whose results it holds.
    columns
        Those of the result that are wanted; None is all. Nothing that they don't need is read.

    Returns
    -------
    The registry's rows and ``status``: "current" where the table holds what the run wrote, "replaced" where
    another run wrote the same columns since, "removed" where they are gone (undone, restored, overwritten),
    "unfinished" where the run ended before it published any, "recorded" where it was to publish none, and
    "no table".

    Raises
    ------
    TableNotFoundError
        Nothing was ever recorded in this database.
    """
    location = location_of(db)
    registry = Registry.of(location)
    if registry is None:
        raise UnsupportedError(f"{location} keeps no runs: its connector can't append to tables.")
    fields = [*RUN_FIELDS, pa.field("status", pa.string())]
    if columns is not None:
        by_name = {f.name: f for f in fields}
        for name in columns:
            if name not in by_name:
                raise ColumnNotFoundError(f"Runs have no column {name!r}. {did_you_mean(name, by_name)}")
        fields = [by_name[name] for name in columns]
    rows = registry.rows({*_STATUS_FIELDS, *(f.name for f in fields)} - {"status"})
    if not rows:
        raise TableNotFoundError(f"No run is recorded in {location}. Run spec-store compare first.")
    tables = {row["table"] for row in rows} | ({table} if table else set())
    results = {name: _results(name, location) for name in tables if name}
    here = results.get(table)
    seen: set[tuple[str, str]] = set()
    found = []
    for row in rows:
        place = row["table"], row["prefix"]
        status = _status(row, results.get(row["table"]), newest=place not in seen)
        seen |= {place} if status == "current" else set()
        written, finished = row["written"] or (), row["finished"] is not False
        moved = (
            here is not None and bool(here.by_run) and here.hold(row["run_id"], written, finished=finished)
        )
        if moved or table in (None, row["table"]):
            found.append({**row, "status": "current" if moved else status})
    return pa.Table.from_pylist(found, schema=pa.schema(fields))


def _results(table: str, location: Location) -> Results | None:
    try:
        return result_columns(open_table(table, location))
    except TableNotFoundError:
        return None


_STATUS_FIELDS = ("run_id", "table", "prefix", "written", "finished")


def _status(row: dict[str, Any], results: Results | None, *, newest: bool) -> str:
    written, finished = row["written"] or (), row["finished"] is not False
    if finished and not written:
        return "recorded"
    if results is None:
        return "no table"
    if newest and results.hold(row["run_id"], written, finished=finished):
        return "current"
    if not finished:
        return "unfinished"
    return "replaced" if results.names >= set(written) else "removed"


def _label_lists(source: Source, column: str, by: str, numbers: Sequence[int]) -> pa.Array:
    everywhere, within = _count_labels(source, column, by, numbers)
    n_rows = sum(everywhere.values())
    lists = []
    for counts in within.values():
        size = sum(counts.values())
        entries: list[dict[str, Any]] = []
        for value, n in counts.items():
            share = n / size
            entries.append({"value": value, "share": share, "lift": share / (everywhere[value] / n_rows)})
        over = [e for e in entries if e["lift"] > 1]
        lists.append(sorted(over, key=lambda e: (-e["share"], e["value"]))[:_TOP_LABELS])
    entry = pa.struct([("value", pa.string()), ("share", pa.float64()), ("lift", pa.float64())])
    return pa.array(lists, pa.list_(entry))


def _count_labels(
    source: Source, column: str, by: str, numbers: Sequence[int]
) -> tuple[Counter[str], dict[int, Counter[str]]]:
    """How often each label occurs among annotated rows, and among the members of each cluster."""
    kind = find_field(source, by).type
    if pa.types.is_nested(kind) or not _readable(kind):
        raise InputError(f"Column {by!r} holds {kind}: labels are strings, numbers or booleans.")
    everywhere: Counter[str] = Counter()
    within: dict[int, Counter[str]] = {number: Counter() for number in numbers}
    for batch in source.batches([by, column], where=f"{quoted(column)} IS NOT NULL", batch_rows=65536):
        codes = pc.fill_null(batch.column(1).cast(pa.string()), "null").dictionary_encode()
        names = codes.dictionary.to_pylist()
        index = codes.indices.to_numpy()
        everywhere.update(_counted(index, names))
        lists = batch.column(2)
        rows = np.repeat(np.arange(len(batch)), lists.value_lengths().fill_null(0).to_numpy())
        members = lists.flatten().to_numpy()
        for number, counts in within.items():
            counts.update(_counted(index[rows[members == number]], names))
        if len(everywhere) > _MOST_LABELS:
            raise InputError(f"Column {by!r} has more than {_MOST_LABELS:,} different values: not labels.")
    return everywhere, within


def _counted(index: np.ndarray[Any, Any], names: list[str]) -> dict[str, int]:
    counts = np.bincount(index, minlength=len(names))
    return {name: int(n) for name, n in zip(names, counts, strict=True) if n}


def undo(table: str, *, prefix: str, db: Database = None) -> list[str]:
    """Remove the result columns with this prefix, or the aligned column of this name; what was removed.

    What an interrupted run of this prefix has kept to be continued from goes too.

    Raises InputError where there are none, ColumnClashError where one is not spec-store's own.
    """
    source = open_table(table, db)
    present = [f"{prefix}_{n}" for n in RESULT_COLUMNS if f"{prefix}_{n}" in source.schema.names]
    more = prefix, origin_column(prefix), f"{prefix}_{MODES_COLUMN}"
    present += [f.name for f in source.schema if f.name in more and is_own_result(pa.schema([f]))]
    source.undo(present)  # with no columns, too: it removes what killed runs have left
    discard_checkpoints(source, prefix)
    if not present:
        raise InputError(f"{sentence(source.describe())} has no result columns with prefix {prefix!r}.")
    return present
