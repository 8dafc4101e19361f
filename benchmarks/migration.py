"""After a switch of models, what do searches find among rows that were mapped and not embedded again?

python benchmarks/migration.py                                # every pair, every map, five splits
python benchmarks/migration.py --pairs digits,int8 --seeds 1  # a look at two pairs
python benchmarks/migration.py --json results.json            # the figures of each pair, map and split, too
python benchmarks/migration.py --maps "ours: kernel" --json ours.json     # one map again, on the same splits
python benchmarks/migration.py --read results.json ours.json  # tables of figures that were kept
python benchmarks/migration.py --read results.json --fill docs/switching.md  # put them into the document

A fifth of each pair's rows is held out and searched, drawn anew for each seed; all maps see the same
training rows. Pairs: upgrade_pairs.py; rivals: baselines.py; figures: searches.py. Tables are printed to
stdout, progress to stderr. One BLAS thread is enough: OPENBLAS_NUM_THREADS=1.

Needs scikit-learn: pip install "spec-store[demo]".
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np
from baselines import BASELINES, Map, ridge
from numpy.typing import NDArray
from outcomes import Outcome, as_markdown, as_text, fill
from pairs import default_folder
from searches import Clusters, Search, as_table
from upgrade_pairs import NAMES, Upgrade, load_available

import spec_store
from spec_store.alignment.fit import Kind

Matrix = NDArray[np.float32]

# Of those that this version fits, the first is shown where none is named.
OURS = ("kernel", "residual", "affine", "lowrank")
NOTHING = "do nothing"
BACK = "queries mapped back"
TEST_SHARE = 0.2
# Below this much of the table there are no clusters to bring over.
LEAST_MISMATCH = 0.02


@dataclass(frozen=True)
class Split:
    """Old and new rows to fit on, and old and new rows to search."""

    train: tuple[Matrix, Matrix]
    test: tuple[Matrix, Matrix]


def split(pair: Upgrade, seed: int) -> Split:
    rng = np.random.default_rng([seed, len(pair.old)])
    order = rng.permutation(len(pair.old))
    n_test = round(TEST_SHARE * len(order))
    test, train = order[:n_test], order[n_test:]
    return Split((pair.old[train], pair.new[train]), (pair.old[test], pair.new[test]))


def kinds_of_ours() -> list[str]:
    return [kind for kind in OURS if kind in get_args(Kind)]


def ours(kind: str) -> Callable[[Matrix, Matrix, int], Map]:
    """spec-store's own map; a twentieth of the training rows are its test rows, which it is not fitted on."""

    def fit(old: Matrix, new: Matrix, seed: int) -> Map:
        run = spec_store.align(
            as_table(old, new), "old", "new", key="row", kind=kind, held_out=0.05, seed=seed, threads=1
        )
        return run.map.transform

    return fit


def fits_of(names: Sequence[str]) -> dict[str, Callable[[Matrix, Matrix, int], Map | None]]:
    """By name, how each map is fitted; the two that leave the rows as they are have none.

    Raises
    ------
    ValueError
        There is no map of one of these names.
    """
    known: dict[str, Callable[[Matrix, Matrix, int], Map | None]] = {
        NOTHING: lambda old, new, seed: lambda x: x,
        BACK: lambda old, new, seed: ridge(new, old, seed),
        **BASELINES,
        **{f"ours: {kind}": ours(kind) for kind in kinds_of_ours()},
    }
    for name in names:
        if name not in known:
            raise ValueError(f"no map {name!r}; the maps are {', '.join(known)}")
    return {name: known[name] for name in names}


def default_maps() -> list[str]:
    return [NOTHING, BACK, *BASELINES, f"ours: {kinds_of_ours()[0]}"]


@dataclass(frozen=True)
class Measure:
    """Measures maps on the test rows of one split of one pair."""

    pair: Upgrade
    seed: int
    parts: Split
    clusters: Clusters

    @cached_property
    def before(self) -> float:
        """Mismatch of the new model's clusters against the old rows."""
        old, new = self.parts.test
        return self.clusters.mismatch(new, old, mapped=False)

    def outcome(self, name: str, fitted: Map, seconds: float) -> Outcome:
        old, new = self.parts.test
        moves_rows = name not in (NOTHING, BACK)
        given = new if name == BACK else old
        mapped = fitted(given)
        queries, gallery = {NOTHING: (old, old), BACK: (mapped, old)}.get(name, (new, mapped))
        search = Search(queries, gallery, new)
        mismatch = None
        if self.before >= LEAST_MISMATCH:
            after = self.clusters.mismatch(new, mapped, mapped=True) if moves_rows else self.before
            mismatch = after / self.before
        idle = name == NOTHING
        return Outcome(
            pair=self.pair.name,
            map=name,
            seed=self.seed,
            overlap=search.overlap,
            ndcg=search.ndcg,
            twin_recall=None if idle else search.twin_recall,
            spec_diff=search.spec_diff,
            mismatch=mismatch,
            milliseconds=None if idle else milliseconds(fitted, given),
            seconds=None if idle else seconds,
        )


def outcomes(pair: Upgrade, seed: int, maps: Sequence[str], kept: Path | None) -> Iterator[Outcome]:
    """Each map's figures on one split of one pair."""
    parts = split(pair, seed)
    started = time.perf_counter()
    measure = Measure(pair, seed, parts, clusters_of(pair, seed, parts, kept))
    progress(pair, seed, f"clusters of the new model, mismatch {measure.before:.3f}", started)
    for name, fit in fits_of(maps).items():
        started, busy = time.perf_counter(), time.process_time()
        fitted = fit(*parts.train, seed)
        seconds = time.process_time() - busy
        if fitted is not None:
            yield measure.outcome(name, fitted, seconds)
        progress(pair, seed, name, started)


def clusters_of(pair: Upgrade, seed: int, parts: Split, kept: Path | None) -> Clusters:
    """From the folder of those that are kept, or found, and kept there."""
    file = None if kept is None else kept / f"{pair.name}-{seed}.npz"
    if file is not None and file.exists():
        return Clusters.kept(file)
    clusters = Clusters.found(parts.train, parts.test, seed)
    if file is not None:
        clusters.keep(file)
    return clusters


def milliseconds(fitted: Map, rows: Matrix) -> float:
    """Of CPU time for 1,000 rows at once: the median of nine calls."""
    batch = np.resize(rows, (1000, rows.shape[1]))
    times = []
    for _ in range(9):
        started = time.process_time()
        fitted(batch)
        times.append(time.process_time() - started)
    return 1e3 * float(np.median(times))


def progress(pair: Upgrade, seed: int, what: str, started: float) -> None:
    seconds = time.perf_counter() - started
    print(f"{pair.name}, seed {seed}: {what}, {seconds:.1f} s", file=sys.stderr, flush=True)


def measured(
    pairs: Sequence[str],
    folder: Path,
    seeds: Sequence[int],
    maps: Sequence[str],
    file: Path | None,
    kept: Path | None,
) -> list[Outcome]:
    """All pairs on the first split, then all on the next: what is written meanwhile is never lopsided."""
    found: list[Outcome] = []
    loaded = list(load_available(pairs, folder))
    for seed in seeds:
        for pair in loaded:
            found += outcomes(pair, seed, maps, kept)
            if file is not None:
                file.write_text(json.dumps([asdict(outcome) for outcome in found], indent=1) + "\n")
    return found


def read(files: Sequence[Path]) -> list[Outcome]:
    """What was kept; of a map on the same split of the same pair, the figures of the last file."""
    kept = [Outcome(**plain) for file in files for plain in json.loads(file.read_text())]
    found = list({(o.pair, o.map, o.seed): o for o in kept}.values())
    known = [name for name in NAMES if any(o.pair == name for o in found)]
    return sorted(found, key=lambda o: known.index(o.pair))


def names(given: str) -> list[str]:
    return [name.strip() for name in given.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare maps from an old embedding model to a new one.")
    add: Any = parser.add_argument
    add("--pairs", type=names, default=list(NAMES), help=f"Of {', '.join(NAMES)}.")
    add("--maps", type=names, default=default_maps(), help=f"Default: {', '.join(default_maps())}.")
    add("--seeds", type=int, default=5, help="Number of splits of the rows.")
    add("--first-seed", type=int, default=0, help="Seed of the first split; the others follow.")
    add("--folder", type=Path, default=default_folder(), help="Where pairs are cached.")
    add("--json", type=Path, help="Write the figures of each pair, map and split to this file.")
    add("--clusters", type=Path, help="Keep each split's clusters in this folder, and take those there.")
    add("--read", type=Path, nargs="+", help="Show the figures in these files instead of measuring.")
    add("--markdown", action="store_true", help="Print Markdown tables.")
    add("--fill", type=Path, help="Put the Markdown tables into this document, between its two marks.")
    options = parser.parse_args()
    if options.read:
        found = read(options.read)
    else:
        try:
            fits_of(options.maps)
        except ValueError as error:
            parser.error(str(error))
        seeds = range(options.first_seed, options.first_seed + options.seeds)
        found = measured(options.pairs, options.folder, seeds, options.maps, options.json, options.clusters)
    if not found:
        return
    if options.fill:
        options.fill.write_text(fill(options.fill.read_text(), as_markdown(found)))
    elif options.markdown:
        print(as_markdown(found))
    else:
        print(as_text(found))


if __name__ == "__main__":
    main()
