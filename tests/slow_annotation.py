"""Run as a process: annotate the table in the folder given, slowly enough to be killed at any stage."""

import sys
import time

import spec_store_lancedb.annotate as module
from lance_tables import annotation, open_source

_PAUSE = 0.15


def slowed(function):
    def wrapper(*args):
        time.sleep(_PAUSE)
        result = function(*args)
        time.sleep(_PAUSE)
        return result

    return wrapper


def main(folder, per_batch):
    module._check_detached = slowed(module._check_detached)
    module._Run._with_columns = slowed(module._Run._with_columns)
    module._Run._published = slowed(module._Run._published)
    inner = annotation().compute

    def compute(batch):
        time.sleep(per_batch)
        return inner(batch)

    source = open_source(folder)
    print("ready", flush=True)
    source.annotate(annotation(compute))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
