"""Giving back the pages of a memory-mapped file once they have been read."""

from __future__ import annotations

import ctypes
from pathlib import Path

__all__ = ["MappedPages"]

_MADV_DONTNEED = 4
_BUDGET = 64 << 20


class MappedPages:
    """The mappings of one file in this process.

    Pages that were read count as resident memory until the system wants them back, so streaming a
    large index looks like loading it. Dropping them costs a page fault if they are read again: the file,
    which nobody writes to through the mapping, still holds them. Does nothing where there is no ``/proc``.

    Parameters
    ----------
    file
        The mapped file.
    """

    def __init__(self, file: Path) -> None:
        self._ranges = list(_mappings(file))
        self._touched = 0

    def touched(self, n_bytes: int) -> None:
        """Note that so many bytes were read; every 64 MB all pages are dropped."""
        self._touched += n_bytes
        if self._touched >= _BUDGET:
            self._touched = 0
            for start, length in self._ranges:
                _libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), _MADV_DONTNEED)


_libc = ctypes.CDLL(None)


def _mappings(file: Path) -> list[tuple[int, int]]:
    """Address and length of each read-only mapping of the file: nothing else may ever be dropped."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return []
    inode, path = str(file.stat().st_ino), str(file.resolve())
    found = []
    for line in maps.read_text().splitlines():
        addresses, access, _, _, mapped, *name = line.split(maxsplit=5)
        if mapped == inode and name == [path] and access[:2] == "r-":
            start, end = (int(a, 16) for a in addresses.split("-"))
            found.append((start, end - start))
    return found
