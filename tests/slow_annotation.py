"""Run as a process: annotate the table in the folder given, slowly enough to be killed at any stage."""

import sys
import time

from lance_tables import annotate_observed, annotation

_PAUSE = 0.15


def main(folder, per_batch):
    inner = annotation().compute

    def compute(batch):
        time.sleep(per_batch)
        return inner(batch)

    print("ready", flush=True)
    annotate_observed(folder, lambda step: time.sleep(_PAUSE), annotation(compute))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
