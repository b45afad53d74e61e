"""What failed outside of Holdfast in the middle of a study, in one sentence: the disk, or a server that went away."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import requests

from holdfast.errors import UserError, brief

DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
DATABASE = re.compile(
    "database or disk is full|attempt to write a readonly database|disk I/O error|unable to open database file"
)
"""What SQLite says when its file cannot be written; the last where its journal cannot be made beside an open file."""
AGAIN = "and give the same command again"


def outside(error: BaseException) -> str:
    """The sentence; empty where nothing outside failed."""
    for cause in _causes(error):
        if isinstance(cause, UserError):
            return str(cause)
        refused = DATABASE.search(str(cause))
        if refused:
            return f"MLflow's database: cannot be written ({refused[0]}); free some space or make it writable, {AGAIN}."
        if isinstance(cause, requests.exceptions.ConnectionError):
            return f"{_place(cause.request)}: the MLflow server does not answer any more; start it {AGAIN}."
        if isinstance(cause, httpx.TransportError):
            return f"{_place(cause)}: the Prefect server does not answer any more; start it {AGAIN}."
        if isinstance(cause, OSError) and cause.errno in DISK:
            place = cause.filename or os.getcwd()
            said = (cause.strerror or str(cause)).lower()
            return f"{brief(place)}: cannot be written ({said}); free some space or make it writable, {AGAIN}."
    return ""


def _place(asked: object) -> str:
    """The server that was asked, without a password."""
    try:
        url = urlsplit(str(asked.request.url if isinstance(asked, httpx.TransportError) else asked.url))  # type: ignore[attr-defined]
    except (AttributeError, RuntimeError):
        return "its address"
    return f"{url.scheme}://{url.hostname}:{url.port}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
