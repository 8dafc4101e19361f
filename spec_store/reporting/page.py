"""The page: one HTML file that holds all it shows, runs no code but its own, and uses no network.

A policy in the page allows exactly its own style and script, by their hashes, and pictures that are part of
it. Texts are escaped where they are put into the page; what the script reads is JSON in which no character
can end the element that holds it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

import jinja2
import numpy as np
from markupsafe import Markup

from .data import ReportData, ShownRow
from .figures import READING
from .findings import changes_lines, summary_lines, unlisted_lines
from .text import format_decimals, format_number, format_percent, visible
from .views import (
    aligned_sentence,
    card_of,
    colours,
    finding_groups,
    headline_figures,
    kernel_charts,
    model_tables,
    record_of,
    shares_tables,
    shows_tiles,
    similarity_rows,
    spectrum_charts,
)

__all__ = ["render", "script_json"]

# Places on a map are whole numbers up to this: finer ones can't be seen.
_GRID = 4000
# Characters that end a script element, or a line of JavaScript; in JSON they can be written otherwise.
_ESCAPED = {ord(c): f"\\u{ord(c):04x}" for c in "<>&'\u2028\u2029"}
_NOT_CONFIRMED = 100


def render(data: ReportData) -> str:
    """The page as HTML, to be written in UTF-8.

    Parameters
    ----------
    data
        All that it shows.
    """
    by_cluster = colours(data)
    style = _asset("page.css") + "".join(f".k{n}{{--k:{c}}}\n" for n, c in sorted(by_cluster.items()))
    script = _asset("page.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}';"
        " base-uri 'none'; form-action 'none'"
    )
    strongest, others = finding_groups(data)
    kernels, darkest = kernel_charts(data)
    similarities, bounds = similarity_rows(data)
    return _template().render(
        data=data,
        run=data.run,
        making=data.making,
        policy=policy,
        style=Markup(style),
        script=Markup(script),
        state=Markup(script_json(_state(data, by_cluster))),
        tiles=shows_tiles(data),
        models=model_tables(data),
        headline=summary_lines(data.run),
        figures=headline_figures(data.run),
        strongest=strongest,
        others=others,
        unlisted=_sentence(unlisted_lines(data.run, stored=True)),
        changes=_sentence(changes_lines(data.run)),
        aligned=aligned_sentence(data),
        reading=READING,
        cards=[card_of(data, number) for number in data.clusters],
        similarities=similarities,
        bounds=bounds,
        kernels=kernels,
        darkest=format_decimals(darkest),
        shares=shares_tables(data),
        spectra=spectrum_charts(data.run),
        rejections=sorted(data.run.rejections.items(), key=lambda item: -item[1]),
        most_rejected=_NOT_CONFIRMED,
    )


def script_json(value: object) -> str:
    """JSON that is safe within a script element, whatever texts it holds."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).translate(_ESCAPED)


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_asset),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["visible"] = lambda text: visible(str(text))
    environment.filters["count"] = lambda number: f"{number:,}"
    environment.filters["decimals"] = format_decimals
    environment.filters["membership"] = _membership
    environment.filters["number"] = format_number
    environment.filters["percent"] = format_percent
    return environment.get_template("page.html.jinja")


def _membership(value: float) -> str:
    """Two decimals; a row just outside is not shown as one that is in."""
    return "<0.50" if 0.495 <= value < 0.5 else f"{value:.2f}"


def _asset(name: str) -> str:
    return files(__package__).joinpath("assets", name).read_text("utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _sentence(lines: Sequence[str]) -> str:
    return " ".join(line.strip() for line in lines)


def _state(data: ReportData, by_cluster: dict[int, str]) -> dict[str, object]:
    """What the script needs: places, memberships and values of the sampled rows."""
    sample = data.sample
    listed = [sample.numbers.index(n) for n in data.clusters]
    members = [[data.clusters[j] for j in np.flatnonzero(row)] for row in sample.members[:, listed]]
    scores = np.where(sample.members, sample.scores, -1)[:, listed]
    first = [data.clusters[int(np.argmax(s))] if m else None for s, m in zip(scores, members, strict=True)]
    pictures: list[str] = []
    return {
        "grid": _GRID,
        "maps": [
            {"column": column, "xy": np.round((points + 1) / 2 * _GRID).astype(int).ravel().tolist()}
            for column, points in data.maps.items()
        ],
        "clusters": [
            {"number": n, "where": record_of(data, n).where, "colour": by_cluster[n]} for n in data.clusters
        ],
        "first": first,
        "members": members,
        "tiles": shows_tiles(data),
        "columns": [data.key or "row", *data.shown],
        "rows": [_state_row(row, pictures) for row in data.rows],
        "pictures": pictures,
        "filter": data.filter and {"column": data.filter.column, "values": data.filter.literals},
    }


def _state_row(row: ShownRow, pictures: list[str]) -> list[object]:
    """The row's key, then a text for each value, or for a picture its place among all."""
    values: list[object] = [row.key]
    for shown in row.values:
        if shown.image is None:
            values.append(shown.text)
        else:
            values.append({"picture": len(pictures), "text": shown.text, "pixelated": shown.pixelated})
            pictures.append(shown.image)
    return values
