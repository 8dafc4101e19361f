"""All that a page is made of: records, sampled rows, and what was computed from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from ..runs.records import AlignmentRecord, ComparisonRecord
from .options import ReportOptions
from .sample import ReportSample
from .shares import Shares
from .similarity import KernelBlocks, Neighbours, Spread
from .values import Shown

__all__ = [
    "AlignedColumn",
    "Examples",
    "Making",
    "ModelMatrix",
    "Ranking",
    "ReportData",
    "RowFilter",
    "ShownRow",
]


@dataclass(frozen=True)
class ModelMatrix:
    """How far each of N models is from each other one; rows and columns in the order of `columns`.

    Attributes
    ----------
    spec_diff, cka, cka_unbiased
        N rows of N figures each; None where a figure is not known.
    """

    columns: tuple[str, ...]
    spec_diff: Sequence[Sequence[float | None]]
    cka: Sequence[Sequence[float | None]]
    cka_unbiased: Sequence[Sequence[float | None]]


@dataclass(frozen=True)
class RowFilter:
    """How SQL selects single rows.

    Attributes
    ----------
    column
        The column's name, quoted where SQL wants that.
    literals
        Of each sampled row its value there, as SQL spells it, shape (n,).
    note
        What a person should know before relying on it; empty for nothing.
    """

    column: str
    literals: tuple[str, ...]
    note: str = ""


@dataclass(frozen=True)
class ShownRow:
    """One row as it is shown.

    Attributes
    ----------
    key
        What names it: of the key of the comparison, else of the store's own.
    values
        Of the columns that are shown, in their order.
    membership
        Its relative membership in the cluster that it stands in.
    """

    key: str
    values: tuple[Shown, ...]
    membership: float | None = None


@dataclass(frozen=True)
class Examples:
    """Rows of one cluster.

    Attributes
    ----------
    typical
        Those of the highest relative membership.
    at_random
        A uniform sample of the members.
    near
        Rows just outside: no members, of the highest relative membership.
    """

    typical: tuple[ShownRow, ...]
    at_random: tuple[ShownRow, ...]
    near: tuple[ShownRow, ...]


@dataclass(frozen=True)
class Ranking:
    """What each embedding answers to one row as a query: positions in the sample."""

    query: int
    neighbours: Mapping[str, Neighbours]


@dataclass(frozen=True)
class AlignedColumn:
    """The column of an alignment of the same two embeddings.

    Attributes
    ----------
    record
        Its run.
    space
        The embedding whose space it is in.
    """

    record: AlignmentRecord
    space: str

    @property
    def name(self) -> str:
        """The column's name."""
        return self.record.prefix


@dataclass(frozen=True)
class Making:
    """How the page was made.

    Attributes
    ----------
    place
        Where the table is, in words.
    commands
        (what for, command line) to run again what was run.
    options
        Of the page.
    versions
        (package, version) that computed the page.
    seconds
        What took how long, by stage.
    """

    place: str
    commands: tuple[tuple[str, str], ...]
    options: ReportOptions
    created_at: datetime
    versions: tuple[tuple[str, str], ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """A comparison as a page shows it.

    Attributes
    ----------
    clusters
        Numbers of the clusters that get a card, in the page's order.
    sample
        Of the rows that were compared.
    rows
        What is shown of each, n of them.
    shown
        The columns whose values are shown.
    key
        The column that names rows; None where they have no names.
    filter
        How SQL selects single rows; None where it can't.
    maps
        By column, places of the sampled rows, shape (n, 2).
    examples, rankings, spreads
        By cluster.
    notes
        What is not on the page, and why.
    n_omitted
        Pictures that had no room on the page.
    models
        The distances of several models, shown first; None for two.
    """

    run: ComparisonRecord
    making: Making
    clusters: tuple[int, ...]
    sample: ReportSample
    rows: tuple[ShownRow, ...]
    shown: tuple[str, ...]
    key: str | None
    filter: RowFilter | None
    maps: Mapping[str, NDArray[np.float32]]
    examples: Mapping[int, Examples]
    rankings: Mapping[int, Ranking]
    spreads: Mapping[int, Mapping[str, Spread]]
    blocks: KernelBlocks | None
    shares: tuple[Shares, ...]
    aligned: AlignedColumn | None = None
    notes: tuple[str, ...] = ()
    n_omitted: int = 0
    models: ModelMatrix | None = None
