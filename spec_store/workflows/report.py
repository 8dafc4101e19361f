"""A comparison as one page: gathers what the page shows, and writes it."""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..connector import Source, find_field, is_own_result
from ..describe import candidates
from ..errors import ColumnNotFoundError, InputError, did_you_mean
from ..options import LARGEST_SEED, check_choice, check_count
from ..progress import Progress, silent, timed
from ..reporting.commands import align_command, compare_command, report_command
from ..reporting.data import AlignedColumn, Examples, Making, Ranking, ReportData, ShownRow
from ..reporting.extras import check_extra
from ..reporting.findings import families
from ..reporting.projection import Method, project
from ..reporting.sample import ReportSample
from ..reporting.shares import column_shares, is_scalar
from ..reporting.similarity import kernel_blocks, nearest, spreads
from ..reporting.text import visible
from ..reporting.values import Shown, Viewer
from ..runs.records import ComparisonRecord
from ..stores.files import atomic_file, check_replaceable
from ..stores.filters import quoted
from ..stores.locate import Database, open_table
from .annotated import find_comparison, held_alignments
from .members import members_of
from .report_rows import read_in_pieces, read_sample, row_filter

__all__ = ["ReportOptions", "gather", "report"]

_NEIGHBOURS = 8
_BLOCKS = 8
_BLOCK_ROWS = 24
_SHOWN_BY_DEFAULT = 4
_MOST_SHARED = 24
# Of all pictures, before base64 makes a third more of them: the page is to stay under 10 MB.
_IMAGE_BYTES = 5 << 20
# Sampled rows, of which there are thousands, are shown smaller than those of a card.
_SMALL = 56
_SHORT_TEXT = 120


@dataclass(frozen=True)
class ReportOptions:
    """What a page shows.

    Attributes
    ----------
    show
        Columns whose values are shown with rows; none is the first column of pictures and a few others.
    clusters
        Clusters that get a card of their own, the strongest first.
    rows
        Rows of each kind in a card: typical ones, members at random, and rows just outside.
    sample_rows
        Rows on the maps, among which neighbours are looked for.
    projection
        How vectors become places on a map: "tsne" or "pca".
    seed
        Seed of every random draw.
    """

    show: tuple[str, ...] = ()
    clusters: int = 30
    rows: int = 6
    sample_rows: int = 2000
    projection: Method = "tsne"
    seed: int = 0

    def __post_init__(self) -> None:
        check_count("clusters", self.clusters, 1, 1000)
        check_count("rows", self.rows, 1, 50)
        check_count("sample_rows", self.sample_rows, 10, 5000)
        check_count("seed", self.seed, 0, LARGEST_SEED)
        check_choice("projection", self.projection, get_args(Method))

    @classmethod
    def from_keywords(cls, given: Mapping[str, Any]) -> ReportOptions:
        """From keyword arguments; raises InputError naming the nearest option for an unknown one."""
        known = {f.name for f in dataclasses.fields(cls)}
        for name in given:
            if name not in known:
                raise InputError(f"No option {name!r}. {did_you_mean(name, known)}")
        return cls(**given)


def report(
    table: str,
    out: str | os.PathLike[str],
    *,
    prefix: str | None = None,
    db: Database = None,
    progress: Progress = silent,
    options: ReportOptions | None = None,
    **fields: Any,
) -> Path:
    """Write the newest comparison of a table as one HTML page, which needs no network and nothing beside it.

    Parameters
    ----------
    out
        The file; one that exists is replaced, once the new one is complete, if it is a plain file.
    prefix
        Of the result columns, where a table holds several comparisons.
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
    data = gather(table, prefix=prefix, db=db, progress=progress, options=options)
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
    for name in options.show:
        find_field(source, name)
    seconds: dict[str, float] = {}
    aligned = _aligned(source, run)
    held = [c for c in run.columns if _has(source, c)]
    key = run.options.get("key")
    key = key if key is not None and key in source.schema.names else None
    scalars = _scalars(source, run)
    viewer = Viewer(image_bytes=_IMAGE_BYTES)
    others = [*([key] if key else []), *scalars]
    progress("sample", 0, options.sample_rows)
    with timed(seconds, "sample"):
        columns = [*held, *([aligned.name] if aligned else [])]
        sample, aligned = _sampled(source, run, columns, others, aligned, options)
        shown = options.show or _chosen(source, run, sample, key)
    progress("sample", options.sample_rows, options.sample_rows)
    with timed(seconds, "values"):
        rows = _sample_rows(source, sample, shown, key, viewer, progress)
    ordered = tuple(c.cluster for family in families(run.clusters) for c in family)
    strongest = {
        c.cluster
        for c in sorted(run.clusters, key=lambda c: -(c.share or 0) * (c.gap or 0))[: options.clusters]
    }
    numbers = tuple(n for n in ordered if n in strongest)
    with timed(seconds, "examples"):
        progress("examples", 0, run.n_rows)
        drawn = members_of(
            source,
            run,
            numbers,
            columns=list(shown),
            n=options.rows,
            seed=options.seed,
            near=True,
            progress=lambda n: progress("examples", n, run.n_rows),
        )
        examples = {
            n: Examples(*(_table_rows(t, shown, viewer) for t in (d.typical, d.at_random, d.near)))
            for n, d in drawn.items()
        }
    with timed(seconds, "maps"):
        maps = _maps(sample, held, options, progress)
    bandwidths = {**run.bandwidth, **({aligned.name: run.bandwidth[aligned.space]} if aligned else {})}
    location = _location_words(source)
    making = Making(
        place=source.describe(),
        commands=(
            ("The comparison", compare_command(run, *location)),
            *([("The alignment", align_command(aligned.record, *location))] if aligned else []),
            ("This page", report_command(run, table, options, *location)),
        ),
        method=options.projection,
        seed=options.seed,
        created_at=datetime.now(timezone.utc),
        versions=_versions(),
        seconds=seconds,
    )
    return ReportData(
        run=run,
        making=making,
        clusters=numbers,
        sample=sample,
        rows=rows,
        shown=tuple(shown),
        n_omitted=viewer.n_omitted,
        key=key,
        filter=row_filter(source, sample, key),
        maps=maps,
        examples=examples,
        rankings=_rankings(sample, held, numbers),
        spreads={n: spreads(sample, n, bandwidths, options.seed) for n in numbers},
        blocks=kernel_blocks(sample, numbers[:_BLOCKS], bandwidths, rows=_BLOCK_ROWS) if held else None,
        shares=column_shares(sample, [c for c in scalars if c != key]),
        aligned=aligned,
        notes=_notes(source, run, held, numbers),
    )


def _aligned(source: Source, run: ComparisonRecord) -> AlignedColumn | None:
    """The newest aligned column of the same two embeddings."""
    for record in held_alignments(source):
        if set(record.columns) == set(run.columns) and record.prefix in source.schema.names:
            return AlignedColumn(record, record.columns[0] if record.in_place else record.columns[1])
    return None


def _has(source: Source, column: str) -> bool:
    try:
        find_field(source, column)
    except ColumnNotFoundError:  # of another store, which was joined by a key
        return False
    return True


def _sampled(
    source: Source,
    run: ComparisonRecord,
    columns: Sequence[str],
    others: Sequence[str],
    aligned: AlignedColumn | None,
    options: ReportOptions,
) -> tuple[ReportSample, AlignedColumn | None]:
    """The sample; without the aligned column where that is null in some of its rows."""
    if aligned is not None and source.count(f"{quoted(aligned.name)} IS NULL"):
        columns, aligned = columns[:-1], None
    sample = read_sample(
        source, run, columns=columns, others=others, n=options.sample_rows, seed=options.seed
    )
    return sample, aligned


def _scalars(source: Source, run: ComparisonRecord) -> list[str]:
    """Columns whose values are counted in each cluster."""
    own = {f.name for f in source.schema if is_own_result(pa.schema([f]))}
    names = candidates(source.schema, skip={*own, *run.columns, source.key})[0]
    return [name for name in names if is_scalar(source.schema.field(name).type)][:_MOST_SHARED]


def _chosen(source: Source, run: ComparisonRecord, sample: ReportSample, key: str | None) -> tuple[str, ...]:
    """Columns to show where none were asked for: the first that may hold pictures, and a few scalar ones."""
    pictures = [f.name for f in source.schema if _may_be_picture(f.type)][:1]
    scalars = [name for name in sample.others.column_names if name != key]
    return (*pictures, *scalars)[:_SHOWN_BY_DEFAULT]


def _sample_rows(
    source: Source,
    sample: ReportSample,
    shown: Sequence[str],
    key: str | None,
    viewer: Viewer,
    progress: Progress,
) -> tuple[ShownRow, ...]:
    keys = sample.others.column(key) if key else sample.keys
    names = [visible(str(name)) for name in keys.to_pylist()]
    if not shown:
        return tuple(ShownRow(name, ()) for name in names)
    progress("values", 0, len(sample))
    values: list[tuple[Shown, ...]] = []
    for piece in read_in_pieces(source, sample.keys, shown):
        columns = [
            [viewer.show(c, v, size=_SMALL, most=_SHORT_TEXT) for v in piece.column(c).to_pylist()]
            for c in shown
        ]
        values += zip(*columns, strict=True)
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


def _may_be_picture(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(kind.field(i).name == "bytes" for i in range(kind.num_fields))
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _maps(
    sample: ReportSample, columns: Sequence[str], options: ReportOptions, progress: Progress
) -> dict[str, NDArray[np.float32]]:
    total = len(sample) * len(columns)
    progress("maps", 0, total)

    found: dict[str, NDArray[np.float32]] = {}
    for column in columns:
        found[column] = project(sample.vectors[column], options.projection, options.seed)
        progress("maps", len(sample), total)
    return found


def _rankings(sample: ReportSample, columns: Sequence[str], numbers: Sequence[int]) -> dict[int, Ranking]:
    found = {}
    for number in numbers:
        typical = sample.most_typical(number, 1)
        if len(typical) and columns:
            query = int(typical[0])
            answers = {c: nearest(sample, c, query, number, _NEIGHBOURS) for c in columns}
            found[number] = Ranking(query, answers)
    return found


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
    source: Source, run: ComparisonRecord, held: Sequence[str], numbers: Sequence[int]
) -> tuple[str, ...]:
    notes = []
    absent = [c for c in run.columns if c not in held]
    if absent:
        notes.append(
            f"{' and '.join(absent)} {'are' if len(absent) > 1 else 'is'} not in {source.describe()}, so"
            " there is no map of it, and no similarity or neighbours by it. The command line above does not"
            " say where it was read from."
        )
    if len(numbers) < len(run.clusters):
        notes.append(
            f"{len(numbers):,} of {len(run.clusters):,} clusters have a card, the strongest; --clusters shows"
            " more, and spec-store clusters lists all."
        )
    return tuple(notes)
