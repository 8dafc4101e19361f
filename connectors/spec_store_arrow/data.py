"""What may be given instead of a table's name, and which source reads it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from spec_store.connector import Source
from spec_store.errors import InputError
from spec_store.stores.blocks import RowBlocks, map_file, spool

from .files import FileSource
from .memory import DatasetSource, HuggingFaceSource, StreamSource, TableSource
from .numbered import plain_batch, without_views

__all__ = ["wrap"]

_EXPECTED = (
    "expected a table's name; a path of Parquet or Arrow files; a pyarrow, pandas, polars, DuckDB or Hugging"
    " Face table; a list of dicts; or a mapping from names to arrays"
)
# What these hold can't be read in one order several times.
_REMEDIES = {
    "RecordBatchReader": "Give what it was made from, or reader.read_all() if that fits in memory.",
    "IterableDataset": "Load it without streaming=True, or write it to a file: data.to_parquet(path).",
}


def wrap(data: Any) -> Source:
    """A source over data.

    Parameters
    ----------
    data
        - a path of Parquet or Arrow files (`str` or `Path`), or of a folder of them;
        - a pyarrow table, record batch or data set;
        - a Hugging Face `Dataset`;
        - a list of dicts, one per row;
        - a mapping from names to arrays, vectors as shape (n, d);
        - a polars `LazyFrame` or a DuckDB relation: run once, its rows kept in a temporary file, as another
          run may give them in another order;
        - anything else with ``__arrow_c_stream__``, such as a pandas or polars data frame: exports a stream
          for each pass.

    Raises
    ------
    InputError
        Anything else, with what to give in its place.
    """
    kind = type(data).__name__
    library = type(data).__module__.split(".")[0]
    if kind in _REMEDIES:
        raise InputError(
            f"A {kind} can be read only once, and a comparison reads its rows several times."
            f" {_REMEDIES[kind]}"
        )
    if library == "datasets" and kind.endswith("DatasetDict"):
        split = next(iter(data), "train")
        raise InputError(f"A {kind} holds several data sets: {', '.join(data)}. Give one: data[{split!r}].")
    if isinstance(data, (str, os.PathLike)):
        return FileSource(os.fspath(data))
    if isinstance(data, pa.RecordBatch):
        data = pa.Table.from_batches([data])
    elif isinstance(data, Mapping):
        data = _table(data)
    elif isinstance(data, Sequence) and data and all(isinstance(row, Mapping) for row in data):
        names = dict.fromkeys(name for row in data for name in row)  # any row may lack some
        data = _table({name: [row.get(name) for row in data] for name in names})
    if isinstance(data, pa.Table):
        return TableSource.of(data)
    if isinstance(data, ds.Dataset):
        return DatasetSource(data)
    if library == "datasets" and kind == "Dataset":
        return HuggingFaceSource(data)
    if library == "polars" and kind == "LazyFrame":
        return _copied(_collected(data), kind)
    if hasattr(data, "__arrow_c_stream__"):
        return _copied(_streamed(data), kind) if kind == "DuckDBPyRelation" else StreamSource(data)
    raise InputError(f"A {kind} can't be compared: {_EXPECTED}.")


def _collected(frame: Any) -> RowBlocks:
    """The result of a polars query, streamed to a temporary file that goes with its rows."""
    import polars

    with tempfile.TemporaryDirectory(prefix="spec-store-") as folder:
        path = Path(folder) / "rows.arrow"
        try:
            frame.sink_ipc(path, compression="uncompressed", compat_level=polars.CompatLevel.oldest())
        except Exception as error:  # whatever the query raises
            reason = str(error).splitlines()[0]
            raise InputError(
                f"The LazyFrame can't be run: {reason}. Give a DataFrame: frame.collect()."
            ) from error
        return map_file(path)


def _streamed(data: Any) -> RowBlocks:
    reader = pa.RecordBatchReader.from_stream(data)
    return spool(without_views(reader.schema), map(plain_batch, reader))


def _copied(rows: RowBlocks, kind: str) -> TableSource:
    n_bytes = sum(batch.nbytes for batch in rows.batches)
    note = f"The {kind} was run once, and {n_bytes / 1e9:,.2f} GB of rows copied to a temporary file."
    return TableSource(rows, f"a {kind} of {len(rows):,} rows", (note,))


def _table(columns: Mapping[str, Any]) -> pa.Table:
    arrays = {name: _column(name, values) for name, values in columns.items()}
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"The arrays have different numbers of rows: {lengths}.")
    return pa.table(arrays)


def _column(name: str, values: Any) -> pa.Array | pa.ChunkedArray:
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        return values
    try:
        if isinstance(values, list):
            return pa.array(values)
        array = np.asarray(values)
        if not array.dtype.isnative:
            array = array.astype(array.dtype.newbyteorder("="))
        if array.ndim == 1:
            return pa.array(array)
        if array.ndim == 2:
            return pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), array.shape[1])
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise InputError(f"Array {name!r} can't be read: {error}") from error
    raise InputError(f"Array {name!r} has shape {array.shape}; expected (rows,) or (rows, dimensions).")
