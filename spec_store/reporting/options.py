"""The options of a page: built by the command line, taken by the library, named on the page."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from ..errors import InputError, did_you_mean
from ..options import LARGEST_SEED, check_choice, check_count
from .projection import Method

__all__ = ["ReportOptions"]


@dataclass(frozen=True)
class ReportOptions:
    """What a page shows.

    Attributes
    ----------
    show
        Columns whose values are shown with rows; none is the first column of pictures and a few others.
    clusters
        Clusters that get a card of their own, the strongest first.
    rows
        Rows of each kind in a card: typical ones, members at random, and rows just outside.
    sample_rows
        Rows on the maps, among which neighbours are looked for.
    projection
        How vectors become places on a map: "tsne" or "pca".
    seed
        Seed of every random draw.
    """

    show: tuple[str, ...] = ()
    clusters: int = 30
    rows: int = 6
    sample_rows: int = 2000
    projection: Method = "tsne"
    seed: int = 0

    def __post_init__(self) -> None:
        check_count("clusters", self.clusters, 1, 1000)
        check_count("rows", self.rows, 1, 50)
        check_count("sample_rows", self.sample_rows, 10, 5000)
        check_count("seed", self.seed, 0, LARGEST_SEED)
        check_choice("projection", self.projection, get_args(Method))

    @classmethod
    def from_keywords(cls, given: Mapping[str, Any]) -> ReportOptions:
        """From keyword arguments; raises InputError naming the nearest option for an unknown one."""
        known = {f.name for f in dataclasses.fields(cls)}
        for name in given:
            if name not in known:
                raise InputError(f"No option {name!r}. {did_you_mean(name, known)}")
        return cls(**given)
