"""Two-dimensional maps of a sample, computed once and stored with the run."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..connector import Source
from ..errors import SpecStoreError
from ..progress import Progress
from ..reporting.projection import Method, project
from ..reporting.sample import ReportSample
from ..runs.records import ComparisonRecord
from ..runs.registry import Registry

__all__ = ["Maps", "stored_maps"]


@dataclass(frozen=True)
class Maps:
    """Places of the sampled rows in a plane for each embedding.

    Attributes
    ----------
    points
        By column, shape (n, 2).
    notes
        What a person should know.
    """

    points: Mapping[str, NDArray[np.float32]]
    notes: tuple[str, ...] = ()


def stored_maps(
    source: Source,
    run: ComparisonRecord,
    sample: ReportSample,
    columns: Sequence[str],
    method: Method,
    seed: int,
    progress: Progress,
) -> Maps:
    """The maps that are stored with the run for these very vectors, or new ones, which are then stored.

    Where they can't be stored, as in a database that is read only, a note says so.
    """
    total = len(sample) * len(columns)
    progress("maps", 0, total)
    registry = Registry.of(source.location)
    name = _name(sample, columns, method, seed)
    if registry is not None and (data := registry.artifact(run.run_id, name)) is not None:
        progress("maps", total, total)
        return Maps(_loaded(data, columns))
    points: dict[str, NDArray[np.float32]] = {}
    for column in columns:
        points[column] = project(sample.vectors[column], method, seed)
        progress("maps", len(sample), total)
    if registry is None or not columns:
        return Maps(points)
    try:
        registry.check()
        registry.put_artifact(run.run_id, name, _saved(points, columns))
    except (SpecStoreError, OSError) as error:
        return Maps(points, (f"The maps could not be stored with the run: {error}",))
    return Maps(points)


def _name(sample: ReportSample, columns: Sequence[str], method: Method, seed: int) -> str:
    """Of maps of these vectors: vectors that changed have other maps."""
    h = hashlib.blake2b(digest_size=8)
    for column in columns:
        h.update(column.encode() + sample.vectors[column].tobytes())
    return f"maps {method} {seed} {h.hexdigest()}"


def _saved(points: Mapping[str, NDArray[np.float32]], columns: Sequence[str]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.stack([points[c] for c in columns]), allow_pickle=False)
    return buffer.getvalue()


def _loaded(data: bytes, columns: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    stacked = np.load(io.BytesIO(data), allow_pickle=False)
    return dict(zip(columns, stacked, strict=True))
