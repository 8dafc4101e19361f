"""Which runs' results a table holds: its columns name their run, whatever the table is called."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from ..alignment.maps import AlignmentMap, load_map
from ..connector import Source, run_of
from ..describe import Value, Word
from ..errors import ColumnClashError, InputError, SpecStoreError
from ..runs.clusters import ClusterRecord
from ..runs.records import AlignmentRecord, ComparisonRecord, publication_of
from ..runs.registry import Registry
from ..runs.values import OverRepresented, WordShare
from .passes import ClusterTally, tally_columns

__all__ = [
    "Results",
    "check_own",
    "counted",
    "find_comparison",
    "held_alignments",
    "held_comparisons",
    "recorded_map",
    "result_columns",
]

_COLUMNS = b"spec_store.columns"


@dataclass(frozen=True)
class Results:
    """The columns of a table, by the run that they name; by none in a store that keeps no field metadata."""

    by_run: dict[str, tuple[str, ...]]
    names: frozenset[str]

    def hold(self, run_id: str, written: Collection[str], *, finished: bool) -> bool:
        """Whether the table holds what this run wrote, as far as its columns tell."""
        if self.by_run:
            named = publication_of(run_id)
            own = self.by_run.get(named)
            return own is not None and (named == run_id or set(written) <= set(own))
        return finished and bool(written) and self.names >= set(written)


def result_columns(source: Source) -> Results:
    """Which columns of a table runs wrote, or may have written."""
    by_run: dict[str, tuple[str, ...]] = {}
    for f in source.schema:
        if run := run_of(f):
            by_run[run] = (*by_run.get(run, ()), f.name)
    return Results(by_run, frozenset(source.schema.names))


def held_comparisons(
    source: Source, *, prefix: str | None = None, columns: Sequence[str] | None = None
) -> list[ComparisonRecord]:
    """The comparisons whose results the source holds, newest first.

    Parameters
    ----------
    prefix
        Of the result columns.
    columns
        The two embeddings, either way round.

    Notes
    -----
    A run that ended between publishing and recording is finished here: its members are counted in the
    published columns.
    """
    registry = Registry.of(source.location)
    if registry is None:
        return []
    found = []
    seen: set[str] = set()
    for run in registry.comparisons(_held_ids(registry, source)):
        if run.prefix in seen:
            continue
        seen.add(run.prefix)
        if prefix in (None, run.prefix) and (columns is None or set(columns) == set(run.columns)):
            found.append(run if run.finished else _finished(run, source, registry))
    return found


def held_alignments(source: Source) -> list[AlignmentRecord]:
    """The alignments whose column the source holds, newest first."""
    registry = Registry.of(source.location)
    if registry is None:
        return []
    found: dict[str, AlignmentRecord] = {}
    for run in registry.alignments(_held_ids(registry, source)):
        found.setdefault(run.prefix, run)
    return list(found.values())


def recorded_map(run: AlignmentRecord, source: Source) -> AlignmentMap:
    """The map that wrote the source's column. Raises InputError where the registry has lost it."""
    registry = Registry.of(source.location)
    state = registry.state(run.run_id) if registry else None
    if state is None:
        raise InputError(f"Run {run.run_id} is recorded in {source.location} without its map.")
    return load_map(io.BytesIO(state))


def find_comparison(source: Source, *, prefix: str | None = None) -> ComparisonRecord:
    """The newest comparison whose results the source holds.

    Raises
    ------
    InputError
        It holds none; says what is known of earlier ones.
    """
    found = held_comparisons(source, prefix=prefix)
    if found:
        return found[0]
    registry = Registry.of(source.location)
    if registry is None:
        raise InputError(f"Runs on {source.describe()} are not recorded, so nothing is known of clusters.")
    others = sorted({run.prefix for run in held_comparisons(source)})
    if others:
        raise InputError(
            f"{source.describe()} holds no results with prefix {prefix!r}. It holds {', '.join(others)}."
        )
    rows = registry.rows()
    results = result_columns(source)
    unknown = sorted(set(results.by_run) - {publication_of(row["run_id"]) for row in rows})
    if unknown:
        raise InputError(
            f"Columns of {source.describe()} name run {unknown[0]}, which {source.location} has no record of:"
            " the table was copied from another database. Copy its tables spec_store_runs and"
            " spec_store_clusters too, or run spec-store compare again."
        )
    gone = [
        row
        for row in rows
        if row["kind"] == "compare" and row["table"] == source.table and prefix in (None, row["prefix"])
    ]
    if gone:
        raise InputError(
            f"Run {gone[0]['run_id']} wrote columns {gone[0]['prefix']}_…, which the current version of"
            f" {source.describe()} does not have: they were undone, or the table was restored or overwritten."
            " Run spec-store compare again."
        )
    which = f" with prefix {prefix!r}" if prefix else ""
    raise InputError(
        f"No comparison of {source.describe()}{which} is recorded. Run spec-store compare first."
    )


def check_own(source: Source, names: Collection[str], columns: tuple[str, str], option: str) -> None:
    """Refuse to replace results of other embeddings than `columns`. Raises ColumnClashError."""
    for f in source.schema:
        stored = (f.metadata or {}).get(_COLUMNS)
        if f.name in names and stored and set(json.loads(stored)) != set(columns):
            a, b = json.loads(stored)
            raise ColumnClashError(
                f"Column {f.name!r} of {source.describe()} holds results of {a} and {b}, not of {columns[0]}"
                f" and {columns[1]}. Give another {option}, or undo that run first."
            )


def _held_ids(registry: Registry, source: Source) -> list[str]:
    """Ids of the runs whose results the source holds; of several over the same columns all, newest first."""
    results = result_columns(source)
    rows = registry.rows(("run_id", "table", "written", "finished"))
    return [
        row["run_id"]
        for row in rows
        if (results.by_run or row["table"] == source.table)
        and results.hold(row["run_id"], row["written"] or (), finished=row["finished"] is not False)
    ]


def counted(clusters: Sequence[ClusterRecord], tally: ClusterTally) -> tuple[ClusterRecord, ...]:
    """The clusters with their sizes, typical rows, and what they consist of."""
    found = [
        replace(c, size=int(tally.sizes[i]), top_rows=tuple(str(key) for key in tally.top_rows(i)))
        for i, c in enumerate(clusters)
    ]
    if tally.describer is None:
        return tuple(found)
    described = zip(found, tally.describer.result(), strict=True)
    return tuple(
        replace(
            c,
            name=d.name or None,
            over_represented=tuple(_value(v) for v in d.over_represented),
            words=tuple(_word(w) for w in d.words),
        )
        for c, d in described
    )


def _value(v: Value) -> OverRepresented:
    return {
        "column": v.column,
        "value": v.value,
        "count": v.count,
        "share": v.share,
        "lift": v.lift,
        "p_value": v.p_value,
        "log10_p_value": v.log_p / math.log(10),
    }


def _word(w: Word) -> WordShare:
    return {"column": w.column, "word": w.word, "share": w.share, "lift": w.lift}


def _finished(run: ComparisonRecord, source: Source, registry: Registry) -> ComparisonRecord:
    """A published run that was not recorded as such, with its members counted."""
    tally = ClusterTally([c.cluster for c in run.clusters])
    tally = tally_columns(source, run.prefix, tally, where=run.options.get("where"))
    done = replace(run, clusters=counted(run.clusters, tally), finished=True)
    try:
        registry.finish(done, registry.state(run.run_id))
    except (SpecStoreError, OSError):
        return done  # a database that can't be written: what was counted serves this command all the same
    return done
