"""The run registry: two ordinary tables beside the annotated one, and provenance in field metadata."""

from __future__ import annotations

import io
import json
import secrets
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.metadata import version as installed_version
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from ..connector import Capability, find_field
from ..errors import InputError, TableNotFoundError
from ..plugins import get_connector
from ..stores.locate import DEFAULT_CONNECTOR, default_db

if TYPE_CHECKING:
    from ..workflows.align import Alignment
    from ..workflows.compare import Comparison

__all__ = ["CLUSTERS_TABLE", "RUNS_TABLE", "cluster_table", "latest_run", "list_runs"]

RUNS_TABLE = "spec_store_runs"
CLUSTERS_TABLE = "spec_store_clusters"

# A larger state is not stored with its run: a registry is to be read like any table.
_LARGEST_STATE = 256 << 20

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
    ]
)


def new_run_id() -> str:
    """Unique, and sorted by time: ``20260131T120000-5f3a2b``."""
    return f"{datetime.now(timezone.utc):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


def provenance(run: Comparison) -> dict[str, str]:
    """What every result column's field metadata says about where it came from."""
    return {
        "spec_store.run": run.run_id,
        "spec_store.version": installed_version("spec-store"),
        "spec_store.columns": json.dumps(run.columns),
        "spec_store.source_version": str(run.source.version),
        "spec_store.options": json.dumps(run.options.to_json()),
    }


def cluster_table(run: Comparison) -> pa.Table:
    """A run's clusters in the registry's schema."""
    sizes = run.tally.sizes.tolist() if run.tally else [None] * len(run.clusters_found)
    rows = [
        {
            "run_id": run.run_id,
            "table": run.table,
            "prefix": run.prefix,
            "cluster": i,
            "side": run.columns[c.end],
            "strength": c.strength,
            "energy_first": c.energy[0],
            "energy_second": c.energy[1],
            "size": sizes[i],
            "stability": c.stability,
            "top_rows": [str(key) for key in run.tally.top_rows(i)] if run.tally else None,
            "where": f"array_has({run.prefix}_clusters, {i})",
        }
        for i, c in enumerate(run.clusters_found)
    ]
    return pa.Table.from_pylist(rows, schema=_CLUSTERS)


def record(run: Comparison) -> bool:
    """Append a written run and its clusters to the registry beside its results; whether there is one."""
    to = run.destination
    name, uri = (run.source.connector, run.source.uri) if to is None else (to.connector, to.uri)
    if name is None or Capability.APPEND not in get_connector(name).capabilities:
        run.warnings.append(
            "the run is not recorded, since the results are not in a database with a registry: this output is"
            " all there is to tell of its clusters."
        )
        return False
    registry = get_connector(name)
    size = 8 * run.state.halves * run.state.n_columns**2 // 2
    row = {
        "run_id": run.run_id,
        "created_at": datetime.now(timezone.utc),
        "kind": "compare",
        "table": run.table,
        "columns": list(run.columns),
        "prefix": run.prefix,
        "written": run.written,
        "source_version": run.source.version,
        "written_version": run.published.version if run.published else None,
        "n_rows": run.n_rows,
        "n_skipped": run.n_skipped,
        "n_clusters": len(run.clusters_found),
        "spec_diff": run.spectrum.spec_diff,
        "spec_diff_centered": run.spectrum.spec_diff_centered,
        "cka": run.spectrum.cka,
        "bandwidth": list(run.bandwidths.values) if run.bandwidths else None,
        "coverage": list(run.spectrum.coverage),
        "map_error": run.map_error,
        "eigenvalues_first": run.eigenvalues[run.columns[0]],
        "eigenvalues_second": run.eigenvalues[run.columns[1]],
        "options": json.dumps(run.options.to_json()),
        "details": None,
        "seconds": json.dumps(run.seconds),
        "spec_store_version": installed_version("spec-store"),
        "state": run.state.to_bytes() if size <= _LARGEST_STATE else None,
    }
    registry.append(uri, CLUSTERS_TABLE, cluster_table(run))
    registry.append(uri, RUNS_TABLE, pa.Table.from_pylist([row], schema=_RUNS))
    return True


def record_alignment(run: Alignment) -> bool:
    """Append a written alignment, its judgements and its map to the registry; whether there is one."""
    name = run.source.connector
    if name is None or Capability.APPEND not in get_connector(name).capabilities:
        run.warnings.append("the run is not recorded: keep the map with --export.")
        return False
    row = {
        "run_id": run.run_id,
        "created_at": datetime.now(timezone.utc),
        "kind": "align",
        "table": run.source.table,
        "columns": list(run.columns),
        "prefix": run.column,
        "written": run.written,
        "source_version": run.source.version,
        "written_version": run.published.version if run.published else None,
        "n_rows": run.n_usable,
        "n_skipped": run.n_skipped,
        "spec_diff": run.after.spec_diff,
        "options": json.dumps(run.options.to_json()),
        "details": json.dumps(run.to_json()),
        "seconds": json.dumps(run.seconds),
        "spec_store_version": installed_version("spec-store"),
        "state": run.map.to_bytes(),
    }
    table = pa.Table.from_pylist([row], schema=_RUNS)
    get_connector(name).append(run.source.uri, RUNS_TABLE, table)
    return True


def recorded_map(
    table: str, columns: tuple[str, str], *, db: str | None = None, connector: str = DEFAULT_CONNECTOR
) -> tuple[str, io.BytesIO]:
    """The newest recorded map from one column of a table to another: its run, and what `load_map` reads.

    Raises InputError where there is none.
    """
    for run in _newest_first("align", table, ["state"], db, connector):
        if tuple(run["columns"]) == columns:
            return run["run_id"], io.BytesIO(run["state"])
    raise InputError(
        f"No alignment of {columns[0]!r} to {columns[1]!r} is recorded for table {table!r}. Run"
        " spec-store align, or give --map FILE, or --no-map to judge a switch without any."
    )


def recorded_alignments(
    table: str, *, db: str | None = None, connector: str = DEFAULT_CONNECTOR
) -> list[dict[str, Any]]:
    """The newest alignment of each result column, with its map in `state`, oldest column first."""
    by_column: dict[str, dict[str, Any]] = {}
    for run in _newest_first("align", table, ["prefix", "options", "state"], db, connector):
        by_column.setdefault(run["prefix"], run)
    return list(by_column.values())[::-1]


def recorded_clusters(
    table: str, columns: tuple[str, str], *, db: str | None = None, connector: str = DEFAULT_CONNECTOR
) -> list[dict[str, Any]]:
    """The clusters of the newest recorded comparison of two columns, either way round; none without one."""
    found = _newest_first("compare", table, [], db, connector)
    newest = next((run for run in found if set(run["columns"]) == set(columns)), None)
    if newest is None:
        return []
    clusters = _registry(CLUSTERS_TABLE, _CLUSTERS.names, db, connector)
    rows = clusters.filter(pc.equal(clusters["run_id"], newest["run_id"])).sort_by("cluster").to_pylist()
    return [dict(row) for row in rows]


def _newest_first(
    kind: str, table: str, more: list[str], db: str | None, connector: str
) -> list[dict[str, Any]]:
    """A table's runs of a kind; none where there is no registry."""
    names = ["run_id", "created_at", "kind", "table", "columns", *more]
    try:
        found = _registry(RUNS_TABLE, names, db, connector)
    except TableNotFoundError:
        return []
    rows = found.filter(pc.and_(pc.equal(found["kind"], kind), pc.equal(found["table"], table)))
    return [dict(row) for row in rows.sort_by([("created_at", "descending")]).to_pylist()]


def comparison_json(run: Comparison) -> dict[str, Any]:
    """The contract of ``compare --json``."""
    clusters = [
        {
            "cluster": row["cluster"],
            "side": row["side"],
            "strength": row["strength"],
            "energy": dict(zip(run.columns, (row["energy_first"], row["energy_second"]), strict=True)),
            "size": row["size"],
            "stability": None if row["stability"] != row["stability"] else row["stability"],
            "where": row["where"],
        }
        for row in cluster_table(run).to_pylist()
    ]
    sigmas = run.bandwidths.values if run.bandwidths else (None, None)
    return {
        "run_id": run.run_id,
        "table": run.table,
        "columns": list(run.columns),
        "n_rows": run.n_rows,
        "n_skipped": run.n_skipped,
        "kernel": run.options.kernel,
        "features": run.options.features if run.options.kernel == "gaussian" else "exact",
        "bandwidth": dict(zip(run.columns, sigmas, strict=True)),
        "coverage": dict(zip(run.columns, run.spectrum.coverage, strict=True)),
        "map_error": run.map_error,
        "spec_diff": run.spectrum.spec_diff,
        "spec_diff_centered": run.spectrum.spec_diff_centered,
        "cka": None if run.spectrum.cka != run.spectrum.cka else run.spectrum.cka,
        "eigenvalues": run.eigenvalues,
        "clusters": clusters,
        "seconds": run.seconds,
        "written": run.written,
        "warnings": run.warnings,
    }


def list_runs(
    *, db: str | None = None, table: str | None = None, connector: str = DEFAULT_CONNECTOR
) -> pa.Table:
    """Recorded runs, newest first, without their states.

    Raises TableNotFoundError where the database has no registry yet.
    """
    columns = [name for name in _RUNS.names if name != "state"]
    rows = _registry(RUNS_TABLE, columns, db, connector)
    if table is not None:
        rows = rows.filter(pc.equal(rows["table"], table))
    return rows.sort_by([("created_at", "descending"), ("run_id", "descending")])


def latest_run(
    table: str, *, prefix: str | None = None, db: str | None = None, connector: str = DEFAULT_CONNECTOR
) -> tuple[Mapping[str, Any], pa.Table, tuple[str, ...]]:
    """The newest comparison of a table (with this prefix), its clusters, and the other prefixes.

    Raises
    ------
    InputError
        There is none; names the prefixes that there are.
    """
    runs = list_runs(db=db, table=table, connector=connector).to_pylist()
    runs = [r for r in runs if r["kind"] == "compare"]
    known = sorted({r["prefix"] for r in runs})
    chosen = [r for r in runs if prefix in (None, r["prefix"])]
    if not chosen:
        there = f" There are runs with prefix {', '.join(known)}." if known else ""
        raise InputError(
            f"No comparison of table {table!r}{f' with prefix {prefix!r}' if prefix else ''} is recorded."
            f"{there or ' Run spec-store compare first.'}"
        )
    run = chosen[0]
    clusters = _registry(CLUSTERS_TABLE, _CLUSTERS.names, db, connector)
    clusters = clusters.filter(pc.equal(clusters["run_id"], run["run_id"]))
    return run, clusters.sort_by("cluster"), tuple(p for p in known if p != run["prefix"])


def _registry(name: str, columns: list[str], db: str | None, connector: str) -> pa.Table:
    uri = default_db() if db is None else db
    try:
        source = get_connector(connector).open(uri, table=name)
    except TableNotFoundError as error:
        raise TableNotFoundError(
            f"No run is recorded in {uri}: it has no table {name!r}. Run spec-store compare first."
        ) from error
    for column in columns:
        find_field(source, column)
    return pa.Table.from_batches(
        [batch.select(columns) for batch in source.batches(columns)],
        schema=pa.schema([source.schema.field(c) for c in columns]),
    )
