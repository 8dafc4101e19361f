"""Text for a terminal: cut and aligned by the columns that it takes there."""

from __future__ import annotations

from collections.abc import Sequence

from ..reporting.text import display_width, visible

__all__ = ["aligned", "shortened"]

_NARROWEST = 8


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
