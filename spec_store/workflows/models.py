"""Any number of embeddings of the same rows: one pass, the matrix of their differences, pairs on request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from ..bars import shown
from ..connector import Annotation, Published, Source
from ..errors import InputError, UnsupportedError
from ..executor import IN_PROCESS, Executor
from ..keywords import CompareKeywords
from ..options import CompareOptions, default_prefix
from ..progress import Progress, ProgressOption, timed
from ..runs.records import ModelsRecord
from ..runs.registry import Registry
from ..spectral.scoring import ScorerOfPairs, result_schema
from ..spectral.spectrum import Spectrum, solve
from ..stores.locate import open_columns, open_data
from ..stores.streaming import usable_cores
from ..stores.tables import Database, TableLike
from ..stores.view import keyed
from .basis import Basis, gather, pairs_of
from .checkpoint import Resumption, resumable
from .checks import check_rows, embedding_names
from .comparison import SAMPLE, Comparison, check_place
from .kept import save_sample
from .listing import Earlier, described_columns, earlier_run
from .notebook import models_html
from .pass_checkpoint import PassCheckpoint
from .solving import Question, compared, given_maps, number_or_none
from .units import one_blas_thread

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["ModelComparison", "Pairs", "compare_models"]

Pairs = Literal["all", "first"] | Sequence[tuple[str, str]]
"""Pairs of embeddings: all, the first one with each of the others, or those named."""


@dataclass(frozen=True, repr=False)
class ModelComparison:
    """Several embeddings compared on one state.

    Attributes
    ----------
    basis
        The state, and the sample that goes with it.
    record
        All figures as plain values, the matrix among them.
    comparisons
        Of the pairs that were asked for.
    recorded
        Whether `write` has recorded the run.
    """

    basis: Basis
    record: ModelsRecord
    comparisons: tuple[Comparison, ...]
    recorded: bool = False

    @property
    def run_id(self) -> str:
        """Unique, and sorted by time."""
        return self.record.run_id

    @property
    def columns(self) -> tuple[str, ...]:
        """The embedding columns."""
        return self.record.columns

    @property
    def matrix(self) -> pa.Table:
        """A row per pair: ``first``, ``second``, both SPEC-diffs, CKA raw and unbiased, and ``map_error``."""
        return pa.Table.from_pylist([dict(entry) for entry in self.record.matrix])

    @property
    def registry(self) -> Registry | None:
        """Where `write` records the run; None for a store without one."""
        return Registry.of(self.basis.source.location)

    @property
    def warnings(self) -> list[str]:
        """What a person should know before relying on the figures."""
        return list(self.record.warnings)

    def pair(self, first: str, second: str) -> Comparison:
        """The comparison of a pair that was asked for. Raises InputError for another."""
        for run in self.comparisons:
            if set(run.columns) == {first, second}:
                return run
        known = ", ".join(":".join(run.columns) for run in self.comparisons) or "none"
        raise InputError(f"{first}:{second} was not asked for; there are {known}. Give it in pairs.")

    def __repr__(self) -> str:
        return (
            f"<Comparison of {', '.join(self.columns)}: {self.record.n_rows:,} rows of"
            f" {self.basis.source.describe()}, {len(self.comparisons)} pairs with clusters,"
            f" {'written' if self.record.written else 'not written'}>"
        )

    def _repr_html_(self) -> str:
        return models_html(self.record, [run.record for run in self.comparisons])

    def score(self, *, progress: ProgressOption = "auto") -> ModelComparison:
        """Pass 2 of each pair without writing: with exact sizes and typical rows in its record."""
        with shown(progress) as update:
            return replace(self, comparisons=tuple(run.score(progress=update) for run in self.comparisons))

    def write(self, *, progress: ProgressOption = "auto") -> ModelComparison:
        """Record the run, and annotate the rows with the results of all pairs in one publication.

        Raises
        ------
        RetryError
            Commit conflicts exceeded the retry limit, or no room was left; nothing was published.
        UnsupportedError
            The store can't hold result columns, or keeps no runs and no pair was asked for.
        """
        registry, runs = self.registry, self.comparisons
        _check_places(self.basis.source, {run.columns: run.scorer.schema for run in runs})
        names = tuple(n for run in runs for n in run.scorer.schema.names)
        state = self.basis.state.to_bytes()
        if registry is not None:
            if self.basis.options.keep_sample:
                data = save_sample(self.basis.sample, self.basis.options.seed)
                registry.put_artifact(self.run_id, SAMPLE, data)
            registry.start(replace(self.record, written=names), state)
            for run in runs:
                run.keep(registry)
                registry.start(replace(run.record, written=tuple(run.scorer.schema.names)), None)
        seconds: dict[str, float] = {}
        done: list[Comparison] = []
        published = None
        if runs:
            with shown(progress) as update, timed(seconds, "write"):
                published = self._annotate(update)
                done = [run.annotated(published, seconds) for run in runs]
        record = self.record.with_stage(
            seconds, written=names, written_version=published.version if published else None
        )
        if registry is not None:
            for run in done:
                registry.finish(run.record, None)
            registry.finish(record, state)
        return replace(self, comparisons=tuple(done), record=record, recorded=registry is not None)

    def _annotate(self, progress: Progress) -> Published:
        options, runs = self.basis.options, self.comparisons
        scorer = ScorerOfPairs([run.scorer for run in runs])
        n_rows = self.record.n_scored
        own = {n: run.record.provenance for run in runs for n in run.scorer.schema.names}
        marks = {n: {**marks, "spec_store.run": self.run_id} for n, marks in own.items()}
        progress("write", 0, n_rows)
        annotation = Annotation(
            schema=scorer.schema,
            reads=tuple(m.column for m in scorer.maps),
            compute=scorer.compute,
            token=scorer.token,
            metadata=self.record.provenance,
            column_metadata=marks,
            where=options.where,
            batch_rows=options.batch_rows,
            workers=options.threads or usable_cores(),
            progress=lambda rows: progress("write", rows, n_rows),
            executor=self.basis.executor,
        )
        with one_blas_thread():
            return self.basis.source.annotate(annotation)

    def to_json(self) -> dict[str, Any]:
        """The object that ``compare --json`` prints for more than two columns; its keys are stable."""
        return {**self.record.to_json(), "comparisons": [run.to_json() for run in self.comparisons]}


def compare_models(
    table: TableLike | None,
    columns: Sequence[str],
    *,
    pairs: Pairs = (),
    db: Database = None,
    version: int | None = None,
    write: bool = False,
    fresh: bool = False,
    progress: ProgressOption = "auto",
    executor: Executor = IN_PROCESS,
    options: CompareOptions | None = None,
    **fields: Unpack[CompareKeywords],
) -> ModelComparison:
    """Compare any number of embedding columns in one pass; nothing is written unless asked.

    Parameters
    ----------
    table, columns, db, version, executor, options
        As of `compare`; two columns or more.
    pairs
        Those whose clusters are wanted: "all", "first" (the first column with each of the others), or pairs
        of columns. Each is written under a prefix of its own.
    write
        Write the pairs' results, and record the run, whose state answers later questions (`compare_again`).
        Interrupted, it is continued as in `compare`.
    fresh
        Start over, whatever an interrupted run has kept.

    Raises
    ------
    InputError, ColumnClashError
        As of `compare`; nothing was written.

    Notes
    -----
    Cost: a pass over all columns, O(n P²) for the P features of all; each pair then costs a solve, and its
    clusters what they cost `compare`. Bandwidths are such that all kernels have one largest eigenvalue: those
    of a pair alone are others, and so are its figures.
    """
    if options is None:
        options = CompareOptions.from_keywords(fields)
    elif fields:
        raise InputError(f"Give either options or keywords ({', '.join(fields)}), not both.")
    asked = embedding_names(columns)
    if table is None or isinstance(table, str):
        opened = open_columns(
            asked, table=table, db=db, version=version, key=options.key, on_missing=options.on_missing
        )
        source, names, references = opened.source, opened.names, tuple(asked)
        if not opened.of_table and pairs and write:
            raise InputError(
                "Results of pairs are written beside a column of the table, and none of the columns is one."
            )
    else:
        source, names, references = keyed(open_data(table), options.key), asked, ()
    chosen = chosen_pairs(names, pairs)
    if options.prefix is not None and len(chosen) != 1:
        raise InputError(f"A prefix is for one pair; {len(chosen)} are asked for, each with its own.")
    questions = {pair: replace(options, prefix=options.prefix or default_prefix(pair)) for pair in chosen}
    schemas = {
        pair: result_schema(own.prefix or "", modes=own.write_modes) for pair, own in questions.items()
    }
    resumption = None
    if write:
        _check_places(source, schemas)
        results = {questions[pair].prefix or "": schema.names for pair, schema in schemas.items()}
        resumption = Resumption.of(
            asked,
            names,
            options.to_json(),
            results,
            by_name=isinstance(table, str),
            version=version,
            fresh=fresh,
        )
    with resumable(PassCheckpoint, source, resumption) as checkpoint:
        source = checkpoint.source
        n_rows = check_rows(source, names, options)
        earlier = {pair: earlier_run(source, pair, own.prefix or "") for pair, own in questions.items()}
        others = [c for run in earlier.values() for c in run.columns]
        if options.describe:
            others += described_columns(source, names)
        maps = given_maps(source, names, options)
        with shown(progress) as update:
            basis = gather(
                source,
                names,
                references,
                options,
                n_rows,
                update,
                others=others,
                maps=maps,
                checkpoint=checkpoint,
                executor=executor,
            )
            run = _compared(basis, questions, earlier, checkpoint.run_id)
            return run.write(progress=update) if write else run


def _check_places(source: Source, schemas: Mapping[tuple[str, str], pa.Schema]) -> None:
    """Refuse what could not be written: result columns of pairs, or the record of the run alone."""
    registry = Registry.of(source.location)
    if registry is not None:
        registry.check()
    elif not schemas:
        raise UnsupportedError(
            f"{source.describe()} keeps no runs, and no pair was asked for: there is nothing to write."
        )
    for pair, schema in schemas.items():
        check_place(source, None, schema, pair)


def _compared(
    basis: Basis,
    questions: Mapping[tuple[str, str], CompareOptions],
    earlier: Mapping[tuple[str, str], Earlier],
    run_id: str,
) -> ModelComparison:
    """The matrix, and the pairs that were asked for."""
    seconds = dict(basis.seconds)
    with timed(seconds, "solve"):
        record = _record(basis, run_id)
    basis = replace(basis, state_run=run_id, seconds={})
    comparisons = [
        compared(basis, Question(pair, own, earlier[pair], run_id=f"{run_id}.{i}"))
        for i, (pair, own) in enumerate(questions.items(), 1)
    ]
    record = record.with_stage(
        seconds,
        pairs=tuple(
            {"columns": list(c.columns), "prefix": c.prefix, "run_id": c.run_id} for c in comparisons
        ),
    )
    return ModelComparison(basis, record, tuple(comparisons))


def chosen_pairs(columns: Sequence[str], pairs: Pairs) -> list[tuple[str, str]]:
    """The pairs that were asked for, by name. Raises InputError for columns that are not compared."""
    if pairs == "all":
        return pairs_of(columns)
    if pairs == "first":
        return [(columns[0], other) for other in columns[1:]]
    if isinstance(pairs, str):
        raise InputError(f"pairs is {pairs!r}; expected all, first, or pairs of columns such as a:b.")
    found: list[tuple[str, str]] = []
    for pair in pairs:
        if isinstance(pair, str) or len(pair) != 2 or pair[0] == pair[1] or not set(pair) <= set(columns):
            shown = ":".join(map(str, pair)) if not isinstance(pair, str) else pair
            raise InputError(f"{shown!r} is not a pair of the columns {', '.join(columns)}.")
        if set(pair) in [set(other) for other in found]:
            raise InputError(f"The pair {':'.join(pair)} is given twice.")
        found.append((pair[0], pair[1]))
    return found


def _record(basis: Basis, run_id: str) -> ModelsRecord:
    options, source, state = basis.options, basis.source, basis.state
    spectra = {pair: _pair_spectrum(basis, pair) for pair in pairs_of(basis.columns)}
    matrix = tuple(
        {
            "first": first,
            "second": second,
            "spec_diff": found.spec_diff,
            "spec_diff_centered": found.spec_diff_centered,
            "cka": number_or_none(found.cka),
            "cka_unbiased": number_or_none(found.cka_unbiased),
            "map_error": basis.map_error((first, second), options.eta),
        }
        for (first, second), found in spectra.items()
    )
    coverage = {c: found.coverage[i] for pair, found in spectra.items() for i, c in enumerate(pair)}
    return ModelsRecord(
        run_id=run_id,
        table=source.table,
        columns=basis.columns,
        prefix=f"spec_{'_'.join(basis.columns)}",
        source_version=source.version,
        n_rows=state.n_rows,
        n_skipped=state.invalid.n_rows,
        fit=None if basis.n_scored is None else {"n_rows": state.n_rows, "n_scored": basis.n_scored},
        options=options.to_json(),
        seconds={},
        warnings=basis.warnings,
        bandwidth={m.column: m.sigma for m in state.maps},
        coverage=coverage,
        matrix=matrix,
        references=basis.references,
    )


def _pair_spectrum(basis: Basis, pair: tuple[str, str]) -> Spectrum:
    options = basis.options
    return solve(basis.state, pair=basis.positions(pair), modes=1, eta=options.eta, center=options.center)
