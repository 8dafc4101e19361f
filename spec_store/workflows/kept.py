"""The sample as it is kept with a run, so that later questions read no vectors."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..errors import InputError
from .sampling import Sample, pairwise_rows

__all__ = ["load_sample", "sample_to_bytes", "save_sample"]

_FORMAT = 1
# Bytes of vectors up to which a sample is kept: a registry is to be read like any table.
_LARGEST_SAMPLE = 128 << 20
# And of other columns, beyond which the widest ones are left out.
_LARGEST_OTHERS = 32 << 20
_KEY = "key"


def save_sample(sample: Sample, seed: int) -> bytes | None:
    """The sample as an Arrow IPC file, vectors in their own float type; None where it is too large."""
    if sum(x.nbytes for x in sample.rows) > _LARGEST_SAMPLE:
        return None
    others = sample.others
    while others.num_columns and others.nbytes > _LARGEST_OTHERS:
        sizes = [column.nbytes for column in others.columns]
        others = others.remove_column(int(np.argmax(sizes)))
    return sample_to_bytes(replace(sample, others=others), seed)


def sample_to_bytes(sample: Sample, seed: int, *, compression: str | None = "zstd") -> bytes:
    """All of the sample as an Arrow IPC file."""
    vectors = [pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), x.shape[1]) for x in sample.rows]
    names = [_KEY, *(f"vector_{i}" for i in range(len(vectors))), *sample.others.column_names]
    header = {"format": _FORMAT, "columns": sample.columns, "seed": seed, "n_vectors": len(vectors)}
    table = pa.Table.from_arrays([sample.keys, *vectors, *sample.others.columns], names=names)
    table = table.replace_schema_metadata({"spec_store.sample": json.dumps(header)})
    buffer = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_file(buffer, table.schema, options=options) as file:
        file.write_table(table)
    return buffer.getvalue()


def load_sample(data: bytes) -> Sample:
    """What `save_sample` wrote. Raises InputError for what a newer version wrote."""
    table = pa.ipc.open_file(pa.BufferReader(data)).read_all()
    header = json.loads(table.schema.metadata[b"spec_store.sample"])
    if header["format"] != _FORMAT:
        raise InputError(f"The kept sample has format {header['format']}; expected {_FORMAT}.")
    n_vectors = header["n_vectors"]
    rows = tuple(_matrix(column) for column in table.columns[1 : 1 + n_vectors])
    others = table.select(range(1 + n_vectors, table.num_columns)).replace_schema_metadata(None)
    keys = table.column(0).combine_chunks()
    return Sample(tuple(header["columns"]), rows, pairwise_rows(len(table), header["seed"]), others, keys)


def _matrix(column: pa.ChunkedArray) -> NDArray[np.floating]:
    array = column.combine_chunks()
    flat: NDArray[np.floating] = array.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(array), array.type.list_size)
