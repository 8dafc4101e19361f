"""`gate`: what a searcher finds after a switch of models, and which rows to re-embed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from ..errors import InputError
from .group import main
from .help import headed
from .options import json_option, location_options, on_missing_option, table_option
from .terminal import echo_json, print_warnings, shown_progress

if TYPE_CHECKING:
    from ..connector import Location


class _Budget(click.ParamType):  # type: ignore[type-arg]  # generic only in the newest click
    """A number of rows, or a percentage of them."""

    name = "ROWS|PERCENT%"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        from ..workflows.plan import budget_rows

        try:
            budget_rows(value, 0)
        except InputError as error:
            self.fail(str(error), param, ctx)
        return value


@main.command()
@headed(
    "Data",
    table_option,
    click.option("--source", required=True, help="The column in use now."),
    click.option("--target", required=True, help="The column to switch to."),
    click.option(
        "--key",
        metavar="COLUMN",
        help="The column that identifies rows. Default: the key of the recorded alignment.",
    ),
    on_missing_option,
    click.option(
        "--map",
        "map_file",
        type=click.Path(dir_okay=False),
        help="Exported map. Default: the newest recorded.",
    ),
    click.option(
        "--no-map", is_flag=True, help="Evaluate the switch without a map: old queries in old rows."
    ),
)
@headed("Database", location_options)
@headed(
    "Verdict",
    click.option(
        "--fail-under",
        type=float,
        default=0.8,
        show_default=True,
        help="Least search overlap@k: of the k rows that full re-embedding would give a searcher, the share"
        " that must be found. A slice fails where its whole 95% interval is under it. Ask what share of the"
        " right answers must survive the switch: 0.8 loses two rows of ten. Maps between unrelated models"
        " reach 0.4 to 0.75.",
    ),
    click.option(
        "--slice",
        "slices",
        multiple=True,
        metavar="SQL",
        help="Filter of rows to evaluate beside the clusters; may be repeated.",
    ),
    click.option(
        "--min-rows",
        type=int,
        default=50,
        show_default=True,
        help="Least number of rows of a slice that can fail.",
    ),
    click.option("--k", type=int, default=10, show_default=True, help="Number of rows that a search gives."),
    click.option(
        "--judged-rows",
        type=int,
        default=20_000,
        show_default=True,
        help="Number of sampled rows that are searched, or all of a smaller table. The more rows are"
        " searched, the harder it is to find the right ones.",
    ),
    click.option(
        "--query-rows",
        type=int,
        default=2000,
        show_default=True,
        help="Number of test rows that stand in as queries; up to 200 of each slice are added.",
    ),
)
@headed(
    "Whole table",
    click.option(
        "--whole-table",
        is_flag=True,
        help="Search all rows for the test rows that stand in as queries, not a sample alone: exact, in one"
        " pass over the vectors. Slices are evaluated on the sample all the same.",
    ),
    click.option(
        "--queries",
        metavar="FILE|TABLE|CONNECTOR:URI",
        help="Vectors of real queries, to be searched for in the whole table.",
    ),
    click.option(
        "--query-source", metavar="COLUMN", help="Their vectors by the source's model: what is found today."
    ),
    click.option("--query-target", metavar="COLUMN", help="Their vectors by the target's model."),
    click.option(
        "--relevant",
        metavar="COLUMN",
        help="Lists of the keys of each query's relevant rows, for nDCG@k and recall@k against them.",
    ),
    click.option(
        "--cutoff",
        type=float,
        metavar="COSINE",
        help="A similarity cut-off that was tuned on the source; it is moved to the similarities after the"
        " switch.",
    ),
)
@headed(
    "Plan",
    click.option(
        "--budget",
        type=_Budget(),
        help="Rows that may be re-embedded, such as 100000 or 10%: prints the filter of the rows to re-embed"
        " first. Slices that are larger than what is left of it are skipped.",
    ),
)
@headed(
    "Results",
    click.option("--all", "show_all", is_flag=True, help="Print all slices and steps, not the worst ten."),
    json_option,
)
def gate(
    table: str,
    map_file: str | None,
    no_map: bool,
    slices: tuple[str, ...],
    as_json: bool,
    show_all: bool,
    db: Location,
    queries: str | None,
    **fields: Any,
) -> None:
    """Exit with 1 if searchers would lose too much by a switch of models; name the rows to re-embed.

    \b
    spec-store gate --table images --source clip --target dino
    spec-store gate --table images --source clip --target dino --slice "label = 'cat'" --budget 10%
    spec-store gate --table images --source clip --target dino --queries q.parquet --query-target q_dino
    """
    from ..workflows.gate import gate as evaluate
    from .gate_text import print_gate

    if no_map and map_file:
        raise click.UsageError("Give --map or --no-map, not both.")
    if queries is None:
        for name in ("query_source", "query_target", "relevant"):
            if fields[name] is not None:
                raise click.UsageError(f"--{name.replace('_', '-')} is a column of --queries: give both.")
    with shown_progress() as progress:
        found = evaluate(
            table,
            db=db,
            map=None if no_map else map_file or "recorded",
            slices=slices,
            queries=queries,
            progress=progress,
            **fields,
        )
    print_warnings(found.warnings)
    if as_json:
        echo_json(found.to_json())
    else:
        print_gate(found, show_all=show_all)
    if not found.passed:
        sys.exit(1)
