"""One file that carries a study: a tar whose first member, the manifest, names every other with its size and sha256.

What is read is somebody else's: only plain files that the manifest names come out of it, below one directory, and never
more bytes than it said, however they are compressed.
"""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Annotated, Any, Literal, NamedTuple

import pyarrow as pa
from pydantic import Field, NonNegativeInt, ValidationError

from holdfast.config.base import Config
from holdfast.config.refs import file_digest
from holdfast.errors import UserError, reason, writing

MANIFEST = "manifest.json"
COMPRESSIONS = {".tar": None, ".tar.gz": "gzip", ".tgz": "gzip", ".tar.zst": "zstd"}
MANIFEST_LIMIT = 64 * 2**20
HEADER_LIMIT = 2**18
"""Bytes, decompressed, that may come before a member's own: its headers, and what the reader reads ahead."""
CHUNK = 2**20
NAME = re.compile(r"(study\.json|runs/[0-9a-f]{32}/.+|data/[\w-]+/[\w.-]+|versions/[0-9a-f]{32}\.dir)")
NAME_LIMIT = 1000


class Member(Config):
    """A file of an archive."""

    size: NonNegativeInt
    """In bytes."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Manifest(Config):
    """What an archive has."""

    format: Literal[1] = 1
    study: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
    members: dict[str, Member]

    @property
    def size(self) -> int:
        """Bytes of all members."""
        return sum(member.size for member in self.members.values())


class Opened(NamedTuple):
    """The beginning of an archive."""

    manifest: Manifest
    digest: str
    """sha256 of the manifest: it names the archive, whatever its file is called."""


def compression(path: Path) -> str | None:
    """How a file of this name is compressed. UserError for a name that says nothing of it."""
    for suffix, name in COMPRESSIONS.items():
        if path.name.endswith(suffix):
            return name
    raise UserError(f"{path}: is no name of an archive; let it end with {', '.join(COMPRESSIONS)}.")


def write(path: Path, study: str, files: Mapping[str, Path]) -> Manifest:
    """Write an archive, by its members' names; the file is whole or not there at all.

    Raises:
        UserError: it is there already, cannot be written, or a file changes meanwhile.
    """
    members = {name: Member(size=file.stat().st_size, sha256=file_digest(file)) for name, file in files.items()}
    manifest = Manifest(study=study, members=members)
    partial = path.with_name(f"{path.name}.partial")
    try:
        with writing(path), _compressed(partial, compression(path)) as tar:
            _add(tar, MANIFEST, io.BytesIO(_encoded(manifest)), len(_encoded(manifest)))
            for name, file in files.items():
                _copy_in(tar, name, file, members[name])
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return manifest


def open_archive(path: Path) -> Opened:
    """Read an archive's manifest. UserError where the file is no archive, or names what no archive may hold."""
    with _reading(path) as (tar, stream):
        return _manifest(path, tar, stream)


def extract(path: Path, into: Path) -> Opened:
    """Unpack all members below the new directory `into`, each as the manifest describes it.

    Raises:
        UserError: the disk has no room, the archive is damaged or cut off, or it holds what its manifest does not name.
    """
    with _reading(path) as (tar, stream):
        opened = _manifest(path, tar, stream)
        into.mkdir(parents=True)
        _require_room(path, opened.manifest, into)
        missing = dict(opened.manifest.members)
        while missing:
            stream.left = HEADER_LIMIT
            info = tar.next()
            if info is None:
                raise UserError(f"{path}: is cut off, {next(iter(missing))} is missing; export the study again.")
            member = missing.pop(info.name, None)
            if member is None:
                raise UserError(f"{path}: {info.name} is not in its manifest, or there twice; nothing was imported.")
            _extract_member(tar, info, member, into / info.name, stream)
        return opened


class _Bounded:
    """A stream that gives no more than `left` bytes until it is told a new limit."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.left = file, HEADER_LIMIT

    def read(self, size: int) -> bytes:
        try:
            data = self.file.read(size)
        except OSError as error:
            # As pyarrow says that what is compressed is cut off.
            raise EOFError(reason(error)) from error
        self.left -= len(data)
        if self.left < 0:
            raise UserError("a member is larger than the archive's manifest says")
        return data


@contextmanager
def _reading(path: Path) -> Iterator[tuple[tarfile.TarFile, _Bounded]]:
    """What a damaged file makes of any layer is one sentence."""
    kind = compression(path)
    try:
        with path.open("rb") as file:
            plain: Any = pa.CompressedInputStream(pa.PythonFile(file, "r"), kind) if kind else file
            stream = _Bounded(plain)
            with tarfile.open(fileobj=stream, mode="r|") as tar:  # type: ignore[call-overload]
                yield tar, stream
    except FileNotFoundError:
        raise UserError(f"{path}: is not there; name a file that `holdfast export` wrote.") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a directory; name a file that `holdfast export` wrote.") from None
    except UserError as error:
        raise (error if str(path) in str(error) else UserError(f"{path}: {error}; nothing was imported.")) from None
    except (tarfile.TarError, EOFError, pa.ArrowException, UnicodeError) as error:
        raise UserError(
            f"{path}: is no archive of `holdfast export`, or damaged ({reason(error)}); export the study again."
        ) from error


def _manifest(path: Path, tar: tarfile.TarFile, stream: _Bounded) -> Opened:
    info = tar.next()
    if info is None or info.name != MANIFEST or not _is_plain(info) or info.size > MANIFEST_LIMIT:
        raise UserError(f"{path}: does not begin with a manifest; name a file that `holdfast export` wrote.")
    stream.left = info.size + HEADER_LIMIT
    text = _contents(tar, info).read()
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        what = ".".join(map(str, first["loc"])) or "it"
        raise UserError(f"{path}: its manifest cannot be used ({what}: {first['msg']}); export it again.") from None
    for name in manifest.members:
        if not allowed(name):
            raise UserError(f"{path}: {name!r} is no name of a member; nothing was imported.")
    return Opened(manifest, hashlib.sha256(text).hexdigest())


def allowed(name: str) -> bool:
    """Whether a member may be called so: it lies below the directory into which it is unpacked."""
    parts = name.split("/")
    plain = all(part not in ("", ".", "..") and len(part.encode()) <= 255 for part in parts)
    return plain and len(name) <= NAME_LIMIT and name.isprintable() and "\\" not in name and bool(NAME.fullmatch(name))


def _is_plain(info: tarfile.TarInfo) -> bool:
    """No link, device or directory, and no file with holes that take no bytes."""
    return info.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not info.issparse()


def _require_room(path: Path, manifest: Manifest, into: Path) -> None:
    free = shutil.disk_usage(into).free
    # The files are unpacked first and then given to the store, which may lie on the same disk.
    if 2 * manifest.size > free:
        wanted = 2 * manifest.size / 2**20
        raise UserError(f"{path}: takes {wanted:,.0f} MiB, of which {free / 2**20:,.0f} are free at {into}; free some.")


def _extract_member(
    tar: tarfile.TarFile, info: tarfile.TarInfo, member: Member, target: Path, stream: _Bounded
) -> None:
    if not _is_plain(info) or info.size != member.size:
        raise UserError(f"{info.name} is no plain file of the size that the manifest says")
    stream.left = member.size + HEADER_LIMIT
    digest, source = hashlib.sha256(), _contents(tar, info)
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            while chunk := source.read(CHUNK):
                digest.update(chunk)
                file.write(chunk)
    if digest.hexdigest() != member.sha256:
        raise UserError(f"{info.name} has not the digest that the manifest says")


def _contents(tar: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    contents = tar.extractfile(info)
    assert contents is not None
    return contents


def _encoded(manifest: Manifest) -> bytes:
    return manifest.model_dump_json(indent=1).encode()


@contextmanager
def _compressed(path: Path, kind: str | None) -> Iterator[tarfile.TarFile]:
    with ExitStack() as stack:
        stream: Any = stack.enter_context(path.open("wb"))
        if kind is not None:
            stream = stack.enter_context(pa.CompressedOutputStream(pa.PythonFile(stream, "w"), kind))
        yield stack.enter_context(tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT))


def _copy_in(tar: tarfile.TarFile, name: str, file: Path, member: Member) -> None:
    with file.open("rb") as source:
        hashing = _Hashing(source)
        with suppress(OSError):
            # It is shorter than it was; its digest tells.
            _add(tar, name, hashing, member.size)
        if hashing.digest.hexdigest() != member.sha256:
            raise UserError(f"{file}: changed while it was exported; let what writes it end, and export again.")


class _Hashing:
    """A file that is digested as it is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.digest = file, hashlib.sha256()

    def read(self, size: int) -> bytes:
        data = self.file.read(size)
        self.digest.update(data)
        return data


def _add(tar: tarfile.TarFile, name: str, source: Any, size: int) -> None:
    """Without the owner and the times of the file here."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    tar.addfile(info, source)
