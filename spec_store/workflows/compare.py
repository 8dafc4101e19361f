"""The comparison of two embeddings of the same rows: sample, pass 1, solve, pass 2, publish.

References
----------
.. [1] Jalali, Dibaei Nia, Farnia, "Towards an explainable comparison and alignment of feature
   embeddings", ICML 2025, arXiv 2506.06231.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Any

import pyarrow as pa
from threadpoolctl import threadpool_limits

from ..connector import Annotation, Published, Source, find_field
from ..errors import FilterError, InputError, InvalidVectorsError, sentence
from ..options import CompareOptions, default_prefix
from ..progress import Progress, silent, timed
from ..runs import registry as runs
from ..spectral.bandwidth import Bandwidths
from ..spectral.clusters import Cluster, find_clusters
from ..spectral.covariance import CovarianceAccumulator
from ..spectral.scoring import Scorer, result_schema
from ..spectral.spectrum import Spectrum, solve
from ..stores.locate import DEFAULT_CONNECTOR, Destination, open_columns, open_data
from ..stores.vectors import is_vector, vector_width
from ..stores.view import keyed
from .passes import ClusterTally, accumulate, scored, tally_columns
from .sampling import draw_sample, fit_maps, map_error, sample_features

__all__ = ["Comparison", "compare"]


@dataclass
class Comparison:
    """A solved comparison, and what it takes to score and annotate the rows.

    Attributes
    ----------
    source
        The pinned source the figures were computed on.
    columns
        The two embedding columns.
    spectrum
        Eigenvalues, modes, both SPEC-diffs, CKA and coverage.
    clusters_found
        Strongest first; a cluster's number is its position.
    state
        The covariance state: the sufficient statistic of the comparison.
    map_error
        The size of error of an eigenvalue that comes from the feature maps; 0 for exact ones.
    warnings
        What a person should know before relying on the figures.
    seconds
        Wall time by stage.
    tally
        Sizes and typical rows; None before `score` or `write`.
    destination
        The new table or file for the results; None where they become columns of the source.
    written
        The result columns in the store; empty before `write`.
    recorded
        Whether the run is in a registry, where `clusters` and `runs` find it.
    """

    source: Source
    columns: tuple[str, str]
    options: CompareOptions
    prefix: str
    spectrum: Spectrum
    clusters_found: tuple[Cluster, ...]
    scorer: Scorer
    state: CovarianceAccumulator
    bandwidths: Bandwidths | None
    map_error: float
    warnings: list[str]
    seconds: dict[str, float]
    progress: Progress = silent
    destination: Destination | None = None
    tally: ClusterTally | None = None
    published: Published | None = None
    recorded: bool = False
    run_id: str = field(default_factory=runs.new_run_id)

    @property
    def spec_diff(self) -> float:
        """The spectral radius of the (uncentred) kernel difference [1]_."""
        return self.spectrum.spec_diff

    @property
    def n_rows(self) -> int:
        """Rows compared."""
        return self.spectrum.n_rows

    @property
    def n_skipped(self) -> int:
        """Rows left out because a vector was null, not finite, or zero."""
        return self.state.invalid.n_rows

    @property
    def written(self) -> list[str]:
        """Result columns in the store."""
        return list(self.published.columns) if self.published else []

    @property
    def clusters(self) -> pa.Table:
        """One row per cluster, strongest first; sizes are null before `score` or `write`."""
        return runs.cluster_table(self)

    def score(self) -> ClusterTally:
        """Pass 2 without writing: exact sizes and typical rows."""
        self.progress("score", 0, self.n_rows + self.n_skipped)
        tally = ClusterTally(len(self.clusters_found))
        with self._stage("score"):
            for _ in self._scored(tally, "score"):
                pass
        self.tally = tally
        return tally

    def write(
        self, *, results: str | None = None, out: str | os.PathLike[str] | None = None, db: str | None = None
    ) -> Published:
        """Pass 2: annotate the rows, or write the results elsewhere; then record the run in the database.

        Parameters
        ----------
        results
            A new table of `db` for the row keys and the result columns, in place of new columns.
        out
            A Parquet file for them. The run is not recorded: the file's field metadata tell its options.
        db
            The database of the new table; None is ``$SPEC_STORE_DB``, else ``./lancedb``.

        Raises
        ------
        RetryError
            Other writers kept winning, or no room was left; nothing was published.
        UnsupportedError
            The store can't hold result columns, and no other place was given.
        """
        self.destination = Destination.of(results, out, db) or self.destination
        if self.destination is None:
            self.source.check_annotation(result_schema(self.prefix))
        self.progress("write", 0, self.n_rows + self.n_skipped)
        with self._stage("write"):
            if self.destination is None:
                self._annotate()
            else:
                self._create(self.destination)
        assert self.published is not None
        self.recorded = runs.record(self)
        return self.published

    def _annotate(self) -> None:
        annotation = Annotation(
            schema=result_schema(self.prefix),
            reads=self.columns,
            compute=self.scorer.compute,
            token=self.scorer.token,
            metadata=runs.provenance(self),
            where=self.options.where,
            batch_rows=self.options.batch_rows,
            progress=lambda rows: self.progress("write", rows, self.n_rows + self.n_skipped),
        )
        with threadpool_limits(1, user_api="blas"):  # rows are scored in threads
            self.published = self.source.annotate(annotation)
        self.warnings += self.published.notes
        latest = self.source.latest()
        self.tally = tally_columns(latest, self.prefix, len(self.clusters_found), where=self.options.where)

    def _create(self, destination: Destination) -> None:
        tally = ClusterTally(len(self.clusters_found))
        batches = self._scored(tally, "write")
        first = next(batches)
        schema = pa.schema([f.with_metadata(runs.provenance(self)) for f in first.schema])
        stream = (pa.RecordBatch.from_arrays(b.columns, schema=schema) for b in chain([first], batches))
        destination.create(schema, stream)
        self.tally = tally
        self.published = Published(None, tuple(schema.names), tally.n_rows, attempts=1)

    def _scored(self, tally: ClusterTally, stage: str) -> Iterator[pa.RecordBatch]:
        return scored(
            self.source,
            self.scorer,
            tally,
            where=self.options.where,
            batch_rows=self.options.batch_rows,
            progress=lambda rows: self.progress(stage, rows, self.n_rows + self.n_skipped),
        )

    @property
    def table(self) -> str | None:
        """The table that holds, or will hold, the results; None for a file and for data in memory."""
        return self.source.table if self.destination is None else self.destination.table

    def create_index(self) -> None:
        """Build a scalar index on the written cluster column, so that filters on it are fast."""
        with self._stage("index"):
            written = self.source.latest() if self.destination is None else self.destination.open()
            written.create_index(f"{self.prefix}_cluster")

    @cached_property
    def eigenvalues(self) -> dict[str, list[float]]:
        """By embedding, the leading eigenvalues of its end, strongest first, before rotation."""
        ends = zip(self.columns, self.spectrum.ends, strict=True)
        return {c: [float(v) for v in end.eigenvalues] for c, end in ends}

    def to_json(self) -> dict[str, Any]:
        """The object that ``compare --json`` prints; its keys are stable."""
        return runs.comparison_json(self)

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        with timed(self.seconds, name):
            yield


def compare(
    table: Any,
    columns: Sequence[str],
    *,
    db: str | None = None,
    connector: str = DEFAULT_CONNECTOR,
    version: int | None = None,
    write: bool = False,
    results: str | None = None,
    out: str | os.PathLike[str] | None = None,
    progress: Progress = silent,
    options: CompareOptions | None = None,
    **fields: Any,
) -> Comparison:
    """Compare two embedding columns; nothing is written unless asked, here or by `write()`.

    Parameters
    ----------
    table
        A table's name, an open `Source`, or data: anything with ``__arrow_c_stream__`` (pandas, polars,
        DuckDB, Hugging Face datasets) or a mapping of arrays. Where both columns are of other stores, the
        name of a new table for the results, or None.
    columns
        Two vector columns, nested ones by dotted path. ``dino=faiss:dino.index`` is a column of another
        store, matched by the option `key`.
    db
        The database; None is ``$SPEC_STORE_DB``, else ``./lancedb``.
    connector
        The kind of store, see ``spec-store connectors``.
    version
        A version of the table to pin; None is the latest.
    write
        Write the results and record the run; what would stop that is checked before any work.
    results, out
        A new table of `db`, or a Parquet file, for the results, in place of columns of the table.
    options
        Everything else; or give the fields of `CompareOptions` as keywords.

    Raises
    ------
    InputError
        The table, the columns, the filter or the vectors can't be used; nothing was written.

    Notes
    -----
    Cost: two passes over the two columns. Pass 1 is O(n p²) for p stacked features, memory O(p²)
    whatever the number of rows; a join of two stores holds 40 bytes per row for their ids.

    Examples
    --------
    >>> run = spec_store.compare("images", ["clip", "dino"], db="./lancedb")  # doctest: +SKIP
    >>> run.spec_diff, run.clusters.to_pylist()[0]["side"]  # doctest: +SKIP
    """
    if options is None:
        options = CompareOptions.from_keywords(fields)
    elif fields:
        raise InputError(f"Give either options or keywords ({', '.join(fields)}), not both.")
    _two_columns(columns)
    if table is None or isinstance(table, str):
        source, names, takes_part = open_columns(
            columns,
            table=table,
            db=db,
            connector=connector,
            version=version,
            key=options.key,
            on_missing=options.on_missing,
        )
        if not takes_part and out is None and results is None:
            results = table
    else:
        source = keyed(table if isinstance(table, Source) else open_data(table), options.key)
        names = tuple(columns)
    pair = _two_columns(names)
    prefix = options.prefix or default_prefix(pair)
    destination = Destination.of(results, out, db)
    if write and destination is None:
        source.check_annotation(result_schema(prefix))
    elif destination is not None:
        destination.check(result_schema(prefix))
    n_rows = _check(source, pair, options)

    run = _solved(source, pair, options, n_rows, progress)
    run.destination = destination
    if write:
        run.write()
    return run


def _solved(
    source: Source,
    pair: tuple[str, str],
    options: CompareOptions,
    n_rows: int,
    progress: Progress,
) -> Comparison:
    """Sample, pass 1 and solve. The sample's memory is free again when pass 2 begins."""
    prefix = options.prefix or default_prefix(pair)
    seconds: dict[str, float] = {}
    with timed(seconds, "sample"):
        sample = draw_sample(source, pair, options)
        maps, bandwidths = fit_maps(sample, options)
        error = map_error(sample, maps, bandwidths, options.eta)
    progress("covariance", 0, n_rows)
    with timed(seconds, "covariance"):
        state = accumulate(
            source,
            maps,
            where=options.where,
            batch_rows=options.batch_rows,
            progress=lambda rows: progress("covariance", rows, n_rows),
        )
    _check_invalid(source, state, options)
    with timed(seconds, "solve"):
        spectrum = solve(state, modes=options.modes, eta=options.eta, center=options.center)
        clusters = find_clusters(
            spectrum,
            sample_features(sample, maps),
            rotate=options.rotate == "varimax",
            floor=error,
            min_stability=options.min_stability if state.halves == 2 else 0.0,
        )
    return Comparison(
        source=source,
        columns=pair,
        options=options,
        prefix=prefix,
        spectrum=spectrum,
        clusters_found=clusters,
        scorer=Scorer(maps, clusters, prefix),
        state=state,
        bandwidths=bandwidths,
        map_error=error,
        warnings=[*source.notes, *_warnings(pair, options, bandwidths, spectrum)],
        seconds=seconds,
        progress=progress,
    )


def _two_columns(columns: Sequence[str]) -> tuple[str, str]:
    if isinstance(columns, str) or len(columns) != 2:
        raise InputError(f"Two embedding columns are compared; {columns!r} was given.")
    if columns[0] == columns[1]:
        raise InputError(f"Column {columns[0]!r} is given twice: a column does not differ from itself.")
    return columns[0], columns[1]


def _check(source: Source, columns: tuple[str, str], options: CompareOptions) -> int:
    """Refuse what can be refused before any pass; the number of rows to be compared."""
    for c in columns:
        kind = find_field(source, c).type
        if not is_vector(kind) or pa.types.is_fixed_size_list(kind):
            vector_width(c, kind)
    n_rows = source.count(options.where)
    if n_rows == 0 and options.where is not None:
        raise FilterError(f"No row of {source.describe()} matches {options.where!r}.")
    if n_rows == 0:
        raise InputError(f"{sentence(source.describe())} is empty: there is nothing to compare.")
    needed = max(options.modes, 2)
    if n_rows < needed:
        raise InputError(
            f"{sentence(source.describe())} has {n_rows} rows to compare, fewer than the {options.modes}"
            " modes asked for. Give more rows, or fewer --modes."
            if n_rows > 1
            else f"{sentence(source.describe())} has one row: a comparison needs at least {needed}."
        )
    return n_rows


def _check_invalid(source: Source, state: CovarianceAccumulator, options: CompareOptions) -> None:
    if state.invalid.n_rows and not options.skip_invalid:
        raise InvalidVectorsError(
            f"{state.invalid.n_rows:,} rows of {source.describe()} can't be compared:"
            f" {state.invalid.describe()}. Repair them, or leave them out with --skip-invalid"
            " (skip_invalid=True): their result columns are then null."
        )


def _warnings(
    columns: tuple[str, str], options: CompareOptions, bandwidths: Bandwidths | None, spectrum: Spectrum
) -> list[str]:
    told = bandwidths.warnings(columns) if bandwidths else []
    if options.precision == "float32" and spectrum.spec_diff < 10 * spectrum.rounding:
        told.append(
            f"the embeddings hardly differ: float32 can't tell eigenvalues under {spectrum.rounding:.1g} from"
            " rounding. Use --precision float64 for smaller ones."
        )
    for column, coverage in zip(columns, spectrum.coverage, strict=True):
        if coverage < 0.5 and bandwidths:
            told.append(
                f"the feature map covers {coverage:.0%} of the kernel of column {column!r}: small groups"
                " may go unseen. Try a larger --dim, or a larger --bandwidth-scale."
            )
    return told
