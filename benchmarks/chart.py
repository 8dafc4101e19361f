"""Speed at equal accuracy, as one SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Protocol

WIDTH, HEIGHT, LEFT, BOTTOM, RIGHT, TOP = 760, 420, 70, 50, 30, 44
FAMILIES = {"spec-store": "#1b6ca8", "random": "#c2571a", "scikit-learn": "#5b7f3a", "exact": "#555555"}


class Point(Protocol):
    @property
    def method(self) -> str: ...
    @property
    def seconds(self) -> float: ...
    @property
    def energy(self) -> float: ...


def speed_at_accuracy(points: Sequence[Point], n_rows: int) -> str:
    """Seconds on a logarithmic axis, energy of the exact modes in the found subspace upwards."""
    low = math.floor(math.log10(min(p.seconds for p in points)) * 2) / 2
    high = math.ceil(math.log10(max(p.seconds for p in points)) * 2) / 2

    def x(seconds: float) -> float:
        return LEFT + (math.log10(seconds) - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(energy: float) -> float:
        return TOP + (1 - energy) * (HEIGHT - TOP - BOTTOM)

    title = f"Energy of the exact modes that each method finds, {n_rows:,} rows, and its seconds"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
        f' aria-label="{title}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="22" font-size="14">{title}</text>',
    ]
    for step in range(6):
        at = y(step / 5)
        parts += [
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}" stroke="#dddddd"/>',
            f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{step / 5:.1f}</text>',
        ]
    for power in range(math.ceil(low), math.floor(high) + 1):
        parts += [
            f'<line x1="{x(10**power):.1f}" x2="{x(10**power):.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"'
            ' stroke="#dddddd"/>',
            f'<text x="{x(10**power):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">'
            f"{10**power:g}</text>",
        ]
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 10}" text-anchor="middle">seconds</text>')
    taken: list[float] = []
    for p in sorted(points, key=lambda p: (-p.energy, p.seconds)):
        colour = next(c for family, c in FAMILIES.items() if p.method.startswith(family))
        px, py = x(p.seconds), y(p.energy)
        line = max([py + 4, *(t + 14 for t in taken if abs(t - py) < 90)]) if taken else py + 4
        taken.append(line)
        end = px > WIDTH * 0.55
        parts += [
            f'<circle cx="{px:.1f}" cy="{py:.1f}" r="5" fill="{colour}"/>',
            f'<text x="{px + (-9 if end else 9):.1f}" y="{line:.1f}" fill="{colour}"'
            f' text-anchor="{"end" if end else "start"}">{escape(p.method)}</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"
