"""What a run has staged and how far its publishing went, kept beside the table: a kill is recoverable.

A ledger is JSON lines in the table's folder `_spec_store`, named by the columns that it stages. In a local
table it is a file, locked while its run lives; in an object store an object that its run has leased, see
`lease`. One that can be had belongs to a run that is dead.

A store without conditional writes keeps no two runs apart: there each run has a ledger of its own, and two
that write the same columns may both begin. What that costs is a commit conflict.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import lance

from spec_store.errors import RetryError

from .dataset import local_folder
from .lease import Lease, content_of, is_dead, owner_of, take
from .objects import FOLDER, Held, Objects, objects_of

__all__ = ["Ledger", "Staged", "State", "dead_ledgers", "dead_states", "open_ledger", "open_part_ledger"]

_SUFFIX = ".jsonl"
_LOCK_ATTEMPTS = 5
_PUBLISHING = '"publishing": '
# An object is replaced as a whole, so changes that a dead run's successor can do without wait for others.
_SECONDS_BETWEEN_WRITES = 1.0
_WRITE_SHARE = 0.02


@dataclass(frozen=True)
class Staged:
    """A column file for one fragment.

    Attributes
    ----------
    fragment_id, physical_rows
        The fragment, and how many rows the file must have.
    files
        The fragment's data files that its rows were computed from.
    path
        The column file's name in the table's data folder.
    size
        Its size in bytes.
    """

    fragment_id: int
    physical_rows: int
    files: tuple[str, ...]
    path: str
    size: int


@dataclass
class State:
    """A run as its ledger tells of it; each line is one change.

    Attributes
    ----------
    token
        Of the annotation.
    marks
        By result column, its field metadata.
    staged
        Complete column files, by fragment.
    files
        Names of all column files that may exist, complete or not.
    publishing
        The version upon which publishing began, until it has ended or was given up; else None.
    before
        By result column, the run that it named then; None where there was no such column.
    adding
        Whether null result columns may have been added.
    at
        When publishing began, in seconds by the run's own clock.
    """

    token: str = ""
    marks: dict[str, dict[str, str]] = field(default_factory=dict)
    staged: dict[int, Staged] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)
    publishing: int | None = None
    before: dict[str, str | None] = field(default_factory=dict)
    adding: bool = False
    at: float = 0.0

    @property
    def columns(self) -> tuple[str, ...]:
        """The result columns."""
        return tuple(self.marks)

    def apply(self, change: Mapping[str, Any]) -> None:
        """Take in one line."""
        match change:
            case {"token": token, "marks": marks}:
                self.token, self.marks = token, dict(marks)
            case {"token": token, "columns": columns, "metadata": metadata}:  # of versions before 0.2
                self.token, self.marks = token, {n: dict(metadata) for n in columns}
            case {"begun": path}:
                self.files.add(path)
            case {"staged": entry}:
                staged = Staged(**{**entry, "files": tuple(entry["files"])})
                self.staged[staged.fragment_id] = staged
                self.files.add(staged.path)
            case {"removed": path}:
                self.files.discard(path)
                self.staged = {k: s for k, s in self.staged.items() if s.path != path}
            case {"publishing": version, "before": before, "at": at}:
                by_column = before if isinstance(before, dict) else dict.fromkeys(self.marks, before)
                self.publishing, self.before, self.at = version, by_column, at
            case {"adding": adding}:
                self.adding = adding
            case {"landed": landed}:
                self.publishing, self.adding = None, False
                if landed:
                    self.staged, self.files = {}, set()


class Ledger(ABC):
    """The ledger of one run, written a line at a time.

    Attributes
    ----------
    name
        That of its file, without the suffix.
    note
        What a person should know of how runs are kept apart here; empty where they are.
    """

    note: str = ""

    def __init__(self, name: str) -> None:
        self.name = name
        self.state = State()

    def start(self, token: str, marks: Mapping[str, Mapping[str, str]]) -> None:
        """Say whose ledger this is; `marks` are the field metadata by result column."""
        self._record({"token": token, "marks": {n: dict(own) for n, own in marks.items()}})

    def begin(self, *paths: str) -> None:
        """Column files of these names may exist from now on."""
        self._record(*({"begun": path} for path in paths))

    def add(self, staged: Staged) -> None:
        """A column file is complete and closed."""
        self._record({"staged": asdict(staged)}, may_wait=True)

    def removed(self, path: str) -> None:
        """A column file was deleted."""
        self._record({"removed": path}, may_wait=True)

    def publish(self, version: int, before: Mapping[str, str | None]) -> None:
        """Publishing begins upon a version in which the columns name the runs `before`."""
        self._record({"publishing": version, "before": dict(before), "at": time.time()})

    def adding(self) -> None:
        """Null columns may be in the table from now on."""
        self._record({"adding": True})

    def settled(self, *, landed: bool) -> None:
        """Publishing has ended; where it has `landed`, the column files are part of the table."""
        self._record({"landed": landed})

    def _record(self, *changes: dict[str, Any], may_wait: bool = False) -> None:
        lines = [json.dumps(change) for change in changes]
        for line in lines:
            self.state.apply(json.loads(line))
        self._append("".join(line + "\n" for line in lines), may_wait=may_wait)

    def _read(self, content: str) -> None:
        """Take over what a dead run left."""
        for line in content.splitlines():
            self.state.apply(json.loads(line))

    def check(self) -> None:
        """Raise LeaseLostError where another run has taken over from this one."""
        return

    @abstractmethod
    def _append(self, lines: str, *, may_wait: bool) -> None:
        """Keep lines for good; those that may wait are lost by a kill at worst."""

    @abstractmethod
    def close(self, *, remove: bool) -> None:
        """Give up the lock; `remove` where nothing is left for another run to take over or to clean up."""


class _LocalLedger(Ledger):
    """A locked file."""

    def __init__(self, path: Path, fd: int) -> None:
        super().__init__(path.stem)
        self._path = path
        self._fd = fd
        content = path.read_bytes()
        complete = content[: content.rfind(b"\n") + 1]  # a kill may have torn the last line
        os.ftruncate(fd, len(complete))
        self._read(complete.decode())

    def _append(self, lines: str, *, may_wait: bool) -> None:
        end = os.lseek(self._fd, 0, os.SEEK_END)
        data = lines.encode()
        try:
            while data:
                data = data[os.write(self._fd, data) :]
            os.fsync(self._fd)
        except OSError:
            os.ftruncate(self._fd, end)
            raise

    def close(self, *, remove: bool) -> None:
        if remove:
            self._path.unlink(missing_ok=True)
        os.close(self._fd)
        with contextlib.suppress(OSError):  # another run's ledger is there too
            self._path.parent.rmdir()


class _RemoteLedger(Ledger):
    """A leased object."""

    def __init__(self, lease: Lease, note: str = "") -> None:
        super().__init__(PurePosixPath(lease.name).stem)
        self.note = note
        self._lease = lease
        self._written, self._cost = 0.0, 0.0
        self._read(lease.content.decode())

    def _append(self, lines: str, *, may_wait: bool) -> None:
        self._lease.content += lines.encode()
        began = time.monotonic()
        if may_wait and began - self._written < max(_SECONDS_BETWEEN_WRITES, self._cost / _WRITE_SHARE):
            return  # the next write, or the lease's next renewal, takes them along
        self._lease.check()
        self._written = time.monotonic()
        self._cost = self._written - began

    def check(self) -> None:
        self._lease.check()

    def close(self, *, remove: bool) -> None:
        self._lease.release(remove=remove)


def open_ledger(dataset: lance.LanceDataset, columns: Sequence[str]) -> Ledger:
    """The ledger of these columns, ours alone, with what a dead run left in it.

    Raises RetryError where another living run is writing these columns.
    """
    name = _name(columns)
    folder = local_folder(dataset)
    if folder is None:
        return _open_remotely(objects_of(dataset), name, columns)
    for part in (folder / FOLDER).glob(f"{name}-*{_SUFFIX}"):
        if (ledger := _free(part)) is None and part.exists():
            raise _occupied(columns, "")
        if ledger is not None:
            ledger.close(remove=False)
    ledger = _free(folder / FOLDER / f"{name}{_SUFFIX}", create=True)
    if ledger is None:
        raise _occupied(columns, "")
    return ledger


def open_part_ledger(dataset: lance.LanceDataset, columns: Sequence[str]) -> Ledger:
    """A new ledger for a process that stages part of these columns, beside others that do.

    Raises RetryError where a living run is publishing them.
    """
    name = _name(columns)
    part = f"{name}-{uuid.uuid4().hex[:8]}{_SUFFIX}"
    folder = local_folder(dataset)
    if folder is None:
        objects = objects_of(dataset)
        held = objects.get(f"{name}{_SUFFIX}")
        if held is not None and not is_dead(held):
            raise _occupied(columns, "")
        lease = take(objects, part, create=True)
        assert lease is not None
        return _RemoteLedger(lease)
    path = folder / FOLDER / f"{name}{_SUFFIX}"
    if (whole := _free(path)) is not None:
        whole.close(remove=False)
    elif path.exists():
        raise _occupied(columns, "")
    ledger = _free(path.with_name(part), create=True)
    assert ledger is not None
    return ledger


def _name(columns: Sequence[str]) -> str:
    return hashlib.blake2b("\n".join(sorted(columns)).encode(), digest_size=8).hexdigest()


def _free(path: Path, *, create: bool = False) -> Ledger | None:
    """The ledger at a path, ours; None where its run lives, or there is none."""
    for _ in range(_LOCK_ATTEMPTS):  # another command may be looking for what dead runs left
        if create:
            path.parent.mkdir(exist_ok=True)
        elif not path.exists():
            return None
        if ledger := _locked(path, create=create):
            return ledger
        time.sleep(0.05)
    return None


def _open_remotely(objects: Objects, name: str, columns: Sequence[str]) -> Ledger:
    ages = objects.ages()
    for other in (n for n in ages if n.startswith(name) and n.endswith(_SUFFIX)):
        held = objects.get(other)
        if held is not None and not is_dead(held):
            owner = owner_of(held)
            raise _occupied(columns, f" (process {owner['pid']} of {owner['host']})")
    if not objects.unconditional:
        lease = take(objects, f"{name}{_SUFFIX}", create=True)
        if lease is None:
            raise _occupied(columns, "")
        return _RemoteLedger(lease)
    lease = take(objects, f"{name}-{uuid.uuid4().hex[:8]}{_SUFFIX}", create=True)
    assert lease is not None
    return _RemoteLedger(
        lease,
        "the table's store can't keep two runs apart that write the same columns at once:"
        f" {objects.unconditional}. Start only one at a time.",
    )


def _occupied(columns: Sequence[str], owner: str) -> RetryError:
    return RetryError(
        f"Another spec-store run{owner} is writing {', '.join(columns)}. Wait for it to end, or give another"
        " --prefix."
    )


def dead_ledgers(dataset: lance.LanceDataset, *, publishing: bool = False) -> Iterator[Ledger]:
    """Ledgers of runs that were killed, ours until the caller closes them.

    Parameters
    ----------
    publishing
        Only those whose run was killed after it had begun to change the table.
    """
    folder = local_folder(dataset)
    if folder is None:
        objects = objects_of(dataset)
        for name, held in _dead_objects(objects):
            begun = _PUBLISHING in held.data.decode()
            if (begun or not publishing) and (lease := take(objects, name, create=False)):
                yield _RemoteLedger(lease)
        return
    for path in sorted((folder / FOLDER).glob(f"*{_SUFFIX}")):
        if publishing and not _has_begun_publishing(path):
            continue  # only looked at: a run that starts now must find the lock free
        if ledger := _locked(path, create=False):
            yield ledger


def dead_states(dataset: lance.LanceDataset) -> dict[str, State]:
    """What runs that were killed have left, by the names of their ledgers, which are only looked at."""
    if local_folder(dataset) is None:
        return {name: _state(content_of(held)) for name, held in _dead_objects(objects_of(dataset))}
    found = {}
    for ledger in dead_ledgers(dataset):
        found[f"{ledger.name}{_SUFFIX}"] = ledger.state
        ledger.close(remove=False)
    return found


def _state(content: bytes) -> State:
    state = State()
    for line in content.splitlines():
        state.apply(json.loads(line))
    return state


def _dead_objects(objects: Objects) -> Iterator[tuple[str, Held]]:
    for name in sorted(objects.ages()):
        held = objects.get(name) if name.endswith(_SUFFIX) and "/" not in name else None
        if held is not None and is_dead(held):
            yield name, held


def _has_begun_publishing(path: Path) -> bool:
    try:
        content = path.read_text()
    except FileNotFoundError:  # its run ended just now
        return False
    return _PUBLISHING in content


def _locked(path: Path, *, create: bool) -> Ledger | None:
    """The ledger at a path; None where its run lives, or has just ended."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_APPEND | (os.O_CREAT if create else 0), 0o666)
    except FileNotFoundError:  # removed by a run that ended just now, maybe with its folder
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.exists() and os.path.samestat(os.fstat(fd), path.stat()):
            return _LocalLedger(path, fd)
    except BlockingIOError:
        pass
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None
