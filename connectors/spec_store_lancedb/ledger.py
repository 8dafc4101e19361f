"""What a run has staged and how far its publishing went, kept beside the table: a kill is recoverable.

A ledger is a file of JSON lines in the table's folder `_spec_store`, named by the columns it stages and
locked while its run lives. One whose lock can be had belongs to a run that is dead. An object store has no
locks: there a ledger is an object that exists only while its run publishes, which takes seconds, and its run
counts as dead when it is ten minutes old. What that costs if it was alive all the same is a commit conflict.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import tempfile
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import lance

from spec_store.errors import RetryError

from .dataset import local_folder

__all__ = ["FOLDER", "Ledger", "Staged", "dead_ledgers", "open_ledger"]

FOLDER = "_spec_store"
_SUFFIX = ".jsonl"
_DEAD_AFTER_SECONDS = 600.0
_LOCK_ATTEMPTS = 5


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
    """The ledger of one run, written a line at a time. `name` is that of its file, without the suffix."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.state = State()

    def start(self, token: str, marks: Mapping[str, Mapping[str, str]]) -> None:
        """Say whose ledger this is; `marks` are the field metadata by result column."""
        self._record({"token": token, "marks": {n: dict(own) for n, own in marks.items()}})

    def begin(self, path: str) -> None:
        """A column file of this name may exist from now on."""
        self._record({"begun": path})

    def add(self, staged: Staged) -> None:
        """A column file is complete and closed."""
        self._record({"staged": asdict(staged)})

    def removed(self, path: str) -> None:
        """A column file was deleted."""
        self._record({"removed": path})

    def publish(self, version: int, before: Mapping[str, str | None]) -> None:
        """Publishing begins upon a version in which the columns name the runs `before`."""
        self._record({"publishing": version, "before": dict(before), "at": time.time()})

    def adding(self) -> None:
        """Null columns may be in the table from now on."""
        self._record({"adding": True})

    def settled(self, *, landed: bool) -> None:
        """Publishing has ended; where it has `landed`, the column files are part of the table."""
        self._record({"landed": landed})

    def _record(self, change: dict[str, Any]) -> None:
        line = json.dumps(change)
        self.state.apply(json.loads(line))
        self._append(line + "\n")

    def _read(self, content: str) -> None:
        """Take over what a dead run left."""
        for line in content.splitlines():
            self.state.apply(json.loads(line))

    @abstractmethod
    def _append(self, line: str) -> None: ...

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

    def _append(self, line: str) -> None:
        end = os.lseek(self._fd, 0, os.SEEK_END)
        data = line.encode()
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
    """An object that is there while its run publishes, and replaced at each change."""

    def __init__(self, dataset: lance.LanceDataset, name: str) -> None:
        super().__init__(name)
        self._session = dataset.new_file_session()
        self._lines = ""
        self._stored = False

    @classmethod
    def load(cls, dataset: lance.LanceDataset, name: str) -> Ledger:
        ledger = cls(dataset, name)
        with tempfile.TemporaryDirectory() as folder:
            ledger._session.download_file(f"{FOLDER}/{name}{_SUFFIX}", f"{folder}/ledger")
            ledger._lines = Path(folder, "ledger").read_text()
        ledger._stored = True
        ledger._read(ledger._lines)
        return ledger

    def _append(self, line: str) -> None:
        self._lines += line
        if self.state.publishing is not None:
            with tempfile.TemporaryDirectory() as folder:
                Path(folder, "ledger").write_text(self._lines)
                self._session.upload_file(f"{folder}/ledger", f"{FOLDER}/{self.name}{_SUFFIX}")
            self._stored = True
        else:
            self._delete()

    def _delete(self) -> None:
        if self._stored:
            self._session.delete_file(f"{FOLDER}/{self.name}{_SUFFIX}")
            self._stored = False

    def close(self, *, remove: bool) -> None:
        if remove:
            self._delete()


def open_ledger(dataset: lance.LanceDataset, columns: Sequence[str]) -> Ledger:
    """The ledger of these columns, locked, with what a dead run left in it.

    Raises RetryError where another living run is writing these columns.
    """
    name = hashlib.blake2b("\n".join(sorted(columns)).encode(), digest_size=8).hexdigest()
    folder = local_folder(dataset)
    if folder is None:
        return _RemoteLedger(dataset, f"{name}-{uuid.uuid4().hex[:8]}")
    path = folder / FOLDER / f"{name}{_SUFFIX}"
    for _ in range(_LOCK_ATTEMPTS):  # another command may be looking for what dead runs left
        path.parent.mkdir(exist_ok=True)
        if ledger := _locked(path, create=True):
            return ledger
        time.sleep(0.05)
    raise RetryError(
        f"Another spec-store run is writing {', '.join(columns)}. Wait for it to end, or give another"
        " --prefix."
    )


def dead_ledgers(dataset: lance.LanceDataset, *, publishing: bool = False) -> Iterator[Ledger]:
    """Locked ledgers of runs that were killed; the caller closes each.

    Parameters
    ----------
    publishing
        Only those whose run was killed after it had begun to change the table.
    """
    folder = local_folder(dataset)
    if folder is None:
        yield from _dead_remotely(dataset)
        return
    for path in sorted((folder / FOLDER).glob(f"*{_SUFFIX}")):
        if publishing and not _has_begun_publishing(path):
            continue  # only looked at: a run that starts now must find the lock free
        if ledger := _locked(path, create=False):
            yield ledger


def _dead_remotely(dataset: lance.LanceDataset) -> Iterator[Ledger]:
    session = dataset.new_file_session()
    for name in session.list(FOLDER):
        if not name.endswith(_SUFFIX):
            continue
        try:
            ledger = _RemoteLedger.load(dataset, Path(name).stem)
        except OSError:
            if session.contains(name):
                raise
            continue  # its run ended just now
        if time.time() - ledger.state.at > _DEAD_AFTER_SECONDS:
            yield ledger


def _has_begun_publishing(path: Path) -> bool:
    try:
        content = path.read_text()
    except FileNotFoundError:  # its run ended just now
        return False
    return '"publishing": ' in content


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
