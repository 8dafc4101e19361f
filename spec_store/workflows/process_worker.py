"""A worker process of `Processes`: takes functions and items from a socket, and answers with outcomes.

It ends when the other end of the socket is closed, in the middle of an item too, as Ctrl-C would end it: so
no worker outlives the process that it works for, however that ended.
"""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from .outcomes import applied

__all__ = ["FUNCTION", "ITEM", "work"]

FUNCTION, ITEM = b"f", b"i"
"""How messages begin: a function for the items to come, or an item."""

_SECONDS_TO_END = 5.0


def work(socket: int) -> None:
    """Answer until the socket, given by its file descriptor, is closed; does not return."""
    # Background jobs hand down that it is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    connection = Connection(socket)
    messages: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_receive, args=(connection, messages), daemon=True).start()
    function = b""
    loaded: Callable[[Any], Any] | None = None

    def answer(item: bytes) -> Any:
        nonlocal loaded
        if loaded is None:
            loaded = pickle.loads(function)
        return loaded(pickle.loads(item))

    try:
        while True:
            message = messages.get()
            kind, content = message[:1], message[1:]
            if kind == FUNCTION:
                function, loaded = content, None
            else:
                connection.send_bytes(applied(partial(answer, content)))
    except (KeyboardInterrupt, OSError):  # nobody is there any more
        os._exit(1)


def _receive(connection: Connection, messages: SimpleQueue[bytes]) -> None:
    """Pass on messages; at their end let the main thread clean up after itself, for a while."""
    try:
        while True:
            messages.put(connection.recv_bytes())
    except (EOFError, OSError):
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        time.sleep(_SECONDS_TO_END)
    os._exit(1)
