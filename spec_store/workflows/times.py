"""What is new in one embedding between two recorded runs: two states, one map."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ..describe import Describer, candidates
from ..errors import InputError
from ..runs.clusters import json_values
from ..runs.records import ComparisonRecord, ModelsRecord
from ..spectral.covariance import CovarianceAccumulator
from ..spectral.drift import Change, Drift, drift
from ..spectral.spectrum import second_moment
from ..stores.locate import location_of
from ..stores.tables import Database
from .again import kept_sample, recorded_comparison
from .sampling import Sample, sample_features
from .solving import kept_state

__all__ = ["ChangedGroup", "TimesComparison", "compare_times"]

_TYPICAL = 10
# Ratios of the coverages: under the one a person is told; under the other the map tells the times apart by
# how well it sees them, and no group is listed.
_LOWER_COVERAGE = 0.97
_COMPARABLE = 0.9


@dataclass(frozen=True)
class ChangedGroup:
    """A group of rows whose share differs between the two runs.

    Attributes
    ----------
    kind
        "more" or "fewer": at the new time.
    share_old, share_new
        Of the rows of each run, estimated on its sample, with 95% intervals.
    name
        What is over-represented among its sampled rows, as far as other columns were kept; None for nothing.
    typical
        Keys of the most typical sampled rows, of the run that has more of them.
    """

    kind: str
    share_old: float
    share_new: float
    interval_old: tuple[float, float]
    interval_new: tuple[float, float]
    name: str | None
    typical: tuple[str, ...]


@dataclass(frozen=True)
class TimesComparison:
    """What changed in one embedding from one run to another.

    Attributes
    ----------
    column
        The embedding.
    old, new
        The runs' ids.
    n_rows
        Rows of the old and of the new run.
    coverage
        Mean |φ(x)|² under the one map: where it falls, new rows lie far from every landmark.
    eigenvalues
        The leading ones of C_new - C_old, ``more``, and of C_old - C_new, ``fewer``.
    groups
        Those of the largest difference of shares first.
    warnings
        What a person should know before relying on it.
    """

    column: str
    old: str
    new: str
    n_rows: tuple[int, int]
    coverage: tuple[float, float]
    eigenvalues: dict[str, list[float]]
    groups: tuple[ChangedGroup, ...]
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The object that ``compare --against-run --json`` prints; its keys are stable."""
        found: dict[str, Any] = json_values(asdict(self))
        return found


def compare_times(old: str, new: str, column: str, *, db: Database = None, seed: int = 0) -> TimesComparison:
    """What is new in one embedding between two runs, and what is gone; no vector is read.

    Parameters
    ----------
    old, new
        Recorded comparisons that used one feature map for the column: the later one was made with the option
        ``maps_from`` (``--maps-from``) and the id of the earlier one.
    column
        The embedding.
    seed
        Of the split of the samples.

    Raises
    ------
    InputError
        A run is not known or kept neither state nor sample, or the maps are different.
    """
    location = location_of(db)
    runs = [recorded_comparison(location, run_id) for run_id in (old, new)]
    states = [kept_state(location, run.run_id) for run in runs]
    at = [_position(state, run, column) for state, run in zip(states, runs, strict=True)]
    maps = [state.maps[i] for state, i in zip(states, at, strict=True)]
    if maps[0].digest != maps[1].digest:
        raise InputError(
            f"Runs {old} and {new} have different feature maps for {column!r}: they can't be compared."
            f" Make the later one with the maps of the earlier: compare --maps-from {old}."
        )
    samples = [kept_sample(run, location).of([column]) for run in runs]
    features = [sample_features(sample, [maps[0]]) for sample in samples]
    moments = [second_moment(state, [i]) for state, i in zip(states, at, strict=True)]
    found = drift((moments[0], moments[1]), (features[0], features[1]), seed=seed)
    return TimesComparison(
        column=column,
        old=old,
        new=new,
        n_rows=(states[0].n_rows, states[1].n_rows),
        coverage=found.coverage,
        eigenvalues={"more": found.eigenvalues[0].tolist(), "fewer": found.eigenvalues[1].tolist()},
        groups=_groups(found, samples, features) if _ratio(found.coverage) >= _COMPARABLE else (),
        warnings=_warnings(found.coverage, old, new),
    )


def _ratio(coverage: tuple[float, float]) -> float:
    return min(coverage) / max(*coverage, 1e-12)


def _warnings(coverage: tuple[float, float], old: str, new: str) -> tuple[str, ...]:
    """Whether the map sees one time much better than the other."""
    if _ratio(coverage) >= _LOWER_COVERAGE:
        return ()
    unseen = new if coverage[1] < coverage[0] else old
    unlisted = "No group is listed, as that is most of the difference. " * (_ratio(coverage) < _COMPARABLE)
    return (
        f"coverage is {min(coverage):.2f} in run {unseen} and {max(coverage):.2f} in the other: rows of it"
        f" lie far from every landmark, where the map sees nothing. {unlisted}Fit the maps on them: compare"
        " the rows of that run without --maps-from, and then those of the other one with its maps.",
    )


def _position(state: CovarianceAccumulator, run: ComparisonRecord | ModelsRecord, column: str) -> int:
    known = [m.column for m in state.maps]
    if column not in known:
        raise InputError(f"Run {run.run_id} has no embedding {column!r}; it compared {', '.join(known)}.")
    return known.index(column)


def _groups(
    found: Drift, samples: list[Sample], features: list[np.ndarray[Any, Any]]
) -> tuple[ChangedGroup, ...]:
    groups = []
    for end, sample, phi in ((0, samples[1], features[1]), (1, samples[0], features[0])):
        own = [c for c in found.changes if c.end == end]
        names = _names(own, sample)
        for change, name in zip(own, names, strict=True):
            order = np.argsort(-(phi @ change.centre), kind="stable")[:_TYPICAL]
            keys = sample.keys.take(pa.array(order[change.members[order]]))
            groups.append(
                ChangedGroup(
                    kind="more" if end == 0 else "fewer",
                    share_old=change.shares[0],
                    share_new=change.shares[1],
                    interval_old=change.intervals[0],
                    interval_new=change.intervals[1],
                    name=name or None,
                    typical=tuple(str(key) for key in keys.to_pylist()),
                )
            )
    return tuple(sorted(groups, key=lambda g: -abs(g.share_new - g.share_old)))


def _names(changes: list[Change], sample: Sample) -> list[str]:
    """What is over-represented among the sampled rows of each group."""
    others = sample.others
    names = list(candidates(others.schema)[0])
    if not changes or not names:
        return [""] * len(changes)
    described = others.select(names)
    describer = Describer(described.schema, described.slice(0, 10_000), range(len(changes)))
    members = np.stack([c.members for c in changes], axis=1)
    lists = pa.array([np.flatnonzero(row).tolist() for row in members], pa.list_(pa.int32()))
    describer.update(described.combine_chunks().to_batches()[0], lists)
    return [d.name for d in describer.result()]
