"""Opening index files: memory-mapped, within limits, and refused in words where FAISS would fail."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss

from spec_store.errors import InputError, TableNotFoundError, UnsupportedError
from spec_store.stores.pages import MappedPages

__all__ = ["OpenIndex", "check_file", "open_index"]

# No loop that a file asks for needs more rounds than the file has bytes, nor any array more room; small
# files may still ask for defaults of FAISS's own.
_LEAST_LIMIT = 1 << 24
_LIMITS = ("deserialization_loop_limit", "deserialization_vector_byte_limit")
# Limits and mappings are the process's own: one index is opened at a time.
_alone = threading.Lock()


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


@dataclass(frozen=True)
class OpenIndex:
    """An index that was read from a file.

    Attributes
    ----------
    index
        The `faiss.Index`.
    files
        The files that it keeps mapped: its own, and that of inverted lists on disk.
    pages
        Their mappings, to be used no longer than `index` lives.
    """

    index: Any
    files: tuple[Path, ...]
    pages: MappedPages


def open_index(path: Path) -> OpenIndex:
    """Read an index file, its vectors left on disk where the kind allows.

    Inverted lists on disk are looked for beside the index file first: the path that the index names is where
    they were when it was built.

    Raises
    ------
    InputError
        A broken file.
    TableNotFoundError
        The file of the inverted lists is neither beside it nor where the index says.
    """
    try:
        with _alone, _bounded(path.stat().st_size):
            before = set(_mappings())
            index, lists = _read(path)
            new = [m for m in _mappings() if m not in before]
    except (RuntimeError, MemoryError) as error:
        reason = str(error).strip().splitlines()[-1].split("Error: ")[-1]
        raise InputError(f"{path} can't be read as a FAISS index, it may be broken: {reason}") from error
    files = (path, *([lists] if lists else []))
    resolved = {str(f.resolve()) for f in files}
    pages = MappedPages([(start, length) for name, start, length in new if name in resolved])
    return OpenIndex(index, files, pages)


def _read(path: Path) -> tuple[Any, Path | None]:
    """The index, and the file of its inverted lists if that is another one."""
    flags = faiss.IO_FLAG_MMAP_IFC | faiss.IO_FLAG_READ_ONLY
    try:
        index = faiss.read_index(str(path), flags)
    except RuntimeError as error:
        if "OnDiskInvertedLists::do_mmap" not in str(error):
            raise
        index = None  # the file that it names is not there
    else:
        lists = _lists_on_disk(index)
        if lists is None:
            return index, None
        recorded = Path(lists.filename)
        if (file := _lists_file(path, recorded, int(lists.totsize))) == recorded:
            return index, file
    # FAISS's own IO_FLAG_ONDISK_SAME_DIR can't be combined with mapping, and prints to stdout.
    index = faiss.read_index(str(path), flags | faiss.IO_FLAG_SKIP_IVF_DATA)
    lists = _lists_on_disk(index)
    file = _lists_file(path, Path(lists.filename), int(lists.totsize))
    lists.filename = str(file)
    lists.do_mmap()
    return index, file


def _lists_on_disk(index: Any) -> Any:
    """The inverted lists of an index where they are in a file of their own, else None."""
    ivf = faiss.try_extract_index_ivf(index)
    lists = None if ivf is None or ivf.invlists is None else faiss.downcast_InvertedLists(ivf.invlists)
    return lists if isinstance(lists, faiss.OnDiskInvertedLists) else None


def _lists_file(path: Path, recorded: Path, size: int) -> Path:
    beside = path.with_name(recorded.name)
    for file in (beside, recorded):
        if file.is_file() and file.stat().st_size == size:
            return file
    if not beside.is_file() and not recorded.is_file():
        raise TableNotFoundError(
            f"{path} keeps its vectors in {recorded.name}, which is neither beside it nor at {recorded}. Put"
            " it beside the index file."
        )
    found = beside if beside.is_file() else recorded
    raise InputError(
        f"{found} has {found.stat().st_size:,} bytes where {path} expects {size:,}: it belongs to another"
        " index, or was cut short."
    )


def _mappings() -> Iterable[tuple[str, int, int]]:
    """File, address and length of each read-only mapping of this process, where there is a ``/proc``."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return
    for line in maps.read_text().splitlines():
        addresses, access, _, _, _, *name = line.split(maxsplit=5)
        if name and name[0].startswith("/") and access[:2] == "r-":
            start, end = (int(a, 16) for a in addresses.split("-"))
            yield name[0], start, end - start


@contextmanager
def _bounded(size: int) -> Iterator[None]:
    """FAISS's limits are the process's own: set while one file is read, and put back.

    FAISS before 1.14 has not all of them.
    """
    limit = max(size, _LEAST_LIMIT)
    names = [n for n in _LIMITS if hasattr(faiss, f"set_{n}")]
    before = {name: getattr(faiss, f"get_{name}")() for name in names}
    for name in names:
        getattr(faiss, f"set_{name}")(limit)
    try:
        yield
    finally:
        for name, value in before.items():
            getattr(faiss, f"set_{name}")(value)
