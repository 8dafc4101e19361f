"""More questions to a recorded run: its state and its sample answer, no vector is read until results are
written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from ..connector import Location, Source
from ..errors import InputError
from ..executor import IN_PROCESS, Executor
from ..keywords import AgainKeywords
from ..options import CHANGEABLE, CompareOptions, default_prefix
from ..progress import ProgressOption
from ..runs.records import ComparisonRecord, ModelsRecord
from ..runs.registry import Registry
from ..spectral.koda import Epsilon
from ..spectral.scoring import result_schema
from ..stores.locate import Columns, location_of, open_columns
from ..stores.tables import Database
from .basis import Basis
from .comparison import SAMPLE, Comparison, check_place
from .executor import sending_warnings
from .kept import load_sample
from .listing import described_columns, earlier_run
from .sampling import Sample, draw_sample
from .solving import Question, compared, kept_state

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = [
    "compare_again",
    "kept_basis",
    "kept_sample",
    "opened_again",
    "owner_of",
    "recorded_comparison",
]


def compare_again(
    run_id: str,
    *,
    pair: Sequence[str] | None = None,
    db: Database = None,
    write: bool = False,
    progress: ProgressOption = "auto",
    executor: Executor = IN_PROCESS,
    **changes: Unpack[AgainKeywords],
) -> Comparison:
    """Compare on the state of a recorded run: other modes, weight, centring or objective, or another pair.

    Parameters
    ----------
    run_id
        Of a comparison of two embeddings, or of several.
    pair
        Two of its columns; None is both columns of a run of two.
    db
        The database whose registry holds the run.
    write
        Write the results to the table as it stands now; what would stop that is checked before any work.
    progress, executor
        As of `compare`.
    **changes
        Those fields of `CompareOptions` that are to differ: modes, eta, center, objective, epsilon, prefix,
        describe, write_modes, batch_rows, threads.

    Raises
    ------
    InputError
        No such run, or it keeps no state; an option that its state has fixed.

    Notes
    -----
    Cost: the solve, and the search for clusters on the sample. Where the run kept no sample, the sampled rows
    are read again. Figures are those of the rows that the run read: rows that were added since are scored
    when results are written, and a warning tells their number.
    """
    run = recorded_comparison(location_of(db), run_id)
    for name in changes:
        if name not in CHANGEABLE:
            raise InputError(
                f"{name} is part of the state of run {run_id}, which was made with"
                f" {run.options.get(name)!r}. Only {', '.join(CHANGEABLE)} can change; for others run a new"
                " comparison."
            )
    chosen = _pair(run, pair)
    options = CompareOptions.from_json({**run.options, **_fresh(run, chosen), **changes})
    Epsilon.parse(options.epsilon)
    prefix = options.prefix or default_prefix(chosen)
    source = opened_again(run, location_of(db), options).source
    if write:
        check_place(source, None, result_schema(prefix, modes=options.write_modes), chosen)
    sending = sending_warnings(source, executor)
    basis = kept_basis(run, source, location_of(db))
    basis = replace(basis, executor=executor, warnings=(*basis.warnings, *sending))
    earlier = earlier_run(source, chosen, prefix)
    if earlier.columns:
        basis = replace(basis, sample=_with_columns(basis.sample, source, earlier.columns, options))
    answer = compared(basis, Question(chosen, options, earlier))
    return answer.write(progress=progress) if write else answer


def kept_basis(run: ComparisonRecord | ModelsRecord, source: Source, location: Location) -> Basis:
    """The state and the sample of a recorded run; the sample is read again where it was not kept.

    Raises InputError where the state was not kept.
    """
    state = kept_state(location, run.run_id)
    sample = kept_sample(run, location)
    columns = tuple(m.column for m in state.maps)
    warnings = []
    options = CompareOptions.from_json(run.options)
    n_now = source.count(options.where)
    n_then = state.n_rows + state.invalid.n_rows if run.fit is None else run.n_scored
    if n_now != n_then:
        warnings.append(
            f"the state of run {run.run_id} is of {n_then:,} rows, and there are {n_now:,} now: all figures"
            " are of those; every row is scored when results are written."
        )
    return Basis(
        source=source,
        columns=columns,
        references=run.references,
        options=options,
        state=state,
        sample=sample,
        state_run=owner_of(run),
        n_scored=n_now if run.fit else None,
        warnings=tuple(warnings),
    )


def recorded_comparison(location: Location, run_id: str) -> ComparisonRecord | ModelsRecord:
    """A comparison of two embeddings or of several. Raises InputError where there is none of this id."""
    registry = Registry.of(location)
    if registry is None:
        raise InputError(f"{location} keeps no runs: its connector can't append to tables.")
    run = registry.run(run_id)
    if not isinstance(run, (ComparisonRecord, ModelsRecord)):
        raise InputError(f"Run {run_id} is an alignment; expected a comparison.")
    return run


def kept_sample(run: ComparisonRecord | ModelsRecord, location: Location) -> Sample:
    """The sample of a recorded run; read again, from the version that it read, where it was not kept."""
    if data := Registry(location).artifact(owner_of(run), SAMPLE):
        return load_sample(data)
    state = kept_state(location, run.run_id)
    return _drawn(run, tuple(m.column for m in state.maps), location, CompareOptions.from_json(run.options))


def _with_columns(sample: Sample, source: Source, columns: Sequence[str], options: CompareOptions) -> Sample:
    """The sample with what further columns hold now in its rows; null in those that are there no more."""
    now = source.sample(options.sample_rows, seed=options.seed, columns=columns, where=options.where)
    at = pc.index_in(sample.keys, value_set=now.column(0).combine_chunks().cast(sample.keys.type))
    held = {name: sample.others.column(name) for name in sample.others.column_names}
    found = {name: now.column(name).combine_chunks().take(at) for name in columns}
    return replace(sample, others=pa.table({**held, **found}))


def owner_of(run: ComparisonRecord | ModelsRecord) -> str:
    """The id of the run that keeps a run's state."""
    return (run.state_run if isinstance(run, ComparisonRecord) else None) or run.run_id


def _fresh(run: ComparisonRecord | ModelsRecord, pair: tuple[str, str]) -> dict[str, Any]:
    """Options that another pair does not take over: the prefix."""
    return {} if run.columns == pair else {"prefix": None}


def _pair(run: ComparisonRecord | ModelsRecord, pair: Sequence[str] | None) -> tuple[str, str]:
    if pair is None and len(run.columns) == 2:
        return run.columns[0], run.columns[1]
    known = ", ".join(run.columns)
    if pair is None:
        raise InputError(f"Run {run.run_id} compared {known}: name a pair of them.")
    if isinstance(pair, str) or len(pair) != 2 or pair[0] == pair[1]:
        raise InputError(f"{pair!r} is no pair of columns; run {run.run_id} compared {known}.")
    return pair[0], pair[1]


def opened_again(
    run: ComparisonRecord | ModelsRecord,
    location: Location,
    options: CompareOptions,
    *,
    version: int | None = None,
) -> Columns:
    """The columns of the run as they stand now, or as they were."""
    return open_columns(
        run.references or run.columns,
        table=run.table,
        db=location,
        version=version,
        key=options.key,
        on_missing=options.on_missing,
    )


def _drawn(
    run: ComparisonRecord | ModelsRecord,
    columns: tuple[str, ...],
    location: Location,
    options: CompareOptions,
) -> Sample:
    """The sample of a run that kept none, from the version that it read."""
    source = opened_again(run, location, options, version=run.source_version).source
    others = described_columns(source, columns) if options.describe else ()
    return draw_sample(source, columns, options, others=others).stored(options)
