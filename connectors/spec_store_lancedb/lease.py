"""Objects that belong to one living run: what a lock is to a file, in a store that has no locks.

A leased object's first line names its run, host and process. The run writes it again at intervals; when it
hasn't for some minutes, it counts as dead, and another run may take the object over. Every write is made on
condition that the object is as its run last left it, so that of two runs that want it one gets it, and one
that had been taken for dead notices.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from typing import Any

from spec_store.errors import RetryError

from .objects import NEW, Held, Objects, TakenError

__all__ = [
    "SECONDS_VARIABLE",
    "Lease",
    "LeaseLostError",
    "content_of",
    "is_dead",
    "lease_seconds",
    "owner_of",
    "take",
]

SECONDS_VARIABLE = "SPEC_STORE_LEASE_SECONDS"
"""The environment variable that changes how long a lease lasts; all who use a table need the same value."""

# Long enough for a network that is away for minutes, a laptop's nap, and a store that throttles: a run that
# loses its lease while it lives has worked in vain. Short enough to wait for after a machine has died; after
# a process that died on this machine nobody waits at all.
_SECONDS = 300.0
_RENEWALS = 6
_LEAST_WAIT = 0.5
_ATTEMPTS = 5


class LeaseLostError(RetryError):
    """Another run has taken over what this one was writing."""


def lease_seconds() -> float:
    """After how many seconds without a sign of life a run counts as dead."""
    return float(os.environ.get(SECONDS_VARIABLE, _SECONDS))


class Lease:
    """An object that is ours, with the `content` that it holds behind its first line.

    A thread renews it until it is released.
    """

    def __init__(self, objects: Objects, name: str, tag: str | None, content: bytes) -> None:
        self.name = name
        self.content = content
        self._objects = objects
        self._tag = tag
        self._owner = {"run": uuid.uuid4().hex, **_here()}
        self._writes = threading.Lock()
        self._ended = threading.Event()
        self._lost = False
        self._put(content)
        threading.Thread(target=self._renew, name="spec-store-lease", daemon=True).start()

    def write(self, content: bytes) -> None:
        """Replace the content. Raises LeaseLostError where another run has taken it."""
        with self._writes:
            try:
                self._put(content)
            except TakenError as error:
                self._lost = True
                raise LeaseLostError(
                    "Another spec-store run took over from this one, which had given no sign of life for"
                    f" {lease_seconds():.0f} seconds. Nothing more is written by this one."
                ) from error
            self.content = content

    def check(self) -> None:
        """Renew now. Raises LeaseLostError."""
        self.write(self.content)

    def release(self, *, remove: bool) -> None:
        """Give it up; unless it is to be removed its content is there for the next run to take over."""
        self._ended.set()
        with self._writes:
            if self._lost:
                return
            if remove:
                self._objects.delete(self.name)
            else:
                self._owner = {}
                self._put(self.content)

    def _put(self, content: bytes) -> None:
        expected = None if self._objects.unconditional else self._tag
        first = json.dumps({"lease": {**self._owner, "written": time.time()}}).encode()
        data = first + b"\n" + content
        try:
            self._tag = self._objects.put(self.name, data, expected)
        except TakenError:
            # A write whose answer was lost, and that was sent again, meets itself.
            held = self._objects.get(self.name)
            if held is None or held.data != data:
                raise
            self._tag = held.tag

    def _renew(self) -> None:
        while not self._ended.wait(max(lease_seconds() / _RENEWALS, _LEAST_WAIT)):
            with self._writes:
                if self._ended.is_set() or self._lost:
                    return
                try:
                    self._put(self.content)
                except TakenError:
                    self._lost = True
                except Exception:  # the store may answer again before the lease has run out
                    continue


def take(objects: Objects, name: str, *, create: bool) -> Lease | None:
    """The object of this name as ours, with what a dead run left in it.

    Parameters
    ----------
    create
        Make one where there is none.

    Returns
    -------
    None where a living run holds it, or where there is none and none is to be made.
    """
    for _ in range(_ATTEMPTS):
        held = objects.get(name)
        if held is None and not create:
            return None
        if held is not None and not is_dead(held):
            return None
        try:
            if held is None:
                return Lease(objects, name, NEW, b"")
            return Lease(objects, name, held.tag, content_of(held))
        except TakenError:  # by another run, just now
            time.sleep(0.05)
    return None


def content_of(held: Held) -> bytes:
    """What is behind the first line."""
    return held.data.partition(b"\n")[2]


def owner_of(held: Held) -> dict[str, Any]:
    """Whose it is; nothing where it has been released, or is none of ours."""
    try:
        return dict(json.loads(held.data.partition(b"\n")[0])["lease"])
    except (ValueError, KeyError, TypeError):
        return {}


def is_dead(held: Held) -> bool:
    """Whether the object's run has released it, has ended on this machine, or has not renewed it in time."""
    owner = owner_of(held)
    if "run" not in owner:
        return True
    if _has_ended(owner):
        return True
    age = time.time() - owner["written"] if held.age is None else held.age
    return bool(age > lease_seconds())


def _here() -> dict[str, Any]:
    """What tells this process from all others, as far as the system knows."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "machine": _machine(),
        "started": _started(os.getpid()),
    }


def _has_ended(owner: dict[str, Any]) -> bool:
    """Whether the run's process is known to be gone: only one of this machine can be."""
    if owner.get("machine") is None or owner["machine"] != _machine():
        return False
    return bool(_started(owner["pid"]) != owner["started"])


def _machine() -> str | None:
    """This machine since it was started, and the space of its process numbers: a container has its own."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            boot = file.read().strip()
        return f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # no Linux
        return None


def _started(pid: int) -> str | None:
    """When a process began, in the system's own measure; None for one that is not there."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
