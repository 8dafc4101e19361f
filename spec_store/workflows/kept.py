"""What is kept with a run, so that later questions read no vectors: its sample, its clusters' rules."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..errors import InputError
from ..spectral.clusters import Cluster
from ..spectral.features import FeatureMap
from .sampling import Sample, pairwise_rows

__all__ = ["KeptRules", "load_rules", "load_sample", "save_rules", "save_sample"]

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
    vectors = [pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), x.shape[1]) for x in sample.rows]
    names = [_KEY, *(f"vector_{i}" for i in range(len(vectors))), *others.column_names]
    header = {"format": _FORMAT, "columns": sample.columns, "seed": seed, "n_vectors": len(vectors)}
    table = pa.Table.from_arrays([sample.keys, *vectors, *others.columns], names=names)
    table = table.replace_schema_metadata({"spec_store.sample": json.dumps(header)})
    buffer = io.BytesIO()
    with pa.ipc.new_file(buffer, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as file:
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


@dataclass(frozen=True)
class KeptRules:
    """The linear rules of a run's clusters: a row is a member where φ·centre ≥ threshold.

    Attributes
    ----------
    digests
        Of the two feature maps.
    numbers, ends
        Of each cluster: its number, and which embedding groups it.
    centres
        Shape (p_E,) each, in the whitened features of that embedding.
    thresholds, typical
        Of each: the product of a row that is just a member, and of the median member.
    """

    digests: tuple[str, str]
    numbers: tuple[int, ...]
    ends: tuple[int, ...]
    centres: tuple[NDArray[np.float64], ...]
    thresholds: tuple[float, ...]
    typical: tuple[float, ...]

    def fit(self, maps: Sequence[FeatureMap]) -> bool:
        """Whether they are rules on the features of these maps."""
        return self.digests == tuple(m.digest for m in maps)


def save_rules(clusters: Sequence[Cluster], maps: Sequence[FeatureMap]) -> bytes:
    """The rules as one .npz: JSON and arrays, no pickle."""
    header = {
        "format": _FORMAT,
        "digests": [m.digest for m in maps],
        "rules": [
            {"number": c.number, "end": c.end, "threshold": c.threshold, "typical": c.typical}
            for c in clusters
        ],
    }
    arrays = {f"centre_{i}": c.centre for i, c in enumerate(clusters)}
    buffer = io.BytesIO()
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez_compressed(buffer, header=text, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def load_rules(data: bytes) -> KeptRules:
    """What `save_rules` wrote. Raises InputError for what a newer version wrote."""
    with np.load(io.BytesIO(data), allow_pickle=False) as stored:
        header = json.loads(stored["header"].tobytes())
        if header["format"] != _FORMAT:
            raise InputError(f"The kept rules have format {header['format']}; expected {_FORMAT}.")
        rules = header["rules"]
        return KeptRules(
            digests=(header["digests"][0], header["digests"][1]),
            numbers=tuple(r["number"] for r in rules),
            ends=tuple(r["end"] for r in rules),
            centres=tuple(stored[f"centre_{i}"] for i in range(len(rules))),
            thresholds=tuple(r["threshold"] for r in rules),
            typical=tuple(r["typical"] for r in rules),
        )
