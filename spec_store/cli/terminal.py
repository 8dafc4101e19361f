"""Output for eyes: messages, tables and progress. All of it is text: markup in data is not interpreted."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

import click

from ..errors import InputError
from ..reporting.text import visible, visible_lines
from .text import aligned

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = [
    "ProgressLines",
    "echo",
    "echo_json",
    "echo_table",
    "print_warnings",
    "shown_progress",
    "stdout_errors",
]

_SECONDS_BETWEEN_LINES = 10.0


def echo(message: str, *, err: bool = False) -> None:
    """A message on stdout or stderr; what it quotes can't control the terminal."""
    with stdout_errors():
        click.echo(visible_lines(message), err=err)


@contextmanager
def stdout_errors() -> Iterator[None]:
    """Tell of a full disk behind ``> file`` by name; a reader that left is another matter."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise InputError(f"The output can't be written to stdout: {error.strerror}.") from error


def print_warnings(warnings: Sequence[str]) -> None:
    """On stderr, each on a line."""
    for warning in warnings:
        echo(f"Warning: {warning}", err=True)


def echo_json(value: Any) -> None:
    """What ``--json`` prints: one JSON value by RFC 8259, where what is not a finite number is null."""
    echo(json.dumps(_json_value(value), indent=2, allow_nan=False))


def _json_value(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _json_value(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_value(v) for v in value]
    if isinstance(value, (date, datetime)):
        return value.isoformat()
    return value


def echo_table(header: Sequence[str], body: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> None:
    """A ruled table on a terminal, aligned columns in a pipe."""
    if sys.stdout.isatty():
        _echo_ruled(header, body, right)
        return
    for line in aligned([header, *body], right=right):
        echo(line)


def _echo_ruled(header: Sequence[str], body: Sequence[Sequence[str]], right: Sequence[int]) -> None:
    from rich.console import Console  # a tenth of a second: only where there is a terminal
    from rich.table import Table
    from rich.text import Text

    table = Table(header_style="bold")
    for i, name in enumerate(header):
        table.add_column(Text(visible(name)), justify="right" if i in right else "left", overflow="fold")
    for row in body:
        table.add_row(*(Text(visible(cell)) for cell in row))
    with stdout_errors():
        Console().print(table)


@contextmanager
def shown_progress() -> Iterator[Any]:
    """What long work is to be given as its `progress`: lines on stderr while it runs."""
    with ProgressLines(sys.stderr) as lines:
        yield lines.update


class ProgressLines:
    """Progress on stderr: bars on a terminal, a line at intervals elsewhere."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._done: dict[str, int] = {}
        self._began: dict[str, float] = {}
        self._last = time.monotonic()

    def __enter__(self) -> ProgressLines:
        if self._stream.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (
                TextColumn("{task.description:>10}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[speed]}", markup=False),
                TimeRemainingColumn(),
            )
            self._bars = Progress(*columns, console=Console(file=self._stream), transient=True)
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def update(self, stage: str, rows: int, total: int) -> None:
        """Rows done since the last call, of a stage's total."""
        now = time.monotonic()
        began = self._began.setdefault(stage, now)
        done = self._done[stage] = self._done.get(stage, 0) + rows
        speed = f"{done / max(now - began, 1e-3):,.0f} rows/s"
        if self._bars is not None:
            if stage not in self._tasks:
                self._tasks[stage] = self._bars.add_task(visible(stage), total=total, speed="")
            self._bars.update(self._tasks[stage], completed=min(done, total), speed=speed)
        elif now - max(self._last, began) >= _SECONDS_BETWEEN_LINES:
            self._last = now
            left = f", about {(total - done) * (now - began) / done:.0f} s left" if done < total else ""
            line = f"{visible(stage)}: {min(done, total):,} of {total:,} rows, {speed}{left}\n"
            self._stream.write(line)
            self._stream.flush()
