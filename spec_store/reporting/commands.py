"""The command lines that repeat what was run."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..options import CompareOptions

if TYPE_CHECKING:
    from ..runs.records import AlignmentRecord, ComparisonRecord
    from .options import ReportOptions

__all__ = ["align_command", "compare_command", "report_command"]

_OPPOSITES = {"describe": "--no-describe", "center": "--no-center", "normalize": "--no-normalize"}


def compare_command(run: ComparisonRecord, *location: str) -> str:
    """The command line of a comparison, without the options that have their default; the seed always.

    Parameters
    ----------
    location
        The words that name the database.
    """
    words = ["spec-store", "compare"]
    if run.table is not None:
        words += ["--table", run.table]
    words += ["--cols", ",".join(run.columns), *location]
    defaults = {f.name: f.default for f in dataclasses.fields(CompareOptions)}
    changed = {
        name: value
        for name, value in run.options.items()
        if name == "seed" or (name in defaults and value != defaults[name])
    }
    return shlex.join([*words, *_flags(changed)])


def _flags(options: Mapping[str, Any]) -> list[str]:
    words: list[str] = []
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if name == "write_modes":
            words += ["--write", "modes"]
        elif value is False:
            words.append(_OPPOSITES[name])
        elif value is True:
            words.append(flag)
        elif isinstance(value, (list, tuple)):
            words += [flag, ",".join(map(repr, value))]
        elif value is not None:
            words += [flag, str(value)]
    return words


def align_command(run: AlignmentRecord, *location: str) -> str:
    """The command line of an alignment, with the options that say what is fitted on which rows."""
    words = ["spec-store", "align", "--table", str(run.table)]
    words += ["--source", run.columns[0], "--target", run.columns[1], *location]
    for name in ("key", "where", "column"):
        if run.options.get(name) is not None:
            words += [f"--{name}", str(run.options[name])]
    words += ["--in-place"] * run.in_place
    for name in ("held_out", "seed"):
        if run.options.get(name) is not None:
            words += [f"--{name.replace('_', '-')}", str(run.options[name])]
    return shlex.join(words)


def report_command(run: ComparisonRecord, table: str, options: ReportOptions, *location: str) -> str:
    """The command line of a page, without the options that have their default; the seed always."""
    words = ["spec-store", "report", "--table", table, *location, "--prefix", run.prefix]
    changed = {
        f.name: getattr(options, f.name)
        for f in dataclasses.fields(options)
        if f.name == "seed" or getattr(options, f.name) != f.default
    }
    flags = {name: ",".join(v) if isinstance(v, tuple) else v for name, v in changed.items()}
    return shlex.join([*words, *_flags(flags), "-o", "report.html"])
