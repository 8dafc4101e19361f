"""A gate for switching models: does the map serve a cluster or slice, or must its rows be re-embedded?"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..alignment.maps import AlignmentMap, load_map
from ..alignment.metrics import nearest, neighbour_overlap, ranks, recall
from ..connector import Source, take_sample
from ..errors import InputError, did_you_mean
from ..keys import hash_keys, smallest_hashes
from ..progress import Progress, silent
from ..stores.filters import negated, parenthesized
from ..stores.locate import Database, open_columns, open_table
from ..stores.references import ColumnRef
from ..stores.vectors import normalize_rows
from .annotated import held_alignments, held_comparisons, recorded_map
from .pairs import SPLIT_SEED, PairReader, column_widths

__all__ = ["Gate", "GateOptions", "SliceVerdict", "gate"]

_SLICE_ROWS = 1000
_MIN_EVALUATED = 10
Verdict = Literal["keep", "re-embed", "in part", "too few rows"]
_ALL = "true"
_LEAST_RECALL, _LEAST_OVERLAP = 0.8, 0.5
_FAILING = ("re-embed", "in part")


@dataclass(frozen=True)
class GateOptions:
    """What to evaluate a switch on.

    Attributes
    ----------
    slices
        SQL filters beside the SPEC clusters of the newest comparison of these columns.
    k
        Of recall and overlap.
    fail_under
        A slice whose recall (or overlap) is less is to be re-embedded. None is 0.8 of recall, or 0.5 of
        overlap where there is no map into the target's space.
    min_rows
        Slices with fewer rows in the table don't fail the gate.
    judged_rows
        Size of the target index that is searched: a sample of rows that the map was not fitted on.
    key, on_missing
        As in `CompareOptions`; the key is by default the one that `align` was given.
    """

    slices: tuple[str, ...] = ()
    k: int = 10
    fail_under: float | None = None
    min_rows: int = 50
    judged_rows: int = 5000
    key: str | None = None
    on_missing: Literal["error", "drop"] = "error"

    def __post_init__(self) -> None:
        object.__setattr__(self, "slices", tuple(self.slices))
        if self.fail_under is not None and not 0 <= self.fail_under <= 1:
            raise InputError(f"fail_under is {self.fail_under}; expected a share from 0 to 1.")
        for name, least in (("k", 1), ("min_rows", 0), ("judged_rows", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}; expected {least} or more.")

    @classmethod
    def from_keywords(cls, given: dict[str, Any]) -> GateOptions:
        """From keyword arguments; raises InputError naming the nearest option for an unknown one."""
        known = {f.name for f in fields(cls)}
        for name in given:
            if name not in known:
                raise InputError(f"No option {name!r}. {did_you_mean(name, known)}")
        return cls(**given)


@dataclass(frozen=True)
class SliceVerdict:
    """One cluster or slice.

    Attributes
    ----------
    name, where
        What it is, and the SQL filter of its rows.
    n_rows, n_judged
        Its rows in the table, and those evaluated: not used in the fit, 1,000 at most.
    recall
        The share of evaluated rows whose aligned old vector finds its own target among the k nearest; None
        without a map into the target's space.
    overlap
        The share of a row's k nearest neighbours in the target's space that it has in the aligned vectors
        (without a map: in the source's).
    verdict
        By recall, or by overlap where there is none. "in part": what fails are rows of slices that are to be
        re-embedded; without them, the slice would be kept.
    """

    name: str
    where: str
    n_rows: int
    n_judged: int
    recall: float | None
    overlap: float | None
    verdict: Verdict

    @property
    def measure(self) -> float:
        """What the verdict goes by; NaN for too few rows."""
        known = self.recall if self.recall is not None else self.overlap
        return float("nan") if known is None else known


@dataclass(frozen=True)
class Gate:
    """The verdicts on a planned switch.

    Attributes
    ----------
    overall
        Of all rows together.
    slices
        Clusters first, then the slices that were named.
    fail_under, k, min_rows
        As given.
    map
        Which map was evaluated: a run, a file, or None for none.
    re_embed
        SQL filter of the rows to re-embed, None for no rows.
    n_re_embed
        How many these are.
    warnings
        What a person should know before relying on the verdicts.
    """

    table: str | None
    columns: tuple[str, str]
    map: str | None
    k: int
    fail_under: float
    min_rows: int
    overall: SliceVerdict
    slices: tuple[SliceVerdict, ...]
    re_embed: str | None
    n_re_embed: int
    warnings: tuple[str, ...] = ()

    @property
    def failed(self) -> tuple[SliceVerdict, ...]:
        """Clusters and slices of at least `min_rows` rows that the switch would break."""
        evaluated = (self.overall, *self.slices)
        return tuple(s for s in evaluated if s.verdict in _FAILING and s.n_rows >= self.min_rows)

    def to_json(self) -> dict[str, Any]:
        """The object that ``gate --json`` prints; its keys are stable."""
        return {**asdict(self), "passed": not self.failed, "failed": [s.name for s in self.failed]}


def gate(
    table: str,
    source: str,
    target: str,
    *,
    db: Database = None,
    map: AlignmentMap | str | os.PathLike[str] | Literal["recorded"] | None = "recorded",
    progress: Progress = silent,
    options: GateOptions | None = None,
    **keywords: Any,
) -> Gate:
    """Evaluate a switch from `source` to `target`: which rows the map carries over, and which it does not.

    Parameters
    ----------
    map
        "recorded" is the newest that `align` wrote for these columns; else a map, its file, or None for a
        switch without any.
    options
        Everything else; or give the fields of `GateOptions` as keywords.

    Raises
    ------
    InputError
        No such table, columns, map or filter; or no row that the map was not fitted on.

    Notes
    -----
    Cost: a pass over the keys per slice, and 1,000 rows of each read. Recall is against a gallery of
    `judged_rows` targets: the larger it is, the harder.
    """
    if options is None:
        options = GateOptions.from_keywords(keywords)
    elif keywords:
        raise InputError(f"Give either options or keywords ({', '.join(keywords)}), not both.")
    refs = [ColumnRef.parse(column) for column in (source, target)]
    pair = refs[0].name, refs[1].name
    own = open_table(table, db)  # a wrong name is reported before a map that is missing
    fitted, which = _map(map, own, pair)
    about = fitted.about if fitted else {}
    opened = open_columns(
        [source, target],
        table=table,
        db=db,
        key=options.key or about.get("key"),
        on_missing=options.on_missing,
    ).source
    widths = column_widths(opened, pair)
    if fitted is not None and fitted.width != widths[0]:
        raise InputError(f"The map takes {fitted.width} dimensions; {pair[0]!r} has {widths[0]}.")
    reader = PairReader(opened, pair, widths, float(about.get("held_out", 1.0)), int(about.get("seed", 0)))
    clusters = _clusters(opened, pair)
    wanted = [("all rows", _ALL), *clusters, *((where, where) for where in options.slices)]
    counts = [opened.count(where) for _, where in wanted]  # refuses what is no filter before any work

    in_target = fitted is not None and not about.get("in_place", False) and fitted.out_width == widths[1]
    fail_under = options.fail_under
    if fail_under is None:
        fail_under = _LEAST_RECALL if in_target else _LEAST_OVERLAP
    evaluator = _SliceEvaluator(reader, fitted, in_target, options.k, fail_under, options.judged_rows)
    verdicts = []
    progress("gate", 0, len(wanted))
    for (name, where), n_rows in zip(wanted, counts, strict=True):
        verdicts.append(evaluator.verdict(name, where, n_rows))
        progress("gate", 1, len(wanted))
    verdicts, filter_ = _separated(evaluator, verdicts)
    return Gate(
        table=table,
        columns=pair,
        map=which,
        k=options.k,
        fail_under=fail_under,
        min_rows=options.min_rows,
        overall=verdicts[0],
        slices=tuple(verdicts[1:]),
        re_embed=filter_,
        n_re_embed=opened.count(filter_) if filter_ else 0,
        warnings=() if clusters else (_no_clusters(pair),),
    )


def _no_clusters(pair: tuple[str, str]) -> str:
    return (
        f"the table holds no clusters of {pair[0]} and {pair[1]}, so only all rows and the slices named are"
        " evaluated: run spec-store compare first."
    )


def _separated(
    evaluator: _SliceEvaluator, verdicts: Sequence[SliceVerdict]
) -> tuple[list[SliceVerdict], str | None]:
    """Slices that fail by themselves, and those that do for rows of others; the filter of the former.

    The worst comes first, and all rows together last: each is evaluated again without the rows that are to be
    re-embedded by then.
    """
    separated = list(verdicts)
    filters: list[str] = []
    failing = [i for i, v in enumerate(separated) if v.verdict == "re-embed"]
    for i in sorted(failing, key=lambda i: (separated[i].where == _ALL, separated[i].measure)):
        v = separated[i]
        if filters:
            rest = evaluator.verdict(
                v.name, f"{parenthesized(v.where)} AND {negated(' OR '.join(filters))}", v.n_rows
            )
            if rest.verdict != "re-embed":
                separated[i] = replace(v, verdict="in part")
                continue
        filters = [_ALL] if v.where == _ALL else [*filters, parenthesized(v.where)]
    return separated, " OR ".join(filters) or None


def _map(given: Any, source: Source, pair: tuple[str, str]) -> tuple[AlignmentMap | None, str | None]:
    """The map to be evaluated, and what it is called."""
    if given is None or isinstance(given, AlignmentMap):
        return given, None if given is None else "given"
    if given != "recorded":
        return load_map(os.fspath(given)), os.fspath(given)
    run = next((run for run in held_alignments(source) if run.columns == pair), None)
    if run is None:
        raise InputError(
            f"{source.describe()} holds no column that aligns {pair[0]!r} to {pair[1]!r}. Run spec-store"
            " align, or give --map FILE, or --no-map to evaluate the switch without one."
        )
    return recorded_map(run, source), f"run {run.run_id}"


def _clusters(source: Source, pair: tuple[str, str]) -> list[tuple[str, str]]:
    """Name and filter of each cluster of the newest comparison of these columns that the source holds."""
    held = held_comparisons(source, columns=pair)
    return [
        (f"cluster {c.cluster} (grouped by {c.side})", c.where) for c in (held[0].clusters if held else ())
    ]


@dataclass
class _SliceEvaluator:
    reader: PairReader
    map: AlignmentMap | None
    in_target: bool
    k: int
    fail_under: float
    judged_rows: int

    def __post_init__(self) -> None:
        self._gallery_keys, self._gallery = self._rows(_ALL, self.judged_rows)
        if len(self._gallery_keys) < _MIN_EVALUATED:
            raise InputError(
                f"{len(self._gallery_keys)} rows of {self.reader.source.describe()} are test rows of the"
                f" map, never fitted on; at least {_MIN_EVALUATED} are needed to evaluate it."
            )

    def _rows(self, where: str, n: int) -> tuple[NDArray[Any], tuple[NDArray[Any], NDArray[Any]]]:
        """At most `n` held-out rows: their keys, and pairs of unit rows."""
        r = self.reader
        seed = SPLIT_SEED + r.seed
        keys = ((b.column(0), b.column(0)) for b in r.source.batches([], where=where, batch_rows=1 << 16))
        chosen, positions = smallest_hashes(keys, n, seed)
        if not len(chosen):
            return np.empty(0, object), (np.empty((0, r.widths[0])), np.empty((0, r.widths[1])))
        held = hash_keys(chosen, seed) / 2.0**64 < r.held_out
        rows = take_sample(
            r.source, chosen.filter(pa.array(held)), positions[held], list(r.columns), where
        ).combine_chunks()
        if not len(rows):
            return np.empty(0, object), (np.empty((0, r.widths[0])), np.empty((0, r.widths[1])))
        batch = rows.to_batches()[0]
        found = r.decoded(batch)
        keys_of = np.array(batch.column(0).to_pylist(), object)
        return keys_of[found.usable], found.unit_rows(np.ones(len(batch), bool))

    def verdict(self, name: str, where: str, n_rows: int) -> SliceVerdict:
        """Judge a slice's held-out rows against the gallery and themselves."""
        keys, (a, b) = (
            (self._gallery_keys, self._gallery) if where == _ALL else self._rows(where, _SLICE_ROWS)
        )
        if len(keys) < _MIN_EVALUATED:
            return SliceVerdict(name, where, n_rows, len(keys), None, None, "too few rows")
        known = {key: i for i, key in enumerate(self._gallery_keys)}
        new = np.array([key not in known for key in keys])
        own = np.array([known.get(key, -1) for key in keys], np.intp)
        own[new] = len(known) + np.arange(int(new.sum()))
        gallery_a, gallery_b = (
            np.concatenate([held, rows[new]]) for held, rows in zip(self._gallery, (a, b), strict=True)
        )
        gallery_f, f = self._aligned(gallery_a), self._aligned(a)
        overlap = neighbour_overlap(
            nearest(f, self.k, gallery=gallery_f, own=own), nearest(b, self.k, gallery=gallery_b, own=own)
        ).mean()
        found = recall(ranks(f, gallery_b, own), self.k) if self.in_target else None
        measure = float(overlap) if found is None else found
        verdict: Verdict = "keep" if measure >= self.fail_under else "re-embed"
        return SliceVerdict(name, where, n_rows, len(keys), found, float(overlap), verdict)

    def _aligned(self, a: NDArray[Any]) -> NDArray[Any]:
        if self.map is None:
            return a
        return normalize_rows(self.map.transform(a))
