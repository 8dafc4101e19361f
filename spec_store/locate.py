"""Where a table is: the default database, and sources opened by name."""

from __future__ import annotations

import os

from .connector import Source, get_connector

__all__ = ["DEFAULT_CONNECTOR", "default_db", "open_table"]

DEFAULT_CONNECTOR = "lancedb"


def default_db() -> str:
    """``$SPEC_STORE_DB``, else ``./lancedb``."""
    return os.environ.get("SPEC_STORE_DB", "./lancedb")


def open_table(
    table: str, *, db: str | None = None, connector: str = DEFAULT_CONNECTOR, version: int | None = None
) -> Source:
    """Open and pin a table. Raises TableNotFoundError, ConnectorError."""
    uri = default_db() if db is None else db
    return get_connector(connector).open(uri, table=table, version=version)
