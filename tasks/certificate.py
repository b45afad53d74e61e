"""The certificate of a study: one digest of all that decides its numbers, and what is needed to check and repeat it.

Equal certificates mean the same data, configuration, code, libraries, seeds and base. It is no signature: whoever can
write to the store can write another.
"""

from __future__ import annotations

import hashlib
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from holdfast.config.base import Config
from holdfast.config.refs import ModelRef, content_key, file_digest
from holdfast.config.study import Study
from tasks import code_version
from tasks.stage_cache import DATA_PATHS, key_content, lock_digest

ARTIFACT = "certificate.json"
TAG = "holdfast.certificate"


class Parts(Config):
    """What decides a study's numbers. The order in which a part was put together changes nothing."""

    data: dict[str, str]
    """DVC's md5 of every file that the study read, samples among them, by path below data/."""
    config: str
    """sha256 of the resolved configuration, without the user's paths, threads and parallelism."""
    code: dict[str, str]
    """sha256 of the sources of each kind of stage, as stage keys have them, and of the user's reward functions."""
    lock: str
    """sha256 of requirements.lock; empty where holdfast is installed without."""
    seeds: tuple[int, ...]
    """The study's seed, then the training seed of each replicate."""
    base: str
    """Digest of the base model's files; of one from the Hub, its commit."""


class Certificate(Config):
    """certificate.json. Only `parts` are in the digest."""

    digest: str
    parts: Parts
    data_version: str = ""
    """The md5 in data.dvc when the study ended: that of data/ as a whole."""
    commit: str = ""
    """Of the code; empty where it was in no git repository."""
    changed: bool = False
    """The sources had changes that are in no commit."""
    environment: dict[str, str] = {}
    """The machine and the libraries that did the arithmetic."""
    results: dict[str, str] = {}
    """sha256 of result.json by run id: each of these names the digests of all files of its run."""
    files: dict[str, str] = {}
    """sha256 of the artifacts of the study's own run."""


def issue(parts: Parts, data_version: str) -> Certificate:
    """A certificate of what has just run here."""
    return Certificate(
        digest=digest(parts),
        parts=parts,
        data_version=data_version,
        commit=code_version.commit(),
        changed=code_version.is_changed(),
        environment=environment(),
    )


def digest(parts: Parts) -> str:
    """sha256 over all parts."""
    return content_key(parts.model_dump(mode="json"))


def parts_of(study: Study, base: ModelRef, data: dict[str, str], code: dict[str, str]) -> Parts:
    """The parts of a study's certificate."""
    replicates = range(1, study.replicates + 1)
    return Parts(
        data=data,
        config=config_digest(study),
        code=code,
        lock=lock_digest(),
        seeds=(study.seed, *map(study.training_seed, replicates)),
        base=base.digest,
    )


def config_digest(study: Study) -> str:
    """sha256 of a resolved configuration. Files that it names count by their content, in other parts."""
    return content_key(key_content(study, DATA_PATHS))


def environment() -> dict[str, str]:
    """What may change last digits: the processor, the system and the versions of what computes."""
    found = {"python": platform.python_version(), "system": platform.system(), "processor": _processor()}
    for package in ("torch", "transformers", "trl", "peft", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def text_digest(text: str) -> str:
    """sha256 of a text as an artifact has it."""
    return hashlib.sha256(text.encode()).hexdigest()


def result_digest(path: Path) -> str:
    """sha256 of the result.json of a run's directory."""
    return file_digest(path / "result.json")


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(errors="replace").splitlines() if info.is_file() else []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return name or platform.processor() or platform.machine()
