"""Read a little of an index file in a process of its own: FAISS crashes on some broken files.

Run as ``python -m spec_store_faiss.probe FILE``; what it prints is not meant for people.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from spec_store.errors import InputError, SpecStoreError

__all__ = ["probe"]


def probe(path: Path) -> None:
    """Raise InputError where FAISS dies of the file; anything that it survives is left to the reader.

    Cost: half a second, and the reading of what can't be memory-mapped.
    """
    searched = os.pathsep.join(p for p in sys.path if p)
    done = subprocess.run(
        [sys.executable, "-m", "spec_store_faiss.probe", str(path)],
        env={**os.environ, "PYTHONPATH": searched},
        capture_output=True,
        check=False,
    )
    if done.returncode < 0:
        raise InputError(
            f"{path} is broken: reading it crashes FAISS ({signal.Signals(-done.returncode).name}). Build the"
            " index again."
        )


def _read(path: Path) -> None:
    from .file import open_index
    from .rows import rows_of

    opened = open_index(path)
    rows = rows_of(opened.index)
    rows.ids()
    if rows.n:
        rows.read(0, 1)
        rows.read(rows.n - 1, rows.n)


if __name__ == "__main__":
    try:
        _read(Path(sys.argv[1]))
    except SpecStoreError:
        sys.exit(1)
