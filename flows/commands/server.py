"""A Prefect server for the length of one command, where none is configured.

Prefect's own temporary server hears the terminal's Ctrl-C, so a study could no longer tell it that it stopped, and it
outlives a study that is killed. This one runs in a session of its own and ends when its parent's pipe closes. It starts
while the command still imports Prefect, which takes as long as a third of its own start.
"""

from __future__ import annotations

import gc
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from flows.commands.environment import GARBAGE
from holdfast.errors import UserError, brief
from tasks.redaction import redacted

ERROR = re.compile(r"[\w.]+(Error|Exception)\b.*:")
START_LIMIT = 120.0
"""Seconds; on busy cores a start takes more than ten."""
STARTS = 5
"""Of servers in place of ones that died."""


@contextmanager
def prefect_server() -> Iterator[Callable[[], None]]:
    """Start a server unless one is configured; the block calls what it gets before it needs the server."""
    if os.environ.get("PREFECT_API_URL"):
        check_server()
        yield lambda: None
        return
    with TemporaryFile("w+") as said, ExitStack() as stack:
        server = stack.enter_context(_Server(said))
        from prefect.settings import (
            PREFECT_API_URL,
            PREFECT_LOGGING_TO_API_ENABLED,
            get_current_settings,
            temporary_settings,
        )

        if get_current_settings().api.url is not None:
            # By a profile of Prefect's, which only Prefect can read.
            stack.close()
            check_server()
            yield lambda: None
            return
        # Nobody can read the logs of flows in it afterwards.
        stack.enter_context(temporary_settings({PREFECT_API_URL: server.url, PREFECT_LOGGING_TO_API_ENABLED: False}))
        yield server.wait


class _Server:
    """A server that starts, and ends with the block. Once it was ready, one that dies is started again at its address,
    where clients still try: what flows have told it stands in Prefect's database."""

    def __init__(self, said: IO[str]) -> None:
        self._said, self._port = said, 0
        self._ready, self._ended = threading.Event(), threading.Event()
        self._starting = threading.Lock()

    def __enter__(self) -> _Server:
        self._process = self._start()
        threading.Thread(target=self._keep, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._starting:
            self._ended.set()
        self._process.__exit__(None, None, None)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/api"

    def wait(self) -> None:
        """Until it answers. UserError where it does not start."""
        _await(self.url, self._said)
        self._ready.set()

    def _start(self) -> subprocess.Popen[bytes]:
        with socket.create_server(("127.0.0.1", self._port)) as listening:
            self._port = listening.getsockname()[1]
            # The socket listens already: a request waits in it until the server is there.
            return subprocess.Popen(
                [sys.executable, "-m", "flows.commands.server", str(listening.fileno())],
                stdin=subprocess.PIPE,
                stderr=self._said,
                pass_fds=[listening.fileno()],
                start_new_session=True,
            )

    def _keep(self) -> None:
        for _ in range(STARTS):
            self._process.wait()
            with self._starting:
                if self._ended.is_set() or not self._ready.is_set():
                    return
                self._process = self._start()
            from tasks import progress

            progress.warn("Prefect's temporary server has died; another one takes its place")


def check_server() -> None:
    """Ask the configured server for something small, once. UserError where that fails."""
    import httpx
    from prefect.settings import get_current_settings

    from tasks.server_probe import LIMIT, with_timeout

    url = get_current_settings().api.url or ""
    try:
        with_timeout(LIMIT, _ask)
    except httpx.HTTPStatusError as error:
        raise UserError(redacted(f"{url}: {_refusal(error.response.status_code)}")) from error
    except (OSError, httpx.TransportError, httpx.InvalidURL) as error:
        reason = str(error) or f"within {LIMIT:.0f} s"
        sentence = (
            f"{url}: no Prefect server answers there ({reason[:100]}); start it (`make ui`), correct PREFECT_API_URL, "
            f"which begins with http:// and ends in /api, or unset it."
        )
        raise UserError(redacted(sentence)) from error
    except Exception as error:
        raise UserError(redacted(f"{url}: {NO_API}")) from error


NO_API = "there is no Prefect API of this version at this address; PREFECT_API_URL ends in /api, or is unset."


def _refusal(code: int) -> str:
    if code in (401, 403):
        return (
            f"the Prefect server refuses the user or the key ({code}); set PREFECT_API_AUTH_STRING=USER:PASSWORD, or "
            f"PREFECT_API_KEY."
        )
    if code in (500, 502, 503, 504):
        return f"the Prefect server answers with error {code}; look at its log, or try again later."
    return NO_API


def _ask() -> None:
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_REQUEST_TIMEOUT, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    once = {PREFECT_CLIENT_MAX_RETRIES: 0, PREFECT_API_REQUEST_TIMEOUT: 5.0}
    with temporary_settings(once), get_client(sync_client=True) as client:
        client.read_flows(limit=1)


def _await(url: str, said: IO[str]) -> None:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=START_LIMIT):
            return
    except OSError as error:
        said.seek(0)
        # The last exception's own line, which ends its traceback.
        lines = [line.strip() for line in said if ERROR.match(line)]
        raise UserError(
            f"Prefect's temporary server did not start ({brief(lines[-1] if lines else error, 120)}); "
            "see `holdfast doctor`."
        ) from None


def _serve(descriptor: int) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Imports make objects for good, and searches among them take a tenth of the start.
    gc.disable()
    import uvicorn
    from prefect.server.api.server import create_app

    with _a_database_of_this_version():
        config = uvicorn.Config(create_app(ephemeral=True, final=True), log_level="error")
        gc.freeze()
        gc.enable()
        gc.set_threshold(GARBAGE)
        uvicorn.Server(config).run(sockets=[socket.socket(fileno=descriptor)])


@contextmanager
def _a_database_of_this_version() -> Iterator[None]:
    """Within, Prefect's own database, or one beside it where a newer Prefect has changed that.

    Environments share `PREFECT_HOME`, and the one with vLLM has an older Prefect.
    """
    import prefect
    from prefect.server import database
    from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, get_current_settings, temporary_settings

    home = get_current_settings().home
    shared = home / "prefect.db"
    migrations = Path(database.__file__).parent / "_migrations" / "versions" / "sqlite"
    names = [file.name for file in migrations.glob("*.py")]
    default = f"sqlite+aiosqlite:///{shared}"
    revision = _revision(shared) if PREFECT_API_DATABASE_CONNECTION_URL.value() == default else None
    if revision is None or not names or any(revision in name for name in names):
        yield
        return
    own = f"sqlite+aiosqlite:///{home / f'prefect-{prefect.__version__}.db'}"
    with temporary_settings({PREFECT_API_DATABASE_CONNECTION_URL: own}):
        yield


def _revision(file: Path) -> str | None:
    """Of a database's tables; None where there are none yet, or it cannot be read now."""
    if not file.is_file():
        return None
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as database:
            [(revision,)] = database.execute("SELECT version_num FROM alembic_version").fetchall()
            return str(revision)
    except (sqlite3.Error, ValueError):
        return None


def _end_with_parent() -> None:
    # Python's own reader holds a lock, without which a server that fails cannot end.
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
