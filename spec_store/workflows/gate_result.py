"""What a gate is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from ..alignment.cutoff import CutOff
from ..errors import InputError, did_you_mean
from ..runs.clusters import json_values
from .notebook import gate_html
from .plan import Plan, budget_rows
from .searching import QueryFigures
from .verdicts import FEWEST_QUERIES, Share, SliceVerdict

__all__ = ["Gate", "GateOptions"]


@dataclass(frozen=True)
class GateOptions:
    """What to evaluate a switch on.

    Attributes
    ----------
    slices
        SQL filters beside the SPEC clusters of the newest comparison of these columns.
    k
        How many rows a search gives.
    fail_under
        Least search overlap: of the rows that full re-embedding would give, the share that must be found. A
        slice fails where its whole interval is under it.
    min_rows
        Slices with fewer rows in the table don't fail the gate.
    judged_rows
        Size of the index that is searched: a uniform sample of the table, or all of a smaller one.
    query_rows
        How many test rows stand in as queries; up to 200 of each slice are added.
    whole_table
        Search all rows for the uniform sample of queries, too, where no real ones are given and the sample
        is not all of the table.
    budget
        Rows that may be re-embedded, or a percentage of the table such as ``"10%"``; None for no limit.
    cutoff
        A cosine similarity, tuned on the source model, to be moved.
    query_source, query_target, relevant
        Columns of the queries, where `gate` is given any: their vectors by both models, and lists of the keys
        of the rows that are relevant.
    key, on_missing
        As in `CompareOptions`; the key is by default the one that `align` was given.
    """

    slices: tuple[str, ...] = ()
    k: int = 10
    fail_under: float = 0.8
    min_rows: int = 50
    judged_rows: int = 20_000
    query_rows: int = 2000
    whole_table: bool = False
    budget: int | str | None = None
    cutoff: float | None = None
    query_source: str | None = None
    query_target: str | None = None
    relevant: str | None = None
    key: str | None = None
    on_missing: Literal["error", "drop"] = "error"

    def __post_init__(self) -> None:
        object.__setattr__(self, "slices", tuple(self.slices))
        if not 0 <= self.fail_under <= 1:
            raise InputError(f"fail_under is {self.fail_under}; expected a share from 0 to 1.")
        for name, least in (("k", 1), ("min_rows", 0), ("judged_rows", 2), ("query_rows", FEWEST_QUERIES)):
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}; expected {least} or more.")
        if self.k >= self.judged_rows:
            raise InputError(
                f"k is {self.k}, and {self.judged_rows:,} rows are searched (judged_rows); expected fewer."
            )
        if self.budget is not None:
            budget_rows(self.budget, 0)
        if self.cutoff is not None and not -1 <= self.cutoff <= 1:
            raise InputError(f"cutoff is {self.cutoff}; expected a cosine similarity from -1 to 1.")

    @classmethod
    def from_keywords(cls, given: Mapping[str, Any]) -> GateOptions:
        """From keyword arguments; raises InputError naming the nearest option for an unknown one."""
        known = {f.name for f in fields(cls)}
        for name in given:
            if name not in known:
                raise InputError(f"No option {name!r}. {did_you_mean(name, known)}")
        return cls(**given)


@dataclass(frozen=True, repr=False)
class Gate:
    """The verdicts on a planned switch.

    Attributes
    ----------
    table, columns, n_rows
        What is switched: the table, its source and target column, and its rows.
    map
        Which map was evaluated: a run, a file, or None for none.
    in_place
        Whether the index stays in the source's space: the source's queries are asked, and the unmapped source
        takes the place of full re-embedding.
    k, fail_under, min_rows
        As given.
    n_searched
        Rows of the index that was searched for the verdicts: a sample of the table.
    n_embedded
        Rows that hold the target's own vectors already: counted where a column says so, else estimated.
    overall
        Of all rows together.
    slices
        Clusters first, then the slices that were named.
    re_embed, n_re_embed
        SQL filter of the rows that fail, None for none; and how many they are.
    mixed
        Search overlap over all queries once these rows are re-embedded; None where there are none.
    through_index
        What a search through the aligned column's vector index finds, an approximate one; None without one,
        or where only a sample was searched: `queries` has the figure for the whole table.
    plan
        What to re-embed first; None where there is no mixed index: without a map.
    cutoff
        The similarity cut-off, moved; None where none was given.
    queries
        Figures over the whole table: of real queries, or of rows that stand in for them with `whole_table`.
    warnings
        What a person should know before relying on the verdicts.
    """

    table: str | None
    columns: tuple[str, str]
    map: str | None
    in_place: bool
    k: int
    fail_under: float
    min_rows: int
    n_rows: int
    n_searched: int
    n_embedded: int
    overall: SliceVerdict
    slices: tuple[SliceVerdict, ...]
    re_embed: str | None
    n_re_embed: int
    mixed: Share | None
    through_index: Share | None
    plan: Plan | None
    cutoff: CutOff | None
    queries: QueryFigures | None
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        a, b = self.columns
        verdict = "passed" if self.passed else f"{len(self.failures)} failed"
        return f"<Gate of {a} to {b}: search overlap@{self.k} {self.headline}, {verdict}>"

    def _repr_html_(self) -> str:
        return gate_html(self)

    @property
    def headline(self) -> Share:
        """What a searcher finds after the switch: in the whole table where that was searched."""
        if self.queries is None:
            return self.overall.search_overlap
        found = self.queries.mapped or self.queries.do_nothing
        assert found is not None
        return found.search_overlap

    @property
    def failed(self) -> tuple[SliceVerdict, ...]:
        """All rows, clusters and slices, of at least `min_rows` rows, that the switch would break."""
        return tuple(s for s in (self.overall, *self.slices) if s.fails and s.n_rows >= self.min_rows)

    @property
    def failures(self) -> tuple[str, ...]:
        """The names of these, and "queries" where the figure for the whole table is under the bar."""
        searched = self.queries is not None and self.headline.is_under(self.fail_under)
        return (*(s.name for s in self.failed), *(["queries"] if searched else []))

    @property
    def passed(self) -> bool:
        """Whether nothing fails."""
        return not self.failures

    def to_json(self) -> dict[str, Any]:
        """The object that ``gate --json`` prints; its keys are stable."""
        plain: dict[str, Any] = json_values(asdict(self))
        return {**plain, "passed": self.passed, "failed": list(self.failures)}
