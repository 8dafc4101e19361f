"""Queries: the vectors that both models give for the same searches, and which rows are relevant."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..connector import Source, find_field
from ..errors import InputError, InvalidVectorsError
from ..keys import hash_keys, key_family
from ..stores.locate import open_data, open_location, open_table
from ..stores.references import ColumnRef
from ..stores.tables import Database, TableLike
from ..stores.vectors import InvalidRows, decode, is_vector
from .switch import Switch

__all__ = ["Queries", "read_queries"]

# connector:uri, and not the scheme of a URI as in s3://.
_STORE = re.compile(r"[a-z][a-z0-9_-]+:(?!//)")


@dataclass(frozen=True)
class Queries:
    """Searches to evaluate a switch on.

    Attributes
    ----------
    source
        Queries by the model in use now, unit rows, shape (n, d_a); None where they are not known.
    target
        Queries by the model to switch to, unit rows, shape (n, d_b); None in place, where none are asked.
    relevant
        For each query, the hashes of the keys of its relevant rows, sorted; None where none are given.
    own
        Hashes of the keys of the rows that stand in as queries, shape (n,), and don't find themselves; None
        for real queries.
    """

    source: NDArray[np.float32] | None
    target: NDArray[np.float32] | None
    relevant: tuple[NDArray[np.uint64], ...] | None = None
    own: NDArray[np.uint64] | None = None

    def __len__(self) -> int:
        known = self.target if self.target is not None else self.source
        return 0 if known is None else len(known)


def read_queries(
    switch: Switch,
    queries: TableLike,
    *,
    query_source: str | None,
    query_target: str | None,
    relevant: str | None,
    db: Database,
) -> Queries:
    """Read queries from a file, a table, another store (``connector:uri``) or data in memory.

    Raises
    ------
    InputError
        No such file or column, no queries, vectors of other widths, or ids of another type than the key.
    InvalidVectorsError
        A query that is null, zero or not finite.
    """
    needed = {"query_source": query_source} if switch.in_place else {"query_target": query_target}
    if switch.map is None:
        needed["query_source"] = query_source
    for name, given in needed.items():
        if not given:
            raise InputError(
                f"Queries are given without {name} (--{name.replace('_', '-')}): name their column that holds"
                f" vectors of the model of {switch.columns[name == 'query_target']!r}."
            )
    opened = _opened(queries, db)
    columns = [c for c in (query_source, query_target, relevant) if c]
    for column in columns:
        find_field(opened, column)
    batches = [b for b in opened.batches(list(dict.fromkeys(columns))) if len(b)]
    if not batches:
        raise InputError(f"{opened.describe()} holds no queries.")
    table = pa.Table.from_batches(batches)
    vectors = [
        None if column is None else _unit_rows(opened, table, column, width, of)
        for column, width, of in zip((query_source, query_target), switch.widths, switch.columns, strict=True)
    ]
    ids = None if relevant is None else _relevant(switch, opened, table, relevant)
    return Queries(vectors[0], vectors[1], ids)


def _opened(queries: TableLike, db: Database) -> Source:
    if not isinstance(queries, (str, os.PathLike)):
        return open_data(queries)
    place = os.fspath(queries)
    if _STORE.match(place):
        ref = ColumnRef.parse(f"queries={place}")
        assert ref.location is not None
        return open_location(ref.location, ref.table)
    return open_table(place, db)


def _unit_rows(source: Source, table: pa.Table, column: str, width: int, of: str) -> NDArray[np.float32]:
    kind = find_field(source, column).type
    if not is_vector(kind):
        raise InputError(
            f"Column {column!r} of {source.describe()} is {kind}; expected one vector per query."
        )
    keys, array = table.column(0).combine_chunks(), table.column(column).combine_chunks()
    try:
        vectors = decode(column, array, width, directions=True, keys=keys)
    except InvalidVectorsError as error:
        raise InvalidVectorsError(
            f"The queries' vectors and those of {of!r} must have one width, {width}. {error}"
        ) from error
    if not vectors.usable.all():
        invalid = InvalidRows()
        invalid.update(keys, {column: vectors})
        raise InvalidVectorsError(
            f"Queries of {source.describe()} can't be searched for: {invalid.describe()}."
        )
    return vectors.normalized(None, "float32")


def _relevant(switch: Switch, opened: Source, table: pa.Table, column: str) -> tuple[NDArray[np.uint64], ...]:
    kind = find_field(opened, column).type
    listed = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not listed:
        raise InputError(
            f"Column {column!r} of {opened.describe()} is {kind}; expected lists of keys of relevant rows."
        )
    key, key_kind = switch.key_column
    found = "null" if pa.types.is_null(kind.value_type) else _family(kind.value_type)
    if found not in ("null", key_family(key_kind)):
        raise InputError(
            f"Column {column!r} of {opened.describe()} lists {kind.value_type}; the rows of"
            f" {switch.source.describe()} go by {key!r}, which is {key_kind}. Name the column that"
            " relevant rows are listed by with --key (key=)."
        )
    lists: list[NDArray[np.uint64]] = []
    for ids in table.column(column):
        values = ids.values
        values = None if values is None or not len(values) else values.drop_null()
        lists.append(np.empty(0, np.uint64) if not values else np.unique(hash_keys(values)))
    if not any(len(ids) for ids in lists):
        raise InputError(f"Column {column!r} of {opened.describe()} lists no relevant row for any query.")
    return tuple(lists)


def _family(kind: pa.DataType) -> str:
    try:
        return key_family(kind)
    except InputError:
        return str(kind)
