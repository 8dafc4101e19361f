"""Workers in other processes of this machine."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from ..errors import RetryError
from ..executor import Executor
from ..options import MOST_WORKERS, check_count
from ..stores.streaming import usable_cores
from .outcomes import Outcome, pickled
from .process_worker import FUNCTION, ITEM

__all__ = ["Processes"]

T = TypeVar("T")
R = TypeVar("R")

# Items that are worked on or waiting to be taken, per worker: what a slow one may lag behind the others.
_AHEAD = 2
_SECONDS_TO_END = 10.0

_CODE = "import sys; sys.path[:] = {path!r}; from {module} import work; work({socket})"
_ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
# One pool of free memory for all threads, as the command line sets it for itself.
_ENVIRONMENT = {**_ONE_THREAD, "MALLOC_ARENA_MAX": "1"}


class Processes(Executor):
    """Processes of this machine, in each of which products take one thread.

    They start with the first work and stay for the next until `close`. Each reads for itself: what they are
    sent are a source, which must pickle, and feature maps or a scorer, once each. Scripts need no
    ``if __name__ == "__main__"``, since the main module is not imported again.

    Parameters
    ----------
    workers
        How many; None is as many as the process may use of the machine's cores.

    Notes
    -----
    Cost: about a second to start, and 150 MB of memory each beside what they compute with.

    Examples
    --------
    >>> with spec_store.Processes(4) as workers:  # doctest: +SKIP
    ...     spec_store.compare("images", ["clip", "dino"], executor=workers, write=True)
    """

    def __init__(self, workers: int | None = None) -> None:
        if workers is not None:
            check_count("workers", workers, 1, MOST_WORKERS)
        self._n_workers = workers or usable_cores()
        self._started: list[_Worker] = []

    @property
    def workers(self) -> int:
        """How many processes."""
        return self._n_workers

    def threads_each(self, n_items: int) -> int:
        """More than one where there are fewer items than workers: no core stays idle."""
        return max(1, self._n_workers // max(n_items, 1))

    def describe(self) -> str:
        """Their number."""
        return f"{self._n_workers} process{'es' if self._n_workers > 1 else ''}"

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Generator[R, None, None]:
        """See `Executor.map`. A worker that dies ends the pass with a RetryError."""
        content = pickled(function)
        return self._results(content, iter(items))

    def _results(self, function: bytes, items: Iterator[Any]) -> Generator[Any, None, None]:
        while len(self._started) < self._n_workers:
            self._started.append(_Worker())
        busy: dict[Connection, tuple[_Worker, int]] = {}
        finished: dict[int, Outcome] = {}
        n_sent = n_taken = 0
        try:
            for worker in self._started:
                worker.send(FUNCTION, function)
            idle = list(self._started)
            while True:
                while idle and n_sent - n_taken < _AHEAD * self._n_workers:
                    try:
                        item = next(items)
                    except StopIteration:
                        idle = []
                        break
                    worker = idle.pop(0)
                    busy[worker.connection] = worker, n_sent
                    worker.send(ITEM, pickle.dumps(item, protocol=5))
                    n_sent += 1
                if n_taken in finished:
                    yield finished.pop(n_taken).result()
                    n_taken += 1
                elif busy:
                    ready = wait(list(busy))
                    for connection in [c for c in busy if c in ready]:
                        worker, number = busy.pop(connection)
                        finished[number] = worker.receive()
                        idle.append(worker)
                else:
                    return
        except BaseException:  # a pass that was left half way, too: what is under way is for nobody
            self.close()
            raise

    def close(self) -> None:
        """End the processes, in the middle of their work too."""
        workers, self._started = self._started, []
        for worker in workers:
            worker.connection.close()
        for worker in workers:
            worker.end()


class _Worker:
    """One process, and the socket to it."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            code = _CODE.format(
                path=sys.path, module="spec_store.workflows.process_worker", socket=theirs.fileno()
            )
            self._process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={**os.environ, **_ENVIRONMENT},
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is for the process that it works for, which ends it
            )
        self.connection = Connection(ours.detach())

    def send(self, kind: bytes, content: bytes) -> None:
        try:
            self.connection.send_bytes(kind + content)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise self._lost() from error

    def receive(self) -> Outcome:
        try:
            outcome: Outcome = pickle.loads(self.connection.recv_bytes())
        except (EOFError, ConnectionResetError) as error:
            raise self._lost() from error
        return outcome

    def _lost(self) -> RetryError:
        code = self._process.wait(_SECONDS_TO_END)
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
        return RetryError(
            f"A worker process ({self._process.pid}) {how}, as happens where memory runs out. Nothing was"
            " published. Try again, with fewer --workers or a smaller --batch-rows."
        )

    def end(self) -> None:
        """Once its socket is closed it ends by itself, unless it hangs."""
        try:
            self._process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
