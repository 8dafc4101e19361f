"""A planned switch of models: what is searched before and after it, read from a source batch by batch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..alignment.maps import AlignmentMap, load_map
from ..connector import Source, find_field
from ..errors import ColumnNotFoundError, InputError
from ..keys import hash_keys
from ..stores.filters import parenthesized, quoted
from ..stores.join import Joined
from ..stores.locate import Database, open_columns, open_table
from ..stores.references import ColumnRef
from ..stores.vectors import decode, normalize_rows
from ..stores.view import KEY_ROWS, View
from .aligned import EMBEDDED, origin_column
from .annotated import held_alignments, recorded_map
from .pairs import SPLIT_SEED, column_widths

__all__ = ["Switch", "SwitchRows", "open_switch"]

GivenMap = AlignmentMap | str | os.PathLike[str] | Literal["recorded"] | None
# A stored row with this cosine to the target's vector holds that vector, rounded to the column's type.
_SAME = 1 - 1e-5


class SwitchRows(NamedTuple):
    """Rows of both models and of the index, unit length, float32; rows of NaN where there is no vector."""

    source: NDArray[np.float32]
    target: NDArray[np.float32]
    indexed: NDArray[np.float32]
    embedded: NDArray[np.bool_]

    def chosen(self, rows: NDArray[np.bool_]) -> SwitchRows:
        """Some of them."""
        return SwitchRows(self.source[rows], self.target[rows], self.indexed[rows], self.embedded[rows])


@dataclass(frozen=True)
class Switch:
    """What a searcher queries before and after a switch.

    Attributes
    ----------
    source
        The table, or the join of stores, under its own row keys.
    identity
        The column that names rows for the split; None where the row keys do.
    columns, widths
        Source and target column, and their dimensions.
    map
        None for a switch without one.
    name
        What the map is called; None for none.
    aligned
        The column that `align` wrote with it, where the source holds it: what the index holds now.
    n_without_target
        Rows that a migration under way has not embedded yet. What they should be found by is not known, and
        the others hold the target's own vectors: these are evaluated, as if all of them were mapped.
    """

    source: Source
    identity: str | None
    columns: tuple[str, str]
    widths: tuple[int, int]
    map: AlignmentMap | None
    name: str | None
    aligned: str | None
    about: dict[str, Any] = field(default_factory=dict)
    n_without_target: int = 0

    @property
    def in_place(self) -> bool:
        """Whether the index stays in the source's space, where the source model's queries are asked."""
        return self.map is not None and bool(self.about.get("in_place", False))

    @property
    def origin(self) -> str | None:
        """The column that says which rows hold the target's own vectors already; None where there is none."""
        name = origin_column(self.aligned or "")
        return name if self.aligned and name in self.source.schema.names else None

    @property
    def index_column(self) -> str | None:
        """The column whose vectors are evaluated as they are stored; None where the map is applied."""
        return None if self.n_without_target else self.aligned

    @property
    def seed(self) -> int:
        """Of the split into training and test rows."""
        return int(self.about.get("seed", 0))

    @property
    def held_out(self) -> float:
        """The share of the rows that the map was not fitted on."""
        return float(self.about.get("held_out", 1.0))

    @property
    def embedded_filter(self) -> str | None:
        """Rows that are known to hold the target's own vectors."""
        return None if self.origin is None else f"{quoted(self.origin)} = '{EMBEDDED}'"

    @cached_property
    def read(self) -> list[str]:
        """The columns that `rows` needs."""
        stored = (self.aligned, self.origin) if self.index_column else ()
        return [*self.columns, *(c for c in stored if c)]

    def evaluated(self, where: str | None) -> str | None:
        """The rows of a filter that can be evaluated."""
        if not self.n_without_target:
            return where
        known = f"{quoted(self.columns[1])} IS NOT NULL"
        return known if where is None else f"{parenthesized(where)} AND {known}"

    @property
    def key_column(self) -> tuple[str, pa.DataType]:
        """The column that names rows for people, and its type."""
        if self.identity is not None:
            return self.identity, find_field(self.source, self.identity).type
        first = next(iter(self.source.batches([], batch_rows=1)), None)
        return self.source.key, pa.null() if first is None else first.column(0).type

    def keys(self, where: str | None) -> Iterator[tuple[pa.Array, pa.Array]]:
        """Batches of row keys, and of what identifies rows in the split."""
        more = [] if self.identity is None else [self.identity]
        for batch in self.source.batches(more, where=self.evaluated(where), batch_rows=KEY_ROWS):
            yield batch.column(0), batch.column(len(more))

    def test_rows(self, where: str | None) -> Iterator[tuple[pa.Array, pa.Array]]:
        """As `keys`, of rows that the map was not fitted on."""
        for rows, identities in self.keys(where):
            held = pa.array(hash_keys(identities, SPLIT_SEED + self.seed) / 2.0**64 < self.held_out)
            yield rows.filter(held), identities.filter(held)

    def rows(self, batch: pa.RecordBatch) -> SwitchRows:
        """Decode a batch of a key and `read`."""
        a, b = (
            self._unit_rows(batch, column, width)
            for column, width in zip(self.columns, self.widths, strict=True)
        )
        if self.map is None:
            return SwitchRows(a, b, a, np.zeros(len(a), bool))
        reference = a if self.in_place else b
        if self.index_column is None:
            return SwitchRows(a, b, self.mapped(a), np.zeros(len(a), bool))
        indexed = self._unit_rows(batch, self.index_column, self.map.out_width)
        missing = np.isnan(indexed[:, 0])
        if missing.any():  # rows that came later: as `update` will fill them
            indexed[missing] = self.mapped(a[missing])
        if self.origin is not None:
            origin = batch.column(self.origin).cast(pa.string()).to_pylist()
            return SwitchRows(a, b, indexed, np.array([o == EMBEDDED for o in origin], bool))
        return SwitchRows(a, b, indexed, np.einsum("ij,ij->i", indexed, reference) > _SAME)

    def reference(self, rows: SwitchRows) -> NDArray[np.float32]:
        """The vectors of the model that queries come from after the switch."""
        return rows.source if self.in_place else rows.target

    def mapped(self, a: NDArray[np.float32]) -> NDArray[np.float32]:
        """The map's output at unit length."""
        assert self.map is not None
        with np.errstate(invalid="ignore"):
            return np.asarray(normalize_rows(self.map.transform(a)))

    def _unit_rows(self, batch: pa.RecordBatch, column: str, width: int) -> NDArray[np.float32]:
        found = decode(column, batch.column(column), width, directions=True, keys=batch.column(0))
        rows = found.normalized(None, "float32").copy()
        rows[~found.usable] = np.nan
        return rows


def open_switch(
    table: str,
    source: str,
    target: str,
    *,
    db: Database,
    map: GivenMap,
    key: str | None,
    on_missing: Literal["error", "drop"],
) -> Switch:
    """Open the columns and the map of a switch.

    Raises
    ------
    InputError
        No such table, column or map, or a map of other widths.
    """
    pair = ColumnRef.parse(source).name, ColumnRef.parse(target).name
    own = open_table(table, db)  # a wrong name is reported before a map that is missing
    fitted, name, aligned = _map(map, own, pair)
    about = fitted.about if fitted else {}
    key = key or about.get("key")
    opened = open_columns([source, target], table=table, db=db, key=key, on_missing=on_missing).source
    widths = column_widths(opened, pair)
    if fitted is not None:
        _check_widths(fitted, pair, widths)
    base = opened.by_own_key() if isinstance(opened, View) else opened
    identity = None if opened.key == base.key else _column_or_none(base, opened.key)
    if aligned not in base.schema.names:
        aligned = None
    switch = Switch(base, identity, pair, widths, fitted, name, aligned, about)
    if switch.origin is None or isinstance(opened, Joined):
        return switch
    return replace(switch, n_without_target=base.count(f"{quoted(pair[1])} IS NULL"))


def _column_or_none(source: Source, name: str) -> str | None:
    """The column that was named as the key; None where the name was lent to a portable key."""
    try:
        find_field(source, name)
    except ColumnNotFoundError:
        return None
    return name


def _check_widths(map_: AlignmentMap, pair: tuple[str, str], widths: tuple[int, int]) -> None:
    if map_.width != widths[0]:
        raise InputError(f"The map takes {map_.width} dimensions; {pair[0]!r} has {widths[0]}.")
    out = 0 if map_.about.get("in_place", False) else 1
    if map_.out_width != widths[out]:
        raise InputError(
            f"The map gives {map_.out_width} dimensions; {pair[out]!r}, whose queries are asked after the"
            f" switch, has {widths[out]}."
        )


def _map(
    given: GivenMap, source: Source, pair: tuple[str, str]
) -> tuple[AlignmentMap | None, str | None, str | None]:
    """The map to be evaluated, what it is called, and the column it wrote."""
    if given is None or isinstance(given, AlignmentMap):
        return given, None if given is None else "given", None
    if given != "recorded":
        return load_map(os.fspath(given)), os.fspath(given), None
    run = next((run for run in held_alignments(source) if run.columns == pair), None)
    if run is None:
        raise InputError(
            f"{source.describe()} holds no column that aligns {pair[0]!r} to {pair[1]!r}. Run spec-store"
            " align, or give --map FILE, or --no-map to evaluate the switch without one."
        )
    return recorded_map(run, source), f"run {run.run_id}", run.prefix
