"""A solved comparison: its figures, the pass that scores its rows, and where the results go.

References
----------
.. [1] Jalali, Dibaei Nia, Farnia, "Towards an explainable comparison and alignment of feature
   embeddings", ICML 2025, arXiv 2506.06231.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ..bars import shown
from ..connector import Annotation, Published, Source
from ..errors import InputError
from ..executor import IN_PROCESS, Executor
from ..keywords import ReportKeywords
from ..options import CompareOptions
from ..progress import Progress, ProgressOption, timed
from ..runs.records import ComparisonRecord
from ..runs.registry import Registry, cluster_table
from ..spectral.clusters import Rule
from ..spectral.covariance import CovarianceAccumulator
from ..spectral.scoring import Scorer
from ..spectral.spectrum import Spectrum
from ..stores.locate import Database, Destination
from ..stores.memory import release_memory
from ..stores.streaming import usable_cores
from .annotated import check_own, counted
from .kept import LeadingModes, save_sample
from .listing import Described
from .notebook import comparison_html
from .passes import ClusterTally, scored, scored_on_demand, tally_columns
from .sampling import Sample
from .units import one_blas_thread

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["MODES", "RULES", "SAMPLE", "Comparison", "check_place", "result_annotation"]

SAMPLE, RULES, MODES = "sample", "rules", "modes"
"""Names of what a registry keeps with a comparison, beside its state."""

_NOT_RECORDED = (
    "the run is not recorded, since the results are not in a database with a registry: this output is all"
    " there is to tell of its clusters."
)


@dataclass(frozen=True, repr=False)
class Comparison:
    """A solved comparison, and what it takes to score and annotate the rows.

    Attributes
    ----------
    source
        The pinned source the figures were computed on.
    spectrum
        Eigenvalues, modes, both SPEC-diffs, CKA and coverage.
    clusters_found
        By size times gap, the largest first: `Cluster`s, or only their rules where a `Job` is published.
    state
        The covariance state: the sufficient statistic of the comparison.
    sample
        Sampled rows, on which its clusters were found.
    record
        All figures as plain values: what ``compare --json`` prints and the registry keeps.
    described
        What it takes to describe the clusters beside pass 2; None for no description.
    destination
        The new table or file for the results; None where they become columns of the source.
    executor
        Who goes through the rows.
    """

    source: Source
    options: CompareOptions
    spectrum: Spectrum
    clusters_found: tuple[Rule, ...]
    scorer: Scorer
    state: CovarianceAccumulator
    sample: Sample
    record: ComparisonRecord
    described: Described | None = None
    destination: Destination | None = None
    executor: Executor = IN_PROCESS

    @property
    def run_id(self) -> str:
        """Unique, and sorted by time."""
        return self.record.run_id

    @property
    def columns(self) -> tuple[str, str]:
        """The two embedding columns."""
        return self.record.columns

    @property
    def prefix(self) -> str:
        """Of the result columns."""
        return self.record.prefix

    @property
    def spec_diff(self) -> float:
        """The spectral radius of the (uncentred) kernel difference [1]_."""
        return self.record.spec_diff

    @property
    def n_rows(self) -> int:
        """Rows compared."""
        return self.record.n_rows

    @property
    def n_skipped(self) -> int:
        """Rows skipped because a vector was null, not finite, or zero."""
        return self.record.n_skipped

    @property
    def eigenvalues(self) -> Mapping[str, Sequence[float]]:
        """By embedding, the leading eigenvalues of its end, strongest first, before rotation."""
        return self.record.eigenvalues

    @property
    def clusters(self) -> pa.Table:
        """One row per cluster, strongest first; sizes are null before `score` or `write`."""
        return cluster_table(self.record)

    @property
    def written(self) -> list[str]:
        """Result columns in the store; none before `write`."""
        return list(self.record.written)

    @property
    def warnings(self) -> list[str]:
        """What a person should know before relying on the figures."""
        return list(self.record.warnings)

    @property
    def table(self) -> str | None:
        """The table that holds, or will hold, the results; None for a file and for data in memory."""
        return self.record.table

    @property
    def registry(self) -> Registry | None:
        """Where `write` records the run; None for results that are not in a database with a registry."""
        return Registry.of(self.source.location if self.destination is None else self.destination.location)

    def __repr__(self) -> str:
        a, b = self.columns
        return (
            f"<Comparison of {a} and {b}: {self.n_rows:,} rows of {self.source.describe()}, SPEC-diff"
            f" {self.spec_diff:.4g}, {len(self.clusters_found)} clusters,"
            f" {'written' if self.written else 'not written'}>"
        )

    def _repr_html_(self) -> str:
        return comparison_html(self.record)

    def score(self, *, progress: ProgressOption = "auto") -> Comparison:
        """Pass 2 without writing: this comparison with exact sizes and typical rows in its record."""
        tally = self._tally()
        seconds: dict[str, float] = {}
        with shown(progress) as update, timed(seconds, "score"), one_blas_thread():
            update("score", 0, self._n_all)
            for _ in self._scored(tally, "score", update):
                pass
        return self._counted(seconds, tally)

    def scores(self) -> pa.RecordBatchReader:
        """Pass 2 as a stream: each row's key and result columns, in the store's order; nothing is written.

        Before `write` and after it, of the rows that were compared, at the version that was compared. Each
        call begins anew. pandas, polars and DuckDB read it as it is; a row that was skipped is null in every
        result column.

        Notes
        -----
        Cost: one pass over the two columns. Batches are computed as they are asked for, in memory for as many
        as threads, whatever the number of rows.

        Examples
        --------
        >>> run.scores().read_pandas()  # doctest: +SKIP
        >>> reader = run.scores()  # doctest: +SKIP
        >>> duckdb.sql("SELECT spec_clip_dino_cluster, count(*) FROM reader GROUP BY 1")  # doctest: +SKIP
        """
        batches = scored_on_demand(
            self.source,
            self.scorer,
            where=self.options.where,
            batch_rows=self.options.batch_rows,
            threads=self.options.threads,
        )
        first = next(batches)
        return pa.RecordBatchReader.from_batches(first.schema, chain([first], batches))

    def write(
        self,
        *,
        results: str | None = None,
        out: str | os.PathLike[str] | None = None,
        db: Database = None,
        progress: ProgressOption = "auto",
    ) -> Comparison:
        """Pass 2: annotate the rows, or write the results elsewhere; the run is recorded in the database.

        Parameters
        ----------
        results
            A new table of `db` for the row keys and the result columns, instead of new columns.
        out
            A Parquet file for them. The run is not recorded: the file's field metadata hold its options.
        db
            The database of the new table; None is ``$SPEC_STORE_DB``, else ``./lancedb``.
        progress
            As in `compare`.

        Returns
        -------
        This comparison as written: its record has sizes, typical rows, the result columns and the version.

        Raises
        ------
        RetryError
            Commit conflicts exceeded the retry limit, or no room was left; nothing was published.
        UnsupportedError
            The store can't hold result columns, and no other place was given.
        """
        destination = Destination.of(results, out, db)
        run = self
        if destination is not None:
            record = replace(self.record, table=destination.table)
            run = replace(self, destination=destination, record=record)
        with shown(progress) as update:
            return run._write(update)

    def _write(self, progress: Progress) -> Comparison:
        schema = self.scorer.schema
        registry = self.registry
        check_place(self.source, self.destination, schema, self.columns)
        names = (self.source.key, *schema.names) if self.destination else tuple(schema.names)
        state = self._stored_state()
        if registry is not None:
            self.keep(registry)
            registry.start(replace(self.record, written=names), state)
        release_memory()  # of the search for clusters
        progress("write", 0, self._n_all)
        seconds: dict[str, float] = {}
        with timed(seconds, "write"):
            if self.destination is None:
                published, tally = self._annotate(progress)
            else:
                published, tally = self._create(self.destination, progress)
        unscored = self._unscored(tally)
        warnings = (
            *self.record.warnings,
            *published.notes,
            *unscored,
            *([] if registry else [_NOT_RECORDED]),
        )
        done = self._counted(
            seconds,
            tally,
            written=published.columns,
            written_version=published.version,
            scored_version=published.computed_version,
            warnings=warnings,
        )
        if registry is not None:
            registry.finish(done.record, state)
        return done

    def _annotate(self, progress: Progress) -> tuple[Published, ClusterTally]:
        annotation = result_annotation(self.scorer, self.record, self.options, progress)
        annotation = replace(annotation, executor=self.executor)
        with one_blas_thread():
            published = self.source.annotate(annotation)
        latest = self.source.latest()
        return published, tally_columns(latest, self.prefix, self._tally(), where=self.options.where)

    def annotated(self, published: Published, seconds: Mapping[str, float]) -> Comparison:
        """This comparison once its result columns are published, with others' or alone: members counted."""
        latest = self.source.latest()
        tally = tally_columns(latest, self.prefix, self._tally(), where=self.options.where)
        return self._counted(
            dict(seconds),
            tally,
            written=tuple(self.scorer.schema.names),
            written_version=published.version,
            scored_version=published.computed_version,
            warnings=(*self.record.warnings, *published.notes),
        )

    def _create(self, destination: Destination, progress: Progress) -> tuple[Published, ClusterTally]:
        tally = self._tally()
        batches = self._scored(tally, "write", progress)
        with one_blas_thread():
            first = next(batches)
            schema = pa.schema([f.with_metadata(self.record.provenance) for f in first.schema])
            stream = (pa.RecordBatch.from_arrays(b.columns, schema=schema) for b in chain([first], batches))
            destination.create(schema, stream)
        return Published(None, tuple(schema.names), tally.n_rows, attempts=1), tally

    def _scored(self, tally: ClusterTally, stage: str, progress: Progress) -> Iterator[pa.RecordBatch]:
        return scored(
            self.source,
            self.scorer,
            tally,
            where=self.options.where,
            batch_rows=self.options.batch_rows,
            threads=self.options.threads,
            progress=lambda rows: progress(stage, rows, self._n_all),
            executor=self.executor,
        )

    def report(
        self,
        out: str | os.PathLike[str],
        *,
        progress: ProgressOption = "auto",
        **fields: Unpack[ReportKeywords],
    ) -> Path:
        """Write this comparison, once its results are in a table, as one HTML page; see `spec_store.report`.

        Raises
        ------
        InputError
            It is not written, or not to a table.
        """
        from .report import report

        location = self.source.location if self.destination is None else self.destination.location
        if not self.written or self.table is None or location is None:
            raise InputError("A report reads results in a table: write the comparison to one first.")
        return report(self.table, out, prefix=self.prefix, db=location, progress=progress, **fields)

    def create_index(self, *, progress: ProgressOption = "auto") -> Comparison:
        """Build a scalar index on the written cluster column, so that filters on it are fast."""
        seconds: dict[str, float] = {}
        with shown(progress) as update, timed(seconds, "index"):
            update("index", 0, self._n_all)
            written = self.source.latest() if self.destination is None else self.destination.open()
            written.create_index(f"{self.prefix}_cluster")
            update("index", self._n_all, self._n_all)
        return self._with(seconds)

    def to_json(self) -> dict[str, Any]:
        """The object that ``compare --json`` prints; its keys are stable."""
        return self.record.to_json()

    @property
    def _n_all(self) -> int:
        return self.record.n_scored

    def _tally(self) -> ClusterTally:
        numbers = [c.number for c in self.clusters_found]
        if self.described is None or not numbers:
            return ClusterTally(numbers)
        return ClusterTally(numbers, self.described.describer(numbers))

    def _unscored(self, tally: ClusterTally) -> list[str]:
        """A fit on a share of the rows has not seen which of the others can't be compared."""
        n = tally.n_rows - tally.n_annotated
        if self.record.fit is None or not n:
            return []
        return [
            f"{n:,} of {tally.n_rows:,} rows hold vectors that can't be compared: their results are null."
        ]

    def _counted(self, seconds: dict[str, float], tally: ClusterTally, **changes: Any) -> Comparison:
        skipped = tally.describer.skipped if tally.describer else {}
        clusters = counted(self.record.clusters, tally)
        return self._with(seconds, clusters=clusters, skipped_columns=dict(skipped), **changes)

    def _with(self, seconds: dict[str, float], **changes: Any) -> Comparison:
        return replace(self, record=self.record.with_stage(seconds, **changes))

    def keep(self, registry: Registry) -> None:
        """Store what later questions to the recorded run, and its updates, need beside its state."""
        registry.put_artifact(self.run_id, RULES, self.scorer.to_bytes())
        registry.put_artifact(self.run_id, MODES, LeadingModes.of(self.spectrum).to_bytes())
        if self.record.state_run is None and self.options.keep_sample:
            registry.put_artifact(self.run_id, SAMPLE, save_sample(self.sample, self.options.seed))

    def _stored_state(self) -> bytes | None:
        return self.state.to_bytes() if self.record.state_run is None else None


def result_annotation(
    scorer: Scorer, record: ComparisonRecord, options: CompareOptions, progress: Progress
) -> Annotation:
    """What pass 2 writes."""
    return Annotation(
        schema=scorer.schema,
        reads=record.columns,
        compute=scorer.compute,
        token=scorer.token,
        metadata=record.provenance,
        where=options.where,
        batch_rows=options.batch_rows,
        workers=options.threads or usable_cores(),
        progress=lambda rows: progress("write", rows, record.n_scored),
    )


def check_place(
    source: Source, destination: Destination | None, schema: pa.Schema, pair: tuple[str, str]
) -> None:
    """Refuse, before any work, results that could not be written, replaced or recorded."""
    if destination is None:
        check_own(source, schema.names, pair, "--prefix")
        source.check_annotation(schema)
    else:
        destination.check(schema)
    registry = Registry.of(source.location if destination is None else destination.location)
    if registry is not None:
        registry.check()
