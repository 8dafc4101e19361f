"""What remote workers do, whoever started them: a pickled function applied to pickled items."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from threadpoolctl import threadpool_limits

from ..errors import SpecStoreError, UnsupportedError

__all__ = ["Outcome", "applied", "pickled"]


class _RemoteTraceback(Exception):
    """Where an error arose in another process, as text."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


@dataclass(frozen=True)
class Outcome:
    """The result of one call, or its error."""

    value: Any = None
    error: BaseException | None = None
    trace: str = ""

    def result(self) -> Any:
        """The value; raises the error."""
        if self.error is not None:
            raise self.error from _RemoteTraceback(self.trace)
        return self.value


def applied(function: Callable[[], Any]) -> bytes:
    """The pickled outcome of a call in which each product takes one thread."""
    try:
        with threadpool_limits(1):
            return pickle.dumps(Outcome(function()), protocol=5)
    except Exception as error:
        trace = traceback.format_exc()
        try:
            content = pickle.dumps(Outcome(error=error, trace=trace))
            pickle.loads(content)  # some errors can be pickled and not read again
        except Exception:
            plain = SpecStoreError(f"{type(error).__name__}: {error}")
            return pickle.dumps(Outcome(error=plain, trace=trace))
        return content


def pickled(function: object) -> bytes:
    """What is sent to workers. Raises UnsupportedError where it can't be."""
    try:
        return pickle.dumps(function, protocol=5)
    except SpecStoreError:
        raise
    except Exception as error:  # whatever the objects of other libraries raise
        raise UnsupportedError(
            f"The work can't be sent to other processes ({type(error).__name__}: {error}). Use threads, the"
            " default, or give data in a table or a file."
        ) from error
