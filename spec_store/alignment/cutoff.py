"""A similarity cut-off after a switch: where it must be moved for the same share of pairs to pass."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["CutOff", "shift_cutoff"]


@dataclass(frozen=True)
class CutOff:
    """A cut-off on cosine similarity, before and after.

    Attributes
    ----------
    old
        Tuned on the similarities of the source model's queries and rows.
    share, n_pairs
        Of this many pairs of a query and a row, the share that passes it.
    new
        Passed by the same share of the similarities that a search after the switch gives; None where no pair
        passed.
    overlap
        Of the pairs that passed before, the share that passes after.
    overlap_target
        Of the pairs that full re-embedding would let pass at this share, the share that passes after.
    """

    old: float
    n_pairs: int
    share: float
    new: float | None
    overlap: float | None
    overlap_target: float | None


def shift_cutoff(
    old: float,
    before: NDArray[np.float32],
    after: NDArray[np.float32],
    target: NDArray[np.float32],
) -> CutOff:
    """Move a cut-off from one set of similarities to another of the same pairs.

    Parameters
    ----------
    before, after, target
        Similarities of the pairs today, after the switch, and after full re-embedding, each shape (n,). Pairs
        that are NaN in any of them are left out.
    """
    known = ~(np.isnan(before) | np.isnan(after) | np.isnan(target))
    before, after, target = before[known], after[known], target[known]
    passed = before >= old
    n = int(passed.sum())
    if not n:
        return CutOff(old, len(before), 0.0, None, None, None)
    new = float(np.partition(after, len(after) - n)[len(after) - n])
    best = float(np.partition(target, len(target) - n)[len(target) - n])
    passes = after >= new
    return CutOff(
        old=old,
        n_pairs=len(before),
        share=n / len(before),
        new=new,
        overlap=float((passes & passed).sum() / n),
        overlap_target=float((passes & (target >= best)).sum() / n),
    )
