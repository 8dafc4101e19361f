"""What killed runs left in a table: finished, undone or removed by the next command."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

import lance

from spec_store.errors import RetryError

from .columns import MARKER, column_run
from .dataset import latest, retried
from .dry_run import remove_dry_run
from .ledger import Ledger, State, dead_ledgers, dead_states
from .objects import FOLDER
from .staging import delete_staged

__all__ = ["leftovers", "mark_columns", "remove_leftovers", "repair", "settle"]

_LATER_VERSIONS = 100


def repair(dataset: lance.LanceDataset, name: str) -> list[str]:
    """Finish or undo what runs began to publish and were killed in; a living run is not disturbed.

    What such runs have staged stays: with the same token it serves the next run. A table that can't be
    written stays as it is, and can be read.

    Returns
    -------
    For each such run a sentence that says what was done, or why nothing was.
    """
    messages = []
    try:
        for ledger in dead_ledgers(dataset, publishing=True):
            try:
                messages += settle(dataset, ledger, name)
            except BaseException:
                ledger.close(remove=False)
                raise
            ledger.close(remove=not ledger.state.files)
    except (OSError, RuntimeError, RetryError) as error:
        messages.append(f"What a killed run left in {name} can't be removed or completed now: {error}")
    return messages


def leftovers(dataset: lance.LanceDataset) -> list[str]:
    """Names of the files of runs that were killed: ledgers, and column files that belong to no version."""
    found = []
    for name, state in dead_states(dataset).items():
        found += [f"{FOLDER}/{name}", *(f"data/{path}" for path in sorted(state.files))]
    return found


def remove_leftovers(dataset: lance.LanceDataset, name: str) -> list[str]:
    """Delete everything that killed runs left: what they began to publish, column files, ledgers.

    Nothing of a living run is touched.

    Returns
    -------
    As `repair`.
    """
    messages = []
    for ledger in dead_ledgers(dataset):
        try:
            messages += settle(dataset, ledger, name, final=True)
        except BaseException:
            ledger.close(remove=False)
            raise
        ledger.close(remove=True)
    return messages


def settle(dataset: lance.LanceDataset, ledger: Ledger, name: str, *, final: bool = False) -> list[str]:
    """Bring the table to a state that its columns' metadata tell of: all of a run's results, or none.

    Parameters
    ----------
    final
        The ledger is removed afterwards: column files that have not become part of the table are deleted, and
        nothing is recorded, for which a full disk may have no room.

    Returns
    -------
    What was done about a run that had begun to publish; nothing for any other.
    """
    state = ledger.state
    outcome, current = _Outcome.NOTHING, dataset
    if state.publishing is not None:
        remove_dry_run(dataset, ledger)
        current = latest(dataset)
        outcome = _outcome(current, state)
    if outcome is _Outcome.LANDED:
        present = [n for n in state.columns if n in current.schema.names]
        mark_columns(current, {n: state.marks[n] for n in present}, name)
        if not final:
            ledger.settled(landed=True)
        return [f"The results of a run that was killed while it published them are complete in {name}."]
    if final:  # before all else: on a full disk this makes the room that the rest needs
        for path in state.files:
            delete_staged(dataset, path)
    if state.publishing is None:
        return []
    message = f"A run was killed before it published {', '.join(state.columns)} in {name}."
    if outcome in (_Outcome.NULL_COLUMNS, _Outcome.UNKNOWN):
        empty = outcome is _Outcome.NULL_COLUMNS
        runs = {n: _run(state) if empty else state.before.get(n) for n in state.columns}
        gone = [n for n, run in runs.items() if column_run(current.schema, n) == run]
        retried(lambda: latest(dataset).drop_columns(gone), f"removing columns of {name}")
        message = f"A run was killed while it published {', '.join(gone)} in {name}: they were removed."
    if not final:
        ledger.settled(landed=False)
    return [message]


class _Outcome(Enum):
    """How far a run got that ended without telling."""

    NOTHING = "the columns are as they were before, or another run's by now"
    NULL_COLUMNS = "its columns are there, and hold nothing"
    LANDED = "its values are in the table"
    UNKNOWN = "its values may be in columns that name an earlier run: no trace is left that could tell"


def _outcome(current: lance.LanceDataset, state: State) -> _Outcome:
    assert state.publishing is not None
    present = [n for n in state.columns if n in current.schema.names]
    named = {n: column_run(current.schema, n) for n in present}
    if not named or any(run not in (_run(state), state.before.get(n)) for n, run in named.items()):
        return _Outcome.NOTHING
    if state.adding:
        ours = [n for n in present if column_run(current.schema, n) == _run(state)]
        if not ours:
            return _Outcome.NOTHING
        return _Outcome.LANDED if any(_has_values(current, n) for n in ours) else _Outcome.NULL_COLUMNS
    kept = {v["version"] for v in current.versions()}
    later = range(state.publishing + 1, min(current.version, state.publishing + _LATER_VERSIONS) + 1)
    for version in (v for v in later if v in kept):
        fragments = current.checkout_version(version).get_fragments()
        if any(d.path in state.files for f in fragments for d in f.metadata.files):
            return _Outcome.LANDED
    session = current.new_file_session()
    # A staged file that is still there, and that no version refers to, never was part of the table.
    if kept.issuperset(later) or all(session.contains(f"data/{path}") for path in state.files):
        return _Outcome.NOTHING
    return _Outcome.UNKNOWN


def _run(state: State) -> str | None:
    return next((marks.get(MARKER.decode()) for marks in state.marks.values()), None)


def _has_values(dataset: lance.LanceDataset, column: str) -> bool:
    batches = dataset.scanner(columns=[column], batch_size=8192).to_batches()
    return any(batch.column(0).null_count < len(batch) for batch in batches)


def mark_columns(dataset: lance.LanceDataset, marks: Mapping[str, Mapping[str, str]], name: str) -> None:
    """Write a run's parameters, by column, to the metadata of its columns, where they are another run's."""
    if any(column_run(dataset.schema, n) != own.get(MARKER.decode()) for n, own in marks.items()):
        given = {n: dict(own) for n, own in marks.items()}
        retried(
            lambda: latest(dataset).update_field_metadata(given),
            f"recording the run's parameters in {name}",
        )
