"""Run as a process: a function, with what JSON says, and die by kill -9 after so many rows of a stage.

Prints the calls of its progress by stage, so that it is known what it read.
"""

import json
import os
import signal
import sys

import spec_store
from spec_store.workflows import units
from spec_store_lancedb import ledger


def progress_until(stage, rows, end):
    """A progress that calls `end`, with the rows of each call by stage, once so many of a stage are done."""
    calls = {}

    def progress(now, n, total):
        calls.setdefault(now, []).append(n)
        if now == stage and sum(calls[now]) >= rows:
            end(calls)

    return progress


def die(calls):
    print(json.dumps(calls), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def main(arguments):
    given = json.loads(arguments)
    units._LEAST_ROWS = given.pop("unit", units._LEAST_ROWS)
    ledger._SECONDS_BETWEEN_WRITES, ledger._WRITE_SHARE = 0.0, float("inf")  # seconds of work in a moment
    stage, rows = given.pop("until")
    progress = progress_until(stage, rows, die)
    location = spec_store.Location(given.pop("db"), "lancedb", given.pop("storage_options", {}))
    run = getattr(spec_store, given.pop("call", "compare"))
    run(given.pop("table"), *given.pop("columns"), db=location, write=True, progress=progress, **given)


if __name__ == "__main__":
    main(sys.argv[1])
