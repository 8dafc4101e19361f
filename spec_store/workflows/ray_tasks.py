"""Workers in a Ray cluster."""

from __future__ import annotations

import pickle
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable
from typing import Any, TypeVar

from ..errors import InputError, MissingExtraError, RetryError
from ..executor import Executor
from ..options import MOST_WORKERS, check_count
from .outcomes import Outcome, applied, pickled

__all__ = ["RayTasks"]

T = TypeVar("T")
R = TypeVar("R")

# Tasks that are submitted ahead of the results that were taken, per worker.
_AHEAD = 2
# How often a task is repeated whose node or process was lost.
_RETRIES = 5
_SECONDS_TO_END = 30.0


class RayTasks(Executor):
    """Plain tasks of Ray, one core each, on all nodes of a cluster.

    A task whose node or process is lost is repeated elsewhere, up to five times, and gives the same again.
    The nodes need this package, and access to the source under the same paths or URIs as here.

    Parameters
    ----------
    address
        Of the cluster: ``auto``, ``host:6379``, or ``ray://host:10001``. None uses the cluster that this
        process is connected to, else that of ``$RAY_ADDRESS``, else starts one on this machine, which `close`
        ends.
    workers
        Tasks that run at the same time; None is one per core of the cluster.

    Attributes
    ----------
    nodes
        Ids of the nodes that have computed something.
    """

    def __init__(self, address: str | None = None, *, workers: int | None = None) -> None:
        if workers is not None:
            check_count("workers", workers, 1, MOST_WORKERS)
        self._address = address
        self._n_workers = workers
        self._started_here = False
        self.nodes: set[str] = set()

    @property
    def workers(self) -> int:
        """How many tasks run at the same time. Connects to the cluster."""
        return self._n_workers or max(1, int(self._connected().cluster_resources().get("CPU", 1)))

    def describe(self) -> str:
        """The number of workers."""
        return f"{self.workers} Ray worker{'s' if self.workers > 1 else ''}"

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Generator[R, None, None]:
        """See `Executor.map`. A lost node is no error as long as others are left."""
        content = pickled(function)
        return self._results(content, items)

    def _results(self, function: bytes, items: Iterable[Any]) -> Generator[Any, None, None]:
        ray = self._connected()
        shared = ray.put(function)
        task = ray.remote(num_cpus=1, max_retries=_RETRIES, scheduling_strategy="SPREAD")(_task)
        ahead = _AHEAD * self.workers
        most = self._n_workers or ahead  # beyond its cores the cluster lets tasks wait by itself
        pending: deque[Any] = deque()
        running: set[Any] = set()
        left = iter(items)
        try:
            while True:
                while len(pending) < ahead and len(running) < most:
                    try:
                        item = next(left)
                    except StopIteration:
                        ahead = 0
                        break
                    reference = task.remote(shared, pickle.dumps(item, protocol=5))
                    pending.append(reference)
                    running.add(reference)
                if not pending:
                    return
                if pending[0] in running:
                    running.difference_update(ray.wait(list(running), num_returns=1)[0])
                else:
                    yield self._taken(pending.popleft())
        finally:
            for reference in pending:
                ray.cancel(reference, force=True)
            if pending:
                ray.wait(list(pending), num_returns=len(pending), timeout=_SECONDS_TO_END)

    def _taken(self, reference: Any) -> Any:
        ray = self._connected()
        try:
            node, content = ray.get(reference)
        except ray.exceptions.RayError as error:
            what = str(error).partition("\n")[0]  # pages of a node's log may follow
            raise RetryError(
                f"Ray lost a worker, and could not repeat its work. Nothing was published. Ray says:"
                f" {type(error).__name__}: {what}"
            ) from error
        self.nodes.add(node)
        outcome: Outcome = pickle.loads(content)
        return outcome.result()

    def _connected(self) -> Any:
        """The module `ray`, connected."""
        try:
            import ray
        except ImportError as error:
            raise MissingExtraError(
                'The engine ray is not installed. Install it: pip install "spec-store[ray]"'
            ) from error
        if not ray.is_initialized():
            try:
                with warnings.catch_warnings():  # of forks, which run other programs at once
                    warnings.filterwarnings("ignore", "lance is not fork-safe|lancedb fork support")
                    ray.init(self._address, log_to_driver=False, logging_level="ERROR")
            except (ConnectionError, RuntimeError, ValueError) as error:
                where = self._address or "this machine"
                raise InputError(f"No Ray cluster could be reached at {where}: {error}") from error
            self._started_here = True
        return ray

    def close(self) -> None:
        """Disconnect; a cluster that was started for this executor ends."""
        if self._started_here:
            self._connected().shutdown()
            self._started_here = False


# The function of the pass that this worker takes part in: unpickled once, not for each item.
_last: tuple[bytes, Callable[[Any], Any]] | None = None


def _task(function: bytes, item: bytes) -> tuple[str, bytes]:
    """The node that it ran on, and the pickled outcome."""
    import ray

    def answer() -> Any:
        global _last
        if _last is None or _last[0] != function:
            _last = function, pickle.loads(function)
        return _last[1](pickle.loads(item))

    return ray.get_runtime_context().get_node_id(), applied(answer)
