"""`compare --from-run`: more questions to a recorded run, and what changed in one embedding between two."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from ..reporting.text import format_number, visible
from .comparison_text import print_comparison
from .terminal import echo, echo_json, print_warnings, shown_progress

if TYPE_CHECKING:
    from ..connector import Location
    from ..executor import Executor
    from ..workflows.models import Pairs
    from ..workflows.times import ChangedGroup, TimesComparison

__all__ = ["compare_recorded", "compare_recorded_times"]

_MOST_GROUPS = 10
_MOST_TYPICAL = 5
_OPTIONS = {"pair": "--align"}
_NOT_FIXED = (
    *("from_run", "db", "connector", "storage_option", "dry_run", "as_json", "pairs", "table"),
    *("engine", "workers", "address"),
)


def compare_recorded(
    run_id: str,
    table: str | None,
    pairs: Pairs | None,
    db: Location,
    fields: Mapping[str, Any],
    given: Collection[str],
    executor: Executor,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Answer from a run's state, write unless it is a dry run, and print.

    Parameters
    ----------
    fields
        The options of a comparison as parsed.
    given
        Names of the parameters that stand on the command line.
    """
    from ..options import CHANGEABLE
    from ..workflows.again import compare_again, recorded_comparison
    from ..workflows.models import chosen_pairs

    fixed = [name for name in given if name not in (*CHANGEABLE, *_NOT_FIXED)]
    if fixed:
        name = min(fixed)
        option = _OPTIONS.get(name, "--" + name.replace("_", "-"))
        why = f": it is part of the state of run {run_id}. Compare anew for another" if name in fields else ""
        raise click.UsageError(f"{option} can't go with --from-run{why}.")
    changes = {name: fields[name] for name in CHANGEABLE if name in given}
    run = recorded_comparison(db, run_id)
    if table not in (None, run.table):
        raise click.UsageError(f"Run {run_id} is of table {run.table!r}, not of {table!r}.")
    chosen: Sequence[tuple[str, str] | None] = [None] if pairs is None else chosen_pairs(run.columns, pairs)
    answers = []
    with shown_progress() as progress:
        for pair in chosen:
            answer = compare_again(
                run_id, pair=pair, db=db, write=not dry_run, progress=progress, executor=executor, **changes
            )
            answers.append(answer.score(progress=progress) if dry_run else answer)
    print_warnings(list(dict.fromkeys(w for answer in answers for w in answer.warnings)))
    if as_json:
        found = [answer.to_json() for answer in answers]
        echo_json(found[0] if pairs is None else found)
        return
    for i, answer in enumerate(answers):
        if i:
            echo("")
        print_comparison(answer)


def compare_recorded_times(
    old: str | None, new: str | None, column: str | None, db: Location, as_json: bool
) -> None:
    """Compare one embedding at two times, and print."""
    from ..workflows.times import compare_times

    if not (old and new and column):
        raise click.UsageError(
            "What is new in an embedding takes --from-run OLD, --against-run NEW and --column NAME."
        )
    found = compare_times(old, new, column, db=db)
    print_warnings(found.warnings)
    if as_json:
        echo_json(found.to_json())
    else:
        _print_times(found)


def _print_times(found: TimesComparison) -> None:
    n_old, n_new = found.n_rows
    echo(f"{visible(found.column)}: {n_new:,} rows of run {found.new} against {n_old:,} of run {found.old}")
    more, fewer = (format_number(next(iter(found.eigenvalues[kind]), 0.0)) for kind in ("more", "fewer"))
    echo(
        f"Largest eigenvalue {more} of what there is more of, {fewer} of what there is less of; coverage"
        f" {found.coverage[0]:.2f} then, {found.coverage[1]:.2f} now."
    )
    if not found.groups:
        echo("No group of rows has become more or less frequent, as far as the samples tell.")
    for group in found.groups[:_MOST_GROUPS]:
        echo(_group_line(group))
    if len(found.groups) > _MOST_GROUPS:
        echo(f"… and {len(found.groups) - _MOST_GROUPS:,} more (see --json).")


def _group_line(group: ChangedGroup) -> str:
    then, now = (f"{share:.2%}" for share in (group.share_old, group.share_new))
    low, high = (f"{bound:.2%}" for bound in group.interval_new)
    name = f" ({visible(group.name)})" if group.name else ""
    typical = ", ".join(visible(key) for key in group.typical[:_MOST_TYPICAL])
    return f"{group.kind:>5}: {then} of the rows then, {now} [{low}, {high}] now{name}; typical: {typical}"
