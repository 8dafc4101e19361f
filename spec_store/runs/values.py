"""The plain values within records of clusters and comparisons: mappings whose keys are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

from ..spectral.views import SeenKind

__all__ = [
    "Changes",
    "Intervals",
    "MergedWith",
    "Mismatch",
    "OverRepresented",
    "SeenByOther",
    "WordShare",
]


class MergedWith(TypedDict):
    """A cluster that the other embedding merges with this one, and its share of the rows nearest there."""

    cluster: int
    share: float


class SeenByOther(TypedDict):
    """How the other embedding sees a cluster, see `ClusterRecord.seen_by_other`."""

    kind: SeenKind
    clusters: Sequence[MergedWith]
    others: float | None
    purity: float | None


class Intervals(TypedDict):
    """95% intervals, low and high: of the gap, and of capture and contrast by column."""

    gap: Sequence[float | None]
    capture: Mapping[str, Sequence[float | None]]
    contrast: Mapping[str, Sequence[float | None]]


class OverRepresented(TypedDict):
    """A value, a range or a tag that is over-represented in a cluster."""

    column: str
    value: str
    count: int
    share: float
    lift: float
    p_value: float
    log10_p_value: float | None


class WordShare(TypedDict):
    """A word that sets the members' text apart."""

    column: str
    word: str
    share: float
    lift: float


class Mismatch(TypedDict):
    """What one end of a comparison retrieves as groups and the other does not."""

    mass: float
    rows: float


class Changes(TypedDict):
    """Numbers of clusters against the results that a prefix held before."""

    kept: Sequence[int]
    new: Sequence[int]
    gone: Sequence[int]
