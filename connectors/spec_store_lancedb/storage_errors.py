"""What a failed write to the store means for the person at the keyboard."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from spec_store.errors import InputError, RetryError, SpecStoreError, sentence

__all__ = ["explained", "is_disk_full", "storage_errors"]

# Lance raises these, with the operating system's or the object store's words in the message.
_RAISED = (OSError, ValueError, RuntimeError)
_FULL = re.compile(r"no space left|file too large|quota exceeded|os error (28|27|122)\b", re.I)
_DENIED = re.compile(
    r"permission denied|read-only file system|os error (13|30)\b|accessdenied|\b403 forbidden", re.I
)
_NO_BUCKET = re.compile(r"nosuchbucket|bucket does not exist|bucket not found", re.I)
_UNREACHABLE = re.compile(
    r"error sending request|connection refused|dns error|error trying to connect|timed out", re.I
)


def is_disk_full(error: BaseException) -> bool:
    """Whether a write failed for want of space."""
    return isinstance(error, OSError) and _FULL.search(str(error)) is not None


@contextmanager
def storage_errors(name: str) -> Iterator[None]:
    """Raise what Lance says of a store that can't be written as an error that says what to do.

    Raises
    ------
    InputError
        Writing is not permitted, or there is no such bucket.
    RetryError
        The store has no space left, or doesn't answer.
    """
    try:
        yield
    except _RAISED as error:
        if reason := explained(error, name):
            raise reason from error
        raise


def explained(error: BaseException, name: str) -> SpecStoreError | None:
    """What a store's failure means, where it is one that is known; `name` is the table's."""
    if isinstance(error, SpecStoreError) or not isinstance(error, _RAISED):
        return None
    said = str(error)
    if is_disk_full(error):
        return RetryError(f"No space is left for {name}. Free some space and try again.")
    if _DENIED.search(said):
        return InputError(
            f"{sentence(name)} can't be written: its storage permits reading only. Ask for write access."
        )
    if _NO_BUCKET.search(said):
        return InputError(f"{sentence(name)} can't be written: there is no such bucket.")
    if _UNREACHABLE.search(said):
        reason = re.split(r", (?:/|rust/)", said)[0].removeprefix("LanceError(IO): ")
        return RetryError(
            f"The store of {name} doesn't answer ({reason}). Try again once it does; check endpoint and"
            " network."
        )
    return None
