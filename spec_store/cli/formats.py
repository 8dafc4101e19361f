"""Exact values as text: batches of Arrow as rows of JSON and CSV, a column at a time.

Numbers have as many digits as it takes to read the same value of the same width back: float32 0.1 is 0.1.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["csv_header", "csv_rows", "json_rows"]

_FORMULA = r"^[=+\-@\t\r]"
_WHOLE = r"^(-?\d+)$"
_OFFSET_FROM_UTC = r"([+-]\d\d)(\d\d)$"


def json_rows(batch: pa.RecordBatch) -> list[str]:
    """Each row as a JSON object, in ASCII. Not a number and infinite, which JSON lacks, are null."""
    return list(_json_objects(batch.schema.names, batch.columns, len(batch)).to_pylist())


def csv_header(names: Sequence[str], delimiter: str, *, excel_safe: bool = False) -> str:
    """The column names as a line of `csv_rows`."""
    cells = [pa.array([name], pa.string()) for name in names]
    if excel_safe:
        cells = [_defused(cell) for cell in cells]
    return _csv_lines(cells, delimiter, 1)[0]


def csv_rows(batch: pa.RecordBatch, delimiter: str, *, excel_safe: bool = False) -> list[str]:
    """Each row as a line of CSV by RFC 4180, without its end.

    Null is nothing and the empty text is ``""``; lists and structs are JSON. With `excel_safe`, text that a
    spreadsheet would run as a formula gets an apostrophe in front.
    """
    cells = []
    for column in batch.columns:
        text = _csv_text(column)
        cells.append(_defused(text) if excel_safe and _is_text(column.type) else text)
    return _csv_lines(cells, delimiter, len(batch))


def _csv_lines(columns: list[pa.Array], delimiter: str, n_rows: int) -> list[str]:
    if not columns:
        return [""] * n_rows
    special = rf'[{delimiter}"\r\n]|^$|^\s|\s$'
    cells = []
    for text in columns:
        quoted = pc.binary_join_element_wise('"', pc.replace_substring(text, '"', '""'), '"', "")
        cells.append(pc.if_else(pc.match_substring_regex(text, special), quoted, text).fill_null(""))
    return list(pc.binary_join_element_wise(*cells, delimiter).to_pylist())


def _defused(text: pa.Array) -> pa.Array:
    formula = pc.match_substring_regex(text, _FORMULA)
    return pc.if_else(formula, pc.binary_join_element_wise("'", text, ""), text)


def _csv_text(column: pa.Array) -> pa.Array:
    column = _plain(column)
    return _json_text(column) if pa.types.is_nested(column.type) else _scalar_text(column)


def _json_objects(names: list[str], columns: list[pa.Array], n_rows: int) -> pa.Array:
    if not names:
        return pa.array(["{}"] * n_rows)
    pieces: list[pa.Array | str] = []
    for i, (name, column) in enumerate(zip(names, columns, strict=True)):
        pieces += [("," if i else "{") + json.dumps(name) + ":", _json_text(column).fill_null("null")]
    return pc.binary_join_element_wise(*pieces, "}", "")


def _json_text(column: pa.Array) -> pa.Array:
    column = _plain(column)
    kind = column.type
    if pa.types.is_struct(kind):
        names = [kind.field(i).name for i in range(kind.num_fields)]
        return _where_valid(column, _json_objects(names, column.flatten(), len(column)))
    if pa.types.is_nested(kind):
        return _json_lists(column)
    text = _scalar_text(column)
    if pa.types.is_floating(kind):
        return pc.if_else(pc.is_finite(column), text, None)
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return text
    return pa.array([None if v is None else json.dumps(v) for v in text.to_pylist()], pa.string())


def _json_lists(column: pa.Array) -> pa.Array:
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    values = _json_text(column.flatten()).fill_null("null")
    inner = pc.binary_join(pa.ListArray.from_arrays(offsets, values), ",")
    return _where_valid(column, pc.binary_join_element_wise("[", inner, "]", ""))


def _where_valid(column: pa.Array, text: pa.Array) -> pa.Array:
    return pc.if_else(column.is_valid(), text, None)


def _plain(column: pa.Array) -> pa.Array:
    """Without dictionaries, run ends and extensions; maps as lists of entries, durations as counts."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        if kind.extension_name == "arrow.uuid":
            return pa.array([_uuid_text(v) for v in column.storage.to_pylist()], pa.string())
        return _plain(column.storage)
    if pa.types.is_dictionary(kind):
        return _plain(column.dictionary_decode())
    if pa.types.is_duration(kind):
        return column.cast(pa.int64())
    if pa.types.is_map(kind):
        return column.cast(pa.list_(pa.struct([("key", kind.key_type), ("value", kind.item_type)])))
    return _plain(pc.run_end_decode(column)) if pa.types.is_run_end_encoded(kind) else column


def _uuid_text(value: bytes | None) -> str | None:
    return None if value is None else str(uuid.UUID(bytes=value))


def _scalar_text(column: pa.Array) -> pa.Array:
    """Times by ISO 8601, bytes as base64, decimals with all their digits."""
    kind = column.type
    if pa.types.is_floating(kind):
        wide = column.cast(pa.float32()) if pa.types.is_float16(kind) else column
        return pc.replace_substring_regex(wide.cast(pa.string()), _WHOLE, r"\1.0")
    if pa.types.is_timestamp(kind):
        text = pc.replace_substring(column.cast(pa.string()), " ", "T", max_replacements=1)
        return pc.replace_substring_regex(text, _OFFSET_FROM_UTC, r"\1:\2") if kind.tz else text
    if pa.types.is_decimal(kind):
        return pa.array([None if v is None else f"{v:f}" for v in column.to_pylist()], pa.string())
    if _is_bytes(kind):
        encoded = [None if v is None else base64.b64encode(v).decode() for v in column.to_pylist()]
        return pa.array(encoded, pa.string())
    return column.cast(pa.string())


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    types = pa.types
    plain = types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)
    return bool(plain or types.is_binary_view(kind))
