"""File formats, by suffix and by content."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Literal

from pyarrow import fs

from spec_store.errors import InputError

__all__ = ["SUFFIXES", "Format", "file_format", "stored_format"]

Format = Literal["parquet", "arrow file", "arrow stream"]

SUFFIXES: dict[str, Format] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow file",
    ".feather": "arrow file",
    ".ipc": "arrow file",
    ".arrows": "arrow stream",
}
_ARROW_FILE_MAGIC = b"ARROW1"


def file_format(path: str) -> Format:
    """The format that a file's suffix names. Raises InputError for unknown ones."""
    suffix = PurePosixPath(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path} has suffix {suffix!r}; expected one of {', '.join(SUFFIXES)}.")
    return SUFFIXES[suffix]


def stored_format(filesystem: fs.FileSystem, path: str) -> Format:
    """The format of a file's content: Hugging Face gives Arrow streams the suffix of Arrow files."""
    named = file_format(path)
    if named == "parquet":
        return named
    with filesystem.open_input_stream(path) as stream:
        return "arrow file" if stream.read(len(_ARROW_FILE_MAGIC)) == _ARROW_FILE_MAGIC else "arrow stream"
