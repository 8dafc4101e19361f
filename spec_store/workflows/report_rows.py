"""The rows that a report shows: a seeded sample with vectors and memberships, and what names single rows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..connector import Source, find_field
from ..errors import InputError, SpecStoreError
from ..keys import key_family
from ..reporting.data import RowFilter
from ..reporting.sample import ReportSample
from ..runs.records import ComparisonRecord
from ..stores.filters import quoted
from ..stores.vectors import decode, vector_width
from .report_columns import ReportColumns

__all__ = ["read_in_pieces", "read_sample", "row_filter"]

_PLAIN_NAME = re.compile(r"[a-z_][a-z0-9_]*")
_PIECE_ROWS = 256


def read_sample(
    source: Source, run: ComparisonRecord, columns: ReportColumns, *, n: int, seed: int
) -> ReportSample:
    """A uniform sample of the rows that a run compared.

    Parameters
    ----------
    columns
        Vectors to read; rows without a usable one are left out. Of the others the key and what is counted;
        where the source has no random access, what is shown too.
    n
        Rows; fewer where there are fewer.

    Raises
    ------
    InputError
        None of the sampled rows was compared.
    """
    results = [f"{run.prefix}_clusters", f"{run.prefix}_scores"]
    shown = () if source.random_access else columns.shown
    others = list(dict.fromkeys([*([columns.key] if columns.key else []), *columns.counted, *shown]))
    names = list(dict.fromkeys([*columns.vectors, *results, *others]))
    table = source.sample(n, seed=seed, columns=names, where=run.options.get("where")).combine_chunks()
    keys = table.column(0).combine_chunks()
    directions = bool(run.options.get("normalize", True)) or run.options["kernel"] == "cosine"
    usable = table.column(results[1]).is_valid().to_numpy(zero_copy_only=False)
    vectors: dict[str, NDArray[np.float32]] = {}
    for c in columns.vectors:
        held = table.column(c).combine_chunks()
        width = vector_width(c, find_field(source, c).type, held.drop_null())
        found = decode(c, held, width, directions=directions, keys=keys)
        usable = usable & found.usable
        vectors[c] = (found.normalized if directions else found.chosen)(None, "float32")
    kept = np.flatnonzero(usable)
    if not len(kept):
        raise InputError(
            f"None of {len(table):,} sampled rows of {source.describe()} holds results of run {run.run_id}."
        )
    table = table.take(pa.array(kept))
    numbers = tuple(c.cluster for c in run.clusters)
    return ReportSample(
        keys=table.column(0).combine_chunks(),
        vectors={c: np.ascontiguousarray(x[kept]) for c, x in vectors.items()},
        numbers=numbers,
        members=_members(table.column(results[0]).combine_chunks(), numbers),
        scores=_scores(table.column(results[1]).combine_chunks(), run),
        others=table.select(others),
    )


def _members(lists: pa.ListArray, numbers: Sequence[int]) -> NDArray[np.bool_]:
    rows = np.repeat(np.arange(len(lists)), lists.value_lengths().fill_null(0).to_numpy())
    held = lists.flatten().to_numpy(zero_copy_only=False)
    members = np.zeros((len(lists), len(numbers)), bool)
    for j, number in enumerate(numbers):
        members[rows[held == number], j] = True
    return members


def _scores(lists: pa.ListArray, run: ComparisonRecord) -> NDArray[np.float32]:
    flat = lists.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    if not run.clusters:
        return np.zeros((len(lists), 0), np.float32)
    # Numbers began with 0 before clusters were evaluated by capture.
    at = [c.cluster - (c.capture is not None) for c in run.clusters]
    found: NDArray[np.float32] = np.nan_to_num(flat.reshape(len(lists), -1)[:, at])
    return found


def read_in_pieces(source: Source, sample: ReportSample, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Columns of the sampled rows, some hundred rows at a time: pictures need not fit in memory together.

    Of a source without random access they were read with the sample.
    """
    for start in range(0, len(sample), _PIECE_ROWS):
        if source.random_access:
            yield source.take(sample.keys.slice(start, _PIECE_ROWS), columns).select(list(columns))
        else:
            yield sample.others.select(list(columns)).slice(start, _PIECE_ROWS)


def row_filter(source: Source, sample: ReportSample, key: str | None) -> RowFilter | None:
    """How SQL selects single rows: by the key that a person named, else by the store's own.

    None where neither can be written as a literal, or where a filter by it selects nothing.
    """
    named = key is not None and key in sample.others.column_names
    column = key if named and key is not None else source.key
    values = sample.others.column(column).combine_chunks() if named else sample.keys
    if values.null_count or _key_family(values.type) not in ("integer", "text"):
        return None
    literals = tuple(_literal(v) for v in values.to_pylist())
    spellings = [column] if _PLAIN_NAME.fullmatch(column) else []
    for name in [*spellings, quoted(column)]:
        if _selects(source, f"{name} IN ({literals[0]})"):
            return RowFilter(name, literals, _note(literals, named))
    return None


def _selects(source: Source, where: str) -> bool:
    """Whether a filter works: SQL keeps some names for itself, and a store may keep its row keys."""
    try:
        return source.count(where) > 0
    except SpecStoreError:
        return False


def _note(literals: Sequence[str], named: bool) -> str:
    if not named:
        return "Row keys of the store: compaction may change them. Compare with --key for lasting ones."
    if len(set(literals)) < len(literals):
        return "Values of the key repeat: the filter selects every row that has one of them."
    return ""


def _key_family(kind: pa.DataType) -> str | None:
    """The family of keys of a type; None for a type that can't be one."""
    try:
        return key_family(kind)
    except InputError:
        return None


def _literal(value: object) -> str:
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else str(value)
