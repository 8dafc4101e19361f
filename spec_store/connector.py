"""What a store must offer, and how connectors are found.

A connector turns a store into Arrow record batches and, where the store can be written, puts result
columns back. It knows no mathematics; the mathematics knows no store. Connectors register under the
entry point group ``spec_store.connectors``; ours and anyone's alike.
"""

from __future__ import annotations

import hashlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from importlib.metadata import EntryPoint, entry_points
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .errors import (
    ColumnNotFoundError,
    ConnectorError,
    InputError,
    MissingExtraError,
    SpecStoreError,
    UnsupportedError,
    did_you_mean,
)

__all__ = [
    "ENTRY_POINT_GROUP",
    "Annotation",
    "Capability",
    "Connector",
    "InstalledConnector",
    "Partition",
    "Published",
    "Source",
    "find_field",
    "get_connector",
    "hash_keys",
    "installed_connectors",
    "is_own_result",
    "smallest_hashes",
    "take_sample",
]

ENTRY_POINT_GROUP = "spec_store.connectors"


class Capability(str, Enum):
    """What a connector declares that it can do, besides streaming batches."""

    WHERE = "where"  # SQL filters in batches(), count() and sample()
    TAKE = "take"  # random access by key
    VERSIONS = "versions"  # a pinned version does not move while others write
    PARTITIONS = "partitions"  # more than one partition, for several workers
    ANNOTATE = "annotate"  # result columns can be written back to existing rows
    INDEX = "index"  # a scalar index can be built on a result column
    TABLES = "tables"  # one URI holds several tables, told apart by name
    CREATE = "create"  # a new table or file can be created from batches
    APPEND = "append"  # rows can be appended to a table: what the run registry needs
    WRAP = "wrap"  # data held in memory can be a source


@dataclass(frozen=True)
class Partition:
    """A part of a source. The partitions of a source cover each of its rows exactly once."""

    id: str
    n_rows: int


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
    batch_rows
        The largest batch handed to `compute`.
    """

    schema: pa.Schema
    reads: tuple[str, ...]
    compute: Callable[[pa.RecordBatch], pa.RecordBatch]
    token: str
    metadata: Mapping[str, str]
    where: str | None = None
    batch_rows: int = 8192
    progress: Callable[[int], None] = field(default=lambda rows: None, compare=False)


@dataclass(frozen=True)
class Published:
    """What `Source.annotate` did: the version that holds the columns, and how it came about."""

    version: int | None
    columns: tuple[str, ...]
    n_rows: int  # physical rows that were written
    attempts: int  # commits tried, 1 where no other writer interfered
    notes: tuple[str, ...] = ()


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
    connector
        Name of the connector through which runs on this source are recorded at `uri`; None where its
        results can't be kept beside it.
    portable_key
        Whether keys mean the same outside this source and version, as a FAISS index's ids do, so that
        rows of other stores may be matched with them.
    """

    uri: str
    table: str | None
    version: int | None
    schema: pa.Schema
    key: str
    connector: str | None = None
    portable_key: ClassVar[bool] = False

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

    @abstractmethod
    def count(self, where: str | None = None) -> int:
        """Rows in the pinned version, or those that match `where`. Raises FilterError."""

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

    def partitions(self) -> list[Partition]:
        """Parts that together cover each row exactly once; one part unless the store has more."""
        return [Partition("all", self.count())]

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

    def wrap(self, data: Any) -> Source:
        """A source over data in memory. Raises UnsupportedError."""
        raise UnsupportedError(f"The {self.name!r} connector can't read data in memory.")

    def check_create(self, uri: str, table: str | None, schema: pa.Schema) -> None:
        """Refuse, before any work, what `create` would refuse."""
        raise UnsupportedError(f"The {self.name!r} connector can't create tables.")

    def create(
        self, uri: str, table: str | None, schema: pa.Schema, batches: Iterator[pa.RecordBatch]
    ) -> None:
        """Create a table (or file) from batches, whole or not at all.

        An earlier one is replaced if all of it is spec-store's own result, see `is_own_result`; anything
        else of that name is refused with an InputError.
        """
        raise UnsupportedError(f"The {self.name!r} connector can't create tables.")

    def append(self, uri: str, table: str, rows: pa.Table) -> None:
        """Append rows to a table in one atomic step; creates the table if there is none."""
        raise UnsupportedError(f"The {self.name!r} connector can't append to tables.")


def is_own_result(schema: pa.Schema) -> bool:
    """Whether every column's field metadata says that spec-store wrote it."""
    return all(b"spec_store.run" in (f.metadata or {}) for f in schema)


@dataclass(frozen=True)
class InstalledConnector:
    """A row of ``spec-store connectors``; `error` says why it can't be used."""

    name: str
    package: str
    version: str
    capabilities: tuple[str, ...]
    error: str | None = None


def get_connector(name: str) -> Connector:
    """Load the connector registered under `name`; nothing else is imported.

    Raises
    ------
    ConnectorError
        No such name (lists the installed ones), two packages claim it, or its import fails.
    MissingExtraError
        It belongs to an extra of its package that is not installed; holds the install line.
    """
    found = [point for point in entry_points(group=ENTRY_POINT_GROUP) if point.name == name]
    if not found:
        known = {point.name for point in entry_points(group=ENTRY_POINT_GROUP)}
        raise ConnectorError(f"No connector named {name!r} is installed. {did_you_mean(name, known)}")
    packages = sorted({_package(point) for point in found})
    if len(packages) > 1:
        raise ConnectorError(
            f"The connector name {name!r} is claimed by {' and '.join(packages)}: uninstall one of them."
        )
    return _load(found[0])


def installed_connectors() -> list[InstalledConnector]:
    """All registered connectors. One that fails to import is warned of and breaks nothing else."""
    rows = []
    points = sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda p: (p.name, _package(p)))
    claims = {p.name: {_package(q) for q in points if q.name == p.name} for p in points}
    for point in points:
        capabilities: tuple[str, ...] = ()
        error = None
        if len(claims[point.name]) > 1:
            error = f"name claimed by {' and '.join(sorted(claims[point.name]))}"
        else:
            try:
                capabilities = tuple(sorted(c.value for c in _load(point).capabilities))
            except SpecStoreError as failure:
                error = str(failure)
                warnings.warn(error, stacklevel=2)
        rows.append(InstalledConnector(point.name, *_package_version(point), capabilities, error))
    return rows


def _load(point: EntryPoint) -> Connector:
    try:
        connector = point.load()()
    except SpecStoreError:
        raise
    except ModuleNotFoundError as error:
        if not point.extras:
            raise _broken(point, error) from error
        install = f'pip install "{_package(point)}[{",".join(point.extras)}]"'
        raise MissingExtraError(
            f"The connector {point.name!r} needs {error.name}, which is not installed: {install}"
        ) from error
    except Exception as error:
        raise _broken(point, error) from error
    if not isinstance(connector, Connector):
        raise ConnectorError(
            f"The connector {point.name!r} of package {_package(point)} is a {type(connector).__name__},"
            " not a spec_store.connector.Connector."
        )
    return connector


def _broken(point: EntryPoint, error: Exception) -> ConnectorError:
    return ConnectorError(
        f"The connector {point.name!r} of package {_package(point)} can't be loaded:"
        f" {type(error).__name__}: {error}"
    )


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist else point.value


def _package_version(point: EntryPoint) -> tuple[str, str]:
    return (point.dist.name, point.dist.version) if point.dist else (point.value, "")


def hash_keys(keys: pa.Array, seed: int = 0) -> NDArray[np.uint64]:
    """A 64-bit hash per row key: the same on every machine, whatever the batch.

    Parameters
    ----------
    keys
        Integers, strings or binary, without nulls.
    seed
        Any integer; different seeds give independent hashes.

    References
    ----------
    splitmix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
    """
    if keys.null_count:
        raise InputError(f"{keys.null_count} row keys are null: every row needs a key.")
    if pa.types.is_integer(keys.type):
        x = keys.cast(pa.int64(), safe=False).to_numpy(zero_copy_only=False).view(np.uint64)
    elif pa.types.is_string(keys.type) or pa.types.is_large_string(keys.type):
        x = _digests([str(key).encode() for key in keys.to_pylist()])
    elif pa.types.is_binary(keys.type) or pa.types.is_large_binary(keys.type):
        x = _digests(keys.to_pylist())
    else:
        raise InputError(f"Row keys must be integers, strings or binary, not {keys.type}.")
    offset = np.uint64((0x9E3779B97F4A7C15 * (2 * seed + 1)) & 0xFFFFFFFFFFFFFFFF)
    with np.errstate(over="ignore"):
        z = x + offset
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))  # type: ignore[no-any-return]  # numpy's uint64 arithmetic


def _digests(keys: Sequence[bytes]) -> NDArray[np.uint64]:
    joined = b"".join(hashlib.blake2b(key, digest_size=8).digest() for key in keys)
    return np.frombuffer(joined, dtype="<u8")


def smallest_hashes(
    keys: Iterable[tuple[pa.Array, pa.Array]], n: int, seed: int
) -> tuple[pa.Array, NDArray[np.int64]]:
    """The rows whose identities have the `n` smallest hashes, in the order of the hashes.

    Parameters
    ----------
    keys
        Batches of row keys, and of the identities to be hashed.

    Returns
    -------
    Row keys, and positions in the stream, both shape (≤ n,).
    """
    best_hash = np.empty(0, np.uint64)
    best_position = np.empty(0, np.int64)
    best_keys: pa.Array | None = None
    seen = 0
    for rows, identities in keys:
        hashes = np.concatenate([best_hash, hash_keys(identities, seed)])
        positions = np.concatenate([best_position, np.arange(seen, seen + len(rows))])
        merged = rows if best_keys is None else pa.concat_arrays([best_keys, rows])
        seen += len(rows)
        keep = np.argpartition(hashes, n)[:n] if len(hashes) > n else np.arange(len(hashes))
        keep = keep[np.argsort(hashes[keep], kind="stable")]
        best_hash, best_position, best_keys = hashes[keep], positions[keep], merged.take(pa.array(keep))
    return (pa.nulls(0) if best_keys is None else best_keys), best_position


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
