"""The sections of a page: what each of them shows, in the words and charts in which it shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from ..runs.clusters import ClusterRecord
from ..runs.records import ComparisonRecord
from .charts import densities_svg, kernel_svg, similarity_bounds, spectrum_svg, strongest_similarity
from .data import Ranking, ReportData, ShownRow
from .figures import figure_rows, gap_sentence, over_represented_rows, seen_sentence, words_sentence
from .findings import MOST_FINDINGS, families, finding, other_column, seen_in_words
from .text import format_decimals, format_number, format_percent, visible

__all__ = [
    "aligned_sentence",
    "card_of",
    "colours",
    "finding_groups",
    "headline_figures",
    "kernel_charts",
    "model_tables",
    "shares_tables",
    "shows_tiles",
    "similarity_rows",
    "spectrum_charts",
]

_THUMBNAILS = 5
# Characters of a text that has room under a thumbnail.
_LONGEST_UNDER_PICTURE = 16


class Figure(NamedTuple):
    """A figure at the top of the page, and what it means."""

    name: str
    value: str
    meaning: str


class Finding(NamedTuple):
    """A cluster in one sentence, with thumbnails of typical rows."""

    number: int
    sentence: str
    pictures: tuple[ShownRow, ...]


@dataclass(frozen=True)
class FindingGroup:
    """Findings that stand together; what they have in common, empty for one by itself."""

    together: str
    findings: tuple[Finding, ...]


class ExampleGroup(NamedTuple):
    """Rows of a cluster of one kind."""

    title: str
    meaning: str
    rows: tuple[ShownRow, ...]


class Answer(NamedTuple):
    """What one embedding answers to a query: rows, nearest first, and whether each is a member."""

    column: str
    sentence: str
    rows: tuple[ShownRow, ...]
    members: tuple[bool, ...]


@dataclass(frozen=True)
class Card:
    """All that is shown of one cluster."""

    cluster: ClusterRecord
    side: str
    title: str
    seen: str
    sentence: str
    examples: tuple[ExampleGroup, ...]
    query: ShownRow | None
    answers: tuple[Answer, ...]
    consists_of: list[list[str]]
    words: str
    figures: list[list[str]]
    notes: tuple[str, ...]


class Chart(NamedTuple):
    """A chart of one column, and what it says in words."""

    column: str
    chart: Markup
    said: str


@dataclass(frozen=True)
class SimilarityRow:
    """One cluster's similarities, a chart for each column."""

    number: int
    charts: tuple[Chart, ...]


class Cell(NamedTuple):
    """A figure on a ground of one of eleven depths, from 0 to 10."""

    text: str
    depth: int


class HeatRow(NamedTuple):
    """A row of a table of such cells, of a cluster or of none."""

    name: str
    number: int | None
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Heat:
    """A table whose cells are shaded."""

    name: str
    header: tuple[str, ...]
    rows: tuple[HeatRow, ...]


def record_of(data: ReportData, number: int) -> ClusterRecord:
    """A cluster's record by its number."""
    return next(c for c in data.run.clusters if c.cluster == number)


def colours(data: ReportData) -> dict[int, str]:
    """A colour for each cluster: warm ones for the first embedding's, cold ones for the second's."""
    found = {}
    for side, (begin, end) in enumerate(((15.0, 125.0), (175.0, 330.0))):
        numbers = [n for n in data.clusters if record_of(data, n).side == data.run.columns[side]]
        for i, number in enumerate(numbers):
            hue = begin + (end - begin) * (i + 0.5) / len(numbers)
            lightness, chroma = ((0.68, 0.17), (0.56, 0.15), (0.78, 0.13))[i % 3]
            found[number] = f"oklch({lightness} {chroma} {hue:.0f})"
    return found


def shows_tiles(data: ReportData) -> bool:
    """Whether rows are shown as pictures with a few words under them; else they are lines of a table."""
    texts = [len(v.text) for row in data.rows for v in row.values if v.image is None]
    pictures = any(v.image is not None for row in data.rows for v in row.values)
    return pictures and (not texts or float(np.quantile(texts, 0.9)) <= _LONGEST_UNDER_PICTURE)


def headline_figures(run: ComparisonRecord) -> list[Figure]:
    """The figures of the whole comparison."""
    a, b = (visible(c) for c in run.columns)
    found = [
        Figure(
            f"Mismatch of {side}",
            format_decimals(run.mismatch[column]["mass"]),
            f"How much of the table {side} retrieves as groups and {other} does not.",
        )
        for column, (side, other) in zip(run.columns, ((a, b), (b, a)), strict=True)
        if column in run.mismatch
    ]
    found += [
        Figure(
            "SPEC-diff",
            format_number(run.spec_diff),
            "The largest eigenvalue of the kernel difference; 0 for equal kernels.",
        ),
        Figure(
            "SPEC-diff, centred",
            format_number(run.spec_diff_centered),
            "The same without the mode that is the mean similarity itself.",
        ),
        Figure(
            "CKA",
            format_number(run.cka),
            "How alike the two kernels are as a whole; 1 for the same up to scale.",
        ),
    ]
    found += [
        Figure(
            f"Coverage of {visible(column)}",
            format_percent(run.coverage.get(column)),
            "How much of a row's similarity to itself the kernel's features keep.",
        )
        for column in run.columns
    ]
    return found


def finding_groups(data: ReportData) -> tuple[list[FindingGroup], list[FindingGroup]]:
    """The clusters that have a card, families together: the strongest ones, and the others."""
    run = data.run
    ranked = sorted(run.clusters, key=lambda c: -(c.share or 0) * (c.gap or 0))
    strongest = {c.cluster for c in ranked[:MOST_FINDINGS]}
    first: list[FindingGroup] = []
    rest: list[FindingGroup] = []
    for family in families(run.clusters):
        members = [c for c in family if c.cluster in data.clusters]
        if not members:
            continue
        numbers = [c.cluster for c in family]
        together = ""
        if len(family) > 1:
            other = visible(other_column(run.columns, family[0].side))
            together = f"Clusters {', '.join(map(str, sorted(numbers)))}: together in {other}."
        found = tuple(
            Finding(c.cluster, finding(c, run.columns, family=numbers), _pictures(data, c.cluster))
            for c in members
        )
        (first if strongest & set(numbers) else rest).append(FindingGroup(together, found))
    return first, rest


def _pictures(data: ReportData, number: int) -> tuple[ShownRow, ...]:
    examples = data.examples.get(number)
    if examples is None:
        return ()
    shown = [row for row in examples.typical if any(v.kind == "image" for v in row.values)]
    return tuple(shown[:_THUMBNAILS])


def card_of(data: ReportData, number: int) -> Card:
    """The card of one cluster."""
    run = data.run
    cluster = record_of(data, number)
    found = data.examples.get(number)
    ranking = data.rankings.get(number)
    examples: tuple[ExampleGroup, ...] = ()
    if found is not None:
        outside = "Not members: the highest relative membership under 0.5 first."
        examples = (
            ExampleGroup("Typical members", "The highest relative membership first.", found.typical),
            ExampleGroup("Members at random", "A good head must not hide a bad tail.", found.at_random),
            ExampleGroup("Just outside", outside, found.near),
        )
    seen = seen_in_words(cluster)
    return Card(
        cluster=cluster,
        side="a" if cluster.side == run.columns[0] else "b",
        title=visible(cluster.name or f"Cluster {number}"),
        seen=f"in {visible(other_column(run.columns, cluster.side))}: {seen}" if seen else "",
        sentence=finding(cluster, run.columns),
        examples=tuple(group for group in examples if group.rows),
        query=None if ranking is None else data.rows[ranking.query],
        answers=() if ranking is None else _answers(data, ranking),
        consists_of=over_represented_rows(cluster),
        words=words_sentence(cluster),
        figures=figure_rows(cluster, run),
        notes=tuple(s for s in (gap_sentence(cluster), seen_sentence(cluster, run)) if s),
    )


def _answers(data: ReportData, ranking: Ranking) -> tuple[Answer, ...]:
    answers = []
    for column, n in ranking.neighbours.items():
        wide = format_percent(n.n_wide_members / max(n.n_wide, 1))
        said = (
            f"By {visible(column)} {sum(n.members)} of the {len(n.rows)} nearest sampled rows are members,"
            f" and {wide} of the {n.n_wide:,} nearest."
        )
        answers.append(Answer(column, said, tuple(data.rows[i] for i in n.rows), n.members))
    return tuple(answers)


def spectrum_charts(run: ComparisonRecord) -> list[Chart]:
    """Both ends of the spectrum, on one scale; eigenvalues of the second embedding's end are negative."""
    ends = [
        [max(sign * float(v), 0.0) for v in run.eigenvalues[column]]
        for sign, column in zip((1, -1), run.columns, strict=True)
    ]
    largest = max((v for values in ends for v in values), default=0.0)
    found = []
    for column, values in zip(run.columns, ends, strict=True):
        name = visible(column)
        label = f"Eigenvalues of the end of {name}: {', '.join(format_number(v) for v in values[:10])}"
        if run.map_error > 0:
            above = sum(v > run.map_error for v in values)
            said = (
                f"{above:,} of the {len(values):,} leading eigenvalues of this end are above"
                f" {format_number(run.map_error)}, by which the feature maps' error may shift one."
            )
        else:
            said = f"The {len(values):,} leading eigenvalues of this end; this kernel's features are exact."
        found.append(Chart(column, spectrum_svg(values, run.map_error, largest, label), said))
    return found


def kernel_charts(data: ReportData) -> tuple[list[Chart], float]:
    """Kernel blocks by column, and the similarity that is darkest; none where no vectors are known."""
    if data.blocks is None or not data.blocks.kernels:
        return [], 1.0
    darkest = strongest_similarity(data.blocks)
    numbers = ", ".join(str(n) for n, _ in data.blocks.clusters)
    found = []
    for column in data.blocks.kernels:
        label = f"Kernel of {visible(column)} among rows of clusters {numbers}"
        mapped = data.aligned is not None and column == data.aligned.name
        chart = kernel_svg(data.blocks, column, darkest, label)
        found.append(Chart(column, chart, "The aligned column." if mapped else ""))
    return found, darkest


def similarity_rows(data: ReportData) -> tuple[list[SimilarityRow], tuple[float, float]]:
    """Similarities of each cluster by column, and the bounds of their scale."""
    bounds = similarity_bounds(data.spreads)
    rows = []
    for number in data.clusters:
        charts = []
        for column, spread in data.spreads.get(number, {}).items():
            within, across = (format_decimals(float(np.median(v))) for v in (spread.within, spread.across))
            said = f"{within} within, {across} across"
            label = f"Cluster {number} in {visible(column)}: median similarity {said}"
            charts.append(Chart(column, densities_svg(spread, bounds, label), said))
        if charts:
            rows.append(SimilarityRow(number, tuple(charts)))
    return rows, bounds


def shares_tables(data: ReportData) -> list[Heat]:
    """For each scalar column the shares of its values, in all sampled rows and in each cluster."""
    tables = []
    for shares in data.shares:
        rows = [_shares_row("all rows", None, shares.everywhere)]
        for number in data.clusters:
            counts = shares.within[data.sample.numbers.index(number)]
            rows.append(_shares_row(str(number), number, counts))
        header = ("cluster", "sampled rows", *shares.values)
        tables.append(Heat(shares.column, header, tuple(rows)))
    return tables


def _shares_row(name: str, number: int | None, counts: NDArray[np.int64]) -> HeatRow:
    total = int(counts.sum())
    cells = [Cell(f"{total:,}", 0)]
    for n in counts:
        share = n / max(total, 1)
        cells.append(Cell(format_percent(share) if n else "", round(10 * share)))
    return HeatRow(name, number, tuple(cells))


def model_tables(data: ReportData) -> list[Heat]:
    """How far each model is from each other one; none where two are compared."""
    models = data.models
    if models is None:
        return []
    tables = []
    figures = (models.spec_diff, models.cka, models.cka_unbiased)
    for name, values in zip(("SPEC-diff", "CKA", "CKA, unbiased"), figures, strict=True):
        most = max((v for row in values for v in row if v is not None), default=0.0) or 1.0
        rows = [
            HeatRow(
                column,
                None,
                tuple(Cell(format_number(v), round(10 * max(v or 0.0, 0.0) / most)) for v in row),
            )
            for column, row in zip(models.columns, values, strict=True)
        ]
        tables.append(Heat(name, ("", *models.columns), tuple(rows)))
    return tables


def aligned_sentence(data: ReportData) -> str:
    """What an alignment of the same two embeddings changes; empty where there is none."""
    if data.aligned is None:
        return ""
    record = data.aligned.record
    source, target = (visible(c) for c in record.columns)
    by_name = {m["name"]: m for m in record.maps}
    after, before = by_name.get(record.chosen or ""), by_name.get("none")
    begin = f"Column {visible(data.aligned.name)} holds {source} mapped to {target}"
    if after is None or before is None:
        return f"{begin}."
    return (
        f"{begin}, by the map {visible(str(after['name']))}: SPEC-diff to {target} is"
        f" {format_number(before['spec_diff'])} without it and {format_number(after['spec_diff'])} with it,"
        " on rows that the map never saw."
    )
