"""Text of a study that means the same on every machine: no place of this one, no password, no id of another store.

Jobs, configurations and reports name directories of artifacts, of the repository and of the installed library, and ids
of runs. In an archive these are words; where it is imported they become the places and the ids that are there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import NoReturn

import holdfast
from holdfast.config.refs import file_digest
from holdfast.config.results import Result
from holdfast.errors import UserError, brief
from tasks import certificate
from tasks.recorded import COMPARED
from tasks.redaction import JSON_PART, holders, redacted, redacted_json

RUN, ROOT, LIBRARY = "holdfast-run:", "holdfast-root:", "holdfast-library:"
RUN_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")
EXPERIMENT = re.compile(r"#/experiments/\d+/runs/")
SUFFIXES = frozenset({".json", ".jsonl", ".txt", ".html", ".md", ".yaml", ".csv", ".svg"})
WEIGHTS = frozenset({"checkpoints", "model", "moments"})
"""Directories whose digest names a model: not a byte of them changes."""
JSON = frozenset({".json", ".jsonl"})
RECORDS = frozenset({"job.json", COMPARED, "stages.json", "result.json", "config.json", certificate.ARTIFACT})
"""What is read again where it is imported: a name in it that is hidden would be another name."""
NAME = re.compile(r'"[\w.-]*"|-?\d.*')


def is_text(name: str) -> bool:
    """Whether a run's artifact is text that may name places and runs."""
    path = PurePosixPath(name)
    return path.suffix in SUFFIXES and path.parts[0] not in WEIGHTS


def run_ids(texts: Iterable[str]) -> set[str]:
    """What looks like ids of runs in texts."""
    return {found for text in texts for found in RUN_ID.findall(text)}


class Neutral:
    """Takes what belongs to this machine out of text. `artifacts` has the directories of runs by their ids.

    Secrets go first, so that none is left whose beginning is a place; places are looked for as they then are.
    """

    def __init__(self, root: Path, artifacts: Mapping[str, Path]) -> None:
        library = Path(holdfast.__file__).parent
        words = {str(path): f"{RUN}{run_id}" for run_id, path in artifacts.items()}
        words |= {str(library): LIBRARY, str(root): ROOT}
        self.words = {redacted(form): word for path, word in words.items() for form in (path, _in_json(path))}
        # A directory of a run lies below the repository, which may hold the library: the longer path first.
        longest = sorted(self.words, key=len, reverse=True)
        self.places = re.compile(rf"({'|'.join(map(re.escape, longest))})(?![\w.-])")

    def __call__(self, text: str, name: str = "") -> str:
        """Of a file of JSON, which its name tells, all stays but values. UserError where that is not enough."""
        text = _without_secrets(text, name) if PurePosixPath(name).suffix in JSON else redacted(text)
        return self.places.sub(lambda found: self.words[found[0]], text)


def _without_secrets(text: str, name: str) -> str:
    clean = redacted_json(text)
    if redacted(clean) != clean:
        if _is_json(text):
            refuse_spoiled(text, name)
        # What is damaged, or none, is read by nobody.
        return redacted(text)
    if PurePosixPath(name).name in RECORDS and _names(clean) != _names(text):
        refuse_spoiled(text, name)
    return clean


def refuse_spoiled(text: str, name: str) -> NoReturn:
    """UserError: hiding the secrets in a file would change names that Holdfast needs."""
    # Other secrets in the file, which can be hidden, are no reason.
    named = holders(" ".join(_names(text, fields=True)))
    of = f"the value of {brief(', '.join(named))}" if named else "a secret"
    raise UserError(
        f"{name}: has {of} in a name that cannot be hidden without spoiling the archive, so nothing was written; "
        f"choose a secret that is no ordinary word, or, if it is none, unset the variable for `holdfast export`."
    )


def _is_json(text: str) -> bool:
    for part in (text, *text.splitlines()):
        with suppress(ValueError):
            json.loads(part)
            return True
    return False


def _names(text: str, fields: bool = False) -> list[str]:
    """Words and numbers of JSON, which are no sentences, places or addresses; and names of fields, if wanted."""
    parts = JSON_PART.finditer(text)
    return [found[0] for found in parts if NAME.fullmatch(found[0]) or (fields and found["name"])]


class Local:
    """Puts this machine's places and ids into text. `ids` has the new id of each run, `artifacts` its directory."""

    def __init__(self, root: Path, ids: Mapping[str, str], artifacts: Mapping[str, Path], experiment: str) -> None:
        self.ids, self.artifacts, self.experiment = ids, artifacts, experiment
        self.words = {f"{RUN}{old}": str(artifacts[new]) for old, new in ids.items()}
        self.words |= {ROOT: str(root), LIBRARY: str(Path(holdfast.__file__).parent)}

    def __call__(self, text: str, in_json: bool = False) -> str:
        for word, path in self.words.items():
            text = text.replace(word, _in_json(path) if in_json else path)
        text = EXPERIMENT.sub(f"#/experiments/{self.experiment}/runs/", text)
        return RUN_ID.sub(lambda found: self.ids.get(found[0], found[0]), text)


def renew_digests(directory: Path, names: Iterable[str]) -> None:
    """Give result.json the digests of these files, which were rewritten."""
    file = directory / "result.json"
    if not file.is_file():
        return
    result = Result.model_validate_json(file.read_text())
    changed = {name: file_digest(directory / name) for name in names if name in result.files}
    if changed:
        file.write_text(result.model_copy(update={"files": {**result.files, **changed}}).model_dump_json())


def _in_json(text: str) -> str:
    """As it stands inside a string of JSON."""
    return json.dumps(text, ensure_ascii=False)[1:-1]
