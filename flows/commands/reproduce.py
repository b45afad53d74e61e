"""`holdfast reproduce`: check what is needed, run it in a process of its own, and print how it differs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from rich.table import Table

from flows.commands.results import console
from flows.difference import Bytes, Comparison, compared
from flows.reproduce import Target, prepare, refuse_lost_code, refuse_other_code, target_of, worktree
from flows.rerun import ANSWER, JOB, Reproduced, Rerun
from flows.rerun import rerun as run_again
from tasks import certificate, code_version
from tasks.data_version import PUSH
from tasks.tracking import open_store

SHOWN = 5
"""Names of differing files that are printed of a kind."""
OWN = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "VIRTUAL_ENV", PUSH)
"""Environment variables that would lead the new run to the store that has the old one, to other packages, or to a
remote that its own repository does not have."""


def reproduce_recorded(name: str, use_worktree: bool, root: Path) -> int:
    """Run a study or a run again and compare; returns the command's exit code.

    UserError where it cannot be run again, before anything is.
    """
    store = open_store(root)
    target = target_of(name, store)
    command = f"holdfast reproduce {name}"
    if use_worktree:
        refuse_lost_code(target)
    else:
        refuse_other_code(target, f"{command} --worktree")
    code, python = code_version.CODE, Path(sys.executable)
    place = prepare(target, store, root, command)
    if use_worktree:
        code = worktree(target, root)
        console.print(f"Worktree at commit {target.certificate.commit[:12]}: {code}", soft_wrap=True)
        python = code_version.make_environment(code)
    else:
        _tell_environment(target)
    failed = _run(place, python, code, root)
    if failed:
        return failed
    found = compared(target, store, place)
    _print(found, target, place)
    return 0 if found.within else 1


def rerun_job(place: Path) -> None:
    """What the new process does: run the job in a reproduction's directory and leave the answer there."""
    job = Rerun.model_validate_json((place / JOB).read_text())
    answer: Reproduced = run_again(job, place)
    (place / ANSWER).write_text(answer.model_dump_json(indent=1))


def _run(place: Path, python: Path, code: Path, root: Path) -> int:
    """Run again in a process of its own; its exit code. Where the command is run, so that paths mean the same."""
    environment = {name: value for name, value in os.environ.items() if name not in OWN}
    if environment.get("PREFECT_LOGGING_LEVEL") == "CRITICAL":
        # What this process set for itself; the new one does as much and more.
        del environment["PREFECT_LOGGING_LEVEL"]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [os.fspath(code), os.environ.get("PYTHONPATH")]))
    # Without -P, flows/ of the directory where the command is run would go before that of the code.
    process = subprocess.Popen([python, "-P", "-m", "flows", "rerun", os.fspath(place)], cwd=root, env=environment)
    try:
        return process.wait()
    except KeyboardInterrupt:
        # The terminal told the process, too.
        process.wait()
        raise
    except BaseException:
        process.terminate()
        process.wait()
        raise


def _tell_environment(target: Target) -> None:
    """Say what is not as it was and may change last digits."""
    now = certificate.environment()
    then = target.certificate.environment
    changed = [f"{name} {then[name]} → {now.get(name, 'none')}" for name in then if then[name] != now.get(name)]
    if changed:
        console.print(f"Not as it was, so last digits may differ: {', '.join(changed)}.", soft_wrap=True)


def _print(found: Comparison, target: Target, place: Path) -> None:
    console.print(_metrics(found))
    console.print()
    console.print(_bytes(found.bytes))
    for one in found.bytes:
        for name in one.differing[:SHOWN]:
            console.print(f"  {one.what} differ: {name}", soft_wrap=True)
        if len(one.differing) > SHOWN:
            console.print(f"  … and {len(one.differing) - SHOWN} more")
    for sentence in found.varying:
        console.print(sentence, soft_wrap=True)
    outside = [one for one in found.metrics if not one.within]
    equal = sum(one.difference == 0 for one in found.metrics)
    verdict = f"{len(outside)} outside their intervals" if outside else "all within their intervals"
    if found.certificate:
        same = found.certificate == target.certificate.digest
        console.print(f"Certificate {found.certificate[:12]}, {'as' if same else 'not as'} recorded.")
    console.print(
        f"\n{target.study.name}: {len(found.metrics)} metrics, {equal} equal, {verdict}. It ran in {place}.",
        soft_wrap=True,
    )


def _metrics(found: Comparison) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2))
    for name in ("arm", "metric", "recorded", "95 % interval", "again", "difference", ""):
        table.add_column(name, justify="left" if name in ("arm", "metric", "") else "right")
    for one in found.metrics:
        interval = "–" if one.low is None or one.high is None else f"{_number(one.low)} to {_number(one.high)}"
        verdict = "" if one.within else "outside"
        table.add_row(
            one.arm,
            one.metric,
            _number(one.recorded),
            interval,
            _number(one.again),
            _number(one.difference, signed=True),
            verdict,
        )
    return table


def _bytes(kinds: list[Bytes]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2))
    for name in ("bytes of", "files", "equal"):
        table.add_column(name, justify="left" if name == "bytes of" else "right")
    for one in kinds:
        table.add_row(one.what, str(one.files), str(one.files - len(one.differing)))
    return table


def _number(value: float | None, signed: bool = False) -> str:
    """With a true minus sign; exactly 0 stands as 0."""
    if value is None or value != value:
        return "–"
    if signed and value == 0:
        return "0"
    return f"{value:{'+' if signed else ''}.4f}".replace("-", "−")
