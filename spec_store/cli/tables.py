"""`query`, `runs`, `undo`, `connectors` and `demo`: what is in a store, and taking it back out."""

from __future__ import annotations

import json

import click

from .group import db_option, json_option, main, table_option
from .terminal import echo_rows, echo_table, format_number


@main.command()
@table_option
@click.option("--where", metavar="SQL", help="The rows wanted; all by default.")
@db_option
@click.option("--select", metavar="A,B,…", help="Columns. Default: all but vectors and binary values.")
@click.option("--limit", type=int, help="At most so many rows. Default: 20 as a table, else all.")
@click.option(
    "--format",
    "style",
    type=click.Choice(["table", "json", "csv", "parquet"]),
    default="table",
    show_default=True,
    help="json is one object per line; parquet needs -o.",
)
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Write to a file, not to stdout.")
def query(
    table: str,
    where: str | None,
    db: str | None,
    select: str | None,
    limit: int | None,
    style: str,
    output: str | None,
) -> None:
    """Rows that match a SQL filter over any columns, results included.

    \b
    spec-store query --table images --where "spec_clip_dino_cluster = 0 AND spec_clip_dino_score > 0.8"
    spec-store query --table images --where "array_has(spec_clip_dino_clusters, 3)" --format csv
    """
    from ..workflows.query import query as find

    if style == "parquet" and output is None:
        raise click.UsageError("--format parquet needs -o FILE.")
    shown = 20 if style == "table" and limit is None else limit
    wanted = None if shown is None else shown + (limit is None)
    names = [name.strip() for name in select.split(",")] if select else None
    reader = find(table, where, select=names, limit=wanted, db=db)
    cut = shown if limit is None else None
    more = echo_rows(reader, style, output, cut=cut)
    if more:
        click.echo(f"The first {cut} rows; --limit shows more.", err=True)


@main.command()
@db_option
@click.option("--table", help="Only runs on this table.")
@json_option
def runs(db: str | None, table: str | None, as_json: bool) -> None:
    """Recorded runs, newest first."""
    from ..runs.registry import list_runs

    found = list_runs(db=db, table=table).to_pylist()
    if as_json:
        click.echo(json.dumps(found, indent=2, default=str))
        return
    header = ["run", "kind", "table", "columns", "prefix", "rows", "clusters", "SPEC-diff", "centred"]
    body = [
        [
            *(r["run_id"], r["kind"], r["table"], ",".join(r["columns"]), r["prefix"], f"{r['n_rows']:,}"),
            "-" if r["n_clusters"] is None else str(r["n_clusters"]),
            format_number(r["spec_diff"]),
            format_number(r["spec_diff_centered"]),
        ]
        for r in found
    ]
    echo_table(header, body, right=(5, 6, 7, 8))


@main.command()
@table_option
@db_option
@click.option("--prefix", required=True, help="Of the result columns, as runs shows it.")
def undo(table: str, db: str | None, prefix: str) -> None:
    """Remove result columns that spec-store wrote; nobody else's data is touched."""
    from ..workflows.query import undo as remove

    removed = remove(table, prefix=prefix, db=db)
    click.echo(f"Removed {', '.join(removed)} from {table}.")


@main.command()
@json_option
def connectors(as_json: bool) -> None:
    """Installed connectors: name, package, version, capabilities."""
    import dataclasses

    from ..plugins import installed_connectors

    found = installed_connectors()
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(c) for c in found], indent=2))
        return
    body = [[c.name, c.package, c.version, c.error or ", ".join(c.capabilities)] for c in found]
    echo_table(["name", "package", "version", "capabilities"], body)


@main.command()
@db_option
@click.option("--table", default="images", show_default=True, help="The table to create.")
def demo(db: str | None, table: str) -> None:
    """Make a small real table: images of handwritten digits under two embeddings."""
    from ..demo import create_demo

    n_rows, uri = create_demo(table, db=db)
    click.echo(f"Created table {table} in {uri}: {n_rows:,} images with columns pixels and hog.")
    click.echo(f"Next: spec-store compare --table {table} --cols pixels,hog")
