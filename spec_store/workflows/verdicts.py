"""Verdicts on a switch: of what a searcher should find, the share found, for all rows and slice by slice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..alignment.metrics import bootstrap_interval, nearest, twin_ranks
from ..alignment.mixed import MixedSearch
from ..keys import hash_keys
from ..stores.filters import negated, parenthesized
from .sampled import SwitchSample
from .switch import Switch

__all__ = ["ALL_ROWS", "FEWEST_QUERIES", "Share", "SliceVerdict", "SwitchEvaluation", "Verdict", "any_of"]

ALL_ROWS = "true"
FEWEST_QUERIES = 10
_INDEX_QUERIES = 200
_ROUNDING = 1e-9
Verdict = Literal["keep", "re-embed", "in part", "too few rows"]


@dataclass(frozen=True)
class Share:
    """A mean over queries.

    Attributes
    ----------
    value
        In [0, 1]; None where it can't be known.
    low, high
        Its 95% bootstrap interval over the queries.
    """

    value: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> Share:
        """The mean of one number per query; NaN ones are left out."""
        known = values[~np.isnan(values)]
        return cls(float(known.mean()), *bootstrap_interval(known)) if len(known) else cls(None, None, None)

    def is_under(self, bar: float) -> bool:
        """Whether the whole interval is: not by rounding, and not where nothing is known."""
        return self.high is not None and self.high < bar - _ROUNDING

    def __str__(self) -> str:
        return "-" if self.value is None else f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True)
class SliceVerdict:
    """One cluster or slice.

    Attributes
    ----------
    name, where
        What it is, and the SQL filter of its rows.
    n_rows, n_queries
        Its rows in the table, and those that stood in as queries: test rows of the map.
    search_overlap
        Of the k rows that full re-embedding would give, the share found in the index after the switch.
    do_nothing
        The same share for the source's queries in the source's rows: what is found today.
    twin_recall
        The share of rows whose mapped vector finds its own target among the k nearest; None where the map
        does not lead into the target's space. It is not what a searcher sees, and no verdict goes by it.
    verdict
        "re-embed": the whole interval of `search_overlap` is under `fail_under`. "in part": so it is, but
        only for rows of other slices that are to be re-embedded.
    """

    name: str
    where: str
    n_rows: int
    n_queries: int
    search_overlap: Share
    do_nothing: float | None
    twin_recall: float | None
    verdict: Verdict

    @property
    def fails(self) -> bool:
        """Whether the switch would break it."""
        return self.verdict in ("re-embed", "in part")


@dataclass(frozen=True)
class SwitchEvaluation:
    """The searches of a sample before and after a switch, and verdicts from them."""

    switch: Switch
    sample: SwitchSample
    k: int
    fail_under: float

    @cached_property
    def search(self) -> MixedSearch:
        """Searches by the queries of the model that is in use after the switch."""
        s, rows = self.sample, self.sample.rows
        reference = self.switch.reference(rows)
        indexed = reference if self.switch.map is None else rows.indexed
        return MixedSearch(reference[: s.n_queries], reference[s.index], indexed[s.index], s.own, self.k)

    @cached_property
    def do_nothing(self) -> NDArray[np.float64]:
        """Per query, what the source's own query finds in the source's rows of the right answer."""
        s, a = self.sample, self.sample.rows.source
        return self.search.overlap_of(nearest(a[: s.n_queries], self.search.k, gallery=a[s.index], own=s.own))

    @cached_property
    def after(self) -> NDArray[np.float64]:
        """Per query, what is found in the index after the switch; without a map, the same as today."""
        if self.switch.map is None:
            return self.do_nothing
        return self.search.overlap(self.nothing_embedded)

    @property
    def nothing_embedded(self) -> NDArray[np.bool_]:
        """No row of the index beyond those that are re-embedded already."""
        return np.zeros(len(self.sample.index), bool)

    @cached_property
    def twins(self) -> NDArray[np.float64] | None:
        """Per query, 1 where the mapped vector finds its own target among the k nearest."""
        if self.switch.map is None or self.switch.in_place:
            return None
        s, rows = self.sample, self.sample.rows
        f, b = self.switch.mapped(rows.source[: s.n_queries]), rows.target
        return (twin_ranks(f, b[: s.n_queries], b[s.index], s.own) < self.k).astype(np.float64)

    def through_index(self) -> Share | None:
        """What a search through the aligned column's vector index finds, over at most 200 queries.

        None where the column has no such index, or where not all rows of the table are in the sample.
        """
        s, column, n = self.sample, self.switch.index_column, min(_INDEX_QUERIES, self.sample.n_common)
        if column is None or len(s.index) < self.switch.source.count():
            return None
        asked = self.switch.reference(s.rows)[:n]
        answers = self.switch.source.search_index(column, asked, k=self.k + 1)
        if answers is None:
            return None
        order = np.argsort(s.names[s.index])
        ordered = s.names[s.index][order]
        found = np.full((n, self.k), -1, np.intp)
        for i, keys in enumerate(answers):
            at = order[np.searchsorted(ordered, hash_keys(keys))]
            at = at[at != s.own[i]][: self.k]
            found[i, : len(at)] = at
        return Share.of(self.search.overlap_of(found))

    def mixed(self, slices: Sequence[int] | None) -> Share:
        """Over the common sample, with the rows of these slices re-embedded; None for all rows."""
        s = self.sample
        embedded = np.ones(len(s.index), bool)
        if slices is not None:
            embedded = np.logical_or.reduce(s.members[list(slices)])[s.index]
        return Share.of(self.search.overlap(embedded, s.n_common))

    def verdicts(
        self, names: Sequence[str], filters: Sequence[str], counts: Sequence[int]
    ) -> tuple[list[SliceVerdict], list[int]]:
        """A verdict on all rows and one on each slice, in this order; and which of them fail by themselves.

        Parameters
        ----------
        names, filters, counts
            All rows first, then the slices.
        """
        queries = [self._queries(i) for i in range(len(names))]
        found = [
            self._verdict(name, where, n, chosen)
            for name, where, n, chosen in zip(names, filters, counts, queries, strict=True)
        ]
        return self._separated(found, queries)

    def _queries(self, i: int) -> NDArray[np.bool_]:
        """Which queries are rows of slice `i`; 0 for all rows, which the common sample stands for."""
        s = self.sample
        return np.arange(s.n_queries) < s.n_common if i == 0 else s.members[i - 1, : s.n_queries]

    def _verdict(self, name: str, where: str, n_rows: int, chosen: NDArray[np.bool_]) -> SliceVerdict:
        n = int(chosen.sum())
        if n < FEWEST_QUERIES:
            return SliceVerdict(name, where, n_rows, n, Share(None, None, None), None, None, "too few rows")
        overlap = Share.of(self.after[chosen])
        return SliceVerdict(
            name=name,
            where=where,
            n_rows=n_rows,
            n_queries=n,
            search_overlap=overlap,
            do_nothing=float(self.do_nothing[chosen].mean()),
            twin_recall=None if self.twins is None else float(self.twins[chosen].mean()),
            verdict="re-embed" if overlap.is_under(self.fail_under) else "keep",
        )

    def _separated(
        self, found: list[SliceVerdict], queries: list[NDArray[np.bool_]]
    ) -> tuple[list[SliceVerdict], list[int]]:
        """Slices that fail by themselves, and those that do for rows of others.

        The worst comes first, and all rows together last: each is evaluated again without the rows that are
        to be re-embedded by then.
        """
        separated = list(found)
        failing: list[int] = []
        gone = np.zeros(self.sample.n_queries, bool)
        worst = [i for i, v in enumerate(found) if v.verdict == "re-embed"]
        for i in sorted(worst, key=lambda i: (i == 0, found[i].search_overlap.value)):
            rest = queries[i] & ~gone
            if failing and self._verdict("", "", 0, rest).verdict != "re-embed":
                separated[i] = replace(found[i], verdict="in part")
                continue
            failing = [0] if i == 0 else [*failing, i]
            gone |= queries[i] if i else ~gone
        return separated, failing


def any_of(filters: Sequence[str], *, beside: str | None = None) -> str | None:
    """Rows of any of the filters, without those of `beside`; None for no filter."""
    if not filters:
        return None
    joined = ALL_ROWS if ALL_ROWS in filters else " OR ".join(parenthesized(f) for f in filters)
    if beside is None:
        return joined
    return negated(beside) if joined == ALL_ROWS else f"({joined}) AND {negated(beside)}"
