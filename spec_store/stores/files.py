"""Files that appear complete or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ..errors import InputError, RetryError, TableNotFoundError

__all__ = ["atomic_file", "check_replaceable"]

_KINDS = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISCHR, "a device"),
)


def check_replaceable(target: str | os.PathLike[str]) -> None:
    """Refuse, before any work, a target that `atomic_file` would refuse.

    Raises
    ------
    TableNotFoundError
        Its folder does not exist.
    InputError
        It is not a plain file, or its folder can't be written to.
    """
    path = Path(target).absolute()
    if not path.parent.is_dir():
        raise TableNotFoundError(f"{path} can't be written: there is no folder {path.parent}.")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise InputError(f"{path} can't be written: the folder {path.parent} is read-only.")
    _plain_mode(path)


@contextmanager
def atomic_file(target: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A binary stream to a new file, which takes the target's name once the block ends without an error.

    Until then, and after an error, whatever has that name stays as it was. Only a plain file is replaced,
    never what a symbolic link, a pipe or a device stands for; the new one keeps its permissions. The partial
    file lies beside the target, under a name that nobody can foresee and that must not exist: no link can be
    put in its way.

    Raises
    ------
    TableNotFoundError, InputError
        As `check_replaceable`.
    RetryError
        The disk is full.
    """
    path = Path(target).absolute()
    check_replaceable(path)
    partial = path.with_name(f".spec-store-{secrets.token_hex(8)}.partial")
    stream = partial.open("xb")
    try:
        with stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        mode = _plain_mode(path)  # again: the work in between may have taken hours
        if mode is not None:
            partial.chmod(mode)
        partial.replace(path)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise RetryError(f"{path} was not written: {error.strerror}. Make room, and run again.") from error
    finally:
        partial.unlink(missing_ok=True)


def _plain_mode(path: Path) -> int | None:
    """The permissions of a plain file, None where there is none. Raises InputError for anything else."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{path} can't be written: {error.strerror}.") from error
    if stat.S_ISREG(mode):
        return mode & 0o777
    kind = next((words for matches, words in _KINDS if matches(mode)), "not a plain file")
    raise InputError(f"{path} is {kind}: only a plain file can be replaced. Give another name.")
