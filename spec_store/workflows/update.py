"""Results of recorded runs brought up to date: states, scores and aligned columns of rows that changed."""

from __future__ import annotations

from dataclasses import replace

from ..alignment.maps import AlignmentMap
from ..bars import shown
from ..connector import Source, find_field
from ..errors import InputError, sentence
from ..executor import IN_PROCESS, Executor
from ..progress import Progress, ProgressOption
from ..runs.records import AlignmentRecord
from ..runs.registry import Registry
from ..stores.filters import quoted
from ..stores.locate import Database, open_table
from .aligned import aligned_annotation, aligned_schema
from .annotated import held_alignments, held_comparisons, recorded_map
from .units import one_blas_thread
from .updated import Updated, UpdatedClusters
from .updating import ClusterJob, States, held_marks

__all__ = ["Updated", "UpdatedClusters", "update"]


def update(
    table: str,
    *,
    prefix: str | None = None,
    refit: bool = False,
    db: Database = None,
    progress: ProgressOption = "auto",
    executor: Executor = IN_PROCESS,
) -> list[Updated | UpdatedClusters]:
    """Bring the results in a table up to date: comparisons first, then aligned columns.

    What changed since a run's state was summed is added to it and taken out of it. The run's clusters stay,
    and rows that came or changed are scored by them; aligned columns get their map's value. Fragments in
    which nothing changed keep their column files. Nothing is fitted, unless asked.

    Parameters
    ----------
    prefix
        Only the results with this prefix, or the aligned column of this name.
    refit
        Find modes and clusters anew in the updated state, with the same feature maps, and score all rows: a
        new run. Clusters that are found again keep their numbers. No row that stayed is read for the state.
    progress, executor
        As in `compare`; what was added and removed is read in this process.

    Returns
    -------
    An `UpdatedClusters` per comparison, and an `Updated` per aligned column.

    Raises
    ------
    InputError
        The table has no results that a run is recorded for, or a run kept too little to go on from.
    RetryError
        Other writers kept winning; those results are as they were.

    Notes
    -----
    Cost: pass 1 over rows that changed, and pass 2 over fragments that hold such rows. With stable row ids
    rows that a compaction moved count as unchanged; without them they are read again, and so are all rows
    where the version that a state sums up is no longer held. Rows that can't be compared get null results.
    """
    source = open_table(table, db)
    comparisons = held_comparisons(source, prefix=prefix)
    alignments = [run for run in held_alignments(source)[::-1] if prefix in (None, run.prefix)]
    registry = Registry.of(source.location)
    if registry is None or (not comparisons and not alignments):
        which = f" with prefix {prefix!r}" if prefix else ""
        raise InputError(
            f"{sentence(source.describe())} has no results{which} that a run is recorded for: run spec-store"
            " compare or spec-store align first."
        )
    registry.check()
    states = States(registry, executor)
    jobs = [ClusterJob.of(run, table, source, registry, states, refit=refit) for run in comparisons]
    maps = [_checked_map(run, source) for run in alignments]
    with shown(progress) as told:
        done: list[Updated | UpdatedClusters] = [job.run(told) for job in jobs]
        done += [
            _aligned(source.latest(), r, m, registry, told, executor)
            for r, m in zip(alignments, maps, strict=True)
        ]
    return done


def _checked_map(run: AlignmentRecord, source: Source) -> AlignmentMap:
    """The map of an aligned column; what would stop it from being written is refused."""
    map_ = recorded_map(run, source)
    find_field(source, run.columns[0])
    source.count(run.options["where"])
    schema = aligned_schema(source, run.columns[0], run.prefix, map_.out_width, target=_target(run))
    source.check_annotation(schema)
    return map_


def _target(run: AlignmentRecord) -> str | None:
    """The column whose own vectors the aligned column takes where rows have them."""
    return run.columns[1] if run.options.get("only_missing") else None


def _aligned(
    source: Source,
    run: AlignmentRecord,
    map_: AlignmentMap,
    registry: Registry,
    progress: Progress,
    executor: Executor,
) -> Updated:
    column, (origin, _) = run.prefix, run.columns
    marks = held_marks(source, [column], run)[column]
    n_rows = source.count()
    empty = source.count(f"{quoted(column)} IS NULL")
    stage = f"write {column}"
    progress(stage, 0, n_rows)
    annotation = aligned_annotation(
        map_,
        source,
        origin,
        column,
        target=_target(run),
        metadata=marks,
        where=run.options["where"],
        batch_rows=run.options["batch_rows"],
        progress=lambda rows: progress(stage, rows, n_rows),
        executor=executor,
    )
    since = run.scored_version if run.scored_version is not None else 0
    with one_blas_thread():
        published = source.annotate(replace(annotation, since=since))
    missing = source.latest().count(f"{quoted(column)} IS NULL")
    done = replace(run, scored_version=published.computed_version, written_version=published.version)
    registry.finish(done, map_.to_bytes())
    return Updated(
        column, origin, run.run_id, n_rows, empty - missing, missing, published.n_rows, published.notes
    )
