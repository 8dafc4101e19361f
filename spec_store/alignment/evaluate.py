"""Before and after, on rows that no map was fitted on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .metrics import cosines, difference_eigenvalues, nearest, neighbour_overlap, ranks

__all__ = ["ClusterEvaluation", "Evaluation", "Evaluator"]

_NEIGHBOURS = 10
_SHOWN = 5
_TOLERATED = 1.05
_LEAD = 2.0  # without twice the source's strength in the target there is no gap to speak of
_RECOVERED = 0.25


@dataclass(frozen=True)
class ClusterEvaluation:
    """One SPEC cluster's test rows.

    Attributes
    ----------
    cluster, n_rows
        Its number, and its rows among those evaluated.
    held
        How strongly the source, the target and the map's output group it: the Rayleigh
        quotient of its centred indicator under each cosine kernel.
    recovered
        Share of the gap closed between the source and the target: 1 is all of it, NaN where the target does
        not group the cluster more strongly.
    recall_1, recall_10, overlap_source, overlap_target, cosine_source, cosine_target
        As in `Evaluation`, over these rows.
    """

    cluster: int
    n_rows: int
    held: tuple[float, float, float]
    recovered: float
    recall_1: float
    recall_10: float
    overlap_source: float
    overlap_target: float
    cosine_source: float
    cosine_target: float

    @property
    def lost(self) -> bool:
        """Whether the target groups the cluster, and the output does not."""
        return self.recovered < _RECOVERED


@dataclass(frozen=True)
class Evaluation:
    """How a map does on test rows.

    Attributes
    ----------
    name
        Of the map; "none" for the source as it is.
    spec_diff
        Of its output against the target, cosine kernel, uncentred; exact on the rows evaluated.
    distance
        Between the two cosine kernels, |K - K'|_F / n: the root of the sum of all squared eigenvalues.
    eigenvalues
        The leading eigenvalues at the output's end, and at the target's.
    recall_1, recall_10
        The share of rows whose own target is the nearest, or among the 10 nearest, of all targets evaluated;
        NaN outside the target's space.
    overlap_source, overlap_target
        The share of a row's 10 nearest neighbours that it has in the source's space, and in the
        target's.
    cosine_source, cosine_target
        Mean cosine to the source's, and to the target's vectors; NaN where widths differ.
    clusters
        The same per SPEC cluster.
    """

    name: str
    spec_diff: float
    distance: float
    eigenvalues: tuple[Sequence[float], Sequence[float]]
    recall_1: float
    recall_10: float
    overlap_source: float
    overlap_target: float
    cosine_source: float
    cosine_target: float
    clusters: tuple[ClusterEvaluation, ...] = ()

    def better_than(self, other: Evaluation) -> bool:
        """Whether SPEC-diff or the distance is smaller, and neither is more than 5% larger.

        One cluster that no map can recover sets SPEC-diff, whatever a map does for all others.
        """
        pairs = ((self.spec_diff, other.spec_diff), (self.distance, other.distance))
        return any(a < b for a, b in pairs) and all(a <= _TOLERATED * b for a, b in pairs)

    def to_json(self) -> dict[str, Any]:
        """Plain values; NaN becomes None."""
        plain: dict[str, Any] = _plain(asdict(self))
        for row, cluster in zip(plain["clusters"], self.clusters, strict=True):
            row["lost"] = cluster.lost
        return plain


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and value != value else value


@dataclass
class Evaluator:
    """Evaluates outputs on the same test rows.

    Parameters
    ----------
    a, b
        Unit rows of source (n, d_a) and target (n, d_b).
    members
        By cluster, which rows are its members, shape (n,).
    to_target
        Whether outputs are to lie in the target's space.
    """

    a: NDArray[np.float32]
    b: NDArray[np.float32]
    members: Mapping[int, NDArray[np.bool_]]
    to_target: bool
    _near: tuple[NDArray[np.intp], NDArray[np.intp]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._near = nearest(self.a, _NEIGHBOURS), nearest(self.b, _NEIGHBOURS)

    def before(self) -> Evaluation:
        """The source as it is."""
        return self._evaluated("none", self.a, in_target=False)

    def after(self, name: str, f: NDArray[np.float32]) -> Evaluation:
        """A map's output, unit rows (n, d)."""
        return self._evaluated(name, f, in_target=self.to_target)

    def _evaluated(self, name: str, f: NDArray[np.float32], *, in_target: bool) -> Evaluation:
        near = nearest(f, _NEIGHBOURS)
        rows = _RowFigures(
            rank=ranks(f, self.b) if in_target else None,
            overlap_source=neighbour_overlap(near, self._near[0]),
            overlap_target=neighbour_overlap(near, self._near[1]),
            cosine_source=None if in_target else cosines(f, self.a),
            cosine_target=cosines(f, self.b) if in_target else None,
        )
        finite = np.isfinite(f).all(axis=1, keepdims=True)
        f = np.where(finite, f, np.float32(0))  # a row that is not finite is similar to nothing
        values = difference_eigenvalues(f, self.b)
        ends = values[::-1][:_SHOWN], values[:_SHOWN]
        return Evaluation(
            name=name,
            spec_diff=float(np.abs(values).max()),
            distance=float(np.sqrt((values**2).sum())),
            eigenvalues=([float(v) for v in ends[0] if v > 0], [float(v) for v in ends[1] if v < 0]),
            **rows.means(slice(None)),
            clusters=tuple(self._cluster(j, members, f, rows) for j, members in self.members.items()),
        )

    def _cluster(
        self, number: int, members: NDArray[np.bool_], f: NDArray[np.float32], rows: _RowFigures
    ) -> ClusterEvaluation:
        held = _held(self.a, members), _held(self.b, members), _held(f, members)
        gap = held[1] - held[0]
        return ClusterEvaluation(
            cluster=number,
            n_rows=int(members.sum()),
            held=held,
            recovered=(held[2] - held[0]) / gap if held[1] > _LEAD * held[0] else float("nan"),
            **rows.means(members),
        )


@dataclass(frozen=True)
class _RowFigures:
    """What is known of each row, shape (n,); None where it has no meaning."""

    rank: NDArray[np.float64] | None
    overlap_source: NDArray[np.float64]
    overlap_target: NDArray[np.float64]
    cosine_source: NDArray[np.float64] | None
    cosine_target: NDArray[np.float64] | None

    def means(self, rows: slice | NDArray[np.bool_]) -> dict[str, float]:
        """Over some rows, the fields that `Evaluation` and `ClusterEvaluation` have in common."""
        return {
            "recall_1": _mean(None if self.rank is None else self.rank < 1, rows),
            "recall_10": _mean(None if self.rank is None else self.rank < 10, rows),
            "overlap_source": _mean(self.overlap_source, rows),
            "overlap_target": _mean(self.overlap_target, rows),
            "cosine_source": _mean(self.cosine_source, rows),
            "cosine_target": _mean(self.cosine_target, rows),
        }


def _mean(values: NDArray[Any] | None, rows: slice | NDArray[np.bool_]) -> float:
    return float("nan") if values is None or not len(values[rows]) else float(values[rows].mean())


def _held(x: NDArray[np.float32], rows: NDArray[np.bool_]) -> float:
    """uᵀ (X Xᵀ/n) u for the unit vector u along the rows' centred indicator."""
    u = rows - rows.mean()
    size = float(u @ u)
    return float(((u @ x) ** 2).sum()) / (size * len(x)) if size else float("nan")
