"""The comparison of two embeddings of the same rows: sample, pass 1, solve, pass 2, publish.

References
----------
.. [1] Jalali, Dibaei Nia, Farnia, "Towards an explainable comparison and alignment of feature
   embeddings", ICML 2025, arXiv 2506.06231.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import chain
from typing import Any

import pyarrow as pa

from ..connector import Annotation, Published, Source, find_field
from ..errors import FilterError, InputError, InvalidVectorsError, sentence
from ..options import CompareOptions, default_prefix
from ..progress import Progress, silent, timed
from ..runs.records import ClusterRecord, ComparisonRecord
from ..runs.registry import LARGEST_STATE, Registry, cluster_table
from ..spectral.bandwidth import Bandwidths
from ..spectral.clusters import Cluster, find_clusters
from ..spectral.covariance import CovarianceAccumulator
from ..spectral.scoring import Scorer, result_schema
from ..spectral.spectrum import Spectrum, solve
from ..stores.locate import Database, Destination, open_columns, open_data
from ..stores.streaming import usable_cores
from ..stores.vectors import is_vector, vector_width
from ..stores.view import keyed
from .annotated import check_own, counted
from .passes import ClusterTally, accumulate, one_blas_thread, scored, tally_columns
from .sampling import draw_sample, fit_maps, identified, map_error, sample_features

__all__ = ["Comparison", "compare"]

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
        Strongest first; a cluster's number is its position.
    state
        The covariance state: the sufficient statistic of the comparison.
    record
        All figures as plain values: what ``compare --json`` prints and the registry keeps.
    destination
        The new table or file for the results; None where they become columns of the source.
    """

    source: Source
    options: CompareOptions
    spectrum: Spectrum
    clusters_found: tuple[Cluster, ...]
    scorer: Scorer
    state: CovarianceAccumulator
    bandwidths: Bandwidths | None
    record: ComparisonRecord
    destination: Destination | None = None

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
        """For notebooks: the headline, and the clusters as a table."""
        shown = ["cluster", "side", "strength", *(f"in {c}" for c in self.columns), "size", "stability"]
        rows = [
            [
                *(c.cluster, c.side, f"{c.strength:.4g}", *(f"{e:.4g}" for e in c.energy.values())),
                *(c.size, None if c.stability is None else f"{c.stability:.2f}"),
            ]
            for c in self.record.clusters
        ]
        head = "".join(f"<th>{escape(name)}</th>" for name in shown)
        body = "".join(
            f"<tr>{''.join(f'<td>{escape(str(v if v is not None else chr(8211)))}</td>' for v in row)}</tr>"
            for row in rows
        )
        return f"<p>{escape(repr(self)[1:-1])}</p><table><tr>{head}</tr>{body}</table>"

    def score(self, *, progress: Progress = silent) -> Comparison:
        """Pass 2 without writing: this comparison with exact sizes and typical rows in its record."""
        progress("score", 0, self._n_all)
        tally = ClusterTally(len(self.clusters_found))
        seconds: dict[str, float] = {}
        with timed(seconds, "score"), one_blas_thread():
            for _ in self._scored(tally, "score", progress):
                pass
        return self._with(seconds, clusters=counted(self.record.clusters, tally))

    def write(
        self,
        *,
        results: str | None = None,
        out: str | os.PathLike[str] | None = None,
        db: Database = None,
        progress: Progress = silent,
    ) -> Comparison:
        """Pass 2: annotate the rows, or write the results elsewhere; the run is recorded in the database.

        Parameters
        ----------
        results
            A new table of `db` for the row keys and the result columns, in place of new columns.
        out
            A Parquet file for them. The run is not recorded: the file's field metadata hold its options.
        db
            The database of the new table; None is ``$SPEC_STORE_DB``, else ``./lancedb``.

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
        if destination is not None:
            record = replace(self.record, table=destination.table)
            return replace(self, destination=destination, record=record)._write(progress)
        return self._write(progress)

    def _write(self, progress: Progress) -> Comparison:
        schema = result_schema(self.prefix)
        registry = self.registry
        _check_place(self.source, self.destination, schema, self.columns)
        names = (self.source.key, *schema.names) if self.destination else tuple(schema.names)
        state = self._stored_state()
        if registry is not None:
            registry.start(replace(self.record, written=names), state)
        progress("write", 0, self._n_all)
        seconds: dict[str, float] = {}
        with timed(seconds, "write"):
            if self.destination is None:
                published, tally = self._annotate(progress)
            else:
                published, tally = self._create(self.destination, progress)
        warnings = (*self.record.warnings, *published.notes, *([] if registry else [_NOT_RECORDED]))
        done = self._with(
            seconds,
            clusters=counted(self.record.clusters, tally),
            written=published.columns,
            written_version=published.version,
            warnings=warnings,
        )
        if registry is not None:
            registry.finish(done.record, state)
        return done

    def _annotate(self, progress: Progress) -> tuple[Published, ClusterTally]:
        annotation = Annotation(
            schema=result_schema(self.prefix),
            reads=self.columns,
            compute=self.scorer.compute,
            token=self.scorer.token,
            metadata=self.record.provenance,
            where=self.options.where,
            batch_rows=self.options.batch_rows,
            workers=self.options.threads or usable_cores(),
            progress=lambda rows: progress("write", rows, self._n_all),
        )
        with one_blas_thread():
            published = self.source.annotate(annotation)
        latest = self.source.latest()
        return published, tally_columns(
            latest, self.prefix, len(self.clusters_found), where=self.options.where
        )

    def _create(self, destination: Destination, progress: Progress) -> tuple[Published, ClusterTally]:
        tally = ClusterTally(len(self.clusters_found))
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
        )

    def create_index(self, *, progress: Progress = silent) -> Comparison:
        """Build a scalar index on the written cluster column, so that filters on it are fast."""
        seconds: dict[str, float] = {}
        progress("index", 0, self._n_all)
        with timed(seconds, "index"):
            written = self.source.latest() if self.destination is None else self.destination.open()
            written.create_index(f"{self.prefix}_cluster")
        progress("index", self._n_all, self._n_all)
        return self._with(seconds)

    def to_json(self) -> dict[str, Any]:
        """The object that ``compare --json`` prints; its keys are stable."""
        return self.record.to_json()

    @property
    def _n_all(self) -> int:
        return self.n_rows + self.n_skipped

    def _with(self, seconds: dict[str, float], **changes: Any) -> Comparison:
        return replace(self, record=self.record.with_stage(seconds, **changes))

    def _stored_state(self) -> bytes | None:
        size = 8 * self.state.halves * self.state.n_columns**2 // 2
        return self.state.to_bytes() if size <= LARGEST_STATE else None


def compare(
    table: Any,
    columns: Sequence[str],
    *,
    db: Database = None,
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
        A table's name, or an open table (of lancedb, synchronous or not, or a Lance data set), which is
        compared at the version at which it is open; or data: anything with ``__arrow_c_stream__`` (pandas,
        polars, DuckDB, Hugging Face datasets) or a mapping of arrays. Where both columns are of other
        stores, the name of a new table for the results, or None.
    columns
        Two vector columns, nested ones by dotted path. ``dino=faiss:dino.index`` is a column of another
        store, matched by the option `key`.
    db
        The database: a LanceDB folder, URI or connection, or a `Location` in any store; None is
        ``$SPEC_STORE_DB``, else ``./lancedb``.
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
    ColumnClashError
        Result columns of this name hold another pair's results, or are somebody else's.

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
    asked = _two_columns(columns)
    if table is None or isinstance(table, str):
        opened = open_columns(
            asked, table=table, db=db, version=version, key=options.key, on_missing=options.on_missing
        )
        source, names = opened.source, opened.names
        if not opened.of_table and out is None and results is None:
            results = table
    else:
        source, names = keyed(open_data(table), options.key), asked
    pair = _two_columns(names)
    destination = Destination.of(results, out, db)
    if write or destination is not None:
        prefix = options.prefix or default_prefix(pair)
        _check_place(source, destination, result_schema(prefix), pair)
    n_rows = _check(source, pair, options)
    run = _solved(source, pair, options, n_rows, destination, progress)
    return run.write(progress=progress) if write else run


def _check_place(
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


def _solved(
    source: Source,
    pair: tuple[str, str],
    options: CompareOptions,
    n_rows: int,
    destination: Destination | None,
    progress: Progress,
) -> Comparison:
    """Sample, pass 1 and solve. The sample's memory is free again when pass 2 begins."""
    prefix = options.prefix or default_prefix(pair)
    seconds: dict[str, float] = {}
    with timed(seconds, "sample"):
        rows = identified(source, options.where)
        sample = draw_sample(rows.source, pair, options)
        fitted = fit_maps(sample, options)
        maps, bandwidths = fitted.maps, fitted.bandwidths
        error = map_error(sample, maps, bandwidths, options.eta)
    progress("covariance", 0, n_rows)
    with timed(seconds, "covariance"):
        state = accumulate(
            rows.source,
            maps,
            where=options.where,
            batch_rows=options.batch_rows,
            threads=options.threads,
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
    scorer = Scorer(maps, clusters, prefix)
    sigmas = bandwidths.values if bandwidths else (None, None)
    ends = zip(pair, spectrum.ends, strict=True)
    record = ComparisonRecord(
        table=source.table if destination is None else destination.table,
        columns=pair,
        prefix=prefix,
        source_version=source.version,
        n_rows=spectrum.n_rows,
        n_skipped=state.invalid.n_rows,
        options=options.to_json(),
        seconds=seconds,
        warnings=(*source.notes, *rows.warnings, *_warnings(pair, options, bandwidths, spectrum)),
        bandwidth=dict(zip(pair, sigmas, strict=True)),
        coverage=dict(zip(pair, spectrum.coverage, strict=True)),
        map_error=error,
        spec_diff=spectrum.spec_diff,
        spec_diff_centered=spectrum.spec_diff_centered,
        cka=None if math.isnan(spectrum.cka) else spectrum.cka,
        eigenvalues={c: [float(v) for v in end.eigenvalues] for c, end in ends},
        clusters=tuple(_recorded(i, c, pair, prefix) for i, c in enumerate(clusters)),
    )
    return Comparison(
        source=source,
        options=options,
        spectrum=spectrum,
        clusters_found=clusters,
        scorer=scorer,
        state=state,
        bandwidths=bandwidths,
        record=record,
        destination=destination,
    )


def _recorded(number: int, cluster: Cluster, pair: tuple[str, str], prefix: str) -> ClusterRecord:
    return ClusterRecord(
        cluster=number,
        side=pair[cluster.end],
        strength=cluster.strength,
        energy=dict(zip(pair, cluster.energy, strict=True)),
        stability=None if math.isnan(cluster.stability) else cluster.stability,
        where=f"array_has({prefix}_clusters, {number})",
    )


def _two_columns(columns: Sequence[str]) -> tuple[str, str]:
    wrong = [c for c in ([] if isinstance(columns, str) else columns) if not isinstance(c, str)]
    if wrong:
        raise InputError(
            f"Columns are named; a {type(wrong[0]).__name__} was given. Arrays are given by name:"
            ' compare({"clip": a, "dino": b}, ["clip", "dino"]).'
        )
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
    told = bandwidths.warnings() if bandwidths else []
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
