"""Giving freed memory back to the system between stages."""

from __future__ import annotations

import ctypes

import pyarrow as pa

__all__ = ["release_memory"]


def release_memory() -> None:
    """Return memory that was freed, but kept by Arrow and by the C library for reuse.

    One stage's blocks rarely fit the next one's: what each has freed would add up in the process's peak.
    Stores that read in several threads leave hundreds of MB. Cost: milliseconds, and page faults later.
    """
    pa.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's alone
    if trim is not None:
        trim(0)
