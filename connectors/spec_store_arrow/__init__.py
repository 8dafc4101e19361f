"""The Arrow connector of spec-store: Parquet and Arrow files and folders, and Arrow data in memory."""

from .connector import ArrowConnector
from .files import FileSource
from .memory import DatasetSource, HuggingFaceSource, StreamSource, TableSource

__all__ = [
    "ArrowConnector",
    "DatasetSource",
    "FileSource",
    "HuggingFaceSource",
    "StreamSource",
    "TableSource",
]
