"""Giving back the pages of a memory-mapped file once they have been read."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence

__all__ = ["MappedPages"]

_MADV_DONTNEED = 4
_BUDGET = 64 << 20


class MappedPages:
    """Read-only mappings of a file.

    Pages that were read count as resident memory until the system wants them back, so streaming a
    large file looks like loading it. Dropping them costs a page fault if they are read again: the file,
    which nobody writes to through the mapping, still holds them. Does nothing outside Linux.

    Parameters
    ----------
    ranges
        Address and length of each mapping. Its owner must keep it mapped for as long as it calls `touched`:
        other memory that came to lie there would be zeroed.
    """

    def __init__(self, ranges: Sequence[tuple[int, int]]) -> None:
        self._ranges = list(ranges) if sys.platform == "linux" else []
        self._touched = 0

    def touched(self, n_bytes: int) -> None:
        """Note that so many bytes were read; every 64 MB all pages are dropped."""
        self._touched += n_bytes
        if self._touched >= _BUDGET:
            self._touched = 0
            for start, length in self._ranges:
                _libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), _MADV_DONTNEED)


_libc = ctypes.CDLL(None)
