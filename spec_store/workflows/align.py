"""Alignment of a stored embedding: one pass for moments, a fit over mini-batches, evaluation, write-back."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..alignment.evaluate import Evaluation, Evaluator
from ..alignment.kernel import fit_features
from ..alignment.maps import AlignmentMap, load_map
from ..alignment.onnx import is_onnx, to_onnx
from ..alignment.options import AlignOptions
from ..connector import Source
from ..errors import FilterError, InputError, InvalidVectorsError, NotBetterError, sentence
from ..progress import Progress, silent, timed
from ..runs.records import AlignmentRecord
from ..runs.registry import Registry
from ..stores.files import atomic_file
from ..stores.locate import Database, open_columns, open_data
from ..stores.streaming import ordered_map, usable_cores
from ..stores.vectors import normalize_rows
from ..stores.view import keyed
from .aligned import aligned_annotation, aligned_schema
from .annotated import check_own, held_comparisons
from .fitting import fit_all
from .pairs import Gathered, PairReader, Split, column_widths, gather, training_sample
from .passes import one_blas_thread

__all__ = ["Alignment", "align", "check_alignment"]

_VALIDATION_ROWS = 2048
# Landmarks are fitted, and maps polished, on this many rows.
_SAMPLED_ROWS = 10_000
_FEWEST_ROWS = 12
_INDEX_QUERIES = 200
_NOT_RECORDED = "the run is not recorded: keep the map with --export."


@dataclass(frozen=True, repr=False)
class Alignment:
    """A fitted and evaluated map, and what it takes to write the column.

    Attributes
    ----------
    source
        The pinned source.
    map
        The map that `write` applies.
    evaluations
        Before, each map that was fitted, and the baselines, all on the same held-out rows.
    chosen
        Position of `map` among them: of several, the one with the lowest objective on the validation rows.
    queries
        Test vectors of the embedding whose queries the column answers, by which an index is evaluated.
    record
        All figures as plain values: what ``align --json`` prints and the registry keeps.
    """

    source: Source
    options: AlignOptions
    map: AlignmentMap
    evaluations: list[Evaluation]
    chosen: int
    queries: NDArray[np.float32]
    record: AlignmentRecord

    @property
    def run_id(self) -> str:
        """Unique, and sorted by time."""
        return self.record.run_id

    @property
    def columns(self) -> tuple[str, str]:
        """Source and target column."""
        return self.record.columns

    @property
    def column(self) -> str:
        """The result column."""
        return self.record.prefix

    @property
    def before(self) -> Evaluation:
        """The source as it is."""
        return self.evaluations[0]

    @property
    def after(self) -> Evaluation:
        """The map."""
        return self.evaluations[self.chosen]

    @property
    def better(self) -> bool:
        """Whether the map brings the source nearer to the target on held-out rows."""
        return self.record.better

    @property
    def written(self) -> list[str]:
        """The result column, once it is in the store."""
        return list(self.record.written)

    @property
    def warnings(self) -> list[str]:
        """What a person should know."""
        return list(self.record.warnings)

    @property
    def registry(self) -> Registry | None:
        """Where `write` records the run; None for a store that keeps no runs."""
        return Registry.of(self.source.location)

    def __repr__(self) -> str:
        a, b = self.columns
        return (
            f"<Alignment of {a} to {b}: {self.after.name} map, SPEC-diff {self.before.spec_diff:.4g} to"
            f" {self.after.spec_diff:.4g} on {self.record.counts['n_judged']:,} rows,"
            f" {'written' if self.written else 'not written'}>"
        )

    def export(self, file: str | os.PathLike[str]) -> None:
        """Save the map for a serving process: ``spec_store.load_map(file).transform(queries)``.

        A file with the suffix ``.onnx`` is an ONNX model, see `spec_store.alignment.to_onnx`. Raises
        InputError where it can't be written.
        """
        content = to_onnx(self.map) if is_onnx(os.fspath(file)) else self.map.to_bytes()
        with atomic_file(file) as stream:
            stream.write(content)

    def write(self, *, force: bool | None = None, progress: Progress = silent) -> Alignment:
        """Write the column for every row, and record the run with its map; this alignment as written.

        Raises
        ------
        NotBetterError
            The column would be no better than the source on held-out rows, and `force` is not given.
        RetryError
            Commit conflicts exceeded the retry limit; nothing was published.
        """
        if not self.better and not (self.options.force if force is None else force):
            raise NotBetterError(
                f"Not written: on the test rows {self.column!r} has SPEC-diff {self.after.spec_diff:.4g} and"
                f" distance {self.after.distance:.4g} to {self.columns[1]!r}; {self.columns[0]!r} itself has"
                f" {self.before.spec_diff:.4g} and {self.before.distance:.4g}."
                " --force (force=True) writes it all the same."
            )
        target = self.columns[1] if self.options.only_missing else None
        annotation = aligned_annotation(
            self.map,
            self.source,
            self.columns[0],
            self.column,
            target=target,
            metadata={**self.record.provenance, "spec_store.unit": str(self.map.unit).lower()},
            where=self.options.where,
            batch_rows=self.options.batch_rows,
            threads=self.options.threads,
            progress=lambda rows: progress("write", rows, self._n_all),
        )
        registry, state = self.registry, self.map.to_bytes()
        if registry is not None:
            registry.check()
            registry.start(replace(self.record, written=tuple(annotation.schema.names)), state)
        progress("write", 0, self._n_all)
        seconds: dict[str, float] = {}
        with timed(seconds, "write"), one_blas_thread():
            published = self.source.annotate(annotation)
        done = self._with(
            seconds,
            written=published.columns,
            written_version=published.version,
            warnings=(*self.record.warnings, *published.notes, *([] if registry else [_NOT_RECORDED])),
        )
        if registry is not None:
            registry.finish(done.record, state)
        return done

    def create_index(self, *, progress: Progress = silent) -> Alignment:
        """Build a vector index on the written column; the record gets its recall@10 against brute force."""
        progress("index", 0, self._n_all)
        seconds: dict[str, float] = {}
        with timed(seconds, "index"):
            recall = self.source.latest().create_vector_index(self.column, self.queries)
        progress("index", self._n_all, self._n_all)
        return self._with(seconds, index_recall=recall)

    def to_json(self) -> dict[str, Any]:
        """The object that ``align --json`` prints; its keys are stable."""
        return self.record.to_json()

    @property
    def _n_all(self) -> int:
        return self.record.n_rows + self.record.n_skipped

    def _with(self, seconds: dict[str, float], **changes: Any) -> Alignment:
        return replace(self, record=self.record.with_stage(seconds, **changes))


def align(
    table: Any,
    source: str,
    target: str,
    *,
    db: Database = None,
    version: int | None = None,
    map: AlignmentMap | str | os.PathLike[str] | None = None,
    write: bool = False,
    check_write: bool = False,
    progress: Progress = silent,
    options: AlignOptions | None = None,
    **fields: Any,
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
        Write the column and record the run; what would stop that is checked before any work.
    check_write
        Check that already, without writing.
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
    Cost: a pass for the moments, O(n d²); one more, or less, for mini-batches; and one to write. Memory:
    O(d²), and 32,768 + 7,000 pairs of rows.
    """
    if options is None:
        options = AlignOptions.from_keywords(fields)
    elif fields:
        raise InputError(f"Give either options or keywords ({', '.join(fields)}), not both.")
    if write and options.compares_fidelities:
        raise InputError("Several fidelities are for looking at: none is written. Give one to write.")
    task = _opened(
        table,
        (source, target),
        db=db,
        version=version,
        map=load_map(os.fspath(map)) if isinstance(map, (str, os.PathLike)) else map,
        options=options,
        writes=write or check_write,
    )
    run = _fitted(task, progress)
    return run.write(progress=progress) if write else run


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

    @property
    def column(self) -> str:
        return self.options.column_for(*self.columns)

    @property
    def out_width(self) -> int:
        return self.widths[0 if self.options.in_place else 1]


def _opened(
    table: Any,
    columns: tuple[str, str],
    *,
    db: Database = None,
    version: int | None = None,
    map: AlignmentMap | None = None,
    options: AlignOptions,
    writes: bool,
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
    task = _Task(opened, pair, column_widths(opened, pair), map, options, _count(opened, options))
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


def _fitted(task: _Task, progress: Progress) -> Alignment:
    options, pair = task.options, task.columns
    seconds: dict[str, float] = {}
    reader = PairReader(
        task.source, pair, task.widths, options.held_out, options.seed, options.where, options.batch_rows
    )
    held = next(iter(held_comparisons(task.source, columns=pair)), None)
    members = f"{held.prefix}_clusters" if held else None
    split = Split.of(reader, task.n_rows, validation_rows=_VALIDATION_ROWS, held_out_rows=options.judged_rows)
    features, sample = None, None
    workers = options.threads or usable_cores()
    if task.map is None and "kernel" in options.kinds:
        progress("sample", 0, _SAMPLED_ROWS)
        with timed(seconds, "sample"), one_blas_thread():
            sample = training_sample(reader, split, _SAMPLED_ROWS)
            progress("sample", _SAMPLED_ROWS, _SAMPLED_ROWS)
            if len(sample.a):
                features = fit_features(
                    sample.a, pair[0], options.fit.n_landmarks, seed=options.seed, threads=workers
                )
    fit_rows = options.fit.fit_rows if set(options.kinds) == {"kernel"} else None
    progress("moments", 0, task.n_rows)
    with timed(seconds, "moments"), one_blas_thread():
        found = gather(
            reader,
            split,
            features=features,
            share=min(1.0, (fit_rows or np.inf) / max(task.n_rows * (1 - split.skip), 1)),
            members=members,
            progress=lambda rows: progress("moments", rows, task.n_rows),
            workers=workers,
        )
    _check_rows(reader, found, options)
    evaluator = Evaluator(
        found.held_out.a,
        found.held_out.b,
        members=_members(found),
        of_target=[c.cluster for c in held.clusters if c.side == pair[1]] if held else [],
        to_target=not options.in_place,
    )
    maps = {} if task.map is None else {"given": task.map}
    chosen = 1
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
                workers=workers,
                progress=lambda rows: progress("fit", rows, n_fitted),
            )
        maps = fits.maps
        chosen += list(maps).index(fits.chosen)
    with timed(seconds, "evaluate"), one_blas_thread():
        evaluations = [evaluator.before()]
        evaluations += ordered_map(
            lambda name: evaluator.after(name, normalize_rows(maps[name].transform(found.held_out.a))),
            maps,
            workers=workers,
        )
    best = list(maps.values())[chosen - 1]
    if task.map is None:
        best = dataclasses.replace(best, unit=options.unit, about=options.about(pair))
    after = evaluations[chosen]
    counts = {
        "n_train": found.n_train,
        "n_fitted": found.n_fitted,
        "n_aside": len(found.validation.a),
        "n_held_out": found.n_held_out,
        "n_judged": len(found.held_out.a),
    }
    record = AlignmentRecord(
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
            *_cluster_warning(pair, members),
            *_search_warning(task.source, task.column, task.out_width),
        ),
        in_place=options.in_place,
        counts=counts,
        chosen=None if options.compares_fidelities else after.name,
        better=after.better_than(evaluations[0]),
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
    )


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


def _cluster_warning(pair: tuple[str, str], members: str | None) -> list[str]:
    if members is not None:
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
