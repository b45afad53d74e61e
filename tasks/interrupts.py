"""Ctrl-C and SIGTERM wait until a call to a database has ended, or a process has started.

An exception that a signal handler raises inside SQLAlchemy can leave a connection that is neither open nor closed: the
interrupt is lost in a destructor, or comes out as an error of the database, or the pool waits for ever. Python swallows
exceptions in what it calls around a fork, too.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Uninterrupted:
    """A client whose calls end before a signal's handler runs."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        return held(found) if callable(found) else found


def held(call: Callable[..., Any]) -> Callable[..., Any]:
    """The call, which ends before a signal's handler runs."""

    @wraps(call)
    def whole(*arguments: Any, **named: Any) -> Any:
        # Handlers run in the main thread alone.
        if threading.current_thread() is not threading.main_thread():
            return call(*arguments, **named)
        with ExitStack() as stack:
            for number in SIGNALS:
                stack.enter_context(_postponed(number))
            return call(*arguments, **named)

    return whole


@contextmanager
def _postponed(number: signal.Signals) -> Iterator[None]:
    """A signal's handler runs as the block ends; at once when the signal comes a second time."""
    handler = signal.getsignal(number)
    if not callable(handler):
        yield
        return
    came: list[tuple[int, Any]] = []

    def postpone(sent: int, frame: Any) -> None:
        if came:
            handler(sent, frame)
        came.append((sent, frame))

    signal.signal(number, postpone)
    try:
        yield
    finally:
        signal.signal(number, handler)
        if came:
            handler(*came[0])
