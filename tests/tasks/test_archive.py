"""What comes out of an archive is what went in, and nothing that its manifest does not name gets out of it."""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa
import pytest

from holdfast.errors import UserError
from tasks import archive

RUN = f"runs/{'a' * 32}"
CONTENT = b"weights" * 1000


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    source = tmp_path / "weights"
    source.write_bytes(CONTENT)
    (tmp_path / "study").write_text("{}")
    return {"study.json": tmp_path / "study", f"{RUN}/checkpoints/step-1/model.safetensors": source}


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tgz", ".tar.zst"])
def test_an_archive_gives_back_every_byte(suffix: str, files: dict[str, Path], tmp_path: Path):
    packed = tmp_path / f"study{suffix}"
    written = archive.write(packed, "study", files)
    assert archive.open_archive(packed).manifest == written
    opened = archive.extract(packed, tmp_path / "out")
    assert opened.manifest.size == len(CONTENT) + 2
    for name, source in files.items():
        assert (tmp_path / "out" / name).read_bytes() == source.read_bytes()
    plain = packed.read_bytes() if suffix == ".tar" else b""
    assert str(tmp_path).encode() not in plain, "an archive says nothing of where its files lay"
    assert packed.stat().st_size < len(CONTENT) or suffix == ".tar"


def test_two_archives_of_the_same_files_are_the_same_bytes(files: dict[str, Path], tmp_path: Path):
    for name in ("a.tar", "b.tar"):
        archive.write(tmp_path / name, "study", files)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_a_file_that_changes_while_it_is_packed_leaves_no_archive(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def digest_then_change(path: Path) -> str:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        path.write_bytes(path.read_bytes()[:-1] + b"?")
        return found

    monkeypatch.setattr(archive, "file_digest", digest_then_change)
    with pytest.raises(UserError, match="changed while it was exported"):
        archive.write(tmp_path / "study.tar", "study", files)
    assert not list(tmp_path.glob("study.tar*"))


Entry = tuple[tarfile.TarInfo, bytes]


def entry(name: str, content: bytes = CONTENT, kind: bytes = tarfile.REGTYPE, **fields: object) -> Entry:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(content) if kind == tarfile.REGTYPE else 0
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def manifest(*names: str, size: int = len(CONTENT), sha256: str = hashlib.sha256(CONTENT).hexdigest()) -> Entry:
    members = {name: {"size": size, "sha256": sha256} for name in names}
    return entry("manifest.json", json.dumps({"format": 1, "study": "study", "members": members}).encode())


def packed(path: Path, entries: Iterable[Entry]) -> Path:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for info, content in entries:
            tar.addfile(info, io.BytesIO(content))
    return path


WEIGHTS = f"{RUN}/weights"
OUTSIDE = ["../x", "/etc/x", f"{RUN}/../../x", f"{RUN}//x", f"{RUN}/./x", f"{RUN}/a\\b", f"{RUN}/a\nb", "x", "data/x"]
OUTSIDE += ["runs/x/y", "data/../x", "data/a/b/c", f"{RUN}/{'n' * 300}", f"{RUN}/{'n/' * 600}n", "study.json/x"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_that_leads_elsewhere_is_refused(name: str, tmp_path: Path):
    file = packed(tmp_path / "a.tar", [manifest(name), entry(name)])
    with pytest.raises(UserError, match="is no name of a member"):
        archive.extract(file, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def sparse(name: str) -> Entry:
    """A file that is one hole of a terabyte."""
    return entry(name, pax_headers={"GNU.sparse.map": "0,0", "GNU.sparse.size": str(2**40), "GNU.sparse.name": name})


HOSTILE: dict[str, tuple[Callable[[], list[Entry]], str]] = {
    "a symbolic link": (
        lambda: [manifest(WEIGHTS, size=0), entry(WEIGHTS, kind=tarfile.SYMTYPE, linkname="/etc/passwd")],
        "no plain file",
    ),
    "a hard link": (
        lambda: [manifest(WEIGHTS, size=0), entry(WEIGHTS, kind=tarfile.LNKTYPE, linkname="/etc/passwd")],
        "no plain file",
    ),
    "a device": (lambda: [manifest(WEIGHTS, size=0), entry(WEIGHTS, kind=tarfile.CHRTYPE)], "no plain file"),
    "a pipe": (lambda: [manifest(WEIGHTS, size=0), entry(WEIGHTS, kind=tarfile.FIFOTYPE)], "no plain file"),
    "a directory": (lambda: [manifest(WEIGHTS, size=0), entry(WEIGHTS, kind=tarfile.DIRTYPE)], "no plain file"),
    "a file of holes": (lambda: [manifest(WEIGHTS, size=2**40), sparse(WEIGHTS)], "are free at|no plain file"),
    "another size": (lambda: [manifest(WEIGHTS, size=1), entry(WEIGHTS)], "no plain file of the size"),
    "another content": (lambda: [manifest(WEIGHTS), entry(WEIGHTS, CONTENT[::-1])], "has not the digest"),
    "an unknown member": (lambda: [manifest(WEIGHTS), entry(f"{RUN}/other")], "not in its manifest"),
    "a member twice": (
        lambda: [manifest(WEIGHTS, f"{RUN}/b"), entry(WEIGHTS), entry(WEIGHTS)],
        "not in its manifest, or there twice",
    ),
    "a missing member": (lambda: [manifest(WEIGHTS, f"{RUN}/b"), entry(WEIGHTS)], "is cut off"),
    "more than the disk": (lambda: [manifest(WEIGHTS, size=2**60), entry(WEIGHTS)], "are free at"),
    "no manifest": (lambda: [entry(WEIGHTS)], "does not begin with a manifest"),
    "an unknown format": (lambda: [entry("manifest.json", b'{"format": 2, "study": "s", "members": {}}')], "format"),
    "a name for a study that is a path": (
        lambda: [entry("manifest.json", b'{"format": 1, "study": "../s", "members": {}}')],
        "study",
    ),
    "a header that never ends": (
        lambda: [manifest(WEIGHTS), entry(WEIGHTS, pax_headers={"comment": "c" * 2**22})],
        "larger than the archive's manifest says",
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_archives_are_refused_in_a_sentence(what: str, tmp_path: Path):
    entries, sentence = HOSTILE[what]
    file = packed(tmp_path / "a.tar", entries())
    with pytest.raises(UserError, match=sentence) as refusal:
        archive.extract(file, tmp_path / "out")
    assert str(file) in str(refusal.value)
    inside = [path for path in (tmp_path / "out").rglob("*") if not path.is_dir()]
    assert all(path.is_relative_to(tmp_path / "out" / RUN) and not path.is_symlink() for path in inside)


@pytest.mark.parametrize(("suffix", "kind"), [(".tar.gz", "gzip"), (".tar.zst", "zstd")])
def test_what_unpacks_to_more_than_it_says_stops_there(suffix: str, kind: str, tmp_path: Path):
    """Zeros take next to nothing of an archive."""
    bomb = tmp_path / f"bomb{suffix}"
    with pa.CompressedOutputStream(pa.OSFile(str(bomb), "wb"), kind) as stream:
        info, content = manifest(WEIGHTS)
        stream.write(info.tobuf() + content + bytes(-len(content) % 512))
        info, _ = entry("pax", kind=tarfile.XHDTYPE)
        info.size = 2**26
        stream.write(info.tobuf())
        for _ in range(64):
            stream.write(bytes(2**20))
    with pytest.raises(UserError, match="larger than the archive's manifest says"):
        archive.extract(bomb, tmp_path / "out")


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tar.zst"])
@pytest.mark.parametrize("damage", ["cut off", "a flipped bit", "noise", "empty"])
def test_a_damaged_archive_is_refused_in_a_sentence(damage: str, suffix: str, files: dict[str, Path], tmp_path: Path):
    file = tmp_path / f"a{suffix}"
    archive.write(file, "study", files)
    data = bytearray(file.read_bytes())
    middle = data.find(CONTENT[:64]) + 100 if suffix == ".tar" else len(data) // 2
    flipped = bytes([*data[:middle], data[middle] ^ 4, *data[middle + 1 :]])
    given = {"cut off": bytes(data[:middle]), "a flipped bit": flipped, "noise": b"no archive" * 999, "empty": b""}
    file.write_bytes(given[damage])
    with pytest.raises(UserError, match=r"a\.tar"):
        archive.extract(file, tmp_path / "out")


def test_names_that_say_nothing_of_the_compression_and_files_that_are_not_there_are_refused(tmp_path: Path):
    with pytest.raises(UserError, match="no name of an archive"):
        archive.compression(tmp_path / "study.zip")
    with pytest.raises(UserError, match="is not there"):
        archive.open_archive(tmp_path / "study.tar")
    (tmp_path / "folder.tar").mkdir()
    with pytest.raises(UserError, match="is a directory"):
        archive.open_archive(tmp_path / "folder.tar")
