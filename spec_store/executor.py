"""Where the pieces of a pass are worked on: in this process, or in others.

A pass is cut into pieces by its source alone, and what they give comes back in their order: so results are
the same wherever, and by how many workers, they were computed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, TypeVar

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["IN_PROCESS", "Executor", "InProcess", "idle_workers"]

T = TypeVar("T")
R = TypeVar("R")


class Executor(ABC):
    """Applies functions to items. Used as a context manager it frees what its workers hold at the end.

    Attributes
    ----------
    remote
        Whether that is done in other processes, so that functions, items and results are pickled.
    """

    remote: ClassVar[bool] = True

    @property
    @abstractmethod
    def workers(self) -> int:
        """How many items are worked on at once."""

    @abstractmethod
    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Generator[R, None, None]:
        """Yield ``function(item)`` for each item, in the order of `items`.

        Items are drawn when a worker is free for them, a few ahead of the results that were taken. An error
        of `function` is raised in its item's turn. Once the generator has ended, or was closed, nothing of it
        is going on any more. One pass at a time.

        Raises
        ------
        RetryError
            A worker was lost, and its work could not be repeated.
        UnsupportedError
            The function can't be pickled.
        """

    def threads_each(self, n_items: int) -> int:
        """In how many threads each of so many items may be computed. Only for remote workers."""
        return 1

    @abstractmethod
    def describe(self) -> str:
        """How messages name it: ``4 processes``."""

    @abstractmethod
    def close(self) -> None:
        """End the workers. A later `map` starts others."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class InProcess(Executor):
    """One item after the other, here; each is free to compute in several threads."""

    remote = False

    @property
    def workers(self) -> int:
        """One."""
        return 1

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Generator[R, None, None]:
        """As the built-in."""
        yield from map(function, items)

    def describe(self) -> str:
        """Those that the pieces themselves take."""
        return "threads of this process"

    def close(self) -> None:
        """There is nothing to end."""


IN_PROCESS = InProcess()
"""The default everywhere."""


def idle_workers(executor: Executor, n_items: int, what: str, remedy: str) -> list[str]:
    """A message where there are fewer pieces of work than workers.

    Parameters
    ----------
    what
        Of which there are `n_items`: ``pieces of work in pass 1``.
    remedy
        What would give more of them.
    """
    if n_items >= executor.workers:
        return []
    return [f"there are {n_items:,} {what} for {executor.describe()}: more workers than work. {remedy}"]
