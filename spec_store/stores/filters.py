"""SQL filters: each one boolean expression, whole; and expressions put together from them."""

from __future__ import annotations

import re

from ..errors import FilterError, InputError

__all__ = ["negated", "parenthesized", "quoted"]

_TOKEN = re.compile(
    r"""(?P<text>'(?:[^']|'')*'|"(?:[^"]|"")*"|`(?:[^`]|``)*`)
    |(?P<comment>--[^\r\n]*|/\*.*?\*/)
    |(?P<unclosed>['"`]|/\*)
    |(?P<other>[^'"`()/;-]+|.)""",
    re.DOTALL | re.VERBOSE,
)


def parenthesized(where: str) -> str:
    """The filter in parentheses, without comments: what a connector puts into its query.

    Parsers of SQL read one expression and ignore what follows it: ``id > 0 LIMIT 5`` selects what ``id > 0``
    does. In parentheses the store's own parser takes all of the text as one expression, or refuses it. So no
    other grammar decides what a filter may say; here only quotes and parentheses are matched, without which
    the text could close the parenthesis itself.

    Raises
    ------
    FilterError
        The filter is empty, or a quote, comment or parenthesis has no partner, or a semicolon follows.
    """
    kept: list[str] = []
    depth = 0
    for token in _TOKEN.finditer(where):
        kind, text = token.lastgroup, token.group()
        if kind == "comment":
            text = " "
        elif kind == "unclosed":
            raise _refused(where, f"{text} at {where[token.start() :]!r} is never closed")
        elif text == ";":
            raise _refused(where, f"{where[token.start() :]!r} follows the expression")
        depth += (text == "(") - (text == ")")
        if depth < 0:
            raise _refused(where, f"{where[token.start() :]!r} closes a parenthesis that was never opened")
        kept.append(text)
    if depth:
        raise _refused(where, f"{depth} opening parenthes{'is is' if depth == 1 else 'es are'} never closed")
    expression = "".join(kept).strip()
    if not expression:
        raise _refused(where, "it is empty")
    return f"({expression})"


def _refused(where: str, reason: str) -> FilterError:
    return FilterError(
        f"The filter {where!r} can't be used: {reason}. Expected one boolean expression and nothing after it."
    )


def negated(where: str) -> str:
    """The rows that `where` does not select, those for which it is null included."""
    return f"{parenthesized(where)} IS NOT TRUE"


def quoted(name: str) -> str:
    """A top-level column's name as a filter must spell it, whatever characters it has.

    Raises InputError for a name that holds a backtick, which filters have no way to spell.
    """
    if "`" in name or not name:
        raise InputError(f"Column {name!r} can't be named in a filter: its name is empty or has a backtick.")
    return f"`{name}`"
