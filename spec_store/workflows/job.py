"""A comparison in steps that separate processes take, with nothing in common but a folder and the table."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..bars import shown
from ..connector import Location, Source
from ..errors import InputError, sentence
from ..executor import IN_PROCESS, Executor
from ..keywords import CompareKeywords
from ..options import CompareOptions, check_count, default_prefix
from ..progress import ProgressOption
from ..runs.records import ComparisonRecord, new_run_id
from ..spectral.covariance import CovarianceAccumulator
from ..spectral.scoring import Scorer, result_schema
from ..stores.locate import Columns, Database, location_of, open_columns
from .basis import basis_of, fitted_on_sample, rows_of, summed_share
from .checks import check_rows, embedding_names
from .comparison import Comparison, check_place, result_annotation
from .listing import Described, described_columns, earlier_run
from .pass_checkpoint import Prepared
from .passes import accumulate
from .solving import Question, compared, given_maps, spectrum_of
from .units import one_blas_thread, units_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Job"]

_FORMAT = 1
_MOST_PARTS = 1000
_MOST_NAMED = 5
_PLAN, _MAPS, _SAMPLE = "plan.json", "maps.npz", "sample.arrow"
_SOLUTION, _STATE, _RULES = "solution.json", "state.npz", "rules.npz"
_PUBLISHED = "published.json"


@dataclass(frozen=True)
class Job:
    """A comparison in five steps, for schedulers and engines that spec-store does not know.

    `prepare` draws the sample, fits the feature maps and cuts the work into parts. `accumulate` sums one part
    of the rows, `solve` adds the sums and finds clusters, `stage` writes one part of the column files, and
    `publish` makes all of them columns of the table in one commit. Parts may be worked on in any order, at
    the same time, on any machine, and again. The results are those of `compare` on the version that `prepare`
    read; with a part per unit of the table, the default, to the last bit.

    Parameters
    ----------
    folder
        Where the steps leave what the next ones need: plain files, which all of them can reach.
    storage_options
        As of a `Location`. They are not kept in the folder.

    Examples
    --------
    >>> job = spec_store.Job.prepare("job", "images", ["clip", "dino"], db="s3://data/db")  # doctest: +SKIP
    >>> parts = range(job.n_parts)  # doctest: +SKIP
    >>> client.gather(client.map(job.accumulate, parts))  # doctest: +SKIP
    >>> job.solve()  # doctest: +SKIP
    >>> client.gather(client.map(job.stage, parts))  # doctest: +SKIP
    >>> job.publish()  # doctest: +SKIP
    """

    folder: str
    storage_options: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def prepare(
        cls,
        folder: str | os.PathLike[str],
        table: str,
        columns: Sequence[str],
        *,
        db: Database = None,
        version: int | None = None,
        n_parts: int | None = None,
        options: CompareOptions | None = None,
        **fields: Unpack[CompareKeywords],
    ) -> Job:
        """Everything that is done once, before the rows are read.

        Parameters
        ----------
        folder
            A new one.
        table, columns, db, version, options
            As of `compare`: the name of a table that is to hold the results.
        n_parts
            At most as many as there are units of 65,536 rows or more; None is that number. More than workers,
            so that none waits long for the last one.

        Raises
        ------
        InputError
            As of `compare`; or the folder holds another job.
        """
        if options is None:
            options = CompareOptions.from_keywords(fields)
        elif fields:
            raise InputError(f"Give either options or keywords ({', '.join(fields)}), not both.")
        location = location_of(db)
        if "://" not in location.uri:
            location = replace(location, uri=os.path.abspath(location.uri))
        job = cls(os.fspath(folder), dict(location.storage_options))
        if job._path(_PLAN).exists():
            raise InputError(f"{job.folder} holds a job already: name a new folder, or remove it.")
        asked = embedding_names(columns, two=True)
        opened = _opened(asked, table, location, version, options)
        source, pair = opened.source, (opened.names[0], opened.names[1])
        prefix = options.prefix or default_prefix(pair)
        if not opened.of_table:
            raise InputError(f"The results of a job become columns: name a column of table {table!r}, too.")
        check_place(source, None, result_schema(prefix, modes=options.write_modes), pair)
        n_rows = check_rows(source, pair, options)
        others = [*earlier_run(source, pair, prefix).columns]
        others += described_columns(source, pair) if options.describe else ()
        prepared = fitted_on_sample(source, pair, options, others, given_maps(source, pair, options))
        n_units = len(units_of(rows_of(source, prepared)))
        if n_parts is not None:
            check_count("n_parts", n_parts, 1, _MOST_PARTS)
        if (n_parts or 1) > n_units:
            raise InputError(
                f"{n_parts} parts of {source.describe()}: it has {n_units} units of 65,536 rows or more, the"
                " least that is worth sending. Ask for fewer --parts."
            )
        header, sample = prepared.to_content()
        plan = {
            "format": _FORMAT,
            "run_id": new_run_id(),
            "table": table,
            "uri": location.uri,
            "connector": location.connector,
            "columns": list(asked),
            "version": source.version,
            "fingerprint": source.fingerprint,
            "n_rows": n_rows,
            "n_units": n_units,
            "n_parts": n_parts or n_units,
            "options": options.to_json(),
            "prepared": header,
        }
        Path(job.folder).mkdir(parents=True, exist_ok=True)
        job._put(_SAMPLE, sample)
        job._put(_MAPS, CovarianceAccumulator(prepared.maps).to_bytes())
        job._put(_PLAN, json.dumps(plan, indent=2).encode())
        return job

    @property
    def n_parts(self) -> int:
        """Parts of both passes, numbered from 0."""
        return int(self._plan["n_parts"])

    @property
    def missing(self) -> list[int]:
        """Parts whose rows have not been summed."""
        if self._fits_share:
            return []
        return [part for part in range(self.n_parts) if not self._path(_state_name(part)).exists()]

    def accumulate(self, part: int, *, threads: int | None = None, progress: ProgressOption = None) -> int:
        """Pass 1 over one part: its sums, into a file. Returns the number of rows.

        Cost: reads the two columns of the part. Raises InputError where another version is read than before.
        """
        self._check_part(part)
        if self._fits_share:
            raise InputError(
                "A job with fit_rows has no pass 1 to share out: solve it, then stage its parts."
            )
        plan, options, source = self._plan, self._options, self._source()
        prepared = self._prepared()
        rows = rows_of(source, prepared)
        units = units_of(rows)
        if len(units) != plan["n_units"]:
            raise InputError(
                f"{sentence(source.describe())} has {len(units)} units here and had {plan['n_units']} where"
                f" {self.folder} was prepared. Use one version of spec-store for all steps."
            )
        first, end = (i * len(units) // self.n_parts for i in (part, part + 1))
        mine = units[first:end]
        total = sum(p.n_rows for unit in mine for p in unit)
        with shown(progress) as update:
            update("covariance", 0, total)
            state = accumulate(
                rows,
                prepared.maps,
                where=options.where,
                batch_rows=options.batch_rows,
                threads=threads or options.threads,
                progress=lambda done: update("covariance", done, total),
                units=mine,
            )
        self._put(_state_name(part), state.to_bytes())
        return state.n_rows + state.invalid.n_rows

    def solve(self, *, progress: ProgressOption = None) -> Comparison:
        """The sums of all parts added in their order, the spectrum, and the clusters. Nothing is published.

        Raises
        ------
        InputError
            A part has not been summed.
        InvalidVectorsError
            There are rows that can't be compared, and may not be skipped.
        """
        if missing := self.missing:
            named = ", ".join(map(str, missing[:_MOST_NAMED]))
            more = f" and {len(missing) - _MOST_NAMED} more" if len(missing) > _MOST_NAMED else ""
            raise InputError(
                f"Of {self.n_parts} parts of {self.folder}, {named}{more} are not summed yet: spec-store"
                f" worker accumulate --job {self.folder} --part {missing[0]}."
            )
        plan, options, source = self._plan, self._options, self._source()
        prepared, portion = self._prepared(), None
        columns = tuple(m.column for m in prepared.maps)
        if self._fits_share:
            with shown(progress) as update:
                rows = rows_of(source, prepared)
                portion = summed_share(rows, prepared, options, plan["n_rows"], update)
            state = portion.state
        else:
            state = CovarianceAccumulator(prepared.maps)
            for part in range(self.n_parts):
                state.merge(CovarianceAccumulator.load(self._path(_state_name(part))))
        basis = basis_of(
            source, columns, tuple(plan["columns"]), options, prepared, state, portion, plan["n_rows"]
        )
        pair = columns[0], columns[1]
        earlier = earlier_run(source, pair, options.prefix or default_prefix(pair))
        run = compared(basis, Question(pair, options, earlier, run_id=plan["run_id"]))
        self._put(_STATE, state.to_bytes())
        self._put(_RULES, run.scorer.to_bytes())
        row = replace(run.record, finished=False).to_row()
        self._put(_SOLUTION, json.dumps({**row, "created_at": row["created_at"].isoformat()}).encode())
        return run

    def stage(self, part: int, *, threads: int | None = None, progress: ProgressOption = None) -> int:
        """Pass 2 over one part of the table as it stands now: column files beside it. Returns the rows.

        The files are no part of the table until `publish`. Another spec-store command that writes to the
        table removes them, as it does those of killed runs: `publish` then computes what is missing.
        """
        self._check_part(part)
        options = replace(self._options, threads=threads or self._options.threads)
        record, scorer = self._record(), self._scorer()
        with shown(progress) as update, one_blas_thread():
            annotation = result_annotation(scorer, record, options, update)
            return self._source().stage(annotation, part, self.n_parts)

    def publish(self, *, progress: ProgressOption = "auto", executor: Executor = IN_PROCESS) -> Comparison:
        """One commit: the staged files become columns, and the run is recorded. As `Comparison.write`.

        Parameters
        ----------
        executor
            Who computes what is not staged, or no longer fits, since the table has changed.
        """
        if self._path(_PUBLISHED).exists():
            raise InputError(f"{self.folder} is published, as run {self._plan['run_id']}.")
        options, record, source, scorer = self._options, self._record(), self._source(), self._scorer()
        state = CovarianceAccumulator.load(self._path(_STATE))
        sample = self._prepared().sample
        run = Comparison(
            source=source,
            options=options,
            spectrum=spectrum_of(state, (0, 1), options),
            clusters_found=tuple(scorer.clusters),
            scorer=scorer,
            state=state,
            sample=sample,
            record=record,
            described=Described.of(source, record.columns, sample.others, options.seed)
            if options.describe
            else None,
            executor=executor,
        ).write(progress=progress)
        self._put(
            _PUBLISHED, json.dumps({"run_id": run.run_id, "version": run.record.written_version}).encode()
        )
        return run

    @property
    def _plan(self) -> dict[str, Any]:
        try:
            plan: dict[str, Any] = json.loads(self._path(_PLAN).read_bytes())
        except FileNotFoundError:
            raise InputError(
                f"{self.folder} holds no job: spec-store worker prepare --job {self.folder} makes one."
            ) from None
        if plan["format"] != _FORMAT:
            raise InputError(f"The job in {self.folder} has format {plan['format']}; expected {_FORMAT}.")
        return plan

    @property
    def _options(self) -> CompareOptions:
        return CompareOptions.from_json(self._plan["options"])

    @property
    def _fits_share(self) -> bool:
        n_fit, plan = self._options.fit_rows, self._plan
        return n_fit is not None and n_fit < plan["n_rows"]

    def _source(self) -> Source:
        """What was prepared, opened again. Raises InputError where it is no longer that."""
        plan = self._plan
        location = Location(plan["uri"], plan["connector"], self.storage_options)
        opened = _opened(plan["columns"], plan["table"], location, plan["version"], self._options)
        if opened.source.fingerprint != plan["fingerprint"]:
            raise InputError(
                f"{sentence(opened.source.describe())} has changed since {self.folder} was prepared. Prepare"
                " a new job."
            )
        return opened.source

    def _prepared(self) -> Prepared:
        maps = CovarianceAccumulator.load(self._path(_MAPS)).maps
        return Prepared.from_content((self._plan["prepared"], self._path(_SAMPLE).read_bytes()), maps)

    def _record(self) -> ComparisonRecord:
        try:
            row = json.loads(self._path(_SOLUTION).read_bytes())
        except FileNotFoundError:
            self._plan  # noqa: B018  # no job at all is another matter
            raise InputError(
                f"The job in {self.folder} is not solved yet: spec-store worker solve --job {self.folder}."
            ) from None
        row["created_at"] = datetime.fromisoformat(row["created_at"])
        return dataclasses.replace(ComparisonRecord.from_rows(row, []), finished=True)

    def _scorer(self) -> Scorer:
        maps = CovarianceAccumulator.load(self._path(_MAPS)).maps
        return Scorer.from_bytes(self._path(_RULES).read_bytes(), maps)

    def _check_part(self, part: int) -> None:
        if not 0 <= part < self.n_parts:
            raise InputError(f"Part {part} of {self.folder}; expected one from 0 to {self.n_parts - 1}.")

    def _path(self, name: str) -> Path:
        return Path(self.folder) / name

    def _put(self, name: str, content: bytes) -> None:
        """Write a file atomically: a part that is worked on twice is complete at any time."""
        own = self._path(f".{name}.{os.getpid()}.{os.urandom(4).hex()}")
        try:
            own.write_bytes(content)
            own.replace(self._path(name))
        finally:
            own.unlink(missing_ok=True)


def _state_name(part: int) -> str:
    return f"part-{part:04}.npz"


def _opened(
    columns: Sequence[str], table: str, location: Location, version: int | None, options: CompareOptions
) -> Columns:
    return open_columns(
        columns, table=table, db=location, version=version, key=options.key, on_missing=options.on_missing
    )
