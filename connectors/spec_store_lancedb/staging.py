"""Column files: result columns for all physical rows of a fragment, before anything refers to them."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import lance
import numpy as np
import pyarrow as pa
from lance import LanceOperation
from lance.fragment import DataFile
from numpy.typing import NDArray

from spec_store.connector import Annotation
from spec_store.errors import RetryError, SpecStoreError
from spec_store.stores.streaming import ordered_map

from .dataset import FragmentRange, local_folder, read_ahead, scan
from .ledger import Staged

__all__ = [
    "PREFIX",
    "Inputs",
    "Staging",
    "column_file_name",
    "delete_staged",
    "field_ids",
    "input_files",
    "is_complete",
    "is_settled",
    "replacement",
    "result_files",
    "stage",
]

# Of names with other characters some may be escaped in a filter.
_PLAIN = re.compile(r"[^`'\"\\]*")

PREFIX = "spec-"
"""Names of column files begin so."""


@dataclass(frozen=True)
class Inputs:
    """What results are computed from.

    Attributes
    ----------
    columns
        Those that are read.
    where
        A filter. Columns whose names occur in its text count as read, but for the results.
    results
        The result columns.
    """

    columns: tuple[str, ...]
    where: str | None
    results: tuple[str, ...]

    @classmethod
    def of(cls, annotation: Annotation) -> Inputs:
        """Those of an annotation."""
        return cls(annotation.reads, annotation.where, tuple(annotation.schema.names))


def input_files(
    dataset: lance.LanceDataset, fragment: lance.LanceFragment, inputs: Inputs
) -> tuple[int, tuple[str, ...]]:
    """What a staged file depends on: physical rows, and the data files that its rows are computed from."""
    names = [*(c.split(".")[0] for c in inputs.columns), *_named(dataset, inputs)]
    reads = set(field_ids(dataset, dict.fromkeys(names)))
    files = [file.path for file in fragment.metadata.files if reads & set(file.fields)]
    return fragment.physical_rows, tuple(files)


def _named(dataset: lance.LanceDataset, inputs: Inputs) -> list[str]:
    """Columns that the filter may read: it can't without naming them, in any case of letters."""
    if inputs.where is None:
        return []
    text = inputs.where.lower()
    return [
        name
        for name in dataset.schema.names
        if name not in inputs.results and (name.lower() in text or not _PLAIN.fullmatch(name))
    ]


def column_file_name(
    dataset: lance.LanceDataset, fragment: lance.LanceFragment, annotation: Annotation
) -> str:
    """A new name for a column file in the table's data folder, which tells what it is computed from."""
    digest = _digest(dataset, fragment, Inputs.of(annotation))
    return f"{PREFIX}{annotation.token[:12]}-{digest}-{uuid.uuid4().hex}.lance"


def _digest(dataset: lance.LanceDataset, fragment: lance.LanceFragment, inputs: Inputs) -> str:
    text = repr((inputs.where, *input_files(dataset, fragment, inputs)))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def result_files(dataset: lance.LanceDataset, fragment: lance.LanceFragment, inputs: Inputs) -> list[str]:
    """Names of a fragment's data files that hold result columns."""
    ids = set(field_ids(dataset, inputs.results))
    return [file.path for file in fragment.metadata.files if ids & set(file.fields)]


def is_settled(
    dataset: lance.LanceDataset, fragment: lance.LanceFragment, inputs: Inputs, token: str | None
) -> bool:
    """Whether all of a fragment's results were computed from the values that it holds now.

    Parameters
    ----------
    token
        Of the annotation that they must come from; None is any.
    """
    files = result_files(dataset, fragment, inputs)
    if len(files) != 1 or not files[0].startswith(PREFIX):
        return False
    found, _, digest = files[0].removeprefix(PREFIX).rpartition("-")[0].rpartition("-")
    return digest == _digest(dataset, fragment, inputs) and (token is None or token[:12] == found)


@dataclass(frozen=True)
class Staging:
    """Computes and writes the column file of a fragment, wherever it is called; pickles as its parts do."""

    dataset: lance.LanceDataset
    annotation: Annotation

    def __call__(self, item: tuple[int, str]) -> tuple[Staged, int]:
        """From a fragment's id and the name of a new file; with the number of rows that were computed."""
        fragment_id, path = item
        n_rows = 0

        def count(rows: int) -> None:
            nonlocal n_rows
            n_rows += rows
            self.annotation.progress(rows)

        fragment = self.dataset.get_fragment(fragment_id)
        assert fragment is not None
        return stage(self.dataset, fragment, replace(self.annotation, progress=count), path), n_rows


def stage(
    dataset: lance.LanceDataset, fragment: lance.LanceFragment, annotation: Annotation, path: str
) -> Staged:
    """Compute the result columns of one fragment into a new data file; memory is a few batches.

    Deleted rows, and rows outside the filter, are null. If anything fails the caller deletes the file.
    """
    physical_rows, files = input_files(dataset, fragment, Inputs.of(annotation))
    session = dataset.new_file_session()
    schema = _fast_to_write(annotation.schema)
    with session.open_writer(f"data/{path}", schema=schema, version=dataset.data_storage_version) as writer:
        for batch in _dense(_computed(dataset, fragment, annotation), physical_rows, annotation):
            writer.write_batch(pa.RecordBatch.from_arrays(_cast(batch, schema), schema=schema))
    folder = local_folder(dataset)
    size = 0 if folder is None else (folder / "data" / path).stat().st_size
    return Staged(fragment.fragment_id, physical_rows, files, path, size)


# Compressing floats that hardly compress took a fifth of the time of a run; they are small beside vectors.
_UNCOMPRESSED = {"lance-encoding:compression": "none", "lance-encoding:bss": "off"}


def _fast_to_write(schema: pa.Schema) -> pa.Schema:
    """The schema with lists of floats marked to be written as they are."""
    fields = []
    for f in schema:
        if pa.types.is_list(f.type) and pa.types.is_floating(f.type.value_type):
            item = pa.field("item", f.type.value_type, metadata=_UNCOMPRESSED)
            f = pa.field(f.name, pa.list_(item))
        fields.append(f)
    return pa.schema(fields)


def _cast(batch: pa.RecordBatch, schema: pa.Schema) -> list[pa.Array]:
    """The batch's columns in types that differ by field metadata only: no values are copied."""
    return [column.cast(f.type) for column, f in zip(batch.columns, schema, strict=True)]


def _computed(
    dataset: lance.LanceDataset, fragment: lance.LanceFragment, annotation: Annotation
) -> Iterator[tuple[NDArray[np.int64], pa.RecordBatch]]:
    """Offsets within the fragment of its live, selected rows, and their result columns, in order."""
    reads, where, rows = annotation.reads, annotation.where, annotation.batch_rows
    if where is None and reads:
        whole = FragmentRange(fragment, 0, fragment.count_rows())
        batches = read_ahead(dataset, reads, rows, whole, with_row_address=True)
    else:
        batches = scan(dataset, reads, where, rows, [fragment], with_row_address=True).to_batches()
    order = ["_rowid", *annotation.reads]

    def compute(batch: pa.RecordBatch) -> tuple[NDArray[np.int64], pa.RecordBatch]:
        offsets = (batch["_rowaddr"].to_numpy() & np.uint64(0xFFFFFFFF)).astype(np.int64)
        result = annotation.compute(batch.select(order))
        if result.num_rows != batch.num_rows or not result.schema.equals(annotation.schema):
            raise SpecStoreError(
                f"The annotation of {batch.num_rows} rows gave {result.num_rows} rows of {result.schema}."
            )
        return offsets, result

    for offsets, result in ordered_map(compute, batches, workers=annotation.workers):
        annotation.progress(len(offsets))
        yield offsets, result


def _dense(
    computed: Iterable[tuple[NDArray[np.int64], pa.RecordBatch]], physical_rows: int, annotation: Annotation
) -> Iterator[pa.RecordBatch]:
    """All physical rows in order, with nulls where nothing was computed."""
    done = 0
    for offsets, result in computed:
        if not len(offsets):
            continue
        if offsets[0] < done or np.any(np.diff(offsets) <= 0) or offsets[-1] >= physical_rows:
            raise SpecStoreError(f"Rows of a fragment came out of order near physical row {done}.")
        first, end = int(offsets[0]), int(offsets[-1]) + 1
        yield from _nulls(annotation, first - done)
        if end - first == len(offsets):
            yield result
        else:
            yield from _spread(result, offsets - first, end - first, annotation)
        done = end
    yield from _nulls(annotation, physical_rows - done)


def _spread(
    result: pa.RecordBatch, offsets: NDArray[np.int64], n: int, annotation: Annotation
) -> Iterator[pa.RecordBatch]:
    """`n` rows with the computed ones at `offsets`; a wide gap is not held in memory at once."""
    for start in range(0, n, annotation.batch_rows):
        stop = min(start + annotation.batch_rows, n)
        lo, hi = np.searchsorted(offsets, [start, stop])
        index = np.zeros(stop - start, np.int64)
        empty = np.ones(stop - start, bool)
        index[offsets[lo:hi] - start] = np.arange(lo, hi)
        empty[offsets[lo:hi] - start] = False
        yield result.take(pa.array(index, mask=empty))


def _nulls(annotation: Annotation, n: int) -> Iterator[pa.RecordBatch]:
    for start in range(0, n, annotation.batch_rows):
        rows = min(annotation.batch_rows, n - start)
        arrays = [pa.nulls(rows, f.type) for f in annotation.schema]
        yield pa.RecordBatch.from_arrays(arrays, schema=annotation.schema)


def is_complete(dataset: lance.LanceDataset, staged: Staged) -> bool:
    """Whether a staged file is still there, with all its rows: a cleanup by others may have removed it.

    Raises RetryError for a file that was cut short: Lance doesn't notice when a disk has no room for its end.
    """
    session = dataset.new_file_session()
    name = f"data/{staged.path}"
    if not session.contains(name):
        return False
    try:
        return bool(session.open_reader(name).metadata().num_rows == staged.physical_rows)
    except OSError as error:
        if local_folder(dataset) is None:
            raise
        raise RetryError(
            f"A column file in {dataset.uri} was cut short, as happens on a full disk. Nothing was published."
            " Free some space and try again."
        ) from error


def delete_staged(dataset: lance.LanceDataset, path: str) -> None:
    """Remove a staged file that nothing refers to, if it is there."""
    session = dataset.new_file_session()
    if session.contains(f"data/{path}"):
        session.delete_file(f"data/{path}")


def replacement(
    dataset: lance.LanceDataset, staged: Mapping[int, Staged], schema: pa.Schema, base_id: int | None = None
) -> LanceOperation.DataReplacement:
    """The commit that puts staged files in place, by the field ids that the columns have in `dataset`.

    Parameters
    ----------
    base_id
        Of the folder that holds the files, where it is not the data set's own.
    """
    fields, columns = _layout(dataset, schema)
    major, minor = map(int, dataset.data_storage_version.split("."))
    return LanceOperation.DataReplacement(
        [
            LanceOperation.DataReplacementGroup(
                fragment_id, DataFile(s.path, fields, columns, major, minor, s.size or None, base_id)
            )
            for fragment_id, s in staged.items()
        ]
    )


def _layout(dataset: lance.LanceDataset, schema: pa.Schema) -> tuple[list[int], list[int]]:
    """Which field ids and column numbers a data file of these columns lists.

    The rule differs between file versions (parents are listed or not), so it is read off a file of the same
    version that Lance itself wrote, in memory, and carried over to the dataset's own field ids.
    """
    empty = pa.Table.from_pylist([dict.fromkeys(schema.names)], schema=schema)
    scratch = lance.write_dataset(
        empty, f"memory://{uuid.uuid4().hex}", data_storage_version=dataset.data_storage_version
    )
    file = scratch.get_fragments()[0].metadata.files[0]
    ids = dict(zip(field_ids(scratch, schema.names), field_ids(dataset, schema.names), strict=True))
    return [ids[i] for i in file.fields], list(file.column_indices)


def field_ids(dataset: lance.LanceDataset, names: Iterable[str]) -> list[int]:
    """Ids of top-level fields and all that is nested in them, by name, parents first."""
    by_name = {f.name(): f for f in dataset.lance_schema.fields()}
    return [i for name in names if name in by_name for i in _nested_ids(by_name[name])]


def _nested_ids(field: Any) -> list[int]:
    return [field.id(), *(i for child in field.children() for i in _nested_ids(child))]
