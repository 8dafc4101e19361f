"""Rows in the order of columns: the first of a stream in bounded memory, or all where they fit in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from ..connector import Source, find_field
from ..errors import ColumnNotFoundError, InputError

__all__ = ["MOST_SORTED_BYTES", "MOST_SORTED_ROWS", "Order", "first_rows", "ordered_rows", "parse_orders"]

MOST_SORTED_ROWS = 1_000_000
MOST_SORTED_BYTES = 2 << 30
"""What is held in memory to be sorted, at most: a list or text column of more bytes can't be rearranged."""

# Rows beyond the limit that are held until they are sorted, so that sorting is not repeated for each batch.
_SLACK_ROWS = 1 << 16
# Up to so many rows, reading all columns of the chosen rows alone is cheaper than reading those of all rows.
_MOST_TAKEN_ROWS = 10_000
# Arrow does not rearrange views.
_WITHOUT_VIEWS = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}


@dataclass(frozen=True)
class Order:
    """A column to order by; NaN and then nulls come last in either direction."""

    column: str
    descending: bool = False


def parse_orders(source: Source, order_by: str | Sequence[str], *, descending: bool) -> tuple[Order, ...]:
    """Read ``score desc``: a column, and possibly its direction, upper or lower case.

    Parameters
    ----------
    descending
        The direction of those that give none.

    Raises
    ------
    ColumnNotFoundError
        No such column.
    InputError
        Its values have no order.
    """
    texts = [order_by] if isinstance(order_by, str) else list(order_by)
    if not texts:
        raise InputError("order_by is empty: expected at least one column.")
    orders = tuple(_parse(source, text.strip(), descending) for text in texts)
    for order in orders:
        kind = find_field(source, order.column).type
        if not _has_order(kind):
            raise InputError(
                f"Column {order.column!r} holds {kind}, which has no order: expected numbers, text, times or"
                " booleans."
            )
    return orders


def _parse(source: Source, text: str, descending: bool) -> Order:
    name, _, last = text.rpartition(" ")
    direction = last.lower()
    if direction not in ("asc", "desc") or not name or _exists(source, text):
        return Order(_unquoted(source, text), descending)
    return Order(_unquoted(source, name.rstrip()), direction == "desc")


def _unquoted(source: Source, name: str) -> str:
    if len(name) > 2 and name[0] in '"`' and name[-1] == name[0] and not _exists(source, name):
        return name[1:-1].replace(name[0] * 2, name[0])
    return name


def _exists(source: Source, name: str) -> bool:
    try:
        find_field(source, name)
    except ColumnNotFoundError:
        return False
    return True


def ordered_rows(
    source: Source, where: str | None, names: Sequence[str], orders: Sequence[Order], limit: int | None
) -> Iterator[pa.RecordBatch]:
    """The first rows that match, in order; rows that are equal in all of it keep the table's own.

    Raises InputError, before any row is read, where more than `MOST_SORTED_ROWS` would have to be held.

    Memory: the rows asked for, and as many again or 65,536. Where there are few and the store has random
    access, only the columns to order by are read of all rows, and the others of those chosen.
    """
    if limit is None or limit > MOST_SORTED_ROWS:
        n = source.count(where)
        if min(n, n if limit is None else limit) > MOST_SORTED_ROWS:
            raise InputError(
                f"{n:,} rows match; at most {MOST_SORTED_ROWS:,} can be ordered. Give a --limit (limit=) or a"
                " narrower filter."
            )
    return _ordered(source, where, list(names), orders, limit)


def _ordered(
    source: Source, where: str | None, names: list[str], orders: Sequence[Order], limit: int | None
) -> Iterator[pa.RecordBatch]:
    by = list(dict.fromkeys(order.column for order in orders))
    if source.random_access and limit is not None and limit <= _MOST_TAKEN_ROWS:
        chosen = first_rows(_keyed(source, by, where), orders, limit)
        if len(chosen):
            keys = chosen.column(0).combine_chunks()
            yield from source.take(keys, names).select(names).to_batches()
        return
    columns = list(dict.fromkeys([*names, *by]))
    rows = first_rows((b.select(columns) for b in source.batches(columns, where=where)), orders, limit)
    if len(rows):
        yield from rows.select(names).to_batches(max_chunksize=8192)


def _keyed(source: Source, by: list[str], where: str | None) -> Iterator[pa.RecordBatch]:
    """The key under a name that no column has, and the columns."""
    key = max(by, key=len) + "_key"
    for batch in source.batches(by, where=where, batch_rows=_SLACK_ROWS):
        yield pa.RecordBatch.from_arrays(batch.columns, names=[key, *by])


def first_rows(batches: Iterable[pa.RecordBatch], orders: Sequence[Order], limit: int | None) -> pa.Table:
    """The first `limit` rows of a stream in the given order, or all; an empty table of an empty stream.

    Cost: O(n log n) for n rows, in parts of ``max(limit, 65,536)``.
    """
    held: list[pa.RecordBatch] = []
    n = n_bytes = 0
    for batch in batches:
        held.append(batch)
        n += len(batch)
        n_bytes += batch.nbytes
        if limit is not None and n > limit + max(limit, _SLACK_ROWS):
            held = _sorted(held, orders, limit).to_batches()
            n, n_bytes = limit, sum(b.nbytes for b in held)
        if n_bytes > MOST_SORTED_BYTES:
            raise InputError(
                f"The rows to be ordered take more than {MOST_SORTED_BYTES / 2**30:.0f} GB. Give a smaller"
                " --limit (limit=), or fewer columns: --select (select=)."
            )
    return _sorted(held, orders, limit)


def _sorted(batches: list[pa.RecordBatch], orders: Sequence[Order], limit: int | None) -> pa.Table:
    if not batches:
        return pa.table({})
    rows = pa.Table.from_batches(batches)
    keys = [pa.chunked_array([_sortable(chunk) for chunk in rows.column(o.column).chunks]) for o in orders]
    names = [str(i) for i in range(len(orders))]
    directions = ["descending" if o.descending else "ascending" for o in orders]
    order = pc.sort_indices(
        pa.table(keys, names=names),
        sort_keys=list(zip(names, directions, strict=True)),
    )
    order = order if limit is None else order.slice(0, limit)
    takeable = pa.schema([f.with_type(_WITHOUT_VIEWS.get(f.type, f.type)) for f in rows.schema])
    return rows.cast(takeable).take(order).cast(rows.schema)


def _has_order(kind: pa.DataType) -> bool:
    empty = _sortable(pa.nulls(0, kind))
    if pa.types.is_nested(empty.type):
        return False
    try:
        pc.sort_indices(empty)
    except (pa.ArrowNotImplementedError, pa.ArrowTypeError, pa.ArrowInvalid):
        return False
    return True


def _sortable(column: pa.Array) -> pa.Array:
    """The values in a type that Arrow can sort."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return _sortable(column.storage)
    if pa.types.is_dictionary(kind):
        return _sortable(column.dictionary_decode())
    if pa.types.is_float16(kind):
        return column.cast(pa.float32())
    return column.cast(_WITHOUT_VIEWS[kind]) if kind in _WITHOUT_VIEWS else column
