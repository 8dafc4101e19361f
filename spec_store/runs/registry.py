"""The run registry: ordinary tables beside the annotated ones, a row per run, per cluster, and per artifact.

A run is recorded before its columns are published, and marked as finished once they are. The columns name
their run in their field metadata, so a process that dies in between loses nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from functools import cached_property
from typing import Any, TypeGuard

import pyarrow as pa

from ..connector import Capability, Location, Source
from ..errors import InputError, TableNotFoundError
from ..plugins import get_connector
from ..stores.locate import open_location
from .records import AlignmentRecord, ComparisonRecord, ModelsRecord, RunRecord

__all__ = [
    "ARTIFACTS_TABLE",
    "CLUSTERS_TABLE",
    "LARGEST_STATE",
    "RUNS_TABLE",
    "RUN_FIELDS",
    "Registry",
    "cluster_table",
]

RUNS_TABLE = "spec_store_runs"
CLUSTERS_TABLE = "spec_store_clusters"
ARTIFACTS_TABLE = "spec_store_artifacts"

LARGEST_STATE = 64 << 20
"""Bytes of a state in the table of runs, which is to be read like any table; a larger one is an artifact."""

_PIECE = 64 << 20
# What an artifact in pieces holds begins so; its own bytes never do, as no file format does.
_IN_PIECES = b"spec-store pieces "
_STATE = "state"

_RUNS = pa.schema(
    [
        ("run_id", pa.string()),
        ("created_at", pa.timestamp("us", "UTC")),
        ("kind", pa.string()),
        ("table", pa.string()),
        ("columns", pa.list_(pa.string())),
        ("prefix", pa.string()),
        ("written", pa.list_(pa.string())),
        ("source_version", pa.int64()),
        ("written_version", pa.int64()),
        ("n_rows", pa.int64()),
        ("n_skipped", pa.int64()),
        ("n_clusters", pa.int32()),
        ("spec_diff", pa.float64()),
        ("spec_diff_centered", pa.float64()),
        ("cka", pa.float64()),
        ("bandwidth", pa.list_(pa.float64())),
        ("coverage", pa.list_(pa.float64())),
        ("map_error", pa.float64()),
        ("eigenvalues_first", pa.list_(pa.float64())),
        ("eigenvalues_second", pa.list_(pa.float64())),
        ("options", pa.string()),
        ("details", pa.string()),
        ("seconds", pa.string()),
        ("spec_store_version", pa.string()),
        ("finished", pa.bool_()),
        ("state", pa.large_binary()),
    ]
)
_CLUSTERS = pa.schema(
    [
        ("run_id", pa.string()),
        ("table", pa.string()),
        ("prefix", pa.string()),
        ("cluster", pa.int32()),
        ("side", pa.string()),
        ("strength", pa.float64()),
        ("energy_first", pa.float64()),
        ("energy_second", pa.float64()),
        ("size", pa.int64()),
        ("stability", pa.float64()),
        ("top_rows", pa.list_(pa.string())),
        ("where", pa.string()),
        ("name", pa.string()),
        ("share", pa.float64()),
        ("gap", pa.float64()),
        ("capture_first", pa.float64()),
        ("capture_second", pa.float64()),
        ("contrast_first", pa.float64()),
        ("contrast_second", pa.float64()),
        ("cohesion_first", pa.float64()),
        ("cohesion_second", pa.float64()),
        ("seen_by_other", pa.string()),
        ("details", pa.string()),
    ]
)
_ARTIFACTS = pa.schema(
    [
        ("run_id", pa.string()),
        ("name", pa.string()),
        ("created_at", pa.timestamp("us", "UTC")),
        ("data", pa.large_binary()),
    ]
)
RUN_FIELDS = tuple(f for f in _RUNS if f.name != "state")
"""The fields of the table of runs, without states."""

_TABLES = {RUNS_TABLE: _RUNS, CLUSTERS_TABLE: _CLUSTERS, ARTIFACTS_TABLE: _ARTIFACTS}


def cluster_table(run: ComparisonRecord) -> pa.Table:
    """A run's clusters as rows of the table of clusters."""
    own = {"run_id": run.run_id, "table": run.table, "prefix": run.prefix}
    return pa.Table.from_pylist([{**own, **c.to_row(run.columns)} for c in run.clusters], schema=_CLUSTERS)


class Registry:
    """The runs of one database.

    Parameters
    ----------
    location
        The database; one whose connector can't append to tables has no registry.
    """

    def __init__(self, location: Location) -> None:
        self.location = location

    @classmethod
    def of(cls, location: Location | None) -> Registry | None:
        """The registry at a location; None where the connector keeps none."""
        if location is None or Capability.APPEND not in get_connector(location.connector).capabilities:
            return None
        return cls(location)

    def check(self) -> None:
        """Refuse, before any work, tables of these names that runs can't be appended to.

        Tables of an older version are brought up to date when they are next appended to. Raises InputError
        for those of a newer one, or of somebody else.
        """
        for name, schema in _TABLES.items():
            source = self._open(name)
            if source is None:
                continue
            unknown = [f.name for f in source.schema if f.name not in schema.names]
            wrong = [f.name for f in source.schema if f.name not in unknown and not _alike(f, schema)]
            if unknown or wrong or "run_id" not in source.schema.names:
                raise InputError(
                    f"Table {name!r} in {self.location} is not a run registry that this version of spec-store"
                    f" knows ({', '.join(unknown + wrong) or 'run_id'}): a newer version made it, or somebody"
                    " else. Upgrade spec-store, or rename that table."
                )

    def start(self, run: RunRecord, state: bytes | None) -> None:
        """Record a run whose columns are about to be published.

        Parameters
        ----------
        state
            What it keeps, see `state`.
        """
        if _is_large(state):
            self.put_artifact(run.run_id, _STATE, state)
        self._put(replace(run, finished=False), state)

    def finish(self, run: RunRecord, state: bytes | None) -> None:
        """Record that a run's columns are published, and its clusters."""
        if isinstance(run, ComparisonRecord):
            self._append(CLUSTERS_TABLE, cluster_table(run))
        self._put(replace(run, finished=True), state)

    def renew(self, run: RunRecord, state: bytes | None) -> None:
        """Record what an update made of a finished run: its figures, its clusters, and its state."""
        if _is_large(state):
            self.put_artifact(run.run_id, _STATE, state)
        self.finish(run, state)

    def _put(self, run: RunRecord, state: bytes | None) -> None:
        row = {**run.to_row(), "state": None if _is_large(state) else state}
        self._append(RUNS_TABLE, pa.Table.from_pylist([row], schema=_RUNS), key="run_id")

    def _append(self, table: str, rows: pa.Table, *, key: str | None = None) -> None:
        options = dict(self.location.storage_options) or None
        self._connector.append(self.location.uri, table, rows, key=key, options=options)

    def rows(self, fields: Iterable[str] | None = None) -> list[dict[str, Any]]:
        """The table of runs, a row per run, newest first; none where there is no table.

        Parameters
        ----------
        fields
            Those wanted beside ``run_id`` and ``created_at``: nothing else is read. None is `RUN_FIELDS`.
        """
        names = [f.name for f in RUN_FIELDS] if fields is None else fields
        found = self._read(RUNS_TABLE, list(dict.fromkeys(["created_at", *names])))
        return sorted(found, key=lambda row: (row["created_at"], row["run_id"]), reverse=True)

    def comparisons(self, run_ids: Iterable[str]) -> list[ComparisonRecord]:
        """Recorded comparisons, newest first; ids of others and unknown ones are passed over."""
        wanted = set(run_ids)
        rows = [r for r in self.rows() if r["kind"] == "compare" and r["run_id"] in wanted]
        if not rows:
            return []
        found = self._read(CLUSTERS_TABLE, _CLUSTERS.names, run_ids=[row["run_id"] for row in rows])
        clusters: dict[str, dict[int, dict[str, Any]]] = {row["run_id"]: {} for row in rows}
        for row in found:  # a process that died between the two tables left them to be appended again
            clusters[row["run_id"]][row["cluster"]] = row
        return [ComparisonRecord.from_rows(row, list(clusters[row["run_id"]].values())) for row in rows]

    def alignments(self, run_ids: Iterable[str] | None = None) -> list[AlignmentRecord]:
        """Recorded alignments, newest first."""
        wanted = None if run_ids is None else set(run_ids)
        rows = [r for r in self.rows() if r["kind"] == "align"]
        return [AlignmentRecord.from_row(r) for r in rows if wanted is None or r["run_id"] in wanted]

    def run(self, run_id: str) -> RunRecord:
        """A recorded run of any kind. Raises InputError, with the newest ones, for an unknown id."""
        rows = self.rows()
        for row in rows:
            if row["run_id"] == run_id and row["kind"] == "align":
                return AlignmentRecord.from_row(row)
            if row["run_id"] == run_id and row["kind"] == "models":
                return ModelsRecord.from_row(row)
            if row["run_id"] == run_id:
                return self.comparisons([run_id])[0]
        known = ", ".join(row["run_id"] for row in rows[:5]) or "none"
        raise InputError(
            f"No run {run_id!r} is recorded in {self.location}. The newest are {known}; see spec-store runs."
        )

    def state(self, run_id: str) -> bytes | None:
        """What a run kept: an alignment's map, a comparison's state; None where it is lost.

        Nothing of any other run is read.
        """
        held = next((row["state"] for row in self._read(RUNS_TABLE, ["state"], run_ids=[run_id])), None)
        return self.artifact(run_id, _STATE) if held is None else bytes(held)

    def put_artifact(self, run_id: str, name: str, data: bytes) -> None:
        """Keep what later questions to a run need; of several of one name the last one counts.

        What is large is cut into several rows, under names that begin with the run's id. A writer that dies
        between them leaves the earlier content as it was: two sets of rows take turns.
        """
        if len(data) > _PIECE:
            data = self._put_pieces(run_id, name, data)
        self._append(ARTIFACTS_TABLE, _artifact(run_id, name, data))

    def _put_pieces(self, run_id: str, name: str, data: bytes) -> bytes:
        """Store the content, and return what stands for it."""
        before = self._artifact_row(run_id, name) or b""
        turn = "b" if before.startswith(_IN_PIECES) and _pieces(before)["turn"] == "a" else "a"
        starts = range(0, len(data), _PIECE)
        for i, start in enumerate(starts):
            piece = _artifact(run_id, _piece(run_id, name, turn, i), data[start : start + _PIECE])
            self._append(ARTIFACTS_TABLE, piece, key="name")
        digest = hashlib.blake2b(data, digest_size=16).hexdigest()
        return _IN_PIECES + json.dumps({"turn": turn, "n": len(starts), "digest": digest}).encode()

    def artifact(self, run_id: str, name: str) -> bytes | None:
        """What was kept under a name with a run; None for nothing. Nothing of any other run is read."""
        data = self._artifact_row(run_id, name)
        if data is None or not data.startswith(_IN_PIECES):
            return data
        about = _pieces(data)
        pieces = (
            self._artifact_row(run_id, _piece(run_id, name, about["turn"], i)) for i in range(about["n"])
        )
        whole = b"".join(piece or b"" for piece in pieces)
        return whole if hashlib.blake2b(whole, digest_size=16).hexdigest() == about["digest"] else None

    def _artifact_row(self, run_id: str, name: str) -> bytes | None:
        wanted = {"run_id": run_id, "name": name}
        rows = self._read(ARTIFACTS_TABLE, ["name", "data"], equal=wanted)
        return bytes(rows[-1]["data"]) if rows else None

    @cached_property
    def _connector(self) -> Any:
        return get_connector(self.location.connector)

    def _open(self, table: str) -> Source | None:
        try:
            return open_location(self.location, table)
        except TableNotFoundError:
            return None

    def _read(
        self,
        table: str,
        columns: Sequence[str],
        *,
        run_ids: Sequence[str] | None = None,
        equal: Mapping[str, str] | None = None,
    ) -> list[dict[str, Any]]:
        """Rows in the order in which they were appended; columns that the table lacks are None.

        Parameters
        ----------
        run_ids
            Only rows of these runs.
        equal
            Only rows that hold these values.
        """
        wanted = {name: [value] for name, value in (equal or {}).items()}
        if run_ids is not None:
            wanted["run_id"] = list(run_ids)
        source = self._open(table)
        if source is None:
            return []
        held = [c for c in dict.fromkeys(["run_id", *columns]) if c in source.schema.names]
        if not set(wanted) <= set(source.schema.names):
            return []  # somebody else's table, see `check`
        where = None
        if wanted and Capability.WHERE in self._connector.capabilities:
            where = " AND ".join(
                f"{name} IN ({', '.join(map(_literal, values))})" for name, values in wanted.items()
            )
        rows: list[dict[str, Any]] = []
        for batch in source.batches(held, where=where, batch_rows=1024):
            rows += batch.select(held).to_pylist()
        absent = dict.fromkeys(c for c in columns if c not in held)
        return [{**row, **absent} for row in rows if all(row[n] in values for n, values in wanted.items())]


def _is_large(state: bytes | None) -> TypeGuard[bytes]:
    return state is not None and len(state) > LARGEST_STATE


def _artifact(run_id: str, name: str, data: bytes) -> pa.Table:
    row = {"run_id": run_id, "name": name, "created_at": datetime.now(timezone.utc), "data": data}
    return pa.Table.from_pylist([row], schema=_ARTIFACTS)


def _piece(run_id: str, name: str, turn: str, i: int) -> str:
    return f"{run_id} {name} {turn}{i}"


def _pieces(data: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(data.removeprefix(_IN_PIECES))
    return found


def _alike(field: pa.Field, schema: pa.Schema) -> bool:
    """Whether a stored column is of our type, as far as a store tells time zones and string widths apart."""
    return bool(field.type.equals(schema.field(field.name).type))


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
