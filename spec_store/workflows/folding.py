"""A recorded state brought up to date: rows that came are added, rows that went are taken out.

The state is a sum over rows, so nothing that stayed as it was is read. Where a store can't tell what changed,
or more changed than is left, all rows are read again, through the same maps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..connector import Source
from ..executor import IN_PROCESS, Executor
from ..options import CompareOptions
from ..progress import Progress
from ..spectral.angles import largest_angle
from ..spectral.covariance import CovarianceAccumulator
from ..spectral.features import FeatureMap
from ..spectral.spectrum import Spectrum, second_moment
from .kept import LeadingModes
from .passes import accumulate
from .portion import Portion, sum_blocks

__all__ = ["Drift", "Folded", "drift_of", "fold"]

How = Literal["current", "folded", "read again", "drawn again"]

# A refit is advised from these on.
_LOST_COVERAGE = 0.05
_TURNED_DEGREES = 30.0
_CHANGED_SHARE = 0.5


@dataclass(frozen=True)
class Folded:
    """A state of the rows as they are now.

    Attributes
    ----------
    state
        Over the present rows.
    how
        "current" where nothing had changed, "folded", "read again": all rows were read, or "drawn again": of
        a run on a share of the rows, another share was.
    n_added, n_removed
        Rows that were added to the state and taken out of it; a changed row is one of each. None where all
        were read.
    added
        The state of the added rows alone; None where there are none, or all rows were read.
    version
        The version that was read.
    portion
        The share that was drawn again; None for states of all rows, and where nothing had changed.
    """

    state: CovarianceAccumulator
    how: How
    n_added: int | None
    n_removed: int | None
    added: CovarianceAccumulator | None
    version: int | None
    portion: Portion | None = None


def fold(
    state: CovarianceAccumulator,
    source: Source,
    version: int | None,
    options: CompareOptions,
    progress: Progress,
    *,
    is_share: bool,
    executor: Executor = IN_PROCESS,
) -> Folded:
    """Bring a state up to the version that the source is pinned at.

    Parameters
    ----------
    state
        Of the rows of `version`; it may be changed in place.
    options
        Those of the run that made it.
    is_share
        Whether it is of a share of the rows, which can't be told row by row: another one is drawn where
        anything changed.
    executor
        Who reads all rows, where that is needed.

    Notes
    -----
    Cost: pass 1 over the rows that changed, twice for those whose values changed; they are read by row id
    where they lie scattered. Rounding: sums are in float64, but products of a batch in the maps' type: what
    is taken out in float32 was added in other batches, and leaves about 1e-8 of it, relatively.
    """
    columns = [m.column for m in state.maps]
    changed = None if version is None else source.difference(version, columns, options.where)
    if changed is not None:
        n_added, n_removed = changed.added.count(), changed.removed.count()
        if not n_added and not n_removed:
            return Folded(state, "current", 0, 0, None, source.version)
        if not is_share and n_added + n_removed < source.count(options.where):
            told = _Told(progress, n_added + n_removed)
            added = _summed(changed.added, state.maps, None, options, told)
            removed = _summed(changed.removed, state.maps, None, options, told)
            state.merge(added)
            state.merge(removed, sign=-1)
            return Folded(state, "folded", n_added, n_removed, added if n_added else None, source.version)
    n_rows = source.count(options.where)
    if is_share and options.fit_rows is not None and options.fit_rows < n_rows:
        portion = sum_blocks(
            source,
            state.maps,
            options.fit_rows,
            n_rows,
            seed=options.seed,
            where=options.where,
            threads=options.threads,
            progress=_Told(progress, options.fit_rows),
        )
        return Folded(portion.state, "drawn again", None, None, None, source.version, portion)
    told = _Told(progress, n_rows)
    whole = _summed(source, state.maps, options.where, options, told, executor)
    return Folded(whole, "read again", None, None, None, source.version)


class _Told:
    """Progress over several sources as one stage."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total = progress, total
        progress("state", 0, total)

    def __call__(self, rows: int) -> None:
        self._progress("state", rows, self._total)


def _summed(
    source: Source,
    maps: Sequence[FeatureMap],
    where: str | None,
    options: CompareOptions,
    told: _Told,
    executor: Executor = IN_PROCESS,
) -> CovarianceAccumulator:
    return accumulate(
        source,
        maps,
        where=where,
        batch_rows=options.batch_rows,
        threads=options.threads,
        progress=told,
        executor=executor,
    )


@dataclass(frozen=True)
class Drift:
    """How the rows moved away from those on which maps, modes and clusters were found.

    Attributes
    ----------
    coverage, coverage_added
        By column, mean |φ(x)|² of all rows, and of those that were added; of an exact map 1.
    angle
        By column, how far the leading modes of its end lie outside of those that the run had, in degrees, see
        `largest_angle`; empty where the run kept none.
    advice
        Why the run should be fitted anew; nothing where it need not.
    """

    coverage: Mapping[str, float]
    coverage_added: Mapping[str, float]
    angle: Mapping[str, float]
    advice: tuple[str, ...]


def drift_of(
    folded: Folded,
    pair: tuple[str, str],
    spectrum: Spectrum,
    modes: LeadingModes | None,
    *,
    changed_share: float,
) -> Drift:
    """What became of one pair's coverage and modes.

    Parameters
    ----------
    spectrum
        Of the pair in the folded state.
    modes
        Those that the run had when its clusters were found.
    changed_share
        Of the present rows, the share that was added since then.
    """
    state = folded.state
    known = [m.column for m in state.maps]
    positions = [known.index(c) for c in pair]
    coverage = dict(zip(pair, spectrum.coverage, strict=True))
    added = {} if folded.added is None or not folded.added.n_rows else _coverages(folded.added, pair)
    angle = {}
    if modes is not None:
        moment = second_moment(state, positions)
        for column, now, before in zip(pair, spectrum.ends, modes.ends, strict=True):
            leading = now.weights[:, : modes.compared]
            angle[column] = largest_angle(leading, before, moment, center=spectrum.centered)
    advice = [
        f"new rows of {c} have coverage {share:.2f}, all rows {coverage[c]:.2f}: the map hardly sees them"
        for c, share in added.items()
        if share < coverage[c] - _LOST_COVERAGE
    ]
    advice += [
        f"the leading modes of {c} have turned by {degrees:.0f} degrees"
        for c, degrees in angle.items()
        if degrees >= _TURNED_DEGREES
    ]
    if changed_share >= _CHANGED_SHARE:
        advice.append(f"{changed_share:.0%} of the rows came since its clusters were found")
    return Drift(coverage, added, angle, tuple(advice))


def _coverages(state: CovarianceAccumulator, pair: Sequence[str]) -> dict[str, float]:
    known = [m.column for m in state.maps]
    found = {}
    for column in pair:
        at = known.index(column)
        exact = state.maps[at].sigma is None
        found[column] = 1.0 if exact else float(np.trace(second_moment(state, [at]).matrix))
    return found
