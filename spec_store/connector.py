"""What a store must offer: the contract between spec-store and its connectors.

A connector turns a store into Arrow record batches and, where the store can be written, puts result
columns back. It knows no mathematics; the mathematics knows no store. Connectors register under the
entry point group ``spec_store.connectors``, see `spec_store.plugins`; ours and anyone's alike.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .errors import (
    ColumnNotFoundError,
    UnsupportedError,
    did_you_mean,
)
from .executor import IN_PROCESS, Executor
from .keys import smallest_hashes

__all__ = [
    "Annotation",
    "Capability",
    "Claim",
    "Connector",
    "Difference",
    "Freshness",
    "Location",
    "Partition",
    "Published",
    "Source",
    "Workspace",
    "find_field",
    "is_own_result",
    "run_of",
    "take_sample",
]


class Capability(str, Enum):
    """What a connector declares that it can do, besides streaming batches."""

    WHERE = "where"  # SQL filters in batches(), count() and sample()
    TAKE = "take"  # random access by key
    VERSIONS = "versions"  # a pinned version does not move while others write
    PARTITIONS = "partitions"  # more than one partition, for several workers
    ANNOTATE = "annotate"  # result columns can be written back to existing rows
    INDEX = "index"  # a scalar index can be built on a result column
    SEARCH = "search"  # a vector index can be built on a result column, and searched
    TABLES = "tables"  # one URI holds several tables, by name
    CREATE = "create"  # a new table or file can be created from batches
    APPEND = "append"  # rows can be appended to a table, or replaced by key: what the run registry needs
    WRAP = "wrap"  # data held in memory can be a source


@dataclass(frozen=True)
class Location:
    """Where a database, a file or an index is, and how to get there.

    Attributes
    ----------
    uri
        A path or URI; tables within it have names of their own.
    connector
        The registered name of the connector that opens it.
    storage_options
        What the store needs to be reached, such as an endpoint and keys; never shown.
    """

    uri: str
    connector: str
    storage_options: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False)

    def __str__(self) -> str:
        return self.uri


@dataclass(frozen=True)
class Partition:
    """A part of a source. The partitions of a source cover each of its rows exactly once.

    Attributes
    ----------
    id
        Names it among the partitions of a source; what `Source.batches` finds it by, in any process.
    n_rows
        Rows that it streams without a filter.
    """

    id: str
    n_rows: int


def _no_progress(rows: int) -> None:
    """Nothing is reported."""


@dataclass(frozen=True)
class Annotation:
    """Result columns to be computed from a source's rows and written back to them.

    Attributes
    ----------
    schema
        The result columns, all nullable. A row that is not annotated holds null in each.
    reads
        The columns that `compute` needs.
    compute
        From a batch (key first, then `reads`) to a batch of `schema` with as many rows, in the same
        order. A pure function: it may be called from several threads, and again for the same rows.
    where
        SQL filter; rows outside it are null in every result column.
    token
        Equal tokens promise equal results for equal rows, so work staged under a token by a run that
        was killed can be reused.
    metadata
        Written to every result column's field metadata; marks the column as spec-store's own.
    column_metadata
        By result column what its field metadata hold beside that, or instead of it.
    since
        A version at which the result columns held what `compute` gives for all of its rows, by an annotation
        of the same token: only what changed since needs to be computed. None computes all.
    batch_rows
        The largest batch handed to `compute`.
    workers
        Threads in which `compute` is to be called, here or by each of the executor's workers.
    progress
        Called here, with the rows that were computed since the last call.
    executor
        Where parts of the source are to be computed and written, if the store can do that in parts.

    An annotation pickles where `compute` does, as `detached`.
    """

    schema: pa.Schema
    reads: tuple[str, ...]
    compute: Callable[[pa.RecordBatch], pa.RecordBatch]
    token: str
    metadata: Mapping[str, str]
    where: str | None = None
    batch_rows: int = 8192
    workers: int = 2
    progress: Callable[[int], None] = field(default=_no_progress, compare=False)
    column_metadata: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    since: int | None = None
    executor: Executor = field(default=IN_PROCESS, compare=False)

    def detached(self, workers: int) -> Annotation:
        """For a worker elsewhere, which computes in that number of threads: with nothing of this process."""
        return replace(self, workers=workers, progress=_no_progress, executor=IN_PROCESS)

    @property
    def marks(self) -> dict[str, dict[str, str]]:
        """By result column, all of its field metadata."""
        return {n: {**self.metadata, **self.column_metadata.get(n, {})} for n in self.schema.names}


@dataclass(frozen=True)
class Published:
    """What `Source.annotate` did: the version that holds the columns, and how it came about.

    `computed_version` is one at which all rows had the results of their values: what `Annotation.since` asks
    for. None where the store has no versions.
    """

    version: int | None
    columns: tuple[str, ...]
    n_rows: int  # physical rows that were written
    attempts: int  # commits tried, 1 where no other writer interfered
    notes: tuple[str, ...] = ()
    computed_version: int | None = None


@dataclass(frozen=True)
class Difference:
    """How the rows of a source differ from those of an earlier version: nothing is lost or counted twice.

    Attributes
    ----------
    removed
        Rows of the earlier version that are there no more, or have other values now.
    added
        Rows that came since, or that have other values now. A row of which it can't be known whether it
        changed is in both.
    """

    removed: Source
    added: Source


@dataclass(frozen=True)
class Freshness:
    """Rows, by whether their results are those of their present values.

    Attributes
    ----------
    current
        They are; rows that can't be compared are among them.
    missing
        They hold none: they came since.
    stale
        They hold those of values that they had before they were updated.
    unknown
        They hold results, and nothing tells of which values.
    """

    current: int = 0
    missing: int = 0
    stale: int = 0
    unknown: int = 0

    def plus(self, *, current: int = 0, missing: int = 0, stale: int = 0, unknown: int = 0) -> Freshness:
        """With more rows of each kind."""
        return Freshness(
            self.current + current, self.missing + missing, self.stale + stale, self.unknown + unknown
        )


class Claim(ABC):
    """A name in a workspace that is one living run's; it ends with the process that has it."""

    @abstractmethod
    def release(self) -> None:
        """Give it up."""


class Workspace(ABC):
    """Named bytes beside a table, for what a run must find again after it was killed.

    They are no part of the table: no reader sees them, and the place is gone when it is empty. Names are
    letters, digits and hyphens, and may have an ending behind a dot. A name without its ending can be
    claimed: what is kept under it belongs to one run then, for as long as that lives.

    Attributes
    ----------
    bytes_per_second
        A cautious guess of how fast it is written.
    """

    bytes_per_second: ClassVar[float] = 5e7

    @abstractmethod
    def put(self, name: str, data: bytes) -> None:
        """Keep bytes under a name, atomically; what it held is replaced. Raises OSError."""

    @abstractmethod
    def get(self, name: str) -> bytes | None:
        """What is kept under a name; None for nothing. Raises OSError."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Nothing is done where nothing is kept. Raises OSError."""

    @abstractmethod
    def ages(self) -> dict[str, float]:
        """By name, the seconds since it was put or claimed. Raises OSError."""

    @abstractmethod
    def claim(self, name: str) -> Claim | None:
        """A claim on a name; None where another living run has it. Raises OSError.

        A claim says nothing of what is kept under the name, which may be nothing.
        """


class Source(ABC):
    """A pinned, read-only view of one table, index or file, with its write-back where there is one.

    Attributes
    ----------
    uri, table
        Where it was opened. `table` is None for stores without tables.
    version
        The pinned version, None where the store has none.
    schema
        Arrow schema of all readable columns, the key not included.
    key
        Name of the key column that leads every batch. Keys identify rows within `version`.
    location
        The database in which runs on this source are recorded; None where there is none beside it.
    portable_key
        Whether keys mean the same outside this source and version, as a FAISS index's ids do, so that
        rows of other stores may be matched with them.
    """

    uri: str
    table: str | None
    version: int | None
    schema: pa.Schema
    key: str
    location: Location | None = None
    portable_key: bool = False

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know before relying on this source's vectors or coverage."""
        return ()

    @property
    def fingerprint(self) -> str:
        """Equal for views of the same rows: a pinned version, or a file that has not changed."""
        return f"{self.uri}|{self.table}|{self.version}"

    @property
    def random_access(self) -> bool:
        """Whether `take` works."""
        return type(self).take is not Source.take

    @property
    def workspace(self) -> Workspace | None:
        """A place beside the table for what runs on it must find again; None where there is none."""
        return None

    @abstractmethod
    def count(self, where: str | None = None) -> int:
        """Rows in the pinned version, or those that match `where`.

        A filter is one boolean expression of SQL: a connector puts
        `spec_store.stores.filters.parenthesized(where)` into its query, so that text after the expression is
        refused and not ignored. Raises FilterError.
        """

    @abstractmethod
    def batches(
        self,
        columns: Sequence[str],
        *,
        where: str | None = None,
        partition: Partition | None = None,
        batch_rows: int = 8192,
    ) -> Iterator[pa.RecordBatch]:
        """Stream the key and `columns`, in that order, nulls kept, in the store's own fixed order.

        Batches hold at most `batch_rows` rows; memory does not grow with the table. No columns at
        all streams the keys. Raises ColumnNotFoundError, FilterError.
        """

    def latest(self) -> Source:
        """The same table as it stands now; this source, where the store has no versions."""
        return self

    def difference(self, version: int, columns: Sequence[str], where: str | None) -> Difference | None:
        """How these rows differ from those of an earlier version, as far as the columns and a filter go.

        Parameters
        ----------
        columns
            Rows that differ in others alone are the same.
        where
            Only rows that match it in their own version.

        Returns
        -------
        None where the store has no versions, or that one is no longer held.
        """
        return None

    def freshness(
        self, results: Sequence[str], reads: Sequence[str], where: str | None, *, since: int | None
    ) -> Freshness | None:
        """How many rows have results of their present values; reads no vectors.

        Parameters
        ----------
        results, reads, where
            Result columns, and what they were computed from, as of an `Annotation`.
        since
            A version at which all rows had theirs, see `Published.computed_version`; None where none is
            known.

        Returns
        -------
        None where the store can't tell.
        """
        return None

    def leftovers(self, *, remove: bool = False) -> list[str]:
        """What killed runs left beside this table, a name for each file; with `remove` they are deleted.

        What a living run works with is not among it.
        """
        return []

    def at(self, version: int) -> Source:
        """The same table at another version. Raises InputError where that is gone."""
        raise UnsupportedError(f"{self.describe()} has no versions.")

    def partitions(self) -> list[Partition]:
        """Parts that together cover each row exactly once; one part unless the store has more.

        Streamed one after the other they give the rows in the order of the whole stream. Several workers
        share them out among themselves: some ten thousand rows each are best.
        """
        return [Partition("all", self.count())]

    def split(self, partition: Partition, n_rows: int) -> list[Partition]:
        """Parts of a partition of at most `n_rows` rows each, which `batches` reads without reading the rest.

        The partition itself where the store has none smaller.
        """
        return [partition]

    def take(self, keys: pa.Array, columns: Sequence[str]) -> pa.Table:
        """Rows by key, in the order of `keys`: the key, then `columns`. Safe to call from threads.

        Raises InputError for keys that are not there.
        """
        raise UnsupportedError(f"{self.describe()} has no random access by key.")

    def sample(self, n: int, *, seed: int, columns: Sequence[str], where: str | None = None) -> pa.Table:
        """At most `n` rows, a uniform sample that is a function of the rows' keys and the seed.

        The rows with the `n` smallest hashes of (seed, key), in the order of the hashes: independent of
        batch sizes and of where the rows lie, and rows that stay sampled stay comparable while the table
        grows. Reads the keys once, then only the sampled rows where the store has random access.
        """
        keys = (
            (batch.column(0), batch.column(0)) for batch in self.batches([], where=where, batch_rows=1 << 16)
        )
        return take_sample(self, *smallest_hashes(keys, n, seed), columns, where)

    def check_annotation(self, schema: pa.Schema) -> None:
        """Refuse, before any work, result columns that `annotate` could not write.

        Raises ColumnClashError where another owner's column has the name, UnsupportedError where the
        store can't be written at all.
        """
        raise UnsupportedError(
            f"{self.describe()} can't hold result columns. Give --db and --table (or --out) to write"
            " the results, keyed by row, elsewhere."
        )

    def annotate(self, annotation: Annotation) -> Published:
        """Compute the result columns for every row and publish them in one atomic step.

        Until the publishing step nothing that a reader can see changes; other writers are never
        blocked and never lose a row. Raises RetryError when they keep winning.
        """
        raise UnsupportedError(f"{self.describe()} can't be annotated.")

    def stage(self, annotation: Annotation, part: int, n_parts: int) -> int:
        """Compute one of `n_parts` shares of the result columns, and keep it beside the table.

        An `annotate` of an equal annotation, in whatever process, publishes what is kept and computes the
        rest. Several processes may stage at the same time, and a share may be staged again. What is kept is a
        leftover until then: another annotation of the table removes it.

        Parameters
        ----------
        part
            From 0; which rows it has is a function of the table and `n_parts` alone.

        Returns
        -------
        Rows that were computed.
        """
        raise UnsupportedError(f"{self.describe()} can't be annotated in parts.")

    def undo(self, columns: Sequence[str]) -> None:
        """Remove result columns that spec-store wrote; anyone else's are refused."""
        raise UnsupportedError(f"{self.describe()} can't be annotated, so there is nothing to undo.")

    def create_index(self, column: str) -> None:
        """Build, or rebuild, a scalar index fit for equality filters on a result column."""
        raise UnsupportedError(f"{self.describe()} has no scalar indices.")

    def create_vector_index(self, column: str, queries: NDArray[np.float32], *, k: int = 10) -> float:
        """Build, or rebuild, an index for cosine search on a result column.

        Returns the index's recall@k: the share of the exact `k` nearest rows of the queries, shape (n, d),
        that it finds as it is searched by default.
        """
        raise UnsupportedError(f"{self.describe()} has no vector indices.")

    def search_index(self, column: str, queries: NDArray[np.float32], *, k: int) -> list[pa.Array] | None:
        """Search a column through its vector index, as it is searched by default.

        Returns, for each query, shape (n, d), the keys of at most `k` rows, nearest first; None where the
        column has no such index.
        """
        return None

    def describe(self) -> str:
        """How messages name this source."""
        return f"table {self.table!r} in {self.uri}" if self.table else str(self.uri)


class Connector(ABC):
    """Opens sources of one kind. `name` is the prefix in ``--cols dino=faiss:dino.index``."""

    name: ClassVar[str]
    capabilities: ClassVar[frozenset[Capability]] = frozenset()

    @abstractmethod
    def open(
        self,
        uri: str,
        *,
        table: str | None = None,
        version: int | None = None,
        options: Mapping[str, str] | None = None,
    ) -> Source:
        """Open and pin a source. Raises TableNotFoundError, UnsupportedError."""

    def recognizes(self, data: Any) -> bool:
        """Whether `wrap` or `location_of` is for objects of this type, as open tables and connections are.

        Asked only for types of a module whose name and the connector's begin alike, see
        `spec_store.plugins.connector_for`.
        """
        return False

    def wrap(self, data: Any) -> Source:
        """A source over data in memory, or over an open table. Raises UnsupportedError."""
        raise UnsupportedError(f"The {self.name!r} connector can't read data in memory.")

    def location_of(self, connection: Any) -> Location:
        """Where an open connection to a database leads. Raises InputError, UnsupportedError."""
        raise UnsupportedError(f"The {self.name!r} connector has no connections to databases.")

    def check_create(
        self,
        uri: str,
        table: str | None,
        schema: pa.Schema,
        *,
        options: Mapping[str, str] | None = None,
    ) -> None:
        """Refuse, before any work, what `create` would refuse."""
        raise UnsupportedError(f"The {self.name!r} connector can't create tables.")

    def create(
        self,
        uri: str,
        table: str | None,
        schema: pa.Schema,
        batches: Iterator[pa.RecordBatch],
        *,
        options: Mapping[str, str] | None = None,
    ) -> None:
        """Create a table (or file) from batches, atomically.

        An earlier one is replaced if all of it is spec-store's own result, see `is_own_result`; anything
        else of that name is refused with an InputError.
        """
        raise UnsupportedError(f"The {self.name!r} connector can't create tables.")

    def append(
        self,
        uri: str,
        table: str,
        rows: pa.Table,
        *,
        key: str | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        """Append rows to a table in one atomic step; creates the table if there is none.

        Columns that the table lacks are added to it, null in its earlier rows. With a `key`, a string column
        unique in `rows`, a row whose key the table holds takes that row's place.
        """
        raise UnsupportedError(f"The {self.name!r} connector can't append to tables.")


def is_own_result(schema: pa.Schema) -> bool:
    """Whether every column's field metadata says that spec-store wrote it."""
    return all(run_of(f) is not None for f in schema)


def run_of(field: pa.Field) -> str | None:
    """The id of the run that wrote a column, as its field metadata has it; None for columns of others."""
    mark = (field.metadata or {}).get(b"spec_store.run")
    return None if mark is None else mark.decode()


def take_sample(
    source: Source, keys: pa.Array, positions: NDArray[np.int64], columns: Sequence[str], where: str | None
) -> pa.Table:
    """The rows that `smallest_hashes` chose, by random access or, where there is none, from the stream."""
    if source.random_access:
        return source.take(keys, columns)
    order = np.argsort(positions)
    picked, start = [], 0
    for batch in source.batches(columns, where=where):
        lo, hi = np.searchsorted(positions[order], [start, start + len(batch)])
        picked.append(batch.take(pa.array(positions[order][lo:hi] - start)))
        start += len(batch)
    return pa.Table.from_batches(picked).take(pa.array(np.argsort(order)))


def find_field(source: Source, column: str) -> pa.Field:
    """The schema field of a column, nested ones by dotted path. Raises ColumnNotFoundError."""
    found: pa.Field | None = None
    within: Mapping[str, pa.Field] = {f.name: f for f in source.schema}
    if column in within:
        return within[column]
    for name in column.split("."):
        if name not in within:
            raise ColumnNotFoundError(
                f"No column {column!r} in {source.describe()}. {did_you_mean(column, _paths(source.schema))}"
            )
        found = within[name]
        within = {f.name: f for f in found.type} if pa.types.is_struct(found.type) else {}
    assert found is not None
    return found


def _paths(fields: Iterable[pa.Field], above: str = "") -> list[str]:
    """Dotted paths of all columns, nested ones included."""
    paths = []
    for f in fields:
        paths.append(above + f.name)
        if pa.types.is_struct(f.type):
            paths += _paths(f.type, f"{above}{f.name}.")
    return paths
