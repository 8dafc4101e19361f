"""Parquet and Arrow files, folders of them, and object-store URIs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.dataset as ds
from pyarrow import fs

from spec_store.connector import Partition
from spec_store.errors import InputError

from .folders import data_files
from .formats import Format, stored_format
from .numbered import NumberedSource
from .remote import locate
from .streams import StreamFile

__all__ = ["FileSource"]

_Stamp = tuple[int, int]


class _File(Protocol):
    """One file of a source."""

    path: str
    n_rows: int

    def batches(
        self, columns: Sequence[str], batch_rows: int, check_unchanged: Callable[[], None]
    ) -> Iterator[pa.RecordBatch]: ...


class FileSource(NumberedSource):
    """Files of one schema, in the order of their paths; streamed batch by batch.

    Parameters
    ----------
    uri
        A file, or a folder (hive partitions become columns), on disk or in an object store.
    """

    def __init__(self, uri: str) -> None:
        filesystem, path = locate(uri)
        paths = data_files(filesystem, path, uri)
        try:
            stored = stored_format(filesystem, paths[0])
            schema, files = (
                _stream_files(filesystem, paths)
                if stored == "arrow stream"
                else _dataset_files(filesystem, paths, path, stored)
            )
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(f"{uri} can't be read: {error}") from error
        super().__init__(uri, schema)
        self._files = {file.path: file for file in files}
        self._filesystem = filesystem
        self._path = path
        self._stamp = self._stamps(paths)

    def __reduce__(self) -> tuple[Any, ...]:
        """By path and state of its files."""
        local = isinstance(self._filesystem, fs.LocalFileSystem)
        return _reopen, (self.uri, self._path if local else self.uri, self._stamp)

    @property
    def fingerprint(self) -> str:
        return f"{self.uri}|{sorted(self._stamp.items())}"

    def count(self, where: str | None = None) -> int:
        """Rows in all files, as they were when the source was opened."""
        self._refuse_filter(where)
        return sum(file.n_rows for file in self._files.values())

    def partitions(self) -> list[Partition]:
        """The files."""
        return [Partition(path, file.n_rows) for path, file in self._files.items()]

    def _columns(
        self, columns: Sequence[str], partition: Partition | None, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        assert partition is not None
        file = self._files[partition.id]
        self._check_unchanged(file.path)
        try:
            yield from file.batches(columns, batch_rows, lambda: self._check_unchanged(file.path))
        except (pa.ArrowInvalid, pa.ArrowTypeError, OSError) as error:
            raise InputError(f"{file.path} can't be read: {error}") from error

    def _stamps(self, paths: Sequence[str]) -> dict[str, _Stamp]:
        infos = self._filesystem.get_file_info(list(paths))
        return {i.path: (i.size, i.mtime_ns) for i in infos}

    def _check_unchanged(self, path: str) -> None:
        if self._stamps([path])[path] != self._stamp[path]:
            raise InputError(f"{path} changed while it was read. Run again.")


def _reopen(uri: str, place: str, stamp: dict[str, _Stamp]) -> FileSource:
    """What was pickled. Raises InputError where the files are others now."""
    source = FileSource(place)
    if source._stamp != stamp:
        raise InputError(f"Files of {uri} were changed or replaced since they were opened. Run again.")
    source.uri = uri
    return source


class _DatasetFile:
    """A Parquet file, or an Arrow file with its index of batches."""

    def __init__(self, fragment: Any, schema: pa.Schema) -> None:
        self.path: str = fragment.path
        self.n_rows: int = fragment.count_rows()
        self._fragment = fragment
        self._schema = schema

    def batches(
        self, columns: Sequence[str], batch_rows: int, check_unchanged: Callable[[], None]
    ) -> Iterator[pa.RecordBatch]:
        names = self._schema.names
        found: Iterator[pa.RecordBatch] = self._fragment.to_batches(
            schema=self._schema,
            columns={c: ds.field(c) if c in names else ds.field(*c.split(".")) for c in columns},
            batch_size=batch_rows,
            batch_readahead=1,
            fragment_readahead=1,
            cache_metadata=False,
        )
        return found


def _dataset_files(
    filesystem: fs.FileSystem, paths: list[str], path: str, stored: Format
) -> tuple[pa.Schema, Sequence[_File]]:
    buffered = ds.ParquetFragmentScanOptions(use_buffered_stream=True, buffer_size=1 << 20, pre_buffer=False)
    form = (
        ds.ParquetFileFormat(default_fragment_scan_options=buffered)
        if stored == "parquet"
        else ds.IpcFileFormat()
    )
    hive = ds.HivePartitioning.discover() if not PurePosixPath(path).suffix else None
    dataset = ds.dataset(paths, filesystem=filesystem, format=form, partitioning=hive)
    fragments = sorted(dataset.get_fragments(), key=lambda f: str(f.path))
    return dataset.schema, [_DatasetFile(fragment, dataset.schema) for fragment in fragments]


def _stream_files(filesystem: fs.FileSystem, paths: list[str]) -> tuple[pa.Schema, Sequence[_File]]:
    files = [StreamFile(filesystem, path) for path in paths]
    for file in files[1:]:
        if file.schema != files[0].schema:
            raise InputError(
                f"{file.path} has other columns than {files[0].path}: {file.schema.names} and"
                f" {files[0].schema.names}, or the same of other types."
            )
    return files[0].schema, files
