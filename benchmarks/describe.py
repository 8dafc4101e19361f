"""Seconds and memory to describe clusters, by kind of column, over generated rows.

python benchmarks/describe.py --rows 1000000
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from spec_store.describe import Describer

K = 40
Rng = np.random.Generator
VOCABULARY = [
    f"{a}{b}{c}" for a in "btkmnsr" for b in ("ala", "ero", "ui", "ond") for c in ("l", "ning", "x")
]


def words(rng: Rng, group: np.ndarray[Any, Any], n_words: int) -> list[str]:
    """Sentences of common words, and a tenth of words of the group's own."""
    common = rng.zipf(1.3, size=(len(group), n_words)) % len(VOCABULARY)
    own = rng.random((len(group), n_words)) < 0.1
    return [
        " ".join(VOCABULARY[w] if w >= 0 else f"topic{VOCABULARY[g]}" for w in text)
        for g, text in zip(group.tolist(), np.where(own, -1, common).tolist(), strict=True)
    ]


def tags(rng: Rng, group: np.ndarray[Any, Any]) -> pa.Array:
    offsets = np.concatenate([[0], np.cumsum(rng.integers(0, 6, len(group)))])
    owner = np.repeat(group, np.diff(offsets))
    tag = np.where(rng.random(len(owner)) < 0.2, owner, rng.zipf(1.2, len(owner)) % 5_000)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), strings("tag", tag))


def strings(prefix: str, numbers: np.ndarray[Any, Any]) -> pa.Array:
    return pa.array(np.char.add(f"{prefix} ", numbers.astype(str)), pa.string())


def mixed(rng: Rng, group: np.ndarray[Any, Any], n_values: int) -> np.ndarray[Any, Any]:
    """The group's own value on half of the rows, else any."""
    return np.where(rng.random(len(group)) < 0.5, group, rng.integers(0, n_values, len(group)))


COLUMNS: dict[str, Callable[[Rng, np.ndarray[Any, Any]], pa.Array]] = {
    "30 strings": lambda rng, g: strings("language", mixed(rng, g, 30)),
    "100,000 strings": lambda rng, g: strings("author", mixed(rng, g, 100_000)),
    "dictionary of 1,000": lambda rng, g: strings("place", mixed(rng, g, 1_000)).dictionary_encode(),
    "boolean": lambda rng, g: pa.array(mixed(rng, g, 2) % 2 == 0),
    "10 integers": lambda rng, g: pa.array(mixed(rng, g, 10) % 10),
    "5,000 integers": lambda rng, g: pa.array(mixed(rng, g, 5_000)),
    "float": lambda rng, g: pa.array(rng.normal(size=len(g)) + g),
    "timestamp": lambda rng, g: pa.array(rng.integers(0, 2**31, len(g)), pa.timestamp("s")),
    "tags": tags,
    "text, 12 words": lambda rng, g: pa.array(words(rng, g, 12)),
    "text, 300 words": lambda rng, g: pa.array(words(rng, g, 300)),
}
TEN = [name for name in COLUMNS if name != "text, 300 words"]


def stream(
    names: list[str], n_rows: int, batch_rows: int, seed: int
) -> Iterator[tuple[pa.RecordBatch, pa.Array]]:
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, K + 1)
    for start in range(0, n_rows, batch_rows):
        n = min(batch_rows, n_rows - start)
        group = rng.choice(K, size=n, p=share / share.sum())
        lengths = rng.integers(0, 3, n)
        numbers = np.where(rng.random(lengths.sum()) < 0.8, np.repeat(group, lengths), 0).astype(np.int32)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        batch = pa.record_batch({name: COLUMNS[name](rng, group) for name in names})
        yield batch, pa.ListArray.from_arrays(pa.array(offsets), pa.array(numbers))


def measure(label: str, names: list[str], n_rows: int, batch_rows: int) -> None:
    sample = pa.Table.from_batches([batch for batch, _ in stream(names, 10_000, 10_000, 1)])
    start = time.process_time()
    describer = Describer(sample.schema, sample, range(K))
    planned, pass_seconds = time.process_time() - start, 0.0
    for batch, members in stream(names, n_rows, batch_rows, 2):
        start = time.process_time()
        describer.update(batch, members)
        pass_seconds += time.process_time() - start
    start = time.process_time()
    found = describer.result()
    seconds = time.process_time() - start
    n = sum(len(d.over_represented) + len(d.words) for d in found)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{label:22} sample {planned:5.2f} s, pass {pass_seconds:5.2f} s, result {seconds:5.2f} s,"
        f" {n:4} findings, peak so far {peak:,.0f} MiB",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--batch-rows", type=int, default=65_536)
    parser.add_argument("--only", choices=list(COLUMNS))
    args = parser.parse_args()
    measure("nothing", ["boolean"], 1_000, 1_000)
    for name in [args.only] if args.only else COLUMNS:
        n_rows = args.rows // 20 if name == "text, 300 words" else args.rows
        measure(name, [name], n_rows, args.batch_rows)
    if not args.only:
        measure("ten columns at once", TEN, args.rows, args.batch_rows)


if __name__ == "__main__":
    main()
