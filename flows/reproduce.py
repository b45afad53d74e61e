"""From the name of a study or a run to a directory with all that is needed to run it again: data, settings, code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from flows.rerun import JOB, Part, differing_code
from holdfast.errors import UserError, writing
from tasks import code_version, recorded
from tasks.certificate import Certificate
from tasks.data_restore import restore_data
from tasks.recorded import RecordedStudy
from tasks.tracking import Store

DONE = "comparison.json"
"""In the directory of a reproduction that was compared; another one begins in another directory."""
PLACES = Path("mlruns") / "reproduced"
ABOUT_TRAINING = ("train", "evaluate", "influence", "data")


class Target(NamedTuple):
    """What is to be run again."""

    study: RecordedStudy
    part: Part
    label: str
    """Names its directory."""

    @property
    def certificate(self) -> Certificate:
        assert self.study.certificate is not None
        return self.study.certificate


def target_of(name: str, store: Store) -> Target:
    """What a study's name or a run's id means.

    Raises:
        UserError: there is no such study or run, it has no certificate, or nothing of it can be run alone.
    """
    study, part = _named(name, store)
    if study.certificate is None:
        raise UserError(
            f"{name}: has no certificate, which says what to run; run the study again, which finds all and writes one."
        )
    arm = f"-{part.arm}-r{part.replicate}" if part.arm else "-base" if part.scope == "base" else ""
    return Target(study, part, f"{study.name}{arm}-{study.run.info.run_id[:8]}")


def _named(name: str, store: Store) -> tuple[RecordedStudy, Part]:
    if not store.named(name) and recorded.RUN_ID.fullmatch(name):
        run = recorded.active(store.run(name), store)
        if run.data.tags.get("holdfast.kind") not in ("study", "sweep"):
            return recorded.study_of_run(run, store), _part_of(run)
    found = recorded.recorded_studies(name, store)
    if len(found) > 1:
        names = ", ".join(study.name for study in found)
        raise UserError(f"{name}: is a sweep; name one of its studies: {names}.")
    return found[0], Part()


def _part_of(run: Any) -> Part:
    tags = run.data.tags
    kind, arm = tags.get("holdfast.kind", ""), tags.get("holdfast.arm", "")
    if not arm and kind in ("evaluate", "base"):
        return Part(scope="base")
    if not arm or kind not in ABOUT_TRAINING:
        raise UserError(
            f"{run.info.run_id}: a {kind or 'foreign'} run cannot be run alone; name its study, or a train run of it."
        )
    numbers = {name: int(tags.get(f"holdfast.{name}") or 0) for name in ("replicate", "stage")}
    return Part(scope="training", arm=arm, influence=kind == "influence", **numbers)


def refuse_other_code(target: Target, again: str) -> None:
    """UserError where the code here is not the code that ran; `again` is the command that runs at that commit."""
    issued, name = target.certificate, target.study.name
    differing = differing_code(target.study.finished.study, issued.parts.code, issued.parts.lock)
    if not differing:
        return
    what = f"{name}: the code here is not what ran ({', '.join(differing[:4])}{' …' if len(differing) > 4 else ''})"
    if code_version.is_changed():
        raise UserError(f"{what}: it has changes that are not committed; commit or stash them, or use `{again}`.")
    if _no_commit(issued):
        raise UserError(f"{what}, and {_no_commit(issued)}; check out the code that ran.")
    raise UserError(f"{what}, at commit {issued.commit[:12]}; use `{again}`, which runs there.")


def refuse_lost_code(target: Target) -> None:
    """UserError where no worktree can have the code that ran."""
    reason = _no_commit(target.certificate)
    if reason:
        raise UserError(f"{target.study.name}: {reason}, so no worktree has its code; check out the code that ran.")


def worktree(target: Target, root: Path) -> Path:
    """A worktree at the recorded commit."""
    commit = target.certificate.commit
    place = root / "mlruns" / "worktrees" / commit[:12]
    if not place.is_dir():
        code_version.add_worktree(place, commit)
    return place


def _no_commit(issued: Certificate) -> str:
    """Why git cannot give the code that ran; empty if it can."""
    if not issued.commit:
        return "it ran from no git repository"
    if issued.changed:
        return f"it ran with changes that are in no commit (after {issued.commit[:12]})"
    return "" if code_version.has_commit(issued.commit) else f"its commit {issued.commit[:12]} is no longer in git"


def prepare(target: Target, store: Store, root: Path, command: str) -> Path:
    """A repository of its own with the data and the job; that of an attempt that was interrupted, if there is one.

    Raises:
        UserError: the data cannot be restored, or the configuration is gone.
    """
    config = recorded.config_of(target.study, store)
    place = _place(root / PLACES, target.label)
    issued = target.certificate
    data = restore_data(target.study.finished.data, issued.parts.data, root, place)
    job: dict[str, Any] = {
        "study": config,
        "data": data.model_dump(mode="json"),
        "part": target.part.model_dump(mode="json"),
    }
    job |= {"code": issued.parts.code, "lock": issued.parts.lock, "command": command}
    with writing(place):
        (place / JOB).write_text(json.dumps(job, indent=1))
    return place


def _place(places: Path, label: str) -> Path:
    """The first directory of this label that has no comparison yet."""
    number = 1
    while (place := places / (label if number == 1 else f"{label}-{number}")) and (place / DONE).is_file():
        number += 1
    return place
