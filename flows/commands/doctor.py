"""Look at the machine and the directory before a study does: every line says what is there, and what to do if not."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import psutil
from prefect.settings import get_current_settings

from flows.commands.server import check_server
from holdfast.config.refs import file_digest
from holdfast.errors import UserError
from tasks import data_version, slots
from tasks.redaction import without_password

PACKAGES = ("torch", "transformers", "trl", "peft", "datasets", "mlflow", "prefect", "dvc")
DISK_GIB, MEMORY_GIB, LARGEST = 5, 4, 8


class Finding(NamedTuple):
    """What was looked at, what is there, and the remedy if that is a problem."""

    subject: str
    fact: str
    remedy: str = ""

    def __str__(self) -> str:
        line = f"{'problem' if self.remedy else 'ok':<8} {self.subject:<9} {self.fact}"
        return f"{line}\n{'':<19}→ {self.remedy}" if self.remedy else line


def examine(root: Path) -> list[Finding]:
    """All findings."""
    return [
        versions(),
        python(),
        disk(root),
        memory(),
        gpu(),
        store(root),
        studies(root),
        prefect(),
        dvc(root),
        data(root),
    ]


def python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    remedy = "" if sys.version_info >= (3, 11) else "install Python 3.11 or later, remove .venv and run `make setup`"
    return Finding("python", found, remedy)


def versions() -> Finding:
    found, missing = [], []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    return Finding("packages", ", ".join(found), f"{', '.join(missing)} missing; run `make setup`" if missing else "")


def disk(root: Path) -> Finding:
    free = shutil.disk_usage(root).free / 2**30
    fact = f"{free:.0f} GiB free at {root}"
    if not os.access(root, os.W_OK):
        return Finding("disk", fact, "this directory cannot be written; make it writable or work elsewhere")
    return Finding("disk", fact, "" if free >= DISK_GIB else f"free some space: a study wants {DISK_GIB} GiB")


def memory() -> Finding:
    free = psutil.virtual_memory().available / 2**30
    remedy = "" if free >= MEMORY_GIB else "end other programs, or run one stage at a time: --set compute.parallel=1"
    return Finding("memory", f"{free:.0f} GiB available, {slots.cores()} cores", remedy)


def gpu() -> Finding:
    if shutil.which("nvidia-smi") is None:
        one = "not listed, for want of nvidia-smi; stages run one after another unless compute.device is cpu"
        return Finding("gpu", one if slots.gpus() else "none; studies run on the CPU")
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        return Finding("gpu", "nvidia-smi fails", "reinstall the driver, or go without: --set compute.device=cpu")
    return Finding("gpu", "; ".join(answer.stdout.strip().splitlines()))


def store(root: Path) -> Finding:
    from tasks.tracking import open_store

    try:
        opened = open_store(root)
        return Finding("mlflow", f"{opened.shown}: {len(opened.experiments())} experiments")
    except UserError as error:
        return _refusal("mlflow", error)


def studies(root: Path) -> Finding:
    from tasks.disk_use import by_study, size_of
    from tasks.tracking import open_store
    from tasks.worker import work_directory

    try:
        sizes = by_study(root, open_store(root))
    except UserError as error:
        return _refusal("studies", error)
    largest = [f"{name} {size / 2**20:,.0f} MiB" for name, size in list(sizes.items())[:LARGEST]]
    if len(sizes) > LARGEST:
        rest = sum(list(sizes.values())[LARGEST:])
        largest.append(f"{len(sizes) - LARGEST} others {rest / 2**20:,.0f} MiB")
    work = sum(size_of(place) for place in [work_directory(root)] if place.is_dir())
    fact = ", ".join([*largest, f"unfinished work {work / 2**20:,.0f} MiB"])
    return Finding("studies", f"{fact}; `holdfast gc` lists what can go")


def prefect() -> Finding:
    api = get_current_settings().api.url
    if api is None:
        return Finding("prefect", "PREFECT_API_URL is not set: every study starts a temporary server")
    try:
        check_server()
    except UserError as error:
        return _refusal("prefect", error)
    return Finding("prefect", f"the server at {without_password(api)} answers")


def dvc(root: Path) -> Finding:
    if not (root / ".dvc").is_dir():
        return Finding("dvc", f"{root} is no DVC repository", "run `dvc init` there (`dvc init --no-scm` without git)")
    lock = root / ".dvc" / "tmp" / "lock"
    if lock.is_file() and _locked(lock):
        return Finding("dvc", "another program holds DVC's lock", "let it finish; a study waits for it")
    files = [path for path in (root / ".dvc" / "cache").rglob("*") if path.is_file()]
    return Finding("dvc", f"initialised, {sum(path.stat().st_size for path in files) / 2**20:.0f} MiB in its cache")


def data(root: Path) -> Finding:
    try:
        version, listing = data_version.version(root), data_version.listing(root)
    except UserError as error:
        return Finding("data", "data.dvc cannot be read", str(error))
    if not version:
        return Finding("data", "no data.dvc yet; a study makes the data and records it")
    here = {name: md5 for name, md5 in (listing or {}).items() if (root / "data" / name).is_file()}
    changed = [name for name, md5 in here.items() if file_digest(root / "data" / name, "md5") != md5]
    fact = f"data.dvc {version[:8]}: {len(here)} of {len(listing or {})} files are here, the others come when needed"
    if changed:
        return Finding("data", f"data/{changed[0]} differs from data.dvc", "restore it with `dvc checkout data.dvc`")
    return Finding("data", fact)


def _refusal(subject: str, error: UserError) -> Finding:
    """What a command would refuse, with its remedy."""
    fact, _, remedy = str(error).partition("; ")
    return Finding(subject, fact, remedy.rstrip("."))


def _locked(path: Path) -> bool:
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
