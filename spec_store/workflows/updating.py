"""The results of one comparison brought up to date: its state, and the scores of rows that changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from ..connector import Annotation, Location, Published, Source, run_of
from ..errors import InputError, RetryError, sentence
from ..executor import IN_PROCESS, Executor
from ..options import CompareOptions
from ..progress import Progress, timed
from ..runs.records import ComparisonRecord, ModelsRecord, RunRecord, publication_of
from ..runs.registry import Registry
from ..spectral.scoring import Scorer
from ..spectral.spectrum import Spectrum
from ..stores.locate import Columns
from ..stores.streaming import usable_cores
from .again import opened_again, owner_of
from .annotated import counted
from .basis import Basis
from .comparison import MODES, RULES
from .folding import Drift, Folded, drift_of, fold
from .kept import LeadingModes
from .listing import described_columns, earlier_run
from .passes import ClusterTally, tally_columns
from .sampling import draw_sample, identified
from .solving import Question, compared, kept_state, spectrum_of
from .units import one_blas_thread
from .updated import UpdatedClusters

__all__ = ["ClusterJob", "States", "held_marks"]


class States:
    """The states of recorded runs, each loaded and brought up to date once."""

    def __init__(self, registry: Registry, executor: Executor = IN_PROCESS) -> None:
        self._registry = registry
        self.executor = executor
        self._folded: dict[str, Folded] = {}
        self._owners: dict[str, ComparisonRecord | ModelsRecord] = {}

    def owner(self, run: ComparisonRecord) -> ComparisonRecord | ModelsRecord:
        """The run that keeps another's state, or itself."""
        name = owner_of(run)
        if name not in self._owners:
            found = run if name == run.run_id else self._registry.run(name)
            assert isinstance(found, (ComparisonRecord, ModelsRecord))
            self._owners[name] = found
        return self._owners[name]

    def folded(self, run: ComparisonRecord, source: Source, progress: Progress) -> Folded:
        """The state of the source's rows; recorded here where another run keeps it."""
        owner = self.owner(run)
        if owner.run_id not in self._folded:
            kept = kept_state(source.location, owner.run_id)
            version = owner.source_version if owner.state_version is None else owner.state_version
            options = CompareOptions.from_json(owner.options)
            found = fold(
                kept,
                source,
                version,
                options,
                progress,
                is_share=owner.fit is not None,
                executor=self.executor,
            )
            if owner.run_id != run.run_id and found.version != version:
                renewed = replace(owner, state_version=found.version)
                self._registry.renew(renewed, found.state.to_bytes())
            self._folded[owner.run_id] = found
        return self._folded[owner.run_id]


@dataclass(frozen=True)
class ClusterJob:
    """One comparison to be brought up to date, all checks that need no pass done."""

    record: ComparisonRecord
    table: str
    location: Location
    registry: Registry
    states: States
    refit: bool
    rules: bytes

    @classmethod
    def of(
        cls,
        run: ComparisonRecord,
        table: str,
        source: Source,
        registry: Registry,
        states: States,
        *,
        refit: bool,
    ) -> ClusterJob:
        assert source.location is not None
        rules = registry.artifact(run.run_id, RULES)
        job = cls(run, table, source.location, registry, states, refit, rules or b"")
        opened = job.opened()
        if not opened.of_table:
            raise InputError(
                f"The results with prefix {run.prefix!r} lie in a table of their own, {table!r}: run"
                " spec-store compare again, which replaces it."
            )
        if rules is None and not refit:
            raise InputError(
                f"Run {run.run_id} was recorded without the rules of its clusters, by an earlier version of"
                " spec-store, or they are lost: find clusters anew with --refit (refit=True)."
            )
        left, least = opened.source.count(job.options.where), job.options.fewest_rows
        if left < least:
            raise InputError(
                f"{sentence(source.describe())} has {left} rows left to compare; {least} are needed."
                " Remove the results with spec-store undo."
            )
        return job

    def opened(self) -> Columns:
        """The run's columns as they stand now, joined where they lie in several stores."""
        return opened_again(replace(self.record, table=self.table), self.location, self.options)

    @property
    def pair(self) -> tuple[str, str]:
        return self.record.columns

    @property
    def options(self) -> CompareOptions:
        return CompareOptions.from_json(self.record.options)

    def run(self, progress: Progress) -> UpdatedClusters:
        """Fold, then score what changed; or compare anew."""
        seconds: dict[str, float] = {}
        source = self.opened().source
        with timed(seconds, "update"):
            folded = self.states.folded(self.record, source, progress)
            known = [m.column for m in folded.state.maps]
            positions = known.index(self.pair[0]), known.index(self.pair[1])
            spectrum = spectrum_of(folded.state, positions, self.options)
            drift = self._drift(folded, spectrum)
        if self.refit:
            return self._refitted(source, folded, drift, progress)
        with timed(seconds, "update"):
            published = self._scored(source, folded, progress)
            done = self._recorded(source, folded, drift, published)
        state = folded.state.to_bytes() if self._keeps_state else None
        self.registry.renew(done.record.with_stage(seconds), state)
        return done.result

    @property
    def _keeps_state(self) -> bool:
        return owner_of(self.record) == self.record.run_id

    def _is_share(self, folded: Folded) -> bool:
        owner = self.states.owner(self.record)
        return folded.portion is not None or (owner.fit is not None and folded.how == "current")

    def _drift(self, folded: Folded, spectrum: Spectrum) -> Drift:
        kept = self.registry.artifact(self.record.run_id, MODES)
        before = sum(entry["n_added"] or 0 for entry in self.record.updates)
        changed = (before + (folded.n_added or 0)) / max(folded.state.n_rows, 1)
        modes = None if kept is None else LeadingModes.from_bytes(kept)
        return drift_of(folded, self.pair, spectrum, modes, changed_share=changed)

    def _scored(self, source: Source, folded: Folded, progress: Progress) -> Published:
        """Pass 2 over what changed since all rows had their results."""
        run, options = self.record, self.options
        known = {m.column: m for m in folded.state.maps}
        scorer = Scorer.from_bytes(self.rules, [known[c] for c in self.pair])
        marks = held_marks(source, scorer.schema.names, run)
        n_rows = source.count(options.where)
        stage = f"write {run.prefix}"
        progress(stage, 0, n_rows)
        annotation = Annotation(
            schema=scorer.schema,
            reads=self.pair,
            compute=scorer.compute,
            token=scorer.token,
            metadata=marks[scorer.schema.names[0]],
            column_metadata=marks,
            where=options.where,
            since=run.scored_version if run.scored_version is not None else 0,
            batch_rows=options.batch_rows,
            workers=options.threads or usable_cores(),
            progress=lambda rows: progress(stage, rows, n_rows),
            executor=self.states.executor,
        )
        with one_blas_thread():
            return source.annotate(annotation)

    def _recorded(self, source: Source, folded: Folded, drift: Drift, published: Published) -> _Done:
        """The run's record, with sizes counted again, and what is told of it."""
        run, state = self.record, folded.state
        tally = ClusterTally([c.cluster for c in run.clusters])
        tally = tally_columns(source.latest(), run.prefix, tally, where=self.options.where)
        warnings = [*published.notes, *_invalid(state.invalid.n_rows, run, source)]
        result = UpdatedClusters(
            prefix=run.prefix,
            columns=self.pair,
            run_id=run.run_id,
            version=folded.version,
            n_rows=state.n_rows,
            state=folded.how,
            n_added=folded.n_added,
            n_removed=folded.n_removed,
            n_written=published.n_rows,
            coverage=drift.coverage,
            coverage_added=drift.coverage_added,
            angle=drift.angle,
            advice=drift.advice,
            warnings=tuple(warnings),
        )
        entry = {
            "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            **{name: getattr(result, name) for name in _ENTRY},
        }
        record = replace(
            run,
            clusters=counted(run.clusters, tally),
            written_version=published.version,
            scored_version=published.computed_version,
            state_version=folded.version if self._keeps_state else run.state_version,
            updates=(*run.updates, entry),
        )
        return _Done(record, result)

    def _refitted(self, source: Source, folded: Folded, drift: Drift, progress: Progress) -> UpdatedClusters:
        """A new run on the updated state and a sample of the present rows."""
        run, options, owner = self.record, self.options, self.states.owner(self.record)
        columns = tuple(m.column for m in folded.state.maps)
        earlier = earlier_run(source, self.pair, run.prefix)
        described = described_columns(source, columns) if options.describe else ()
        seconds: dict[str, float] = {}
        with timed(seconds, "sample"):
            rows = identified(source, options.where)
            others = [*earlier.columns, *described]
            sample = draw_sample(rows.source, columns, options, others=others).stored(options)
        basis = Basis(
            source=source,
            columns=columns,
            references=owner.references,
            options=CompareOptions.from_json(owner.options),
            state=folded.state,
            sample=sample,
            portion=folded.portion,
            n_scored=source.count(options.where) if self._is_share(folded) else None,
            warnings=(*source.notes, *rows.warnings),
            seconds=seconds,
            executor=self.states.executor,
        )
        asked = replace(options, prefix=run.prefix)
        new = compared(basis, Question(self.pair, asked, earlier)).write(progress=progress)
        return UpdatedClusters(
            prefix=run.prefix,
            columns=self.pair,
            run_id=new.run_id,
            version=folded.version,
            n_rows=folded.state.n_rows,
            state=folded.how,
            n_added=folded.n_added,
            n_removed=folded.n_removed,
            n_written=new.source.latest().count(),
            coverage=drift.coverage,
            coverage_added=drift.coverage_added,
            angle=drift.angle,
            changes=new.record.changes,
            warnings=tuple(new.warnings),
        )


@dataclass(frozen=True)
class _Done:
    record: ComparisonRecord
    result: UpdatedClusters


# Of a result, what its run's record keeps.
_ENTRY = (
    "version",
    "n_rows",
    "state",
    "n_added",
    "n_removed",
    "n_written",
    "coverage_added",
    "angle",
    "advice",
)


def _invalid(n: int, run: ComparisonRecord, source: Source) -> list[str]:
    """Told where a run that refused such rows meets them now."""
    if not n or run.options.get("skip_invalid"):
        return []
    return [
        f"{n:,} rows of {source.describe()} can't be compared: their vectors are null, zero or not finite,"
        " and their results null."
    ]


def held_marks(source: Source, names: Sequence[str], run: RunRecord) -> dict[str, dict[str, str]]:
    """By result column the field metadata that it has. Raises RetryError where it is no longer this run's."""
    fields = {f.name: f for f in source.schema}
    for name in names:
        if name not in fields or run_of(fields[name]) != publication_of(run.run_id):
            did = "written" if name in fields else "removed"
            raise RetryError(
                f"While the results of run {run.run_id} were brought up to date, somebody else has {did}"
                f" {name} in {source.describe()}. These results are as they were; try again."
            )
    return {n: {k.decode(): v.decode() for k, v in fields[n].metadata.items()} for n in names}
