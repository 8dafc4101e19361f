"""A comparison for eyes: what was found, in ten lines, and where the rest is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..reporting.findings import (
    MOST_FINDINGS,
    changes_lines,
    figures_line,
    finding_lines,
    fit_lines,
    ratio_lines,
    summary_lines,
    unlisted_lines,
)
from .help import next_command
from .terminal import echo

if TYPE_CHECKING:
    from ..workflows.comparison import Comparison

__all__ = ["print_comparison"]


def print_comparison(run: Comparison, *, unwritten: str = "Dry run: nothing was written.") -> None:
    """A headline, the strongest clusters, what is not listed, and what was written."""
    a, b = run.columns
    record = run.record
    skipped = f", {run.n_skipped:,} skipped" if run.n_skipped else ""
    echo(f"{a} against {b}: {run.n_rows:,} rows of {run.source.describe()}{skipped}")
    for line in fit_lines(record):
        echo(line)
    recorded = bool(run.written and run.registry)
    more = len(record.clusters) - MOST_FINDINGS
    for line in (
        *summary_lines(record),
        figures_line(record),
        *finding_lines(record),
        *ratio_lines(record),
        *([f"… and {more:,} more."] if more > 0 else []),
        *unlisted_lines(record, stored=recorded),
        *changes_lines(record),
    ):
        echo(line)
    if not run.written:
        echo(unwritten)
        return
    place = f" to {run.destination.describe()}" if run.destination else ""
    total = sum(record.seconds.values())
    echo(f"Wrote {_short_names(run.written, run.prefix)}{place} in {total:.1f} s (run {run.run_id}).")
    if recorded:
        echo(f"Next: {next_command('clusters', table=run.table)}")


def _short_names(written: list[str], prefix: str) -> str:
    """Result columns, the prefix in the first of them alone."""
    first = f"{prefix}_cluster"
    return ", ".join(n if n == first else n.removeprefix(prefix) for n in written)
