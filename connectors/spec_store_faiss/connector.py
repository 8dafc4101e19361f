"""Opening FAISS index files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from spec_store.connector import Capability, Connector
from spec_store.errors import InputError, UnsupportedError

from .source import FaissSource

__all__ = ["FaissConnector"]


class FaissConnector(Connector):
    """FAISS index files on local disk. They are read only: results go to a table or file of their own."""

    name: ClassVar[str] = "faiss"
    capabilities: ClassVar[frozenset[Capability]] = frozenset({Capability.TAKE})

    def open(
        self,
        uri: str,
        *,
        table: str | None = None,
        version: int | None = None,
        options: Mapping[str, str] | None = None,
    ) -> FaissSource:
        """Open an index file; `table`, `version` and `options` have no meaning here and are refused."""
        if "://" in uri:
            raise UnsupportedError(f"{uri} is not a local file: FAISS maps index files into memory.")
        for name, given in (("table", table), ("version", version), ("options", options)):
            if given:
                raise InputError(f"FAISS indices have no {name}, and {given!r} was given for {uri}.")
        return FaissSource.open(uri)
