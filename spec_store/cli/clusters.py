"""`clusters`: what the clusters of a table are, one in full, and rows of each."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from ..reporting.findings import WIDTH, families, finding, summary_lines, wrapped
from .cluster_text import full_lines, labels_text, overview, reading_lines, rejected_values
from .group import main
from .help import headed, next_command
from .options import json_option, location_options, seed_option, table_option
from .rows import readable, write_rows
from .terminal import echo, echo_json, echo_table
from .text import aligned

if TYPE_CHECKING:
    from ..connector import Location
    from ..runs.clusters import ClusterRecord
    from ..runs.records import ComparisonRecord
    from ..workflows.members import Members
    from ..workflows.query import ClusterReport

# Of the table of clusters: what names its rows there, and what is not a plain value.
_NOT_PLAIN = ("run_id", "table", "prefix", "details")


@main.command()
@headed(
    "Data",
    table_option,
    click.option("--prefix", help="Prefix of the result columns. Default: that of the newest comparison."),
)
@headed("Database", location_options)
@headed(
    "What to show",
    click.option("--cluster", "number", type=int, metavar="N", help="Show this cluster in full."),
    click.option("--all", "show_all", is_flag=True, help="Also list candidates that were not confirmed."),
    click.option(
        "--by", metavar="COLUMN", help="Column of labels: show which are over-represented in each cluster."
    ),
    click.option(
        "--show",
        metavar="A,B,…",
        help="Show these columns of rows of each cluster: of the most typical ones, and of others at random.",
    ),
    click.option(
        "--rows",
        "n_rows",
        type=int,
        default=5,
        show_default=True,
        help="Number of rows of each kind for --show.",
    ),
    seed_option,
)
@headed(
    "Output",
    click.option(
        "--format",
        "style",
        type=click.Choice(["table", "json", "csv"]),
        help="Format of the output. Default: table. csv is a line for each cluster.",
    ),
    json_option,
)
def clusters(
    table: str,
    db: Location,
    prefix: str | None,
    number: int | None,
    show_all: bool,
    by: str | None,
    show: str | None,
    n_rows: int,
    seed: int,
    style: str | None,
    as_json: bool,
) -> None:
    """Describe each cluster: which embedding groups it, how the other sees it, and what it consists of.

    \b
    spec-store clusters --table images
    spec-store clusters --table images --by label
    spec-store clusters --table images --cluster 3
    spec-store clusters --table images --show name,label
    """
    from ..stores.references import split_columns
    from ..workflows.members import cluster_of, members
    from ..workflows.query import clusters as find

    style = _style(style, as_json=as_json, show=show)
    if number is not None and show_all:
        raise click.UsageError(
            "--cluster shows one cluster and --all lists candidates too: give one of them."
        )
    if by and show:
        raise click.UsageError("--by describes clusters and --show shows rows: give one of them.")
    report = find(table, prefix=prefix, by=by, db=db)
    run = report.run
    chosen = run.clusters if number is None else (cluster_of(run, number),)
    rows: Mapping[int, Members] = {}
    if show is not None:
        columns = split_columns(show)
        rows = members(table, number, columns=columns, n=n_rows, seed=seed, prefix=run.prefix, db=db)
    if style == "json":
        echo_json(_json(table, report, chosen, rows, show_all=show_all))
    elif style == "csv":
        _write_csv(report, chosen, show_all=show_all)
    elif show is not None:
        _print_rows(run, chosen, rows)
    elif number is not None:
        _print_one(table, run, chosen[0], _labels(report).get(chosen[0].cluster, ()))
    else:
        _print_all(table, report, show_all=show_all)


def _style(style: str | None, *, as_json: bool, show: str | None) -> str:
    if as_json and style not in (None, "json"):
        raise click.UsageError(f"--json contradicts --format {style}.")
    chosen = "json" if as_json else style or "table"
    if show is not None and chosen == "csv":
        raise click.UsageError("--show has no csv: give --format table or json, or use spec-store query.")
    return chosen


def _labels(report: ClusterReport) -> dict[int, list[dict[str, Any]]]:
    """By cluster, the labels that were asked for with --by."""
    rows = report.clusters
    if "labels" not in rows.column_names:
        return {}
    return dict(zip(rows["cluster"].to_pylist(), rows["labels"].to_pylist(), strict=True))


def _json(
    table: str,
    report: ClusterReport,
    chosen: Sequence[ClusterRecord],
    rows: Mapping[int, Members],
    *,
    show_all: bool,
) -> dict[str, Any]:
    wanted = {c.cluster: c.to_json() for c in chosen}
    found = []
    for row in report.clusters.drop_columns(["run_id", "table", "details"]).to_pylist():
        if row["cluster"] not in wanted:
            continue
        shown = rows.get(row["cluster"])
        examples = (
            {}
            if shown is None
            else {"typical": shown.typical.to_pylist(), "at_random": shown.at_random.to_pylist()}
        )
        found.append({**row, **wanted[row["cluster"]], **examples})
    more = {"rejected": [r.to_json() for r in report.run.rejected]} if show_all else {}
    return {"run_id": report.run.run_id, "table": table, "clusters": found, **more}


def _write_csv(report: ClusterReport, chosen: Sequence[ClusterRecord], *, show_all: bool) -> None:
    """A line for each cluster; with --all one for each candidate that was not confirmed, and why."""
    import pyarrow as pa

    wanted = {c.cluster: c for c in chosen}
    labels = _labels(report)
    rows = report.clusters
    names = [f.name for f in rows.schema if not (pa.types.is_list(f.type) or f.name in _NOT_PLAIN)]
    fields = [*(rows.schema.field(name) for name in names), pa.field("family", pa.int32())]
    fields += [pa.field("over_represented", pa.string())] if labels else []
    fields += [pa.field("not_confirmed", pa.string())] if show_all else []
    lines = [row for row in rows.select(names).to_pylist() if row["cluster"] in wanted]
    for line in lines:
        number = line["cluster"]
        line |= {"family": wanted[number].family, "over_represented": labels_text(labels.get(number, ()))}
    if show_all:
        lines += [rejected_values(r, report.run.columns) for r in report.run.rejected]
    schema = pa.schema(fields)
    write_rows(pa.Table.from_pylist(lines, schema=schema).to_reader(), "csv", None, cut=None)


def _print_all(table: str, report: ClusterReport, *, show_all: bool) -> None:
    run = report.run
    a, b = run.columns
    echo(f"{a} against {b}: run {run.run_id} on {run.n_rows:,} rows of {table}")
    rejected = run.rejected if show_all else ()
    if run.clusters or rejected:
        header, body, right = overview(run, rejected, _labels(report) or None)
        echo_table(header, body, right=right)
    for line in reading_lines(run, rejected=bool(rejected)):
        echo(line)
    if run.clusters:
        first = str(families(run.clusters)[0][0].cluster)
        echo(f"Next: {next_command('clusters', table=table, prefix=_given_prefix(), cluster=first)}")
    if report.other_prefixes:
        echo(f"Also compared, see --prefix: {', '.join(report.other_prefixes)}")


def _print_one(
    table: str, run: ComparisonRecord, cluster: ClusterRecord, labels: Sequence[Mapping[str, Any]]
) -> None:
    for line in full_lines(cluster, run):
        echo(line)
    if labels:
        echo(f"Over-represented labels: {labels_text(labels)}")
    echo(f"Next: {next_command('query', table=table, where=cluster.where)}")


def _print_rows(run: ComparisonRecord, chosen: Sequence[ClusterRecord], rows: Mapping[int, Members]) -> None:
    width = shutil.get_terminal_size((WIDTH, 24)).columns
    if not chosen:
        echo(summary_lines(run)[0])
    ordered = [c for family in families(chosen) for c in family]
    for i, cluster in enumerate(ordered):
        if i:
            echo("")
        for line in wrapped(f"{cluster.cluster}  {finding(cluster, run.columns)}", indent=3, width=width):
            echo(line)
        shown = rows[cluster.cluster]
        header = ["", *shown.typical.column_names]
        body = [
            [kind, *map(readable, row.values())]
            for kind, part in (("typical", shown.typical), ("at random", shown.at_random))
            for row in part.to_pylist()
        ]
        for line in aligned([header, *body], width=width):
            echo(line)


def _given_prefix() -> str | None:
    """What --prefix said, for the next command to say again."""
    prefix: str | None = click.get_current_context().params["prefix"]
    return prefix
