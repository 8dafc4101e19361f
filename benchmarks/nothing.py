"""Pairs of embeddings that group the same rows alike: whatever a comparison lists of them is false.

Run by `python benchmarks/truth.py nothing`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from spec_store import compare

__all__ = ["print_listed"]

Matrix = NDArray[np.float32]
N_ROWS, N_GROUPS, DIMENSION = 4000, 12, 64
# Per dimension: a row's noise is then 0.8 as long as its group's centre.
NOISE = 0.1


def rotation(rng: np.random.Generator) -> NDArray[np.float64]:
    return np.linalg.qr(rng.standard_normal((DIMENSION, DIMENSION)))[0]


def centres_of_rows(rng: np.random.Generator) -> NDArray[np.float64]:
    """Each row's group's centre, of length 1."""
    centres = rng.standard_normal((N_GROUPS, DIMENSION))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    return centres[rng.integers(N_GROUPS, size=N_ROWS)]


def noisy(x: NDArray[np.float64], rng: np.random.Generator) -> Matrix:
    return np.asarray(x + NOISE * rng.standard_normal(x.shape), np.float32)


def rotated(rng: np.random.Generator) -> tuple[Matrix, Matrix]:
    a = noisy(centres_of_rows(rng), rng)
    return a, np.asarray(a @ rotation(rng), np.float32)


def disturbed(rng: np.random.Generator) -> tuple[Matrix, Matrix]:
    a = noisy(centres_of_rows(rng), rng)
    noise = rng.standard_normal(a.shape)
    scale = 0.01 * np.linalg.norm(a, axis=1, keepdims=True) / np.linalg.norm(noise, axis=1, keepdims=True)
    return a, np.asarray(a + scale * noise, np.float32)


def independent(rng: np.random.Generator) -> tuple[Matrix, Matrix]:
    centres = centres_of_rows(rng)
    return noisy(centres, rng), noisy(centres @ rotation(rng), rng)


CASES: dict[str, Callable[[np.random.Generator], tuple[Matrix, Matrix]]] = {
    "against its own rotation": rotated,
    "against itself with 1% of noise": disturbed,
    "independent noises of the same groups": independent,
}


def print_listed(seeds: int) -> None:
    """How many seeds of each case list anything, and how many clusters at most."""
    for name, build in CASES.items():
        listed = []
        for seed in range(seeds):
            a, b = build(np.random.default_rng(seed))
            run = compare({"a": a, "b": b}, ["a", "b"], seed=seed)
            listed.append(len(run.to_json()["clusters"]))
        print(f"{name}: {np.count_nonzero(listed)} of {seeds} list anything, at most {max(listed)} clusters")
