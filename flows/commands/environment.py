"""What a command needs of its process before it loads any library: quiet, a home, a way to servers, an end in order.

Children inherit it. Imports nothing heavy.
"""

from __future__ import annotations

import atexit
import gc
import logging
import os
import pwd
import re
import signal
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from types import FrameType
from urllib.parse import unquote, urlsplit

from holdfast.errors import UserError

SETTINGS = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "MLFLOW_LOGGING_LEVEL": "WARNING"}
GARBAGE = 100_000
"""New objects between two searches for garbage: a start makes many objects and nearly no garbage."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")
PROXIES = ("http_proxy", "https_proxy", "all_proxy")
HOST = re.compile(r"[\w.*/-]+(:\d+)?|[0-9a-f:.]*:[0-9a-f:.]*", re.ASCII | re.IGNORECASE)
"""An entry of no_proxy: a name, an address or a network."""
HOMES = {
    "PREFECT_HOME": ".prefect",
    "HF_HOME": ".cache/huggingface",
    "XDG_CACHE_HOME": ".cache",
    "MPLCONFIGDIR": ".config/matplotlib",
    "TRITON_HOME": ".triton",
}
"""Where libraries write below HOME unless these say otherwise."""


class Terminated(BaseException):
    """SIGTERM, which Prefect hands on when a flow has ended in order."""


def prepare_process(root: Path) -> None:
    """Prepare this process; what the caller's environment says already is kept. UserError for a proxy without sense."""
    gc.set_threshold(GARBAGE)
    # Python would search all objects of all libraries once more before it ends, which takes a second.
    atexit.register(gc.freeze)
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    _be_quiet()
    _hide_passwords()
    _reach_loopback()
    _have_a_home(root / "mlruns" / "home")
    _have_a_name()
    # A terminal that closes ends a study as SIGTERM does; `nohup` has it ignored.
    for number, handler in ((signal.SIGTERM, _end), (signal.SIGHUP, _terminate)):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, handler)


def _be_quiet() -> None:
    """Prefect says nothing on the terminal, where failures are told once; what a flow says goes to its server."""
    # A connection to the database that a signal interrupts is given up; no traceback is needed for it.
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
    # It prints a traceback of what it raises as well.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    if "PREFECT_LOGGING_LEVEL" in os.environ:
        return
    os.environ["PREFECT_LOGGING_LEVEL"] = "CRITICAL"
    # Of every event that a server which is away does not take, it would print all.
    os.environ.setdefault("PREFECT_LOGGING_INTERNAL_LEVEL", "CRITICAL")
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        os.environ[f"PREFECT_LOGGING_LOGGERS_{name.replace('.', '_').upper()}_LEVEL"] = "INFO"
        logging.getLogger(name).propagate = False


def _hide_passwords() -> None:
    """Libraries' messages have servers' addresses, so a password in one goes where the clients look for it."""
    for name, put in (("MLFLOW_TRACKING_URI", _put_mlflow), ("PREFECT_API_URL", _put_prefect)):
        with suppress(ValueError):
            parts = urlsplit(os.environ.get(name, ""))
            if parts.scheme in ("http", "https") and parts.password is not None:
                put(unquote(parts.username or ""), unquote(parts.password))
                os.environ[name] = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _put_mlflow(user: str, password: str) -> None:
    os.environ |= {"MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": password}


def _put_prefect(user: str, password: str) -> None:
    os.environ["PREFECT_API_AUTH_STRING"] = f"{user}:{password}"


def _reach_loopback() -> None:
    """No proxy reaches this machine's own servers; one that no client can read is refused."""
    given = ",".join(os.environ.get(name, "") for name in ("no_proxy", "NO_PROXY"))
    # httpx fails on other entries, such as networks of IPv6, whatever is asked; requests does not know them either.
    hosts = dict.fromkeys(host for entry in given.split(",") if HOST.fullmatch(host := entry.strip().strip("[]")))
    if "*" not in hosts:
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join([*hosts, *(h for h in LOOPBACK if h not in hosts)])
    for name, value in list(os.environ.items()):
        if name.lower() in PROXIES and value.strip():
            os.environ[name] = _proxy(name, value.strip())


def _proxy(name: str, value: str) -> str:
    """A proxy's address as every client reads it."""
    # What desktops set.
    value = value.replace("socks://", "socks5://", 1) if value.startswith("socks://") else value
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
        usable = parts.scheme in ("http", "https", "socks5", "socks5h") and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        usable = False
    if not usable:
        raise UserError(
            f"{name}: is no proxy that can be used; write http://HOST:PORT or socks5://HOST:PORT, or unset it."
        )
    return value


def _have_a_home(instead: Path) -> None:
    """Libraries write below HOME; where that cannot be written, below `instead`."""
    home = Path(os.environ.get("HOME") or "/nonexistent")
    # Permissions do not tell of every mount.
    with suppress(OSError), tempfile.TemporaryFile(dir=home):
        return
    instead = _made(instead)
    if not os.access(home, os.R_OK | os.X_OK):
        os.environ["HOME"] = os.fspath(instead)
        return
    profiles = home / ".prefect" / "profiles.toml"
    if os.access(profiles, os.R_OK):
        os.environ.setdefault("PREFECT_PROFILES_PATH", os.fspath(profiles))
    for name, place in HOMES.items():
        # A cache of models that is there can be read.
        if not (name == "HF_HOME" and os.access(home / place, os.R_OK | os.X_OK)):
            os.environ.setdefault(name, os.fspath(instead / place))


def _made(home: Path) -> Path:
    """This directory; where it cannot be made, which the command will tell, one among temporary files."""
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError:
        home = Path(tempfile.gettempdir()) / f"holdfast-{os.getuid()}" / "home"
        with suppress(OSError):
            home.mkdir(parents=True, exist_ok=True)
    return home


def _have_a_name() -> None:
    """Libraries ask for the user's name, which the number of a container's user often lacks."""
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        os.environ.setdefault("LOGNAME", f"uid-{os.getuid()}")


def _end(_signal: int, _frame: FrameType | None) -> None:
    raise Terminated


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    # Whoever still writes to the terminal that is gone would fail.
    for descriptor in (1, 2):
        if stat.S_ISCHR(os.fstat(descriptor).st_mode) and not os.isatty(descriptor):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, descriptor)
            os.close(nowhere)
    os.kill(os.getpid(), signal.SIGTERM)
