"""Tables of what was measured: one per figure, a line for each pair and a column for each map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["FIGURES", "Mean", "Outcome", "as_markdown", "as_text", "fill", "mean_of", "standings"]

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
        Of CPU time, to map 1,000 rows.
    seconds
        Of CPU time, to fit, all choices included.
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

    def signed(self, digits: int) -> str:
        """A difference, with its sign."""
        return self.shown(digits) if self.value < 0 else f"+{self.shown(digits)}"


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
    Figure("milliseconds", "Milliseconds of CPU time to map 1,000 rows", 1),
    Figure("seconds", "Seconds of CPU time to fit", 1),
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
    return "\n\n".join(f"{title}\n{_columns(lines)}" for title, lines in _tables(found, bold=False))


def as_markdown(found: Sequence[Outcome]) -> str:
    """All figures, the best of each line in bold."""
    tables = _tables(found, bold=True)
    return "\n\n".join(f"### {title}\n\n{_markdown(lines)}" for title, lines in tables)


def _tables(found: Sequence[Outcome], *, bold: bool) -> list[tuple[str, list[list[str]]]]:
    tables = [(figure.title, cells(found, figure, bold=bold)) for figure in FIGURES]
    return [(title, lines) for title, lines in [*tables, *standings(found)] if len(lines) > 1]


def standings(found: Sequence[Outcome]) -> list[tuple[str, list[list[str]]]]:
    """For each map of ours a table of how it stands to the best of the others, and to ridge, on each pair."""
    maps = maps_of(found)
    others = [name for name in maps if not name.startswith("ours")]
    pairs = in_order([o.pair for o in found])
    titles = [
        "pair",
        "search overlap@10 less the best other's",
        "less ridge's",
        "SPEC-diff over ridge's",
        "mismatch less the best other's",
    ]
    tables = []
    for name in maps:
        if name.startswith("ours") and others:
            lines = [[pair, *_standing(found, pair, name, others)] for pair in pairs]
            tables.append((f"{name}, on the same splits", [titles, *lines]))
    return tables


def _standing(found: Sequence[Outcome], pair: str, name: str, others: Sequence[str]) -> list[str]:
    to_ridge = difference(found, pair, name, RIDGE, "overlap")
    ours, ridge = (by_split(found, pair, which, "spec_diff").values() for which in (name, RIDGE))
    return [
        _to_best(found, pair, name, others, "overlap", lowest=True, digits=3),
        "–" if to_ridge is None else to_ridge.signed(3),
        f"{np.mean(list(ours)) / np.mean(list(ridge)):.2f}" if ours and ridge else "–",
        _to_best(found, pair, name, others, "mismatch", lowest=False, digits=2),
    ]


def _to_best(
    found: Sequence[Outcome],
    pair: str,
    name: str,
    others: Sequence[str],
    field: str,
    *,
    lowest: bool,
    digits: int,
) -> str:
    """The lowest difference to another map, or the highest: that to the one that does best; and its name."""
    known = [(difference(found, pair, name, other, field), other) for other in others]
    there = [(mean, other) for mean, other in known if mean is not None]
    if not there:
        return "–"
    best = (min if lowest else max)(there, key=lambda item: item[0].value)
    return f"{best[0].signed(digits)} ({best[1]})"


def _columns(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(w) if i else cell.ljust(w)
            for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(lines[0]) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:]))


def fill(document: str, measured: str) -> str:
    """The document with what stands between its two marks replaced.

    Raises ValueError for a document that lacks them.
    """
    head, begin, rest = document.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no place for the tables: the document needs the lines {BEGIN} and {END}")
    return f"{head}{BEGIN}\n\n{measured}\n\n{END}{tail}"
