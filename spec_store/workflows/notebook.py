"""Results as HTML for notebooks: the command line's sentences over a compact table.

No colour is set, so that both follow the notebook's light or dark theme, and nothing of the data is markup.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from html import escape

from ..alignment.evaluate import Evaluation
from ..alignment.options import AlignOptions
from ..reporting.alignments import headline_lines, maps_table
from ..reporting.findings import families, figures_line, other_column, seen_in_words, summary_lines
from ..reporting.text import format_number, format_percent, visible
from ..runs.clusters import ClusterRecord
from ..runs.records import ComparisonRecord, ModelsRecord
from .verdict_text import Verdicts, headline_sentence, outcome_sentence, slices_table, worst_first

__all__ = ["alignment_html", "comparison_html", "gate_html", "models_html"]

_MOST_ROWS = 20
# Notebooks set text in dollar signs as mathematics, except in these classes.
_CLASSES = "tex2jax_ignore mathjax_ignore"
_TABLE = "border-collapse:collapse;color:inherit;font-size:inherit"
_CELL = "padding:0.15em 0.7em;vertical-align:baseline"
_NUMBER = f"{_CELL};text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums"
_TEXT = f"{_CELL};text-align:left"
_MAPS_SHOWN = 6  # columns: of the figures, those that decide


def comparison_html(run: ComparisonRecord) -> str:
    """Who groups what that the other does not, and the clusters, families together."""
    first, *others = run.columns
    header = ["cluster", "grouped by", "rows", f"capture in {first}", *(f"in {c}" for c in others)]
    header += ["seen by the other", "name"]
    numbers = [0, *range(2, 3 + len(run.columns))]
    ordered = [c for family in families(run.clusters) for c in family]
    body = [
        [
            *(str(c.cluster), c.side, _size(c)),
            *(format_percent((c.capture or {}).get(column)) for column in run.columns),
            *(_seen(c, run), c.name or ""),
        ]
        for c in ordered[:_MOST_ROWS]
    ]
    more = len(ordered) - _MOST_ROWS
    return _block(
        summary_lines(run),
        _table(header, body, right=numbers) if body else "",
        [
            *([f"… and {more} more: .clusters holds all."] if more > 0 else []),
            f"{run.n_rows:,} rows; {figures_line(run)}. {_state(run.written)}",
        ],
    )


def models_html(run: ModelsRecord, pairs: Sequence[ComparisonRecord]) -> str:
    """How much pairs of embeddings differ, the most different first, and what is said of those asked for."""
    strongest = sorted(run.matrix, key=lambda entry: -entry["spec_diff_centered"])
    figures = ("spec_diff", "spec_diff_centered", "cka", "cka_unbiased")
    body = [
        [entry["first"], entry["second"], *(format_number(entry[name]) for name in figures)]
        for entry in strongest[:_MOST_ROWS]
    ]
    header = ["first", "second", "SPEC-diff", "centred", "CKA", "unbiased CKA"]
    more = len(strongest) - _MOST_ROWS
    return _block(
        [line for pair in pairs for line in summary_lines(pair)],
        _table(header, body, right=range(2, 6)),
        [
            *([f"… and {more} more pairs: .matrix holds all."] if more > 0 else []),
            f"{run.n_rows:,} rows. {_state(run.written)}",
        ],
    )


def _size(cluster: ClusterRecord) -> str:
    return format_percent(cluster.share) if cluster.size is None else f"{cluster.size:,}"


def _seen(cluster: ClusterRecord, run: ComparisonRecord) -> str:
    seen = seen_in_words(cluster)
    return f"{seen} by {other_column(run.columns, cluster.side)}" if seen else ""


def alignment_html(
    columns: tuple[str, str],
    evaluations: Sequence[Evaluation],
    chosen: int,
    options: AlignOptions,
    written: Sequence[str],
) -> str:
    """What queries find with the map and without, and the figures of each map."""
    header, body = maps_table(columns, evaluations, chosen, options)
    shown = [row[:_MAPS_SHOWN] for row in body]
    table = _table(header[:_MAPS_SHOWN], shown, right=range(1, _MAPS_SHOWN), bold=(chosen,))
    return _block(headline_lines(columns, evaluations, chosen, options), table, [_state(written)])


def gate_html(found: Verdicts) -> str:
    """What a searcher finds after the switch, the worst slices, and whether it passed."""
    worst = worst_first(found.slices)[:_MOST_ROWS]
    header, body, right = slices_table(found, worst)
    failing = [i for i, s in enumerate((found.overall, *worst)) if s.name in found.failures]
    more = len(found.slices) - len(worst)
    return _block(
        [headline_sentence(found)],
        _table(header, body, right=[*right, 3], bold=failing),
        [*([f"… and {more} better slices: .slices holds all."] if more else []), outcome_sentence(found)],
    )


def _state(written: Sequence[str]) -> str:
    return f"Written: {', '.join(written)}." if written else "Not written."


def _block(headline: Sequence[str], table: str, notes: Sequence[str]) -> str:
    sentences = (line.replace("\n", " ") for line in headline)  # they are broken for a terminal
    begin = "<br>".join(f"<strong>{_text(line)}</strong>" for line in sentences)
    begin = begin and f'<p style="margin:0.4em 0">{begin}</p>'
    end = "<br>".join(_text(line) for line in notes)
    return f'<div class="{_CLASSES}">{begin}{table}<p style="margin:0.4em 0;opacity:0.75">{end}</p></div>'


def _table(
    header: Sequence[str],
    body: Sequence[Sequence[str]],
    *,
    right: Collection[int],
    bold: Collection[int] = (),
) -> str:
    """A table in which numbers are aligned to the right, and some rows stand out."""

    def row(cells: Sequence[str], tag: str, more: str = "") -> str:
        styles = [(_NUMBER if i in right else _TEXT) + more for i in range(len(cells))]
        inside = (f'<{tag} style="{s}">{_text(c)}</{tag}>' for s, c in zip(styles, cells, strict=True))
        return f"<tr>{''.join(inside)}</tr>"

    head = row(header, "th", ";border-bottom:1px solid currentColor")
    rows = (row(cells, "td", ";font-weight:bold" * (i in bold)) for i, cells in enumerate(body))
    return (
        f'<div style="overflow-x:auto"><table style="{_TABLE}">'
        f"<thead>{head}</thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _text(value: str) -> str:
    """Data as text: neither markup nor control characters."""
    return escape(visible(value))
