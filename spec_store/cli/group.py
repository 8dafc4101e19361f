"""The command group, how it fails, and the options that several commands take."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from ..errors import SpecStoreError
from .terminal import ProgressLines

Command = TypeVar("Command", bound=Callable[..., Any])

_DB_HELP = "Database (folder or URI). Default: $SPEC_STORE_DB, else ./lancedb."


class _Group(click.Group):
    """Prints the library's errors without a traceback, unless --debug asks for one."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SpecStoreError as error:
            if ctx.params.get("debug"):
                raise
            click.echo(f"Error: {error}", err=True)
            ctx.exit(1)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            if ctx.params.get("debug"):
                raise
            click.echo(f"Unexpected {type(error).__name__}: {error}\nRun with --debug for details.", err=True)
            ctx.exit(1)
        except KeyboardInterrupt:
            click.echo("Interrupted. Nothing unfinished was left in the table.", err=True)
            ctx.exit(130)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show a traceback for errors.")
@click.version_option(package_name="spec-store")
def main(debug: bool) -> None:
    """Which rows of a table do two embedding models group differently?

    SPEC compares two embedding columns through the spectrum of their kernel difference: each leading
    mode is a group of rows that one model holds together and the other does not.
    """


db_option = click.option("--db", envvar="SPEC_STORE_DB", help=_DB_HELP)
table_option = click.option("--table", required=True, help="The table.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
on_missing_option = click.option(
    "--on-missing",
    type=click.Choice(["error", "drop"]),
    default="error",
    show_default=True,
    help="Rows that only one of two stores holds: refuse, or leave them out and say so.",
)
skip_invalid_option = click.option(
    "--skip-invalid",
    is_flag=True,
    help="Leave out null, NaN and zero vectors; their results are null.",
)
batch_rows_option = click.option(
    "--batch-rows", type=int, default=4096, show_default=True, help="Rows per batch."
)


def in_order(options: list[Callable[..., Any]]) -> Callable[[Command], Command]:
    """A decorator that adds options in the order in which --help is to show them."""
    return lambda command: functools.reduce(lambda c, option: option(c), reversed(options), command)


class ListOf(click.ParamType):  # type: ignore[type-arg]  # generic only in the newest click
    """Values separated by commas."""

    def __init__(self, kind: type, name: str) -> None:
        self.name = name
        self._kind = kind

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return tuple(self._kind(part.strip()) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not {self.name}.", param, ctx)


def print_warnings(warnings: Sequence[str]) -> None:
    """On stderr, each on a line."""
    for warning in warnings:
        click.echo(f"Warning: {warning}", err=True)


@contextmanager
def shown_progress() -> Iterator[Callable[[str, int, int], None]]:
    """What long work is to be given as its `progress`: lines on stderr while it runs."""
    with ProgressLines(sys.stderr) as lines:
        yield lines.update
