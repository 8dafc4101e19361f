"""Which rows to re-embed first: slices by what a searcher gains per row, measured on mixed indexes."""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..alignment.mixed import MixedSearch
from ..errors import InputError
from .verdicts import Share, any_of

__all__ = ["Plan", "PlanSlice", "PlanStep", "budget_rows", "make_plan"]

_BUDGET = re.compile(r"\s*([0-9][0-9_,]*|[0-9]*\.?[0-9]+\s*(%))\s*")


def budget_rows(budget: int | str, n_rows: int) -> int:
    """Rows of a budget: a number of them, or a percentage of the table such as ``10%``.

    Raises InputError for anything else.
    """
    found = _BUDGET.fullmatch(str(budget))
    if isinstance(budget, bool) or found is None:
        raise InputError(
            f"budget is {budget!r}; expected a number of rows such as 100000, or a percentage such as 10%."
        )
    if not found[2]:
        return int(re.sub("[_,]", "", found[1]))
    share = float(found[1].rstrip("% "))
    if share > 100:
        raise InputError(f"budget is {budget!r}; expected at most 100%.")
    return int(n_rows * share / 100)


@dataclass(frozen=True)
class PlanSlice:
    """A slice that may be re-embedded: its name, SQL filter, and rows of the sampled index, shape (m,)."""

    name: str
    where: str
    members: NDArray[np.bool_]


@dataclass(frozen=True)
class PlanStep:
    """One slice of a plan, and the index once its rows and those of the steps before are re-embedded.

    Attributes
    ----------
    name, where
        The slice, and the SQL filter of its rows.
    n_rows
        Rows that it adds to those of the steps before and to those that are re-embedded already.
    n_rows_total
        Rows re-embedded with this step and those before.
    search_overlap
        Over all queries, measured on the index of mapped and re-embedded rows.
    gain
        What the step adds to it.
    """

    name: str
    where: str
    n_rows: int
    n_rows_total: int
    search_overlap: Share
    gain: float


@dataclass(frozen=True)
class Plan:
    """What to re-embed first.

    Attributes
    ----------
    steps
        Slices by the gain per row that is re-embedded, each measured beside the steps before it. Slices
        without a gain are not in it.
    budget
        Rows that may be re-embedded; None for no limit.
    skipped
        Slices with a gain that the rest of the budget did not pay for.
    where
        SQL filter of the rows of all steps; None for none.
    n_rows
        How many these are.
    search_overlap
        After all steps; with no steps that of the index as it is.
    """

    steps: tuple[PlanStep, ...]
    budget: int | None
    skipped: tuple[str, ...]
    where: str | None
    n_rows: int
    search_overlap: Share


def make_plan(
    search: MixedSearch,
    n_queries: int,
    slices: Sequence[PlanSlice],
    *,
    embedded: NDArray[np.bool_],
    embedded_filter: str | None,
    count: Callable[[str], int],
    budget: int | None,
) -> Plan:
    """Take slices one by one, the one with the largest gain per row first, as long as the budget lasts.

    Parameters
    ----------
    n_queries
        The first so many queries of the search stand for all.
    embedded, embedded_filter
        Rows of the sampled index that are re-embedded already, shape (m,), and their filter, None if unknown.
    count
        The rows of the table that a filter selects.
    budget
        Rows; a slice that needs more than is left is skipped.

    Notes
    -----
    Greedy. A slice's gain is measured again when its turn comes, and it is taken if it is still the best.
    """
    taken = np.zeros(len(embedded), bool)
    current = search.overlap(taken, n_queries)
    steps: list[PlanStep] = []
    skipped: list[str] = []
    total = 0

    def per_row(s: PlanSlice) -> float:
        added = s.members & ~taken & ~embedded
        if not added.any():
            return -np.inf
        return float((search.overlap(taken | added, n_queries) - current).mean() / added.sum())

    queue = [(-per_row(s), i) for i, s in enumerate(slices)]
    heapq.heapify(queue)
    while queue:
        _, i = heapq.heappop(queue)
        gain = per_row(slices[i])
        if gain <= 0:
            continue
        if queue and -gain > queue[0][0]:
            heapq.heappush(queue, (-gain, i))
            continue
        filters = [s.where for s in steps] + [slices[i].where]
        where = any_of(filters, beside=embedded_filter)
        assert where is not None
        n_total = count(where)
        if n_total == total:  # all of its rows are re-embedded already
            continue
        if budget is not None and n_total > budget:
            skipped.append(slices[i].name)
            continue
        taken |= slices[i].members & ~embedded
        after = search.overlap(taken, n_queries)
        gained = float((after - current).mean())
        steps.append(
            PlanStep(slices[i].name, slices[i].where, n_total - total, n_total, Share.of(after), gained)
        )
        current, total = after, n_total
    return Plan(
        steps=tuple(steps),
        budget=budget,
        skipped=tuple(skipped),
        where=any_of([s.where for s in steps], beside=embedded_filter),
        n_rows=total,
        search_overlap=Share.of(current),
    )
