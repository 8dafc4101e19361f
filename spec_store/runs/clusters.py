"""Records of clusters: frozen, plain values; what JSON holds of them, and rows of the table of clusters."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from .values import Intervals, OverRepresented, SeenByOther, WordShare

__all__ = ["ClusterRecord", "RejectedRecord", "json_values"]


def json_values(value: Any) -> Any:
    """Plain values that JSON can hold: what is not finite becomes None, sequences become lists."""
    if isinstance(value, Mapping):
        return {str(k): json_values(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_values(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# Kept in columns of their own in the table of clusters, by column of the two embeddings: name, first, second.
_BY_EMBEDDING = ("energy", "capture", "contrast", "cohesion")
_PLAIN = ("cluster", "side", "strength", "size", "share", "gap", "stability", "name", "top_rows", "where")


@dataclass(frozen=True, kw_only=True)
class ClusterRecord:
    """A cluster as a run found it: every figure beside size and description is of the sample.

    Attributes
    ----------
    cluster
        Its number, which it keeps over re-runs with the same prefix.
    side
        The embedding column that groups it.
    strength
        |Rayleigh quotient| of the cluster's indicator under the kernel difference.
    energy
        By column, the indicator's Rayleigh quotient under that embedding's kernel.
    capture
        By column, of the rows nearest to the cluster, as many as it has members, the share that are members.
    gap
        Capture in the embedding that groups it less that in the other.
    contrast
        By column, the members' mean similarity to the cluster over that of the nearest rows which are not
        members: how far it stands apart.
    cohesion
        By column, the mean kernel of two members; the run's `average_pair` is that of any two rows.
    intervals
        95% intervals: ``gap`` [low, high], ``capture`` and ``contrast`` by column.
    stability
        Share of resamples of the evaluated rows in which it is a cluster still, in [0, 1].
    seen_by_other
        How the other embedding sees it: ``kind`` ("merged", "split", "scattered"), ``clusters`` of
        {cluster, share} among the rows that it ranks nearest instead, ``others``, their share in all, and
        ``purity``, the share of members among the ten nearest of a member.
    family
        The least number among the clusters that the other embedding merges with it; its own for none.
    where
        SQL filter of its members.
    share
        Of the sampled rows, the share that are members.
    size, top_rows
        Members, and keys of the most typical rows, once rows were scored.
    name, over_represented, words
        What it consists of, once rows were described: ``over_represented`` of {column, value, count, share,
        lift, p_value}, ``words`` of {column, word, share, lift}.
    """

    cluster: int
    side: str
    strength: float
    energy: Mapping[str, float]
    where: str
    capture: Mapping[str, float] | None = None
    gap: float | None = None
    contrast: Mapping[str, float] | None = None
    cohesion: Mapping[str, float] | None = None
    intervals: Intervals | None = None
    stability: float | None = None
    seen_by_other: SeenByOther | None = None
    family: int | None = None
    share: float | None = None
    size: int | None = None
    top_rows: tuple[str, ...] | None = None
    name: str | None = None
    over_represented: tuple[OverRepresented, ...] | None = None
    words: tuple[WordShare, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """The object in ``compare --json``; its keys are stable."""
        return {f.name: json_values(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> ClusterRecord:
        """What `to_json` gave, of this version or an earlier one."""
        known = {f.name for f in fields(cls)}
        found: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in given.items() if k in known
        }
        return cls(**found)

    def to_row(self, columns: Sequence[str]) -> dict[str, Any]:
        """A row of the table of clusters, without the run's own fields."""
        row: dict[str, Any] = {name: getattr(self, name) for name in _PLAIN}
        for name in _BY_EMBEDDING:
            by_column = getattr(self, name) or {}
            row |= {f"{name}_{end}": by_column.get(c) for end, c in zip(_ENDS, columns, strict=True)}
        row["seen_by_other"] = None if self.seen_by_other is None else self.seen_by_other["kind"]
        row["details"] = json.dumps(self.to_json(), allow_nan=False)
        return row

    @classmethod
    def from_row(cls, row: Mapping[str, Any], columns: Sequence[str]) -> ClusterRecord:
        """What `to_row` gave; rows of versions before 0.2 have no details."""
        if row.get("details"):
            return cls.from_json(json.loads(row["details"]))
        stability = row["stability"]
        return cls(
            cluster=row["cluster"],
            side=row["side"],
            strength=row["strength"],
            energy=dict(zip(columns, (row["energy_first"], row["energy_second"]), strict=True)),
            stability=None if stability is None or math.isnan(stability) else stability,
            where=row["where"],
            size=row["size"],
            top_rows=None if row["top_rows"] is None else tuple(row["top_rows"]),
        )


_ENDS = ("first", "second")


@dataclass(frozen=True, kw_only=True)
class RejectedRecord:
    """A candidate that was chosen on one part of the sample and not confirmed on another; nothing is written.

    Attributes
    ----------
    side
        The embedding column that would group it.
    share
        Of the sampled rows, the share that are members.
    capture, gap, contrast
        On the rows that were to confirm it, see `ClusterRecord`.
    reason
        What it failed by.
    """

    side: str
    share: float
    capture: Mapping[str, float]
    gap: float
    contrast: Mapping[str, float]
    reason: str

    def to_json(self) -> dict[str, Any]:
        """The object in ``compare --json`` under ``rejected``."""
        return {f.name: json_values(getattr(self, f.name)) for f in fields(self)}
