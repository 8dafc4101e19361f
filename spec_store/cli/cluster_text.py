"""Clusters as a table for eyes and one in full: text from their records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..report.findings import WIDTH, families, finding, other_column, seen_in_words, summary_lines, wrapped
from ..report.text import aligned, format_number, format_percent, visible

if TYPE_CHECKING:
    from ..runs.clusters import ClusterRecord, RejectedRecord
    from ..runs.records import ComparisonRecord

__all__ = ["full_lines", "labels_text", "overview", "reading_lines", "rejected_values"]

_READING = (
    "Capture: of the rows nearest to a cluster, as many as it has members, the share that are members."
    " Contrast: how many times as similar to it members are as the nearest other rows."
)
_MEANING = {"split": " into parts that each keep together", "scattered": ", with rows from everywhere nearer"}
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
        *(_decimals(contrast.get(c)) for c in run.columns),
    ]


def _decimals(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def reading_lines(run: ComparisonRecord, *, rejected: bool = False) -> list[str]:
    """How to read the table, or why it is empty; and what could not be described."""
    lines = []
    if not run.clusters:
        lines += summary_lines(run)
    if rejected or any(c.capture is not None for c in run.clusters):
        lines += wrapped(_READING)
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
        *_figure_lines(cluster, run),
        *_seen_lines(cluster, run),
        *_consists_of(cluster),
        *_typical(cluster, run),
        f"Filter: {cluster.where}",
    ]


def _figure_lines(cluster: ClusterRecord, run: ComparisonRecord) -> list[str]:
    intervals = cluster.intervals or {}

    def cells(name: str, formatted: Any) -> list[str]:
        figures, sure = getattr(cluster, name) or {}, intervals.get(name) or {}
        return [_with_interval(figures.get(c), sure.get(c), formatted) for c in run.columns]

    rows = [["figure", *run.columns]]
    if cluster.capture is not None:
        rows.append(["capture", *cells("capture", format_percent)])
        rows.append(["contrast", *cells("contrast", _decimals)])
    if cluster.cohesion is not None:
        rows.append(["mean similarity of two members", *cells("cohesion", _decimals)])
    if run.average_pair:
        rows.append(["of any two rows", *(_decimals(run.average_pair.get(c)) for c in run.columns)])
    rows.append(["energy", *(format_number(cluster.energy.get(c)) for c in run.columns)])
    parts = []
    if cluster.gap is not None:
        gap = _with_interval(cluster.gap, intervals.get("gap"), format_percent)
        parts.append(f"Gap, the difference of capture: {gap}")
    parts.append(f"strength: {format_number(cluster.strength)}")
    if cluster.share is not None:
        parts.append(f"share of rows: {format_percent(cluster.share)}")
    if cluster.stability is not None:
        parts.append(f"a cluster still in {format_percent(cluster.stability)} of resamples")
    lines = "; ".join(parts)
    return [*aligned(rows, right=range(1, 3)), *wrapped(f"{lines[0].upper()}{lines[1:]}.", indent=2)]


def _with_interval(value: float | None, interval: Sequence[float | None] | None, formatted: Any) -> str:
    if value is None or not interval:
        return str(formatted(value))
    low, high = (formatted(v) for v in interval)
    return f"{formatted(value)} ({str(low).removesuffix('%')}–{high})"


def _seen_lines(cluster: ClusterRecord, run: ComparisonRecord) -> list[str]:
    seen = cluster.seen_by_other
    if not seen:
        return []
    other = visible(other_column(run.columns, cluster.side))
    parts = [f"Seen by {other}: {seen_in_words(cluster)}{_MEANING.get(seen['kind'], '')}"]
    if seen.get("others") is not None:
        parts.append(f"of the rows that it ranks nearest {format_percent(seen['others'])} are others")
    if seen.get("purity") is not None:
        parts.append(f"of a member's ten nearest {format_percent(seen['purity'])} are members")
    return wrapped(f"{'; '.join(parts)}.", indent=2)


def _consists_of(cluster: ClusterRecord) -> list[str]:
    lines = []
    if cluster.over_represented:
        rows = [["column", "value", "rows", "share", "lift", "p"]]
        rows += [
            [
                *(str(v["column"]), str(v["value"]), f"{v['count']:,}", format_percent(v["share"])),
                *(f"x{v['lift']:.1f}", _p_value(v)),
            ]
            for v in cluster.over_represented
        ]
        lines += ["Over-represented values:", *aligned(rows, right=range(2, 6), width=WIDTH)]
    if cluster.words:
        words = [
            f"{visible(str(w['word']))} {format_percent(w['share'])} (x{w['lift']:.1f})"
            for w in cluster.words
        ]
        lines += wrapped(f"Distinctive words: {', '.join(words)}.", indent=2)
    return lines


def _p_value(value: Mapping[str, Any]) -> str:
    """The p-value, also where it is under the smallest number."""
    p = value["p_value"]
    if p:
        return f"{p:.0e}"
    exponent = value.get("log10_p_value")
    return "<1e-300" if exponent is None else f"1e{exponent:.0f}"


def _typical(cluster: ClusterRecord, run: ComparisonRecord) -> list[str]:
    if not cluster.top_rows:
        return []
    key = run.options.get("key")
    by = f" ({visible(key)})" if key else ""
    keys = ", ".join(visible(str(k)) for k in cluster.top_rows)
    return wrapped(f"Typical rows{by}: {keys}", indent=2)
