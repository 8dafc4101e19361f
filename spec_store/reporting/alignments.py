"""What an alignment came to: its headline in sentences, and the figures of its maps as a table of text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .text import format_number

if TYPE_CHECKING:
    from ..alignment.evaluate import Evaluation
    from ..alignment.options import AlignOptions

__all__ = ["format_share", "headline_lines", "maps_table"]


def headline_lines(
    columns: tuple[str, str], evaluations: Sequence[Evaluation], chosen: int, options: AlignOptions
) -> list[str]:
    """What queries find with the map and without, and the mismatch of the target's clusters.

    Parameters
    ----------
    evaluations
        The source as it is first.
    chosen
        Position of the map that is written.
    """
    a, b = columns
    before, after = evaluations[0], evaluations[chosen]
    if options.compares_fidelities:
        return [f"{a} to {b}: {len(options.fidelity)} fidelities to compare; none is written."]
    if options.in_place:
        lines = [
            f"{a} with {b}'s clusters: queries of {a} find {after.search_10:.0%} of the 10 rows they find"
            f" now; SPEC-diff to {b} {format_number(before.spec_diff)} → {format_number(after.spec_diff)}."
        ]
    else:
        lines = [
            f"{a} to {b}: a query of {b} finds {after.search_10:.0%} of the 10 rows in mapped vectors that it"
            f" would\nfind in re-embedded ones; queries and rows of {a} find {before.search_10:.0%} of them."
        ]
    if after.mismatch_mass == after.mismatch_mass:
        lines.append(
            f"{b}'s clusters that {a} does not group: mismatch {before.mismatch_mass:.3f} →"
            f" {after.mismatch_mass:.3f}."
        )
    return lines


def maps_table(
    columns: tuple[str, str], evaluations: Sequence[Evaluation], chosen: int, options: AlignOptions
) -> tuple[list[str], list[list[str]]]:
    """Header and a line per map, the chosen one marked; every column but the first is of numbers."""
    header = ["map", "search@10", "95% interval", "mismatch", "SPEC-diff", "distance"]
    header += ["twin@1", "twin@10", *(f"cos {c}" for c in columns)]
    body = []
    for i, j in enumerate(evaluations):
        name = f"{j.name} *" if i == chosen and not options.compares_fidelities else j.name
        low, high = (format_share(v) for v in j.search_interval)
        whole = format_share(j.mismatch_mass), format_number(j.spec_diff), format_number(j.distance)
        rows = j.recall_1, j.recall_10, j.cosine_source, j.cosine_target
        body.append(
            [name, format_share(j.search_10), f"{low} to {high}", *whole, *(format_share(v) for v in rows)]
        )
    return header, body


def format_share(value: float) -> str:
    """Three decimals; a dash for what is not known."""
    return "-" if value != value else f"{value:.3f}"
