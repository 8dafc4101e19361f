"""What a run has staged: kept on disk beside the table, so that a killed run leaves no riddle.

A ledger is a file of JSON lines, named by the columns it stages, and locked while its run lives. One whose
lock can be had belongs to a run that is dead: with the same token its staged files serve the next run, else
they are removed. Once publishing has begun the files may be part of the table, and are left alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from spec_store.errors import RetryError

__all__ = ["Ledger", "Staged"]

_FOLDER = "_spec_store"


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


class Ledger:
    """The staged files of one run, on disk for a local table, in memory for an object store.

    Parameters
    ----------
    table_uri
        The table's folder or URI.
    columns
        The result columns; two living runs can't stage the same ones.
    token
        Of the annotation.
    """

    def __init__(self, table_uri: str, columns: Sequence[str], token: str) -> None:
        self.staged: dict[int, Staged] = {}
        self.orphans: list[str] = []
        self._token = token
        self._columns = columns
        self._path: Path | None = None
        self._file: IO[str] | None = None
        if "://" not in table_uri:
            name = hashlib.blake2b("\n".join(sorted(columns)).encode(), digest_size=8).hexdigest()
            self._path = Path(table_uri) / _FOLDER / f"{name}.jsonl"

    def open(self) -> None:
        """Lock the ledger and take over what a dead run left in it; `close` undoes it at any moment.

        Raises RetryError where another living run is writing these columns.
        """
        if self._path is not None:
            self._file = _locked(self._path, self._columns)
            self._adopt(self._file)

    def _adopt(self, file: IO[str]) -> None:
        """Take over what a dead run left."""
        lines = [json.loads(line) for line in file if line.endswith("\n")]
        header, entries = (lines[0], lines[1:]) if lines else ({}, [])
        published = [e["publishing"] for e in entries if "publishing" in e][-1:] == [True]
        staged = [Staged(**{**e, "files": tuple(e["files"])}) for e in entries if "path" in e]
        if not published and header.get("token") == self._token:
            self.staged = {s.fragment_id: s for s in staged}
        elif not published:
            self.orphans = [s.path for s in staged]
        file.seek(0)
        file.truncate()
        self._write({"token": self._token, "pid": os.getpid()})
        for s in self.staged.values():
            self._write(asdict(s))

    def add(self, staged: Staged) -> None:
        """Record a file that is whole and closed."""
        self.staged[staged.fragment_id] = staged
        self._write(asdict(staged))

    def discard(self, fragment_id: int) -> Staged:
        """Forget a file that no longer fits; the caller deletes it."""
        return self.staged.pop(fragment_id)

    def publishing(self, begun: bool) -> None:
        """From here on the staged files may be part of the table; or, after a lost commit, are not."""
        self._write({"publishing": begun})

    def close(self) -> None:
        """End the run: nothing staged is left to be found."""
        if self._file is None or self._path is None:
            return
        self._path.unlink(missing_ok=True)
        self._file.close()
        with contextlib.suppress(OSError):  # another run's ledger is there too
            self._path.parent.rmdir()

    def _write(self, entry: dict[str, object]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(entry) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())


def _locked(path: Path, columns: Sequence[str]) -> IO[str]:
    while True:
        path.parent.mkdir(exist_ok=True)
        try:
            file = path.open("a+")
        except FileNotFoundError:  # the folder was removed by a run that ended just now
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise RetryError(
                f"Another spec-store run is writing {', '.join(columns)}. Wait for it to end, or give another"
                " --prefix."
            ) from error
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            file.seek(0)
            return file
        file.close()  # its run ended between opening and locking, and removed it
