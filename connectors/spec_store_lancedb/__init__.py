"""The LanceDB connector of spec-store: pinned streaming reads, and atomic write-back of result columns."""

import os

# Lance warns on stderr, once per commit, that the commit this connector relies on may change. That it holds
# is tested here with each release; a person running a comparison can do nothing about it. The logger reads
# its settings at import. Whoever sets LANCE_LOG sees all that they ask for.
os.environ.setdefault("LANCE_LOG", "warn,lance_table::transaction::manifest_build=error")

from .connector import LanceDBConnector  # after the logger's settings
from .source import LanceSource

__all__ = ["LanceDBConnector", "LanceSource"]
