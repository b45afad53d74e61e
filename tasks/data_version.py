"""The versions of data/: what data.dvc pins, and DVC's commands, which record and fetch it.

data.dvc has DVC's md5 of data/ and, under `meta`, the md5 of every file, so that one that differs has a name. DVC keeps
`meta` when it rewrites the file. The list counts only while it hashes to DVC's own md5.

DVC's public Python interface (`dvc.api`) only reads, so its commands are run. Where its cache keeps files and
how it writes down a directory is documented: https://dvc.org/doc/user-guide/project-structure/internal-files.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from holdfast.config.refs import file_digest
from holdfast.errors import UserError, brief, writing
from tasks.redaction import redacted

POINTER = "data.dvc"
PUSH = "HOLDFAST_DVC_PUSH"
"""Environment variable: `true` sends new versions of the data to DVC's remote."""

Listing = dict[str, str]
"""md5 by path relative to data/."""

LOCK_LIMIT = 300.0
"""Seconds to wait for DVC's lock when another program holds it."""
LOCKED = re.compile(r"Unable to acquire lock|is busy, it is being blocked by")
TORN = re.compile(r"^ERROR: Unable to read RWLock-file .+ is corrupted", re.MULTILINE)
"""DVC empties its list of locks before it writes it, and refuses everything where a full disk then left it so."""
ERROR = re.compile(r"^ERROR: (.+)", re.MULTILINE)


class CommandFailed(UserError):
    """A command of DVC's failed; `reason` is what it said."""

    def __init__(self, root: Path, reason: str) -> None:
        super().__init__(f"{root / POINTER}: DVC refuses ({reason}); run `dvc doctor` in {root}.")
        self.reason = reason


def version(root: Path) -> str:
    """DVC's md5 of data/; empty before there is any."""
    document = _read(root)
    return str(document["outs"][0]["md5"]) if document else ""


def listing(root: Path) -> Listing | None:
    """The files that data.dvc pins; None where its list is not the one that DVC hashed."""
    document = _read(root)
    if not document:
        return {}
    files = (document.get("meta") or {}).get("files") or {}
    return files if _directory_md5(files) == document["outs"][0]["md5"] else None


def mended_listing(root: Path) -> Listing:
    """The listing; taken from DVC's cache where someone, or a run that was killed, left data.dvc with an old one."""
    files = listing(root)
    if files is None:
        files = _cached_listing(root)
        _write_listing(root, files)
    return files


def record(root: Path, paths: Iterable[Path]) -> None:
    """Add files below data/ as a new version; where there is none yet, all that lies there. Other data keep their pins.

    A directory would lose what is pinned of it and is not here: DVC takes it for what it has on disk.
    """
    added = sorted(os.fspath(path.relative_to(root)) for path in paths)
    if not added:
        return
    files = mended_listing(root)
    if files:
        cache_directory_object(root, files)
    with _kept(root):
        _dvc(root, "add", "--no-relink", *(added if files else ["data"]))
    _write_listing(root, _cached_listing(root))


def unrecorded(root: Path, paths: Iterable[Path]) -> list[Path]:
    """Those of these files below data/ that data.dvc pins otherwise or not at all, or that DVC's cache lacks."""
    pinned = mended_listing(root)
    found = {path: file_digest(path, "md5") for path in paths}
    return [
        path
        for path, md5 in found.items()
        if pinned.get(path.relative_to(root / "data").as_posix()) != md5 or not cache_path(root, md5).is_file()
    ]


@contextmanager
def _kept(root: Path) -> Iterator[None]:
    """DVC empties data.dvc before it writes; where it then fails, as on a full disk, data.dvc is as it was."""
    pointer, before = root / POINTER, root / ".dvc" / "tmp" / POINTER
    before.unlink(missing_ok=True)
    if pointer.is_file():
        with writing(before):
            before.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(pointer, before)
    try:
        yield
    except BaseException:
        if before.is_file():
            before.replace(pointer)
        else:
            pointer.unlink(missing_ok=True)
        raise
    before.unlink(missing_ok=True)


def push(root: Path) -> None:
    """Give DVC's remote every version that is here, where the environment asks for that.

    Raises:
        UserError: there is no remote, or it does not take them.
    """
    if os.environ.get(PUSH, "").lower() not in ("1", "true", "yes"):
        return
    if not _has_remote(root):
        raise UserError(f"{PUSH}: is set, and DVC has no remote in {root}; add one with `dvc remote add -d`.")
    try:
        _dvc(root, "push", "--quiet")
    except CommandFailed as error:
        raise UserError(
            f"{root / POINTER}: DVC's remote does not take the data ({error.reason}); look whether its bucket and keys "
            f"are there (`dvc remote list`), or unset {PUSH}."
        ) from None


def cached_files(root: Path, files: dict[Path, str]) -> dict[Path, Path]:
    """Where DVC's cache has, or would have, files of one directory whose md5 is given; fetched if there is a remote."""
    cached = {path: cache_path(root, md5) for path, md5 in files.items()}
    if not all(path.is_file() for path in cached.values()) and _has_remote(root):
        cache_directory_object(root, listing(root) or {})
        reason = "it lacks files"
        try:
            _dvc(root, "fetch", os.fspath(next(iter(files)).parent.relative_to(root)))
        except CommandFailed as error:
            reason = error.reason
        if not all(path.is_file() for path in cached.values()):
            print(f"DVC's remote cannot give the data ({reason}); it is made again.", file=sys.stderr)
    return cached


def collect_garbage(root: Path, *options: str) -> str:
    """What `dvc gc` says while it removes, or with --dry would remove, what nothing in its scope uses. Never a
    remote's."""
    return _dvc(root, "gc", "--force", *options)


def fetch_files(root: Path, files: Listing) -> str:
    """Ask the remote for files, by path and md5, into DVC's cache; data.dvc may name another version, and stays.

    Returns why the remote does not give them; empty where it does.
    """
    if not _has_remote(root):
        return "there is no remote"
    cache_directory_object(root, files)
    (root / "mlruns").mkdir(exist_ok=True)
    with TemporaryDirectory(dir=root / "mlruns", prefix="fetch-") as place:
        _write_pointer(Path(place), files)
        try:
            # A pointer that git ignores is none to DVC, unless it knows of no git.
            _dvc(root, "fetch", os.fspath((Path(place) / POINTER).relative_to(root)), scm=False)
        except CommandFailed as error:
            return error.reason
    return "" if all(cache_path(root, md5).is_file() for md5 in files.values()) else "it lacks files"


def pin(root: Path, files: Listing) -> None:
    """Let data.dvc of a new repository name these files, which lie below its data/."""
    with writing(root / POINTER):
        (root / ".dvc").mkdir(parents=True, exist_ok=True)
        (root / ".dvc" / "config").write_text("[core]\n    analytics = false\n    check_update = false\n")
        (root / ".dvcignore").write_text("*.partial\n")
        _write_pointer(root, files)
    _write_listing(root, files)


def _write_pointer(root: Path, files: Listing) -> None:
    out = {"md5": _directory_md5(files), "nfiles": len(files), "hash": "md5", "path": "data"}
    (root / POINTER).write_text(yaml.safe_dump({"outs": [out]}, sort_keys=False))


def cache_path(root: Path, md5: str) -> Path:
    """Where DVC's cache keeps what has this md5."""
    return cache_root(root) / "files" / "md5" / md5[:2] / md5[2:]


def _cached_listing(root: Path) -> Listing:
    md5 = version(root)
    path = cache_path(root, md5)
    if not _is_whole(path) and _has_remote(root):
        path.unlink(missing_ok=True)
        _dvc(root, "fetch")
    if not _is_whole(path):
        raise UserError(
            f"{root / POINTER}: its list of files does not belong to its md5 {md5}, which is not whole in DVC's "
            f"cache ({path}); restore it with `git checkout {POINTER}`."
        )
    return {entry["relpath"]: entry["md5"] for entry in json.loads(path.read_bytes())}


def _is_whole(path: Path) -> bool:
    """Whether the cache has a directory's list, unbroken: its name is its md5."""
    return path.is_file() and hashlib.md5(path.read_bytes()).hexdigest() + ".dir" == path.parent.name + path.name


def _write_listing(root: Path, files: Listing) -> None:
    """Set the list of files beside DVC's md5."""
    document = _read(root)
    document["meta"] = {**(document.get("meta") or {}), "files": files}
    partial = root / f"{POINTER}.partial"
    with writing(root / POINTER):
        partial.write_text(yaml.safe_dump(document, sort_keys=False))
        partial.replace(root / POINTER)


def _read(root: Path) -> dict[str, Any]:
    path = root / POINTER
    if not path.is_file():
        return {}
    try:
        document = yaml.safe_load(path.read_text())
        document["outs"][0]["md5"]
    except (yaml.YAMLError, KeyError, IndexError, TypeError) as error:
        raise UserError(f"{path}: is no pointer that DVC wrote; restore it with `git checkout {POINTER}`.") from error
    return document


def cache_directory_object(root: Path, files: Listing) -> None:
    """Give DVC's cache the directory that data.dvc names; a fresh clone lacks it, and DVC adds nothing to it then."""
    path = cache_path(root, _directory_md5(files))
    if not _is_whole(path):
        partial = path.with_suffix(f".dir.{os.getpid()}.tmp")
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(_directory_object(files))
            partial.replace(path)


def _directory_object(files: Listing) -> bytes:
    """A directory as DVC's cache keeps it."""
    return json.dumps([{"md5": files[path], "relpath": path} for path in sorted(files)]).encode()


def _directory_md5(files: Listing) -> str:
    return hashlib.md5(_directory_object(files)).hexdigest() + ".dir"


@functools.cache
def cache_root(root: Path) -> Path:
    return root / _dvc(root, "cache", "dir")


def _has_remote(root: Path) -> bool:
    return bool(_dvc(root, "config", "core.remote"))


def _dvc(root: Path, *arguments: str, scm: bool = True) -> str:
    """What a command of DVC's prints; waits for a while when another program holds DVC's lock.

    Without `scm`, it does not ask git what is ignored.

    Raises:
        CommandFailed: it fails.
        UserError: the lock stays busy, or DVC cannot write.
    """
    started = time.monotonic()
    waiting = mended = False
    while (done := _run(root, arguments, scm)).returncode != 0:
        if TORN.search(done.stderr) and not mended:
            mended = True
            _forget_torn_locks(root)
            continue
        if not LOCKED.search(done.stderr):
            _raise_failure(root, done.stderr)
        if time.monotonic() - started > LOCK_LIMIT:
            raise UserError(
                f"{root / '.dvc'}: another program has held DVC's lock for {LOCK_LIMIT:.0f} s; "
                f"let it finish, or end it, and run the same command again."
            )
        if not waiting:
            print("Waiting for DVC's lock, which another program holds.", file=sys.stderr)
            waiting = True
    return done.stdout.strip()


def _forget_torn_locks(root: Path) -> None:
    """Remove DVC's list of locks if it cannot be read; whoever is in it could not get out of it either."""
    locks = root / ".dvc" / "tmp" / "rwlock"
    # The lock under which DVC reads and writes the list, so that one that is being written is no torn one.
    with writing(locks), locks.with_suffix(".lock").open("a") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        try:
            if locks.is_file():
                json.loads(locks.read_bytes())
        except ValueError:
            locks.unlink()


def _run(root: Path, arguments: tuple[str, ...], scm: bool = True) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DVC_NO_ANALYTICS": "true"}
    with TemporaryDirectory() as settings:
        if not scm or not (root / ".git").exists():
            # As after `dvc init --no-scm`, with the repository's own settings as they are.
            (Path(settings) / "config").write_text("[core]\n    no_scm = true\n")
            environment["DVC_SYSTEM_CONFIG_DIR"] = settings
        command = [sys.executable, "-m", "dvc", *arguments]
        # In a session of its own: Ctrl-C ends the study, which keeps what was recorded whole.
        return subprocess.run(
            command, cwd=root, env=environment, capture_output=True, text=True, check=False, start_new_session=True
        )


def _raise_failure(root: Path, said: str) -> None:
    found = ERROR.search(said)
    sentence = found[1] if found else (said.strip().splitlines() or ["without a word"])[-1]
    number = re.search(r"\[Errno (\d+)\]", sentence)
    with writing(root / ".dvc"):
        if number:
            raise OSError(int(number[1]), os.strerror(int(number[1])))
    # A remote's address may have its password.
    raise CommandFailed(root, brief(redacted(sentence), 100).rstrip("."))
