"""`update` and `status`: results that follow a table which grows, changes and shrinks."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING

import click

from .group import main
from .help import headed, next_command
from .options import executor_options, json_option, location_options, table_option
from .terminal import echo, echo_json, echo_table, print_warnings, shown_progress

if TYPE_CHECKING:
    from ..connector import Location
    from ..executor import Executor
    from ..workflows.status import ResultStatus, TableStatus
    from ..workflows.update import Updated, UpdatedClusters

_OF_READ_AGAIN = "all rows were read again through the recorded maps, since what changed is not known"
_MOST_FILES = 10


@main.command()
@headed(
    "Data",
    table_option,
    click.option("--prefix", help="Only the results with this prefix, or the aligned column of this name."),
)
@headed("Database", location_options)
@headed(
    "Method",
    click.option(
        "--refit",
        is_flag=True,
        help="Find clusters anew, with the recorded feature maps, in the updated state, and score all rows."
        " Clusters that are found again keep their numbers.",
    ),
)
@headed("Output", json_option)
@headed("Execution", executor_options)
def update(
    table: str, db: Location, prefix: str | None, refit: bool, as_json: bool, executor: Executor
) -> None:
    """Bring results up to date with rows that came, changed and went, by the recorded clusters and maps.

    Only what changed is read and scored; other files of the table stay as they are.

    \b
    spec-store update --table images
    spec-store update --table images --refit
    """
    from ..workflows.update import Updated
    from ..workflows.update import update as bring_up_to_date

    with shown_progress() as progress:
        found = bring_up_to_date(
            table, prefix=prefix, refit=refit, db=db, progress=progress, executor=executor
        )
    print_warnings([w for u in found for w in u.warnings])
    if as_json:
        kinds = ("align" if isinstance(u, Updated) else "compare" for u in found)
        echo_json([{"kind": kind, **dataclasses.asdict(u)} for kind, u in zip(kinds, found, strict=True)])
        return
    for u in found:
        if isinstance(u, Updated):
            _print_aligned(u)
        else:
            _print_clusters(u, table, refit=refit)


def _print_aligned(u: Updated) -> None:
    echo(
        f"{u.column} (run {u.run_id}): {u.n_filled:,} rows filled, {u.n_missing:,} still null;"
        f" {_written(u.n_written)}."
    )


def _print_clusters(u: UpdatedClusters, table: str, *, refit: bool) -> None:
    changed = _OF_READ_AGAIN
    if u.n_added is not None:
        changed = f"{u.n_added:,} rows added to the state, {u.n_removed:,} taken out"
    scored = f"found anew as run {u.run_id}, all rows scored" if refit else _written(u.n_written)
    echo(f"{u.prefix} ({u.n_rows:,} rows): {changed}; {scored}.")
    if u.changes is not None:
        parts = [f"{len(u.changes[name])} {name}" for name in ("kept", "new", "gone")]
        echo(f"  Clusters: {', '.join(parts)}.")
    if u.coverage_added:
        shares = (f"{c} {share:.3f} (all {u.coverage[c]:.3f})" for c, share in u.coverage_added.items())
        echo(f"  Coverage of the added rows: {', '.join(shares)}.")
    if u.angle:
        angles = ", ".join(f"{c} {degrees:.0f}°" for c, degrees in u.angle.items())
        echo(f"  Leading modes have turned by: {angles}.")
    for reason in u.advice:
        echo(f"  {reason[0].upper()}{reason[1:]}.")
    if u.advice and not refit:
        echo(f"  Find clusters anew: {next_command('update', table=table, prefix=u.prefix)} --refit")


def _written(n: int) -> str:
    return f"results of {n:,} rows written" if n else "nothing to write, all results are current"


@main.command()
@headed("Data", table_option)
@headed(
    "Action",
    click.option(
        "--check", is_flag=True, help="Exit with 1 unless every row of all results is known to be current."
    ),
    click.option(
        "--clean",
        is_flag=True,
        help="Remove files that killed runs left beside the table. What a living run works with stays; a run"
        " whose checkpoint is removed can't be continued.",
    ),
)
@headed("Database", location_options)
@headed("Output", json_option)
def status(table: str, db: Location, check: bool, clean: bool, as_json: bool) -> None:
    """Show whether results are those of the table's present rows, and what killed runs left.

    \b
    spec-store status --table images --check
    """
    from ..workflows.status import status as status_of

    found = status_of(table, clean=clean, db=db)
    if as_json:
        echo_json({**dataclasses.asdict(found), "up_to_date": found.up_to_date})
    else:
        _print_status(found)
    if check and not found.up_to_date:
        sys.exit(1)


def _print_status(found: TableStatus) -> None:
    at = "" if found.version is None else f" at version {found.version}"
    if not found.results:
        echo(f"Table {found.table}{at}, {found.n_rows:,} rows: no results that a run is recorded for.")
    else:
        echo(f"Table {found.table}{at}, {found.n_rows:,} rows: {_verdict(found)}.")
        header = ["results", "run", "current", "never scored", "stale", "not known"]
        echo_table(header, [_cells(r) for r in found.results], right=range(2, 6))
    for r in found.results:
        if r.other_stores:
            echo(f"{r.prefix} also reads {', '.join(r.other_stores)}: what changed there is not counted.")
    if any(r.rows is not None and r.rows.unknown for r in found.results):
        echo(
            "Not known: these rows' files were rewritten, and the table has no stable row ids, or its earlier"
            " versions were cleaned up."
        )
    if not found.up_to_date:
        echo(f"Bring them up to date: {next_command('update', table=found.table)}")
    if found.leftovers:
        names = [f"  {name}" for name in found.leftovers[:_MOST_FILES]]
        more = len(found.leftovers) - len(names)
        did = "removed" if found.cleaned else "left by killed runs, --clean removes them"
        echo("\n".join([f"{len(found.leftovers)} files {did}:", *names]))
        if more:
            echo(f"  and {more} more, see --json")


def _verdict(found: TableStatus) -> str:
    if found.up_to_date:
        return "all results are current"
    n = sum(not r.up_to_date for r in found.results)
    return f"{n} of {len(found.results)} results are not current"


def _cells(r: ResultStatus) -> list[str]:
    if r.rows is None:
        return [r.prefix, r.run_id, *["?"] * 4]
    rows = r.rows
    return [r.prefix, r.run_id, *(f"{n:,}" for n in (rows.current, rows.missing, rows.stale, rows.unknown))]
