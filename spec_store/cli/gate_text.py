"""A gate's verdicts for eyes: one sentence, the worst slices, and what to re-embed first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..workflows.verdict_text import headline_sentence, listed, outcome_sentence, slices_table, worst_first
from .terminal import echo, echo_table

if TYPE_CHECKING:
    from ..workflows.gate import Gate
    from ..workflows.searching import SearchFigures

__all__ = ["print_gate"]

_SHOWN = 10
_STEPS = 5


def print_gate(found: Gate, *, show_all: bool) -> None:
    """The headline, a line per slice, and what to do next."""
    echo(headline_sentence(found))
    echo(_basis(found))
    _print_queries(found)
    _print_slices(found, show_all=show_all)
    if found.through_index is not None:
        echo(f"Through the aligned column's vector index: {found.through_index}.")
    if found.cutoff is not None:
        echo(_cutoff(found))
    if found.n_embedded:
        echo(f"Already re-embedded: {found.n_embedded:,} of {found.n_rows:,} rows.")
    _print_plan(found, show_all=show_all)
    if found.re_embed:
        verb = "Leave unmapped" if found.in_place else "Re-embed"
        after = "" if found.mixed is None else f" (then search overlap@{found.k} {found.mixed})"
        every = found.n_re_embed == found.n_rows
        which = f"all {found.n_rows:,} rows" if every else f"{found.n_re_embed:,} rows"
        echo(f"{verb} {which}{after}{'.' if every else f': {found.re_embed}'}")
    echo(outcome_sentence(found))


def _basis(found: Gate) -> str:
    n = found.overall.n_queries
    some = "all" if found.n_searched == found.n_rows else f"{found.n_searched:,} of"
    searched = f"among {some} {found.n_rows:,} rows"
    stand_in = f"{n:,} test rows stand in as queries, {searched}"
    if found.queries is not None:
        who = "real queries" if found.queries.real else "test rows stand in as queries"
        real = f"{found.queries.n_queries:,} {who}, among all {found.queries.n_rows:,} rows"
        stand_in = f"{real}; slices: {searched if not found.queries.real else stand_in}"
    fewer = "" if found.n_searched == found.n_rows else " (among all of them fewer are found)"
    return f"{stand_in}{fewer}. Map: {found.map or 'none'}. Fails under {found.fail_under:g}."


def _print_queries(found: Gate) -> None:
    figures = found.queries
    if figures is None:
        return
    relevant = figures.n_relevant is not None
    header = ["queries", f"search overlap@{found.k}", f"nDCG@{found.k}"]
    header += [f"recall@{found.k}"] if relevant else []
    ways: list[tuple[str, SearchFigures | None]] = [
        ("do nothing", figures.do_nothing),
        ("mapped", figures.mapped),
        ("mapped, through its vector index", figures.through_index),
        (_mixed_name(found), figures.mixed),
        ("unmapped" if found.in_place else "re-embedded", figures.re_embedded),
    ]
    body = [
        [name, str(f.search_overlap), str(f.ndcg), *([str(f.recall)] if relevant else [])]
        for name, f in ways
        if f is not None
    ]
    echo_table(header, body)
    if figures.n_unknown:
        echo(f"{figures.n_unknown:,} of {figures.n_relevant:,} relevant keys are not in the table.")
    if figures.n_without:
        echo(f"{figures.n_without:,} queries have no relevant row: nDCG and recall are over the others.")


def _mixed_name(found: Gate) -> str:
    planned = found.plan is not None and found.plan.budget is not None
    return "with the plan's rows re-embedded" if planned else "with failing slices re-embedded"


def _print_slices(found: Gate, *, show_all: bool) -> None:
    slices = found.slices if show_all else worst_first(found.slices)[:_SHOWN]
    header, body, right = slices_table(found, slices)
    echo_table(header, body, right=right)
    if len(slices) < len(found.slices):
        echo(f"… and {len(found.slices) - len(slices)} better slices: --all.")


def _cutoff(found: Gate) -> str:
    c = found.cutoff
    assert c is not None
    if c.new is None or c.overlap is None or c.overlap_target is None:
        return f"Cut-off {c.old:g}: none of {c.n_pairs:,} pairs of a query and a row passes it today."
    return (
        f"Cut-off {c.old:g} becomes {c.new:.3f}: {c.share:.2%} of {c.n_pairs:,} pairs pass. {c.overlap:.2f}"
        f" of them passed before; {c.overlap_target:.2f} would after full re-embedding."
    )


def _print_plan(found: Gate, *, show_all: bool) -> None:
    plan = found.plan
    if plan is None or not (plan.steps or plan.budget is not None):
        return
    if plan.budget is None and found.passed and not show_all:
        return
    limit = "" if plan.budget is None else f", at most {plan.budget:,} rows"
    verb = "leave unmapped" if found.in_place else "re-embed"
    echo(f"What to {verb} first{limit}:" if plan.steps else f"To {verb} a slice{limit} gains nothing.")
    if plan.steps:
        shown = plan.steps if show_all else plan.steps[:_STEPS]
        body = [
            [s.name, f"{s.n_rows:,}", f"{s.n_rows_total:,}", str(s.search_overlap), f"{s.gain:+.3f}"]
            for s in shown
        ]
        echo_table(["slice", "rows", "in all", f"search overlap@{found.k}", "gain"], body, right=(1, 2, 4))
        if len(shown) < len(plan.steps):
            echo(f"… and {len(plan.steps) - len(shown)} more steps: --all.")
    if plan.skipped:
        echo(f"Larger than what is left of the budget: {listed(plan.skipped)}.")
    if plan.budget is not None and plan.where:
        after = f"(then search overlap@{found.k} {plan.search_overlap})"
        echo(f"The plan's {plan.n_rows:,} rows {after}: {plan.where}")
