"""The comparison of two embeddings of the same rows: sample, pass 1, solve; `Comparison` does the rest."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from ..bars import shown
from ..connector import Source, find_field
from ..errors import FilterError, InputError, InvalidVectorsError, sentence
from ..keywords import CompareKeywords
from ..options import CompareOptions, default_prefix
from ..progress import Progress, ProgressOption, timed
from ..runs.records import ComparisonRecord
from ..spectral.bandwidth import Bandwidths
from ..spectral.covariance import CovarianceAccumulator
from ..spectral.scoring import Scorer, result_schema
from ..spectral.spectrum import Spectrum, solve
from ..stores.locate import Destination, open_columns, open_data
from ..stores.streaming import usable_cores
from ..stores.tables import Database, TableLike
from ..stores.vectors import is_vector, vector_width
from ..stores.view import keyed
from .comparison import Comparison, check_place
from .listing import Described, Earlier, described_columns, earlier_run, list_clusters
from .passes import accumulate
from .sampling import draw_sample, evaluated_rows, fit_maps, identified, map_error

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["compare"]

_DEFAULT_MODES = 40
# Of each end, in the column of modes.
_WRITTEN_MODES = 10


def compare(
    table: TableLike | None,
    columns: Sequence[str],
    *,
    db: Database = None,
    version: int | None = None,
    write: bool = False,
    results: str | None = None,
    out: str | os.PathLike[str] | None = None,
    progress: ProgressOption = "auto",
    options: CompareOptions | None = None,
    **fields: Unpack[CompareKeywords],
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
        A new table of `db`, or a Parquet file, for the results, instead of columns of the table.
    progress
        How far the work is: "auto" shows a bar on a terminal (stderr) and in a notebook, and nothing
        elsewhere; None shows nothing; a callable is called with the stage, the rows done since the last call
        and all of its rows.
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
    whatever the number of rows; a join of two stores holds 40 bytes per row for their ids, and a `key` in one
    store 16 bytes per row while its repetitions are counted.

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
        check_place(source, destination, result_schema(prefix, modes=options.write_modes), pair)
    n_rows = _check(source, pair, options)
    with shown(progress) as update:
        run = _solved(source, pair, options, n_rows, destination, update)
        return run.write(progress=update) if write else run


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
    earlier = earlier_run(source, pair, prefix) if destination is None else Earlier(None, ())
    described = described_columns(source, pair) if options.describe else ()
    with timed(seconds, "sample"):
        rows = identified(source, options.where)
        sample = draw_sample(rows.source, pair, options, others=(*earlier.columns, *described))
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
        modes = options.modes or min(_DEFAULT_MODES, state.n_rows)
        spectrum = solve(state, modes=modes, eta=options.eta, center=options.center)
    with timed(seconds, "clusters"):
        evaluated = evaluated_rows(sample, maps, spectrum, bandwidths)
        listing = list_clusters(
            evaluated,
            sample.others,
            earlier,
            pair,
            prefix,
            eta=options.eta,
            seed=options.seed,
            threads=options.threads or usable_cores(),
        )
    scorer = Scorer(
        maps, listing.clusters, prefix, spectrum.leading(_WRITTEN_MODES) if options.write_modes else None
    )
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
        warnings=(*source.notes, *rows.warnings, *_warnings(options, bandwidths, spectrum)),
        bandwidth=dict(zip(pair, sigmas, strict=True)),
        coverage=dict(zip(pair, spectrum.coverage, strict=True)),
        map_error=error,
        spec_diff=spectrum.spec_diff,
        spec_diff_centered=spectrum.spec_diff_centered,
        cka=None if math.isnan(spectrum.cka) else spectrum.cka,
        eigenvalues={c: [float(v) for v in end.eigenvalues] for c, end in ends},
        **listing.fields,
    )
    return Comparison(
        source=source,
        options=options,
        spectrum=spectrum,
        clusters_found=listing.clusters,
        scorer=scorer,
        state=state,
        bandwidths=bandwidths,
        record=record,
        described=Described.of(source, pair, sample.others, options.seed) if options.describe else None,
        destination=destination,
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
    needed = options.fewest_rows
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
            f" {state.invalid.describe()}. Repair them, or skip them with --skip-invalid"
            " (skip_invalid=True): their result columns are then null."
        )


def _warnings(options: CompareOptions, bandwidths: Bandwidths | None, spectrum: Spectrum) -> list[str]:
    messages = bandwidths.warnings() if bandwidths else []
    if options.precision == "float32" and spectrum.spec_diff < 10 * spectrum.rounding:
        messages.append(
            f"the embeddings hardly differ: float32 can't tell eigenvalues under {spectrum.rounding:.1g} from"
            " rounding. Use --precision float64 for smaller ones."
        )
    return messages
