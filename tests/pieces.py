"""Functions that worker processes import: what they do there, or what goes wrong."""

import os
import signal
import time
from pathlib import Path

import pyarrow as pa

from spec_store.errors import InputError


def double(number):
    """Later items first, if several work on them."""
    time.sleep(0.05 if number % 2 == 0 else 0)
    return 2 * number


def worker(number):
    time.sleep(0.05)
    return os.getpid()


def refuse_three(number):
    if number == 3:
        raise InputError(f"{number} is refused.")
    return number


class _Stubborn(Exception):
    """Can't be read back from a pickle."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def fail_strangely(number):
    raise _Stubborn(number, number)


def die_at_two(number):
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def wait_long(folder):
    """Tell of the process in a file, then work for a minute."""
    Path(folder, str(os.getpid())).touch()
    time.sleep(60)


class Held:
    """A function that on one node of a Ray cluster tells of itself in a folder, and never ends."""

    def __init__(self, function, node, folder):
        self._function, self._node, self._folder = function, node, folder

    def __call__(self, item):
        import ray

        if ray.get_runtime_context().get_node_id() == self._node:
            wait_long(self._folder)
        return self._function(item)


def until(condition):
    """Wait for something that will be so in a moment."""
    for _ in range(1500):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("waited for 30 seconds")


class Scores:
    """A result column; dies at the row of the id given, or waits a minute there once it has told so."""

    schema = pa.schema([("r_number", pa.int32())])

    def __init__(self, *, die_at=None, wait_at=None, tell=None):
        self._die_at, self._wait_at, self._tell = die_at, wait_at, tell

    def __call__(self, batch):
        ids = batch.column(1).to_pylist()
        if self._die_at in ids:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._wait_at in ids:
            Path(self._tell).touch()
            time.sleep(60)
        return pa.record_batch([pa.array([i % 1000 for i in ids], pa.int32())], schema=self.schema)


class Staging:
    """A share of two of a source's column files."""

    def __init__(self, source, annotation):
        self._source, self._annotation = source, annotation

    def __call__(self, part):
        return self._source.stage(self._annotation, part, 2)


if __name__ == "__main__":
    import sys

    import pieces
    from spec_store.workflows.executor import Processes

    list(Processes(2).map(pieces.wait_long, [sys.argv[1]] * 2))
