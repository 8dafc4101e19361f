"""Progress for eyes: bars on a terminal and in a notebook, lines at intervals in a log."""

from __future__ import annotations

import builtins
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple, TextIO

from .errors import InputError
from .progress import Progress, ProgressOption, silent
from .reporting.text import visible

if TYPE_CHECKING:
    from rich.progress import TaskID

__all__ = ["shown", "shown_on"]

_SECONDS_BETWEEN_LINES = 10.0
# Two live displays on one terminal write over each other.
_DISPLAY = Lock()


@contextmanager
def shown(progress: ProgressOption) -> Iterator[Progress]:
    """What a block of long work is to be given as its progress; bars go when the block ends.

    Parameters
    ----------
    progress
        "auto": bars on stderr where that is a terminal, or in the notebook's cell (in a notebook without
        ipywidgets: lines on stderr at intervals); silence elsewhere, and while other work in this process
        shows its own. None: silence. A callable is used as it is.

    Raises
    ------
    InputError
        Anything else.
    """
    if progress is None:
        yield silent
    elif callable(progress):
        yield progress
    elif progress != "auto":
        raise InputError(f'progress is {progress!r}; expected "auto", None or a callable.')
    elif not _has_eyes() or not _DISPLAY.acquire(blocking=False):
        yield silent
    else:
        try:
            with shown_on(sys.stderr) as update:
                yield update
        finally:
            _DISPLAY.release()


def _has_eyes() -> bool:
    """Whether a person may be looking."""
    return sys.stderr is not None and (sys.stderr.isatty() or _in_notebook())


def _in_notebook() -> bool:
    """As rich finds it; rich takes a tenth of a second to import, which scripts are spared."""
    if not hasattr(builtins, "get_ipython"):
        return False
    from rich.console import Console

    return Console().is_jupyter


@contextmanager
def shown_on(stream: TextIO) -> Iterator[Progress]:
    """Progress on a stream: bars on a terminal or in a notebook, a line at intervals elsewhere."""
    if stream.isatty() or (_in_notebook() and find_spec("ipywidgets")):
        with _bars(stream) as update:
            yield update
    else:
        yield _Lines(stream).update


class _Done(NamedTuple):
    rows: int
    seconds: float

    @property
    def speed(self) -> str:
        return f"{self.rows / max(self.seconds, 1e-3):,.0f} rows/s"


class _Stages:
    """Rows done, and seconds since the first of them, by stage."""

    def __init__(self) -> None:
        self._rows: dict[str, int] = {}
        self._began: dict[str, float] = {}

    def add(self, stage: str, rows: int) -> _Done:
        now = time.monotonic()
        began = self._began.setdefault(stage, now)
        self._rows[stage] = self._rows.get(stage, 0) + rows
        return _Done(self._rows[stage], now - began)


class _Lines:
    """A line on a stream, for the stage at hand, every ten seconds."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._stages = _Stages()
        self._last = time.monotonic()

    def update(self, stage: str, rows: int, total: int) -> None:
        """Rows done since the last call, of a stage's total."""
        done, now = self._stages.add(stage, rows), time.monotonic()
        if min(now - self._last, done.seconds) < _SECONDS_BETWEEN_LINES:
            return
        self._last = now
        left = ""
        if done.rows < total:
            left = f", about {(total - done.rows) * done.seconds / done.rows:.0f} s left"
        of_all = f"{min(done.rows, total):,} of {total:,} rows"
        self._stream.write(f"{visible(stage)}: {of_all}, {done.speed}{left}\n")
        self._stream.flush()


@contextmanager
def _bars(stream: TextIO) -> Iterator[Progress]:
    """A bar for each stage, gone at the end. What is printed on stdout meanwhile stays on stdout."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Display

    columns = (
        TextColumn("{task.description:>10}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}", markup=False),
        TimeRemainingColumn(),
    )
    stages = _Stages()
    tasks: dict[str, TaskID] = {}
    console = Console(file=stream)
    with Display(*columns, console=console, transient=True, redirect_stdout=False) as display:

        def update(stage: str, rows: int, total: int) -> None:
            done = stages.add(stage, rows)
            if stage not in tasks:
                tasks[stage] = display.add_task(visible(stage), total=total, speed="")
            display.update(tasks[stage], completed=min(done.rows, total), speed=done.speed)

        yield update
