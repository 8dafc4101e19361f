"""Data and figures as text, for a terminal and for a page: whatever they hold, nothing in them is obeyed."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence

__all__ = [
    "display_width",
    "format_decimals",
    "format_number",
    "format_percent",
    "visible",
    "visible_lines",
    "with_interval",
]

# What a terminal obeys instead of showing: C0 and C1 controls, DEL, line and paragraph separators, the marks
# and overrides that reorder a line (Unicode's Bidi_Control); and lone surrogates, which no encoding takes.
_HIDDEN = "\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
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


def format_number(value: float | None) -> str:
    """Four significant digits; a dash for what is not known."""
    return "-" if value is None or value != value else f"{value:.4g}"


def format_percent(share: float | None) -> str:
    """A share without decimals; what rounds to nothing is not called nothing."""
    if share is None or share != share:
        return "-"
    return "<1%" if 0 < share < 0.005 else f"{share:.0%}"


def format_decimals(value: float | None) -> str:
    """Two decimals; a dash for what is not known. What rounds to nothing is not called nothing."""
    if value is None or value != value:
        return "-"
    return "<0.01" if 0 < value < 0.005 else f"{value:.2f}"


def with_interval(
    value: float | None,
    interval: Sequence[float | None] | None,
    formatted: Callable[[float | None], str],
) -> str:
    """A figure with its interval behind it: ``79% (75–83%)``."""
    if value is None or not interval:
        return formatted(value)
    low, high = (formatted(v) for v in interval)
    return f"{formatted(value)} ({low.removesuffix('%')}–{high})"
