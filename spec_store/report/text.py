"""Text for eyes: data printed as data, whatever it holds."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

__all__ = [
    "aligned",
    "display_width",
    "format_number",
    "format_percent",
    "shortened",
    "visible",
    "visible_lines",
]

# What a terminal obeys instead of showing: C0 and C1 controls, DEL, line and paragraph separators, the marks
# and overrides that reorder a line (Unicode's Bidi_Control); and lone surrogates, which no encoding takes.
_HIDDEN = "\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_NARROWEST = 8
_ANY = re.compile(f"[\n{_HIDDEN}]")
_WITHIN_LINES = re.compile(f"[{_HIDDEN}]")


def visible(text: str) -> str:
    """One line, its control characters as Python would write them: ``\\x1b``, ``\\n``, ``\\u202e``."""
    return _ANY.sub(_escape, text)


def visible_lines(text: str) -> str:
    """As `visible`, but line ends stay."""
    return _WITHIN_LINES.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def display_width(text: str) -> int:
    """How many columns a terminal gives to a text: two to East Asian wide characters, none to accents."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def shortened(text: str, width: int) -> str:
    """One line of text in at most `width` columns of a terminal: its beginning and an ellipsis."""
    if display_width(text) <= width:
        return text
    end = 0
    while display_width(text[: end + 1]) < width:
        end += 1
    return f"{text[:end]}…"


def aligned(
    rows: Sequence[Sequence[str]], *, right: Sequence[int] = (), width: int | None = None
) -> list[str]:
    """Rows of cells as lines, their columns aligned two spaces apart; control characters are made visible.

    Parameters
    ----------
    right
        Columns that are aligned to the right.
    width
        Of a line: the widest columns are cut to one width so that all fit, but to no less than 8.
    """
    cells = [[visible(cell) for cell in row] for row in rows]
    widths = [max(map(display_width, column)) for column in zip(*cells, strict=True)]
    if width is not None:
        most = max(widths, default=0)
        while most > _NARROWEST and sum(min(w, most) + 2 for w in widths) - 2 > width:
            most -= 1
        widths = [min(w, most) for w in widths]
    lines = []
    for row in cells:
        parts = []
        for i, (cell, limit) in enumerate(zip(row, widths, strict=True)):
            shown = shortened(cell, limit)
            space = " " * (limit - display_width(shown))
            parts.append(space + shown if i in right else shown + space)
        lines.append("  ".join(parts).rstrip())
    return lines


def format_number(value: float | None) -> str:
    """Four significant digits; a dash for what is not known."""
    return "-" if value is None or value != value else f"{value:.4g}"


def format_percent(share: float | None) -> str:
    """A share without decimals; what rounds to nothing is not called nothing."""
    if share is None or share != share:
        return "-"
    return "<1%" if 0 < share < 0.005 else f"{share:.0%}"
