"""An aligned column: its type, and a map applied to stored vectors batch by batch.

While a switch of models is under way it may hold the target's own vectors where rows have them, and mapped
ones elsewhere: a second column then says which, so that one index serves all rows meanwhile.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ..alignment.maps import AlignmentMap
from ..connector import Annotation, Source, find_field
from ..executor import IN_PROCESS, Executor
from ..stores.streaming import usable_cores
from ..stores.vectors import NUMPY_TYPES, decode

__all__ = ["EMBEDDED", "MAPPED", "aligned_annotation", "aligned_schema", "origin_column"]

MAPPED, EMBEDDED = "mapped", "embedded"
"""What the second column says of a row: its vector comes from the map, or is the target's own."""

_FLOATS = (pa.float16(), pa.float32(), pa.float64())


def origin_column(name: str) -> str:
    """The column that says where the vectors of an aligned column come from."""
    return f"{name}_from"


def aligned_schema(
    source: Source, column: str, name: str, width: int, *, target: str | None = None
) -> pa.Schema:
    """The result column `name`, in the source column's float type (float32 where that holds integers).

    With a target whose own vectors are kept, that which says where each vector comes from, too.
    """
    kind = find_field(source, column).type.value_type
    fields = [(name, pa.list_(kind if kind in _FLOATS else pa.float32(), width))]
    return pa.schema([*fields, (origin_column(name), pa.string())] if target else fields)


@dataclass(frozen=True)
class _Aligned:
    """The result columns of a batch."""

    map: AlignmentMap
    column: str
    target: str | None
    schema: pa.Schema

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        keys, map, target = batch.column(0), self.map, self.target
        vectors = decode(self.column, batch.column(self.column), map.width, directions=True, keys=keys)
        aligned = map.transform(vectors.matrix)
        usable = vectors.usable & np.isfinite(aligned).all(axis=1)
        if target:
            own = decode(target, batch.column(target), map.out_width, directions=True, keys=keys)
            aligned[own.usable] = own.normalized(np.flatnonzero(own.usable), "float32")
            usable |= own.usable
        aligned[~usable] = 0
        kind = self.schema.types[0]
        flat = pa.array(aligned.astype(NUMPY_TYPES[kind.value_type]).reshape(-1))
        blank = None if usable.all() else pa.array(~usable)
        array = pa.FixedSizeListArray.from_arrays(flat, map.out_width, mask=blank).cast(kind)
        if not target:
            return pa.RecordBatch.from_arrays([array], schema=self.schema)
        origin = pa.array(np.where(own.usable, EMBEDDED, MAPPED), pa.string(), mask=~usable)
        return pa.RecordBatch.from_arrays([array, origin], schema=self.schema)


def aligned_annotation(
    map: AlignmentMap,
    source: Source,
    column: str,
    name: str,
    *,
    target: str | None = None,
    metadata: Mapping[str, str],
    where: str | None,
    batch_rows: int,
    threads: int | None = None,
    progress: Callable[[int], None],
    executor: Executor = IN_PROCESS,
) -> Annotation:
    """What to write: the map of `column` for every row; null where that is null, not finite or all zeros.

    With a `target` column, rows that have a usable vector there get it instead, at unit length.
    """
    schema = aligned_schema(source, column, name, map.out_width, target=target)

    return Annotation(
        schema=schema,
        reads=(column, target) if target else (column,),
        compute=_Aligned(map, column, target, schema),
        token=_token(map, name, target),
        metadata=metadata,
        where=where,
        batch_rows=batch_rows,
        workers=threads or usable_cores(),
        progress=progress,
        executor=executor,
    )


def _token(map: AlignmentMap, name: str, target: str | None) -> str:
    h = hashlib.blake2b(f"{name} {target} {map.unit} {map.bandwidth}".encode(), digest_size=12)
    for array in (map.weights, map.bias, map.frequencies, map.landmarks):
        h.update(np.ascontiguousarray(array).tobytes())
    return h.hexdigest()
