"""Opening and writing Parquet and Arrow files, and wrapping data in memory."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from spec_store.connector import Capability, Connector, Source, is_own_result
from spec_store.errors import InputError, RetryError, TableNotFoundError
from spec_store.stores.files import atomic_file, check_replaceable

from .data import wrap
from .files import FileSource
from .formats import file_format
from .remote import file_info, locate

__all__ = ["ArrowConnector"]

_GROUP_ROWS = 1 << 16


class ArrowConnector(Connector):
    """Parquet and Arrow IPC files, folders of them, object-store URIs, and Arrow data in memory.

    Sources are read only; results go to a new file.
    """

    name: ClassVar[str] = "arrow"
    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {Capability.PARTITIONS, Capability.CREATE, Capability.WRAP}
    )

    def open(
        self,
        uri: str,
        *,
        table: str | None = None,
        version: int | None = None,
        options: Mapping[str, str] | None = None,
    ) -> FileSource:
        """Open files; `table`, `version` and `options` have no meaning here and are refused."""
        for name, given in (("table", table), ("version", version), ("options", options)):
            if given:
                raise InputError(f"Files have no {name}, and {given!r} was given for {uri}.")
        return FileSource(uri)

    def wrap(self, data: Any) -> Source:
        """A source over data in memory; see `spec_store_arrow.data.wrap` for what it may be."""
        return wrap(data)

    def check_create(
        self,
        uri: str,
        table: str | None,
        schema: pa.Schema,
        *,
        options: Mapping[str, str] | None = None,
    ) -> None:
        """Refuse what can't be written: missing folders, unknown suffixes, files that are not our results."""
        _target(uri)

    def create(
        self,
        uri: str,
        table: str | None,
        schema: pa.Schema,
        batches: Iterator[pa.RecordBatch],
        *,
        options: Mapping[str, str] | None = None,
    ) -> None:
        """Write a file or an object, atomically.

        An object is written to a temporary file first: closing an upload that has failed would complete it.
        """
        filesystem, path = _target(uri)
        if isinstance(filesystem, fs.LocalFileSystem):
            with atomic_file(path) as sink:
                _write(sink, file_format(path), schema, batches)
            return
        with tempfile.TemporaryFile(prefix="spec-store-") as file:
            _write(file, file_format(path), schema, batches)
            file.seek(0)
            _upload(file, filesystem, path, uri)


def _target(uri: str) -> tuple[fs.FileSystem, str]:
    """Where a result is to be written. Raises InputError, TableNotFoundError."""
    filesystem, path = locate(uri)
    local = isinstance(filesystem, fs.LocalFileSystem)
    if local:
        check_replaceable(path)
    file_format(path)
    if file_info(filesystem, path, uri).type == fs.FileType.NotFound:
        bucket = path.lstrip("/").split("/")[0]
        if not local and file_info(filesystem, bucket, uri).type == fs.FileType.NotFound:
            raise TableNotFoundError(f"{uri} can't be written: there is no {bucket!r}.")
    elif not is_own_result(FileSource(uri).schema):
        raise InputError(
            f"{uri} exists, and holds more than spec-store's results. Give another name, or remove it first."
        )
    return filesystem, path


def _upload(file: BinaryIO, filesystem: fs.FileSystem, path: str, uri: str) -> None:
    try:
        with filesystem.open_output_stream(path) as sink:
            shutil.copyfileobj(file, sink, 1 << 20)
    except OSError as error:
        raise RetryError(f"{uri} was not written: {error}") from error
    except BaseException:  # closing the stream has completed the upload of a part
        filesystem.delete_file(path)
        raise


def _write(sink: Any, kind: str, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> None:
    new = {"parquet": pq.ParquetWriter, "arrow file": pa.ipc.new_file, "arrow stream": pa.ipc.new_stream}
    writer = new[kind](sink, schema)
    with writer:
        for group in _groups(batches):
            writer.write_table(pa.Table.from_batches(group, schema))


def _groups(batches: Iterator[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    """Batches together, up to the size of a row group."""
    group: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        group.append(batch)
        rows += len(batch)
        if rows >= _GROUP_ROWS:
            yield group
            group, rows = [], 0
    if group:
        yield group
