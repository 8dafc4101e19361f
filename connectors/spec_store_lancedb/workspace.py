"""What runs keep beside a table to find again: files in a folder of its own, or objects."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import lance

from spec_store.connector import Claim, Workspace

from .dataset import local_folder
from .lease import Lease, take
from .objects import FOLDER, Objects, objects_of

__all__ = ["unclaimed", "workspace_of"]

# Ledgers are in the same place: names of what is kept differ from theirs, and from each other's claims.
_KEPT = ".kept"
_CLAIM = ".claim"
_PART = ".part"
_ATTEMPTS = 5


def workspace_of(dataset: lance.LanceDataset) -> Workspace:
    """The workspace of a table."""
    folder = local_folder(dataset)
    return _Objects(objects_of(dataset)) if folder is None else _Folder(folder / FOLDER)


def unclaimed(dataset: lance.LanceDataset, *, remove: bool) -> list[str]:
    """What is kept in a table's workspace, and is no living run's; with `remove` it is deleted."""
    workspace, found = workspace_of(dataset), []
    for stem, names in itertools.groupby(sorted(workspace.ages()), lambda name: name.partition(".")[0]):
        if claim := workspace.claim(stem):
            try:
                for name in names:
                    found.append(f"{FOLDER}/{name}")
                    if remove:
                        workspace.delete(name)
            finally:
                claim.release()
    return found


class _Folder(Workspace):
    """Files; the folder is there while any is."""

    bytes_per_second: ClassVar[float] = 5e8

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, name: str, data: bytes) -> None:
        part = self._folder / f"{name}{_PART}"
        with self._made():
            part.write_bytes(data)
            part.replace(self._folder / f"{name}{_KEPT}")

    def get(self, name: str) -> bytes | None:
        try:
            return (self._folder / f"{name}{_KEPT}").read_bytes()
        except FileNotFoundError:
            return None

    def delete(self, name: str) -> None:
        for suffix in (_PART, _KEPT):  # a kill may have left part of it
            (self._folder / f"{name}{suffix}").unlink(missing_ok=True)
        self._tidy()

    def ages(self) -> dict[str, float]:
        found = {}
        for path in self._folder.glob("*"):
            if path.suffix in (_KEPT, _PART, _CLAIM):
                with contextlib.suppress(FileNotFoundError):  # deleted just now
                    found[path.stem] = time.time() - path.stat().st_mtime
        return found

    def claim(self, name: str) -> Claim | None:
        path = self._folder / f"{name}{_CLAIM}"
        for attempt in range(_ATTEMPTS):
            try:
                with self._made():
                    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
                break
            except FileNotFoundError:  # another run removed the folder just now
                if attempt == _ATTEMPTS - 1:
                    raise
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(fd), path.stat()):
                return _FileClaim(self, path, fd)
        except BlockingIOError:
            pass
        os.close(fd)
        return None

    @contextlib.contextmanager
    def _made(self) -> Iterator[None]:
        """A block that writes into the folder; should it fail, nothing is left of it."""
        self._folder.mkdir(exist_ok=True)
        try:
            yield
        except BaseException:
            self._tidy()
            raise

    def _tidy(self) -> None:
        with contextlib.suppress(OSError):  # something else is there too, or nothing has been
            self._folder.rmdir()


class _FileClaim(Claim):
    """A locked file."""

    def __init__(self, folder: _Folder, path: Path, fd: int) -> None:
        self._folder = folder
        self._path = path
        self._fd = fd

    def release(self) -> None:
        self._path.unlink(missing_ok=True)
        os.close(self._fd)
        self._folder._tidy()


class _Objects(Workspace):
    """Objects."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def put(self, name: str, data: bytes) -> None:
        self._objects.put(f"{name}{_KEPT}", data)

    def get(self, name: str) -> bytes | None:
        held = self._objects.get(f"{name}{_KEPT}")
        return None if held is None else held.data

    def delete(self, name: str) -> None:
        self._objects.delete(f"{name}{_KEPT}")

    def ages(self) -> dict[str, float]:
        found = self._objects.ages()
        return {n.rpartition(".")[0]: age or 0.0 for n, age in found.items() if n.endswith((_KEPT, _CLAIM))}

    def claim(self, name: str) -> Claim | None:
        lease = take(self._objects, f"{name}{_CLAIM}", create=True)
        return None if lease is None else _LeasedClaim(lease)


class _LeasedClaim(Claim):
    """A leased object."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease

    def release(self) -> None:
        self._lease.release(remove=True)
