"""What comparisons are solved from: one state over any number of embeddings, and the sample it goes with."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..connector import Source
from ..errors import InputError, InvalidVectorsError
from ..executor import IN_PROCESS, Executor, idle_workers
from ..options import CompareOptions
from ..progress import Progress, timed
from ..spectral.covariance import CovarianceAccumulator
from ..spectral.features import FeatureMap
from ..stores.view import View
from .executor import sending_warnings
from .pass_checkpoint import PassCheckpoint, Prepared
from .passes import accumulate
from .portion import Portion, sum_blocks
from .sampling import Sample, draw_sample, fit_maps, identified, map_error
from .units import units_of

__all__ = ["Basis", "basis_of", "fitted_on_sample", "gather", "pairs_of", "rows_of", "summed_share"]


@dataclass(frozen=True)
class Basis:
    """A state and its sample, from which any pair of its embeddings can be compared.

    Attributes
    ----------
    source
        The pinned source that is to be scored.
    columns
        The embeddings' names in it.
    references
        The columns as they were asked for, those of other stores among them.
    options
        Those that fix the state: kernel, maps, filter, seed.
    sample
        As it is kept.
    portion
        The share of the rows that the state was summed over just now, in groups; None for a kept state, and
        where it is of all rows.
    n_scored
        Rows of the source that are scored: more than the state's where that is of a share of them; None for
        as many.
    map_errors
        By pair, see `map_error`, for the η of the options; those that are not there are computed.
    state_run
        The run that keeps state and sample; None where the run to come is to keep them.
    warnings
        Of the source, its keys, and the bandwidths.
    seconds
        Wall time by stage.
    executor
        Who goes through the rows.
    """

    source: Source
    columns: tuple[str, ...]
    references: tuple[str, ...]
    options: CompareOptions
    state: CovarianceAccumulator
    sample: Sample
    portion: Portion | None = None
    n_scored: int | None = None
    map_errors: Mapping[tuple[str, str], float] = field(default_factory=dict)
    state_run: str | None = None
    warnings: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    executor: Executor = IN_PROCESS

    def positions(self, pair: tuple[str, str]) -> tuple[int, int]:
        """Where a pair's embeddings are in the state. Raises InputError for others."""
        known = [m.column for m in self.state.maps]
        for column in pair:
            if column not in known:
                raise InputError(f"The state holds no embedding {column!r}; it holds {', '.join(known)}.")
        return known.index(pair[0]), known.index(pair[1])

    def maps(self, pair: tuple[str, str]) -> list[FeatureMap]:
        """A pair's feature maps."""
        return [self.state.maps[i] for i in self.positions(pair)]

    def map_error(self, pair: tuple[str, str], eta: float) -> float:
        """See `map_error`."""
        if eta == self.options.eta and pair in self.map_errors:
            return self.map_errors[pair]
        return map_error(self.sample.of(pair), self.maps(pair), eta)


def pairs_of(columns: Sequence[str]) -> list[tuple[str, str]]:
    """All pairs, in the order of the columns."""
    return list(itertools.combinations(columns, 2))


def gather(
    source: Source,
    columns: tuple[str, ...],
    references: tuple[str, ...],
    options: CompareOptions,
    n_rows: int,
    progress: Progress,
    *,
    others: Sequence[str],
    maps: Sequence[FeatureMap] | None = None,
    executor: Executor = IN_PROCESS,
    checkpoint: PassCheckpoint | None = None,
) -> Basis:
    """Draw the sample, fit the maps, and bring all rows into the state: pass 1.

    Parameters
    ----------
    n_rows
        In the source, after the filter.
    others
        Further columns to read with the sample.
    maps
        Those of an earlier run, to be used as they are; None fits them.
    executor
        Who goes through the rows.
    checkpoint
        What an interrupted run had done, and where progress is kept; None for neither.
    """
    checkpoint = checkpoint or PassCheckpoint(source)
    seconds: dict[str, float] = {}
    is_share = options.fit_rows is not None and options.fit_rows < n_rows
    sending = _sending_warnings(source, executor, is_share=is_share)
    with timed(seconds, "sample"):
        prepared = checkpoint.prepared or fitted_on_sample(source, columns, options, others, maps)
    rows = rows_of(source, prepared)
    portion = None
    with timed(seconds, "covariance"):
        if is_share:
            portion = checkpoint.portion or summed_share(rows, prepared, options, n_rows, progress)
            checkpoint.keep(prepared, portion, 1.0)
            state = portion.state
        else:
            start = checkpoint.start
            progress("covariance", 0 if start is None else start.n_rows, n_rows)
            state = accumulate(
                rows,
                prepared.maps,
                where=options.where,
                batch_rows=options.batch_rows,
                threads=options.threads,
                progress=lambda done: progress("covariance", done, n_rows),
                start=start,
                merged=lambda done: checkpoint.keep(prepared, done, done.n_rows / n_rows),
                executor=executor,
            )
    basis = basis_of(source, columns, references, options, prepared, state, portion, n_rows)
    warnings = (*basis.warnings, *checkpoint.notes, *sending)
    return replace(basis, warnings=warnings, seconds=seconds, executor=executor)


def rows_of(source: Source, prepared: Prepared) -> Source:
    """The source as its rows are told apart."""
    return source.by_own_key() if prepared.by_own_key and isinstance(source, View) else source


def basis_of(
    source: Source,
    columns: tuple[str, ...],
    references: tuple[str, ...],
    options: CompareOptions,
    prepared: Prepared,
    state: CovarianceAccumulator,
    portion: Portion | None,
    n_rows: int,
) -> Basis:
    """After pass 1. Raises InvalidVectorsError for rows that can't be compared and may not be skipped."""
    _check_invalid(source, state, options)
    return Basis(
        source=source,
        columns=columns,
        references=references,
        options=options,
        state=state,
        portion=portion,
        n_scored=None if portion is None else n_rows,
        sample=prepared.sample,
        map_errors=prepared.map_errors,
        warnings=(*source.notes, *prepared.messages),
    )


def _sending_warnings(source: Source, executor: Executor, *, is_share: bool) -> list[str]:
    """Before rows are shared out among workers; pass 1 over a share of them is not."""
    messages = sending_warnings(source, executor)
    if executor.remote and not is_share:
        n_units = len(units_of(source))
        messages += idle_workers(executor, n_units, "parts in pass 1", "A part is 65,536 rows or more.")
    return messages


def fitted_on_sample(
    source: Source,
    columns: tuple[str, ...],
    options: CompareOptions,
    others: Sequence[str],
    maps: Sequence[FeatureMap] | None,
) -> Prepared:
    """The sample, and what is fixed on it."""
    rows = identified(source, options.where)
    messages = list(rows.warnings)
    sample = draw_sample(rows.source, columns, options, others=others)
    if maps is None:
        fitted = fit_maps(sample, options)
        maps = fitted.maps
        messages += fitted.bandwidths.warnings() if fitted.bandwidths else []
    by_column = dict(zip(columns, maps, strict=True))
    errors = {
        pair: map_error(sample.of(pair), [by_column[c] for c in pair], options.eta)
        for pair in pairs_of(columns)
    }
    by_own_key = rows.source is not source
    return Prepared(sample.stored(options), maps, errors, tuple(messages), by_own_key, options.seed)


def summed_share(
    rows: Source, prepared: Prepared, options: CompareOptions, n_rows: int, progress: Progress
) -> Portion:
    """Pass 1 over a share of the rows."""
    assert options.fit_rows is not None
    n_fit = options.fit_rows
    progress("covariance", 0, n_rows)
    return sum_blocks(
        rows,
        prepared.maps,
        n_fit,
        n_rows,
        seed=options.seed,
        where=options.where,
        threads=options.threads,
        progress=lambda done: progress("covariance", done, n_fit),
    )


def _check_invalid(source: Source, state: CovarianceAccumulator, options: CompareOptions) -> None:
    if state.invalid.n_rows and not options.skip_invalid:
        raise InvalidVectorsError(
            f"{state.invalid.n_rows:,} rows of {source.describe()} can't be compared:"
            f" {state.invalid.describe()}. Repair them, or skip them with --skip-invalid"
            " (skip_invalid=True): their result columns are then null."
        )
