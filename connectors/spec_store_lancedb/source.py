"""Reading a pinned version of a LanceDB table."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from spec_store.connector import (
    Annotation,
    Difference,
    Freshness,
    Location,
    Partition,
    Published,
    Source,
    Workspace,
    find_field,
)
from spec_store.errors import (
    ColumnClashError,
    ColumnNotFoundError,
    FilterError,
    InputError,
    UnsupportedError,
    did_you_mean,
    sentence,
)
from spec_store.stores.filters import parenthesized

from .annotate import annotate, drop_annotations, stage_part
from .changes import Changes, freshness
from .columns import foreign_columns
from .database import folder_of
from .dataset import FragmentRange, held_version, latest, local_folder, read_ahead, retried, scan
from .recovery import leftovers, remove_leftovers, repair
from .selection import SelectedRows
from .staging import Inputs
from .storage_errors import storage_errors
from .workspace import unclaimed, workspace_of

__all__ = ["LanceSource"]

_KEY = "_rowid"
# Those that the LanceDB clients that we ask for read and write alike.
_FILE_VERSIONS = ("2.0", "2.1", "2.2")
_OTHER_NAME = "Name results otherwise: with --prefix for compare, with --column for align."
# Columns that no table holds, and that scans and searches name so.
_RESERVED = frozenset(
    {
        *("_rowid", "_rowaddr", "_rowoffset", "_row_created_at_version", "_row_last_updated_at_version"),
        *("_distance", "_score", "_relevance_score"),
    }
)
# Of a partition, at most.
_PARTITION_ROWS = 65_536
# Rows read at once by key: what they are read into is not given back to the system.
_TAKE_ROWS = 2048


class LanceSource(Source):
    """One version of a table, streamed in file order with the row id as the key."""

    key = _KEY

    def __init__(
        self,
        dataset: lance.LanceDataset,
        location: Location | None,
        table: str | None,
        notes: Sequence[str] = (),
    ) -> None:
        self._notes = tuple(notes)
        self.location = location
        self.uri: str = dataset.uri if location is None else location.uri
        self.table = table
        self._dataset = dataset
        self.version: int = dataset.version
        self.schema: pa.Schema = dataset.schema
        if (found := dataset.data_storage_version) not in _FILE_VERSIONS:
            kind = "legacy" if found in ("0.1", "legacy") else "unstable"
            raise UnsupportedError(
                f"{sentence(self.describe())} is in Lance's {kind} file format {found}; expected one of"
                f" {', '.join(_FILE_VERSIONS)}. Copy it into a new table:"
                ' lance.write_dataset(dataset, uri, data_storage_version="stable").'
            )

    @classmethod
    def of(
        cls, dataset: lance.LanceDataset, table: str | None, location: Location | None = None
    ) -> LanceSource:
        """A source over a data set at its version.

        Parameters
        ----------
        table
            Its name; None reads that off its URI, where it is one of a LanceDB database.
        location
            The database; None is the folder that holds the data set.
        """
        options = {k: v for k, v in (dataset.initial_storage_options or {}).items() if k != "user_agent"}
        folder = folder_of(dataset.uri)
        if folder is not None and dataset.uri != str(folder.absolute()):  # relative, or a file:// URI
            path = str(folder.absolute())
            dataset = lance.dataset(path, version=dataset.version, storage_options=options or None)
        parent, _, last = dataset.uri.rpartition("/")
        if table is None and last.endswith(".lance"):
            table = last.removesuffix(".lance")
        if location is None and table is not None:
            location = Location(parent, "lancedb", options)
        return cls(dataset, location, table)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was done about results that a killed run had half published."""
        return self._notes

    def repaired(self) -> LanceSource:
        """The newest version, once what killed runs began to publish is finished or undone; else this one."""
        notes = repair(self._dataset, self.describe())
        return LanceSource(latest(self._dataset), self.location, self.table, notes) if notes else self

    def count(self, where: str | None = None) -> int:
        """Rows in this version, or those that match."""
        if where is None:
            return int(self._dataset.count_rows())
        with _filter_errors(where):
            return int(self._dataset.count_rows(filter=parenthesized(where)))

    def batches(
        self,
        columns: Sequence[str],
        *,
        where: str | None = None,
        partition: Partition | None = None,
        batch_rows: int = 8192,
    ) -> Iterator[pa.RecordBatch]:
        """Row ids and columns in file order; Lance reads ahead in its own threads."""
        for column in columns:
            find_field(self, column)
        part = None if partition is None else self._range(partition)
        if part is not None and where is None and columns:
            return (b.select([_KEY, *columns]) for b in read_ahead(self._dataset, columns, batch_rows, part))
        with _filter_errors(where):
            scanner = scan(self._dataset, columns, where, batch_rows, part=part)
            if where is not None:
                scanner.projected_schema  # noqa: B018  # compiles the filter, without reading
        return _selected(scanner, [_KEY, *columns], where)

    def latest(self) -> LanceSource:
        """The newest version of the table."""
        return LanceSource(latest(self._dataset), self.location, self.table)

    def difference(self, version: int, columns: Sequence[str], where: str | None) -> Difference | None:
        """By data files, deletions, and with stable row ids the versions of rows' last updates."""
        old = held_version(self._dataset, version)
        if old is None:
            return None
        earlier = LanceSource(old, self.location, self.table)
        for column in columns:
            find_field(earlier, column)
        with _filter_errors(where):
            changes = Changes(old, self._dataset, Inputs(tuple(columns), where, ()))
            removed, added = changes.selections
        return Difference(SelectedRows(earlier, removed, where), SelectedRows(self, added, where))

    def freshness(
        self, results: Sequence[str], reads: Sequence[str], where: str | None, *, since: int | None
    ) -> Freshness:
        """From names of data files; from rows' versions where fragments were rewritten."""
        old = None if since is None else held_version(self._dataset, since)
        with _filter_errors(where):
            return freshness(old, self._dataset, Inputs(tuple(reads), where, tuple(results)), None)

    def leftovers(self, *, remove: bool = False) -> list[str]:
        """Column files, ledgers and clones of killed runs, and what they kept to be continued from."""
        with storage_errors(self.describe()):
            found = leftovers(self._dataset) + unclaimed(self._dataset, remove=remove)
            if remove:
                remove_leftovers(self._dataset, self.describe())
        return found

    def at(self, version: int) -> LanceSource:
        """The table at another version. Raises InputError, with the versions that there are."""
        known = {v["version"] for v in self._dataset.versions()}
        if version not in known:
            raise InputError(
                f"{sentence(self.describe())} has no version {version}; it holds {min(known)} to"
                f" {max(known)}."
            )
        return LanceSource(self._dataset.checkout_version(version), self.location, self.table)

    @property
    def workspace(self) -> Workspace | None:
        """A folder in the table's, or objects under that name."""
        return workspace_of(self._dataset)

    def partitions(self) -> list[Partition]:
        """Ranges of at most 65,536 rows of each fragment; their id is ``fragment:start:stop``."""
        counts = ((f.fragment_id, f.count_rows()) for f in self._dataset.get_fragments())
        return [
            Partition(f"{fragment_id}:{start}:{stop}", stop - start)
            for fragment_id, n in counts
            for start in range(0, n, _PARTITION_ROWS)
            for stop in [min(start + _PARTITION_ROWS, n)]
        ]

    def split(self, partition: Partition, n_rows: int) -> list[Partition]:
        """Shorter ranges of the same fragment."""
        part = self._range(partition)
        cuts = range(part.start, part.stop, n_rows)
        return [
            Partition(f"{part.fragment.fragment_id}:{start}:{stop}", stop - start)
            for start in cuts
            for stop in [min(start + n_rows, part.stop)]
        ]

    def take(self, keys: pa.Array, columns: Sequence[str]) -> pa.Table:
        """Rows by row id, in the order of `keys`. Raises InputError for ids that are not there."""
        for column in columns:
            find_field(self, column)
        if not len(keys):
            fields = [pa.field(_KEY, pa.uint64()), *(find_field(self, c).with_name(c) for c in columns)]
            return pa.schema(fields).empty_table()
        chunks = [keys.slice(start, _TAKE_ROWS) for start in range(0, len(keys), _TAKE_ROWS)]
        return pa.concat_tables([self._take(chunk, columns) for chunk in chunks])

    def _take(self, keys: pa.Array, columns: Sequence[str]) -> pa.Table:
        wanted = f"{_KEY} IN ({', '.join(map(str, keys.to_pylist()))})"  # reads these rows alone
        found = scan(self._dataset, columns, wanted, len(keys)).to_table()
        order = pc.index_in(keys.cast(pa.uint64()), value_set=found[_KEY].combine_chunks())
        if order.null_count:
            missing = keys.filter(order.is_null())
            raise InputError(
                f"{len(missing):,} of {len(keys):,} row ids are not in {self.describe()}, the first"
                f" {missing[0]}."
            )
        return found.take(order).select([_KEY, *columns])

    def check_annotation(self, schema: pa.Schema) -> None:
        """Refuse other people's columns, names that Lance keeps, and folders that can't be written."""
        if reserved := [n for n in schema.names if n in _RESERVED]:
            raise ColumnClashError(
                f"{', '.join(reserved)} can't be a result column of {self.describe()}: Lance and LanceDB give"
                f" columns of their own that name. {_OTHER_NAME}"
            )
        if foreign := foreign_columns(self.schema, schema.names):
            raise ColumnClashError(
                f"{sentence(self.describe())} already has {', '.join(foreign)}, which spec-store did not"
                f" write. {_OTHER_NAME}"
            )
        if (folder := local_folder(self._dataset)) is not None:
            data = folder / "data"  # a table that never had a row has none
            try:
                with tempfile.TemporaryFile(dir=data if data.exists() else data.parent):
                    pass
            except OSError as error:
                raise InputError(
                    f"{sentence(self.describe())} can't be written: {error.strerror}. Use --dry-run to"
                    " compare without writing."
                ) from error

    def annotate(self, annotation: Annotation) -> Published:
        """Stage one column file per fragment, then publish all of them in one commit."""
        self.check_annotation(annotation.schema)
        return annotate(self._dataset, annotation, self.describe())

    def stage(self, annotation: Annotation, part: int, n_parts: int) -> int:
        """Column files of every `n_parts`-th fragment, by their ids."""
        self.check_annotation(annotation.schema)
        return stage_part(self._dataset, annotation, self.describe(), part, n_parts)

    def undo(self, columns: Sequence[str]) -> None:
        """Drop result columns; raises ColumnClashError for any that spec-store did not write."""
        drop_annotations(self._dataset, list(columns), self.describe())

    def create_index(self, column: str) -> None:
        """A BITMAP index over the latest version, replacing one that there is."""

        def create() -> None:
            newest = latest(self._dataset)
            if column not in newest.schema.names:
                known = did_you_mean(column, newest.schema.names)
                raise ColumnNotFoundError(f"No column {column!r} in {self.describe()}. {known}")
            newest.create_scalar_index(column, "BITMAP", replace=True)

        retried(create, f"indexing {column!r} of {self.describe()}")

    def create_vector_index(self, column: str, queries: NDArray[np.float32], *, k: int = 10) -> float:
        """An IVF_SQ index over the latest version: it builds in seconds and keeps a quarter of the bytes."""

        def create() -> None:
            latest(self._dataset).create_index(column, "IVF_SQ", metric="cosine", replace=True)

        retried(create, f"indexing {column!r} of {self.describe()}")
        indexed = latest(self._dataset)
        n_found = n_exact = 0
        for query in queries:
            exact = _nearest(indexed, column, query, k, exact=True)
            n_found += len(exact & _nearest(indexed, column, query, k, exact=False))
            n_exact += len(exact)
        return n_found / max(n_exact, 1)

    def search_index(self, column: str, queries: NDArray[np.float32], *, k: int) -> list[pa.Array] | None:
        """By the index's own metric; rows that it does not hold yet are searched one by one."""
        find_field(self, column)
        indices = self._dataset.describe_indices()
        if not any(column in i.field_names and i.index_type.startswith("IVF") for i in indices):
            return None
        return [_searched(self._dataset, {"column": column, "q": q, "k": k}) for q in queries]

    def _range(self, partition: Partition) -> FragmentRange:
        named = re.fullmatch(r"(\d+):(\d+):(\d+)", partition.id)
        fragment = self._dataset.get_fragment(int(named[1])) if named else None
        if named is None or fragment is None:
            raise InputError(f"{sentence(self.describe())} has no partition {partition.id!r}.")
        return FragmentRange(fragment, int(named[2]), int(named[3]))


def _nearest(
    dataset: lance.LanceDataset, column: str, query: NDArray[np.float32], k: int, *, exact: bool
) -> set[int]:
    """Row ids of the `k` nearest by cosine."""
    nearest = {"column": column, "q": query, "k": k, "metric": "cosine", "use_index": not exact}
    return set(_searched(dataset, nearest).to_pylist())


def _searched(dataset: lance.LanceDataset, nearest: dict[str, Any]) -> pa.Array:
    """Row ids, nearest first."""
    found = dataset.scanner(columns=["_distance"], nearest=nearest, with_row_id=True).to_table()
    return found.sort_by("_distance")[_KEY].combine_chunks()


def _selected(scanner: lance.LanceScanner, names: list[str], where: str | None) -> Iterator[pa.RecordBatch]:
    """The scanner's batches; a filter that fails on a row, as a division by zero does, is a FilterError."""
    try:
        for batch in scanner.to_batches():
            yield batch.select(names)
    except pa.ArrowInvalid as error:
        if where is None or "applying filter" not in str(error):
            raise
        raise _refused(where, error) from error


@contextmanager
def _filter_errors(where: str | None) -> Iterator[None]:
    """Turn Lance's refusal of a filter into a FilterError."""
    try:
        yield
    except FilterError:
        raise
    except BaseException as error:
        if where is None or not (isinstance(error, (ValueError, OSError)) or _is_panic(error)):
            raise
        raise _refused(where, error) from error


def _is_panic(error: BaseException) -> bool:
    """Lance's parser panics at placeholders and the like: in this thread, or in one of its own."""
    return type(error).__name__ == "PanicException" or str(error) == "Task was aborted"


def _refused(where: str, error: BaseException) -> FilterError:
    """With the reason alone, without the place in Lance's code and the statement built around a filter."""
    said = re.split(r", (?:/|rust/)", str(error))[0]
    if _is_panic(error):
        reason = "it holds something that Lance does not implement, such as a placeholder"
    elif unread := re.search(r"sql parser error: Expected: \), found: (.+)\)$", said, re.DOTALL):
        reason = (
            f"it is not understood at {unread[1]!r}. Expected one boolean expression and nothing after it"
        )
    elif syntax := re.search(r"sql parser error: (.+)\)$", said, re.DOTALL):
        reason = syntax[1].replace("found: )", "found its end")
    else:
        reason = re.split(r"(?:Invalid user input|Arrow error|Execution error): ", said)[-1].rstrip(".")
    return FilterError(f"The filter {where!r} can't be used: {reason}.")
