"""Which columns of a table a report reads: embeddings, an aligned one, the key, what is counted and shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from ..connector import Source, find_field, is_own_result
from ..describe import candidates
from ..errors import ColumnNotFoundError
from ..reporting.data import AlignedColumn
from ..reporting.shares import is_scalar
from ..runs.records import ComparisonRecord
from ..stores.filters import quoted
from .annotated import held_alignments

__all__ = ["ReportColumns"]

_SHOWN_BY_DEFAULT = 4
_MOST_COUNTED = 24


@dataclass(frozen=True)
class ReportColumns:
    """Columns by their use.

    Attributes
    ----------
    embeddings
        Those of the two compared that the table holds; the others are of other stores.
    aligned
        The newest aligned column of the same two embeddings; None where there is none, or it is null in rows
        that were compared.
    key
        The key of the comparison; None where it had none.
    counted
        Scalar columns, whose values are counted in each cluster.
    shown
        Those whose values are shown.
    """

    embeddings: tuple[str, ...]
    aligned: AlignedColumn | None
    key: str | None
    counted: tuple[str, ...]
    shown: tuple[str, ...]

    @classmethod
    def of(cls, source: Source, run: ComparisonRecord, show: Sequence[str]) -> ReportColumns:
        """The columns of a table that holds a run's results.

        Parameters
        ----------
        show
            Those to be shown; none is the first that may hold pictures, and the first scalar ones.

        Raises
        ------
        ColumnNotFoundError
            One of `show` is not there.
        """
        for name in show:
            find_field(source, name)
        named = run.options.get("key")
        key = named if named in source.schema.names else None
        counted = tuple(c for c in _scalars(source, run) if c != key)
        pictures = [f.name for f in source.schema if _may_be_picture(f.type)]
        return cls(
            embeddings=tuple(c for c in run.columns if _is_held(source, c)),
            aligned=_aligned(source, run),
            key=key,
            counted=counted[:_MOST_COUNTED],
            shown=tuple(dict.fromkeys(show)) or (*pictures[:1], *counted)[:_SHOWN_BY_DEFAULT],
        )

    @property
    def vectors(self) -> tuple[str, ...]:
        """Embeddings, then the aligned column."""
        return (*self.embeddings, *([self.aligned.name] if self.aligned else []))

    def bandwidths(self, run: ComparisonRecord) -> dict[str, float | None]:
        """Of the kernel of each vector column: an aligned column has that of the space that it is in."""
        found = dict(run.bandwidth)
        if self.aligned is not None:
            found[self.aligned.name] = run.bandwidth[self.aligned.space]
        return found


def _is_held(source: Source, column: str) -> bool:
    try:
        find_field(source, column)
    except ColumnNotFoundError:  # of another store, which was joined by a key
        return False
    return True


def _aligned(source: Source, run: ComparisonRecord) -> AlignedColumn | None:
    for record in held_alignments(source):
        if set(record.columns) == set(run.columns) and record.prefix in source.schema.names:
            holes = f"{quoted(record.prefix)} IS NULL AND {quoted(f'{run.prefix}_scores')} IS NOT NULL"
            if source.count(holes):
                return None
            return AlignedColumn(record, record.columns[0] if record.in_place else record.columns[1])
    return None


def _scalars(source: Source, run: ComparisonRecord) -> list[str]:
    results = {f.name for f in source.schema if is_own_result(pa.schema([f]))}
    names = candidates(source.schema, skip={*results, *run.written, *run.columns, source.key})[0]
    return [name for name in names if is_scalar(source.schema.field(name).type)]


def _may_be_picture(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(kind.field(i).name == "bytes" for i in range(kind.num_fields))
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))
