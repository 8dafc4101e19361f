"""Columns named in text: ``clip``, or ``dino=faiss:dino.index`` in another store; several with commas.

A part of it that holds ``,``, ``=``, ``#`` or ``/`` itself, or begins or ends with a space, goes in double
quotes or backticks, a quote within them twice: ``"a,b"``, ``dino=arrow:"run #3.parquet"#vector``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from ..connector import Capability, Location
from ..errors import InputError
from ..plugins import get_connector

__all__ = ["ColumnRef", "split_columns"]

_CONNECTOR = re.compile(r"[a-z][a-z0-9_-]*")
_QUOTES = '"`'
_SEPARATORS = ",=:#/"


@dataclass(frozen=True)
class ColumnRef:
    """A column of the table at hand, or of another store.

    Attributes
    ----------
    name
        What the column is called in the comparison.
    location, table
        The other store; None for a column of the table at hand.
    column
        Its name there; None where the store tells by itself, see `spec_store.stores.locate.open_columns`.
    """

    name: str
    location: Location | None = None
    table: str | None = None
    column: str | None = None

    @classmethod
    def parse(cls, text: str) -> ColumnRef:
        """Read ``name`` or ``name=connector:uri``, with ``#column`` or ``#table/column`` at the end.

        Raises InputError for any other form, ConnectorError for an unknown connector.
        """
        name, place = _cut(_characters(text), "=")
        if place is None and _plain(name).strip():
            return cls(_stripped(name) if any(c.quoted for c in name) else text)
        connector, there = _cut(place or [], ":")
        uri, within = _cut(there or [], "#")
        if not (_stripped(name) and _CONNECTOR.fullmatch(_stripped(connector)) and _stripped(uri)):
            raise InputError(
                f"Column {text!r} can't be read: expected a column's name, or name=connector:uri such as"
                " dino=faiss:dino.index, dino=arrow:dino.parquet#vector, or dino=lancedb:./db#images/dino."
                ' What holds one of , = # / itself goes in double quotes: "a=b".'
            )
        location = Location(_stripped(uri), _stripped(connector))
        if Capability.TABLES not in get_connector(location.connector).capabilities:
            return cls(_stripped(name), location, None, _stripped(within or []) or None)
        table, column = _cut(within or [], "/")
        if not _stripped(table):
            raise InputError(f"Column {text!r} names no table: expected {text.split('#')[0]}#table/column.")
        return cls(_stripped(name), location, _stripped(table), _stripped(column or []) or None)

    @property
    def store(self) -> tuple[Location | None, str | None]:
        """Equal for columns of one store."""
        return self.location, self.table


def split_columns(line: str) -> list[str]:
    """The columns of a line, each for `ColumnRef.parse`; commas in quotes do not part them."""
    columns: list[str] = []
    rest: list[_Character] | None = _characters(line)
    while rest is not None:
        first, rest = _cut(rest, ",")
        columns.append("".join(c.value for c in first).strip())
    return columns


class _Character(NamedTuple):
    value: str
    quoted: bool
    is_mark: bool  # a quote around a part of the text, or the first of a doubled one


def _characters(text: str) -> list[_Character]:
    found: list[_Character] = []
    quote, begins, doubled = "", True, False
    for i, c in enumerate(text):
        if doubled:
            found.append(_Character(c, True, False))
            doubled = False
        elif quote and c == quote and text[i + 1 : i + 2] == quote:
            found.append(_Character(c, True, True))
            doubled = True
        elif (quote and c == quote) or (begins and not quote and c in _QUOTES):
            found.append(_Character(c, True, True))
            quote, begins = "" if quote else c, False
        else:
            found.append(_Character(c, bool(quote), False))
            begins = c in _SEPARATORS or (begins and c.isspace())
    if quote:
        raise InputError(f"Column {text!r} can't be read: its {quote} is not closed.")
    return found


def _cut(characters: list[_Character], at: str) -> tuple[list[_Character], list[_Character] | None]:
    """What is before the first `at` outside quotes, and after it; None where there is none."""
    for i, c in enumerate(characters):
        if c.value == at and not c.quoted:
            return characters[:i], characters[i + 1 :]
    return characters, None


def _plain(characters: list[_Character]) -> str:
    return "".join(c.value for c in characters if not c.is_mark)


def _stripped(characters: list[_Character]) -> str:
    """Without spaces at its ends that are not quoted."""
    inner = list(characters)
    for end in (0, -1):
        while inner and inner[end].value.isspace() and not inner[end].quoted:
            inner.pop(end)
    return _plain(inner)
