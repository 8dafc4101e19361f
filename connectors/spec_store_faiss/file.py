"""Opening index files: memory-mapped, within limits, and refused in words where FAISS would fail."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import faiss

from spec_store.errors import InputError, TableNotFoundError, UnsupportedError

__all__ = ["check_file", "open_index"]

# No loop that a file asks for needs more rounds than the file has bytes, nor any array more room; small
# files may still ask for defaults of FAISS's own.
_LEAST_LIMIT = 1 << 24
_limits = threading.Lock()


def check_file(path: Path) -> None:
    """Refuse what is plainly no index of vectors.

    Raises
    ------
    TableNotFoundError
        There is no such file.
    UnsupportedError
        A binary index.
    InputError
        Not an index at all.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder; expected a FAISS index file.")
    if not path.is_file():
        raise TableNotFoundError(f"No FAISS index file {path}.")
    with path.open("rb") as stream:
        kind = stream.read(4)
    if len(kind) < 4:
        raise InputError(f"{path} is not a FAISS index: it has {len(kind)} bytes.")
    if kind[:2] == b"IB":
        raise UnsupportedError(f"{path} is a binary FAISS index: it holds bits, not vectors to compare.")
    if kind[:1] != b"I":
        raise InputError(f"{path} is not a FAISS index: it begins with {kind!r}.")


def open_index(path: Path) -> Any:
    """Read an index file, its vectors left on disk where the kind allows. Raises InputError."""
    try:
        with _bounded(path.stat().st_size):
            return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC | faiss.IO_FLAG_READ_ONLY)
    except (RuntimeError, MemoryError) as error:
        reason = str(error).strip().splitlines()[-1].split("Error: ")[-1]
        raise InputError(f"{path} can't be read as a FAISS index, it may be broken: {reason}") from error


@contextmanager
def _bounded(size: int) -> Iterator[None]:
    """FAISS's limits are the process's own: set while one file is read, and put back."""
    limit = max(size, _LEAST_LIMIT)
    with _limits:
        before = faiss.get_deserialization_loop_limit(), faiss.get_deserialization_vector_byte_limit()
        faiss.set_deserialization_loop_limit(limit)
        faiss.set_deserialization_vector_byte_limit(limit)
        try:
            yield
        finally:
            faiss.set_deserialization_loop_limit(before[0])
            faiss.set_deserialization_vector_byte_limit(before[1])
