"""`query`, `runs`, `undo`, `connectors` and `demo`: what is in a store, and taking it back out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ..reporting.text import format_number
from .group import main
from .help import headed, next_command
from .options import json_option, location_options, table_option
from .rows import FORMATS, chosen_format, write_rows
from .terminal import echo, echo_json, echo_table, print_warnings

if TYPE_CHECKING:
    from ..connector import Location


@main.command()
@headed(
    "Data",
    table_option,
    click.option("--where", metavar="SQL", help="SQL filter of the rows. Default: all rows."),
    click.option(
        "--select", metavar="A,B,…", help="Columns to show. Default: all but vectors and binary values."
    ),
    click.option(
        "--order-by",
        metavar="A,B,…",
        help="Columns to order rows by, each with asc or desc after it if need be: 'score desc, id'. Nulls"
        " come last. Unless they are limited, at most 1,000,000 rows can be ordered.",
    ),
    click.option("--desc", is_flag=True, help="Order by falling values, where no direction is given."),
    click.option("--limit", type=int, help="Maximum number of rows. Default: 20 for a table, else all."),
)
@headed("Database", location_options)
@headed(
    "Output",
    click.option(
        "-o",
        "--output",
        type=click.Path(dir_okay=False, allow_dash=True),
        help="File to write (.csv .tsv .json .jsonl .ndjson .parquet .arrow .feather); - is stdout. A pipe or"
        " device is written to; a file appears once it is complete.",
    ),
    click.option(
        "--format",
        "style",
        type=click.Choice(FORMATS),
        help="Format of the rows. Default: by the suffix of -o; without -o, a table with rounded numbers and"
        " shortened texts. All others are exact: json is an array of objects, jsonl an object a line; lists"
        " and structs are JSON, times ISO 8601, binary values base64. In CSV null is empty and the empty text"
        ' is ""; in JSON NaN is null.',
    ),
    click.option(
        "--excel-safe",
        is_flag=True,
        help="Put an apostrophe before text that a spreadsheet would run as a formula (csv and tsv). This"
        " changes the text.",
    ),
)
def query(
    table: str,
    where: str | None,
    db: Location,
    select: str | None,
    order_by: str | None,
    desc: bool,
    limit: int | None,
    style: str | None,
    output: str | None,
    excel_safe: bool,
) -> None:
    """Print the rows that match a SQL filter over any columns, results included.

    \b
    spec-store query --table images --where "spec_clip_dino_cluster = 0 AND spec_clip_dino_score > 0.8"
    spec-store query --table images --where "array_has(spec_clip_dino_clusters, 3)" -o rows.csv
    spec-store query --table images --order-by spec_clip_dino_score --desc --limit 5
    """
    from ..stores.references import split_columns
    from ..workflows.query import query as find

    if desc and order_by is None:
        raise click.UsageError("--desc is the direction of --order-by: give that too.")
    chosen = chosen_format(output, style, excel_safe=excel_safe)
    cut = 20 if chosen == "table" and limit is None else None
    names = [name.strip() for name in select.split(",")] if select is not None else None
    reader = find(
        table,
        where,
        select=names,
        order_by=None if order_by is None else split_columns(order_by),
        descending=desc,
        limit=limit if cut is None else cut + 1,
        db=db,
    )
    if write_rows(reader, chosen, output, cut=cut, excel_safe=excel_safe):
        echo(f"The first {cut} rows; --limit shows more.", err=True)


@main.command()
@location_options
@click.option("--table", help="List only runs on this table.")
@json_option
def runs(db: Location, table: str | None, as_json: bool) -> None:
    """List recorded runs, newest first."""
    from ..workflows.query import list_runs

    if as_json:
        echo_json(list_runs(db=db, table=table).to_pylist())
        return
    shown = {
        "run_id": "run",
        "kind": "kind",
        "table": "table",
        "columns": "columns",
        "prefix": "prefix",
        "n_rows": "rows",
        "n_clusters": "clusters",
        "spec_diff": "SPEC-diff",
        "status": "status",
    }
    found = list_runs(db=db, table=table, columns=list(shown)).to_pylist()
    body = [
        [
            *(r["run_id"], r["kind"], r["table"], ",".join(r["columns"]), r["prefix"], f"{r['n_rows']:,}"),
            "-" if r["n_clusters"] is None else str(r["n_clusters"]),
            format_number(r["spec_diff"]),
            r["status"],
        ]
        for r in found
    ]
    echo_table(list(shown.values()), body, right=(5, 6, 7))


@main.command()
@table_option
@location_options
@click.option("--prefix", required=True, help="Prefix of the result columns, as spec-store runs shows it.")
def undo(table: str, db: Location, prefix: str) -> None:
    """Remove result columns that spec-store wrote, and nothing else."""
    from ..workflows.query import undo as remove

    removed = remove(table, prefix=prefix, db=db)
    echo(f"Removed {', '.join(removed)} from {table}.")


@main.command()
@json_option
def connectors(as_json: bool) -> None:
    """List installed connectors: name, package, version, capabilities."""
    import dataclasses
    import warnings

    from ..plugins import installed_connectors

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = installed_connectors()
    print_warnings([str(w.message) for w in caught])
    if as_json:
        echo_json([dataclasses.asdict(c) for c in found])
        return
    body = [[c.name, c.package, c.version, c.error or ", ".join(c.capabilities)] for c in found]
    echo_table(["name", "package", "version", "capabilities"], body)


@main.command()
@location_options
@click.option("--table", default="images", show_default=True, help="The table to create.")
def demo(db: Location, table: str) -> None:
    """Make a small real table: images of handwritten digits under two embeddings."""
    from ..demo import create_demo

    n_rows, uri = create_demo(table, db=db)
    echo(f"Created table {table} in {uri}: {n_rows:,} images with columns pixels and hog.")
    echo(f"Next: {next_command('compare', table=table, cols='pixels,hog')}")
