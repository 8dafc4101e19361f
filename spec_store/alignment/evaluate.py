"""Before and after, on rows that no map was fitted on."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..spectral.choose import mismatch_mass
from ..spectral.judge import Figures, judge_halves
from ..spectral.similarity import by_features
from .metrics import (
    bootstrap_interval,
    cosines,
    difference_eigenvalues,
    nearest,
    neighbour_overlap,
    ranks,
)

__all__ = ["ClusterEvaluation", "Evaluation", "Evaluator"]

_NEIGHBOURS = 10
_SHOWN = 5
_TOLERATED = 1.05
# Without this gap of captures between target and source there is nothing to recover.
_LEAST_GAP = 0.1
_RECOVERED, _HALF = 0.25, 0.5


@dataclass(frozen=True)
class ClusterEvaluation:
    """One SPEC cluster's test rows.

    Attributes
    ----------
    cluster, n_rows
        Its number, and its rows among those evaluated.
    of_target
        Whether the target groups it; otherwise the source does.
    capture, contrast
        In the source, the target and the map's output, see `spec_store.spectral.judge`: of the rows
        nearest to the cluster, as many as it has members, the share that are members; and how far it
        stands apart. NaN for too few rows.
    recovered
        Share of the gap in capture between the source and the target that the output closes: 1 is all of it,
        NaN where the target does not capture the cluster better than the source.
    search_10, recall_1, recall_10, cosine_source, cosine_target
        As in `Evaluation`, over these rows.
    """

    cluster: int
    n_rows: int
    of_target: bool
    capture: tuple[float, float, float]
    contrast: tuple[float, float, float]
    recovered: float
    search_10: float
    recall_1: float
    recall_10: float
    cosine_source: float
    cosine_target: float

    @property
    def lost(self) -> bool:
        """Whether the output captures hardly more of it than the source, and not half of what the target
        does."""
        return self.recovered < _RECOVERED and self.capture[2] < _HALF * self.capture[1]


@dataclass(frozen=True)
class Evaluation:
    """How a map does on test rows.

    Attributes
    ----------
    name
        Of the map; "none" for the source as it is.
    search_10, search_interval
        Search overlap: of the 10 nearest target rows to a target query, the share among the 10 nearest
        outputs to the same query, and its 95% interval. Of the source as it is: among the 10 nearest by the
        source's own queries. In place, queries are the source's, and its own 10 nearest are wanted.
    mismatch_mass
        Of the clusters that the target groups: share of rows times gap between the captures in the target
        and in the output. NaN for no clusters.
    spec_diff
        Of its output against the target, cosine kernel, uncentred; exact on the rows evaluated.
    distance
        Between the two cosine kernels, |K - K'|_F / n: the root of the sum of all squared eigenvalues.
    eigenvalues
        The leading eigenvalues at the output's end, and at the target's.
    recall_1, recall_10
        Twin recall: the share of rows whose own target is the nearest, or among the 10 nearest, of all
        targets evaluated; NaN outside the target's space.
    cosine_source, cosine_target
        Mean cosine to the source's, and to the target's vectors; NaN where widths differ.
    clusters
        The same per SPEC cluster.
    """

    name: str
    search_10: float
    search_interval: tuple[float, float]
    mismatch_mass: float
    spec_diff: float
    distance: float
    eigenvalues: tuple[Sequence[float], Sequence[float]]
    recall_1: float
    recall_10: float
    cosine_source: float
    cosine_target: float
    clusters: tuple[ClusterEvaluation, ...] = ()

    def better_than(self, other: Evaluation) -> bool:
        """Whether SPEC-diff or the distance is smaller, and neither is more than 5% larger; and, in the
        target's space, searches find no less, to 5%.

        One cluster that no map can recover sets SPEC-diff, whatever a map does for all others.
        """
        pairs = ((self.spec_diff, other.spec_diff), (self.distance, other.distance))
        nearer = any(a < b for a, b in pairs) and all(a <= _TOLERATED * b for a, b in pairs)
        in_target = self.recall_1 == self.recall_1
        return nearer and (not in_target or _TOLERATED * self.search_10 >= other.search_10)

    def to_json(self) -> dict[str, Any]:
        """Plain values; NaN becomes None."""
        plain: dict[str, Any] = _plain(asdict(self))
        for row, cluster in zip(plain["clusters"], self.clusters, strict=True):
            row["lost"] = cluster.lost
        return plain

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Evaluation:
        """What `to_json` gave."""
        rows = [{k: _restored(v) for k, v in row.items() if k != "lost"} for row in plain["clusters"]]
        own = {name: _restored(value) for name, value in plain.items() if name != "clusters"}
        return cls(**own, clusters=tuple(ClusterEvaluation(**row) for row in rows))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and value != value else value


def _restored(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_restored(v) for v in value)
    return float("nan") if value is None else value


@dataclass
class Evaluator:
    """Evaluates outputs on the same test rows.

    Parameters
    ----------
    a, b
        Unit rows of source (n, d_a) and target (n, d_b).
    members
        By cluster, which rows are its members, shape (n,).
    of_target
        Which clusters the target groups.
    to_target
        Whether outputs are to lie in the target's space.
    """

    a: NDArray[np.float32]
    b: NDArray[np.float32]
    members: Mapping[int, NDArray[np.bool_]]
    of_target: Collection[int]
    to_target: bool
    _near: tuple[NDArray[np.intp], NDArray[np.intp]] = field(init=False, repr=False)
    _in_source: Figures = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._near = nearest(self.a, _NEIGHBOURS), nearest(self.b, _NEIGHBOURS)
        self._in_source = self._judged(self.a)

    def before(self) -> Evaluation:
        """The source as it is."""
        wanted = self._near[1] if self.to_target else self._near[0]
        return self._evaluated("none", self.a, neighbour_overlap(wanted, self._near[0]), in_target=False)

    def after(self, name: str, f: NDArray[np.float32]) -> Evaluation:
        """A map's output, unit rows (n, d)."""
        queries, wanted = (self.b, self._near[1]) if self.to_target else (self.a, self._near[0])
        found = neighbour_overlap(wanted, nearest(queries, _NEIGHBOURS, gallery=f))
        return self._evaluated(name, f, found, in_target=self.to_target)

    def _judged(self, f: NDArray[np.float32]) -> Figures:
        """Capture and contrast in the target, and in the output."""
        members = np.stack([*self.members.values()] or [np.zeros(len(f), bool)], axis=1)
        similarities = by_features(self.b), by_features(f)
        return judge_halves(members, similarities, np.arange(len(f)), np.random.default_rng(0))

    def _evaluated(
        self, name: str, f: NDArray[np.float32], search: NDArray[np.float64], *, in_target: bool
    ) -> Evaluation:
        rows = _RowFigures(
            search=search,
            rank=ranks(f, self.b) if in_target else None,
            cosine_source=None if in_target else cosines(f, self.a),
            cosine_target=cosines(f, self.b) if in_target else None,
        )
        finite = np.isfinite(f).all(axis=1, keepdims=True)
        f = np.where(finite, f, np.float32(0))  # a row that is not finite is similar to nothing
        values = difference_eigenvalues(f, self.b)
        ends = values[::-1][:_SHOWN], values[:_SHOWN]
        figures = self._in_source if name == "none" else self._judged(f)
        return Evaluation(
            name=name,
            search_interval=bootstrap_interval(search),
            mismatch_mass=self._mismatch(figures),
            spec_diff=float(np.abs(values).max()),
            distance=float(np.sqrt((values**2).sum())),
            eigenvalues=([float(v) for v in ends[0] if v > 0], [float(v) for v in ends[1] if v < 0]),
            **rows.means(slice(None)),
            clusters=tuple(self._cluster(i, number, figures, rows) for i, number in enumerate(self.members)),
        )

    def _mismatch(self, figures: Figures) -> float:
        own = [i for i, number in enumerate(self.members) if number in self.of_target]
        if not own:
            return float("nan")
        members = np.stack(list(self.members.values()), axis=1)[:, own]
        return mismatch_mass(members, np.maximum(figures.gap[own], 0))[0]

    def _cluster(self, i: int, number: int, figures: Figures, rows: _RowFigures) -> ClusterEvaluation:
        members = self.members[number]
        source, found = self._in_source, figures
        known = found.n[i] > 0

        def three(name: str) -> tuple[float, float, float]:
            in_source, in_found = getattr(source, name), getattr(found, name)
            values = in_source[1, i], in_found[0, i], in_found[1, i]
            return tuple(float(v) if known else float("nan") for v in values)  # type: ignore[return-value]  # of three

        capture = three("capture")
        gap = capture[1] - capture[0]
        return ClusterEvaluation(
            cluster=number,
            n_rows=int(members.sum()),
            of_target=number in self.of_target,
            capture=capture,
            contrast=three("contrast"),
            recovered=(capture[2] - capture[0]) / gap if gap > _LEAST_GAP else float("nan"),
            **rows.means(members),
        )


@dataclass(frozen=True)
class _RowFigures:
    """What is known of each row, shape (n,); None where it has no meaning."""

    search: NDArray[np.float64]
    rank: NDArray[np.float64] | None
    cosine_source: NDArray[np.float64] | None
    cosine_target: NDArray[np.float64] | None

    def means(self, rows: slice | NDArray[np.bool_]) -> dict[str, float]:
        """Over some rows, the fields that `Evaluation` and `ClusterEvaluation` have in common."""
        return {
            "search_10": _mean(self.search, rows),
            "recall_1": _mean(None if self.rank is None else self.rank < 1, rows),
            "recall_10": _mean(None if self.rank is None else self.rank < 10, rows),
            "cosine_source": _mean(self.cosine_source, rows),
            "cosine_target": _mean(self.cosine_target, rows),
        }


def _mean(values: NDArray[Any] | None, rows: slice | NDArray[np.bool_]) -> float:
    return float("nan") if values is None or not len(values[rows]) else float(values[rows].mean())
