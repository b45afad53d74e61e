"""The one exception that is the user's to mend; everything else is a bug of ours and keeps its traceback."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class UserError(Exception):
    """One clear sentence that names the file or field and the remedy. The command line prints it and exits with 2."""


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
