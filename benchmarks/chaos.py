"""Bar B2: 50 seeded rounds in which a table is changed while runs write to it, are killed and resumed.

python benchmarks/chaos.py [--rounds 50] [--seed 0] [--s3]
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import s3_server
from chaos import Chaos, Place


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--s3", action="store_true", help="On an S3 server (moto) in a process of its own.")
    given = parser.parse_args()
    began = time.monotonic()
    if given.s3:
        with s3_server.running_apart() as server:
            chaos = Chaos(lambda i: s3_place(server, i), given.seed, report=say)
            fine = chaos.run(given.rounds)
    else:
        with tempfile.TemporaryDirectory() as folder:
            chaos = Chaos(lambda i: local_place(folder, i), given.seed, report=say)
            fine = chaos.run(given.rounds)
    print(f"{chaos.summary()}, in {time.monotonic() - began:.0f} s")
    print("writer: " + ", ".join(f"{n} {kind}" for kind, n in sorted(chaos.writes.items())))
    for reason, n in chaos.refusals.most_common():
        print(f"refused {n} x {reason}")
    print(f"violations: {len(chaos.violations)}")
    for what in chaos.violations:
        print(what)
    return 0 if fine else 1


def say(line):
    print(line, flush=True)


def local_place(folder, i):
    place = Path(folder) / f"db-{i}"
    place.mkdir()
    return Place(str(place))


def s3_place(server, i):
    uri = f"s3://{s3_server.BUCKET}/db-{i}"
    return Place(uri, server.options, objects=lambda: server.names(f"db-{i}/"))


if __name__ == "__main__":
    sys.exit(main())
