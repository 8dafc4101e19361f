"""Values as short text for eyes."""

from __future__ import annotations

import unicodedata

__all__ = ["LONGEST_TEXT", "cut", "readable"]

LONGEST_TEXT = 60


def readable(text: str) -> str:
    """One line without control characters and formatting marks, of at most 60 characters."""
    head = text[: 8 * LONGEST_TEXT]
    shown = "".join(" " if unicodedata.category(c) in _HIDDEN else c for c in head)
    return cut(" ".join(shown.split()), LONGEST_TEXT)


# Controls, marks that reorder a line, lone surrogates, code points of no or private meaning.
_HIDDEN = {"Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"}


def cut(text: str, longest: int) -> str:
    """The text, or its beginning and an ellipsis."""
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"
