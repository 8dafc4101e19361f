"""Whether the results in a table are those of its present rows, and what killed runs left beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..connector import Freshness, Source
from ..options import CompareOptions
from ..runs.records import AlignmentRecord, ComparisonRecord
from ..spectral.scoring import RESULT_COLUMNS
from ..stores.locate import Database, open_table
from ..stores.references import ColumnRef
from .aligned import origin_column
from .annotated import held_alignments, held_comparisons

__all__ = ["ResultStatus", "TableStatus", "status"]


@dataclass(frozen=True)
class ResultStatus:
    """The results of one run in a table.

    Attributes
    ----------
    prefix, kind
        Of the result columns, and "compare"; or the name of the aligned column, and "align".
    run_id
        The run that they are of.
    columns
        The embeddings that it read.
    rows
        Rows by whether their results are those of their present values; None where the store can't tell.
    other_stores
        Columns that lie in other stores: what changed there is not counted.
    """

    prefix: str
    kind: str
    run_id: str
    columns: tuple[str, str]
    rows: Freshness | None
    other_stores: tuple[str, ...] = ()

    @property
    def up_to_date(self) -> bool:
        """Whether every row is known to be current."""
        rows = self.rows
        return rows is not None and not (rows.missing or rows.stale or rows.unknown)


@dataclass(frozen=True)
class TableStatus:
    """The state of all results in a table.

    Attributes
    ----------
    table, version
        The table, and its version that was looked at.
    n_rows
        Its rows.
    results
        Of each run that it holds results of, comparisons first.
    leftovers
        Files that killed runs left beside it.
    cleaned
        Whether these were removed.
    """

    table: str
    version: int | None
    n_rows: int
    results: tuple[ResultStatus, ...]
    leftovers: tuple[str, ...] = field(default=())
    cleaned: bool = False

    @property
    def up_to_date(self) -> bool:
        """Whether every row of all results is known to be current."""
        return all(r.up_to_date for r in self.results)


def status(table: str, *, clean: bool = False, db: Database = None) -> TableStatus:
    """Count, for each result column of a table, rows that are current, stale, or were never scored.

    Parameters
    ----------
    clean
        Remove what killed runs left: column files that belong to no version, checkpoints, ledgers. What a
        living run works with stays. A run whose checkpoint is removed can't be continued.

    Raises
    ------
    TableNotFoundError
        There is no such table.

    Notes
    -----
    Cost: reads names of data files; of fragments that somebody else rewrote since, row ids and which results
    are null. No vectors are read.
    """
    source = open_table(table, db)
    results = [_compared(source, run) for run in held_comparisons(source)]
    results += [_aligned(source, run) for run in held_alignments(source)]
    leftovers = source.leftovers(remove=clean)
    return TableStatus(table, source.version, source.count(), tuple(results), tuple(leftovers), clean)


def _compared(source: Source, run: ComparisonRecord) -> ResultStatus:
    options = CompareOptions.from_json(run.options)
    names = [f"{run.prefix}_{n}" for n in RESULT_COLUMNS]
    refs = [ColumnRef.parse(r) for r in run.references]
    own = [r.name for r in refs if r.location is None] if refs else list(run.columns)
    elsewhere = tuple(text for text, r in zip(run.references, refs, strict=True) if r.location is not None)
    rows = None
    if own and all(c.split(".")[0] in source.schema.names for c in own):
        key = options.key
        reads = [*([key] if key is not None and key in source.schema.names else []), *own]
        rows = source.freshness(names, reads, options.where, since=run.scored_version)
    return ResultStatus(run.prefix, run.kind, run.run_id, run.columns, rows, elsewhere)


def _aligned(source: Source, run: AlignmentRecord) -> ResultStatus:
    target = [run.columns[1]] if run.options.get("only_missing") else []
    names = [run.prefix, *([origin_column(run.prefix)] if target else [])]
    rows = source.freshness(
        names, _present(source, [run.columns[0], *target]), run.options["where"], since=run.scored_version
    )
    return ResultStatus(run.prefix, run.kind, run.run_id, run.columns, rows)


def _present(source: Source, columns: Sequence[str]) -> list[str]:
    return [c for c in columns if c.split(".")[0] in source.schema.names]
