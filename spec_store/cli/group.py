"""The command group, how it fails, and the options that several commands take."""

from __future__ import annotations

import functools
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from ..errors import SpecStoreError
from .terminal import echo
from .text import visible_lines

Command = TypeVar("Command", bound=Callable[..., Any])


class _StorageOption(click.ParamType):  # type: ignore[type-arg]  # generic only in the newest click
    """``KEY=VALUE``."""

    name = "KEY=VALUE"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, str]:
        key, equals, content = str(value).partition("=")
        if not (key and equals):
            self.fail(f"{value!r} is not KEY=VALUE.", param, ctx)
        return key, content


_DB_HELP = "Database (folder or URI). Default: $SPEC_STORE_DB, else ./lancedb."


class _Group(click.Group):
    """How a command ends: quietly, or with one message on stderr; a traceback only with --debug."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run as a process; streams that are closed or know only ASCII are no reason to fail."""
        _prepare_streams()
        return super().main(*args, **extra)

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Parse; --help and --version print here."""
        with _told(debug=False):
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was named."""
        with _told(debug=ctx.params["debug"]):
            return super().invoke(ctx)


def _prepare_streams() -> None:
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller: keep its descriptor from the next file that is opened
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  # as long as the process
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def _told(*, debug: bool) -> Iterator[None]:
    """Turn an exception into a message and an exit code."""
    try:
        yield
    except click.ClickException as error:
        object.__setattr__(error, "message", visible_lines(error.message))  # final for type checkers
        raise
    except (click.exceptions.Exit, click.Abort):
        raise
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        _discard_stdout()
        raise click.exceptions.Exit(128 + signal.SIGPIPE) from None
    except KeyboardInterrupt as error:
        if debug:
            raise
        # An interrupt, or a failure, while another interrupt was being cleaned up after hides that one.
        clean = not isinstance(error.__context__, KeyboardInterrupt)
        echo(f"Interrupted. {_NOTHING_LEFT if clean else _SOMETHING_LEFT}", err=True)
        raise click.exceptions.Exit(128 + signal.SIGINT) from None
    except Exception as error:
        if debug:
            raise
        if isinstance(error, SpecStoreError):
            echo(f"Error: {error}", err=True)
        else:
            echo(f"Unexpected {type(error).__name__}: {error}", err=True)
            echo("spec-store --debug COMMAND … shows where it comes from.", err=True)
        raise click.exceptions.Exit(1) from None


_NOTHING_LEFT = "Nothing unfinished was left in the table."
_SOMETHING_LEFT = "The clean-up was interrupted too: the next run removes what is left beside the table."


def _discard_stdout() -> None:
    """Let the interpreter's last flush go nowhere, instead of failing with a message of its own."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show a traceback for errors.")
@click.version_option(package_name="spec-store")
def main(debug: bool) -> None:
    """Which rows of a table do two embedding models group differently?

    SPEC compares two embedding columns through the spectrum of their kernel difference: each leading
    mode is a group of rows that one model holds together and the other does not.
    """


def location_options(command: Command) -> Command:
    """--db, --connector and --storage-option, handed to the command as one `Location`, its ``db``."""

    @functools.wraps(command)
    def located(*args: Any, db: str | None, connector: str, storage_option: Any, **options: Any) -> Any:
        from ..connector import Location
        from ..stores.locate import location_of

        return command(*args, db=Location(location_of(db).uri, connector, dict(storage_option)), **options)

    shared = (
        click.option(
            "--storage-option",
            type=_StorageOption(),
            multiple=True,
            help="What the store needs to be reached, such as endpoint=http://localhost:9000; repeatable.",
        ),
        click.option(
            "--connector",
            default="lancedb",
            show_default=True,
            help="The kind of database, see spec-store connectors.",
        ),
        click.option("--db", envvar="SPEC_STORE_DB", help=_DB_HELP),
    )
    return functools.reduce(lambda wrapped, option: option(wrapped), shared, located)  # type: ignore[return-value]


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
threads_option = click.option(
    "--threads", type=int, help="Threads for both passes. Default: the cores that the process may use."
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
