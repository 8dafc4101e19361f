"""Result columns written to a live table: staged beside it, then published in one atomic commit.

Nothing that a reader can see changes until every column file is complete and a dry-run commit has read them.
Then, back to back: the columns are added as nulls (metadata only), one DataReplacement puts all files in
place, and the columns' metadata name the run. Existing data files stay as they are, so no row can be lost or
come back to life. A commit by another writer in between either commutes (append, delete, index) or conflicts,
and then only fragments that changed are staged again. What a run that is killed in between has begun is
finished or undone by the next command, see `recovery`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import Enum

import lance

from spec_store.connector import Annotation, Published
from spec_store.errors import ColumnClashError, RetryError

from .changes import unsettled_fragments
from .columns import (
    MARKER,
    add_result_columns,
    column_run,
    foreign_columns,
    has_result_columns,
)
from .dataset import MAX_ATTEMPTS, held_version, is_conflict, latest, local_folder, pause, retried
from .dry_run import dry_run_commit
from .interrupts import deferred_interrupt
from .lease import LeaseLostError
from .ledger import Ledger, Staged, open_ledger
from .recovery import mark_columns, remove_leftovers, settle
from .staging import (
    PREFIX,
    Inputs,
    column_file_name,
    delete_staged,
    field_ids,
    input_files,
    is_complete,
    replacement,
    stage,
)
from .storage_errors import explained, is_disk_full, storage_errors

__all__ = ["Step", "annotate", "drop_annotations"]


class Step(Enum):
    """Moments of an annotation that an observer is notified of."""

    STARTED = "what dead runs left is removed, nothing is staged"
    STAGED = "column files are complete"
    DRY_RUN = "a dry-run commit has read them"
    COLUMNS_ADDED = "the table has the columns, null where they are new"
    COMMITTED = "the values are in the table"
    MARKED = "the columns name the run"


def annotate(
    dataset: lance.LanceDataset,
    annotation: Annotation,
    name: str,
    *,
    max_attempts: int = MAX_ATTEMPTS,
    on_step: Callable[[Step], None] = lambda step: None,
) -> Published:
    """Stage and publish; `name` is the table's in messages, `on_step` is called after each step.

    Raises
    ------
    RetryError
        Another run writes these columns or has written them since `dataset` was opened, commit conflicts
        exceeded the retry limit, or the disk is full; the table is as it was.
    """
    with storage_errors(name):
        ledger = open_ledger(dataset, annotation.schema.names)
        run = _Run(dataset, annotation, ledger, name, max_attempts, on_step)
        try:
            run.start()
            published = run.publish()
        except BaseException as error:
            _abandon(run, error)
            raise
        ledger.close(remove=True)
        return published


def _abandon(run: _Run, error: BaseException) -> None:
    """Undo what a failed run did; what can't be undone now is kept in its ledger for the next command.

    What another run has taken over is that run's to finish or undo.
    """
    reason = explained(error, run.name) or error
    undone = False
    try:
        with deferred_interrupt():
            run.ledger.check()
            undone = run.undo()
    except LeaseLostError:
        undone = True
        if isinstance(error, LeaseLostError):
            return
        raise
    except Exception as failure:
        raise RetryError(
            f"{reason} Nor could what was staged be removed ({type(failure).__name__}): the next run or undo"
            " on this table does that."
        ) from error
    finally:
        run.ledger.close(remove=undone)
    if not undone:
        raise RetryError(
            f"{reason or type(error).__name__} Whether the results were published is not known yet: the next"
            " command on this table completes or removes them."
        ) from error
    if is_disk_full(error):
        raise RetryError(f"{reason} Nothing was published, and what was staged is removed.") from error


class _Run:
    """One annotation on its way into the table."""

    def __init__(
        self,
        dataset: lance.LanceDataset,
        annotation: Annotation,
        ledger: Ledger,
        name: str,
        max_attempts: int,
        on_step: Callable[[Step], None],
    ) -> None:
        self.dataset = dataset
        self.annotation = annotation
        self.ledger = ledger
        self.name = name
        self._max_attempts = max_attempts
        self._on_step = on_step
        self._outcome_known = True

    def start(self) -> None:
        """Take over what a dead run staged for the same results, and remove what others left."""
        settle(self.dataset, self.ledger, self.name)
        remove_leftovers(self.dataset, self.name)
        annotation, state = self.annotation, self.ledger.state
        token = f"{annotation.token} {annotation.where or ''}"
        reusable = {s.path for s in state.staged.values()} if state.token == token else set()
        for path in state.files - reusable:
            self._delete(path)
        self.ledger.start(token, annotation.marks)
        self._on_step(Step.STARTED)

    def publish(self) -> Published:
        """Stage what is missing on the latest version and commit, until a commit succeeds."""
        last: OSError | None = None
        for attempt in range(1, self._max_attempts + 1):
            current = self._staged_version()
            self._refuse_overtaking(current)
            if self.annotation.since is not None and not self.ledger.state.staged:
                return self._published(current, current, attempt)
            names = self.annotation.schema.names
            self.ledger.publish(current.version, {n: column_run(current.schema, n) for n in names})
            dry_run_commit(current, self._staged(current), self.annotation, self.ledger)
            self._on_step(Step.DRY_RUN)
            try:
                with deferred_interrupt():
                    if published := self._commit(current, attempt):
                        return published
            except OSError as error:
                if not is_conflict(error):
                    raise
                last = error
                pause(attempt)
        raise RetryError(
            f"Gave up writing to {self.name}: commit conflicts with other writers exceeded the retry limit of"
            f" {self._max_attempts}. Nothing was published. Try again, at a quieter time."
        ) from last

    def undo(self) -> bool:
        """Leave the table as it was; False where it can't be known yet whether the values are in it."""
        if not self._outcome_known:
            return False
        settle(self.dataset, self.ledger, self.name, final=True)
        return True

    def _delete(self, path: str) -> None:
        delete_staged(self.dataset, path)
        self.ledger.removed(path)

    def _staged_version(self) -> lance.LanceDataset:
        """The newest version, all of it staged: staging takes long, and rows may come meanwhile."""
        for _ in range(MAX_ATTEMPTS):
            current = latest(self.dataset)
            if not self._stage_missing(current):
                break
            self._on_step(Step.STAGED)
        return current

    def _stage_missing(self, current: lance.LanceDataset) -> bool:
        """Stage what is new or has changed; whether anything was."""
        fragments = {f.fragment_id: f for f in current.get_fragments()}
        for fragment_id, staged in list(self.ledger.state.staged.items()):
            if fragment_id not in fragments or not self._fits(current, fragments[fragment_id], staged):
                self._delete(staged.path)
        wanted = self._unsettled(current) & fragments.keys()
        missing = [fragments[i] for i in sorted(wanted - self.ledger.state.staged.keys())]
        paths = {f.fragment_id: column_file_name(current, f, self.annotation) for f in missing}
        self.ledger.begin(*paths.values())
        for fragment in missing:
            self.ledger.add(stage(current, fragment, self.annotation, paths[fragment.fragment_id]))
        self.ledger.check()  # before anybody learns that all is staged, the ledger says so
        return bool(missing)

    def _fits(self, current: lance.LanceDataset, fragment: lance.LanceFragment, staged: Staged) -> bool:
        return self._is_current(current, fragment, staged) and is_complete(current, staged)

    def _is_current(self, current: lance.LanceDataset, fragment: lance.LanceFragment, staged: Staged) -> bool:
        found = input_files(current, fragment, Inputs.of(self.annotation))
        return found == (staged.physical_rows, staged.files)

    def _unsettled(self, current: lance.LanceDataset) -> set[int]:
        """Fragments whose results are to be computed: all, or those that changed since they were."""
        annotation = self.annotation
        if annotation.since is None:
            return {f.fragment_id for f in current.get_fragments()}
        if not has_result_columns(current.schema, annotation.schema):
            raise RetryError(
                f"While {self.name} was read, another writer removed {', '.join(annotation.schema.names)}."
                " Nothing was published."
            )
        old = held_version(current, annotation.since)
        return unsettled_fragments(old, current, Inputs.of(annotation), annotation.token)

    def _staged(self, current: lance.LanceDataset) -> dict[int, Staged]:
        present = {f.fragment_id for f in current.get_fragments()}
        return {i: staged for i, staged in self.ledger.state.staged.items() if i in present}

    def _commit(self, current: lance.LanceDataset, attempt: int) -> Published | None:
        """Columns, then values; None where the columns' commit brought in rows that are not staged yet."""
        self.ledger.check()
        ready = self._with_columns(current)
        self._on_step(Step.COLUMNS_ADDED)
        staged = self.ledger.state.staged
        fragments = {f.fragment_id: f for f in ready.get_fragments()}
        if not self._unsettled(ready) <= staged.keys() or not all(
            self._is_current(ready, fragments[i], s) for i, s in staged.items() if i in fragments
        ):
            return None
        self._refuse_overtaking(ready)
        self.ledger.check()
        new = self._replace(ready) if fragments else ready
        self._on_step(Step.COMMITTED)
        names = self.annotation.schema.names
        if missing := [n for n in names if n not in new.schema.names]:
            raise RetryError(f"While {self.name} was written, another writer dropped {', '.join(missing)}.")
        mark_columns(new, self.annotation.marks, self.name)
        self._on_step(Step.MARKED)
        return self._published(new, latest(new), attempt)

    def _with_columns(self, current: lance.LanceDataset) -> lance.LanceDataset:
        """A version that has the result columns."""
        schema = self.annotation.schema
        if has_result_columns(current.schema, schema):
            return current
        self.ledger.adding()
        return add_result_columns(current, schema, self.annotation.marks)

    def _replace(self, ready: lance.LanceDataset) -> lance.LanceDataset:
        """The commit that makes the results visible."""
        operation = replacement(ready, self._staged(ready), self.annotation.schema)
        self._outcome_known = False
        try:
            new = lance.LanceDataset.commit(ready, operation, read_version=ready.version)
        except OSError as error:
            # A request that got no answer may have been carried out; a write to a disk that failed was not.
            self._outcome_known = is_conflict(error) or local_folder(ready) is not None
            raise
        self._outcome_known = True
        return new

    def _refuse_overtaking(self, current: lance.LanceDataset) -> None:
        """Raise where somebody else has written the columns since this run's version was pinned.

        Commits of the same columns conflict with each other, so nothing slips in after the last check.
        """
        names, pinned = self.annotation.schema.names, self.dataset
        if foreign := foreign_columns(current.schema, names):
            raise ColumnClashError(
                f"While {self.name} was read, another writer added {', '.join(foreign)}. Nothing was"
                " published. Give another --prefix."
            )
        own = self.annotation.metadata.get(MARKER.decode())
        for n in names:
            run, before = column_run(current.schema, n), column_run(pinned.schema, n)
            if run is None or run == own:
                continue
            files = _column_files(current, n) - _column_files(pinned, n) - self.ledger.state.files
            if run != before or any(path.startswith(PREFIX) for path in files):
                raise RetryError(
                    f"Another spec-store run wrote {n} to {self.name} after this one had read version"
                    f" {pinned.version}. Nothing was published. Run again, or give another --prefix."
                )

    def _published(self, computed: lance.LanceDataset, new: lance.LanceDataset, attempts: int) -> Published:
        rows = sum(s.physical_rows for s in self._staged(computed).values())
        names = tuple(self.annotation.schema.names)
        return Published(new.version, names, rows, attempts, tuple(self._notes(new)), computed.version)

    def _notes(self, new: lance.LanceDataset) -> Iterator[str]:
        if self.ledger.note:
            yield self.ledger.note
        ids = set(field_ids(new, self.annotation.schema.names))
        late = [f for f in new.get_fragments() if not ids & {i for d in f.metadata.files for i in d.fields}]
        if late:
            rows = sum(f.count_rows() for f in late)
            yield f"{rows:,} rows were added while the results were published; their result columns are null."


def _column_files(dataset: lance.LanceDataset, column: str) -> set[str]:
    """Names of the data files that hold a column."""
    ids = set(field_ids(dataset, [column]))
    return {d.path for f in dataset.get_fragments() for d in f.metadata.files if ids & set(d.fields)}


def drop_annotations(dataset: lance.LanceDataset, columns: Sequence[str], name: str) -> None:
    """Drop columns that spec-store wrote, and whatever killed runs left; ColumnClashError for any other."""

    def drop() -> None:
        current = latest(dataset)
        held = [c for c in columns if c in current.schema.names]
        if foreign := foreign_columns(current.schema, held):
            raise ColumnClashError(f"{name}: {', '.join(foreign)} was not written by spec-store.")
        if held:
            current.drop_columns(held)

    with storage_errors(name):
        remove_leftovers(dataset, name)
        retried(drop, f"removing columns of {name}")
