"""What is kept with a run for later: its sample, so that questions read no vectors, and its leading modes."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..errors import InputError
from ..spectral.spectrum import Spectrum
from .sampling import Sample, pairwise_rows

__all__ = ["LeadingModes", "load_sample", "sample_to_bytes", "save_sample"]

_FORMAT = 1
# Bytes of other columns than vectors, beyond which the widest ones are left out.
_LARGEST_OTHERS = 32 << 20
_KEY = "key"


def save_sample(sample: Sample, seed: int) -> bytes:
    """The sample as an Arrow IPC file, vectors in their own float type."""
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


# Of each end, modes that are kept; half of them are looked for in what later rows span, and the reverse.
_KEPT_MODES = 10


@dataclass(frozen=True)
class LeadingModes:
    """The leading modes of both ends of a comparison.

    Attributes
    ----------
    ends
        Weights, shape (p, k) each, strongest first.
    """

    ends: tuple[NDArray[np.float64], NDArray[np.float64]]

    @property
    def compared(self) -> int:
        """How many later modes are looked for among these."""
        return max(1, min(int(end.shape[1]) for end in self.ends) // 2)

    @classmethod
    def of(cls, spectrum: Spectrum) -> LeadingModes:
        """Those of a spectrum."""
        first, second = spectrum.leading(_KEPT_MODES).ends
        return cls((first.weights, second.weights))

    def to_bytes(self) -> bytes:
        """As one .npz."""
        buffer = io.BytesIO()
        np.savez(buffer, first=self.ends[0], second=self.ends[1])
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> LeadingModes:
        """What `to_bytes` gave."""
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            return cls((stored["first"], stored["second"]))


def _matrix(column: pa.ChunkedArray) -> NDArray[np.floating]:
    array = column.combine_chunks()
    flat: NDArray[np.floating] = array.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(array), array.type.list_size)
