"""Whether what a study recorded is still what it recorded: every digest is computed anew from the bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from holdfast.config.model import Model
from holdfast.config.refs import file_digest
from holdfast.config.results import Result, RunRecord
from holdfast.config.study import Study
from holdfast.errors import UserError
from holdfast.models.base_ref import reference
from tasks import certificate, data_version, evaluations
from tasks.certificate import Certificate
from tasks.recorded import RecordedStudy, result_of, stage_run
from tasks.stage_cache import RETIRED, retired_files
from tasks.tracking import Store

IN_DATA = ("data",)
"""Stages whose files DVC keeps."""


class Checked(NamedTuple):
    """What was checked of one thing."""

    what: str
    files: int
    size: int
    """Bytes that were read."""
    wrong: tuple[str, ...] = ()
    """What differs or is missing, each with its name."""
    let_go: int = 0
    """Files that `holdfast gc` removed as the study's `checkpoints` says."""


class Verifier:
    """Checks one study; `show` is told what is being read."""

    def __init__(self, study: RecordedStudy, store: Store, root: Path, show: Callable[[str], None]) -> None:
        self.study, self.store, self.root, self.show = study, store, root, show
        self.finished, self.issued = study.finished, study.certificate
        self.models: list[str] = []
        """Digests of the checkpoints that its trainings recorded."""

    def check(self) -> Iterator[Checked]:
        """Everything, in the order in which it came about."""
        yield self._certificate()
        yield self._data()
        if self.issued is not None:
            yield self._base(self.issued)
        for record in self.finished.runs:
            yield self._stage(record)
        yield from self._evaluations()
        yield self._report()

    def _certificate(self) -> Checked:
        """The certificate from its parts, and the parts from what else is recorded."""
        issued, what = self.issued, "certificate"
        if issued is None:
            return Checked(what, 0, 0, (f"{certificate.ARTIFACT} is missing; run the study again, which writes one",))
        config = self.store.artifacts.read(self.study.run, "config.json")
        expected = {
            "its digest": certificate.digest(issued.parts) == issued.digest,
            f"the tag {certificate.TAG}": self.study.run.data.tags.get(certificate.TAG) == issued.digest,
            "that in the report": self.finished.certificate == issued.digest,
            "config.json": config is not None and _config_digest(config) == issued.parts.config,
        }
        wrong = tuple(f"{name} differs" for name, is_right in expected.items() if not is_right)
        return Checked(what, 1, len(issued.model_dump_json()), wrong)

    def _data(self) -> Checked:
        """Each file by DVC's md5: in data/, or where it is not there, in DVC's cache."""
        pinned = self.issued.parts.data if self.issued is not None else {}
        wrong, size = [], 0
        for name, md5 in pinned.items():
            self.show(f"data/{name}")
            places = [self.root / "data" / name]
            if (self.root / ".dvc").is_dir():
                places.append(data_version.cache_path(self.root, md5))
            here = [path for path in places if path.is_file()]
            size += sum(path.stat().st_size for path in here)
            wrong += [f"{self._short(path)} differs" for path in here if file_digest(path, "md5") != md5]
            if not here:
                wrong.append(f"data/{name} is neither there nor in DVC's cache")
        return Checked("data", len(pinned), size, tuple(wrong))

    def _base(self, issued: Certificate) -> Checked:
        """The base's weights as they lie here; one that was built is a stage of its own."""
        model = self.finished.study.model
        if model.is_built:
            runs = (stage_run(record, self.store) for record in self.finished.runs if record.kind == "base")
            results = [result for run in runs if run is not None and (result := result_of(run, self.store))]
            found = [checkpoint.digest for result in results for checkpoint in result.checkpoints]
            return Checked("base", 0, 0, () if issued.parts.base in found else ("the base that was built differs",))
        self.show(f"base {model.path}")
        path = Path(model.path)
        if model.path == "bundled" or path.is_dir():
            return self._local_base(issued)
        return hub_base(model.path, issued.parts.base)

    def _local_base(self, issued: Certificate) -> Checked:
        model = self.finished.study.model
        try:
            found = reference(model)
        except UserError as error:
            return Checked("base", 0, 0, (str(error),))
        files = [path for path in Path(found.path).rglob("*") if path.is_file()]
        wrong = () if found.digest == issued.parts.base else (f"{found.path} differs",)
        return Checked("base", len(files), sum(path.stat().st_size for path in files), wrong)

    def _stage(self, record: RunRecord) -> Checked:
        """Every file that a stage's result.json names, and result.json by the certificate."""
        what = " ".join(filter(None, [record.kind, record.arm, f"r{record.replicate}" if record.replicate > 1 else ""]))
        what += f" {record.stage}" if record.stage else " run" if record.kind == "data" else ""
        run = stage_run(record, self.store)
        if run is None:
            return Checked(what, 0, 0, (f"its run {record.run_id} is deleted",))
        recorded = self.issued.results.get(record.run_id) if self.issued is not None else None
        with self.store.artifacts.file(run, "result.json") as path:
            if path is None:
                return Checked(what, 0, 0, ("result.json is missing",))
            wrong = ("result.json differs",) if recorded not in (None, file_digest(path)) else ()
        result = result_of(run, self.store)
        if result is None:
            return Checked(what, 1, 0, ("result.json cannot be read",))
        self.models += [checkpoint.digest for checkpoint in result.checkpoints]
        files = {} if record.kind in IN_DATA else result.files
        found = self._files(run, files, what)
        return found._replace(wrong=wrong + found.wrong)

    def _files(self, run: Any, files: dict[str, str], what: str) -> Checked:
        wrong, missing, size = [], [], 0
        for name, digest in files.items():
            self.show(f"{what}: {name}")
            with self.store.artifacts.file(run, name) as path:
                if path is None:
                    missing.append(name)
                    continue
                size += path.stat().st_size
                if file_digest(path) != digest:
                    wrong.append(f"{name} differs")
                    # The next study goes by sizes and times, and shall see this one, too.
                    with suppress(OSError):
                        path.touch()
        let_go = self._let_go(run).intersection(missing) if missing else set()
        wrong += [f"{name} is missing" for name in missing if name not in let_go]
        return Checked(what, len(files) - len(let_go), size, tuple(wrong), len(let_go))

    def _let_go(self, run: Any) -> frozenset[str]:
        with self.store.artifacts.file(run, RETIRED) as path:
            return frozenset() if path is None else retired_files(path.parent)

    def _evaluations(self) -> Iterator[Checked]:
        """The records that the report read, wherever an evaluation left them; one line for each arm's."""
        base = [self.issued.parts.base] if self.issued is not None else _present_base(self.finished.study.model)
        places: dict[str, tuple[Any, str]] = {}
        for run in evaluations.runs_about(self.store, dict.fromkeys([*base, *self.models])):
            result = result_of(run, self.store) or Result()
            places |= {digest: (run, name) for name, digest in result.files.items()}
        for arm in dict.fromkeys(one.arm for one in self.finished.evaluated):
            what = f"evaluate {arm or 'base'}"
            total = Checked(what, 0, 0)
            for one in self.finished.evaluated:
                if one.arm == arm:
                    found = self._unit(one.file.path, one.file.digest, places, what)
                    total = Checked(what, total.files + 1, total.size + found.size, total.wrong + found.wrong)
            yield total

    def _unit(self, path: Path, digest: str, places: dict[str, tuple[Any, str]], what: str) -> Checked:
        if digest not in places:
            return Checked(what, 1, 0, (f"{'/'.join(path.parts[-3:])} is in no evaluation's record",))
        run, name = places[digest]
        return self._files(run, {name: digest}, what)

    def _report(self) -> Checked:
        """What the study's own run has, by the certificate."""
        return self._files(self.study.run, self.issued.files if self.issued is not None else {}, "report")

    def _short(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)


def _present_base(model: Model) -> list[str]:
    """The digest of the base as it lies here, of a study without a certificate."""
    try:
        return [] if model.is_built else [reference(model).digest]
    except UserError:
        return []


def _config_digest(text: str) -> str:
    try:
        return certificate.config_digest(Study.model_validate_json(text))
    except ValueError:
        return ""


def hub_base(name: str, commit: str) -> Checked:
    """The files of a Hub model's commit in the local cache, whose names there are digests of their content."""
    try:
        place = Path(snapshot_download(name, revision=commit, local_files_only=True))
    except LocalEntryNotFoundError:
        return Checked("base", 0, 0, (f"{name} at {commit} is not in the local cache",))
    files = [path.resolve() for path in sorted(place.rglob("*")) if path.is_file()]
    # Small files are named by git, large ones by their sha256.
    large = [path for path in files if len(path.name) == 64]
    wrong = tuple(f"{path} differs" for path in large if file_digest(path) != path.name)
    return Checked("base", len(large), sum(path.stat().st_size for path in large), wrong)
