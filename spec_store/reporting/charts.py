"""Charts as SVG and pictures: part of the page's text, in its colours, and printed as they stand."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from .similarity import KernelBlocks, Spread
from .text import format_number

__all__ = ["densities_svg", "kernel_svg", "similarity_bounds", "spectrum_svg", "strongest_similarity"]

_BINS = 56
# Of the standard deviation of the smoothing, in bins.
_SMOOTHING = 1.6
# Similarity as the opacity of one colour: none at all is the page itself, light or dark.
_INK = (56, 120, 196)


def spectrum_svg(eigenvalues: Sequence[float], floor: float, largest: float, label: str) -> Markup:
    """Bars of the leading eigenvalues of one end, with the band in which the feature maps' error lies.

    Parameters
    ----------
    floor
        What the error may shift an eigenvalue by; 0 draws no band.
    largest
        The eigenvalue that is as high as the chart, so that two ends share a scale.
    """
    width, height, left, top = 480.0, 150.0, 52.0, 8.0
    inner = height - top - 22
    step = (width - left) / max(len(eigenvalues), 1)
    scale = inner / largest if largest > 0 else 0.0
    parts = [
        _grid_line(left, width, top + inner - tick * scale, format_number(tick)) for tick in _ticks(largest)
    ]
    for i, value in enumerate(eigenvalues):
        tall = max(value * scale, 0.5)
        kind = "bar" if value > floor else "bar low"
        parts.append(
            f'<rect class="{kind}" x="{left + i * step + 0.15 * step:.1f}" y="{top + inner - tall:.1f}"'
            f' width="{0.7 * step:.1f}" height="{tall:.1f}"/>'
        )
    if floor > 0:
        y = top + inner - floor * scale
        parts.append(
            f'<rect class="floor" x="{left:.1f}" y="{y:.1f}" width="{width - left:.1f}"'
            f' height="{floor * scale:.1f}"/>'
            f'<line class="floor-edge" x1="{left:.1f}" x2="{width:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
    parts += [
        f'<text class="tick" x="{left + (i + 0.5) * step:.1f}" y="{height - 6:.1f}" text-anchor="middle">'
        f"{i + 1}</text>"
        for i in range(len(eigenvalues))
        if i == 0 or (i + 1) % 5 == 0
    ]
    return _svg(width, height, label, "".join(parts))


def _ticks(largest: float) -> list[float]:
    if largest <= 0:
        return []
    step = 10 ** np.floor(np.log10(largest))
    for part in (0.2, 0.5, 1):
        if largest / (step * part) <= 5:
            step *= part
            break
    return [float(step * i) for i in range(int(largest / step) + 1)]


def _grid_line(left: float, right: float, y: float, label: str) -> str:
    return (
        f'<line class="grid" x1="{left:.1f}" x2="{right:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="tick" x="{left - 6:.1f}" y="{y + 3.5:.1f}" text-anchor="end">{escape(label)}</text>'
    )


def densities_svg(spread: Spread, bounds: tuple[float, float], label: str) -> Markup:
    """Similarities within a cluster, upwards, against those across its edge, downwards.

    Parameters
    ----------
    bounds
        The similarities at the left edge and at the right one.
    """
    low, high = bounds
    width, height = 240.0, 46.0
    middle = height / 2
    parts = [f'<line class="grid" x1="0" x2="{width}" y1="{middle}" y2="{middle}"/>']
    for values, kind, up in ((spread.within, "within", True), (spread.across, "across", False)):
        density = _density(values, bounds)
        x = np.linspace(0, width, len(density))
        y = middle + (-1 if up else 1) * density * (middle - 2)
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
        parts.append(f'<polygon class="{kind}" points="0,{middle} {points} {width},{middle}"/>')
        at = float(np.clip((np.median(values) - low) / (high - low), 0, 1)) * width
        y1, y2 = (2, middle) if up else (middle, height - 2)
        parts.append(f'<line class="median" x1="{at:.1f}" x2="{at:.1f}" y1="{y1}" y2="{y2}"/>')
    return _svg(width, height, label, "".join(parts), stretched=True)


def _density(values: NDArray[np.float32], bounds: tuple[float, float]) -> NDArray[np.float64]:
    """A smoothed histogram between two bounds, its peak at 1."""
    counts = np.histogram(np.clip(values, *bounds), bins=_BINS, range=bounds)[0].astype(float)
    reach = np.arange(-6, 7)
    weights = np.exp(-0.5 * (reach / _SMOOTHING) ** 2)
    smooth = np.convolve(np.pad(counts, 6, mode="edge"), weights / weights.sum(), mode="valid")
    return np.asarray(smooth / (smooth.max() or 1.0))


def strongest_similarity(blocks: KernelBlocks) -> float:
    """The similarity that is drawn darkest in each embedding: nearly no pair of different rows has more."""
    different = [k[~np.eye(len(k), dtype=bool)] for k in blocks.kernels.values()]
    values = np.concatenate(different) if different else np.zeros(0)
    return float(np.quantile(values, 0.995)) if len(values) else 1.0


def kernel_svg(blocks: KernelBlocks, column: str, darkest: float, label: str) -> Markup:
    """The kernel of the blocks' rows as a picture, the edges of the blocks marked and numbered."""
    kernel = blocks.kernels[column]
    n = len(kernel)
    top = 20.0
    size = 320.0
    scale = size / n
    parts = [
        f'<image class="pixels" x="{top}" y="{top}" width="{size}" height="{size}" preserveAspectRatio="none"'
        f' href="{_picture(kernel / max(darkest, 1e-6))}"/>'
    ]
    start = 0.0
    for number, rows in blocks.clusters:
        begin, end = top + start * scale, top + (start + rows) * scale
        middle = (begin + end) / 2
        parts.append(
            f'<rect class="block" x="{begin:.1f}" y="{begin:.1f}" width="{end - begin:.1f}"'
            f' height="{end - begin:.1f}"/>'
            f'<text class="tick" x="{middle:.1f}" y="{top - 5}" text-anchor="middle">{number}</text>'
            f'<text class="tick" x="{top - 4}" y="{middle + 3.5:.1f}" text-anchor="end">{number}</text>'
        )
        start += rows
    return _svg(top + size + 1, top + size + 1, label, "".join(parts))


def _picture(kernel: NDArray[np.float32]) -> str:
    from PIL import Image

    pixels = np.empty((*kernel.shape, 4), np.uint8)
    pixels[..., :3] = _INK
    pixels[..., 3] = np.round(255 * np.clip(kernel, 0, 1))
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"


def similarity_bounds(spreads: Mapping[int, Mapping[str, Spread]]) -> tuple[float, float]:
    """Between which similarities charts are drawn: from 0, or lower where some are negative."""
    both = [v for by_column in spreads.values() for s in by_column.values() for v in (s.within, s.across)]
    low = min((float(v.min()) for v in both), default=0.0)
    high = max((float(np.quantile(v, 0.99)) for v in both), default=1.0)
    return (0.0 if low >= 0 else float(np.floor(low * 10) / 10)), float(np.ceil(high * 10) / 10)


def _svg(width: float, height: float, label: str, content: str, *, stretched: bool = False) -> Markup:
    ratio = ' preserveAspectRatio="none"' if stretched else ""
    return Markup(
        f'<svg viewBox="0 0 {width:g} {height:g}"{ratio} role="img" aria-label="{escape(label)}">'
        f"{content}</svg>"
    )
