"""Databases: connections that create nothing, tables by name, and why one can't be reached."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lance

from spec_store.errors import InputError, RetryError, TableNotFoundError, UnsupportedError, did_you_mean

__all__ = ["CLOUD", "connect", "folder_of", "local_table", "open_dataset", "open_table", "table_names"]

CLOUD = (
    "LanceDB Cloud serves rows, not data files, so columns can't be streamed or written in place. Copy the"
    " table to a local or object-store database first."
)
_SEPARATOR = "$"
# What a local database with child namespaces keeps them in.
_MANIFEST = "__manifest"
_PLAIN_NAME = re.compile(r"[\w-][\w.-]*", re.ASCII)
# Lance reads a local path as a URL, whose query begins at a question mark.
_NOT_IN_PATHS = re.compile(r"[?\x00-\x1f]")

# In what Lance says of a store: its servers' words first, then its own.
_NO_ANSWER = re.compile(
    r"connection refused|dns error|timed out|connection reset|network is unreachable", re.I
)
_REASONS = [
    re.compile(r"<Message>([^<]+)"),
    re.compile(r'body: Some\("([^"]+)"'),
    re.compile(r"^Invalid input, ([^\n]+)"),
]


def folder_of(uri: str) -> Path | None:
    """The folder of a local database, by its path or ``file://`` URI; None for an object store.

    Raises InputError for an empty path, and for one with characters that Lance can't open.
    """
    if "://" in uri and not uri.startswith("file://"):
        return None
    path = uri.removeprefix("file://")
    if not path.strip():
        raise InputError("The database's path is empty: give a folder or a URI with --db or $SPEC_STORE_DB.")
    if found := _NOT_IN_PATHS.search(os.path.abspath(path)):
        raise InputError(
            f"Database {os.path.abspath(path)!r} has {found[0]!r} in its path, which Lance can't open. Rename"
            " the folder, or give a symbolic link to it."
        )
    return Path(path)


def connect(uri: str, options: Mapping[str, str] | None) -> Any:
    """A connection to a database that exists. Raises TableNotFoundError, UnsupportedError, InputError."""
    if uri.startswith("db://"):
        raise UnsupportedError(f"{uri} is a cloud database: {CLOUD}")
    folder = folder_of(uri)
    if folder is not None and not folder.is_dir():  # connecting would create the folder
        raise TableNotFoundError(
            f"No LanceDB database at {uri}: expected a folder of .lance tables. Give --db or $SPEC_STORE_DB."
        )
    import lancedb  # over a second of CPU time, which local tables can be read without

    with _reaching(uri):
        return lancedb.connect(uri, storage_options=dict(options) if options else None)


def table_names(db: Any, namespace: Sequence[str] = ()) -> list[str]:
    """All tables of a database, or of a child namespace."""
    names: list[str] = []
    token: str | None = None
    with _reaching(db.uri):
        while True:
            page = db.list_tables(namespace_path=list(namespace), page_token=token)
            names += page.tables
            token = page.page_token
            if not token:
                return names


def local_table(uri: str, table: str) -> Path | None:
    """Where a local database that exists has, or would have, a table; None where LanceDB has to say."""
    folder = folder_of(uri)
    if folder is None or not folder.is_dir() or not _PLAIN_NAME.fullmatch(table):
        return None
    return folder.absolute() / f"{table}.lance"


def open_table(db: Any, table: str | None) -> Any:
    """A handle on a table; one in a child namespace by the name that LanceDB shows, ``namespace$table``.

    Raises TableNotFoundError, with the nearest name.
    """
    if table is None:
        raise InputError(f"No table is named for database {db.uri}. {did_you_mean('', table_names(db))}")
    *namespace, name = table.split(_SEPARATOR)
    known = table_names(db, namespace)
    if name not in known:
        names = [_SEPARATOR.join([*namespace, n]) for n in known]
        raise _not_found(table, db.uri, names, _namespaces(db, namespace))
    with _reaching(db.uri):
        try:
            return db.open_table(name, namespace_path=namespace)
        except ValueError as error:
            if "was not found" not in str(error):
                raise
    raise TableNotFoundError(f"Table {table!r} in database {db.uri} holds no version: it is being created.")


def open_dataset(uri: str, table: str | None, options: Mapping[str, str] | None) -> lance.LanceDataset:
    """The newest version of a table; the same errors as `connect` and `open_table`.

    A table in a local folder is opened by its path.
    """
    path = None if table is None else local_table(uri, table)
    if path is not None and path.is_dir():
        with _reaching(uri):
            return lance.dataset(str(path))
    if path is not None and not (path.parent / _MANIFEST).exists():
        raise _not_found(table or "", uri, sorted(p.stem for p in path.parent.glob("*.lance")))
    return open_table(connect(uri, options), table).to_lance()


def _not_found(table: str, uri: str, names: Sequence[str], more: str = "") -> TableNotFoundError:
    return TableNotFoundError(f"No table {table!r} in database {uri}. {did_you_mean(table, names)}{more}")


def _namespaces(db: Any, namespace: Sequence[str]) -> str:
    """Which namespace on the way to a table is not there, else how tables of further ones are named."""
    for depth, name in enumerate(namespace):
        known = db.list_namespaces(namespace_path=list(namespace[:depth])).namespaces
        if name not in known:
            return f" There is no namespace {name!r}. {did_you_mean(name, known)}"
    below = db.list_namespaces(namespace_path=list(namespace)).namespaces
    if not below:
        return ""
    first = _SEPARATOR.join([*namespace, below[0], "table"])
    return f" Tables in namespaces ({', '.join(below)}) are named as in '{first}'."


@contextmanager
def _reaching(uri: str) -> Iterator[None]:
    """Say of a database that can't be reached what was tried and what to do.

    Raises
    ------
    TableNotFoundError
        There is no such bucket or namespace.
    RetryError
        The store does not answer.
    InputError
        Any other reason: the kind of URI, credentials.
    """
    try:
        yield
    except (ValueError, OSError, RuntimeError) as error:
        said = str(error)
        if "NoSuchBucket" in said:
            raise TableNotFoundError(f"Database {uri} can't be opened: there is no such bucket.") from error
        if "Namespace not found" in said:
            raise TableNotFoundError(
                f"Database {uri} has no child namespaces: a name with {_SEPARATOR} is one of a table in them."
            ) from error
        if refusal := _NO_ANSWER.search(said):
            raise RetryError(
                f"Database {uri} can't be reached: {refusal[0].lower()}. Check the endpoint"
                " (--storage-option) and the network, and try again."
            ) from error
        reason = next((found[1] for kind in _REASONS if (found := kind.search(said))), said)
        raise InputError(f"Database {uri} can't be opened: {' '.join(reason.split())[:300]}.") from error
