"""Pairs of real embeddings of the same rows, built from what is installed and cached.

python benchmarks/pairs.py                        # build every pair that can be built, say what it is
python benchmarks/pairs.py digits patches         # only these
python benchmarks/pairs.py docstrings --folder F  # keep the arrays in F instead of the user's cache folder

A pair is cached as FOLDER/NAME.npz: the matrices `a` and `b` (float32), `columns` (their two names) and one
array per fact, `label` first. A pair whose file exists is read, not built: delete the file to rebuild it.
`docstrings` depends on the packages of the environment. The pairs of `neural_pairs.py` need packages with
model weights and, for pictures, a folder of them: see there. A cached one needs nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

__all__ = ["NAMES", "Pair", "default_folder", "load", "load_available"]

Matrix = NDArray[np.float32]

_HOMES = {
    "digits": "plain_pairs",
    "docstrings": "plain_pairs",
    "patches": "plain_pairs",
    "sentences": "plain_pairs",
    "minilm": "neural_pairs",
    "pictures": "neural_pairs",
    "pictures-names": "neural_pairs",
    "overlay": "neural_pairs",
    "family": "neural_pairs",
}
NAMES = tuple(_HOMES)


@dataclass(frozen=True)
class Pair:
    """Two embeddings of the same rows, float32 of shapes (n, d_a) and (n, d_b), and facts of each row."""

    name: str
    columns: tuple[str, str]
    a: Matrix
    b: Matrix
    facts: pa.Table

    def __post_init__(self) -> None:
        reserved = {"a", "b", "columns", "file"} & set(self.facts.column_names)
        if reserved:
            raise ValueError(f"{self.name}: a fact can't be named {sorted(reserved)[0]!r}; rename it")
        if not len(self.a) == len(self.b) == len(self.facts):
            lengths = len(self.a), len(self.b), len(self.facts)
            raise ValueError(f"{self.name}: a, b and facts have {lengths} rows; give all the same rows")


def default_folder() -> Path:
    """Where pairs are cached unless a folder is given: spec-store-pairs in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spec-store-pairs"


def load(name: str, folder: Path | None = None) -> Pair:
    """The pair of this name, from its cached file or built and cached.

    Raises
    ------
    ValueError
        There is no pair of this name.
    ImportError, FileNotFoundError
        The pair needs packages or pictures that are not there; the message says how to get them.
    """
    if name not in _HOMES:
        raise ValueError(f"no pair {name!r}; the pairs are {', '.join(NAMES)}")
    folder = folder or default_folder()
    path = folder / f"{name}.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        build = getattr(import_module(_HOMES[name]), name.replace("-", "_"))
        _save(_without_zero_rows(build(folder)), path)
    with np.load(path) as stored:
        arrays = dict(stored)
    a, b, (one, two) = (arrays.pop(key) for key in ("a", "b", "columns"))
    return Pair(name, (str(one), str(two)), a, b, pa.table({k: x.tolist() for k, x in arrays.items()}))


def load_available(names: Sequence[str], folder: Path) -> Iterator[Pair]:
    """Each pair in turn; one whose packages or pictures are not there is skipped with a line on stderr."""
    for name in names:
        try:
            pair = load(name, folder)
        except (ImportError, FileNotFoundError) as missing:  # noqa: PERF203  (a pair takes a minute)
            print(f"{name} is skipped: {missing}", file=sys.stderr)
        else:
            yield pair


def _save(pair: Pair, path: Path) -> None:
    arrays = {"a": pair.a, "b": pair.b, "columns": np.array(pair.columns)}
    arrays |= {column: np.array(pair.facts[column].to_pylist()) for column in pair.facts.column_names}
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # the arrays' names are data
    partial.replace(path)


def _without_zero_rows(pair: Pair) -> Pair:
    """A vector of zeros has no direction, so it can't be compared."""
    keep = np.linalg.norm(pair.a, axis=1) * np.linalg.norm(pair.b, axis=1) > 1e-6
    return Pair(pair.name, pair.columns, pair.a[keep], pair.b[keep], pair.facts.filter(pa.array(keep)))


def main() -> None:
    parser = argparse.ArgumentParser(description="Build pairs of embeddings and cache them.")
    parser.add_argument("pairs", nargs="*", metavar="PAIR", help=f"Of {', '.join(NAMES)}; all by default.")
    parser.add_argument("--folder", type=Path, default=default_folder(), help="Where the arrays are kept.")
    options = parser.parse_args()
    for pair in load_available(options.pairs or NAMES, options.folder):
        shapes = f"{pair.columns[0]} {pair.a.shape[1]}-d, {pair.columns[1]} {pair.b.shape[1]}-d"
        labels = len(set(pair.facts["label"].to_pylist()))
        print(
            f"{pair.name}: {len(pair.a):,} rows, {shapes}, {labels} labels; {options.folder / pair.name}.npz"
        )


if __name__ == "__main__":
    import pairs  # the module that the builders import, not a second copy of it

    pairs.main()
