"""A comparison as one page: gathers what the page shows, and writes it."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from ..bars import shown
from ..connector import Source
from ..errors import InputError
from ..keywords import ReportKeywords
from ..progress import Progress, ProgressOption, timed
from ..reporting.commands import align_command, compare_command, report_command
from ..reporting.data import Examples, Making, ModelMatrix, Ranking, ReportData, ShownRow
from ..reporting.extras import check_extra
from ..reporting.findings import families
from ..reporting.options import ReportOptions
from ..reporting.sample import ReportSample
from ..reporting.shares import column_shares
from ..reporting.similarity import kernel_blocks, nearest, spreads
from ..reporting.text import visible
from ..reporting.values import Shown, Viewer
from ..runs.records import ComparisonRecord, ModelsRecord
from ..runs.registry import Registry
from ..stores.files import atomic_file, check_replaceable
from ..stores.locate import open_table
from ..stores.tables import Database
from .annotated import find_comparison
from .members import members_of
from .report_columns import ReportColumns
from .report_maps import stored_maps
from .report_rows import read_in_pieces, read_sample, row_filter

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["gather", "report"]

_NEIGHBOURS = 8
_BLOCKS = 8
_BLOCK_ROWS = 24
# Of all pictures, before base64 makes a third more of them: the page is to stay under 10 MB.
_IMAGE_BYTES = 5 << 20
# Sampled rows, of which there are thousands, are shown smaller than those of a card.
_SMALL = 56
_SHORT_TEXT = 120


def report(
    table: str,
    out: str | os.PathLike[str],
    *,
    prefix: str | None = None,
    db: Database = None,
    progress: ProgressOption = "auto",
    options: ReportOptions | None = None,
    **fields: Unpack[ReportKeywords],
) -> Path:
    """Write the newest comparison of a table as one HTML page, which needs no network and nothing beside it.

    Parameters
    ----------
    out
        The file; one that exists is replaced, once the new one is complete, if it is a plain file.
    prefix
        Of the result columns, where a table holds several comparisons.
    progress
        As in `compare`.
    options
        Everything else; or give the fields of `ReportOptions` as keywords.

    Returns
    -------
    The file's absolute path.

    Raises
    ------
    MissingExtraError
        A package of the extra ``report`` is not installed.
    InputError
        No comparison is recorded, or the file can't be written; before any work.
    ColumnNotFoundError
        No such column to show.

    Notes
    -----
    Cost: one pass over the row keys and one over the membership columns; the vectors and shown values of the
    sample alone; t-SNE of the sample. Memory: the sample. Where texts of shown columns are paths of pictures
    on this machine, these are read; nothing is read from a network.
    """
    check_extra()
    check_replaceable(out)
    if options is None:
        options = ReportOptions.from_keywords(fields)
    elif fields:
        raise InputError(f"Give either options or keywords ({', '.join(fields)}), not both.")
    with shown(progress) as update:
        data = gather(table, prefix=prefix, db=db, progress=update, options=options)
    from ..reporting.page import render

    page = render(data)
    with atomic_file(out) as stream:
        stream.write(page.encode())
    return Path(out).absolute()


def gather(
    table: str, *, prefix: str | None, db: Database, progress: Progress, options: ReportOptions
) -> ReportData:
    """Read and compute what a page shows of the newest comparison of a table."""
    source = open_table(table, db)
    run = find_comparison(source, prefix=prefix)
    columns = ReportColumns.of(source, run, options.show)
    numbers = _numbers(run, options.clusters)
    viewer = Viewer(image_bytes=_IMAGE_BYTES)
    seconds: dict[str, float] = {}
    progress("sample", 0, options.sample_rows)
    with timed(seconds, "sample"):
        values = columns.values(with_shown=not source.random_access)
        sample = read_sample(source, run, columns.vectors, values, n=options.sample_rows, seed=options.seed)
    progress("sample", options.sample_rows, options.sample_rows)
    with timed(seconds, "values"):
        rows = _sample_rows(source, sample, columns, viewer, progress)
    with timed(seconds, "examples"):
        examples = _examples(source, run, numbers, columns.shown, viewer, options, progress)
    with timed(seconds, "maps"):
        maps = stored_maps(
            source, run, sample, columns.embeddings, options.projection, options.seed, progress
        )
    bandwidths = columns.bandwidths(run)
    blocks = kernel_blocks(sample, numbers[:_BLOCKS], bandwidths, rows=_BLOCK_ROWS)
    return ReportData(
        run=run,
        making=_making(source, run, table, columns, options, seconds),
        clusters=numbers,
        sample=sample,
        rows=rows,
        shown=columns.shown,
        key=columns.key,
        filter=row_filter(source, sample, columns.key),
        maps=maps.points,
        examples=examples,
        rankings=_rankings(sample, columns.embeddings, numbers),
        spreads={n: spreads(sample, n, bandwidths, options.seed) for n in numbers},
        blocks=blocks,
        shares=column_shares(sample, columns.counted),
        aligned=columns.aligned,
        notes=(*_notes(source, run, columns, numbers), *maps.notes),
        n_omitted=viewer.n_omitted,
        models=_models(source, run),
    )


def _models(source: Source, run: ComparisonRecord) -> ModelMatrix | None:
    """The matrix of the run of several models that this one is part of; None for a run of two."""
    registry = Registry.of(source.location)
    if run.state_run is None or registry is None:
        return None
    owner = registry.run(run.state_run)
    if not isinstance(owner, ModelsRecord) or len(owner.columns) < 3:
        return None
    figures = {frozenset((entry["first"], entry["second"])): entry for entry in owner.matrix}

    def matrix(name: str) -> list[list[float | None]]:
        return [
            [figures[frozenset((a, b))][name] if a != b else None for b in owner.columns]
            for a in owner.columns
        ]

    return ModelMatrix(owner.columns, matrix("spec_diff"), matrix("cka"), matrix("cka_unbiased"))


def _numbers(run: ComparisonRecord, most: int) -> tuple[int, ...]:
    """The strongest clusters, families together."""
    ranked = sorted(run.clusters, key=lambda c: -(c.share or 0) * (c.gap or 0))
    strongest = {c.cluster for c in ranked[:most]}
    return tuple(c.cluster for family in families(run.clusters) for c in family if c.cluster in strongest)


def _examples(
    source: Source,
    run: ComparisonRecord,
    numbers: Sequence[int],
    shown: Sequence[str],
    viewer: Viewer,
    options: ReportOptions,
    progress: Progress,
) -> dict[int, Examples]:
    progress("examples", 0, run.n_rows)
    drawn = members_of(
        source,
        run,
        numbers,
        columns=shown,
        n=options.rows,
        seed=options.seed,
        near=True,
        progress=lambda n: progress("examples", n, run.n_rows),
    )
    return {
        number: Examples(*(_table_rows(t, shown, viewer) for t in (d.typical, d.at_random, d.near)))
        for number, d in drawn.items()
    }


def _sample_rows(
    source: Source, sample: ReportSample, columns: ReportColumns, viewer: Viewer, progress: Progress
) -> tuple[ShownRow, ...]:
    keys = sample.others.column(columns.key) if columns.key else sample.keys
    names = [visible(str(name)) for name in keys.to_pylist()]
    if not columns.shown:
        return tuple(ShownRow(name, ()) for name in names)
    progress("values", 0, len(sample))
    values: list[tuple[Shown, ...]] = []
    for piece in read_in_pieces(source, sample, columns.shown):
        shown = [
            [viewer.show(c, v, size=_SMALL, most=_SHORT_TEXT) for v in piece.column(c).to_pylist()]
            for c in columns.shown
        ]
        values += zip(*shown, strict=True)
        progress("values", len(piece), len(sample))
    return tuple(ShownRow(name, row) for name, row in zip(names, values, strict=True))


def _table_rows(table: pa.Table, shown: Sequence[str], viewer: Viewer) -> tuple[ShownRow, ...]:
    """Rows of `members`, which begin with what names them and end with their membership."""
    rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
    places = [table.column_names.index(name) for name in shown]
    return tuple(
        ShownRow(
            visible(str(row[0])),
            tuple(viewer.show(c, row[i]) for c, i in zip(shown, places, strict=True)),
            row[-1],
        )
        for row in rows
    )


def _rankings(sample: ReportSample, columns: Sequence[str], numbers: Sequence[int]) -> dict[int, Ranking]:
    found = {}
    for number in numbers:
        typical = sample.most_typical(number, 1)
        if len(typical) and columns:
            query = int(typical[0])
            answers = {c: nearest(sample, c, query, number, _NEIGHBOURS) for c in columns}
            found[number] = Ranking(query, answers)
    return found


def _making(
    source: Source,
    run: ComparisonRecord,
    table: str,
    columns: ReportColumns,
    options: ReportOptions,
    seconds: dict[str, float],
) -> Making:
    place = _location_words(source)
    aligned = [align_command(columns.aligned.record, *place)] if columns.aligned else []
    return Making(
        place=source.describe(),
        commands=(
            ("The comparison", compare_command(run, *place)),
            *(("The alignment", command) for command in aligned),
            ("This page", report_command(run, table, options, *place)),
        ),
        options=options,
        created_at=datetime.now(timezone.utc),
        versions=_versions(),
        seconds=seconds,
    )


def _location_words(source: Source) -> list[str]:
    if source.location is None:
        return []
    words = ["--db", source.location.uri]
    return (
        words
        if source.location.connector == "lancedb"
        else [*words, "--connector", source.location.connector]
    )


def _versions() -> tuple[tuple[str, str], ...]:
    packages = ("spec-store", "numpy", "scipy", "scikit-learn", "pyarrow")
    return (("Python", platform.python_version()), *((name, version(name)) for name in packages))


def _notes(
    source: Source, run: ComparisonRecord, columns: ReportColumns, numbers: Sequence[int]
) -> tuple[str, ...]:
    notes = []
    absent = [c for c in run.columns if c not in columns.embeddings]
    if absent:
        notes.append(
            f"{' and '.join(absent)} {'are' if len(absent) > 1 else 'is'} not in {source.describe()}: no map,"
            " similarity or neighbours by it are shown."
        )
    if source.location is not None and source.location.storage_options:
        names = ", ".join(sorted(source.location.storage_options))
        notes.append(f"The database needs storage options ({names}), which no command line here repeats.")
    if len(numbers) < len(run.clusters):
        notes.append(
            f"{len(numbers):,} of {len(run.clusters):,} clusters have a card, the strongest; --clusters shows"
            " more, and spec-store clusters lists all."
        )
    return tuple(notes)
