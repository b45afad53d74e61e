"""Whether the tracking store can be used, asked once and quickly before any work: every refusal has its remedy."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import requests
import sqlalchemy

from holdfast.errors import UserError, writing
from tasks.redaction import redacted, without_password

LIMIT = 8.0
"""Seconds for everything that is asked."""
ANSWER_LIMIT = 5.0
"""Seconds for one answer of a server."""
ELSE = "correct MLFLOW_TRACKING_URI, or unset it to use mlruns/mlflow.db."
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
LOCK = 0x686F6C6466617374
"""Number of PostgreSQL's advisory lock under which the tables are made: `holdfast` in ASCII."""
T = TypeVar("T")


def probe(uri: str, request: Callable[[], requests.Response]) -> None:
    """Ask the store at `uri` for something small; a server by `request`, which answers with its experiments.

    Raises:
        UserError: it cannot be used.
    """
    scheme = urlsplit(uri).scheme
    with explained(uri):
        if scheme in ("http", "https"):
            _judge(uri, with_timeout(LIMIT, request))
        elif scheme.split("+")[0] in DATABASES:
            with_timeout(LIMIT, lambda: _connect(uri))


def probe_artifacts(uri: str, request: Callable[[], requests.Response]) -> None:
    """Ask a server for its artifacts: it may answer for runs while the place of their files is gone.

    Raises:
        UserError: it cannot read them.
    """
    with explained(uri):
        answer = with_timeout(LIMIT, request)
        said = _said(answer)
        # A server without artifacts of its own, or one that shows this user only some, answers otherwise.
        if answer.status_code == 500 or (answer.status_code != 200 and said.startswith("Failed to list artifacts")):
            raise UserError(
                f"{without_password(uri)}: the MLflow server cannot read its artifacts ({said}); look whether its "
                f"bucket or directory is there, and its keys are right."
            )


def _said(answer: requests.Response) -> str:
    """What a server says of an error, in a few words."""
    try:
        text = str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        text = answer.text
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return "error 500" if not first or first.startswith("<") else _short(first)


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """Whatever keeps a store from opening ends in one sentence: it is the address's or the server's fault."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        causes = list(_causes(error))
        remedy = _of_address(uri) or _of_server(uri, causes) or _of_database(uri, causes)
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        sentence = remedy or f"cannot be opened ({_short(first)}); {ELSE}"
        raise UserError(redacted(f"{uri}: {sentence}")) from error


@contextmanager
def alone(uri: str) -> Iterator[None]:
    """One process at a time opens a database: MLflow makes the tables of a new one, and takes no lock for it."""
    url = sqlalchemy.make_url(uri) if urlsplit(uri).scheme.split("+")[0] in DATABASES else None
    if url is not None and url.drivername.startswith("postgresql"):
        with sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool).connect() as connection:
            # Released with the connection, also where this process dies.
            connection.execute(sqlalchemy.text(f"select pg_advisory_lock({LOCK})"))
            yield
    elif url is not None and url.drivername.startswith("sqlite") and url.database:
        with Path(f"{url.database}.lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
    else:
        yield


def with_timeout(seconds: float, call: Callable[[], T]) -> T:
    """The call's result, or TimeoutError: names are looked up without any limit of their own."""
    done: list[T] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            done.append(call())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if failed:
        raise failed[0]
    if not done:
        raise TimeoutError
    return done[0]


def _connect(uri: str) -> None:
    url = sqlalchemy.make_url(uri)
    file = Path(url.database) if url.drivername.startswith("sqlite") and url.database else None
    if file is not None:
        with writing(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            if not os.access(file if file.exists() else file.parent, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(file))
        _check(file)
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        sqlalchemy.inspect(connection).get_table_names()


def _check(file: Path) -> None:
    """Where a process died while it wrote, SQLite takes back what it had begun; unless the disk lost what tells it."""
    if not file.with_name(f"{file.name}-journal").is_file():
        return
    with closing(sqlite3.connect(file)) as connection:
        try:
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        except sqlite3.DatabaseError as error:
            found = str(error)
    if found not in ("ok", "database is locked"):
        raise UserError(
            f"{file}: is damaged ({_short(found.splitlines()[-1])}); put a copy of it back, or move it away, after "
            f"which stages run again."
        )


def _judge(uri: str, answer: requests.Response) -> None:
    """Raise UserError unless an MLflow server answered as it should."""
    code, place = answer.status_code, without_password(uri)
    if code == 401:
        raise UserError(
            f"{place}: the MLflow server refuses the user or the password (401); set MLFLOW_TRACKING_USERNAME and "
            f"MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN."
        )
    if code == 403 and "host" in answer.text.lower():
        raise UserError(
            f"{place}: the MLflow server refuses this host name (403); start it with "
            f"--allowed-hosts={urlsplit(uri).netloc.rpartition('@')[2]}, or use a name that it allows."
        )
    if code == 403:
        raise UserError(
            f"{place}: the MLflow server lets this user read no experiments (403); ask for the permission, or set "
            f"MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD of another."
        )
    if code in (500, 502, 503, 504):
        raise UserError(f"{place}: the MLflow server answers with error {code}; look at its log, or try again later.")
    if code != 200 or not _lists_experiments(answer):
        raise UserError(
            f"{place}: there is no MLflow API at this address (answer {code}); MLFLOW_TRACKING_URI is where the "
            f"server begins, for example http://127.0.0.1:5000 without a further path."
        )


def _lists_experiments(answer: requests.Response) -> bool:
    try:
        content = answer.json()
    except ValueError:
        return False
    return isinstance(content, dict) and set(content) <= {"experiments", "next_page_token"}


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _of_address(uri: str) -> str:
    """For what is no address of a store."""
    if re.match(r"[\w.-]+:\d+(/|$)", uri):
        return f"is no address; write http://{uri} in MLFLOW_TRACKING_URI."
    scheme = urlsplit(uri).scheme
    if scheme in ("", "file") and not uri.startswith("databricks"):
        return (
            "MLflow keeps no runs in plain directories any more; set MLFLOW_TRACKING_URI=sqlite:///mlruns/mlflow.db, "
            "or unset it; `mlflow migrate-filestore --source DIRECTORY --target sqlite:///FILE.db` brings old runs "
            "along."
        )
    known = ("", "http", "https", "databricks", *DATABASES)
    if scheme.split("+")[0] not in known:
        return f"MLflow knows no {scheme}://, but http://, https://, sqlite:/// or postgresql://; {ELSE}"
    return ""


def _of_server(uri: str, causes: list[BaseException]) -> str:
    """For a server that cannot be spoken to."""
    if urlsplit(uri).scheme not in ("http", "https"):
        return ""
    said = " ".join(str(error) for error in causes)
    start = f"start it (`make ui`), {ELSE}"
    if "WRONG_VERSION_NUMBER" in said or "record layer failure" in said:
        return "the server speaks no TLS; write http:// instead of https:// in MLFLOW_TRACKING_URI."
    if any(isinstance(error, requests.exceptions.SSLError) for error in causes):
        return "the server's certificate is not trusted; set MLFLOW_TRACKING_SERVER_CERT_PATH to its authority's."
    if any(isinstance(error, requests.exceptions.ProxyError) for error in causes):
        return f"the proxy does not reach it; correct http_proxy, add its host to no_proxy, or {ELSE}"
    if any(isinstance(error, socket.gaierror) for error in causes) or "resolve" in said:
        return f"its host has no address; {ELSE}"
    if any(isinstance(error, TimeoutError | requests.exceptions.Timeout) for error in causes):
        return f"no MLflow server answers there within {LIMIT:.0f} s; {start}"
    if any(isinstance(error, requests.exceptions.ConnectionError) for error in causes) or "refused" in said:
        reason = "connection refused" if "refused" in said else "it closes the connection"
        return f"no MLflow server answers there ({reason}); {start}"
    return ""


def _of_database(uri: str, causes: list[BaseException]) -> str:
    """For a database that refuses, with its own word for it."""
    said = " ".join(str(error) for error in causes)
    local = urlsplit(uri).scheme.startswith("sqlite")
    missing = next((error.name for error in causes if isinstance(error, ModuleNotFoundError)), None)
    if missing:
        package = {"psycopg": "'psycopg[binary]'", "MySQLdb": "mysqlclient"}.get(missing, missing)
        return f"its driver {missing} is not installed; `uv pip install {package}`, {ELSE}"
    if "schema" in said and "upgrade" in said:
        upgrade = f"mlflow db upgrade {without_password(uri)}"
        return f"another version of MLflow made this database; back it up and run `{upgrade}`."
    if any(isinstance(error, TimeoutError) for error in causes):
        return f"no database answers there within {LIMIT:.0f} s; start it, {ELSE}"
    refusal = next((error for error in causes if isinstance(error, sqlalchemy.exc.DBAPIError)), None)
    if refusal is None:
        return ""
    word = _short(str(refusal.orig).strip().splitlines()[0])
    if local:
        return f"is no database of MLflow's that can be opened ({word}); move the file away, or {ELSE}"
    if "password" in word or "auth" in word.lower() or "denied" in word:
        return f"the database refuses the user or the password ({word}); correct them in MLFLOW_TRACKING_URI."
    return f"the database cannot be used ({word}); start it, {ELSE}"


def _short(text: str, most: int = 110) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
