"""Run as a process: one annotation per table named, each of which stops at the step that its name ends in.

Tables in an object store are reached by the options in the environment, as JSON. Says "stopped" once all
have; then the process can be killed, and all die at once.
"""

import json
import os
import sys
import threading
import time

import pyarrow as pa

from lance_tables import SCHEMA, annotate_observed, annotation
from spec_store_lancedb.annotate import Step


def second(batch):
    n = len(batch)
    lists = pa.array([[2.0]] * n, pa.list_(pa.float32()))
    return pa.record_batch([pa.array([2] * n, pa.int32()), lists, ["second"] * n], schema=SCHEMA)


def main(folder, *names):
    stopped = threading.Barrier(len(names) + 1)

    def run(name):
        kind, step = name.split("-")
        run_of = {"again": "run-2", "mixed": "run-3"}

        def on_step(reached):
            if reached is Step[step]:
                stopped.wait()
                time.sleep(1000)

        later = annotation(second, token="b" * 24, run=run_of.get(kind, ""))
        options = json.loads(os.environ.get("STORAGE_OPTIONS", "null"))
        own = later if kind in run_of else annotation()
        annotate_observed(folder, on_step, own, name=name, storage_options=options)

    for name in names:
        threading.Thread(target=run, args=(name,), daemon=True).start()
    stopped.wait()
    print("stopped", flush=True)
    time.sleep(1000)


if __name__ == "__main__":
    main(*sys.argv[1:])
