"""An annotated sample as a Parquet file: what viewers of embeddings open."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from ..bars import shown
from ..connector import Source, find_field
from ..errors import InputError, MissingExtraError
from ..options import LARGEST_SEED, check_choice, check_count
from ..progress import ProgressOption
from ..reporting.projection import Method, project
from ..reporting.shares import is_scalar
from ..runs.records import ComparisonRecord
from ..spectral.scoring import MODES_COLUMN, RESULT_COLUMNS
from ..stores.files import atomic_file, check_replaceable
from ..stores.locate import open_table
from ..stores.tables import Database
from .annotated import find_comparison
from .report_rows import read_sample

__all__ = ["Exported", "Projection", "export"]

Projection: TypeAlias = Method | Literal["none"]

_SUFFIXES = (".parquet", ".pq")
_MOST_ROWS = 1_000_000


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes
    ----------
    path
        The file.
    n_rows
        Its rows.
    columns
        Its columns: the row key, the table's own, the results, and the projections.
    projections
        By embedding, the names of its x and y columns.
    warnings
        What a person should know.
    """

    path: str
    n_rows: int
    columns: tuple[str, ...]
    projections: dict[str, tuple[str, str]]
    warnings: tuple[str, ...] = ()


def export(
    table: str,
    out: str | os.PathLike[str],
    *,
    columns: Sequence[str] | None = None,
    rows: int = 5000,
    projection: Projection = "tsne",
    prefix: str | None = None,
    seed: int = 0,
    db: Database = None,
    progress: ProgressOption = "auto",
) -> Exported:
    """Write a uniform sample of a table's compared rows, with their clusters, for other viewers.

    A row has its key, scalar columns, the result columns, and its place in a two-dimensional picture of each
    embedding, as columns ``{column}_x`` and ``{column}_y``.

    Parameters
    ----------
    out
        A Parquet file; one that is there is replaced.
    columns
        Columns of the table, of any type; None is all scalar ones: text, numbers, booleans and times.
    rows
        Size of the sample; fewer where there are fewer.
    projection
        "tsne" (of the 50 leading principal components), "pca", or "none".
    prefix
        Of the result columns, where a table holds several comparisons.
    seed
        Seed of the sample and of the projections.
    progress
        As in `compare`.

    Raises
    ------
    InputError
        No comparison is recorded; or `out` is no Parquet file, or can't be written; before any work.
    MissingExtraError
        A projection is asked for, and scikit-learn is not installed.
    ColumnNotFoundError
        No such column.

    Notes
    -----
    Cost: one pass over the row keys, the sampled rows, and the projections: with "tsne" O(n log n), some
    seconds for 2,000 rows. Memory: the sampled rows with their vectors.
    """
    check_choice("projection", projection, (*get_args(Method), "none"))
    check_count("rows", rows, 1, _MOST_ROWS)
    check_count("seed", seed, 0, LARGEST_SEED)
    if Path(out).suffix.lower() not in _SUFFIXES:
        raise InputError(f"{out}: a sample is exported as Parquet; give a name that ends in .parquet.")
    check_replaceable(out)
    if projection != "none" and find_spec("sklearn") is None:
        raise MissingExtraError(
            'Pictures of embeddings need an extra: pip install "spec-store[report]"; or leave them out'
            ' (--projection none, projection="none").'
        )
    source = open_table(table, db)
    run = find_comparison(source, prefix=prefix)
    results = [n for n in _result_names(run) if n in source.schema.names]
    own = _own_columns(source, run, columns, results)
    held = [c for c in run.columns if c in source.schema.names]
    places = {c: (f"{c}_x", f"{c}_y") for c in held} if projection != "none" else {}
    _check_names(source, [*own, *results], places)
    with shown(progress) as update:
        update("sample", 0, rows)
        sample = read_sample(source, run, list(places), [*own, *results], n=rows, seed=seed)
        update("sample", rows, rows)
        written = sample.others.add_column(0, source.key, sample.keys)
        if projection != "none":
            update("maps", 0, len(places) * len(sample))
            for column, names in places.items():
                points = project(sample.vectors[column], projection, seed)
                for i, name in enumerate(names):
                    written = written.append_column(name, pa.array(points[:, i]))
                update("maps", len(sample), len(places) * len(sample))
    with atomic_file(out) as stream:
        pq.write_table(written, stream)
    absent = [c for c in run.columns if c not in held] if projection != "none" else []
    warnings = [f"{c} is a column of another store: the sample holds no picture of it." for c in absent]
    return Exported(os.fspath(out), len(written), tuple(written.column_names), places, tuple(warnings))


def _result_names(run: ComparisonRecord) -> list[str]:
    return [f"{run.prefix}_{name}" for name in (*RESULT_COLUMNS, MODES_COLUMN)]


def _own_columns(
    source: Source, run: ComparisonRecord, asked: Sequence[str] | None, results: Sequence[str]
) -> list[str]:
    """Columns of the table beside its key: the one that a person named first, then those asked for."""
    if asked is None:
        asked = [f.name for f in source.schema if is_scalar(f.type) or pa.types.is_temporal(f.type)]
    for name in asked:
        find_field(source, name)
    key = run.options.get("key")
    leading = [str(key)] if key in source.schema.names else []
    return [n for n in dict.fromkeys([*leading, *asked]) if n != source.key and n not in results]


def _check_names(source: Source, names: Sequence[str], places: dict[str, tuple[str, str]]) -> None:
    for name in (name for both in places.values() for name in both):
        if name in names or name == source.key:
            raise InputError(
                f"Column {name!r} of {source.describe()} has the name of a projection: leave it out"
                " (--columns), or export no projection (--projection none)."
            )
