"""An alignment as it was fitted and evaluated: its figures, its map's file, and the column it writes."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..alignment.evaluate import Evaluation
from ..alignment.maps import AlignmentMap
from ..alignment.onnx import is_onnx, to_onnx
from ..alignment.options import AlignOptions
from ..bars import shown
from ..connector import Source
from ..errors import NotBetterError
from ..executor import IN_PROCESS, Executor
from ..progress import Progress, ProgressOption, timed
from ..runs.records import AlignmentRecord
from ..runs.registry import Registry
from ..stores.files import atomic_file
from .aligned import aligned_annotation
from .notebook import alignment_html
from .units import one_blas_thread

__all__ = ["Alignment"]

_NOT_RECORDED = "the run is not recorded: keep the map with --export."


@dataclass(frozen=True, repr=False)
class Alignment:
    """A fitted and evaluated map, and what it takes to write the column.

    Attributes
    ----------
    source
        The pinned source.
    map
        The map that `write` applies.
    evaluations
        Before, each map that was fitted, and the baselines, all on the same held-out rows.
    chosen
        Position of `map` among them, see `spec_store.alignment.validation.best_candidate`.
    queries
        Test vectors of the embedding whose queries the column answers, by which an index is evaluated.
    record
        All figures as plain values: what ``align --json`` prints and the registry keeps.
    executor
        Who computes and writes the column.
    """

    source: Source
    options: AlignOptions
    map: AlignmentMap
    evaluations: list[Evaluation]
    chosen: int
    queries: NDArray[np.float32]
    record: AlignmentRecord
    executor: Executor = IN_PROCESS

    @property
    def run_id(self) -> str:
        """Unique, and sorted by time."""
        return self.record.run_id

    @property
    def columns(self) -> tuple[str, str]:
        """Source and target column."""
        return self.record.columns

    @property
    def column(self) -> str:
        """The result column."""
        return self.record.prefix

    @property
    def before(self) -> Evaluation:
        """The source as it is."""
        return self.evaluations[0]

    @property
    def after(self) -> Evaluation:
        """The map."""
        return self.evaluations[self.chosen]

    @property
    def better(self) -> bool:
        """Whether the map brings the source nearer to the target on held-out rows."""
        return self.record.better

    @property
    def written(self) -> list[str]:
        """The result column, once it is in the store."""
        return list(self.record.written)

    @property
    def warnings(self) -> list[str]:
        """What a person should know."""
        return list(self.record.warnings)

    @property
    def registry(self) -> Registry | None:
        """Where `write` records the run; None for a store that keeps no runs."""
        return Registry.of(self.source.location)

    def __repr__(self) -> str:
        a, b = self.columns
        return (
            f"<Alignment of {a} to {b}: {self.after.name} map, SPEC-diff {self.before.spec_diff:.4g} to"
            f" {self.after.spec_diff:.4g} on {self.record.counts['n_judged']:,} rows,"
            f" {'written' if self.written else 'not written'}>"
        )

    def _repr_html_(self) -> str:
        return alignment_html(self.columns, self.evaluations, self.chosen, self.options, self.record.written)

    def export(self, file: str | os.PathLike[str]) -> None:
        """Save the map for a serving process: ``spec_store.load_map(file).transform(queries)``.

        A file with the suffix ``.onnx`` is an ONNX model, see `spec_store.alignment.to_onnx`. Raises
        InputError where it can't be written.
        """
        content = to_onnx(self.map) if is_onnx(os.fspath(file)) else self.map.to_bytes()
        with atomic_file(file) as stream:
            stream.write(content)

    def write(self, *, force: bool | None = None, progress: ProgressOption = "auto") -> Alignment:
        """Write the column for every row, and record the run with its map; this alignment as written.

        Raises
        ------
        NotBetterError
            The column would be no better than the source on held-out rows, and `force` is not given.
        RetryError
            Commit conflicts exceeded the retry limit; nothing was published.
        """
        if not self.better and not (self.options.force if force is None else force):
            raise NotBetterError(
                f"Not written: on the test rows {self.column!r} has SPEC-diff {self.after.spec_diff:.4g} and"
                f" distance {self.after.distance:.4g} to {self.columns[1]!r}; {self.columns[0]!r} itself has"
                f" {self.before.spec_diff:.4g} and {self.before.distance:.4g}."
                " --force (force=True) writes it all the same."
            )
        with shown(progress) as update:
            return self._write(update)

    def _write(self, progress: Progress) -> Alignment:
        target = self.columns[1] if self.options.only_missing else None
        annotation = aligned_annotation(
            self.map,
            self.source,
            self.columns[0],
            self.column,
            target=target,
            metadata={**self.record.provenance, "spec_store.unit": str(self.map.unit).lower()},
            where=self.options.where,
            batch_rows=self.options.batch_rows,
            threads=self.options.threads,
            progress=lambda rows: progress("write", rows, self._n_all),
            executor=self.executor,
        )
        registry, state = self.registry, self.map.to_bytes()
        if registry is not None:
            registry.check()
            registry.start(replace(self.record, written=tuple(annotation.schema.names)), state)
        progress("write", 0, self._n_all)
        seconds: dict[str, float] = {}
        with timed(seconds, "write"), one_blas_thread():
            published = self.source.annotate(annotation)
        done = self._with(
            seconds,
            written=published.columns,
            written_version=published.version,
            scored_version=published.computed_version,
            warnings=(*self.record.warnings, *published.notes, *([] if registry else [_NOT_RECORDED])),
        )
        if registry is not None:
            registry.finish(done.record, state)
        return done

    def create_index(self, *, progress: ProgressOption = "auto") -> Alignment:
        """Build a vector index on the written column; the record gets its recall@10 against brute force."""
        seconds: dict[str, float] = {}
        with shown(progress) as update, timed(seconds, "index"):
            update("index", 0, self._n_all)
            recall = self.source.latest().create_vector_index(self.column, self.queries)
            update("index", self._n_all, self._n_all)
        return self._with(seconds, index_recall=recall)

    def to_json(self) -> dict[str, Any]:
        """The object that ``align --json`` prints; its keys are stable."""
        return self.record.to_json()

    @property
    def _n_all(self) -> int:
        return self.record.n_rows + self.record.n_skipped

    def _with(self, seconds: dict[str, float], **changes: Any) -> Alignment:
        return replace(self, record=self.record.with_stage(seconds, **changes))
