"""`report`: a comparison as one page to look at and to send."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .group import main
from .help import headed
from .options import location_options, seed_option, table_option
from .terminal import echo, shown_progress

if TYPE_CHECKING:
    from ..connector import Location


@main.command()
@headed(
    "Data",
    table_option,
    click.option("--prefix", help="Prefix of the result columns. Default: that of the newest comparison."),
)
@headed("Database", location_options)
@headed(
    "Output",
    click.option(
        "-o",
        "--output",
        required=True,
        type=click.Path(dir_okay=False),
        help="The HTML file to write. It appears once it is complete; only a plain file is replaced.",
    ),
)
@headed(
    "What to show",
    click.option(
        "--show",
        metavar="A,B,…",
        help="Columns to show with rows: pictures (image bytes or paths), texts, any others. Pictures at"
        " paths on this machine are read; URLs are shown and never fetched. Default: the first column of"
        " pictures and a few others.",
    ),
    click.option(
        "--clusters",
        type=int,
        default=30,
        show_default=True,
        help="Number of clusters that get a card of their own, the strongest first.",
    ),
    click.option(
        "--rows",
        type=int,
        default=6,
        show_default=True,
        help="Number of rows of each kind in a card: typical, at random, just outside.",
    ),
    click.option(
        "--projection",
        type=click.Choice(["tsne", "pca"]),
        default="tsne",
        show_default=True,
        help="How vectors become places on the maps. pca takes no time.",
    ),
    click.option(
        "--sample-rows",
        type=int,
        default=2000,
        show_default=True,
        help="Number of rows on the maps, a uniform sample; neighbours are looked for among them.",
    ),
    seed_option,
)
def report(
    table: str, prefix: str | None, db: Location, output: str, show: str | None, **fields: Any
) -> None:
    """Write a comparison as one HTML page: rows, maps and figures, to look at offline and to send.

    \b
    spec-store report --table images -o report.html
    spec-store report --table images -o report.html --show image,caption
    """
    from ..reporting.options import ReportOptions
    from ..stores.references import split_columns
    from ..workflows.report import report as write

    columns = tuple(split_columns(show)) if show is not None else ()
    with shown_progress() as progress:
        path = write(
            table,
            output,
            prefix=prefix,
            db=db,
            progress=progress,
            options=ReportOptions(show=columns, **fields),
        )
    size = path.stat().st_size / 1e6
    echo(f"Wrote {path} ({size:.1f} MB): open it in a browser; it needs no network.")
