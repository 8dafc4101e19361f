"""A gate's answer in words: its headline in one sentence, and its slices as a table of text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from .searching import QueryFigures
from .verdicts import Share, SliceVerdict

__all__ = ["Verdicts", "headline_sentence", "listed", "outcome_sentence", "slices_table", "worst_first"]

_NAMED = 5


class Verdicts(Protocol):
    """What is said of a `Gate`, which itself lies above this module."""

    @property
    def columns(self) -> tuple[str, str]: ...
    @property
    def map(self) -> str | None: ...
    @property
    def in_place(self) -> bool: ...
    @property
    def k(self) -> int: ...
    @property
    def headline(self) -> Share: ...
    @property
    def overall(self) -> SliceVerdict: ...
    @property
    def slices(self) -> tuple[SliceVerdict, ...]: ...
    @property
    def queries(self) -> QueryFigures | None: ...
    @property
    def passed(self) -> bool: ...
    @property
    def failures(self) -> tuple[str, ...]: ...


def headline_sentence(found: Verdicts) -> str:
    """What a searcher finds after the switch, and finds today."""
    a, b = found.columns
    model, ideal = (a, "the unmapped rows") if found.in_place else (b, "full re-embedding")
    switch = "After the switch" if found.map else "Without a map or re-embedding"
    if found.queries is not None:
        nothing = found.queries.do_nothing
        today = None if nothing is None else nothing.search_overlap.value
    else:
        today = found.overall.do_nothing
    shown = f" (today: {today:.2f})" if today is not None and found.map and not found.in_place else ""
    who = f"a searcher of {model}" if found.map else f"a searcher, still of {a},"
    return f"{switch} {who} finds {found.headline} of the {found.k} rows that {ideal} would give{shown}."


def outcome_sentence(found: Verdicts) -> str:
    """Whether it passed, or what failed."""
    return "Passed." if found.passed else f"Failed: {listed(found.failures)}."


def worst_first(slices: Sequence[SliceVerdict]) -> list[SliceVerdict]:
    """Those that fail by how little is found, then the others; last those of which nothing is known."""

    def badness(s: SliceVerdict) -> tuple[bool, bool, float]:
        value = s.search_overlap.value
        return value is None, not s.fails, 1.0 if value is None else value

    return sorted(slices, key=badness)


def slices_table(
    found: Verdicts, slices: Sequence[SliceVerdict]
) -> tuple[list[str], list[list[str]], list[int]]:
    """All rows and the slices: header, body, and the columns that are aligned to the right."""
    shows_twins = found.overall.twin_recall is not None
    header = ["slice", "rows", "queries", f"search overlap@{found.k}", "do nothing"]
    header += [f"twin recall@{found.k}"] if shows_twins else []
    body = [
        [
            *(s.name, f"{s.n_rows:,}", f"{s.n_queries:,}", str(s.search_overlap)),
            *(_share(v) for v in (s.do_nothing, s.twin_recall)[: 1 + shows_twins]),
            "leave unmapped" if found.in_place and s.verdict == "re-embed" else s.verdict,
        ]
        for s in (found.overall, *slices)
    ]
    return [*header, "verdict"], body, [1, 2, *range(4, len(header))]


def listed(names: Sequence[str]) -> str:
    """A few names, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
