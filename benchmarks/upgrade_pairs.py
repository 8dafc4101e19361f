"""Pairs of an old and a new embedding of the same rows that look like real upgrades of a model.

Made from the pairs of `pairs.py`: its docstrings are embedded again here, in seconds; its vectors are
quantised and cut, or stand as they are. At most 5,000 rows of each, a seeded sample.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pairs
from evaluation import unit_rows
from numpy.typing import NDArray

__all__ = ["NAMES", "Upgrade", "load", "load_available"]

Matrix = NDArray[np.float32]

LARGEST = 5000
_WORDS = {"min_df": 3, "max_df": 0.3, "stop_words": "english"}


@dataclass(frozen=True)
class Upgrade:
    """Unit rows under the old model, shape (n, d_old), and the same rows under the new one, (n, d_new)."""

    name: str
    says: str
    old: Matrix
    new: Matrix


def load(name: str, folder: Path) -> Upgrade:
    """The pair of this name.

    Raises
    ------
    ValueError
        There is no pair of this name.
    ImportError, FileNotFoundError
        It needs a pair of `pairs.py` that is neither cached nor can be built.
    """
    if name not in _BUILDERS:
        raise ValueError(f"no pair {name!r}; the pairs are {', '.join(NAMES)}")
    says, build = _BUILDERS[name]
    old, new = build(folder)
    usable = np.flatnonzero(np.linalg.norm(old, axis=1) * np.linalg.norm(new, axis=1) > 1e-6)
    rng = np.random.default_rng(0)
    rows = np.sort(rng.choice(usable, min(len(usable), LARGEST), replace=False))
    return Upgrade(name, says, unit_rows(old[rows]), unit_rows(new[rows]))


def load_available(names: Sequence[str], folder: Path) -> Iterator[Upgrade]:
    """Each pair in turn; one that needs something that is not there is skipped with a line on stderr."""
    for name in names:
        try:
            pair = load(name, folder)
        except (ImportError, FileNotFoundError) as missing:  # noqa: PERF203  (a pair takes seconds)
            print(f"{name} is skipped: {missing}", file=sys.stderr)
        else:
            yield pair


def latent_semantics(
    fitted_on: Sequence[str], texts: Sequence[str], dimension: int, *, weighted: bool = True
) -> Matrix:
    """Word counts of `texts`, TF-IDF unless not weighted, reduced by a truncated SVD; shape (n, dimension).

    Vocabulary, weights and directions are those of the texts that it is fitted on.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

    options: dict[str, Any] = {**_WORDS, "dtype": np.float32}
    words = TfidfVectorizer(sublinear_tf=True, **options) if weighted else CountVectorizer(**options)
    reduced = TruncatedSVD(dimension, random_state=0).fit(words.fit_transform(fitted_on))
    return np.asarray(reduced.transform(words.transform(texts)), np.float32)


def random_network(x: Matrix, width: int, *, seed: int) -> Matrix:
    """Features of a network of two layers that was never trained: `width` rectified units in each."""
    rng = np.random.default_rng(seed)
    hidden = x
    for _ in range(2):
        weights = rng.standard_normal((hidden.shape[1], width)) * np.sqrt(2 / hidden.shape[1])
        hidden = np.maximum(hidden @ weights.astype(np.float32), 0)
    return hidden


def quantised(x: Matrix) -> Matrix:
    """Each dimension rounded to one of 255 steps, as an int8 index keeps it."""
    step = np.abs(x).max(axis=0) / 127
    return np.asarray(np.round(x / step) * step, np.float32)


@lru_cache(maxsize=1)
def _texts(folder: Path) -> list[str]:
    texts: list[str] = pairs.load("docstrings", folder).facts["text"].to_pylist()
    return texts


def _stored(name: str, *, backwards: bool = False) -> Callable[[Path], tuple[Matrix, Matrix]]:
    def build(folder: Path) -> tuple[Matrix, Matrix]:
        pair = pairs.load(name, folder)
        return (pair.b, pair.a) if backwards else (pair.a, pair.b)

    return build


def _halves(folder: Path) -> tuple[Matrix, Matrix]:
    texts = _texts(folder)
    order = np.random.default_rng(1).permutation(len(texts))
    halves = [[texts[i] for i in part] for part in np.array_split(order, 2)]
    old, new = (latent_semantics(half, texts, 128) for half in halves)
    return old, new


def _wider(folder: Path) -> tuple[Matrix, Matrix]:
    texts = _texts(folder)
    return latent_semantics(texts, texts, 128), latent_semantics(texts, texts, 256)


def _weighted(folder: Path) -> tuple[Matrix, Matrix]:
    texts = _texts(folder)
    return latent_semantics(texts, texts, 128, weighted=False), latent_semantics(texts, texts, 128)


def _widths(folder: Path) -> tuple[Matrix, Matrix]:
    x = unit_rows(pairs.load("docstrings", folder).a)
    return random_network(x, 128, seed=0), random_network(x, 512, seed=1)


def _quantised(folder: Path) -> tuple[Matrix, Matrix]:
    full = pairs.load("minilm", folder).a
    return quantised(full), full


def _cut(folder: Path) -> tuple[Matrix, Matrix]:
    full = pairs.load("minilm", folder).a
    return full[:, :128], full


_BUILDERS: dict[str, tuple[str, Callable[[Path], tuple[Matrix, Matrix]]]] = {
    "lsa-halves": ("docstrings: LSA fitted on one half of them, then on the other half", _halves),
    "lsa-wider": ("docstrings: LSA of 128 components, then of 256", _wider),
    "counts-tfidf": ("docstrings: word counts, then TF-IDF, each reduced to 128 dimensions", _weighted),
    "random-widths": ("docstrings: two untrained networks, of 128 and of 512 units", _widths),
    "int8": ("docstrings: MiniLM rounded to int8, then in full", _quantised),
    "cut": ("docstrings: the first 128 dimensions of MiniLM, then all 384", _cut),
    "words-minilm": ("docstrings: word counts, then MiniLM", _stored("minilm", backwards=True)),
    "minilm-words": ("docstrings: MiniLM, then word counts", _stored("minilm")),
    "digits": ("handwritten digits: pixels, then HOG", _stored("digits")),
    "hog-network": ("pictures: HOG, then EfficientNet-Lite0", _stored("pictures", backwards=True)),
    "family": ("pictures: EfficientNet-Lite0, then the larger Lite2", _stored("family")),
    "overlay": ("pictures, then with words drawn over 30% of them: EfficientNet-Lite0", _stored("overlay")),
}
NAMES = tuple(_BUILDERS)
