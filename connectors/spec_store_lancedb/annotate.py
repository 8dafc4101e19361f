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
from contextlib import closing
from enum import Enum

import lance

from spec_store.connector import Annotation, Published
from spec_store.errors import ColumnClashError, RetryError
from spec_store.executor import idle_workers

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
from .ledger import Ledger, Staged, dead_ledgers, dead_states, open_ledger, open_part_ledger
from .recovery import mark_columns, remove_leftovers, settle
from .staging import (
    PREFIX,
    Inputs,
    Staging,
    column_file_name,
    delete_staged,
    field_ids,
    input_files,
    is_complete,
    replacement,
)
from .storage_errors import explained, is_disk_full, storage_errors

__all__ = ["Step", "annotate", "drop_annotations", "stage_part"]

_SMALLER_FRAGMENTS = "A table written with a smaller max_rows_per_file has more."


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


def stage_part(
    dataset: lance.LanceDataset, annotation: Annotation, name: str, part: int, n_parts: int
) -> int:
    """Stage the fragments whose id leaves `part` when divided by `n_parts`; the number of rows computed.

    The files are those of a run that ended before it published: `annotate` takes them over.
    """
    with storage_errors(name):
        ledger = open_part_ledger(dataset, annotation.schema.names)
        run = _Run(dataset, annotation, ledger, name, 1, lambda step: None)
        try:
            n_rows = run.stage_part(part, n_parts)
        except BaseException as error:
            _abandon(run, error)
            raise
        ledger.close(remove=not ledger.state.files)
        return n_rows


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
        self._messages: list[str] = []
        self._n_adopted = 0

    @property
    def _token(self) -> str:
        """Of the annotation, as ledgers have it."""
        return f"{self.annotation.token} {self.annotation.where or ''}"

    def start(self) -> None:
        """Take over what a dead run staged for the same results, and remove what others left."""
        settle(self.dataset, self.ledger, self.name)
        self._adopt()
        remove_leftovers(self.dataset, self.name)
        self._begin()
        self._on_step(Step.STARTED)

    def _begin(self) -> None:
        """Keep only what the ledger has of the same results, and say that it is theirs."""
        state = self.ledger.state
        reusable = {s.path for s in state.staged.values()} if state.token == self._token else set()
        for path in state.files - reusable:
            self._delete(path)
        self.ledger.start(self._token, self.annotation.marks)

    def _adopt(self) -> None:
        """Take over what other processes have staged for the same results, see `stage_part`."""
        if all(state.token != self._token for state in dead_states(self.dataset).values()):
            return  # nothing is written before what dead runs left is removed: the disk may be full
        self._begin()
        for part in dead_ledgers(self.dataset):
            if part.state.token != self._token or part.state.publishing is not None:
                part.close(remove=False)
                continue
            known = self.ledger.state.staged.keys()
            staged = [s for i, s in part.state.staged.items() if i not in known]
            self.ledger.begin(*(s.path for s in staged))
            for s in staged:
                self.ledger.add(s)
            self.ledger.check()
            for path in part.state.files - {s.path for s in staged}:
                delete_staged(self.dataset, path)
            part.close(remove=True)
            self._n_adopted += len(staged)

    def stage_part(self, part: int, n_parts: int) -> int:
        """Stage a share of the newest version; what is staged already is not staged again."""
        self.ledger.start(self._token, self.annotation.marks)
        current = latest(self.dataset)
        states = [s for s in dead_states(self.dataset).values() if s.token == self._token]
        held = {i: s for state in states for i, s in state.staged.items()}
        fragments = {f.fragment_id: f for f in current.get_fragments() if f.fragment_id % n_parts == part}
        missing = [
            f for i, f in sorted(fragments.items()) if i not in held or not self._fits(current, f, held[i])
        ]
        n_rows = self._stage(current, missing)
        self.ledger.check()
        return n_rows

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
        if self._n_adopted and missing:
            self._messages.append(
                f"column files of {len(missing):,} of {len(fragments):,} fragments had not been staged by"
                " other processes, or no longer fitted: they were written here"
            )
            self._n_adopted = 0  # told once
        self._stage(current, missing)
        self.ledger.check()  # before anybody learns that all is staged, the ledger says so
        return bool(missing)

    def _stage(self, current: lance.LanceDataset, fragments: Sequence[lance.LanceFragment]) -> int:
        """Column files for these fragments, written by the annotation's executor; the number of rows."""
        annotation, executor = self.annotation, self.annotation.executor
        if executor.remote:
            if fragments and not self.ledger.state.staged:
                self._messages += idle_workers(
                    executor, len(fragments), "fragments to be written", _SMALLER_FRAGMENTS
                )
            annotation = annotation.detached(executor.threads_each(len(fragments)))
        n_all = 0
        paths = {f.fragment_id: column_file_name(current, f, annotation) for f in fragments}
        self.ledger.begin(*paths.values())
        with closing(executor.map(Staging(current, annotation), paths.items())) as results:
            for staged, n_rows in results:
                self.ledger.add(staged)
                n_all += n_rows
                if executor.remote:
                    self.annotation.progress(n_rows)
        return n_all

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
        notes = (*self._messages, *self._notes(new))
        return Published(new.version, names, rows, attempts, notes, computed.version)

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
