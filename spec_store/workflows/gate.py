"""A gate for switching models: what will a searcher still find, and which rows must be re-embedded?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..alignment.cutoff import CutOff, shift_cutoff
from ..bars import shown
from ..connector import Source
from ..errors import InputError
from ..keywords import GateKeywords
from ..progress import Progress, ProgressOption
from ..stores.filters import quoted
from ..stores.tables import Database, TableLike
from .annotated import held_comparisons
from .gate_result import Gate, GateOptions
from .plan import Plan, PlanSlice, budget_rows, make_plan
from .real_queries import Queries, read_queries
from .sampled import SwitchSample, draw_switch_sample
from .searching import QueryFigures, search_table
from .switch import GivenMap, Switch, open_switch
from .verdicts import ALL_ROWS, FEWEST_QUERIES, Share, SwitchEvaluation, any_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Gate", "GateOptions", "gate"]

_CUTOFF_QUERIES = 500
# A map is at its best on rows that it was fitted on. That is told where these are most of what is searched,
# and its inputs a tenth of them.
_MOSTLY_FITTED = 0.5
_SHOWS = 0.1


def gate(
    table: str,
    source: str,
    target: str,
    *,
    db: Database = None,
    map: GivenMap = "recorded",
    queries: TableLike | None = None,
    progress: ProgressOption = "auto",
    options: GateOptions | None = None,
    **keywords: Unpack[GateKeywords],
) -> Gate:
    """Evaluate a switch from `source` to `target`: of what a searcher should find, what will be found.

    Parameters
    ----------
    map
        "recorded" is the newest that `align` wrote for these columns; else a map, its file, or None for a
        switch without any.
    queries
        Real queries: a file, a table, ``connector:uri``, or data in memory. By default test rows of the map
        stand in for them.
    progress
        As in `compare`.
    options
        Everything else; or give the fields of `GateOptions` as keywords.

    Raises
    ------
    InputError
        No such table, columns, map, queries or filter; or no row that the map was not fitted on.

    Notes
    -----
    The verdicts go by a sample: `query_rows` test rows, and up to 200 of each slice, search `judged_rows`
    rows. The more rows are searched, the harder it is to find the right ones. Real queries search the whole
    table, exactly. Cost: two passes over the keys, one or two per slice, the sampled rows, and with real
    queries one pass over the vectors.
    """
    if options is None:
        options = GateOptions.from_keywords(keywords)
    elif keywords:
        raise InputError(f"Give either options or keywords ({', '.join(keywords)}), not both.")
    named = [n for n in ("query_source", "query_target", "relevant") if getattr(options, n) is not None]
    if queries is None and named:
        raise InputError(f"{named[0]} is a column of the queries, and no queries are given (--queries).")
    switch = open_switch(
        table, source, target, db=db, map=map, key=options.key, on_missing=options.on_missing
    )
    if options.cutoff is not None and switch.map is None:
        raise InputError(
            "A cut-off is moved to the mapped index: without a map there is none. Leave out cutoff."
        )
    with shown(progress) as update:
        return _evaluated(switch, table, queries, db, options, update)


def _evaluated(
    switch: Switch,
    table: str,
    queries: TableLike | None,
    db: Database,
    options: GateOptions,
    progress: Progress,
) -> Gate:
    clusters = _clusters(switch.source, switch.columns)
    slices = [*clusters, *((where, where) for where in options.slices)]
    count = switch.source.count
    n_rows = count()
    counts = [count(where) for _, where in slices]  # refuses what is no filter before any work
    if options.k >= n_rows:
        raise InputError(f"k is {options.k}; {switch.source.describe()} has {n_rows:,} rows, expected fewer.")
    asked = None if queries is None else _asked(switch, queries, db, options)

    filters = [where for _, where in slices]
    sample = _sampled(switch, filters, counts, n_rows, options, progress)
    evaluation = SwitchEvaluation(switch, sample, options.k, options.fail_under)
    names = ["all rows", *(name for name, _ in slices)]
    verdicts, failing = evaluation.verdicts(names, [ALL_ROWS, *filters], [n_rows, *counts])
    re_embed = any_of([verdicts[i].where for i in failing], beside=switch.embedded_filter)
    plan = _plan(evaluation, slices, n_rows, options)
    if asked is None and options.whole_table and len(sample.index) < n_rows:
        asked = _stand_ins(switch, sample)
    mixed = re_embed if plan is None or options.budget is None else plan.where
    return Gate(
        table=table,
        columns=switch.columns,
        map=switch.name,
        in_place=switch.in_place,
        k=options.k,
        fail_under=options.fail_under,
        min_rows=options.min_rows,
        n_rows=n_rows,
        n_searched=len(sample.index),
        n_embedded=_n_embedded(switch, sample, n_rows),
        overall=verdicts[0],
        slices=tuple(verdicts[1:]),
        re_embed=re_embed,
        n_re_embed=_n_re_embed(count, re_embed, n_rows),
        mixed=_mixed(evaluation, failing),
        through_index=evaluation.through_index(),
        plan=plan,
        cutoff=None if options.cutoff is None else _moved(switch, sample, asked, options.cutoff),
        queries=None if asked is None else _searched(switch, asked, options.k, mixed, n_rows, progress),
        warnings=tuple(_warnings(switch, sample, bool(clusters), n_rows)),
    )


def _sampled(
    switch: Switch,
    filters: Sequence[str],
    counts: Sequence[int],
    n_rows: int,
    options: GateOptions,
    progress: Progress,
) -> SwitchSample:
    progress("sample", 0, len(filters))
    sample = draw_switch_sample(
        switch,
        filters,
        counts,
        n_rows=n_rows,
        index_rows=options.judged_rows,
        query_rows=options.query_rows,
        progress=lambda n: progress("sample", n, len(filters)),
    )
    if sample.n_common < FEWEST_QUERIES or len(sample.index) <= options.k:
        raise InputError(
            f"{sample.n_common} test rows of the map, never fitted on, and {len(sample.index)} rows of"
            f" {switch.source.describe()} can be evaluated; expected at least {FEWEST_QUERIES}, and more than"
            f" k = {options.k}."
        )
    return sample


def _stand_ins(switch: Switch, sample: SwitchSample) -> Queries:
    """The uniform sample of test rows, as queries of the whole table."""
    n = sample.n_common
    target = None if switch.in_place else sample.rows.target[:n]
    return Queries(sample.rows.source[:n], target, own=sample.names[:n])


def _asked(switch: Switch, queries: TableLike, db: Database, options: GateOptions) -> Queries:
    return read_queries(
        switch,
        queries,
        query_source=options.query_source,
        query_target=options.query_target,
        relevant=options.relevant,
        db=db,
    )


def _searched(
    switch: Switch, asked: Queries, k: int, re_embed: str | None, n_rows: int, progress: Progress
) -> QueryFigures:
    progress("search", 0, n_rows)
    return search_table(switch, asked, k, re_embed=re_embed, progress=lambda n: progress("search", n, n_rows))


def _clusters(source: Source, pair: tuple[str, str]) -> list[tuple[str, str]]:
    """Name and filter of each cluster of the newest comparison of these columns that the source holds."""
    held = held_comparisons(source, columns=pair)
    return [
        (f"cluster {c.cluster} (grouped by {c.side})", c.where) for c in (held[0].clusters if held else ())
    ]


def _fitted_warning(switch: Switch, n_rows: int) -> list[str]:
    """Whether most of what is searched was fitted, by a map of so many inputs that this shows."""
    if switch.map is None:
        return []
    options = switch.about.get("options") or {}
    n_known = n_rows - switch.n_without_target
    n_train = n_known * (1 - switch.held_out)
    n_fitted = min(n_train, options.get("fit_rows") or n_train)
    n_inputs = switch.widths[0] + int(options.get("n_landmarks") or 0)
    if n_fitted < _MOSTLY_FITTED * n_known or n_inputs < _SHOWS * n_fitted:
        return []
    return [
        f"the map was fitted on about {n_fitted / n_known:.0%} of the rows searched, and serves these best:"
        " among rows that it never saw, less is found."
    ]


def _warnings(switch: Switch, sample: SwitchSample, has_clusters: bool, n_rows: int) -> list[str]:
    a, b = switch.columns
    found = _fitted_warning(switch, n_rows)
    if not has_clusters:
        found.append(
            f"the table holds no clusters of {a} and {b}, so only all rows and the slices named are"
            " evaluated: run spec-store compare first."
        )
    if switch.aligned is not None and (n := switch.source.count(f"{quoted(switch.aligned)} IS NULL")):
        found.append(
            f"{n:,} rows have no {switch.aligned} yet, and are evaluated as spec-store update would fill"
            " them."
        )
    if switch.n_without_target:
        found.append(
            f"{switch.n_without_target:,} rows have no {b} yet: what a search should find is known among the"
            " others alone, which are evaluated as if all of them were mapped."
        )
    if sample.n_unusable:
        found.append(
            f"{sample.n_unusable:,} sampled rows have no usable {a if switch.in_place else b} and were left"
            " out."
        )
    return found


def _n_re_embed(count: Callable[[str], int], where: str | None, n_rows: int) -> int:
    if where is None:
        return 0
    return n_rows if where == ALL_ROWS else count(where)  # a store without filters has all rows, too


def _n_embedded(switch: Switch, sample: SwitchSample, n_rows: int) -> int:
    if switch.embedded_filter is not None:
        return switch.source.count(switch.embedded_filter)
    return round(n_rows * float(sample.rows.embedded[sample.index].mean()))


def _mixed(evaluation: SwitchEvaluation, failing: Sequence[int]) -> Share | None:
    if not failing or evaluation.switch.map is None:
        return None
    return evaluation.mixed(None if 0 in failing else [i - 1 for i in failing])


def _plan(
    evaluation: SwitchEvaluation, slices: Sequence[tuple[str, str]], n_rows: int, options: GateOptions
) -> Plan | None:
    switch, sample = evaluation.switch, evaluation.sample
    if switch.map is None:
        return None
    return make_plan(
        evaluation.search,
        sample.n_common,
        [PlanSlice(name, where, sample.members[i][sample.index]) for i, (name, where) in enumerate(slices)],
        embedded=sample.rows.embedded[sample.index],
        embedded_filter=switch.embedded_filter,
        count=switch.source.count,
        budget=None if options.budget is None else budget_rows(options.budget, n_rows),
    )


def _moved(switch: Switch, sample: SwitchSample, asked: Queries | None, cutoff: float) -> CutOff:
    """The cut-off on pairs of queries, real ones where both models' vectors are known, and sampled rows."""
    rows, n = sample.rows, min(_CUTOFF_QUERIES, sample.n_common)
    old, new = rows.source[:n], switch.reference(rows)[:n]
    own = sample.own[:n]
    real_new = None if asked is None else asked.source if switch.in_place else asked.target
    if asked is not None and asked.own is None and asked.source is not None and real_new is not None:
        old, new = asked.source[:_CUTOFF_QUERIES], real_new[:_CUTOFF_QUERIES]
        own = np.full(len(old), -1)
    index = [part[sample.index] for part in (rows.source, rows.indexed, switch.reference(rows))]
    similarities = [q @ x.T for q, x in zip((old, new, new), index, strict=True)]
    for x in similarities:
        x[np.flatnonzero(own >= 0), own[own >= 0]] = np.nan
    before, after, target = (x.ravel() for x in similarities)
    return shift_cutoff(cutoff, before, after, target)
