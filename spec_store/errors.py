"""Every error a person can meet, grouped by what they can do about it.

`InputError`: fix what was given. `MissingExtraError`: install something. `RetryError`: nothing was
published, try again. All derive from `SpecStoreError`; the command line prints them without a
traceback and exits with 1.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "ColumnClashError",
    "ColumnNotFoundError",
    "ConnectorError",
    "FilterError",
    "InputError",
    "InvalidVectorsError",
    "MissingExtraError",
    "NotBetterError",
    "RetryError",
    "SpecStoreError",
    "TableNotFoundError",
    "UnsupportedError",
    "did_you_mean",
    "sentence",
]


class SpecStoreError(Exception):
    """Root of all errors raised on purpose by spec-store and its connectors."""


class InputError(SpecStoreError, ValueError):
    """What was given can't be used; the message says what was expected and what to do."""


class TableNotFoundError(InputError):
    """No such database, table, index or file."""


class ColumnNotFoundError(InputError):
    """No such column in a table that does exist."""


class ColumnClashError(InputError):
    """A column to be written exists already and was not written by spec-store."""


class InvalidVectorsError(InputError):
    """Null, non-finite, zero or unequally wide vectors where every row must have a usable one."""


class FilterError(InputError):
    """A filter that is not SQL, names unknown columns, or selects nothing."""


class UnsupportedError(InputError):
    """The store, or this kind of index or column, can't do what was asked."""


class ConnectorError(SpecStoreError):
    """A connector is unknown, claimed twice, or fails to import."""


class MissingExtraError(SpecStoreError, ImportError):
    """An optional dependency is not installed; the message holds the install line."""


class NotBetterError(SpecStoreError):
    """A result that held-out rows speak against; nothing was written."""


class RetryError(SpecStoreError):
    """Other writers kept winning, or the store ran out of room; nothing was published."""


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """The end of a "no such …" message: the nearest known name, else all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    if near:
        return f"Did you mean {near[0]!r}?"
    if not names:
        return "There are none."
    shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    return f"There are: {shown}."


def sentence(text: str) -> str:
    """The text as the beginning of a sentence; one that begins with a path or a name stays as it is."""
    begins_with_a_word = text.startswith(("table '", 'table "', "a "))
    return text[0].upper() + text[1:] if begins_with_a_word else text
