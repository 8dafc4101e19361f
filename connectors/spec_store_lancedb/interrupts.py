"""Ctrl-C kept back during the few steps that must not be torn apart."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["deferred_interrupt"]


@contextmanager
def deferred_interrupt() -> Iterator[None]:
    """Raise KeyboardInterrupt after the block instead of within it; a second Ctrl-C is raised at once.

    Interrupted within a commit, Lance may still complete it in a thread of its own. Only the main thread
    receives Ctrl-C; in another thread there is nothing to keep back.
    """
    default = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(default):
        yield
        return
    received: list[tuple[int, FrameType | None]] = []

    def keep(number: int, frame: FrameType | None) -> None:
        if received:
            default(number, frame)
        received.append((number, frame))

    signal.signal(signal.SIGINT, keep)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, default)
        if len(received) == 1:
            default(*received[0])
