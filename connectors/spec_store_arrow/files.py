"""Parquet and Arrow IPC files, folders of them, and object-store URIs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
from pyarrow import fs

from spec_store.connector import Partition
from spec_store.errors import InputError, TableNotFoundError

from .numbered import NumberedSource

__all__ = ["FileSource", "file_format", "file_info", "locate"]

_FORMATS = {".parquet": "parquet", ".pq": "parquet", ".arrow": "ipc", ".feather": "ipc", ".ipc": "ipc"}
_PATIENCE_SECONDS = 30


class FileSource(NumberedSource):
    """Files of one schema, in the order of their paths; streamed page by page, never read whole.

    Parameters
    ----------
    uri
        A file, or a folder (hive partitions become columns), on disk or in an object store.
    """

    def __init__(self, uri: str) -> None:
        filesystem, path = locate(uri)
        files = _files(filesystem, path, uri)
        kind = file_format(files[0])
        buffered = ds.ParquetFragmentScanOptions(
            use_buffered_stream=True, buffer_size=1 << 20, pre_buffer=False
        )
        form = (
            ds.ParquetFileFormat(default_fragment_scan_options=buffered)
            if kind == "parquet"
            else ds.IpcFileFormat()
        )
        try:
            dataset = ds.dataset(files, filesystem=filesystem, format=form, partitioning=_hive(path))
            self._fragments = sorted(dataset.get_fragments(), key=lambda f: str(f.path))
            self._parts = [Partition(f.path, f.count_rows()) for f in self._fragments]
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(f"{uri} can't be read: {error}") from error
        super().__init__(uri, dataset.schema)
        self._filesystem = filesystem
        self._stamp = self._stamped()

    @property
    def fingerprint(self) -> str:
        return f"{self.uri}|{self._stamp}"

    def count(self, where: str | None = None) -> int:
        """Rows in all files, from their footers."""
        self._refuse_filter(where)
        return sum(part.n_rows for part in self._parts)

    def partitions(self) -> list[Partition]:
        """The files."""
        return self._parts

    def _columns(
        self, columns: Sequence[str], partition: Partition | None, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        self._check_unchanged()
        (fragment,) = [f for f in self._fragments if partition is not None and f.path == partition.id]
        wanted = {c: ds.field(c) if c in self.schema.names else ds.field(*c.split(".")) for c in columns}
        try:
            yield from fragment.to_batches(
                schema=self.schema,
                columns=wanted,
                batch_size=batch_rows,
                batch_readahead=1,
                fragment_readahead=1,
                cache_metadata=False,
            )
        except (pa.ArrowInvalid, pa.ArrowTypeError, OSError) as error:
            raise InputError(f"{fragment.path} can't be read: {error}") from error

    def _stamped(self) -> list[tuple[str, int, int]]:
        infos = self._filesystem.get_file_info([f.path for f in self._fragments])
        return [(i.path, i.size, i.mtime_ns) for i in infos]

    def _check_unchanged(self) -> None:
        if self._stamped() != self._stamp:
            raise InputError(f"Files of {self.uri} changed while they were read. Run again.")


def locate(uri: str) -> tuple[fs.FileSystem, str]:
    """The file system of a path or URI, and the path in it. Raises InputError."""
    if "://" not in uri:
        return fs.LocalFileSystem(), str(Path(uri).absolute())
    try:
        found: tuple[fs.FileSystem, str] = fs.FileSystem.from_uri(_impatient(uri))
    except Exception as error:  # whatever the scheme's own library raises
        raise InputError(f"{uri} can't be read: {_reason(error)}") from error
    return found


def _impatient(uri: str) -> str:
    """Google's client retries for 15 minutes by default."""
    if not uri.startswith(("gs://", "gcs://")) or "retry_limit_seconds" in uri:
        return uri
    return f"{uri}{'&' if '?' in uri else '?'}retry_limit_seconds={_PATIENCE_SECONDS}"


def file_info(filesystem: fs.FileSystem, path: str, uri: str) -> fs.FileInfo:
    """What is at a path. Raises InputError where the store can't be reached."""
    try:
        return filesystem.get_file_info(path)
    except Exception as error:  # whatever the scheme's own library raises
        raise InputError(f"{uri} can't be reached: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if not isinstance(error, OSError) else str(error)


def file_format(path: str) -> str:
    """``parquet`` or ``ipc``, by the file's suffix. Raises InputError."""
    suffix = Path(path).suffix.lower()
    if suffix not in _FORMATS:
        raise InputError(f"{path} has suffix {suffix!r}; expected one of {', '.join(_FORMATS)}.")
    return _FORMATS[suffix]


def _hive(path: str) -> Any:
    return ds.HivePartitioning.discover() if not Path(path).suffix else None


def _files(filesystem: fs.FileSystem, path: str, uri: str) -> list[str]:
    """The data files, sorted; hidden ones and those that writers mark with an underscore left out."""
    info = file_info(filesystem, path, uri)
    if info.type == fs.FileType.NotFound:
        raise TableNotFoundError(f"No file or folder {uri}.")
    if info.type == fs.FileType.File:
        file_format(path)
        return [path]
    below = filesystem.get_file_info(fs.FileSelector(path, recursive=True))
    files = sorted(
        i.path for i in below if i.type == fs.FileType.File and Path(i.path).suffix.lower() in _FORMATS
    )
    inside = [f for f in files if not any(p[:1] in "._" for p in Path(f[len(path) :]).parts[1:])]
    formats = {file_format(f) for f in inside}
    if len(formats) != 1:
        found = "no Parquet or Arrow files" if not formats else "both Parquet and Arrow files"
        raise InputError(f"Folder {uri} holds {found}; expected files of one kind.")
    return inside
