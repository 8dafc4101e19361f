"""An aligned column: its type, and a map applied to stored vectors batch by batch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa

from ..alignment.maps import AlignmentMap
from ..connector import Annotation, Source, find_field
from ..stores.streaming import usable_cores
from ..stores.vectors import NUMPY_TYPES, decode

__all__ = ["aligned_annotation", "aligned_schema"]

_FLOATS = (pa.float16(), pa.float32(), pa.float64())


def aligned_schema(source: Source, column: str, name: str, width: int) -> pa.Schema:
    """The result column `name`, in the source column's float type (float32 where that holds integers)."""
    kind = find_field(source, column).type.value_type
    return pa.schema([(name, pa.list_(kind if kind in _FLOATS else pa.float32(), width))])


def aligned_annotation(
    map: AlignmentMap,
    source: Source,
    column: str,
    name: str,
    *,
    metadata: Mapping[str, str],
    where: str | None,
    batch_rows: int,
    threads: int | None = None,
    progress: Callable[[int], None],
) -> Annotation:
    """What to write: the map of `column` for every row; null where that is null, not finite or all zeros."""
    schema = aligned_schema(source, column, name, map.out_width)

    def compute(batch: pa.RecordBatch) -> pa.RecordBatch:
        vectors = decode(column, batch.column(column), map.width, directions=True, keys=batch.column(0))
        aligned = map.transform(vectors.matrix)
        usable = vectors.usable & np.isfinite(aligned).all(axis=1)
        aligned[~usable] = 0
        kind = schema.types[0]
        flat = pa.array(aligned.astype(NUMPY_TYPES[kind.value_type]).reshape(-1))
        blank = None if usable.all() else pa.array(~usable)
        array = pa.FixedSizeListArray.from_arrays(flat, map.out_width, mask=blank)
        return pa.RecordBatch.from_arrays([array.cast(kind)], schema=schema)

    return Annotation(
        schema=schema,
        reads=(column,),
        compute=compute,
        token=_token(map, name),
        metadata=metadata,
        where=where,
        batch_rows=batch_rows,
        workers=threads or usable_cores(),
        progress=progress,
    )


def _token(map: AlignmentMap, name: str) -> str:
    h = hashlib.blake2b(f"{name} {map.unit} {map.bandwidth}".encode(), digest_size=12)
    for array in (map.weights, map.bias, map.frequencies, map.landmarks):
        h.update(np.ascontiguousarray(array).tobytes())
    return h.hexdigest()
