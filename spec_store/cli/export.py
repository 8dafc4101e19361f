"""`export`: an annotated sample for other viewers of embeddings."""

from __future__ import annotations

import dataclasses
import shlex
from typing import TYPE_CHECKING, Any

import click

from .group import main
from .help import headed
from .options import json_option, location_options, seed_option, table_option
from .terminal import echo, echo_json, print_warnings, shown_progress

if TYPE_CHECKING:
    from ..connector import Location


@main.command()
@headed(
    "Data",
    table_option,
    click.option(
        "-o", "--output", "out", required=True, metavar="FILE.parquet", help="Parquet file to write."
    ),
    click.option(
        "--columns",
        metavar="A,B,…",
        help="Columns of the table to export. Default: all of text, numbers, booleans and times.",
    ),
    click.option("--prefix", help="Prefix of the result columns. Default: that of the newest comparison."),
)
@headed("Database", location_options)
@headed(
    "Sample",
    click.option("--rows", type=int, default=5000, show_default=True, help="Maximum number of sampled rows."),
    click.option(
        "--projection",
        type=click.Choice(["tsne", "pca", "none"]),
        default="tsne",
        show_default=True,
        help="How the picture of each embedding is made, columns …_x and …_y; tsne and pca need"
        " scikit-learn.",
    ),
    seed_option,
)
@headed("Output", json_option)
def export(table: str, out: str, columns: str | None, db: Location, as_json: bool, **options: Any) -> None:
    """Write a sample of rows with their clusters and a picture of each embedding, for other viewers.

    \b
    spec-store export --table images -o sample.parquet
    spec-store export --table images -o sample.parquet --columns id,label --rows 2000 --projection pca
    """
    from ..stores.references import split_columns
    from ..workflows.export import export as write

    names = None if columns is None else split_columns(columns)
    with shown_progress() as progress:
        found = write(table, out, columns=names, db=db, progress=progress, **options)
    print_warnings(found.warnings)
    if as_json:
        echo_json(dataclasses.asdict(found))
        return
    echo(f"Wrote {found.n_rows:,} rows and {len(found.columns)} columns: {found.path}")
    for x, y in found.projections.values():
        echo(f"Next: {shlex.join(['embedding-atlas', found.path, '--x', x, '--y', y])}")
