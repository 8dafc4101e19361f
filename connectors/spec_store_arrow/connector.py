"""Opening and writing Parquet and Arrow files, and wrapping data in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from spec_store.connector import Capability, Connector, Source, is_own_result
from spec_store.errors import InputError, TableNotFoundError

from .files import FileSource, file_format, locate
from .memory import wrap

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
        """A source over data in memory; see `spec_store_arrow.memory.wrap` for what it may be."""
        return wrap(data)

    def check_create(self, uri: str, table: str | None, schema: pa.Schema) -> None:
        """Refuse folders that can't be written, unknown suffixes, and files that are not our results."""
        file_format(uri)
        if "://" not in uri:
            folder = Path(uri).absolute().parent
            if not folder.is_dir():
                raise TableNotFoundError(f"No folder {folder} to write {Path(uri).name} to.")
            if not os.access(folder, os.W_OK):
                raise InputError(f"{uri} can't be written: the folder is read-only.")
            if Path(uri).exists() and not is_own_result(FileSource(uri).schema):
                raise InputError(
                    f"{uri} exists, and holds more than spec-store's results. Give another name, or remove it"
                    " first."
                )

    def create(
        self, uri: str, table: str | None, schema: pa.Schema, batches: Iterator[pa.RecordBatch]
    ) -> None:
        """Write a file, whole or not at all: beside its place, then renamed into it."""
        self.check_create(uri, table, schema)
        filesystem, path = locate(uri)
        if "://" in uri:  # an object appears when its upload is complete
            try:
                with filesystem.open_output_stream(path) as sink:
                    _write(sink, file_format(path), schema, batches)
            except BaseException:  # closing the stream has completed the upload of what there was
                filesystem.delete_file(path)
                raise
            return
        partial = Path(path).with_name(f".{Path(path).name}.{os.getpid()}.partial")
        try:
            with pa.OSFile(str(partial), "wb") as sink:
                _write(sink, file_format(path), schema, batches)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def _write(sink: Any, kind: str, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> None:
    writer = pq.ParquetWriter(sink, schema) if kind == "parquet" else pa.ipc.new_file(sink, schema)
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
