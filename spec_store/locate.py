"""Where a table is: the default database, and sources opened by name."""

from __future__ import annotations

import os
from dataclasses import dataclass

from .connector import Source, get_connector

__all__ = ["DEFAULT_CONNECTOR", "Location", "default_db", "open_table"]

DEFAULT_CONNECTOR = "lancedb"


@dataclass(frozen=True)
class Location:
    """A table by name, and the source that was opened there."""

    connector: str
    uri: str
    table: str
    source: Source

    def open(self) -> Source:
        """The latest version of the table."""
        return get_connector(self.connector).open(self.uri, table=self.table)


def default_db() -> str:
    """``$SPEC_STORE_DB``, else ``./lancedb``."""
    return os.environ.get("SPEC_STORE_DB", "./lancedb")


def open_table(
    table: str, *, db: str | None = None, connector: str = DEFAULT_CONNECTOR, version: int | None = None
) -> Location:
    """Open and pin a table. Raises TableNotFoundError, ConnectorError."""
    uri = default_db() if db is None else db
    return Location(connector, uri, table, get_connector(connector).open(uri, table=table, version=version))
