"""Alignment of a stored embedding: rows are split, one pass gives moments, maps are fitted and evaluated."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..alignment.evaluate import Evaluation, Evaluator
from ..alignment.fit import Pair
from ..alignment.kernel import Features, fit_features
from ..alignment.maps import AlignmentMap, load_map
from ..alignment.options import AlignOptions
from ..bars import shown
from ..connector import Source
from ..errors import FilterError, InputError, InvalidVectorsError, sentence
from ..executor import IN_PROCESS, Executor
from ..keywords import AlignKeywords
from ..progress import Progress, ProgressOption, timed
from ..runs.records import AlignmentRecord, ComparisonRecord
from ..runs.registry import Registry
from ..stores.locate import open_columns, open_data
from ..stores.streaming import ordered_map, usable_cores
from ..stores.tables import Database, TableLike
from ..stores.vectors import normalize_rows
from ..stores.view import keyed
from .aligned import aligned_schema
from .alignment import Alignment
from .annotated import check_own, held_comparisons
from .checkpoint import Resumption, resumable
from .executor import sending_warnings
from .fit_checkpoint import FitCheckpoint
from .fitting import Fits, fit_all
from .pairs import Gathered, PairReader, Split, column_widths, gather, training_sample
from .units import one_blas_thread

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["align", "aligning", "check_alignment"]

_VALIDATION_ROWS = 2048
# Landmarks are fitted, and maps polished, on this many rows.
_SAMPLED_ROWS = 10_000
_FEWEST_ROWS = 12
_INDEX_QUERIES = 200


def align(
    table: TableLike,
    source: str,
    target: str,
    *,
    db: Database = None,
    version: int | None = None,
    map: AlignmentMap | str | os.PathLike[str] | None = None,
    write: bool = False,
    fresh: bool = False,
    progress: ProgressOption = "auto",
    executor: Executor = IN_PROCESS,
    options: AlignOptions | None = None,
    **fields: Unpack[AlignKeywords],
) -> Alignment:
    """Fit a map under which `source` holds the clusters that `target` holds, and evaluate it on test rows.

    Parameters
    ----------
    table
        A table's name, or an open table, as `compare` takes them.
    source, target
        Vector columns; ``dino=faiss:dino.index`` is a column of another store, matched by `key`.
    map
        A fitted map, or its file: evaluated on the test rows of its own fit, and written as it is;
        nothing is fitted.
    write
        Write the column and record the run; what would stop that is checked before any work. Interrupted
        while it is written, the next run with the same arguments goes on writing.
    fresh
        Start over, whatever an interrupted run has kept.
    progress
        As in `compare`.
    executor
        Who computes and writes the column, as in `compare`; maps are fitted in this process.
    options
        Everything else; or give the fields of `AlignOptions` as keywords.

    Raises
    ------
    InputError
        The table, the columns, the filter or the vectors can't be used; nothing was written.
    NotBetterError
        The column would be no better than the source; nothing was written.

    Notes
    -----
    Cost: a pass over the keys; one over the vectors, with the moments of `fit_rows` rows, O(d²) each for d
    dimensions and features; one or less for the mini-batches of kinds other than "kernel"; and one to write.
    Memory: O(d²), and 17,000 pairs of rows; with other kinds 32,768 more.
    """
    if options is None:
        options = AlignOptions.from_keywords(fields)
    elif fields:
        raise InputError(f"Give either options or keywords ({', '.join(fields)}), not both.")
    if write and options.compares_fidelities:
        raise InputError("Several fidelities are for looking at: none is written. Give one to write.")
    with shown(progress) as update:
        fitting = aligning(
            table,
            source,
            target,
            db=db,
            version=version,
            map=map,
            options=options,
            write=write,
            fresh=fresh,
            progress=update,
            executor=executor,
        )
        with fitting as run:
            return run.write(progress=update) if write else run


@contextlib.contextmanager
def aligning(
    table: TableLike,
    source: str,
    target: str,
    *,
    db: Database = None,
    version: int | None = None,
    map: AlignmentMap | str | os.PathLike[str] | None = None,
    options: AlignOptions,
    write: bool,
    fresh: bool = False,
    progress: Progress,
    executor: Executor = IN_PROCESS,
) -> Iterator[Alignment]:
    """A block that is to write what `align` fits, if `write` says so: interrupted, the next one continues."""
    task = _opened(
        table,
        (source, target),
        db=db,
        version=version,
        map=load_map(os.fspath(map)) if isinstance(map, (str, os.PathLike)) else map,
        options=options,
        writes=write,
        executor=executor,
    )
    resumption = None
    if write:
        resumption = _resumption(table, (source, target), task, version=version, fresh=fresh)
    with resumable(FitCheckpoint, task.source, resumption) as checkpoint:
        run = _continued(task, checkpoint) or _fitted(task, checkpoint.run_id, progress)
        checkpoint.keep(run.record, run.map, run.queries)
        yield run


def check_alignment(
    table: str,
    source: str,
    target: str,
    *,
    db: Database = None,
    write: bool = False,
    options: AlignOptions,
) -> None:
    """Raise, before other work, what `align` would raise before its own."""
    _opened(table, (source, target), db=db, options=options, writes=write)


@dataclass(frozen=True)
class _Task:
    """What is to be aligned, all checks that need no pass done."""

    source: Source
    columns: tuple[str, str]
    widths: tuple[int, int]
    map: AlignmentMap | None
    options: AlignOptions
    n_rows: int
    executor: Executor = IN_PROCESS
    warnings: tuple[str, ...] = ()

    @property
    def column(self) -> str:
        return self.options.column_for(*self.columns)

    @property
    def out_width(self) -> int:
        return self.widths[0 if self.options.in_place else 1]

    @property
    def workers(self) -> int:
        return self.options.threads or usable_cores()

    def fitted_share(self, split: Split) -> float:
        """Of the training rows, about the share whose moments are taken."""
        limit = self.options.fit.fit_rows if set(self.options.kinds) == {"kernel"} else None
        n_train = self.n_rows * (1 - split.skip)
        return 1.0 if limit is None else min(1.0, limit / max(n_train, 1))


def _opened(
    table: TableLike,
    columns: tuple[str, str],
    *,
    db: Database = None,
    version: int | None = None,
    map: AlignmentMap | None = None,
    options: AlignOptions,
    writes: bool,
    executor: Executor = IN_PROCESS,
) -> _Task:
    if columns[0] == columns[1]:
        raise InputError(f"Column {columns[0]!r} can't be aligned to itself.")
    if map is not None:
        options = options.with_split_of(map.about)
    if isinstance(table, str):
        found = open_columns(
            columns,
            table=table,
            db=db,
            version=version,
            key=options.key,
            on_missing=options.on_missing,
        )
        opened, names = found.source, found.names
        if writes and not found.of_table:
            raise InputError(
                f"An aligned column is written beside {names[0]!r} or {names[1]!r}: one of them must be a"
                f" column of table {table!r}. Without writing: --dry-run with --export."
            )
    else:
        opened, names = keyed(open_data(table), options.key), columns
    pair = names[0], names[1]
    warnings = tuple(sending_warnings(opened, executor))
    widths, n_rows = column_widths(opened, pair), _count(opened, options)
    task = _Task(opened, pair, widths, map, options, n_rows, executor, warnings)
    if map is not None and (map.width, map.out_width) != (task.widths[0], task.out_width):
        raise InputError(
            f"The map takes {map.width} dimensions to {map.out_width}; {pair[0]!r} has {task.widths[0]}, and"
            f" {pair[0 if options.in_place else 1]!r} {task.out_width}."
        )
    if writes:
        target = pair[1] if options.only_missing else None
        schema = aligned_schema(opened, pair[0], task.column, task.out_width, target=target)
        check_own(opened, schema.names, pair, "--column")
        opened.check_annotation(schema)
        if registry := Registry.of(opened.location):
            registry.check()
    return task


def _resumption(
    table: TableLike, asked: Sequence[str], task: _Task, *, version: int | None, fresh: bool
) -> Resumption:
    given = None if task.map is None else hashlib.blake2b(task.map.to_bytes(), digest_size=8).hexdigest()
    return Resumption.of(
        asked,
        task.columns,
        {**task.options.to_json(), "map": given},
        {task.column: [task.column]},
        by_name=isinstance(table, str),
        version=version,
        fresh=fresh,
    )


def _continued(task: _Task, checkpoint: FitCheckpoint) -> Alignment | None:
    """What an interrupted run had found; None without one."""
    record = checkpoint.record
    if record is None or checkpoint.map is None or checkpoint.queries is None:
        return None
    return Alignment(
        source=checkpoint.source,
        options=task.options,
        map=checkpoint.map,
        evaluations=[Evaluation.from_json(plain) for plain in record.maps],
        chosen=[plain["name"] for plain in record.maps].index(record.chosen),
        queries=checkpoint.queries,
        record=dataclasses.replace(record, warnings=(*record.warnings, *checkpoint.notes)),
        executor=task.executor,
    )


def _fitted(task: _Task, run_id: str, progress: Progress) -> Alignment:
    options, pair = task.options, task.columns
    seconds: dict[str, float] = {}
    reader = PairReader(
        task.source, pair, task.widths, options.held_out, options.seed, options.where, options.batch_rows
    )
    split = Split.of(reader, task.n_rows, validation_rows=_VALIDATION_ROWS, held_out_rows=options.judged_rows)
    held = next(iter(held_comparisons(task.source, columns=pair)), None)
    sample, features = None, None
    if task.map is None and "kernel" in options.kinds:
        progress("sample", 0, _SAMPLED_ROWS)
        with timed(seconds, "sample"), one_blas_thread():
            sample, features = _sampled(task, reader, split)
        progress("sample", _SAMPLED_ROWS, _SAMPLED_ROWS)
    progress("moments", 0, task.n_rows)
    with timed(seconds, "moments"), one_blas_thread():
        found = gather(
            reader,
            split,
            features=features,
            share=task.fitted_share(split),
            members=f"{held.prefix}_clusters" if held else None,
            progress=lambda rows: progress("moments", rows, task.n_rows),
            workers=task.workers,
        )
    _check_rows(reader, found, options)
    if task.map is None:
        n_fitted = _descent_rows(options, found)
        progress("fit", 0, n_fitted)
        with timed(seconds, "fit"), one_blas_thread():
            fits = fit_all(
                reader,
                found,
                options,
                features=features,
                sample=sample,
                workers=task.workers,
                progress=lambda rows: progress("fit", rows, n_fitted),
            )
    else:
        fits = Fits({"given": task.map}, "given")
    return _evaluated(task, run_id, found, fits, held, seconds)


def _sampled(task: _Task, reader: PairReader, split: Split) -> tuple[Pair, Features | None]:
    """Training rows, and features fitted on them; without training rows none."""
    options = task.options
    sample = training_sample(reader, split, _SAMPLED_ROWS)
    if not len(sample.a):
        return sample, None
    n_landmarks = options.fit.n_landmarks
    return sample, fit_features(
        sample.a, task.columns[0], n_landmarks, seed=options.seed, threads=task.workers
    )


def _evaluated(
    task: _Task,
    run_id: str,
    found: Gathered,
    fits: Fits,
    held: ComparisonRecord | None,
    seconds: dict[str, float],
) -> Alignment:
    options, pair = task.options, task.columns
    evaluator = Evaluator(
        found.held_out.a,
        found.held_out.b,
        members=_members(found),
        of_target=[c.cluster for c in held.clusters if c.side == pair[1]] if held else [],
        to_target=not options.in_place,
    )

    def after(named: tuple[str, AlignmentMap]) -> Evaluation:
        name, fitted = named
        return evaluator.after(name, normalize_rows(fitted.transform(found.held_out.a)))

    with timed(seconds, "evaluate"), one_blas_thread():
        evaluations = [
            evaluator.before(),
            *ordered_map(after, fits.maps.items(), workers=task.workers),
        ]
    best = fits.maps[fits.chosen]
    if task.map is None:
        best = dataclasses.replace(best, unit=options.unit, about=options.about(pair))
    chosen = 1 + list(fits.maps).index(fits.chosen)
    record = AlignmentRecord(
        run_id=run_id,
        table=task.source.table,
        columns=pair,
        prefix=task.column,
        source_version=task.source.version,
        n_rows=found.n_train + len(found.validation.a) + found.n_held_out,
        n_skipped=found.invalid.n_rows,
        options=options.to_json(),
        seconds=seconds,
        warnings=(
            *task.source.notes,
            *task.warnings,
            *_cluster_warning(pair, held),
            *_search_warning(task.source, task.column, task.out_width),
        ),
        in_place=options.in_place,
        counts=_counts(found),
        chosen=None if options.compares_fidelities else fits.chosen,
        better=evaluations[chosen].better_than(evaluations[0]),
        maps=tuple(e.to_json() for e in evaluations),
    )
    return Alignment(
        source=task.source,
        options=options,
        map=best,
        evaluations=evaluations,
        chosen=chosen,
        queries=(found.held_out.a if options.in_place else found.held_out.b)[:_INDEX_QUERIES],
        record=record,
        executor=task.executor,
    )


def _counts(found: Gathered) -> Mapping[str, int]:
    return {
        "n_train": found.n_train,
        "n_fitted": found.n_fitted,
        "n_aside": len(found.validation.a),
        "n_held_out": found.n_held_out,
        "n_judged": len(found.held_out.a),
    }


def _descent_rows(options: AlignOptions, found: Gathered) -> int:
    """Rows in all mini-batches, for the progress bar."""
    n_rows = 0
    for polish in (True, False):
        if any((kind == "kernel") == polish for kind in options.kinds):
            descent = options.fit.descent(polish=polish)
            available = min(found.n_train, _SAMPLED_ROWS) if polish else found.n_train
            n_fits = len(options.fidelity) if polish else 1
            n_rows += n_fits * descent.steps * min(descent.rows, available)
    return n_rows


def _members(found: Gathered) -> dict[int, NDArray[np.bool_]]:
    lists = found.members or []
    numbers = sorted({j for row in lists for j in row or ()})
    return {j: np.array([j in (row or ()) for row in lists], bool) for j in numbers}


def _count(source: Source, options: AlignOptions) -> int:
    n_rows = source.count(options.where)
    if n_rows == 0 and options.where is not None:
        raise FilterError(f"No row of {source.describe()} matches {options.where!r}.")
    if n_rows == 0:
        raise InputError(f"{sentence(source.describe())} is empty: there is nothing to align.")
    return n_rows


def _check_rows(reader: PairReader, found: Gathered, options: AlignOptions) -> None:
    source = reader.source
    missing = (reader.columns[1], "null") if options.only_missing else None
    if any(n and which != missing for which, n in found.invalid.counts.items()) and not options.skip_invalid:
        raise InvalidVectorsError(
            f"{found.invalid.n_rows:,} rows of {source.describe()} can't be aligned:"
            f" {found.invalid.describe()}. Repair them, or skip them with --skip-invalid"
            " (skip_invalid=True): their result is then null."
        )
    parts = {
        "to train on": found.n_train,
        "for validation": len(found.validation.a),
        "to test on": len(found.held_out.a),
    }
    for what, n in parts.items():
        if n < _FEWEST_ROWS:
            raise InputError(
                f"{sentence(source.describe())} gives {n} rows {what}; at least {_FEWEST_ROWS} are needed."
                " Give more rows, or another --held-out."
            )


def _cluster_warning(pair: tuple[str, str], held: ComparisonRecord | None) -> list[str]:
    if held is not None:
        return []
    return [
        f"no clusters of {pair[0]} and {pair[1]} are in the table, so none is evaluated by itself: run"
        " spec-store compare first."
    ]


def _search_warning(source: Source, column: str, width: int) -> list[str]:
    """Which searches a new vector column breaks: those that don't name theirs, once there are two."""
    vectors = {
        f.name: f.type.list_size
        for f in source.latest().schema  # of the table that is written to: a join shows other stores' columns
        if f.name != column
        and pa.types.is_fixed_size_list(f.type)
        and pa.types.is_floating(f.type.value_type)
    }
    messages = []
    if same := [name for name, n in vectors.items() if n == width]:
        also = " and ".join(repr(name) for name in same)
        messages.append(
            f"{column!r} has {width} dimensions, like {also}: searches of this table that name no column,"
            f" such as table.search(q), must then say vector_column_name={same[0]!r}."
        )
    if len(vectors) == 1:
        (only,) = vectors
        messages.append(
            f"{column!r} is this table's second vector column: text searches such as table.search('words')"
            f" and hybrid searches must then say vector_column_name={only!r}, or query_type='fts'."
        )
    return messages
