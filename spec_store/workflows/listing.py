"""The clusters of a solved comparison: found on its sample, numbered after those of the run before, and
recorded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ..connector import Source, is_own_result
from ..describe import Describer, candidates
from ..runs.clusters import ClusterRecord, RejectedRecord
from ..runs.records import ComparisonRecord
from ..spectral.candidates import SampledRows
from ..spectral.clusters import Cluster, Found, Recorded, find_clusters
from ..spectral.views import OtherView, views_of_others
from .annotated import held_comparisons

__all__ = [
    "Described",
    "Earlier",
    "Listing",
    "described_columns",
    "earlier_run",
    "list_clusters",
    "members_in_columns",
]

# Rows of the sample that decide how a column is described.
_DESCRIBED_ROWS = 10_000


@dataclass(frozen=True)
class Earlier:
    """The run whose results the columns about to be replaced hold; or none.

    Attributes
    ----------
    columns
        The one that names each row's clusters, to be read with the sample.
    """

    run: ComparisonRecord | None
    columns: tuple[str, ...]


def earlier_run(source: Source, pair: tuple[str, str], prefix: str) -> Earlier:
    """The run whose clusters keep their numbers; runs before version 0.2 numbered otherwise."""
    runs = held_comparisons(source, prefix=prefix, columns=pair)
    column = f"{prefix}_clusters"
    if runs and column in source.schema.names and all(c.capture for c in runs[0].clusters):
        return Earlier(runs[0], (column,))
    return Earlier(None, ())


def described_columns(source: Source, embeddings: Sequence[str]) -> tuple[str, ...]:
    """The columns that may be described."""
    return candidates(source.schema, skip=_not_described(source, embeddings))[0]


def _not_described(source: Source, embeddings: Sequence[str]) -> set[str]:
    own = {f.name for f in source.schema if is_own_result(pa.schema([f]))}
    return own | {source.key, *embeddings}


@dataclass(frozen=True)
class Described:
    """What a pass needs to describe clusters.

    Attributes
    ----------
    embeddings
        The columns that are compared.
    sample
        Sampled rows of the columns that may be described.
    """

    source: Source
    embeddings: tuple[str, ...]
    sample: pa.Table
    seed: int

    @classmethod
    def of(cls, source: Source, embeddings: tuple[str, ...], others: pa.Table, seed: int) -> Described:
        """From what was read with the sample, or as much of it as was kept."""
        names = [n for n in described_columns(source, embeddings) if n in others.column_names]
        return cls(source, embeddings, others.select(names).slice(0, _DESCRIBED_ROWS), seed)

    def describer(self, numbers: Sequence[int]) -> Describer:
        """Counts for one pass."""
        known = set(self.sample.column_names)
        lost = [n for n in described_columns(self.source, self.embeddings) if n not in known]
        skip = _not_described(self.source, self.embeddings) | set(lost)
        return Describer(self.source.schema, self.sample, numbers, skip=skip, seed=self.seed)


@dataclass(frozen=True)
class Listing:
    """What a comparison lists.

    Attributes
    ----------
    clusters
        By size times gap, the largest first.
    fields
        Those of the run's record.
    """

    clusters: tuple[Cluster, ...]
    fields: dict[str, Any]


def list_clusters(
    rows: SampledRows,
    recorded: Sequence[Recorded],
    run: ComparisonRecord | None,
    pair: tuple[str, str],
    prefix: str,
    *,
    eta: float,
    seed: int,
    threads: int,
) -> Listing:
    """Find the clusters, and record what they claim, what was rejected, and what changed.

    Parameters
    ----------
    rows
        The first rows of the sample.
    recorded
        The clusters of the run before, by their members among all sampled rows.
    run
        That run, whose numbers are kept; None for none.
    """
    recorded = [Recorded(r.number, r.end, r.members[: len(rows)]) for r in recorded]
    first = run.next_number if run else 1
    found = find_clusters(rows, seed=seed, recorded=recorded, first_number=first, threads=threads)
    clusters = found.clusters
    views = views_of_others(rows, clusters, seed=seed, threads=threads)
    numbers = {c.number for c in clusters}
    changes = None
    if run:
        before = {c.cluster for c in run.clusters}
        kept = {"kept": before & numbers, "new": numbers - before, "gone": before - numbers}
        changes = {name: sorted(which) for name, which in kept.items()}
    return Listing(
        clusters,
        {
            "clusters": tuple(_record(c, views[c.number], pair, prefix, eta) for c in clusters),
            "rejected": tuple(_rejected(found, pair)),
            "mismatch": {
                column: {"mass": end.mass, "rows": end.covered}
                for column, end in zip(pair, found.ends, strict=True)
            },
            "average_pair": dict(zip(pair, found.average_pair, strict=True)),
            "n_candidates": sum(end.n_candidates for end in found.ends),
            "rejections": dict(sum((Counter(end.rejections) for end in found.ends), Counter())),
            "next_number": max([first, *(n + 1 for n in numbers)]),
            "changes": changes,
        },
    )


def members_in_columns(others: pa.Table, earlier: Earlier, pair: tuple[str, str]) -> list[Recorded]:
    """The earlier run's clusters, by their members among the sampled rows as its result columns tell."""
    if earlier.run is None or not earlier.columns:
        return []
    n_rows = len(others)
    lists = others.column(earlier.columns[0]).combine_chunks()
    of_row = np.repeat(np.arange(n_rows), lists.value_lengths().fill_null(0).to_numpy())
    numbers = lists.flatten().to_numpy()
    found = []
    for c in earlier.run.clusters:
        members = np.zeros(n_rows, bool)
        members[of_row[numbers == c.cluster]] = True
        found.append(Recorded(c.cluster, pair.index(c.side), members))
    return found


def _record(c: Cluster, view: OtherView, pair: tuple[str, str], prefix: str, eta: float) -> ClusterRecord:
    def by_column(values: Sequence[Any]) -> dict[str, Any]:
        return dict(zip(pair, values, strict=True))

    return ClusterRecord(
        cluster=c.number,
        side=pair[c.end],
        strength=abs(c.energy[0] - eta * c.energy[1]),
        energy=by_column(c.energy),
        where=f"array_has({prefix}_clusters, {c.number})",
        capture=by_column(c.capture),
        gap=c.gap,
        contrast=by_column(c.contrast),
        cohesion=by_column(c.cohesion),
        intervals={
            "capture": by_column([list(i) for i in c.capture_interval]),
            "contrast": by_column([list(i) for i in c.contrast_interval]),
            "gap": list(c.gap_interval),
        },
        stability=c.stability,
        seen_by_other={
            "kind": view.kind,
            "clusters": [{"cluster": number, "share": share} for number, share in view.merged_with],
            "others": view.others,
            "purity": view.purity,
        },
        family=view.family,
        share=c.share,
    )


def _rejected(found: Found, pair: tuple[str, str]) -> list[RejectedRecord]:
    return [
        RejectedRecord(
            side=pair[r.end],
            share=r.share,
            capture=dict(zip(pair, r.capture, strict=True)),
            contrast=dict(zip(pair, r.contrast, strict=True)),
            gap=r.gap,
            reason=r.reason,
        )
        for end in found.ends
        for r in end.rejected
    ]
