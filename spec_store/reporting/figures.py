"""All that is recorded of one cluster, as sentences and as rows of cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .findings import other_column, seen_in_words
from .text import format_decimals, format_number, format_percent, visible, with_interval

if TYPE_CHECKING:
    from ..runs.clusters import ClusterRecord
    from ..runs.records import ComparisonRecord

__all__ = [
    "READING",
    "figure_rows",
    "gap_sentence",
    "over_represented_rows",
    "seen_sentence",
    "words_sentence",
]

READING = (
    "Capture: of the rows nearest to a cluster, as many as it has members, the share that are members."
    " Contrast: how many times as similar to it members are as the nearest other rows."
)
"""How to read the figures."""

_MEANING = {"split": " into parts that each keep together", "scattered": ", with rows from everywhere nearer"}


def figure_rows(cluster: ClusterRecord, run: ComparisonRecord) -> list[list[str]]:
    """Its figures in both embeddings with their 95% intervals: a header, then a row for each."""
    intervals = cluster.intervals or {}

    def cells(name: str, formatted: Callable[[float | None], str]) -> list[str]:
        figures, sure = getattr(cluster, name) or {}, intervals.get(name) or {}
        return [with_interval(figures.get(c), sure.get(c), formatted) for c in run.columns]

    rows = [["figure", *run.columns]]
    if cluster.capture is not None:
        rows.append(["capture", *cells("capture", format_percent)])
        rows.append(["contrast", *cells("contrast", format_decimals)])
    if cluster.cohesion is not None:
        rows.append(["mean similarity of two members", *cells("cohesion", format_decimals)])
    if run.average_pair:
        rows.append(["of any two rows", *(format_decimals(run.average_pair.get(c)) for c in run.columns)])
    rows.append(["energy", *(format_number(cluster.energy.get(c)) for c in run.columns)])
    return rows


def gap_sentence(cluster: ClusterRecord) -> str:
    """The figures that it has once, not for each embedding."""
    parts = []
    if cluster.gap is not None:
        gap = with_interval(cluster.gap, (cluster.intervals or {}).get("gap"), format_percent)
        parts.append(f"gap, the difference of capture: {gap}")
    parts.append(f"strength: {format_number(cluster.strength)}")
    if cluster.share is not None:
        parts.append(f"share of rows: {format_percent(cluster.share)}")
    if cluster.stability is not None:
        parts.append(f"a cluster still in {format_percent(cluster.stability)} of resamples")
    said = "; ".join(parts)
    return f"{said[0].upper()}{said[1:]}."


def seen_sentence(cluster: ClusterRecord, run: ComparisonRecord) -> str:
    """How the other embedding sees it; empty where that is not known."""
    seen = cluster.seen_by_other
    if not seen:
        return ""
    other = visible(other_column(run.columns, cluster.side))
    parts = [f"Seen by {other}: {seen_in_words(cluster)}{_MEANING.get(seen['kind'], '')}"]
    if seen.get("others") is not None:
        parts.append(f"of the rows that it ranks nearest {format_percent(seen['others'])} are others")
    if seen.get("purity") is not None:
        parts.append(f"of a member's ten nearest {format_percent(seen['purity'])} are members")
    return f"{'; '.join(parts)}."


def over_represented_rows(cluster: ClusterRecord) -> list[list[str]]:
    """What it consists of: a header, then a row for each value; nothing where it has none."""
    if not cluster.over_represented:
        return []
    return [["column", "value", "rows", "share", "lift", "p"]] + [
        [
            *(str(v["column"]), str(v["value"]), f"{v['count']:,}", format_percent(v["share"])),
            *(f"x{v['lift']:.1f}", _p_value(v)),
        ]
        for v in cluster.over_represented
    ]


def words_sentence(cluster: ClusterRecord) -> str:
    """Its distinctive words; empty where it has none."""
    if not cluster.words:
        return ""
    words = [
        f"{visible(str(w['word']))} {format_percent(w['share'])} (x{w['lift']:.1f})" for w in cluster.words
    ]
    return f"Distinctive words: {', '.join(words)}."


def _p_value(value: Mapping[str, Any]) -> str:
    """The p-value, also where it is under the smallest number."""
    p = value["p_value"]
    if p:
        return f"{p:.0e}"
    exponent = value.get("log10_p_value")
    return "<1e-300" if exponent is None else f"1e{exponent:.0f}"
