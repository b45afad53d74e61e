"""The one exception that is the user's to mend; everything else is a bug of ours and keeps its traceback."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LONGEST = 400
"""Characters of a message; a user's values can be of any length."""


class UserError(Exception):
    """One clear sentence that names the file or field and the remedy. The command line prints it and exits with 2.

    Of a message that is too long, the middle is left out: it begins with the place and ends with the remedy.
    """

    def __init__(self, message: object) -> None:
        super().__init__(brief(message, LONGEST))


def brief(text: object, longest: int = 60) -> str:
    """A value for a message: on one line, of a long one its beginning and its end, and what is no UTF-8 escaped."""
    # A pasted file need not be split into words whole.
    line = " ".join(_ends(str(text), 4 * longest).split())
    return _ends(line, longest).encode(errors="backslashreplace").decode()


def reason(error: BaseException, longest: int = 100) -> str:
    """What an exception says, for a message of ours: its first line, or else its kind."""
    lines = str(error).strip().splitlines()
    return brief(lines[0] if lines else type(error).__name__, longest).rstrip(".")


def _ends(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    last = longest // 2
    return f"{text[: longest - last - 3]} … {text[-last:]}"


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name the place when the disk refuses: no space, no permission, read-only."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS}:
            raise
        reason = (error.strerror or str(error)).lower()
        raise UserError(f"{path}: cannot be written ({reason}); free some space or make it writable.") from error
