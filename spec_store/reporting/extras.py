"""What a page needs beside the package itself, asked for before any work."""

from __future__ import annotations

from importlib import import_module

from ..errors import MissingExtraError

__all__ = ["check_extra"]

_NEEDED = ("jinja2", "PIL", "sklearn")


def check_extra() -> None:
    """Raise MissingExtraError, with the install line, where a package of the extra is not installed."""
    try:
        for name in _NEEDED:
            import_module(name)
    except ImportError as error:
        raise MissingExtraError('The report needs its extra: pip install "spec-store[report]"') from error
