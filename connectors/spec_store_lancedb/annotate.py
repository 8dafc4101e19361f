"""Result columns written to a living table: staged beside it, then published in one atomic commit.

Nothing that a reader can see changes until every column file is whole. Then, back to back: the columns are
added as nulls (metadata only), and one DataReplacement puts all files in place. Existing data files stay as
they are, so no row can be lost or come back to life. A commit by another writer in between either commutes
(append, delete, index) or conflicts, and then only fragments that changed are staged again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import lance
import pyarrow as pa
from lance import LanceOperation

from spec_store.connector import Annotation, Published
from spec_store.errors import ColumnClashError, RetryError, SpecStoreError

from .dataset import MOST_ATTEMPTS, is_conflict, latest, pause, retried
from .ledger import Ledger, Staged
from .staging import delete_staged, field_ids, fingerprint, is_whole, replacement, stage

__all__ = ["MARKER", "annotate", "drop_annotations", "foreign_columns"]

MARKER = b"spec_store.run"
"""Field metadata key of every column that spec-store wrote."""

_TAG = "spec-store-"


def foreign_columns(schema: pa.Schema, names: Sequence[str]) -> list[str]:
    """Those of the names that are columns which spec-store did not write."""
    held = [n for n in names if n in schema.names]
    return [n for n in held if MARKER not in (schema.field(n).metadata or {})]


def annotate(dataset: lance.LanceDataset, annotation: Annotation, name: str) -> Published:
    """Stage and publish; `name` is the table's in messages.

    Raises
    ------
    RetryError
        Another run is writing these columns, other writers kept winning, or the disk is full; the table is
        as it was.
    """
    ledger = Ledger(dataset.uri, annotation.schema.names, f"{annotation.token} {annotation.where or ''}")
    run = _Run(dataset, annotation, ledger, name)
    try:
        ledger.open()
        for path in ledger.orphans:
            delete_staged(dataset, path)
        published = run.publish()
    except BaseException as error:
        run.abandon()
        if isinstance(error, OSError) and _is_full(error):
            raise RetryError(
                f"No space was left while staging columns of {name}. Nothing was published, and what was"
                " staged is removed. Free some space and try again."
            ) from error
        raise
    finally:
        ledger.close()
    return published


class _Run:
    """One annotation on its way into the table."""

    def __init__(
        self, dataset: lance.LanceDataset, annotation: Annotation, ledger: Ledger, name: str
    ) -> None:
        self.dataset = dataset
        self.annotation = annotation
        self.ledger = ledger
        self.name = name
        self.added_columns = False
        self.committing = False

    def publish(self) -> Published:
        """Stage what is missing on the latest version and commit, until a commit wins."""
        last: OSError | None = None
        for attempt in range(1, MOST_ATTEMPTS + 1):
            current = self._staged_version()
            try:
                with _tagged(current, self.annotation.token):
                    new = self._commit(current)
            except OSError as error:
                if not is_conflict(error):
                    raise
                last = error
                self._set_committing(False)
            else:
                if new is not None:
                    return self._published(new, attempt)
                continue  # columns were added, and fragments came with them: stage those first
            pause(attempt)
        raise RetryError(
            f"Gave up writing to {self.name}: other writers committed first {MOST_ATTEMPTS} times in a row."
            " Nothing was published. Try again, at a quieter time."
        ) from last

    def abandon(self) -> None:
        """Leave the table as it was: staged files, and null columns that this run added, are removed.

        A commit that was interrupted may have been made all the same: its files are then left alone.
        """
        if self.committing:
            return
        for staged in list(self.ledger.staged.values()):
            delete_staged(self.dataset, staged.path)
        if self.added_columns:
            names = self.annotation.schema.names
            retried(lambda: latest(self.dataset).drop_columns(names), f"removing columns of {self.name}")

    def _staged_version(self) -> lance.LanceDataset:
        """The newest version, all of it staged: staging takes long, and rows may come meanwhile."""
        for _ in range(MOST_ATTEMPTS):
            current = latest(self.dataset)
            if not self._stage_missing(current):
                break
        return current

    def _stage_missing(self, current: lance.LanceDataset) -> bool:
        """Stage what is new or has changed; whether anything was."""
        fragments = {f.fragment_id: f for f in current.get_fragments()}
        for fragment_id, staged in list(self.ledger.staged.items()):
            fits = fragment_id in fragments and _fits(
                current, fragments[fragment_id], staged, self.annotation
            )
            if not fits:
                delete_staged(current, self.ledger.discard(fragment_id).path)
        missing = [f for fragment_id, f in fragments.items() if fragment_id not in self.ledger.staged]
        for fragment in missing:
            self.ledger.add(stage(current, fragment, self.annotation))
        return bool(missing)

    def _commit(self, current: lance.LanceDataset) -> lance.LanceDataset | None:
        """Columns, then values; None where the columns' commit brought in rows that are not staged yet."""
        ready = self._with_columns(current)
        fragments = ready.get_fragments()
        staged = self.ledger.staged
        if not all(
            f.fragment_id in staged
            and fingerprint(ready, f, self.annotation)
            == (staged[f.fragment_id].physical_rows, staged[f.fragment_id].files)
            for f in fragments
        ):
            return None
        schema = self.annotation.schema
        operation = LanceOperation.DataReplacement(
            [
                LanceOperation.DataReplacementGroup(
                    f.fragment_id, replacement(ready, staged[f.fragment_id], schema)
                )
                for f in fragments
            ]
        )
        if not fragments:
            return ready
        _check_detached(ready, operation, schema)
        self._set_committing(True)
        return lance.LanceDataset.commit(ready, operation, read_version=ready.version)

    def _set_committing(self, committing: bool) -> None:
        if committing != self.committing:
            self.ledger.publishing(committing)
            self.committing = committing

    def _with_columns(self, current: lance.LanceDataset) -> lance.LanceDataset:
        """A version that has the result columns, with the right types."""
        wanted = self.annotation.schema
        held = [n for n in wanted.names if n in current.schema.names]
        if foreign := foreign_columns(current.schema, held):
            raise ColumnClashError(
                f"While {self.name} was read, another writer added {', '.join(foreign)}. Nothing was"
                " published. Give another --prefix."
            )
        if held == wanted.names and all(current.schema.field(n).type == wanted.field(n).type for n in held):
            return current
        if held:  # an incomplete set: one file can't replace part of what another holds
            current.drop_columns(held)
            current = latest(current)
        marks = {k.encode(): v.encode() for k, v in self.annotation.metadata.items()}
        current.add_columns(pa.schema([f.with_nullable(True).with_metadata(marks) for f in wanted]))
        self.added_columns = True
        return latest(current)

    def _published(self, new: lance.LanceDataset, attempts: int) -> Published:
        names = tuple(self.annotation.schema.names)
        updates = {n: dict(self.annotation.metadata) for n in names}
        if any((new.schema.field(n).metadata or {}).get(MARKER) != _mark(self.annotation) for n in names):
            retried(
                lambda: latest(new).update_field_metadata(updates),
                f"recording the run's parameters in {self.name}",
            )
            new = latest(new)
        _drop_tags(new)
        rows = sum(f.physical_rows for f in new.get_fragments())
        return Published(new.version, names, rows, attempts, tuple(self._notes(new)))

    def _notes(self, new: lance.LanceDataset) -> Iterator[str]:
        ids = set(field_ids(new, self.annotation.schema.names))
        late = [f for f in new.get_fragments() if not ids & {i for d in f.metadata.files for i in d.fields}]
        if late:
            rows = sum(f.count_rows() for f in late)
            yield f"{rows:,} rows were added while the results were published; their result columns are null."


def _mark(annotation: Annotation) -> bytes | None:
    value = annotation.metadata.get(MARKER.decode())
    return None if value is None else value.encode()


def _fits(
    current: lance.LanceDataset, fragment: lance.LanceFragment, staged: Staged, annotation: Annotation
) -> bool:
    rows, files = fingerprint(current, fragment, annotation)
    return (rows, files) == (staged.physical_rows, staged.files) and is_whole(current, staged)


def _check_detached(
    ready: lance.LanceDataset, operation: LanceOperation.DataReplacement, schema: pa.Schema
) -> None:
    """Rehearse the commit where no reader looks, since the real one checks next to nothing."""
    trial = lance.LanceDataset.commit(ready, operation, read_version=ready.version, detached=True)
    trial.validate()
    for f in schema:
        if trial.schema.field(f.name).type != f.type:
            raise SpecStoreError(f"Column {f.name!r} is {trial.schema.field(f.name).type}, not {f.type}.")
    read = sum(b.num_rows for b in trial.scanner(columns=[schema.names[0]]).to_batches())
    if read != ready.count_rows():
        raise SpecStoreError(
            f"A rehearsed commit reads {read} rows where the table has {ready.count_rows()}."
        )


@contextlib.contextmanager
def _tagged(current: lance.LanceDataset, token: str) -> Iterator[None]:
    """Tag the version before publishing, for the moments in which a kill could leave null columns.

    The tag does not stay: a tag on an old version makes everybody's cleanup fail.
    """
    tag = f"{_TAG}{token[:12]}-{current.version}"
    if tag not in current.tags.list():
        current.tags.create(tag, current.version)
    try:
        yield
    finally:
        with contextlib.suppress(OSError, ValueError):  # another run took it for a dead run's
            current.tags.delete(tag)


def _drop_tags(dataset: lance.LanceDataset) -> None:
    """Remove tags that killed runs left behind."""
    for tag in dataset.tags.list():
        if tag.startswith(_TAG):
            with contextlib.suppress(OSError, ValueError):  # another run removed its own just now
                dataset.tags.delete(tag)


def drop_annotations(dataset: lance.LanceDataset, columns: Sequence[str], name: str) -> None:
    """Drop columns that spec-store wrote; raises ColumnClashError for any other."""

    def drop() -> None:
        current = latest(dataset)
        held = [c for c in columns if c in current.schema.names]
        if foreign := foreign_columns(current.schema, held):
            raise ColumnClashError(f"{name}: {', '.join(foreign)} was not written by spec-store.")
        if held:
            current.drop_columns(held)

    retried(drop, f"removing columns of {name}")
    _drop_tags(latest(dataset))


def _is_full(error: OSError) -> bool:
    said = str(error).lower()
    return (
        "no space left" in said or "os error 28" in said or "file too large" in said or "os error 27" in said
    )
