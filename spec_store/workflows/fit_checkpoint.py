"""A fitted and evaluated alignment, kept until its column is written."""

from __future__ import annotations

import io
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..alignment.maps import AlignmentMap, load_map
from ..connector import Source, Workspace
from ..runs.records import AlignmentRecord
from .checkpoint import Checkpoint, Content

__all__ = ["FitCheckpoint"]

_MAP = "map"


class FitCheckpoint(Checkpoint):
    """What is found before the column is written.

    Attributes
    ----------
    record, map, queries
        Those of the `Alignment` that was interrupted; None where none is continued.
    """

    parts = (_MAP,)

    def __init__(self, source: Source, workspace: Workspace | None = None, stem: str = "") -> None:
        super().__init__(source, workspace, stem)
        self.record: AlignmentRecord | None = None
        self.map: AlignmentMap | None = None
        self.queries: NDArray[np.float32] | None = None
        self._is_kept = False

    @property
    def progress(self) -> str:
        """There is one step."""
        return "after its map was fitted" if self._is_kept else ""

    def keep(self, record: AlignmentRecord, map: AlignmentMap, queries: NDArray[np.float32]) -> None:
        """Keep a fit, where that is worth it."""
        if not self._is_kept and self._is_due(map.weights.nbytes + queries.nbytes, 1.0):
            self._is_kept = self._put({_MAP: lambda: _content(record, map, queries)}, first=True)

    def _take(self, found: Mapping[str, Content]) -> None:
        header, payload = found[_MAP]
        file = io.BytesIO(payload)
        self.queries = np.load(file, allow_pickle=False)
        self.map = load_map(io.BytesIO(file.read()))
        row = header["record"]
        created = datetime.fromisoformat(row["created_at"])
        self.record = AlignmentRecord.from_row({**row, "created_at": created})
        self._is_kept = True

    def _forget(self) -> None:
        self.record = self.map = self.queries = None
        self._is_kept = False


def _content(record: AlignmentRecord, map: AlignmentMap, queries: NDArray[np.float32]) -> Content:
    row: dict[str, Any] = {**record.to_row(), "created_at": record.created_at.isoformat()}
    file = io.BytesIO()
    np.save(file, queries, allow_pickle=False)
    return {"record": row}, file.getvalue() + map.to_bytes()
