"""Which files of a folder are its data: what table formats and writers leave beside them is none."""

from __future__ import annotations

import json
from pathlib import PurePosixPath

from pyarrow import fs

from spec_store.errors import InputError, TableNotFoundError

from .formats import SUFFIXES, file_format
from .remote import file_info

__all__ = ["data_files"]

# Table formats whose folders hold files that their logs have removed, and who reads them.
_DELTA = "a Delta Lake table: some of its files may have been removed by its log. Read it with the deltalake"
_DELTA += " package: DeltaTable(…).to_pyarrow_dataset()"
_ICEBERG = "an Iceberg table: some of its files may have been removed from its snapshot. Read it with the"
_ICEBERG += " pyiceberg package: table.scan().to_arrow()"
_HUDI = "a Hudi table: some of its files are older versions of its rows. Read it with a Hudi reader, as Arrow"


def data_files(filesystem: fs.FileSystem, path: str, uri: str) -> list[str]:
    """The data files at a path, sorted; of a folder of Hugging Face's those that its ``state.json`` names.

    Hidden files and those that writers mark with an underscore are no data.

    Raises
    ------
    TableNotFoundError
        Nothing is there.
    InputError
        A folder with no data files, with files of several formats, or of a table format with a log.
    """
    info = file_info(filesystem, path, uri)
    if info.type == fs.FileType.NotFound:
        raise TableNotFoundError(f"No file or folder {uri}.")
    if info.type == fs.FileType.File:
        file_format(path)
        return [path]
    below = filesystem.get_file_info(fs.FileSelector(path, recursive=True))
    inside = {i.path: PurePosixPath(i.path[len(path) :].strip("/")) for i in below}
    _refuse_table_formats(list(inside.values()), uri)
    top = {str(p) for p in inside.values() if len(p.parts) == 1}
    if "dataset_dict.json" in top:
        raise _several_splits(sorted(top), uri)
    if {"state.json", "dataset_info.json"} <= top:
        return _hugging_face_files(filesystem, path)
    files = sorted(
        i.path
        for i in below
        if i.type == fs.FileType.File
        and PurePosixPath(i.path).suffix.lower() in SUFFIXES
        and not any(part[:1] in "._" for part in inside[i.path].parts)
    )
    formats = {file_format(f) for f in files}
    if len(formats) != 1:
        found = "no Parquet or Arrow files" if not formats else "both Parquet and Arrow files"
        raise InputError(f"Folder {uri} holds {found}; expected files of one format.")
    return files


def _refuse_table_formats(paths: list[PurePosixPath], uri: str) -> None:
    for inner in paths:
        kind = None
        if "_delta_log" in inner.parts:
            kind = _DELTA
        elif ".hoodie" in inner.parts:
            kind = _HUDI
        elif inner.parent.name == "metadata" and inner.name.endswith(".metadata.json"):
            kind = _ICEBERG
        if kind is not None:
            raise InputError(f"Folder {uri} holds {kind}, and give the result.")


def _several_splits(names: list[str], uri: str) -> InputError:
    splits = [name for name in names if "." not in name]
    example = f"{uri.rstrip('/')}/{splits[0] if splits else 'train'}"
    return InputError(
        f"Folder {uri} holds a Hugging Face DatasetDict of the splits {', '.join(splits)}. Name one:"
        f" {example}."
    )


def _hugging_face_files(filesystem: fs.FileSystem, path: str) -> list[str]:
    """What `save_to_disk` wrote, in its order: results of `map` are cached in files beside them."""
    with filesystem.open_input_stream(f"{path}/state.json") as stream:
        state = json.loads(stream.read())
    return [f"{path}/{entry['filename']}" for entry in state["_data_files"]]
