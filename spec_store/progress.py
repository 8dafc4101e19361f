"""How long work tells of itself: rows done, and seconds by stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias

__all__ = ["Progress", "ProgressOption", "silent", "timed"]

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, the rows done since the last call, and the stage's rows in all."""

ProgressOption: TypeAlias = Progress | Literal["auto"] | None
"""What public functions take: "auto" is a bar for eyes and silence elsewhere, None is silence."""


def silent(stage: str, rows: int, total: int) -> None:
    """The progress of those who watch none."""


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Add the time that a block takes to its stage."""
    start = time.perf_counter()
    yield
    seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - start
