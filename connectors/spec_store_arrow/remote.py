"""File systems by path or URI, with errors that say which place can't be reached."""

from __future__ import annotations

from pathlib import Path

from pyarrow import fs

from spec_store.errors import InputError

__all__ = ["file_info", "locate"]

_PATIENCE_SECONDS = 30


def locate(uri: str) -> tuple[fs.FileSystem, str]:
    """The file system of a path or URI, and the path in it. Raises InputError."""
    if "://" not in uri:
        return fs.LocalFileSystem(), str(Path(uri).absolute())
    try:
        found: tuple[fs.FileSystem, str] = fs.FileSystem.from_uri(_impatient(uri))
    except Exception as error:  # whatever the scheme's own library raises
        raise InputError(f"{uri} can't be reached: {_reason(error)}") from error
    return found


def file_info(filesystem: fs.FileSystem, path: str, uri: str) -> fs.FileInfo:
    """What is at a path. Raises InputError where the store can't be reached."""
    try:
        return filesystem.get_file_info(path)
    except Exception as error:  # whatever the scheme's own library raises
        raise InputError(f"{uri} can't be reached: {_reason(error)}") from error


def _impatient(uri: str) -> str:
    """Google's client retries for 15 minutes by default."""
    if not uri.startswith(("gs://", "gcs://")) or "retry_limit_seconds" in uri:
        return uri
    return f"{uri}{'&' if '?' in uri else '?'}retry_limit_seconds={_PATIENCE_SECONDS}"


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
