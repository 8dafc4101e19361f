"""What is refused before any pass: columns that can't be compared, and too few rows."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from ..connector import Source, find_field
from ..errors import FilterError, InputError, sentence
from ..options import CompareOptions
from ..spectral.koda import Epsilon
from ..stores.vectors import is_vector, vector_width

__all__ = ["check_rows", "embedding_names"]


def embedding_names(columns: Sequence[str], *, two: bool = False) -> tuple[str, ...]:
    """The columns as they are asked for. Raises InputError for arrays, and for one that is given twice."""
    given = [] if isinstance(columns, str) else list(columns)
    wrong = [c for c in given if not isinstance(c, str)]
    if wrong:
        raise InputError(
            f"Columns are named; a {type(wrong[0]).__name__} was given. Arrays are given by name:"
            ' compare({"clip": a, "dino": b}, ["clip", "dino"]).'
        )
    if two and len(given) > 2:
        raise InputError(
            f"Two embedding columns are compared; {len(given)} were given: compare_models takes any number."
        )
    if len(given) < 2:
        raise InputError(f"Two embedding columns are compared; {columns!r} was given.")
    twice = [c for i, c in enumerate(given) if c in given[:i]]
    if twice:
        raise InputError(f"Column {twice[0]!r} is given twice: a column does not differ from itself.")
    return tuple(given)


def check_rows(source: Source, columns: Sequence[str], options: CompareOptions) -> int:
    """Refuse what can be refused before any pass; the number of rows to be compared."""
    Epsilon.parse(options.epsilon)
    if options.bandwidth is not None and len(options.bandwidth) != len(columns):
        raise InputError(
            f"{len(options.bandwidth)} bandwidths are given for {len(columns)} embeddings; expected one σ for"
            " each, or auto."
        )
    for c in columns:
        kind = find_field(source, c).type
        if not is_vector(kind) or pa.types.is_fixed_size_list(kind):
            vector_width(c, kind)
    n_rows = source.count(options.where)
    if n_rows == 0 and options.where is not None:
        raise FilterError(f"No row of {source.describe()} matches {options.where!r}.")
    if n_rows == 0:
        raise InputError(f"{sentence(source.describe())} is empty: there is nothing to compare.")
    needed = options.fewest_rows
    if n_rows < needed:
        raise InputError(
            f"{sentence(source.describe())} has {n_rows} rows to compare, fewer than the {options.modes}"
            " modes asked for. Give more rows, or fewer --modes."
            if n_rows > 1
            else f"{sentence(source.describe())} has one row: a comparison needs at least {needed}."
        )
    return n_rows
