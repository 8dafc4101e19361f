"""Tables of what was measured: one per figure, a line for each pair and a column for each map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["FIGURES", "Mean", "Outcome", "as_markdown", "as_text", "fill", "mean_of", "summary"]

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
RIDGE = "ridge"


@dataclass(frozen=True)
class Outcome:
    """One map on one split of one pair; None for a figure that has no meaning there.

    Attributes
    ----------
    overlap, ndcg, twin_recall
        Of searches for 10 rows, see searches.py; shares.
    spec_diff
        Of the searched rows against the new model's.
    mismatch
        Mismatch mass of the new model's clusters, after over before.
    milliseconds
        To map 1,000 rows.
    seconds
        To fit, all choices included.
    """

    pair: str
    map: str
    seed: int
    overlap: float
    ndcg: float
    twin_recall: float | None
    spec_diff: float
    mismatch: float | None
    milliseconds: float | None
    seconds: float | None


@dataclass(frozen=True)
class Mean:
    """A mean over splits, and half the length of its 95% t interval; None for one split."""

    value: float
    half: float | None

    def shown(self, digits: int) -> str:
        text = f"{self.value:.{digits}f}"
        return text if self.half is None else f"{text} ± {self.half:.{digits}f}"


@dataclass(frozen=True)
class Figure:
    """How a figure is shown."""

    field: str
    title: str
    digits: int
    highest_is_best: bool | None = None


FIGURES = (
    Figure("overlap", "Search overlap@10", 3, True),
    Figure("ndcg", "nDCG@10", 3, True),
    Figure("twin_recall", "Twin recall@1", 3, True),
    Figure("spec_diff", "SPEC-diff", 3, False),
    Figure("mismatch", "Mismatch of the new model's clusters, after over before", 2, False),
    Figure("milliseconds", "Milliseconds to map 1,000 rows", 1),
    Figure("seconds", "Seconds to fit", 1),
)


def mean_of(values: Sequence[float]) -> Mean:
    """Mean of one value per split, with its interval."""
    from scipy.stats import t

    n = len(values)
    half = float(t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n)) if n > 1 else None
    return Mean(float(np.mean(values)), half)


def by_split(found: Sequence[Outcome], pair: str, name: str, field: str) -> dict[int, float]:
    """A figure of one map on one pair, by seed; empty where it has none."""
    chosen = (o for o in found if (o.pair, o.map) == (pair, name))
    values = {o.seed: getattr(o, field) for o in chosen}
    return {seed: value for seed, value in values.items() if value is not None}


def difference(found: Sequence[Outcome], pair: str, one: str, other: str, field: str) -> Mean | None:
    """The mean over splits of one map's figure less another's on the same rows; None where one has none."""
    values, others = (by_split(found, pair, name, field) for name in (one, other))
    both = sorted(values.keys() & others.keys())
    return mean_of([values[seed] - others[seed] for seed in both]) if both else None


def in_order(values: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(values))


def maps_of(found: Sequence[Outcome]) -> list[str]:
    """In the order of the pair that has most of them, since some maps can't be had for some widths."""
    by_pair = [in_order([o.map for o in found if o.pair == pair]) for pair in {o.pair for o in found}]
    return in_order([*max(by_pair, key=len), *(name for maps in by_pair for name in maps)])


def cells(found: Sequence[Outcome], figure: Figure, *, bold: bool) -> list[list[str]]:
    """Headings, then a line per pair; in bold the best mean, where there is a best."""
    pairs, maps = in_order([o.pair for o in found]), maps_of(found)
    lines = [["pair", *maps]]
    for pair in pairs:
        splits = [by_split(found, pair, name, figure.field) for name in maps]
        means = [mean_of(list(values.values())) if values else None for values in splits]
        known = [mean.value for mean in means if mean is not None]
        if not known:
            continue
        best = max(known) if figure.highest_is_best else min(known)
        marked = bold and figure.highest_is_best is not None
        shown = ["–" if mean is None else mean.shown(figure.digits) for mean in means]
        for i, mean in enumerate(means):
            if marked and mean is not None and mean.value == best:
                shown[i] = f"**{shown[i]}**"
        lines.append([pair, *shown])
    return lines


def as_text(found: Sequence[Outcome]) -> str:
    """All figures, in columns."""
    parts = []
    for figure in FIGURES:
        lines = cells(found, figure, bold=False)
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        parts.append(figure.title)
        parts += [
            "  ".join(cell.ljust(w) if not i else cell.rjust(w) for i, (cell, w) in enumerate(pairs))
            for pairs in (list(zip(line, widths, strict=True)) for line in lines)
        ]
        parts.append("")
    return "\n".join(parts)


def as_markdown(found: Sequence[Outcome]) -> str:
    """All figures, the best of each line in bold, and the summary."""
    parts = []
    for figure in FIGURES:
        lines = cells(found, figure, bold=True)
        rule = ["---", *["---:"] * (len(lines[0]) - 1)]
        parts.append(f"### {figure.title}\n")
        parts += [f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:])]
        parts.append("")
    return "\n".join(parts) + "\n" + summary(found)


def summary(found: Sequence[Outcome]) -> str:
    """Per map of ours: where a baseline's searches find more, and how it stands to ridge."""
    maps = maps_of(found)
    return "\n\n".join(
        _summary_of(found, name, [other for other in maps if not other.startswith("ours")])
        for name in maps
        if name.startswith("ours")
    )


def _summary_of(found: Sequence[Outcome], name: str, rivals: Sequence[str]) -> str:
    pairs = in_order([o.pair for o in found])
    lines = [f"{name}: search overlap@10 less that of the best other map, on the same splits:"]
    for pair in pairs:
        against = [(difference(found, pair, name, rival, "overlap"), rival) for rival in rivals]
        known = [(d, rival) for d, rival in against if d is not None]
        if known:
            least, rival = min(known, key=lambda item: item[0].value)
            lines.append(f"- {pair}: {_signed(least)} ({rival})")
    to_ridge = [difference(found, pair, name, RIDGE, "overlap") for pair in pairs]
    gains = [d.value for d in to_ridge if d is not None]
    if gains:
        ahead = sum(gain >= 0.02 for gain in gains)
        lines.append(f"\nAhead of ridge by 0.02 or more on {ahead} of {len(gains)} pairs.")
    return "\n".join(lines)


def _signed(mean: Mean) -> str:
    text = f"{mean.value:+.3f}"
    return text if mean.half is None else f"{text} ± {mean.half:.3f}"


def fill(document: str, measured: str) -> str:
    """The document with what stands between its two marks replaced.

    Raises ValueError for a document that lacks them.
    """
    head, begin, rest = document.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no place for the tables: the document needs the lines {BEGIN} and {END}")
    return f"{head}{BEGIN}\n\n{measured}\n\n{END}{tail}"
