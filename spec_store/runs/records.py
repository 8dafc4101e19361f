"""Records of runs: frozen, plain values; what ``--json`` prints, and the rows that a registry keeps."""

from __future__ import annotations

import dataclasses
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib.metadata import version
from typing import Any, ClassVar, TypeVar

from .clusters import ClusterRecord, RejectedRecord, json_values
from .values import Changes, Mismatch

__all__ = ["AlignmentRecord", "ComparisonRecord", "ModelsRecord", "RunRecord", "new_run_id", "publication_of"]


def publication_of(run_id: str) -> str:
    """The run that result columns name: of a pair among several models ``{id}.1``, the run of them all."""
    return run_id.partition(".")[0]


Record = TypeVar("Record", bound="RunRecord")


def new_run_id() -> str:
    """Unique, and sorted by time: ``20260131T120000-5f3a2b``."""
    return f"{datetime.now(timezone.utc):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What every run has in common.

    Attributes
    ----------
    table
        The table that holds, or is to hold, the results; None for a file and for data in memory.
    columns
        The embedding columns: those compared, or source and target.
    prefix
        Of the result columns; an alignment's is the name of its only one.
    written
        The result columns, once they are in the store.
    source_version, written_version
        The table's versions that were read, and that hold the results first; None where it has none.
    scored_version
        A version at which every row had the results of its values, see `Published.computed_version`.
    n_rows, n_skipped
        Rows compared or aligned, and rows skipped because a vector was null, not finite, or zero.
    options
        The options, plain values.
    seconds
        Wall time by stage.
    warnings
        What a person should know before relying on the result.
    finished
        False for a run that was recorded before its columns were published, and not since.
    """

    kind: ClassVar[str]

    run_id: str = field(default_factory=new_run_id)
    created_at: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    table: str | None
    columns: tuple[str, ...]
    prefix: str
    written: tuple[str, ...] = ()
    source_version: int | None
    written_version: int | None = None
    scored_version: int | None = None
    n_rows: int
    n_skipped: int
    options: Mapping[str, Any]
    seconds: Mapping[str, float]
    warnings: tuple[str, ...] = ()
    spec_store_version: str = field(default_factory=lambda: version("spec-store"))
    finished: bool = True

    def with_stage(self: Record, seconds: Mapping[str, float], **changes: Any) -> Record:
        """This record after another stage: its seconds added, fields changed."""
        return dataclasses.replace(self, seconds={**self.seconds, **seconds}, **changes)

    @property
    def provenance(self) -> dict[str, str]:
        """What every result column's field metadata says about where it came from."""
        return {
            "spec_store.run": self.run_id,
            "spec_store.version": self.spec_store_version,
            "spec_store.columns": json.dumps(self.columns),
            "spec_store.source_version": str(self.source_version),
            "spec_store.options": json.dumps(self.options),
        }

    def to_json(self) -> dict[str, Any]:
        """The object that ``--json`` prints; its keys are stable."""
        raise NotImplementedError

    def to_row(self) -> dict[str, Any]:
        """A row of the table of runs, without the state."""
        return {
            "run_id": self.run_id,
            "created_at": self.created_at,
            "kind": self.kind,
            "table": self.table,
            "columns": list(self.columns),
            "prefix": self.prefix,
            "written": list(self.written),
            "source_version": self.source_version,
            "written_version": self.written_version,
            "n_rows": self.n_rows,
            "n_skipped": self.n_skipped,
            "options": json.dumps(self.options),
            "details": json.dumps(self.to_json(), allow_nan=False),
            "seconds": json.dumps(self.seconds),
            "spec_store_version": self.spec_store_version,
            "finished": self.finished,
        }


def _shared(row: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `RunRecord` from a row of the table of runs, of any version."""
    details = json.loads(row["details"] or "{}")
    names = ("run_id", "created_at", "table", "prefix", "source_version", "written_version")
    return {
        **{name: row[name] for name in (*names, "n_rows", "n_skipped", "spec_store_version")},
        "columns": tuple(row["columns"]),
        "scored_version": details.get("scored_version"),
        "written": tuple(row["written"] or ()),
        "options": json.loads(row["options"]),
        "seconds": json.loads(row["seconds"]),
        "warnings": tuple(details.get("warnings", ())),
        "finished": row["finished"] is not False,
    }


# Of a comparison, since version 0.2: kept in the details of its row.
_LATER_FIELDS = (
    "cka_unbiased",
    "rounding",
    "mode_energies",
    "state_run",
    "references",
    "mismatch",
    "average_pair",
    "n_candidates",
    "rejections",
    "next_number",
    "changes",
    "skipped_columns",
    "state_version",
    "updates",
    "fit",
)


@dataclass(frozen=True, kw_only=True)
class ComparisonRecord(RunRecord):
    """A comparison.

    Attributes
    ----------
    bandwidth, coverage
        By column: the Gaussian kernel's σ, None for the cosine kernel; and mean |φ(x)|².
    map_error
        The size of error of an eigenvalue that comes from the feature maps; 0 for exact ones.
    spec_diff, spec_diff_centered, cka
        See `spec_store.Spectrum`; cka is None where an embedding is constant.
    cka_unbiased
        CKA by unbiased estimates, 0 at chance level; None likewise.
    rounding
        Eigenvalues under this may be due to rounding error.
    eigenvalues
        By column, the leading eigenvalues of its end, strongest first, before rotation.
    mode_energies
        By column, of these modes the Rayleigh quotients [under K_A/n, under K_B/n].
    state_run
        The run that keeps the state and the sample it was solved from; None for itself.
    references
        The embedding columns as they were asked for, with the stores of those of other ones.
    mismatch
        By column, the mismatch mass of its end, ``mass``, the sum over its clusters of (share of rows not in
        an earlier one) times gap, and ``rows``, the share of rows in any of them.
    average_pair
        By column, the mean kernel of any two rows.
    n_candidates
        How many candidates were evaluated.
    rejections
        Of the candidates that are not listed the number, by reason.
    rejected
        Those that were chosen and not confirmed.
    clusters
        By (share of rows not in an earlier one) times gap, the largest first.
    next_number
        The least number that no cluster of this prefix has had.
    changes
        Numbers of clusters against the results that the prefix held before: ``kept``, ``new``, ``gone``;
        None where it held none.
    skipped_columns
        Columns that could not be described, and why.
    state_version
        The version whose rows the state sums up now; None for `source_version`.
    updates
        What `update` did to state and results since, oldest first, see `spec_store.UpdatedClusters`.
    fit
        Of a run with `fit_rows`: ``n_rows`` that the figures are of, ``n_scored`` that are scored, and
        ``standard_errors`` of ``spec_diff``, ``spec_diff_centered``, ``cka`` and, by column, ``eigenvalues``,
        None where they are not known; None for a run on all rows.
    """

    kind: ClassVar[str] = "compare"

    columns: tuple[str, str]
    bandwidth: Mapping[str, float | None]
    coverage: Mapping[str, float]
    map_error: float
    spec_diff: float
    spec_diff_centered: float
    cka: float | None
    eigenvalues: Mapping[str, Sequence[float]]
    clusters: tuple[ClusterRecord, ...]
    cka_unbiased: float | None = None
    rounding: float | None = None
    mode_energies: Mapping[str, Sequence[Sequence[float]]] = field(default_factory=dict)
    state_run: str | None = None
    references: tuple[str, ...] = ()
    mismatch: Mapping[str, Mismatch] = field(default_factory=dict)
    average_pair: Mapping[str, float] = field(default_factory=dict)
    n_candidates: int = 0
    rejections: Mapping[str, int] = field(default_factory=dict)
    rejected: tuple[RejectedRecord, ...] = ()
    next_number: int = 1
    changes: Changes | None = None
    skipped_columns: Mapping[str, str] = field(default_factory=dict)
    state_version: int | None = None
    updates: tuple[Mapping[str, Any], ...] = ()
    fit: Mapping[str, Any] | None = None

    @property
    def n_scored(self) -> int:
        """Rows that are scored, those among them that have to be skipped."""
        return self.n_rows + self.n_skipped if self.fit is None else int(self.fit["n_scored"])

    def to_json(self) -> dict[str, Any]:
        kernel = self.options["kernel"]
        names = ("bandwidth", "coverage", "map_error", "spec_diff", "spec_diff_centered", "cka")
        later = ("cka_unbiased", "rounding", "mode_energies", "state_run", "references")
        return {
            "run_id": self.run_id,
            "table": self.table,
            "columns": list(self.columns),
            "n_rows": self.n_rows,
            "n_skipped": self.n_skipped,
            "fit": json_values(self.fit),
            "objective": self.options.get("objective", "difference"),
            "kernel": kernel,
            "features": self.options["features"] if kernel == "gaussian" else "exact",
            **{name: json_values(getattr(self, name)) for name in names},
            "mismatch": json_values(self.mismatch),
            "average_pair": json_values(self.average_pair),
            "n_candidates": self.n_candidates,
            "rejections": json_values(self.rejections),
            "eigenvalues": json_values(self.eigenvalues),
            **{name: json_values(getattr(self, name)) for name in later},
            "clusters": [c.to_json() for c in self.clusters],
            "rejected": [c.to_json() for c in self.rejected],
            "next_number": self.next_number,
            "changes": json_values(self.changes),
            "skipped_columns": json_values(self.skipped_columns),
            "state_version": self.state_version,
            "scored_version": self.scored_version,
            "updates": json_values(self.updates),
            "seconds": json_values(self.seconds),
            "written": list(self.written),
            "warnings": list(self.warnings),
        }

    def to_row(self) -> dict[str, Any]:
        sigmas = [self.bandwidth[c] for c in self.columns]
        first, second = (list(self.eigenvalues[c]) for c in self.columns)
        return super().to_row() | {
            "n_clusters": len(self.clusters),
            "spec_diff": self.spec_diff,
            "spec_diff_centered": self.spec_diff_centered,
            "cka": self.cka,
            "bandwidth": None if None in sigmas else sigmas,
            "coverage": [self.coverage[c] for c in self.columns],
            "map_error": self.map_error,
            "eigenvalues_first": first,
            "eigenvalues_second": second,
        }

    @classmethod
    def from_rows(cls, row: Mapping[str, Any], clusters: Sequence[Mapping[str, Any]]) -> ComparisonRecord:
        """From a row of the table of runs, and the finished run's rows of the table of clusters."""
        columns = row["columns"]
        details = json.loads(row["details"] or "{}")
        if row["finished"] is False:
            found = [ClusterRecord.from_json(c) for c in details["clusters"]]
        else:
            found = [ClusterRecord.from_row(c, columns) for c in clusters]
        sigmas = row["bandwidth"] or [None, None]
        ends = row["eigenvalues_first"], row["eigenvalues_second"]
        return cls(
            **_shared(row),
            bandwidth=dict(zip(columns, sigmas, strict=True)),
            coverage=dict(zip(columns, row["coverage"], strict=True)),
            map_error=row["map_error"],
            spec_diff=row["spec_diff"],
            spec_diff_centered=row["spec_diff_centered"],
            cka=row["cka"],
            eigenvalues=dict(zip(columns, ends, strict=True)),
            clusters=tuple(found),
            rejected=tuple(RejectedRecord(**r) for r in details.get("rejected", ())),
            **{name: _later(details[name]) for name in _LATER_FIELDS if name in details},
        )


def _later(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@dataclass(frozen=True, kw_only=True)
class ModelsRecord(RunRecord):
    """A comparison of any number of embeddings on one state; `written` are the result columns of all pairs.

    Attributes
    ----------
    bandwidth, coverage
        By column, as of a comparison.
    matrix
        A mapping per pair of columns: ``first``, ``second``, ``spec_diff``, ``spec_diff_centered``, ``cka``,
        ``cka_unbiased``, ``map_error``.
    pairs
        Of the pairs whose clusters were asked for: ``columns``, ``prefix``, and the ``run_id`` of its record.
    references
        The columns as they were asked for, with the stores of those of other ones.
    state_version
        As of a comparison.
    fit
        As of a comparison; standard errors are with the pairs that were asked for.
    """

    kind: ClassVar[str] = "models"

    bandwidth: Mapping[str, float | None]
    coverage: Mapping[str, float]
    matrix: tuple[Mapping[str, Any], ...]
    pairs: tuple[Mapping[str, Any], ...] = ()
    references: tuple[str, ...] = ()
    state_version: int | None = None
    fit: Mapping[str, Any] | None = None

    @property
    def n_scored(self) -> int:
        """Rows that are scored, those among them that have to be skipped."""
        return self.n_rows + self.n_skipped if self.fit is None else int(self.fit["n_scored"])

    def to_json(self) -> dict[str, Any]:
        kernel = self.options["kernel"]
        own = ("fit", "bandwidth", "coverage", "matrix", "pairs", "references", "state_version")
        stages = ("seconds", "written", "warnings")
        return {
            "run_id": self.run_id,
            "table": self.table,
            "columns": list(self.columns),
            "n_rows": self.n_rows,
            "n_skipped": self.n_skipped,
            "kernel": kernel,
            "features": self.options["features"] if kernel == "gaussian" else "exact",
            **{name: json_values(getattr(self, name)) for name in (*own, *stages)},
        }

    def to_row(self) -> dict[str, Any]:
        sigmas = [self.bandwidth[c] for c in self.columns]
        return super().to_row() | {
            "bandwidth": None if None in sigmas else sigmas,
            "coverage": [self.coverage[c] for c in self.columns],
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> ModelsRecord:
        """From a row of the table of runs."""
        details = json.loads(row["details"])
        return cls(
            **_shared(row),
            bandwidth=details["bandwidth"],
            coverage=details["coverage"],
            matrix=tuple(details["matrix"]),
            pairs=tuple(details["pairs"]),
            references=tuple(details["references"]),
            state_version=details.get("state_version"),
            fit=details.get("fit"),
        )


@dataclass(frozen=True, kw_only=True)
class AlignmentRecord(RunRecord):
    """An alignment; `prefix` is the name of its result column.

    Attributes
    ----------
    in_place
        Whether the output stays in the source's space.
    counts
        Rows by use: ``n_train``, ``n_validation``, ``n_test``, ``n_evaluated``.
    chosen
        The name of the map that was written; None where several fidelities were compared.
    better
        Whether it brings the source nearer to the target on test rows.
    maps
        The evaluations, plain values, the source as it is first.
    index_recall
        Recall@10 of the vector index; None without one.
    """

    kind: ClassVar[str] = "align"

    columns: tuple[str, str]
    in_place: bool
    counts: Mapping[str, int]
    chosen: str | None
    better: bool
    maps: tuple[Mapping[str, Any], ...]
    index_recall: float | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "run_id": self.run_id,
            "table": self.table,
            "columns": list(self.columns),
            "column": self.prefix,
            "in_place": self.in_place,
            **self.counts,
            "n_skipped": self.n_skipped,
            "chosen": self.chosen,
            "better": self.better,
            "maps": json_values(self.maps),
            "seconds": json_values(self.seconds),
            "written": list(self.written),
            "index_recall": self.index_recall,
            "scored_version": self.scored_version,
            "warnings": list(self.warnings),
        }

    def to_row(self) -> dict[str, Any]:
        after = next((m for m in self.maps if m["name"] == self.chosen), None)
        return super().to_row() | {"spec_diff": None if after is None else after["spec_diff"]}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> AlignmentRecord:
        """From a row of the table of runs."""
        details = json.loads(row["details"])
        names = ("in_place", "chosen", "better", "index_recall")
        counts = {k: v for k, v in details.items() if k.startswith("n_") and k != "n_skipped"}
        maps = tuple(details["maps"])
        return cls(**_shared(row), **{n: details[n] for n in names}, counts=counts, maps=maps)
