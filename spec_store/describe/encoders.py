"""From an Arrow column to codes that can be counted: of values, of tags, of whether there is a text at all.

Every encoder gives a null the code `NULL`, what is not tracked `OTHER`, an empty list or text `EMPTY`, and
what is its own the codes from `FIRST`.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from .readable import readable
from .values import Claims

__all__ = [
    "EMPTY",
    "FIRST",
    "NULL",
    "OTHER",
    "Categories",
    "Encoder",
    "Presence",
    "Tags",
    "is_list",
    "is_text",
    "plain",
    "plain_type",
]

NULL, OTHER, EMPTY, FIRST = range(4)

# Values that the sample did not hold are tracked too, up to this many of a column.
_MOST_NEW_VALUES = 20_000
# And none of them that takes more bytes.
_LONGEST_NEW_VALUE = 1_000


class Encoder(Protocol):
    """How the values of a column are counted."""

    @property
    def n_codes(self) -> int:
        """Codes so far; grows where new values are met."""

    def encode(self, array: pa.Array) -> tuple[NDArray[np.int64] | None, NDArray[np.int64]]:
        """The rows and their codes, as `Counts.add` takes them; of a `plain` array of compared rows."""

    def claims(self, column: str, table: NDArray[np.int64]) -> Claims:
        """What can be said of rows, from the counts of codes, shape (n_codes, K + 1)."""


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type that `plain` gives to arrays of this type."""
    return (
        plain(pa.nulls(0, kind)).type
        if not isinstance(kind, pa.BaseExtensionType)
        else plain_type(kind.storage_type)
    )


def plain(array: pa.Array) -> pa.Array:
    """The same values in one of few types.

    Strings, large or of a dictionary too; booleans; int64 and uint64; float64, of decimals too; timestamps,
    of dates too; other types as they are.
    """
    if isinstance(array, pa.ExtensionArray):
        return plain(array.storage)
    kind = array.type
    if pa.types.is_dictionary(kind):
        if not is_text(kind.value_type):
            return plain(array.dictionary_decode())
        values = plain(array.dictionary)
        return pa.DictionaryArray.from_arrays(array.indices, values)
    if pa.types.is_string_view(kind):
        return array.cast(pa.string())
    if is_list(kind) and pa.types.is_string_view(kind.value_type):
        lengths = (kind.list_size,) if pa.types.is_fixed_size_list(kind) else ()
        return array.cast(
            (pa.large_list if pa.types.is_large_list(kind) else pa.list_)(pa.string(), *lengths)
        )
    if pa.types.is_integer(kind):
        return array.cast(pa.uint64() if pa.types.is_uint64(kind) else pa.int64())
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return array.cast(pa.float64())
    if pa.types.is_date32(kind):
        return array.cast(pa.timestamp("s"))
    if pa.types.is_date64(kind):
        return array.cast(pa.timestamp("ms"))
    return array


def is_list(kind: pa.DataType) -> bool:
    """Whether values of this type are lists, of any length or of one."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def is_text(kind: pa.DataType) -> bool:
    """Whether values of this type are strings."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _distinct(array: pa.Array) -> tuple[pa.Array, NDArray[np.int64]]:
    """Values that occur, and each row's position among them, -1 for null; a dictionary's may repeat."""
    if not pa.types.is_dictionary(array.type):
        array = array.dictionary_encode()
        return array.dictionary, array.indices.fill_null(-1).to_numpy().astype(np.int64)
    index = array.indices.cast(pa.int64()).fill_null(-1).to_numpy()
    n = len(array.dictionary)
    used = np.flatnonzero(np.bincount(index[index >= 0], minlength=n))
    position = np.full(n + 1, -1)
    position[used] = np.arange(len(used))
    return array.dictionary.take(pa.array(used)), position[index]


class Categories:
    """Single values of strings, booleans or integers.

    Tracked are those of the sample, and others in the order in which they come, up to 20,000 of at most 1,000
    bytes: what is counted of a value is exact, since it is tracked from its first row on. Rows of values
    beyond these are counted together as `OTHER`, of which nothing is claimed.

    Parameters
    ----------
    sample
        Values, of the type that `plain` gives; nulls and repeated ones are allowed.
    """

    def __init__(self, sample: pa.Array) -> None:
        values, _ = _distinct(sample)
        self._type = pa.string() if is_text(values.type) else values.type
        self._values = values.cast(self._type).drop_null().unique()
        self._room = _MOST_NEW_VALUES

    @property
    def n_codes(self) -> int:
        return FIRST + len(self._values)

    def encode(self, array: pa.Array) -> tuple[NDArray[np.int64] | None, NDArray[np.int64]]:
        values, index = _distinct(array)
        values = values.cast(self._type)
        at = self._positions(values)
        if self._room and (at < 0).any() and self._admit(values, index, at):
            at = self._positions(values)
        codes = np.where(at < 0, OTHER, FIRST + at)
        codes[values.is_null().to_numpy(zero_copy_only=False)] = NULL
        return None, np.append(codes, NULL)[index]  # -1 is the last

    def _positions(self, values: pa.Array) -> NDArray[np.int64]:
        found = pc.index_in(values, value_set=self._values)
        return np.asarray(found.fill_null(-1).to_numpy(), np.int64)

    def _admit(self, values: pa.Array, index: NDArray[np.int64], at: NDArray[np.int64]) -> bool:
        """Track the values that are new, in the order of their first rows, as far as there is room."""
        first = np.full(len(values) + 1, len(index))
        first[index[::-1]] = np.arange(len(index))[::-1]
        new = np.flatnonzero(at < 0)
        found = values.take(pa.array(new[np.argsort(first[new])])).drop_null().unique()
        if self._type == pa.string():
            found = found.filter(pc.less_equal(pc.binary_length(found), _LONGEST_NEW_VALUE))
        found = found.slice(0, self._room)
        self._room -= len(found)
        self._values = pa.concat_arrays([self._values, found])
        return len(found) > 0

    def claims(self, column: str, table: NDArray[np.int64]) -> Claims:
        codes = np.delete(np.arange(len(table)), OTHER)
        return Claims(column, table[codes], lambda i: self._text(int(codes[i])), exclusive=False)

    def _text(self, code: int) -> str:
        if code < FIRST:
            return ("null", "other", "empty")[code]
        value: Any = self._values[code - FIRST].as_py()
        if isinstance(value, bool):
            return str(value).lower()
        return readable(str(value)) or "empty"


class Tags:
    """Values of lists, of which a row has any number; it counts once for each.

    Parameters
    ----------
    sample
        Lists.
    """

    def __init__(self, sample: pa.Array) -> None:
        self._elements = Categories(plain(sample.flatten()))

    @property
    def n_codes(self) -> int:
        return self._elements.n_codes

    def encode(self, array: pa.Array) -> tuple[NDArray[np.int64] | None, NDArray[np.int64]]:
        lengths = array.value_lengths().fill_null(-1).to_numpy()
        _, codes = self._elements.encode(plain(array.flatten()))
        rows = np.repeat(np.arange(len(array)), np.maximum(lengths, 0))
        rows, codes = rows[codes != NULL], codes[codes != NULL]
        pairs = np.unique(rows * self.n_codes + codes)
        null, empty = np.flatnonzero(lengths < 0), np.flatnonzero(lengths == 0)
        rows = np.concatenate([pairs // self.n_codes, null, empty])
        return rows, np.concatenate(
            [pairs % self.n_codes, np.full(len(null), NULL), np.full(len(empty), EMPTY)]
        )

    def claims(self, column: str, table: NDArray[np.int64]) -> Claims:
        return self._elements.claims(column, table)


class Presence:
    """Whether there is a text: null, empty, or any other."""

    n_codes = FIRST

    def encode(self, array: pa.Array) -> tuple[NDArray[np.int64] | None, NDArray[np.int64]]:
        if pa.types.is_dictionary(array.type):
            array = array.cast(array.type.value_type)
        lengths = pc.binary_length(array).fill_null(-1).to_numpy()
        return None, np.where(lengths < 0, NULL, np.where(lengths == 0, EMPTY, OTHER))

    def claims(self, column: str, table: NDArray[np.int64]) -> Claims:
        return Claims(column, table[[NULL, EMPTY]], ("null", "empty").__getitem__, exclusive=False)
