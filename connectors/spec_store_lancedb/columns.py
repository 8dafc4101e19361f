"""Result columns in a table's schema: whose they are, and adding them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import lance
import pyarrow as pa

from .dataset import latest

__all__ = ["MARKER", "add_result_columns", "column_run", "foreign_columns", "has_result_columns"]

MARKER = b"spec_store.run"
"""Field metadata key of every column that spec-store wrote; its value is the run."""


def foreign_columns(schema: pa.Schema, names: Sequence[str]) -> list[str]:
    """Those of the names that are columns which spec-store did not write."""
    return [n for n in names if n in schema.names and MARKER not in (schema.field(n).metadata or {})]


def column_run(schema: pa.Schema, name: str) -> str | None:
    """The run that wrote a column; None for other people's columns, and for one that is not there."""
    if name not in schema.names:
        return None
    mark = (schema.field(name).metadata or {}).get(MARKER)
    return None if mark is None else mark.decode()


def has_result_columns(schema: pa.Schema, wanted: pa.Schema) -> bool:
    """Whether the schema has all of the columns, with the right types."""
    return all(n in schema.names and schema.field(n).type == wanted.field(n).type for n in wanted.names)


def add_result_columns(
    dataset: lance.LanceDataset, wanted: pa.Schema, marks: Mapping[str, Mapping[str, str]]
) -> lance.LanceDataset:
    """The latest version with the columns, null in every row, their metadata given by column.

    Those that are there, an incomplete set or of other types, are replaced: one file can't replace part of
    what another holds.
    """
    if held := [n for n in wanted.names if n in dataset.schema.names]:
        dataset.drop_columns(held)
        dataset = latest(dataset)
    fields = [f.with_nullable(True).with_metadata(dict(marks[f.name])) for f in wanted]
    dataset.add_columns(pa.schema(fields))
    return latest(dataset)
