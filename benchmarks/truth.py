"""Are the clusters that `compare` lists true, and how much of the difference do they show?

python benchmarks/truth.py                       # every pair that can be built; a minute or two each
python benchmarks/truth.py digits minilm         # only these, see pairs.py and neural_pairs.py
python benchmarks/truth.py --markdown            # the same as a Markdown table
python benchmarks/truth.py nothing --seeds 20    # three pairs without any difference: is anything listed?

Each pair is written to a LanceDB table and compared with default options; what the run wrote to the table is
read back and checked by evaluation.py, on at most 8,000 rows and exact kernels with the run's bandwidths.
Beside it, checked the same way: k-means of the embedding's own vectors, chosen in its favour on the rows that
it is evaluated on; HDBSCAN of them; and the top rows of raw eigenvectors (the paper's way), see rivals.py.

Needs scikit-learn: pip install "spec-store[demo]".
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
from evaluation import Claim, Evaluator, mismatch_mass, unit_rows
from nothing import print_listed
from numpy.typing import NDArray
from pairs import NAMES, Pair, default_folder, load_available
from rivals import hdbscan_clusters, kmeans_claims, leading_rows

from spec_store import compare

LARGEST_EVALUATED = 8000
SMALLEST_SUMMARISED = 4000
# Where k-means finds less of the table than this there is nothing to be compared with.
LEAST_MASS = 0.01


@dataclass(frozen=True)
class End:
    """What one end of a pair lists, and the mismatch mass of that list and of each rival's.

    `failing_rows` is the share of this end's rows whose strongest cluster does not hold.
    """

    pair: str
    column: str
    n_rows: int
    claims: Sequence[Claim]
    failing_rows: float
    kmeans: float
    hdbscan: float
    eigenvectors: float

    @property
    def mass(self) -> float:
        return mismatch_mass(self.claims)

    @property
    def ratio(self) -> float | None:
        """Mismatch mass over that of k-means; None where k-means finds next to nothing."""
        return self.mass / self.kmeans if self.kmeans >= LEAST_MASS else None

    def cells(self) -> list[str]:
        listed = len(self.claims)
        largest = max((float(c.members.mean()) for c in self.claims), default=0.0)
        masses = [f"{m:.3f}" for m in (self.mass, self.kmeans, self.hdbscan, self.eigenvectors)]
        return [
            self.pair,
            self.column,
            f"{self.n_rows:,}",
            str(listed),
            f"{sum(c.holds for c in self.claims) / listed:.0%}" if listed else "–",
            f"{largest:.0%}",
            f"{self.failing_rows:.0%}",
            *masses,
            "–" if self.ratio is None else f"{self.ratio:.2f}",
        ]


HEADINGS = (
    "pair",
    "grouped by",
    "rows",
    "listed",
    "hold",
    "largest",
    "rows to a failing one",
    "mismatch mass",
    "k-means",
    "HDBSCAN",
    "eigenvectors",
    "ratio to k-means",
)


def vectors(x: NDArray[np.float32]) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), x.shape[1])


def compared(pair: Pair, seed: int) -> tuple[Any, pa.Table]:
    """A run on a real table with default options, and what it wrote: `cluster` and `clusters` per row."""
    columns = {"row": pa.array(np.arange(len(pair.a))), pair.columns[0]: vectors(pair.a)}
    columns |= {
        pair.columns[1]: vectors(pair.b),
        **dict(zip(pair.facts.column_names, pair.facts, strict=True)),
    }
    with tempfile.TemporaryDirectory() as folder:
        lancedb.connect(folder).create_table("rows", pa.table(columns))
        run = compare("rows", list(pair.columns), db=folder, write=True, seed=seed)
        prefix = f"spec_{pair.columns[0]}_{pair.columns[1]}"
        written = lancedb.connect(folder).open_table("rows").to_arrow().sort_by("row")
        names = ["cluster", "clusters"]
        return run, written.select([f"{prefix}_{name}" for name in names]).rename_columns(names)


def evaluate(pair: Pair, seed: int) -> Iterator[End]:
    """Both ends of a pair."""
    run, written = compared(pair, seed)
    rng = np.random.default_rng(seed)
    n = len(pair.a)
    rows = np.sort(rng.choice(n, min(n, LARGEST_EVALUATED), replace=False))
    written = written.take(pa.array(rows))
    embeddings = pair.a[rows], pair.b[rows]
    units = [unit_rows(x) for x in embeddings]
    record = run.to_json()
    evaluator = Evaluator(units, [record["bandwidth"][column] for column in pair.columns], seed + 1)
    lists = written["clusters"].to_pylist()
    strongest = written["cluster"].to_pylist()
    for end, column in enumerate(pair.columns):
        numbers = [c["cluster"] for c in record["clusters"] if c["side"] == column]
        masks = [np.array([number in (cell or ()) for cell in lists]) for number in numbers]
        claims = evaluator.claims(masks, end)
        holds = {number: claim.holds for number, claim in zip(numbers, claims, strict=True)}
        sent = [holds[number] for number in strongest if number in holds]
        yield End(
            pair=pair.name,
            column=column,
            n_rows=n,
            claims=claims,
            failing_rows=1 - float(np.mean(sent)) if sent else 0.0,
            kmeans=mismatch_mass(kmeans_claims(units[end], evaluator, end, seed)),
            hdbscan=mismatch_mass(evaluator.claims(hdbscan_clusters(units[end], seed), end)),
            eigenvectors=mismatch_mass(evaluator.claims(leading_rows(run, end, embeddings), end)),
        )


def summary(ends: Sequence[End]) -> str:
    listed = [claim for end in ends for claim in end.claims]
    text = f"{sum(c.holds for c in listed)} of {len(listed)} listed clusters hold."
    ratios = [e.ratio for e in ends if e.n_rows >= SMALLEST_SUMMARISED and e.ratio is not None]
    if not ratios:
        return text
    mean = float(np.exp(np.mean(np.log(ratios)))) if min(ratios) > 0 else 0.0
    return (
        f"{text} Ratio to k-means on {len(ratios)} ends of pairs of {SMALLEST_SUMMARISED:,} rows or more:"
        f" geometric mean {mean:.2f}, least {min(ratios):.2f}."
    )


def as_text(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i < 2 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def as_markdown(rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", "---", *["---:"] * (len(rows[0]) - 2)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [rows[0], rule, *rows[1:]])


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Check the clusters that a comparison lists, and its rivals'."
    )
    parser.add_argument("pairs", nargs="*", metavar="PAIR", help=f"Of {', '.join(NAMES)}; or: nothing.")
    parser.add_argument("--folder", type=Path, default=default_folder(), help="Where pairs are cached.")
    parser.add_argument(
        "--seed", type=int, default=0, help="Seed of the comparison, the split and the rivals."
    )
    parser.add_argument("--seeds", type=int, default=20, help="With `nothing`: number of seeds.")
    parser.add_argument("--markdown", action="store_true", help="Print a Markdown table.")
    options = parser.parse_args()
    if options.pairs == ["nothing"]:
        print_listed(options.seeds)
        return
    ends: list[End] = []
    for pair in load_available(options.pairs or NAMES, options.folder):
        ends += evaluate(pair, options.seed)
    if ends:
        table = [HEADINGS, *(end.cells() for end in ends)]
        print(as_markdown(table) if options.markdown else as_text(table))
        print(f"\n{summary(ends)}")


if __name__ == "__main__":
    main()
