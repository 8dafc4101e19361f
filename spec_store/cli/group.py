"""The command group, how it fails, and the options that several commands take."""

from __future__ import annotations

import ctypes
import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from ..errors import SpecStoreError
from ..reporting.text import visible_lines
from .help import HeadedCommand
from .terminal import echo

_ORDER = [
    "demo",
    "compare",
    "clusters",
    "query",
    "report",
    "export",
    "align",
    "gate",
    "update",
    "status",
    "worker",
    "runs",
    "undo",
    "connectors",
]
_M_ARENA_MAX = -8  # of <malloc.h>
_M_MMAP_THRESHOLD = -3
_M_TRIM_THRESHOLD = -1
_REUSED_BYTES = 128 << 20


class _Group(click.Group):
    """How a command ends: quietly, or with one message on stderr; a traceback only with --debug."""

    command_class = HeadedCommand

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which one meets them; others behind."""
        first = [name for name in _ORDER if name in self.commands]
        return [*first, *(name for name in sorted(self.commands) if name not in first)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Each with its whole first sentence, where click would cut it at the end of the line."""
        with formatter.section("Commands"):
            rows = [(name, self.commands[name].get_short_help_str(200)) for name in self.list_commands(ctx)]
            formatter.write_dl(rows)

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run as a process; streams that are closed or know only ASCII are no reason to fail."""
        _prepare_streams()
        _bound_free_memory()
        return super().main(*args, **extra)

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Parse; --help and --version print here."""
        with _reported(debug=False):
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was named."""
        with _reported(debug=ctx.params["debug"]):
            return super().invoke(ctx)


def _prepare_streams() -> None:
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller: keep its descriptor from the next file that is opened
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  # as long as the process
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _bound_free_memory() -> None:
    """Let all threads share one pool of free memory: each of the 8 per core that glibc makes keeps its own.

    Stores read in several threads, which would leave hundreds of MB so. In the one pool the blocks of a batch
    are reused by the next. By default glibc returns blocks of that size to the system one by one, and the
    pages of each batch are zeroed and mapped again, which is half the time of a read.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc's alone
    if mallopt is not None and not any(name.startswith("MALLOC_") for name in os.environ):
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, _REUSED_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _REUSED_BYTES)


@contextmanager
def _reported(*, debug: bool) -> Iterator[None]:
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
        left = _SOMETHING_LEFT if _twice(error) else _NOTHING_LEFT
        echo(" ".join(["Interrupted.", left, *map(str, error.args)]), err=True)
        raise click.exceptions.Exit(128 + signal.SIGINT) from None
    except Exception as error:
        if debug:
            raise
        if _is_interrupt(error):
            echo(f"Interrupted. {_NOTHING_LEFT}", err=True)
            raise click.exceptions.Exit(128 + signal.SIGINT) from None
        if isinstance(error, SpecStoreError):
            echo(f"Error: {error}", err=True)
        else:
            echo(f"Unexpected {type(error).__name__}: {error}", err=True)
            echo("spec-store --debug COMMAND … shows where it comes from.", err=True)
        raise click.exceptions.Exit(1) from None


_NOTHING_LEFT = "Nothing unfinished was left in the table."
_SOMETHING_LEFT = "The clean-up was interrupted too: the next run removes what is left."


def _is_interrupt(error: Exception) -> bool:
    """Whether a library made its own error of a Ctrl-C: Arrow does while it reads from a Python generator."""
    return "KeyboardInterrupt" in str(error)


def _twice(error: BaseException) -> bool:
    """Whether one interrupt came while another was being cleaned up after."""
    before = error.__context__
    while before is not None and not isinstance(before, KeyboardInterrupt):
        before = before.__context__
    return before is not None


def _discard_stdout() -> None:
    """Let the interpreter's last flush go nowhere, instead of failing with a message of its own."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--debug", is_flag=True, help="Show a traceback for errors.")
@click.version_option(package_name="spec-store")
def main(debug: bool) -> None:
    """Which rows of a table do two embedding models group differently?

    SPEC compares two embedding columns through the spectrum of their kernel difference: each leading
    mode is a group of rows that are alike in one embedding and not in the other.
    """
