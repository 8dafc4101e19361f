"""Streaming a FAISS index file: resident growth, and speed against a bare loop over the same index.

    python benchmarks/faiss_stream.py [rows] [width]

Each measurement runs in a process of its own. The bare loop is `reconstruct_n` for a flat index, and copies
of the lists' codes for an inverted file, both over the memory-mapped file.
"""

import importlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import faiss
import numpy as np

ROWS = 8192


def resident():
    """Megabytes resident now, and at most so far; getrusage would count the parent's peak, too."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return tuple(int(status[name].split()[0]) / 1e3 for name in ("VmRSS", "VmHWM"))


def bare(path):
    index = faiss.read_index(path, faiss.IO_FLAG_MMAP_IFC)
    start = time.perf_counter()
    total = 0.0
    if isinstance(index, faiss.IndexIVF):
        for i in range(index.nlist):
            size = index.invlists.list_size(i)
            codes = faiss.rev_swig_ptr(index.invlists.get_codes(i), size * index.code_size).copy()
            ids = faiss.rev_swig_ptr(index.invlists.get_ids(i), size).copy()
            total += float(codes.view(np.float32)[:1].sum()) + int(ids[:1].sum())
    else:
        for first in range(0, index.ntotal, ROWS):
            vectors = index.reconstruct_n(first, min(ROWS, index.ntotal - first))
            total += float(vectors[0, 0])
    return time.perf_counter() - start


def connector(path):
    from spec_store_faiss import FaissSource

    source = FaissSource.open(path)
    start = time.perf_counter()
    total = 0.0
    for batch in source.batches(["vector"], batch_rows=ROWS):
        total += batch["vector"].values[0].as_py() + batch["id"][0].as_py()
    return time.perf_counter() - start


def measure(kind, path):
    importlib.import_module("spec_store_faiss")  # what is imported is no growth
    before = resident()[0]
    run = {"bare": bare, "connector": connector}[kind]
    first = run(path)
    growth = resident()[1] - before
    print(json.dumps({"seconds": min(first, run(path)), "growth_mb": growth}))


def main(n, width):
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("Flat", "IVF256,Flat"):
            path = f"{folder}/{name}.index"
            index = faiss.index_factory(width, name)
            index.train(rng.standard_normal((20_000, width), dtype=np.float32))
            for start in range(0, n, 100_000):
                index.add(rng.standard_normal((min(100_000, n - start), width), dtype=np.float32))
            faiss.write_index(index, path)
            del index
            found = {"bare": [], "connector": []}
            for kind in ("bare", "connector") * 3:
                command = [sys.executable, __file__, "--measure", kind, path]
                shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                found[kind].append(json.loads(shown))
            seconds = {kind: min(f["seconds"] for f in runs) for kind, runs in found.items()}
            growth = max(f["growth_mb"] for f in found["connector"])
            bare_growth = max(f["growth_mb"] for f in found["bare"])
            print(f"{name}: {n:,} rows, connector {seconds['connector']:.2f} s, bare {seconds['bare']:.2f} s")
            print(f"  speed {seconds['bare'] / seconds['connector']:.2f} of bare")
            print(f"  resident growth {growth:.0f} MB (bare {bare_growth:.0f} MB)")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(*sys.argv[2:])
    else:
        main(*(int(a) for a in sys.argv[1:3])) if sys.argv[1:] else main(1_000_000, 128)
