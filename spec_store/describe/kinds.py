"""Which columns can be described, and how: by their type, and by what a sample shows of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..stores.vectors import is_vector
from .bins import number_bins, time_bins
from .encoders import Categories, Encoder, Presence, Tags, is_list, is_text, plain, plain_type
from .tokens import split_words

__all__ = ["Plan", "candidates", "plan"]

# Of a column like this nearly every value is another.
_IDENTIFIER = 0.9
_MOSTLY_DISTINCT = 0.5
_FEW_VALUES = 20
_WORDS_PER_TEXT = 3
_TEXTS_EXAMINED = 1_000


@dataclass(frozen=True)
class Plan:
    """How a column is described.

    Attributes
    ----------
    encoders
        What is counted.
    texts
        Whether words are looked for.
    """

    encoders: tuple[Encoder, ...]
    texts: bool = False


def candidates(schema: pa.Schema, *, skip: Collection[str] = ()) -> tuple[tuple[str, ...], Mapping[str, str]]:
    """The columns whose type can be described, in order; and of the others the reasons, in words.

    Parameters
    ----------
    skip
        Columns that are left out without a reason: keys, results.
    """
    reasons = {f.name: _unsuited(f.type) for f in schema if f.name not in skip}
    return (
        tuple(name for name, reason in reasons.items() if not reason),
        {name: reason for name, reason in reasons.items() if reason},
    )


def _unsuited(kind: pa.DataType) -> str:
    """Why no column of this type can be described; empty where it can."""
    if isinstance(kind, pa.BaseExtensionType):
        return _unsuited(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return _unsuited(kind.value_type)
    if is_list(kind):
        inner = kind.value_type
        if is_vector(kind) or is_vector(inner):
            return "vectors"
        return "" if _is_label(plain_type(inner)) else f"lists of {inner}"
    if pa.types.is_null(kind):
        return "null in every row"
    if _is_binary(kind):
        return "binary"
    kind = plain_type(kind)
    return (
        "" if _is_label(kind) or kind == pa.float64() or pa.types.is_timestamp(kind) else f"values of {kind}"
    )


def _is_binary(kind: pa.DataType) -> bool:
    types = pa.types
    several = types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)
    return bool(several or types.is_fixed_size_binary(kind))


def _is_label(kind: pa.DataType) -> bool:
    """Whether single values of a plain type are counted."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(is_text(kind) or pa.types.is_boolean(kind) or pa.types.is_integer(kind))


def plan(sample: pa.Array) -> Plan | str:
    """How a column is described, or in words why it is not.

    Parameters
    ----------
    sample
        Sampled rows of a column of which `candidates` approves.

    Notes
    -----
    Texts are strings, mostly distinct, of three words or more on average: their words are looked at, and
    repeated texts as values too, where there are any. Other columns of which nine in ten sampled values are
    distinct are taken for identifiers; integers only where they all are, and evenly spread. Integers of more
    than 20 different values are counted in ranges as well as by value, unless most are distinct; other
    numbers and times in ranges.
    """
    array = plain(sample)
    if is_list(array.type):
        return _identifiers(plain(array.flatten()), noun="tags") or Plan((Tags(array),))
    if pa.types.is_timestamp(array.type):
        return Plan((time_bins(array),))
    if pa.types.is_floating(array.type):
        return Plan((number_bins(array),))
    if pa.types.is_integer(array.type):
        return _integers(array)
    return Plan((Categories(array),)) if pa.types.is_boolean(array.type) else _strings(array)


def _distinct_values(array: pa.Array) -> tuple[int, int]:
    """Values, and different ones."""
    values = array.drop_null()
    return len(values), len(values.unique())


def _identifiers(array: pa.Array, *, noun: str = "rows") -> str:
    """The reason why a column with these values is not described, empty where they repeat."""
    n, n_distinct = _distinct_values(array)
    if n >= _FEW_VALUES and n_distinct >= _IDENTIFIER * n:
        return f"{n_distinct:,} different values in {n:,} sampled {noun}"
    return ""


def _strings(array: pa.Array) -> Plan | str:
    array = array.cast(array.type.value_type) if pa.types.is_dictionary(array.type) else array
    n, n_distinct = _distinct_values(array)
    distinct = n_distinct >= _MOSTLY_DISTINCT * n
    texts = n > 0 and _reads_as_text(array.drop_null().unique())
    if texts and distinct:
        return Plan((Presence(),), texts=True)
    return _identifiers(array) or Plan((Categories(array),), texts=texts and n_distinct > _FEW_VALUES)


def _reads_as_text(values: pa.Array) -> bool:
    """Whether these have three words or more on average, mostly of letters and mostly found in others too."""
    values = values.slice(0, _TEXTS_EXAMINED)
    text, words = split_words(values)
    if len(text) < _WORDS_PER_TEXT * len(values):
        return False
    index = words.indices.to_numpy()
    letters = pc.utf8_length(words.dictionary).to_numpy()[index].sum()
    characters = pc.utf8_length(pc.replace_substring_regex(values, pattern=r"\s+", replacement="")).to_numpy()
    seen_again = np.bincount(index)[index] > 1
    return bool(letters >= characters.sum() / 2 and seen_again.mean() >= 0.5)


def _integers(array: pa.Array) -> Plan | str:
    n, n_distinct = _distinct_values(array)
    if n_distinct <= _FEW_VALUES:
        return Plan((Categories(array),))
    if n_distinct == n and _evenly_spread(array):
        return _identifiers(array)
    ranges = number_bins(array)
    if n_distinct >= _MOSTLY_DISTINCT * n:
        return Plan((ranges,))
    return Plan((Categories(array), ranges))


def _evenly_spread(array: pa.Array) -> bool:
    """Whether a sample is no further from uniform over its range than one of that distribution would be."""
    values = np.sort(array.drop_null().to_numpy().astype(np.float64))
    place = (values - values[0]) / (values[-1] - values[0])
    distance = np.abs(place - np.arange(len(values)) / (len(values) - 1)).max()
    return bool(distance < max(0.05, 1.63 / np.sqrt(len(values))))  # Kolmogorov-Smirnov at 1%
