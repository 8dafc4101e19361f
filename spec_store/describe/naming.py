"""A short name for a cluster."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .readable import cut
from .values import Value
from .words import Word

__all__ = ["name_of"]

_LONGEST_NAME = 40
_MOST_PARTS = 4
_SEPARATOR = " · "
_SMALLEST_LIFT = 2.0
# A value of no other words needs the name of its column.
_SAYS_LITTLE = {"true", "false", "null", "empty", "nan", "infinity", "any", "value"}
_SAYS_LITTLE |= {"under", "over", "before", "later", "to", "or", "more", "less"}


def name_of(values: Sequence[Value], words: Sequence[Word]) -> str:
    """The most significant value that most members have, words, other such values: ``rust 99% · parse``.

    Where most members share no value, words alone, or else the most significant value with its share. Values
    after the first have a lift of 2 or more. At most 40 characters; empty where nothing is over-represented.
    """
    common = [v for v in values if v.share >= 0.5]
    first = common[:1] or ([] if words else list(values[:1]))
    others = [v for v in common[1:] if v.lift >= _SMALLEST_LIFT]
    parts = [*map(_value_part, first), *(w.word for w in words), *map(_value_part, others)]
    name, n_parts = cut(parts[0], _LONGEST_NAME) if parts else "", 1
    for part in parts[1:]:
        longer = f"{name}{_SEPARATOR}{part}"
        repeats = part.casefold() in name.casefold()
        if n_parts < _MOST_PARTS and len(longer) <= _LONGEST_NAME and not repeats:
            name, n_parts = longer, n_parts + 1
    return name


def _value_part(value: Value) -> str:
    """``rust 99%``, ``digit 3``: with the column where the value alone says little; the share unless all."""
    words = re.findall(r"[^\W\d_]+", value.value.casefold())
    text = f"{value.column} {value.value}" if _SAYS_LITTLE.issuperset(words) else value.value
    share = f" {value.share:.0%}"
    ending = "" if share == " 100%" else share
    return cut(text, _LONGEST_NAME - len(ending)) + ending
