"""Files in Arrow's streaming format, as Hugging Face writes them: batches one after the other, no index."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
from pyarrow import fs

from spec_store.stores.pages import MappedPages

from .numbered import project, root_columns

__all__ = ["StreamFile"]


class StreamFile:
    """One file. Memory-mapped on disk, so that only the columns wanted are read; else read in full.

    Attributes
    ----------
    path, schema, n_rows
        Counting the rows reads the headers of all batches once.
    """

    def __init__(self, filesystem: fs.FileSystem, path: str) -> None:
        self.path = path
        self._filesystem = filesystem
        with self._opened(None) as (reader, _):
            self.schema: pa.Schema = reader.schema
        with self._opened([0] if len(self.schema) else None) as (reader, _):
            self.n_rows = sum(batch.num_rows for batch in reader)

    def batches(
        self, columns: Sequence[str], batch_rows: int, check_unchanged: Callable[[], None]
    ) -> Iterator[pa.RecordBatch]:
        """Some columns, in the batches of the file, whatever `batch_rows`.

        `check_unchanged` is called before each of a mapped file: reading what a shorter file no longer backs
        is fatal.
        """
        roots = root_columns(self.schema, columns) or self.schema.names[:1]
        with self._opened([self.schema.get_field_index(name) for name in roots]) as (reader, pages):
            while True:
                if pages is not None:
                    check_unchanged()
                try:
                    batch = reader.read_next_batch()
                except StopIteration:
                    return
                yield project(batch, columns)
                if pages is not None:
                    pages.touched(batch.nbytes)

    @contextmanager
    def _opened(self, fields: list[int] | None) -> Iterator[tuple[Any, MappedPages | None]]:
        options = pa.ipc.IpcReadOptions(included_fields=fields)
        if isinstance(self._filesystem, fs.LocalFileSystem):
            with pa.memory_map(self.path) as file:
                content = file.read_buffer()  # a view, which keeps the mapping while it lives
            with pa.ipc.open_stream(content, options=options) as reader:
                yield reader, MappedPages([(content.address, content.size)])
            return
        with (
            self._filesystem.open_input_stream(self.path) as file,
            pa.ipc.open_stream(file, options=options) as reader,
        ):
            yield reader, None
