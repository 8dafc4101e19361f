"""The sampled rows that a page shows, whatever they were read from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

__all__ = ["ReportSample"]


@dataclass(frozen=True)
class ReportSample:
    """A uniform sample of the rows that were compared.

    Attributes
    ----------
    keys
        The store's own row keys, shape (n,).
    vectors
        By column, rows as the run compared them, shape (n, d); columns of other stores are absent.
    numbers
        The K clusters'.
    members
        Who is a member of which, shape (n, K).
    scores
        Relative membership, shape (n, K): a member has 0.5 at least.
    others
        What other columns hold in these rows.
    """

    keys: pa.Array
    vectors: Mapping[str, NDArray[np.float32]]
    numbers: tuple[int, ...]
    members: NDArray[np.bool_]
    scores: NDArray[np.float32]
    others: pa.Table

    def __len__(self) -> int:
        return len(self.members)

    def most_typical(self, number: int, n: int) -> NDArray[np.intp]:
        """Positions of its `n` members of the highest relative membership, the highest first."""
        j = self.numbers.index(number)
        at = np.flatnonzero(self.members[:, j])
        return at[np.argsort(-self.scores[at, j], kind="stable")[:n]]
