"""A source that does everything as another one does: what views and joins have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..connector import Annotation, Difference, Freshness, Partition, Published, Source, Workspace

__all__ = ["DelegatingSource"]


class DelegatingSource(Source):
    """Passes every call on to `source`; subclasses override what is different for them.

    Nothing is inherited from `Source` itself, so that a method added there can't be missed in silence.

    Attributes
    ----------
    source
        The source that answers.
    derived
        Names of attributes that are computed when they are needed, and so are not pickled.
    """

    derived: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, source: Source) -> None:
        self.source = source
        for attribute in Source.__annotations__:
            setattr(self, attribute, getattr(source, attribute))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in self.derived}

    @property
    def notes(self) -> tuple[str, ...]:
        return self.source.notes

    @property
    def fingerprint(self) -> str:
        return self.source.fingerprint

    @property
    def random_access(self) -> bool:
        return self.source.random_access

    @property
    def workspace(self) -> Workspace | None:
        return self.source.workspace

    def count(self, where: str | None = None) -> int:
        return self.source.count(where)

    def batches(
        self,
        columns: Sequence[str],
        *,
        where: str | None = None,
        partition: Partition | None = None,
        batch_rows: int = 8192,
    ) -> Iterator[pa.RecordBatch]:
        return self.source.batches(columns, where=where, partition=partition, batch_rows=batch_rows)

    def latest(self) -> Source:
        return self.source.latest()

    def difference(self, version: int, columns: Sequence[str], where: str | None) -> Difference | None:
        return self.source.difference(version, columns, where)

    def freshness(
        self, results: Sequence[str], reads: Sequence[str], where: str | None, *, since: int | None
    ) -> Freshness | None:
        return self.source.freshness(results, reads, where, since=since)

    def leftovers(self, *, remove: bool = False) -> list[str]:
        return self.source.leftovers(remove=remove)

    def at(self, version: int) -> Source:
        return self.source.at(version)

    def partitions(self) -> list[Partition]:
        return self.source.partitions()

    def split(self, partition: Partition, n_rows: int) -> list[Partition]:
        return self.source.split(partition, n_rows)

    def take(self, keys: pa.Array, columns: Sequence[str]) -> pa.Table:
        return self.source.take(keys, columns)

    def sample(self, n: int, *, seed: int, columns: Sequence[str], where: str | None = None) -> pa.Table:
        return self.source.sample(n, seed=seed, columns=columns, where=where)

    def check_annotation(self, schema: pa.Schema) -> None:
        self.source.check_annotation(schema)

    def annotate(self, annotation: Annotation) -> Published:
        return self.source.annotate(annotation)

    def stage(self, annotation: Annotation, part: int, n_parts: int) -> int:
        return self.source.stage(annotation, part, n_parts)

    def undo(self, columns: Sequence[str]) -> None:
        self.source.undo(columns)

    def create_index(self, column: str) -> None:
        self.source.create_index(column)

    def create_vector_index(self, column: str, queries: NDArray[np.float32], *, k: int = 10) -> float:
        return self.source.create_vector_index(column, queries, k=k)

    def search_index(self, column: str, queries: NDArray[np.float32], *, k: int) -> list[pa.Array] | None:
        return self.source.search_index(column, queries, k=k)

    def describe(self) -> str:
        return self.source.describe()
