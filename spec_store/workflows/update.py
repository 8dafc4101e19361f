"""Rows that came after an alignment: filled by the map that was recorded with it."""

from __future__ import annotations

from dataclasses import dataclass

from ..alignment.maps import AlignmentMap
from ..bars import shown
from ..connector import Source, find_field
from ..errors import InputError, sentence
from ..progress import Progress, ProgressOption
from ..runs.records import AlignmentRecord
from ..stores.filters import quoted
from ..stores.locate import Database, open_table
from .aligned import aligned_annotation, aligned_schema
from .annotated import held_alignments, recorded_map
from .units import one_blas_thread

__all__ = ["Updated", "update"]


@dataclass(frozen=True)
class Updated:
    """One aligned column, brought up to date.

    Attributes
    ----------
    column, source
        The aligned column, and the column that it is made from.
    run_id
        The run whose map was applied.
    n_rows
        Rows of the table.
    n_filled
        Rows that had no value before and have one now.
    n_missing
        Rows that still have none: the source is null or unusable, or the run's filter leaves them out.
    warnings
        What a person should know.
    """

    column: str
    source: str
    run_id: str
    n_rows: int
    n_filled: int
    n_missing: int
    warnings: tuple[str, ...] = ()


def update(table: str, *, db: Database = None, progress: ProgressOption = "auto") -> list[Updated]:
    """Write every aligned column of a table anew, with the map that was recorded when it was made.

    Rows that were added since get their value, and so do rows whose source vector has changed; with
    ``only_missing``, rows that have been embedded since get the target's own vector. Nothing is fitted.
    Columns of comparisons are left alone: `compare` renews them. `progress` is as in `compare`.

    Raises
    ------
    InputError
        The table has no aligned column.
    RetryError
        Other writers kept winning; that column is as it was.

    Notes
    -----
    Cost: a pass over each source column, and its result written, as when it was first written.
    """
    source = open_table(table, db)
    found = held_alignments(source)[::-1]
    if not found:
        raise InputError(
            f"{sentence(source.describe())} has no aligned column that a run is recorded for: run"
            " spec-store align first."
        )
    maps = [recorded_map(run, source) for run in found]
    for run, map_ in zip(found, maps, strict=True):  # refuse before any work
        find_field(source, run.columns[0])
        source.count(run.options["where"])
        target = _target(run)
        source.check_annotation(
            aligned_schema(source, run.columns[0], run.prefix, map_.out_width, target=target)
        )
    with shown(progress) as told:
        return [_update(source.latest(), run, map_, told) for run, map_ in zip(found, maps, strict=True)]


def _target(run: AlignmentRecord) -> str | None:
    """The column whose own vectors the aligned column takes where rows have them."""
    return run.columns[1] if run.options.get("only_missing") else None


def _update(source: Source, run: AlignmentRecord, map_: AlignmentMap, progress: Progress) -> Updated:
    column, (origin, _) = run.prefix, run.columns
    n_rows = source.count()
    empty = source.count(f"{quoted(column)} IS NULL")
    stage = f"write {column}"
    progress(stage, 0, n_rows)
    metadata = {k.decode(): v.decode() for k, v in (find_field(source, column).metadata or {}).items()}
    annotation = aligned_annotation(
        map_,
        source,
        origin,
        column,
        target=_target(run),
        metadata={**metadata, "spec_store.source_version": str(source.version)},
        where=run.options["where"],
        batch_rows=run.options["batch_rows"],
        progress=lambda rows: progress(stage, rows, n_rows),
    )
    with one_blas_thread():
        published = source.annotate(annotation)
    missing = source.latest().count(f"{quoted(column)} IS NULL")
    return Updated(column, origin, run.run_id, n_rows, empty - missing, missing, published.notes)
