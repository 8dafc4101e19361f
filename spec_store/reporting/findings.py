"""What a comparison found, in sentences that name their figures: lines of text from its record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .text import display_width, format_decimals, format_number, format_percent, visible

if TYPE_CHECKING:
    from ..runs.clusters import ClusterRecord
    from ..runs.records import ComparisonRecord

__all__ = [
    "MOST_FINDINGS",
    "WIDTH",
    "changes_lines",
    "families",
    "figures_line",
    "finding",
    "finding_lines",
    "fit_lines",
    "other_column",
    "ratio_lines",
    "seen_in_words",
    "summary_lines",
    "unlisted_lines",
    "wrapped",
]

MOST_FINDINGS = 10

WIDTH = 116
_MOST_NUMBERS = 10
_MOST_MERGED = 2


def summary_lines(run: ComparisonRecord) -> list[str]:
    """What each embedding groups and the other does not: a line for each, or one if that is nothing."""
    if not run.clusters:
        return [
            "No cluster holds: the embeddings group these rows alike, as far as"
            f" {_count(run.n_rows, 'row')} tell."
        ]
    lines = []
    for column in run.columns:
        n = sum(c.side == column for c in run.clusters)
        side, other = visible(column), visible(other_column(run.columns, column))
        mismatch = run.mismatch.get(column)
        if not n:
            lines.append(f"{side} groups nothing that {other} does not.")
        elif mismatch is None:
            lines.append(f"{side} groups {_count(n, 'cluster')} that {other} does not.")
        else:
            lines.append(
                f"{side} groups {format_percent(mismatch['rows'])} of the rows that {other} does not:"
                f" mismatch {format_decimals(mismatch['mass'])} ({_count(n, 'cluster')})"
            )
    return lines


def figures_line(run: ComparisonRecord) -> str:
    """The figures of the method itself."""
    centred = format_number(run.spec_diff_centered)
    return f"SPEC-diff {format_number(run.spec_diff)}, centred {centred}; CKA {format_number(run.cka)}"


def fit_lines(run: ComparisonRecord) -> list[str]:
    """Of a fit on a share of the rows, how many rows the figures are of, and their standard errors."""
    if run.fit is None:
        return []
    n_rows, n_scored, errors = (run.fit[name] for name in ("n_rows", "n_scored", "standard_errors"))
    said = f"All figures are of {n_rows:,} rows drawn from {n_scored:,}, which are all scored."
    if errors is None:
        return [f"{said} Their sampling error is not known."]
    plain, centred, cka = (
        "not known" if errors[name] is None else format_number(errors[name])
        for name in ("spec_diff", "spec_diff_centered", "cka")
    )
    return [said, f"Standard errors: SPEC-diff {plain}, centred {centred}; CKA {cka}."]


def families(clusters: Sequence[ClusterRecord]) -> list[tuple[ClusterRecord, ...]]:
    """The clusters by share x gap, the largest first, except that families stand together.

    A family is the clusters of one side that the other embedding merges with each other; a cluster that it
    merges with none stands alone. Those without a share or a gap, of earlier versions, keep their order.
    """
    found: dict[tuple[str, int, bool], list[ClusterRecord]] = {}
    for c in sorted(clusters, key=lambda c: -(c.share or 0) * (c.gap or 0)):
        alone = c.family is None
        found.setdefault((c.side, c.cluster if c.family is None else c.family, alone), []).append(c)
    return [tuple(family) for family in found.values()]


def finding_lines(run: ComparisonRecord, *, most: int = MOST_FINDINGS) -> list[str]:
    """The strongest clusters of both ends, a sentence each under its number; at most two lines each."""
    together = families(run.clusters)
    strongest = sorted(run.clusters, key=lambda c: -(c.share or 0) * (c.gap or 0))[:most]
    shown = {c.cluster for c in strongest}
    width = max((len(str(number)) for number in shown), default=0)
    lines = []
    for family in together:
        members = [c for c in family if c.cluster in shown]
        if not members:
            continue
        is_family = len(family) > 1
        if is_family:
            numbers = ", ".join(str(n) for n in sorted(c.cluster for c in family))
            other = visible(other_column(run.columns, family[0].side))
            lines += wrapped(f"Clusters {numbers}: together in {other}.", indent=2)
        for c in members:
            said = finding(c, run.columns, family=[f.cluster for f in family])
            lines += wrapped(f"{c.cluster:>{width}}  {said}", indent=width + 2, margin=2 * is_family)
    return lines


def finding(cluster: ClusterRecord, columns: Sequence[str], *, family: Sequence[int] = ()) -> str:
    """One cluster as a sentence.

    Parameters
    ----------
    family
        Numbers of clusters that are already said to be together with it in the other embedding.
    """
    side, other = visible(cluster.side), visible(other_column(columns, cluster.side))
    rows, nearest = _rows(cluster)
    name = f" ({visible(cluster.name)})" if cluster.name else ""
    begin = f"{side} groups {rows}{name}: "
    if cluster.capture is None:
        energies = ", ".join(f"{visible(c)} {format_number(cluster.energy[c])}" for c in columns)
        return f"{begin}strength {format_number(cluster.strength)} ({energies})."
    here, there = (cluster.capture[c] for c in (cluster.side, other_column(columns, cluster.side)))
    return (
        f"{begin}{format_percent(here)} of {nearest} nearest are members, in {other}"
        f" {format_percent(there)}{_ending(cluster, family)}."
    )


def _rows(cluster: ClusterRecord) -> tuple[str, str]:
    if cluster.size is not None:
        return _count(cluster.size, "row"), f"the {cluster.size:,}"
    if cluster.share is not None:
        return f"{format_percent(cluster.share)} of the rows", "the"
    return "rows", "the"


def _ending(cluster: ClusterRecord, family: Sequence[int]) -> str:
    """How the other embedding sees it, as the end of a sentence about it."""
    seen = cluster.seen_by_other
    kind = seen["kind"] if seen else None
    if kind == "scattered":
        return ", which puts others nearer"
    if kind == "split":
        return ", which splits them up"
    if not seen or kind != "merged":
        return ""
    merged = [entry["cluster"] for entry in seen["clusters"]][:_MOST_MERGED]
    if merged and set(merged) <= set(family):
        return ""
    if not merged:
        return ", which merges them with other rows"
    numbers = " and ".join(map(str, merged))
    return f", which merges them with cluster{'s' * (len(merged) > 1)} {numbers}"


def seen_in_words(cluster: ClusterRecord) -> str:
    """How the other embedding sees it, in a few words: ``merged with 4 (62%)``."""
    seen = cluster.seen_by_other
    if not seen or seen["kind"] != "merged":
        return seen["kind"] if seen else ""
    merged = [
        f"{entry['cluster']} ({format_percent(entry['share'])})" for entry in seen["clusters"][:_MOST_MERGED]
    ]
    return f"merged with {', '.join(merged) or 'other rows'}"


def ratio_lines(run: ComparisonRecord) -> list[str]:
    """Of a run with KODA's objective, how many times as much one embedding sees as the other: of its first
    direction, and of each cluster; nothing for others."""
    if run.options.get("objective") != "koda":
        return []
    lines = []
    for end, column in enumerate(run.columns):
        other = other_column(run.columns, column)
        parts = []
        if modes := run.mode_energies.get(column):
            parts.append(f"first direction {_ratio(modes[0][end], modes[0][1 - end])}")
        parts += [
            f"cluster {c.cluster} {_ratio(c.energy[column], c.energy[other])}"
            for c in run.clusters
            if c.side == column
        ][:_MOST_NUMBERS]
        if parts:
            lines += wrapped(f"{visible(column)} : {visible(other)} in energy: {', '.join(parts)}.", indent=2)
    return lines


def _ratio(own: float, other: float) -> str:
    return "∞ : 1" if other <= 0 else f"{own / other:,.3g} : 1"


def unlisted_lines(run: ComparisonRecord, *, stored: bool) -> list[str]:
    """Of how many candidates how many are not listed, and why; nothing where that is not known.

    Parameters
    ----------
    stored
        Whether ``clusters --all`` can show those that were not confirmed.
    """
    if not run.n_candidates:
        return []
    n = len(run.clusters)
    reasons = ", ".join(f"{count:,} {visible(reason)}" for reason, count in run.rejections.items() if count)
    hint = " (see clusters --all)" if stored and run.rejected else ""
    begin = f"Of {_count(run.n_candidates, 'candidate')} {n:,} {'is' if n == 1 else 'are'} listed."
    return wrapped(f"{begin} Not listed: {reasons}{hint}." if reasons else begin, indent=2)


def changes_lines(run: ComparisonRecord) -> list[str]:
    """What became of the clusters that the prefix held before; nothing for a first run."""
    if run.changes is None:
        return []
    kept = len(run.changes["kept"])
    parts = [f"{_count(kept, 'cluster')} kept" if kept else "no cluster kept"]
    for what, numbers in (("new", run.changes["new"]), ("gone", run.changes["gone"])):
        if numbers:
            more = ", …" if len(numbers) > _MOST_NUMBERS else ""
            parts.append(f"{len(numbers):,} {what} ({', '.join(map(str, numbers[:_MOST_NUMBERS]))}{more})")
    return wrapped(f"Against the last run: {', '.join(parts)}.", indent=2)


def other_column(columns: Sequence[str], side: str) -> str:
    """The embedding of the two that does not group it."""
    return columns[1] if side == columns[0] else columns[0]


def wrapped(text: str, *, indent: int = 0, margin: int = 0, width: int = WIDTH) -> list[str]:
    """Lines of at most `width` columns, broken at spaces; all but the first indented, all behind a margin."""
    lines = [" " * margin]
    for i, word in enumerate(text.split(" ")):
        space = " " if i else ""
        if i and word and display_width(lines[-1]) + 1 + display_width(word) > width:
            lines.append(" " * (margin + indent) + word)
        else:
            lines[-1] += space + word
    return lines


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"
