"""Output for eyes: messages, tables and progress. All of it is text: markup in data is not interpreted."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from typing import Any

import click

from ..bars import shown_on
from ..errors import InputError
from ..progress import Progress
from ..reporting.text import visible, visible_lines
from .text import aligned

__all__ = [
    "echo",
    "echo_json",
    "echo_table",
    "print_warnings",
    "shown_progress",
    "stdout_errors",
]


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
def shown_progress() -> Iterator[Progress]:
    """What long work is to be given as its `progress`: bars or lines on stderr while it runs."""
    with shown_on(sys.stderr) as progress:
        yield progress
