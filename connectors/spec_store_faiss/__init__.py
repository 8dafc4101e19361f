"""The FAISS connector of spec-store: the vectors of an index, with their ids, streamed from its file.

Index files from strangers are not safe: FAISS reads them with native code that trusts what it reads.
This connector bounds what a file may make it allocate, which does not make hostile files harmless.
"""

from .connector import FaissConnector
from .source import FaissSource

__all__ = ["FaissConnector", "FaissSource"]
