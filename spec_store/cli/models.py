"""`compare` of more than two columns: the matrix of differences, and the clusters of the pairs asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ..reporting.findings import finding_lines, ratio_lines, summary_lines
from ..reporting.text import format_number, visible
from .help import next_command
from .terminal import echo, echo_json, echo_table, print_warnings, shown_progress

if TYPE_CHECKING:
    from ..connector import Location
    from ..executor import Executor
    from ..options import CompareOptions
    from ..workflows.models import ModelComparison, Pairs

__all__ = ["compare_several"]

_MOST_PAIRS = 15
_MOST_FINDINGS = 3


def compare_several(
    table: str | None,
    columns: list[str],
    pairs: Pairs | None,
    db: Location,
    options: CompareOptions,
    executor: Executor,
    *,
    dry_run: bool,
    as_json: bool,
    fresh: bool,
) -> None:
    """Compare, write unless it is a dry run, and print."""
    from ..workflows.models import compare_models

    if table is None and not dry_run:
        raise click.UsageError("Name a --table for the results; --dry-run writes nothing.")
    with shown_progress() as progress:
        run = compare_models(
            table,
            columns,
            pairs=pairs or (),
            db=db,
            write=not dry_run,
            fresh=fresh,
            progress=progress,
            executor=executor,
            options=options,
        )
        if dry_run:
            run = run.score(progress=progress)
    print_warnings(list(dict.fromkeys(run.warnings + [w for c in run.comparisons for w in c.warnings])))
    if as_json:
        echo_json(run.to_json())
    else:
        _print(run)


def _print(run: ModelComparison) -> None:
    record = run.record
    skipped = f", {record.n_skipped:,} skipped" if record.n_skipped else ""
    names = ", ".join(visible(c) for c in run.columns)
    drawn = f" drawn from {record.n_scored:,}" if record.fit else ""
    echo(f"{names}: {record.n_rows:,} rows{drawn} of {run.basis.source.describe()}{skipped}")
    strongest = sorted(record.matrix, key=lambda entry: -entry["spec_diff_centered"])
    figures = ("spec_diff", "spec_diff_centered", "cka", "cka_unbiased")
    echo_table(
        ["first", "second", "SPEC-diff", "centred", "CKA", "unbiased CKA"],
        [
            [entry["first"], entry["second"], *(format_number(entry[name]) for name in figures)]
            for entry in strongest[:_MOST_PAIRS]
        ],
        right=(2, 3, 4, 5),
    )
    if len(strongest) > _MOST_PAIRS:
        echo(f"… and {len(strongest) - _MOST_PAIRS:,} more pairs (see --json).")
    for comparison in run.comparisons:
        found = comparison.record
        a, b = (visible(c) for c in comparison.columns)
        echo(f"\n{a} against {b}")
        more = len(found.clusters) - _MOST_FINDINGS
        for line in (
            *summary_lines(found),
            *finding_lines(found, most=_MOST_FINDINGS),
            *ratio_lines(found),
            *([f"… and {more:,} more (prefix {comparison.prefix})."] if more > 0 else []),
        ):
            echo(line)
    _print_ending(run)


def _print_ending(run: ModelComparison) -> None:
    record = run.record
    if not (record.written or run.recorded):
        echo("Dry run: nothing was written.")
        return
    total = sum(record.seconds.values())
    if run.comparisons:
        prefixes = ", ".join(f"{c.prefix}_…" for c in run.comparisons)
        echo(f"Wrote {prefixes} in {total:.1f} s (run {run.run_id}).")
        echo(f"Next: {next_command('clusters', table=record.table, prefix=run.comparisons[0].prefix)}")
        return
    pair = f"{run.columns[0]}:{run.columns[1]}"
    echo(f"Recorded in {total:.1f} s (run {run.run_id}); no column was written.")
    echo(f"Next: {next_command('compare', **{'from-run': run.run_id, 'pairs': pair})}")
