"""--help with the options of a command under headings, and the command to run next."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.core import ParameterSource

__all__ = ["HeadedCommand", "headed", "next_command"]

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

_SECRET = re.compile(r"secret|token|password|credential|key", re.IGNORECASE)
_headings: dict[click.Parameter, str] = {}


class HeadedCommand(click.Command):
    """A command whose --help lists each option under the heading that `headed` gave it."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Sections in the order of their first options; options without a heading come last."""
        sections: dict[str, list[tuple[str, str]]] = {}
        rest: list[tuple[str, str]] = []
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None or isinstance(parameter, click.Argument):
                continue
            heading = _headings.get(parameter)
            (rest if heading is None else sections.setdefault(heading, [])).append(record)
        sections["Other options" if sections else "Options"] = rest
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def headed(heading: str, *options: Callable[[Decorated], Decorated]) -> Callable[[Decorated], Decorated]:
    """A decorator that adds options in the order in which --help shows them, under one heading."""

    def add(command: Decorated) -> Decorated:
        known = list(getattr(command, "__click_params__", []))
        for option in reversed(options):
            command = option(command)
        for parameter in command.__click_params__:  # type: ignore[attr-defined]  # click's own
            if parameter not in known:
                _headings[parameter] = heading
        return command

    return add


def next_command(command: str, **options: str | None) -> str:
    """A command line to paste: these options, and the database as this command line named it.

    What comes from the environment comes from there again. A secret is not repeated, since output is kept in
    logs: its storage option names a variable instead.
    """
    words = ["spec-store", command]
    for name, value in options.items():
        if value is not None:
            words += [f"--{name}", value]
    ctx = click.get_current_context()
    for name in ("db", "connector"):
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            words += [f"--{name}", str(ctx.params[name])]
    line = shlex.join(words)
    for key, value in ctx.params.get("storage_option") or ():
        shown = (
            f'{shlex.quote(key)}="${key.upper()}"' if _SECRET.search(key) else shlex.quote(f"{key}={value}")
        )
        line += f" --storage-option {shown}"
    return line
