"""What an update did, for each of a table's results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..runs.values import Changes

__all__ = ["Updated", "UpdatedClusters"]


@dataclass(frozen=True)
class Updated:
    """One aligned column, brought up to date.

    Attributes
    ----------
    column, source
        The aligned column, and the column that it is made from.
    run_id
        The run whose map was applied.
    n_rows
        Rows of the table.
    n_filled
        Rows that had no value before and have one now.
    n_missing
        Rows that still have none: the source is null or unusable, or the run's filter leaves them out.
    n_written
        Rows in the column files that were written; all others were current.
    warnings
        What a person should know.
    """

    column: str
    source: str
    run_id: str
    n_rows: int
    n_filled: int
    n_missing: int
    n_written: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class UpdatedClusters:
    """The results of one comparison, brought up to date.

    Attributes
    ----------
    prefix, columns
        Of the result columns; and the two embeddings.
    run_id
        The run whose clusters the results are of: with `refit` the new one.
    version
        The version of the table that was read.
    n_rows
        Rows that the state sums up now.
    state
        What was done to it: "current" where nothing had changed, "folded" where changed rows were added and
        taken out, "read again" where all rows were.
    n_added, n_removed
        Rows added to the state and taken out of it since it was last brought up to date; a changed row is one
        of each. None where all were read.
    n_written
        Rows in the column files that were written; all others were current.
    coverage, coverage_added
        By column, mean |φ(x)|² of all rows and of those that were added.
    angle
        By column, how far the leading modes of its end lie outside of those that the run had, in degrees.
    advice
        Why the run should be fitted anew, with `refit`; nothing where it need not.
    changes
        With `refit`, numbers of clusters against those before: ``kept``, ``new``, ``gone``.
    warnings
        What a person should know.
    """

    prefix: str
    columns: tuple[str, str]
    run_id: str
    version: int | None
    n_rows: int
    state: str
    n_added: int | None
    n_removed: int | None
    n_written: int
    coverage: Mapping[str, float] = field(default_factory=dict)
    coverage_added: Mapping[str, float] = field(default_factory=dict)
    angle: Mapping[str, float] = field(default_factory=dict)
    advice: tuple[str, ...] = ()
    changes: Changes | None = None
    warnings: tuple[str, ...] = ()
