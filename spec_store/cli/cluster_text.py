"""Clusters as a table for eyes and one in full: text from their records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..reporting.figures import (
    READING,
    figure_rows,
    gap_sentence,
    over_represented_rows,
    seen_sentence,
    words_sentence,
)
from ..reporting.findings import WIDTH, families, finding, seen_in_words, summary_lines, wrapped
from ..reporting.text import format_decimals, format_number, format_percent, visible
from .text import aligned

if TYPE_CHECKING:
    from ..runs.clusters import ClusterRecord, RejectedRecord
    from ..runs.records import ComparisonRecord

__all__ = ["full_lines", "labels_text", "overview", "reading_lines", "rejected_values"]

_MOST_SKIPPED = 8


def overview(
    run: ComparisonRecord,
    rejected: Sequence[RejectedRecord] = (),
    labels: Mapping[int, Sequence[Mapping[str, Any]]] | None = None,
) -> tuple[list[str], list[list[str]], list[int]]:
    """A line for each cluster, families together, and for each candidate that was not confirmed.

    Parameters
    ----------
    labels
        By cluster {value, share, lift} of the labels asked for: they are shown instead of its name.

    Returns
    -------
    header, body, and the columns that are aligned to the right.
    """
    a, b = run.columns
    last = "over-represented" if labels is not None else "name"
    ordered = [c for family in families(run.clusters) for c in family]

    def described(c: ClusterRecord) -> str:
        return labels_text(labels.get(c.cluster, ())) if labels is not None else c.name or ""

    if any(c.capture is None for c in ordered):
        header = ["cluster", "grouped by", "rows", "strength", f"in {a}", f"in {b}", last, "typical rows"]
        body = [
            [
                *(str(c.cluster), c.side, _rows(c), format_number(c.strength)),
                *(format_number(c.energy[column]) for column in run.columns),
                *(described(c), " ".join((c.top_rows or ())[:5])),
            ]
            for c in ordered
        ]
        return header, body, [0, 2, 3, 4, 5]
    header = ["cluster", "grouped by", "rows", f"capture in {a}", f"in {b}", f"contrast in {a}", f"in {b}"]
    header += ["seen by the other", last]
    body = [
        [str(c.cluster), c.side, _rows(c), *_figures(c, run), seen_in_words(c), described(c)] for c in ordered
    ]
    body += [
        ["-", r.side, format_percent(r.share), *_figures(r, run), f"not confirmed: {r.reason}", ""]
        for r in rejected
    ]
    return header, body, [0, 2, 3, 4, 5, 6]


def _rows(cluster: ClusterRecord) -> str:
    return format_percent(cluster.share) if cluster.size is None else f"{cluster.size:,}"


def _figures(found: ClusterRecord | RejectedRecord, run: ComparisonRecord) -> list[str]:
    capture, contrast = found.capture or {}, found.contrast or {}
    return [
        *(format_percent(capture.get(c)) for c in run.columns),
        *(format_decimals(contrast.get(c)) for c in run.columns),
    ]


def reading_lines(run: ComparisonRecord, *, rejected: bool = False) -> list[str]:
    """How to read the table, or why it is empty; and what could not be described."""
    lines = []
    if not run.clusters:
        lines += summary_lines(run)
    if rejected or any(c.capture is not None for c in run.clusters):
        lines += wrapped(READING)
    if run.skipped_columns:
        skipped = [f"{visible(c)} ({visible(why)})" for c, why in run.skipped_columns.items()]
        more = f", and {len(skipped) - _MOST_SKIPPED} more" if len(skipped) > _MOST_SKIPPED else ""
        lines += wrapped(f"Not described: {', '.join(skipped[:_MOST_SKIPPED])}{more}.", indent=2)
    return lines


def labels_text(labels: Sequence[Mapping[str, Any]]) -> str:
    """Labels with their share of the members and their lift: ``0 100% (x10.1)``."""
    return ", ".join(f"{e['value']} {e['share']:.0%} (x{e['lift']:.1f})" for e in labels)


def rejected_values(rejected: RejectedRecord, columns: Sequence[str]) -> dict[str, Any]:
    """A candidate that was not confirmed as a line of the table of clusters, which has no number."""
    figures = {
        f"{name}_{end}": getattr(rejected, name)[column]
        for name in ("capture", "contrast")
        for end, column in zip(("first", "second"), columns, strict=True)
    }
    own = {"side": rejected.side, "share": rejected.share, "gap": rejected.gap}
    return {**own, **figures, "not_confirmed": rejected.reason}


def full_lines(cluster: ClusterRecord, run: ComparisonRecord) -> list[str]:
    """All that is recorded of a cluster; the figures with their 95% intervals."""
    name = f": {visible(cluster.name)}" if cluster.name else ""
    return [
        f"Cluster {cluster.cluster}, grouped by {visible(cluster.side)}{name}",
        *wrapped(finding(cluster, run.columns)),
        *aligned(figure_rows(cluster, run), right=range(1, 3)),
        *wrapped(gap_sentence(cluster), indent=2),
        *_said(seen_sentence(cluster, run)),
        *_consists_of(cluster),
        *_typical(cluster, run),
        f"Filter: {cluster.where}",
    ]


def _said(sentence: str) -> list[str]:
    return wrapped(sentence, indent=2) if sentence else []


def _consists_of(cluster: ClusterRecord) -> list[str]:
    rows = over_represented_rows(cluster)
    values = ["Over-represented values:", *aligned(rows, right=range(2, 6), width=WIDTH)] if rows else []
    return [*values, *_said(words_sentence(cluster))]


def _typical(cluster: ClusterRecord, run: ComparisonRecord) -> list[str]:
    if not cluster.top_rows:
        return []
    key = run.options.get("key")
    by = f" ({visible(key)})" if key else ""
    keys = ", ".join(visible(str(k)) for k in cluster.top_rows)
    return wrapped(f"Typical rows{by}: {keys}", indent=2)
