"""Alignment of a stored embedding: one pass for moments, a fit over mini-batches, judgement, write-back."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version as installed_version
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from . import runs
from .alignment.fit import FitOptions, Fitted, fit
from .alignment.judge import Judge, Judgement
from .alignment.maps import AlignmentMap, load_map
from .alignment.objective import Objective
from .alignment.options import AlignOptions
from .alignment.pairs import Gathered, PairReader, column_widths, gather, mini_batches
from .alignment.start import Linear, affine_start, procrustes_start, ridge_start
from .bandwidth import auto_bandwidths
from .compare import Progress, _silent, new_run_id
from .connector import Annotation, Published, Source, find_field
from .errors import FilterError, InputError, InvalidVectorsError, NotBetterError
from .join import keyed
from .locate import DEFAULT_CONNECTOR, open_columns
from .options import default_prefix
from .passes import workers
from .vectors import decode

__all__ = ["Alignment", "align"]

_VALIDATION_ROWS = 2048
_FLOATS = (pa.float16(), pa.float32(), pa.float64())


@dataclass
class Alignment:
    """A fitted and judged map, and what it takes to write the column.

    Attributes
    ----------
    source
        The pinned source.
    columns
        Source and target column.
    map
        The map that `write` applies.
    column
        The result column.
    judgements
        Before, each map that was fitted, and the baselines, all on the same held-out rows.
    chosen
        Position of `map` among them; 0, which is "none", where it was not fitted here.
    n_train, n_held_out, n_judged
        Usable rows trained on, held out, and judged.
    warnings
        What a person should know.
    """

    source: Source
    columns: tuple[str, str]
    options: AlignOptions
    map: AlignmentMap
    column: str
    judgements: list[Judgement]
    chosen: int
    n_train: int
    n_held_out: int
    n_judged: int
    n_skipped: int
    warnings: list[str]
    seconds: dict[str, float]
    progress: Progress = _silent
    published: Published | None = None
    recorded: bool = False
    run_id: str = field(default_factory=lambda: new_run_id())

    @property
    def before(self) -> Judgement:
        """The source as it is."""
        return self.judgements[0]

    @property
    def after(self) -> Judgement:
        """The map."""
        return self.judgements[self.chosen]

    @property
    def better(self) -> bool:
        """Whether the map brings the source nearer to the target on held-out rows."""
        return self.after.spec_diff < self.before.spec_diff

    @property
    def written(self) -> list[str]:
        """The result column, once it is in the store."""
        return list(self.published.columns) if self.published else []

    def export(self, file: str | os.PathLike[str]) -> None:
        """Save the map for a serving process: ``spec_store.load_map(file).transform(queries)``."""
        path = os.fspath(file)
        partial = f"{path}.partial"
        with open(partial, "wb") as stream:
            self.map.save(stream)
        os.replace(partial, path)

    def write(self, *, force: bool | None = None) -> Published:
        """Write the column for every row, then record the run with the map.

        Raises
        ------
        NotBetterError
            The column would be no better than the source on held-out rows, and `force` is not given.
        RetryError
            Other writers kept winning; nothing was published.
        """
        if not self.better and not (self.options.force if force is None else force):
            raise NotBetterError(
                f"Not written: on held-out rows {self.column!r} has SPEC-diff {self.after.spec_diff:.4g} to"
                f" {self.columns[1]!r}, and {self.columns[0]!r} itself {self.before.spec_diff:.4g}."
                " --force (force=True) writes it all the same."
            )
        schema = self._schema()
        annotation = Annotation(
            schema=schema,
            reads=(self.columns[0],),
            compute=self._compute,
            token=_token(self.map, self.column),
            metadata=self._provenance(),
            where=self.options.where,
            batch_rows=self.options.batch_rows,
            progress=lambda rows: self.progress("write", rows, self._n_rows),
        )
        self.progress("write", 0, self._n_rows)
        with _timed(self.seconds, "write"), threadpool_limits(1, user_api="blas"):
            self.published = self.source.annotate(annotation)
        self.warnings += self.published.notes
        self.recorded = runs.record_alignment(self)
        return self.published

    @property
    def _n_rows(self) -> int:
        return self.n_train + self.n_held_out + self.n_skipped

    def _schema(self) -> pa.Schema:
        return aligned_schema(self.source, self.columns[0], self.column, self.map.out_width)

    def _compute(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        column = self.columns[0]
        vectors = decode(column, batch.column(column), self.map.width, directions=True, keys=batch.column(0))
        aligned = self.map.transform(vectors.matrix)
        usable = vectors.usable & np.isfinite(aligned).all(axis=1)
        aligned[~usable] = 0
        (result,) = self._schema()
        flat = pa.array(aligned.astype(result.type.value_type.to_pandas_dtype()).reshape(-1))
        blank = None if usable.all() else pa.array(~usable)
        array = pa.FixedSizeListArray.from_arrays(flat, self.map.out_width, mask=blank)
        return pa.RecordBatch.from_arrays([array.cast(result.type)], schema=self._schema())

    def _provenance(self) -> dict[str, str]:
        return {
            "spec_store.run": self.run_id,
            "spec_store.version": installed_version("spec-store"),
            "spec_store.columns": json.dumps(self.columns),
            "spec_store.source_version": str(self.source.version),
            "spec_store.unit": str(self.map.unit).lower(),
            "spec_store.options": json.dumps(self.options.to_json()),
        }

    def to_json(self) -> dict[str, Any]:
        """The object that ``align --json`` prints; its keys are stable."""
        return {
            "run_id": self.run_id,
            "table": self.source.table,
            "columns": list(self.columns),
            "column": self.column,
            "in_place": self.options.in_place,
            "n_train": self.n_train,
            "n_held_out": self.n_held_out,
            "n_judged": self.n_judged,
            "n_skipped": self.n_skipped,
            "chosen": self.after.name,
            "better": self.better,
            "maps": [j.to_json() for j in self.judgements],
            "seconds": self.seconds,
            "written": self.written,
            "warnings": self.warnings,
        }


def align(
    table: str | Source,
    source: str,
    target: str,
    *,
    db: str | None = None,
    connector: str = DEFAULT_CONNECTOR,
    version: int | None = None,
    map: AlignmentMap | str | os.PathLike[str] | None = None,
    write: bool = False,
    check_write: bool = False,
    progress: Progress = _silent,
    options: AlignOptions | None = None,
    **fields: Any,
) -> Alignment:
    """Fit a map under which `source` holds the clusters that `target` holds, and judge it on held-out rows.

    Parameters
    ----------
    table
        A table's name, or an open `Source`.
    source, target
        Vector columns; ``dino=faiss:dino.index`` is a column of another store, matched by `key`.
    map
        A fitted map, or its file: judged and written as it is, nothing is fitted.
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
    if source == target:
        raise InputError(f"Column {source!r} can't be aligned to itself.")
    if isinstance(table, str):
        opened, names, takes_part = open_columns(
            [source, target],
            table=table,
            db=db,
            connector=connector,
            version=version,
            key=options.key,
            on_missing=options.on_missing,
        )
        if (write or check_write) and not takes_part:
            raise InputError(f"The aligned column is written beside {source!r}, which must be in {table!r}.")
    else:
        opened, names = keyed(table, options.key), (source, target)
    pair = names[0], names[1]
    widths = column_widths(opened, pair)
    given = load_map(os.fspath(map)) if isinstance(map, (str, os.PathLike)) else map
    if given is not None and given.width != widths[0]:
        raise InputError(f"The map takes {given.width} dimensions; {pair[0]!r} has {widths[0]}.")
    column = options.column_for(*pair)
    out_width = given.out_width if given else widths[0 if options.in_place else 1]
    if write or check_write:
        opened.check_annotation(aligned_schema(opened, pair[0], column, out_width))
    run = _fitted(opened, pair, widths, options, given, column, progress)
    run.warnings += _search_warning(opened, column, out_width)
    if write and len(options.fidelity) == 1:
        run.write()
    return run


def aligned_schema(source: Source, column: str, name: str, width: int) -> pa.Schema:
    """The result column, in the source column's float type (float32 where that holds integers)."""
    kind = find_field(source, column).type.value_type
    return pa.schema([(name, pa.list_(kind if kind in _FLOATS else pa.float32(), width))])


def _fitted(
    source: Source,
    pair: tuple[str, str],
    widths: tuple[int, int],
    options: AlignOptions,
    given: AlignmentMap | None,
    column: str,
    progress: Progress,
) -> Alignment:
    seconds: dict[str, float] = {}
    n_rows = _count(source, options)
    reader = PairReader(
        source, pair, widths, options.held_out, options.seed, options.where, options.batch_rows
    )
    members = _members_column(source, pair)
    progress("moments", 0, n_rows)
    with _timed(seconds, "moments"), threadpool_limits(1, user_api="blas"):
        found = gather(
            reader,
            n_rows,
            validation_rows=_VALIDATION_ROWS,
            held_out_rows=options.judged_rows,
            members=members,
            progress=lambda rows: progress("moments", rows, n_rows),
            workers=workers(),
        )
    _check_rows(source, found, options)
    judge = Judge(*found.held_out, members=_members(found), to_target=not options.in_place)
    maps: list[tuple[str, AlignmentMap]] = [("given", given)] if given else []
    n_own = 1
    if given is None:
        with _timed(seconds, "fit"):
            fitted = _fit_all(reader, found, options, progress)
        maps = [(name, f.map) for name, f in fitted]
        n_own = 1 + int(np.argmin([f.terms.total for _, f in fitted]))
        maps += [(name, _linear(start)) for name, start in _baselines(found, options).items()]
    with _timed(seconds, "judge"):
        judgements = [judge.before()]
        judgements += [judge.after(name, _unit(m.transform(found.held_out[0]))) for name, m in maps]
    about = {
        "columns": list(pair),
        "in_place": options.in_place,
        "held_out": options.held_out,
        "seed": options.seed,
        "key": options.key,
        "options": options.to_json(),
        "version": installed_version("spec-store"),
    }
    chosen = maps[n_own - 1][1]
    if given is None:
        chosen = dataclasses.replace(chosen, unit=options.unit, about=about)
    warnings = list(source.notes)
    if members is None:
        warnings.append(
            f"no clusters of {pair[0]} and {pair[1]} are in the table, so none are judged one by one: run"
            " spec-store compare first."
        )
    return Alignment(
        source=source,
        columns=pair,
        options=options,
        map=chosen,
        column=column,
        judgements=judgements,
        chosen=n_own,
        n_train=found.n_train,
        n_held_out=found.n_held_out,
        n_judged=len(found.held_out[0]),
        n_skipped=found.invalid.n_rows,
        warnings=warnings,
        seconds=seconds,
        progress=progress,
    )


def _fit_all(
    reader: PairReader, found: Gathered, options: AlignOptions, progress: Progress
) -> list[tuple[str, Fitted]]:
    """Every kind with every fidelity asked for."""
    start = _start(found, options)
    results = []
    for kind in options.kind:
        for mu in options.fidelity:
            name = kind if len(options.fidelity) == 1 else f"{kind}, fidelity {mu:g}"
            batches = mini_batches(
                reader,
                found.n_train,
                skip=found.skip,
                steps=options.steps,
                rows=options.minibatch_rows,
                seed=options.seed,
            )
            progress(f"fit {name}", 0, options.steps)
            objective = Objective(options.kernel, options.beta, mu, _bandwidths(found, reader, options))
            fit_options = FitOptions(
                kind, options.rank, options.n_frequencies, options.steps, options.learning_rate, options.seed
            )
            counted = _counted(batches, lambda name=name: progress(f"fit {name}", 1, options.steps))  # type: ignore[misc]
            results.append(
                (
                    name,
                    fit(start, counted, found.validation, objective, fit_options, in_place=options.in_place),
                )
            )
    return results


def _counted(batches: Iterator[Any], count: Callable[[], None]) -> Iterator[Any]:
    for batch in batches:
        count()
        yield batch


def _start(found: Gathered, options: AlignOptions) -> Linear:
    if options.in_place:
        d = len(found.moments.mean_a)
        return np.eye(d), np.zeros(d)
    return affine_start(found.moments, options.ridge)


def _baselines(found: Gathered, options: AlignOptions) -> dict[str, Linear]:
    if options.in_place:
        return {}
    return {
        "ridge": ridge_start(found.moments, options.ridge),
        "ridge, variance restored": affine_start(found.moments, options.ridge),
        "procrustes": procrustes_start(found.moments),
    }


def _linear(linear: Linear) -> AlignmentMap:
    weights, bias = (np.asarray(part, np.float32) for part in linear)
    return AlignmentMap(weights, bias, np.zeros((len(weights), 0), np.float32))


def _bandwidths(found: Gathered, reader: PairReader, options: AlignOptions) -> tuple[float, float]:
    """σ of output and target: the target's for both where the output is to lie in its space."""
    if options.kernel == "cosine":
        return 1.0, 1.0
    a, b = (rows.astype(np.float64) for rows in found.validation)
    sigma_a, sigma_b = auto_bandwidths(a, b, reader.columns).values
    return (sigma_a if options.in_place else sigma_b), sigma_b


def _members_column(source: Source, pair: tuple[str, str]) -> str | None:
    """The column of cluster lists that a comparison of these columns wrote, either way round."""
    names = [f"{default_prefix(order)}_clusters" for order in (pair, (pair[1], pair[0]))]
    return next((name for name in names if name in source.schema.names), None)


def _members(found: Gathered) -> dict[int, NDArray[np.bool_]]:
    lists = found.members or []
    n_clusters = 1 + max((j for row in lists for j in row or ()), default=-1)
    return {j: np.array([j in (row or ()) for row in lists], bool) for j in range(n_clusters)}


def _count(source: Source, options: AlignOptions) -> int:
    n_rows = source.count(options.where)
    if n_rows == 0 and options.where is not None:
        raise FilterError(f"No row of {source.describe()} matches {options.where!r}.")
    return n_rows


def _check_rows(source: Source, found: Gathered, options: AlignOptions) -> None:
    if found.invalid.n_rows and not options.skip_invalid:
        raise InvalidVectorsError(
            f"{found.invalid.n_rows:,} rows of {source.describe()} can't be aligned:"
            f" {found.invalid.describe()}. Repair them, or leave them out with --skip-invalid"
            " (skip_invalid=True): their result is then null."
        )
    parts = {
        "to train on": found.n_train,
        "to judge steps by": len(found.validation[0]),
        "held out": len(found.held_out[0]),
    }
    for what, n in parts.items():
        if n < 12:
            raise InputError(
                f"{source.describe().capitalize()} gives {n} rows {what}; at least 12 are needed. Give more"
                " rows, or another --held-out."
            )


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, np.finfo(np.float32).tiny), np.float32)


def _search_warning(source: Source, column: str, width: int) -> list[str]:
    """Where a second vector column of one width would break searches that don't name their column."""
    same = [
        f.name
        for f in source.schema
        if f.name != column
        and pa.types.is_fixed_size_list(f.type)
        and f.type.list_size == width
        and pa.types.is_floating(f.type.value_type)
    ]
    if not same:
        return []
    return [
        f"{column!r} has {width} dimensions, as {', '.join(repr(n) for n in same)} has: searches of this"
        f" table that name no column, such as table.search(q), must then say vector_column_name={same[0]!r}."
    ]


def _token(map: AlignmentMap, column: str) -> str:
    h = hashlib.blake2b(f"{column} {map.unit}".encode(), digest_size=12)
    for array in (map.weights, map.bias, map.frequencies):
        h.update(np.ascontiguousarray(array).tobytes())
    return h.hexdigest()


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start
