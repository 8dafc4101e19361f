"""Which executor does the work: threads of this process, other processes, or a Ray cluster."""

from __future__ import annotations

from typing import Literal, get_args

from ..connector import Source
from ..errors import InputError
from ..executor import IN_PROCESS, Executor
from ..options import check_choice
from .outcomes import pickled
from .processes import Processes
from .ray_tasks import RayTasks

__all__ = ["Engine", "Processes", "RayTasks", "executor_for", "sending_warnings"]

Engine = Literal["threads", "processes", "ray"]

# Of a source that is sent to each worker: more than any table, file or index takes.
_LARGE_SOURCE = 64 << 20


def executor_for(engine: Engine | None, workers: int | None, address: str | None) -> Executor:
    """The executor that a command line asks for.

    Parameters
    ----------
    engine
        None is threads, or processes where a number of workers is given.
    workers
        None is as many as there are cores.
    address
        Of a Ray cluster.

    Raises
    ------
    InputError
        The options don't go together.
    """
    engine = engine or ("threads" if workers is None else "processes")
    check_choice("engine", engine, get_args(Engine))
    if address is not None and engine != "ray":
        raise InputError(f"--address is where a Ray cluster is; the engine is {engine}. Add --engine ray.")
    if engine == "ray":
        return RayTasks(address, workers=workers)
    if engine == "processes":
        return Processes(workers)
    if workers is not None:
        raise InputError("--workers is for the engines processes and ray; threads are set with --threads.")
    return IN_PROCESS


def sending_warnings(source: Source, executor: Executor) -> list[str]:
    """What a person should know before a source is sent to workers.

    Raises UnsupportedError, before any work, where it can't be.
    """
    if not executor.remote:
        return []
    messages = []
    size = len(pickled(source))
    if size > _LARGE_SOURCE:
        messages.append(
            f"{source.describe()} is held in memory, and {size / 1e6:,.0f} MB of it are sent to each of"
            f" {executor.describe()}. Write it to a table or a file, which they then read for themselves."
        )
    return messages
