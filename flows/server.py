"""A Prefect server for the length of one command, where none is configured.

Prefect's own temporary server hears the terminal's Ctrl-C, so a study could no longer tell it that it stopped, and it
outlives a study that is killed. This one runs in a session of its own and ends when its parent's pipe closes. It starts
while the command still plans.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings

from holdfast.errors import UserError

START_LIMIT = 120.0
"""Seconds; on busy cores a start takes more than ten."""


@contextmanager
def prefect_server() -> Iterator[Callable[[], None]]:
    """Start a server unless one is configured; the block calls what it gets before it needs the server."""
    if get_current_settings().api.url is not None:
        yield lambda: None
        return
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/api"
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.server", str(listening.fileno())],
            stdin=subprocess.PIPE,
            pass_fds=[listening.fileno()],
            start_new_session=True,
        )
    # The socket listens already: a request waits in it until the server is there.
    with process, temporary_settings({PREFECT_API_URL: url}):
        yield lambda: _await(url)


def _await(url: str) -> None:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=START_LIMIT):
            return
    except OSError as error:
        raise UserError(f"Prefect's temporary server did not start ({error}); see `holdfast doctor`.") from None


def _serve(descriptor: int) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import uvicorn
    from prefect.server.api.server import create_app

    config = uvicorn.Config(create_app(ephemeral=True, final=True), log_level="error")
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=descriptor)])


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
