"""The same comparison by other means: accuracy against the exact n x n answer, and what it takes.

python benchmarks/peers.py --rows 50000 --db bench-db
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg
from chart import speed_at_accuracy
from numpy.typing import NDArray
from synthetic import table_at

from spec_store.connector import Source
from spec_store.options import CompareOptions
from spec_store.progress import silent
from spec_store.spectral.features import gaussian_kernel
from spec_store.spectral.spectrum import solve
from spec_store.stores.locate import open_columns
from spec_store.stores.vectors import decode
from spec_store.workflows.basis import gather

WIDTHS = {"clip": 512, "dino": 768}
MODES = 10
TOP = 50
_CHUNK = 2000
_BLOCK = 100
_ITERATIONS = 3

Rows = tuple[NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True)
class Found:
    """Eigenvalues, shape (10,), and scores, shape (n, 10), of both ends, the strongest first."""

    values: tuple[NDArray[np.float64], NDArray[np.float64]]
    scores: tuple[NDArray[np.float64], NDArray[np.float64]]
    seconds: float
    state_bytes: int


@dataclass(frozen=True)
class Row:
    """What one method reached: per end the worst, energies and overlaps from 0 to 1."""

    method: str
    seconds: float
    state_bytes: int
    eigenvalue_error: float
    energy: float
    overlap: float


def source_of(db: Path, table: str) -> Source:
    return open_columns(
        list(WIDTHS), table=table, db=str(db), version=None, key=None, on_missing="error"
    ).source


def unit_rows(source: Source) -> Rows:
    """All vectors at unit length: for the reference alone."""
    parts: tuple[list[Any], list[Any]] = ([], [])
    for batch in source.batches(list(WIDTHS), batch_rows=4096):
        for held, (name, width) in zip(parts, WIDTHS.items(), strict=True):
            vectors = decode(name, batch.column(name), width, directions=True)
            held.append(vectors.normalized(None, "float32"))
    return np.concatenate(parts[0]), np.concatenate(parts[1])


def exact(rows: Rows, sigmas: tuple[float, float]) -> Found:
    """The centred difference's modes by subspace iteration with kernels computed anew: no n x n matrix."""
    n = len(rows[0])
    start = time.perf_counter()

    def product(x: NDArray[np.float32]) -> NDArray[np.float32]:
        x = x - x.mean(axis=0)
        out = np.empty_like(x)
        for i in range(0, n, _CHUNK):
            at = slice(i, i + _CHUNK)
            k = gaussian_kernel(rows[0][at], rows[0], sigmas[0], dtype="float32")
            k -= gaussian_kernel(rows[1][at], rows[1], sigmas[1], dtype="float32")
            out[at] = k @ x
        return (out - out.mean(axis=0)) / np.float32(n)

    q = np.random.default_rng(0).standard_normal((n, _BLOCK)).astype(np.float32)
    for _ in range(_ITERATIONS):
        q = np.linalg.qr(product(q))[0]
    inside = q.T.astype(np.float64) @ product(q)
    values, turned = np.linalg.eigh((inside + inside.T) / 2)
    ends = (np.arange(_BLOCK)[::-1][:MODES], np.arange(MODES))
    seconds = time.perf_counter() - start
    scores = [(q @ turned[:, e]) * np.sqrt(n) for e in ends]
    return Found((values[ends[0]], values[ends[1]]), (scores[0], scores[1]), seconds, 4 * n * n)


def ours(source: Source, options: CompareOptions) -> tuple[Found, tuple[float, float]]:
    """Sample, state and solution as `compare` makes them; and the bandwidths."""
    start = time.perf_counter()
    basis = gather(source, tuple(WIDTHS), (), options, source.count(), silent, others=())
    spectrum = solve(basis.state, modes=MODES, center=True)
    seconds = time.perf_counter() - start
    maps = basis.state.maps
    scores: tuple[list[Any], list[Any]] = ([], [])
    for batch in source.batches(list(WIDTHS), batch_rows=2048):
        vectors = [decode(m.column, batch.column(m.column), m.width, directions=True) for m in maps]
        columns = [m.columns(v).astype(np.float64) for m, v in zip(maps, vectors, strict=True)]
        turned = [c if (t := m.whitening()) is None else c @ t for m, c in zip(maps, columns, strict=True)]
        for end, held in enumerate(scores):
            held.append(spectrum.scores(end, np.concatenate(turned, axis=1)))
    p = basis.state.n_columns
    values = spectrum.ends[0].eigenvalues, spectrum.ends[1].eigenvalues
    joined = np.concatenate(scores[0]), np.concatenate(scores[1])
    return Found(values, joined, seconds, 8 * p * (p + 1) // 2), (maps[0].sigma or 0, maps[1].sigma or 0)


def in_scikit_learn(
    rows: Rows, sigmas: tuple[float, float], covariance: Callable[[Iterator[Any]], Any]
) -> Found:
    """Nystroem features of 500 rows drawn at random, and an incremental covariance of both side by side."""
    from sklearn.kernel_approximation import Nystroem

    start = time.perf_counter()
    maps = [
        Nystroem(kernel="rbf", gamma=0.5 / s**2, n_components=500, random_state=0).fit(x[:10_000])
        for x, s in zip(rows, sigmas, strict=True)
    ]

    def features() -> Iterator[NDArray[np.float32]]:
        for i in range(0, len(rows[0]), _CHUNK):
            both = [m.transform(x[i : i + _CHUNK]) for m, x in zip(maps, rows, strict=True)]
            yield np.concatenate(both, axis=1).astype(np.float32)

    mean, c = covariance(features())
    values, vectors = scipy.linalg.eigh(c)
    keep = values > values[-1] * 1e-6
    factor = vectors[:, keep] * np.sqrt(values[keep])
    signs = np.repeat([1.0, -1.0], 500)
    found, inner = scipy.linalg.eigh(factor.T @ (signs[:, None] * factor))
    ends = (np.arange(len(found))[::-1][:MODES], np.arange(MODES))
    weights = [(signs[:, None] * factor) @ inner[:, e] / found[e] for e in ends]
    seconds = time.perf_counter() - start
    scores = [np.concatenate([(f - mean) @ w for f in features()]) for w in weights]
    return Found((found[ends[0]], found[ends[1]]), (scores[0], scores[1]), seconds, 8 * c.size)


def incremental_pca(batches: Iterator[NDArray[np.float32]]) -> tuple[Any, Any]:
    from sklearn.decomposition import IncrementalPCA

    pca = IncrementalPCA()
    for batch in batches:
        pca.partial_fit(batch)
    return pca.mean_, pca.get_covariance()


def incremental_covariance(batches: Iterator[NDArray[np.float32]]) -> tuple[Any, Any]:
    from sklearnex.covariance import IncrementalEmpiricalCovariance

    found = IncrementalEmpiricalCovariance()
    for batch in batches:
        found.partial_fit(batch)
    return np.asarray(found.location_), np.asarray(found.covariance_, np.float64)


def against(truth: Found, method: str, found: Found) -> Row:
    """Error over the second eigenvalue, energy in the found subspace, and the top rows of each mode."""
    errors, energies, overlaps = [], [], []
    for end in (0, 1):
        t, f = truth.values[end], found.values[end][:MODES]
        errors.append(float(np.abs(f - t[: len(f)]).max() / abs(t[1])))
        u = np.linalg.qr(truth.scores[end])[0]
        q = np.linalg.qr(found.scores[end][:, :MODES])[0]
        inside = u.T @ q
        energies.append(float((inside**2).sum() / MODES))
        projected = q @ inside.T  # each exact mode as the found subspace sees it: near-equal modes may rotate
        shared = [
            len(np.intersect1d(np.argsort(-np.abs(x))[:TOP], np.argsort(-np.abs(y))[:TOP])) / TOP
            for x, y in zip(u.T, projected.T, strict=True)
        ]
        overlaps.append(float(np.mean(shared)))
    return Row(method, found.seconds, found.state_bytes, max(errors), min(energies), min(overlaps))


def methods(source: Source, *, quick: bool) -> list[Row]:
    """All of them on one source, the exact answer first."""
    rows = unit_rows(source)
    chosen, sigmas = ours(source, CompareOptions())
    truth = exact(rows, sigmas)
    table = [Row("exact, kernels computed anew", truth.seconds, truth.state_bytes, 0.0, 1.0, 1.0)]
    table.append(against(truth, "spec-store, 500 landmarks", chosen))
    for dim in (125, 250, 1000):
        found = ours(source, CompareOptions(dim=dim))[0]
        table.append(against(truth, f"spec-store, {dim} landmarks", found))
    for dim in (250, 1000) if quick else (250, 1000, 3000):
        found = ours(source, CompareOptions(features="rff", dim=dim))[0]
        table.append(against(truth, f"random Fourier features, m = {dim}", found))
    found = in_scikit_learn(rows, sigmas, incremental_pca)
    table.append(against(truth, "scikit-learn Nystroem + IncrementalPCA", found))
    with suppress(ImportError):
        found = in_scikit_learn(rows, sigmas, incremental_covariance)
        table.append(against(truth, "scikit-learn Nystroem + incremental covariance (intelex)", found))
    return table


def shown(table: list[Row]) -> str:
    head = f"{'method':58} {'seconds':>8} {'state MB':>9} {'error':>7} {'energy':>7} {'top 50':>7}"
    lines = [
        f"{r.method:58} {r.seconds:8.1f} {r.state_bytes / 1e6:9.1f} {r.eigenvalue_error:7.4f}"
        f" {r.energy:7.4f} {r.overlap:7.3f}"
        for r in table
    ]
    return "\n".join([head, *lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--db", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="Skip the paper's recipe at its full size.")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    args.db.mkdir(exist_ok=True)
    table = methods(source_of(args.db, table_at(args.db, args.rows, WIDTHS)), quick=args.quick)
    print(shown(table))
    if args.json:
        args.json.write_text(json.dumps([asdict(r) for r in table], indent=1))
    if args.plot:
        args.plot.write_text(speed_at_accuracy(table, args.rows))


if __name__ == "__main__":
    main()
