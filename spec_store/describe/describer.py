"""One pass over a table that tells what is over-represented in each cluster of its rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ..errors import ColumnNotFoundError, InputError
from .encoders import OTHER, Encoder, Presence, plain
from .kinds import candidates, plan
from .members import Counts, Members
from .naming import name_of
from .reservoir import Reservoir
from .values import Value, over_represented
from .words import MOST_WORDS, Word, distinctive_words

__all__ = ["Describer", "Description"]


@dataclass(frozen=True)
class Description:
    """What is over-represented in a cluster.

    Attributes
    ----------
    number
        The cluster's.
    n_members
        Rows counted.
    over_represented
        Values, most significant first, at most 10; see `Value`.
    words
        Of text columns, most significant first, at most 8; see `Word`.
    name
        A few of these in at most 40 characters; empty where nothing is over-represented.
    """

    number: int
    n_members: int
    over_represented: tuple[Value, ...]
    words: tuple[Word, ...]
    name: str


@dataclass(frozen=True)
class _Column:
    counted: tuple[tuple[Encoder, Counts], ...]
    texts: Reservoir | None


class Describer:
    """Counts values, ranges and tags of clusters' members beside those of all rows, and samples their texts.

    Parameters
    ----------
    schema
        The table's, or that part of it which is to be described.
    sample
        A uniform sample of rows, up to 10,000 are enough, of the columns that `candidates` names: how each
        column is described, and where ranges begin, is decided on it.
    numbers
        The clusters', K different ones.
    skip
        Columns to be left out: keys, results.
    seed
        Of the sample of texts.

    Attributes
    ----------
    columns
        Those that `update` reads.
    skipped
        Of others the reasons, in words.

    Raises
    ------
    InputError
        `numbers` repeat, or the sample lacks a column.

    Notes
    -----
    What is told of values is exact, and depends neither on how rows are cut into batches nor, up to 20,000
    values of a column beyond those of the sample (see `untracked`), on their order. Words are estimated from
    sampled texts, which depend on the order of the rows.

    Memory: for each column (K + 1) counts of 8 bytes for each of at most 30,000 values; for each column of
    texts at most 10,000 of them, of 2,000 characters.
    """

    columns: tuple[str, ...]
    skipped: Mapping[str, str]

    def __init__(
        self,
        schema: pa.Schema,
        sample: pa.Table,
        numbers: Sequence[int],
        *,
        skip: Collection[str] = (),
        seed: int = 0,
    ) -> None:
        if len(set(numbers)) < len(numbers):
            raise InputError(f"Cluster numbers repeat: {list(numbers)}. Give each cluster once.")
        self._numbers = np.array(numbers, np.int64)
        names, reasons = candidates(schema, skip=skip)
        missing = [name for name in names if name not in sample.column_names]
        if missing:
            raise ColumnNotFoundError(f"The sample has no column {missing[0]!r}: read it with {list(names)}.")
        self._columns: dict[str, _Column] = {}
        skipped = dict(reasons)
        for name in names:
            decided = plan(_one_array(sample.column(name)))
            if isinstance(decided, str):
                skipped[name] = decided
                continue
            self._columns[name] = _Column(
                tuple((encoder, Counts(len(numbers))) for encoder in decided.encoders),
                Reservoir(len(numbers), seed=seed) if decided.texts else None,
            )
        self.columns = tuple(self._columns)
        self.skipped = {name: skipped[name] for name in schema.names if name in skipped}
        self._sizes = np.zeros(len(numbers), np.int64)
        self._n_rows = 0

    @property
    def untracked(self) -> Mapping[str, int]:
        """Of columns of more values than are tracked, on how many counted rows there was another one.

        Nothing is claimed of these values. One that 0.1% of the rows have is in the sample of 10,000, and so
        tracked, but for 5 in 100,000.
        """
        n = {
            name: int(counts.table[OTHER, -1])
            for name, column in self._columns.items()
            for encoder, counts in column.counted
            if len(counts.table) and not isinstance(encoder, Presence)
        }
        return {name: rows for name, rows in n.items() if rows}

    def update(self, batch: pa.RecordBatch, members: pa.Array) -> None:
        """Count a batch.

        Parameters
        ----------
        batch
            Holds `columns`, and possibly others.
        members
            A list of cluster numbers per row; null for rows that were not compared, which are not counted at
            all. Numbers that were not given are ignored.

        Raises
        ------
        InputError
            There are not as many lists as rows.
        """
        if len(members) != len(batch):
            raise InputError(f"{len(members):,} lists of clusters were given for {len(batch):,} rows.")
        found = Members.of(members, self._numbers)
        for name, column in self._columns.items():
            array = found.choose(plain(batch.column(name)))
            for encoder, counts in column.counted:
                rows, codes = encoder.encode(array)
                counts.add(codes, found, n_codes=encoder.n_codes, rows=rows)
            if column.texts is not None:
                column.texts.update(array, found, self._n_rows)
        self._sizes += np.bincount(found.clusters, minlength=len(self._sizes))
        self._n_rows += found.n_rows

    def result(self) -> tuple[Description, ...]:
        """What is over-represented in each cluster so far, in the order of the numbers.

        Cost: independent of the number of rows; mostly in the words, about 2 s for each column of texts.
        """
        claims = [
            encoder.claims(name, counts.table)
            for name, column in self._columns.items()
            for encoder, counts in column.counted
            if len(counts.table)
        ]
        values = over_represented(claims, self._sizes, self._n_rows)
        words = self._words()
        return tuple(
            Description(number, size, values[j], words[j], name_of(values[j], words[j]))
            for j, (number, size) in enumerate(zip(self._numbers.tolist(), self._sizes.tolist(), strict=True))
        )

    def _words(self) -> list[tuple[Word, ...]]:
        """The words of each cluster over all columns of texts; each of the column where it is strongest."""
        found: list[list[Word]] = [[] for _ in self._sizes]
        for name, column in self._columns.items():
            if column.texts is not None:
                for listed, words in zip(found, distinctive_words(name, column.texts.sample()), strict=True):
                    listed += words
        chosen = []
        for listed in found:
            strongest: dict[str, Word] = {}
            for word in sorted(listed, key=lambda w: w.log_p):
                strongest.setdefault(word.word, word)
            chosen.append(tuple(strongest.values())[:MOST_WORDS])
        return chosen


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    """The column in one piece, whatever its chunks' dictionaries."""
    if pa.types.is_dictionary(column.type):
        column = column.unify_dictionaries()
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.nulls(0, column.type)
